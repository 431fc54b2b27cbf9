//! The checked configuration: every setting in the type that it is used in.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use secrecy::SecretString;
use url::{Host, Url};

use crate::image::{Scope, ScopeMap};
use crate::policy::Mode;
use crate::redact::shown;

use super::network::Network;

/// The checked configuration, with defaults filled in, and paths made absolute from the file's folder.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The policy folder or file. The gate needs it, the store does not.
    pub policies: Option<PathBuf>,
    /// The maximum time for which the gate decides by a policy whose files can't be loaded again; `None`: no limit.
    pub policy_max_stale: Option<Duration>,
    /// Allows a policy.json whose default accepts any image.
    pub accept_anything_by_default: bool,
    /// The gate's listener.
    pub webhook: Webhook,
    /// The listener of `/metrics`, default `0.0.0.0:9090`; `None` (`listen: off`): there is none.
    pub metrics: Option<SocketAddr>,
    /// The listener of `/healthz` and `/readyz`; `None`: the listener of `/metrics` serves both.
    pub health: Option<SocketAddr>,
    /// Settings for registries.
    pub registries: Registries,
    /// Cache lifetimes.
    pub caches: Caches,
    /// The signature store and its gateway. Only `sealgate gateway` needs it.
    pub gateway: Option<Gateway>,
    /// Bounds on input from outside.
    pub limits: Limits,
}

/// The gate's listener.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// The address of the listener. Default `0.0.0.0:8443`.
    pub listen: SocketAddr,
    /// The listener's certificate.
    pub certificate: Certificate,
    /// PEM file of a CA. Only clients with a certificate of this CA are served; `None`: every client.
    pub client_ca: Option<PathBuf>,
    /// The time limit of a review. Default 8 s, below the webhook's `timeoutSeconds` of 10.
    pub deadline: Duration,
    /// The default mode. Default: enforce.
    pub mode: Mode,
    /// Requires pods to name digests. Default: yes.
    pub pin_required: bool,
    /// Texts in templates that other webhooks replace in pods. Default: none.
    pub placeholders: Vec<Box<str>>,
}

/// The source of a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// PEM files, read again when they change.
    Files {
        /// The chain, the server's own certificate first.
        chain: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// Made by Sealgate if absent, and kept in this folder (`certs/` beside the configuration).
    Made {
        /// The folder.
        folder: PathBuf,
    },
}

/// Settings for registries. Only the entry with the most specific scope applies; without one, the defaults do.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// The entries.
    pub entries: ScopeMap<Arc<Registry>>,
    /// Login files, for servers without an entry, or whose entry has no credentials. `None` for the gate and the store:
    /// only commands that a user calls read login files.
    pub logins: Option<Logins>,
}

/// One `registries` entry.
#[derive(Clone, Debug)]
pub struct Registry {
    /// The entry's scope, which is also the label `registry` of metrics.
    pub scope: Scope,
    /// PEM file of CAs to trust beside the system's, or a folder whose `*.crt` files contain such CAs.
    pub ca_file: Option<PathBuf>,
    /// Allows plain HTTP, and certificates that can't be verified.
    pub insecure: bool,
    /// The scheme to use, if the user wrote it. `None`: TLS, or plain HTTP if the server has no TLS and `insecure` is
    /// set.
    pub scheme: Option<Scheme>,
    /// Credentials for the registry.
    pub credentials: Option<Credentials>,
    /// Token servers outside the registry's own host and domain.
    pub token_realms: Vec<Url>,
    /// Signature sources; `None`: the registry's own extension, if it announces one.
    pub signatures: Option<Vec<SignatureSource>>,
    /// Mirrors: prefixes that hold copies of what is below `scope`. They are asked in this order if the registry can't
    /// be asked.
    pub mirrors: Vec<Box<str>>,
}

/// The scheme of a registry's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP over TLS.
    Https,
    /// Plain HTTP.
    Http,
}

/// The source of credentials.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A name, and a file that contains the password, read again for every token.
    Password {
        /// The name.
        username: Box<str>,
        /// The file. A line end at its end is not part of the password.
        password_file: PathBuf,
    },
    /// A Docker configuration file (`auths`). Sealgate runs no credential helpers for it.
    DockerConfig(PathBuf),
    /// Login files of the user who calls a command. Their credential helpers are run. Only commands construct this
    /// variant; no configuration file leads to it.
    Logins(Logins),
    /// A name and a password from the command line.
    Given {
        /// The name.
        username: Box<str>,
        /// The password.
        password: SecretString,
    },
}

/// Login files, in the order in which they are read. A file that does not exist is skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logins(pub Arc<[LoginFile]>);

/// A login file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginFile {
    /// The path of the file.
    pub path: PathBuf,
    /// The format of the file.
    pub format: LoginFormat,
}

/// The format of a login file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFormat {
    /// The format of Docker's `config.json` and podman's `auth.json`.
    Current,
    /// The format of Docker's `.dockercfg`, which has no `auths`.
    Old,
}

/// A signature source.
#[derive(Clone, PartialEq, Eq)]
pub enum SignatureSource {
    /// The registry's own extension endpoint.
    RegistryExtension,
    /// The extension endpoint of a store at this URL.
    Extension(Url),
    /// The lookaside tree at this URL: http, https or file.
    Lookaside(Url),
}

/// Redacts the query of a lookaside's URL, which may be a secret.
impl fmt::Debug for SignatureSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RegistryExtension => f.write_str("RegistryExtension"),
            Self::Extension(url) => f.debug_tuple("Extension").field(&shown(url)).finish(),
            Self::Lookaside(url) => f.debug_tuple("Lookaside").field(&shown(url)).finish(),
        }
    }
}

/// Cache lifetimes.
#[derive(Clone, Debug)]
pub struct Caches {
    /// The lifetime of the digest that a tag names. Default 30 s.
    pub tag: Duration,
    /// The lifetime of an image's signatures. Default 10 min; the absence of signatures is cached for at most 10 s.
    pub signatures: Duration,
    /// The maximum age of a verification by which an image is admitted while its registry is down. Default 0: never.
    pub last_known_good: Duration,
}

/// The signature store, and the gateway that serves it in front of a registry.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The address of the listener. Default `127.0.0.1:5000`.
    pub listen: SocketAddr,
    /// The listener's certificate; `None`: plain HTTP.
    pub certificate: Option<Certificate>,
    /// Allows every client that reaches the store to add signatures, although other machines can reach it.
    pub anyone_may_sign: bool,
    /// The registry behind the gateway.
    pub registry: Upstream,
    /// The storage of signatures.
    pub store: Store,
    /// The users who may sign; `None`: every client.
    pub access: Option<Access>,
    /// The address by which clients know the store (scheme, host, port); `None`: the `Host` that the client sends.
    pub external_url: Option<Url>,
    /// The proxies whose `X-Forwarded-Host`, `X-Forwarded-Proto` and `X-Forwarded-For` the store believes.
    pub trusted_proxies: Vec<Network>,
}

impl Gateway {
    /// Returns whether other machines reach the store although it may listen on loopback: a proxy forwards their
    /// requests.
    pub fn is_reached_through_others(&self) -> bool {
        !self.trusted_proxies.is_empty() || self.external_url.as_ref().is_some_and(|url| !is_on_loopback(url))
    }
}

/// Returns whether a URL leads to this machine without a network.
pub(crate) fn is_on_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Access control: the users who may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The source of users and roles.
    pub users: Users,
    /// The file with the key that seals tokens, made if absent; `None`: this process makes a key of its own.
    pub token_key: Option<PathBuf>,
}

/// The source of users and roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Users {
    /// Files, read again when they change.
    Htpasswd {
        /// Users and passwords.
        file: PathBuf,
        /// Users and roles.
        roles: PathBuf,
    },
    /// A Kubernetes cluster.
    Kubernetes {
        /// The kubeconfig for the API server; `None`: the pod's service account.
        kubeconfig: Option<PathBuf>,
        /// The accepted audiences of tokens; empty: the API server's own.
        audiences: Vec<Box<str>>,
    },
}

/// The storage of signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A redb file. Default `data/signatures.redb`.
    Redb(PathBuf),
    /// An etcd cluster.
    Etcd(Etcd),
}

/// An etcd cluster, and the store's part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// The URLs of the members: https, or http on loopback. At least one; all have the same scheme.
    pub endpoints: Vec<Url>,
    /// The prefix of all keys of the store. Default `/sealgate`.
    pub prefix: Box<str>,
    /// PEM file of the only CAs to trust for the members. Always set with https.
    pub ca_file: Option<PathBuf>,
    /// The client certificate for the members.
    pub certificate: Option<ClientCertificate>,
    /// The user of etcd as whom the store logs in.
    pub user: Option<EtcdUser>,
}

/// A client certificate: PEM files, read again for each connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain, the client's own certificate first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A user of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdUser {
    /// The name.
    pub name: Box<str>,
    /// The file that contains the password, read again for each connection. A line end at its end is not part of the
    /// password.
    pub password_file: PathBuf,
}

/// The registry behind the gateway.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The registry's URL.
    pub url: Url,
    /// PEM file of CAs to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Token servers outside the registry's own host and domain.
    pub token_realms: Vec<Url>,
    /// Allows plain HTTP beyond loopback to the registry and its token servers.
    pub insecure: bool,
}

/// Bounds on input from outside.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The maximum size of a review, in bytes. Default 8 MiB.
    pub review_bytes: usize,
    /// The maximum size of a manifest, in bytes. Default 4 MiB.
    pub manifest_bytes: usize,
    /// The maximum size of the signatures that one source has of an image, in bytes. Default 4 MiB.
    pub signature_list_bytes: usize,
    /// The maximum number of public-key checks for one manifest. Default 256, which is as many signatures as a store
    /// keeps of one. A check takes about 0.2 ms.
    pub signatures_per_image: usize,
    /// The maximum number of images in one review. Default 128.
    pub images_per_review: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            review_bytes: 8 * MIB,
            manifest_bytes: 4 * MIB,
            signature_list_bytes: 4 * MIB,
            signatures_per_image: 256,
            images_per_review: 128,
        }
    }
}

impl Default for Caches {
    fn default() -> Self {
        Self { tag: Duration::from_secs(30), signatures: Duration::from_mins(10), last_known_good: Duration::ZERO }
    }
}
