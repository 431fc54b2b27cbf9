//! The checked configuration: every setting in the type that it is used in.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use secrecy::SecretString;
use url::{Host, Url};

use crate::image::{Scope, ScopeMap};
use crate::policy::Mode;
use crate::redact::shown;

use super::network::Network;

/// Everything that a configuration file says, defaults filled in, paths made absolute from the file's folder.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The policy folder or file. Needed by the gate, not by the store.
    pub policies: Option<PathBuf>,
    /// How long the gate goes on deciding by a policy that could not be loaded from its files again. `None`: without limit.
    pub policy_max_stale: Option<Duration>,
    /// Whether a policy.json whose default accepts anything may be served.
    pub accept_anything_by_default: bool,
    /// The gate's listener.
    pub webhook: Webhook,
    /// Where /metrics, /healthz and /readyz are served. Default `0.0.0.0:9090`; nothing (`listen: off`): nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where `/healthz` and `/readyz` are served; `None`: where `/metrics` is.
    pub health: Option<SocketAddr>,
    /// How registries are talked to.
    pub registries: Registries,
    /// How long what was learned is kept.
    pub caches: Caches,
    /// The store; needed by `sealgate gateway` alone.
    pub gateway: Option<Gateway>,
    /// Bounds.
    pub limits: Limits,
}

/// The gate's listener.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where it listens. Default `0.0.0.0:8443`.
    pub listen: SocketAddr,
    /// Its certificate.
    pub certificate: Certificate,
    /// PEM file of the CA whose clients alone are served; `None`: every client.
    pub client_ca: Option<PathBuf>,
    /// How long a review may take. Default 8 s: below the webhook's `timeoutSeconds` of 10.
    pub deadline: Duration,
    /// The default mode. Default: enforce.
    pub mode: Mode,
    /// Whether pods must name digests. Default: yes.
    pub pin_required: bool,
    /// Texts in templates that other webhooks replace in pods. Default: none.
    pub placeholders: Vec<Box<str>>,
}

/// Where a server's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// PEM files, read again when they change.
    Files {
        /// The chain, the server's own certificate first.
        chain: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// Made when absent, and kept in this folder (`certs/` beside the configuration).
    Made {
        /// The folder.
        folder: PathBuf,
    },
}

/// How registries are talked to: the most specific scope's entry holds, alone; without one, the defaults.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// The entries.
    pub entries: ScopeMap<Arc<Registry>>,
    /// Login files for the servers whose entry has no credentials, or that have no entry. `None` for the gate and the store:
    /// only a person's command looks for them.
    pub logins: Option<Logins>,
}

/// One `registries` entry.
#[derive(Clone, Debug)]
pub struct Registry {
    /// Its scope; also the metrics' label `registry`.
    pub scope: Scope,
    /// PEM file of CAs that count beside the system's, or a folder whose `*.crt` files are such.
    pub ca_file: Option<PathBuf>,
    /// Plain HTTP, or a certificate that is not checked.
    pub insecure: bool,
    /// The one way in which it is asked, where the user wrote it out; `None`: over TLS, and where `insecure`, without it
    /// if there is none.
    pub scheme: Option<Scheme>,
    /// Credentials, if any.
    pub credentials: Option<Credentials>,
    /// Origins beside its own host and domain that hand out its tokens.
    pub token_realms: Vec<Url>,
    /// Where signatures are; `None`: the registry's own extension, where it announces one.
    pub signatures: Option<Vec<SignatureSource>>,
    /// Prefixes that hold copies of what lies below `scope`; asked in this order when the registry can't be asked.
    pub mirrors: Vec<Box<str>>,
}

/// The beginning of a registry's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Over TLS.
    Https,
    /// Without.
    Http,
}

/// Where credentials come from.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A name and a file with the password, read again for every token.
    Password {
        /// The name.
        username: Box<str>,
        /// The file; a line end at its end does not count.
        password_file: PathBuf,
    },
    /// A Docker configuration file (`auths`). Credential helpers are not run.
    DockerConfig(PathBuf),
    /// Login files of the person who calls. Their credential helpers are run. Commands alone make this: no configuration file
    /// leads to it.
    Logins(Logins),
    /// Name and password, from the command line.
    Given {
        /// The name.
        username: Box<str>,
        /// The password.
        password: SecretString,
    },
}

/// Login files, in the order in which they are read; one that is not there is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logins(pub Arc<[LoginFile]>);

/// A login file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its format.
    pub format: LoginFormat,
}

/// The format of a login file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFormat {
    /// Docker's config.json, podman's auth.json.
    Current,
    /// Docker's .dockercfg, without `auths`.
    Old,
}

/// A place where signatures are found.
#[derive(Clone, PartialEq, Eq)]
pub enum SignatureSource {
    /// The registry's own extension endpoint.
    RegistryExtension,
    /// The extension endpoint of a store at this URL.
    Extension(Url),
    /// A lookaside tree: http, https or file.
    Lookaside(Url),
}

/// The query of a lookaside's URL may be a secret.
impl fmt::Debug for SignatureSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RegistryExtension => f.write_str("RegistryExtension"),
            Self::Extension(url) => f.debug_tuple("Extension").field(&shown(url)).finish(),
            Self::Lookaside(url) => f.debug_tuple("Lookaside").field(&shown(url)).finish(),
        }
    }
}

/// How long what was learned is kept.
#[derive(Clone, Debug)]
pub struct Caches {
    /// Tag to digest. Default 30 s.
    pub tag: Duration,
    /// Signatures of a digest. Default 10 min; "none found" is kept for 10 s at the most.
    pub signatures: Duration,
    /// How long a verified digest may be admitted again while its registry is down. Default 0: never.
    pub last_known_good: Duration,
}

/// The store, in front of a registry.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Where it listens. Default `127.0.0.1:5000`.
    pub listen: SocketAddr,
    /// Its certificate; `None`: plain HTTP.
    pub certificate: Option<Certificate>,
    /// Says that everyone who reaches the store may add signatures, although it is not for this machine alone.
    pub anyone_may_sign: bool,
    /// The registry behind it.
    pub registry: Upstream,
    /// Where signatures are kept.
    pub store: Store,
    /// Who may sign; `None`: everyone.
    pub access: Option<Access>,
    /// The address that clients know the store by: scheme, host, port; `None`: the one that they send.
    pub external_url: Option<Url>,
    /// Proxies whose `X-Forwarded-Host`, `X-Forwarded-Proto` and `X-Forwarded-For` are believed.
    pub trusted_proxies: Vec<Network>,
}

impl Gateway {
    /// Whether others reach it although it may listen on loopback: something passes their requests on.
    pub fn is_reached_through_others(&self) -> bool {
        !self.trusted_proxies.is_empty() || self.external_url.as_ref().is_some_and(|url| !is_on_loopback(url))
    }
}

/// Whether a URL leads to this machine, and over no network.
pub(crate) fn is_on_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Who may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Where users and roles come from.
    pub users: Users,
    /// The file with the key of tokens, made when absent; `None`: a key of this process's own.
    pub token_key: Option<PathBuf>,
}

/// Where users and roles come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Users {
    /// Files, read again when they change.
    Htpasswd {
        /// Names and passwords.
        file: PathBuf,
        /// Names and roles.
        roles: PathBuf,
    },
    /// A Kubernetes cluster.
    Kubernetes {
        /// How its API server is reached; `None`: as a pod's service account.
        kubeconfig: Option<PathBuf>,
        /// Tokens count that are meant for one of these; none: those that are meant for the API server.
        audiences: Vec<Box<str>>,
    },
}

/// Where the store keeps signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A redb file. Default `data/signatures.redb`.
    Redb(PathBuf),
    /// An etcd cluster.
    Etcd(Etcd),
}

/// An etcd cluster, and what of it is the store's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// The members' addresses: https, or http on loopback. At least one, all of one scheme.
    pub endpoints: Vec<Url>,
    /// What all keys begin with. Default `/sealgate`.
    pub prefix: Box<str>,
    /// PEM file of the CAs that alone vouch for the members. There is one with https.
    pub ca_file: Option<PathBuf>,
    /// The certificate that the store shows the members.
    pub certificate: Option<ClientCertificate>,
    /// Who it says it is.
    pub user: Option<EtcdUser>,
}

/// A client's certificate: PEM files, read again with each connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain, the client's own certificate first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A user of etcd's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdUser {
    /// The name.
    pub name: Box<str>,
    /// The file with the password, read again with each connection; a line end at its end does not count.
    pub password_file: PathBuf,
}

/// The registry behind the store.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its address.
    pub url: Url,
    /// PEM file of CAs that count beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Origins beside its own host and domain that hand out its tokens.
    pub token_realms: Vec<Url>,
    /// Whether plain HTTP is spoken beyond loopback with it and its token realms.
    pub insecure: bool,
}

/// Bounds on what comes from outside.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a review. Default 8 MiB.
    pub review_bytes: usize,
    /// Bytes of a manifest. Default 4 MiB.
    pub manifest_bytes: usize,
    /// Bytes of a list of signatures. Default 4 MiB.
    pub signature_list_bytes: usize,
    /// Signatures tried for one manifest. Default 256, which is as many as a store keeps of one. A try takes about 0.2 ms.
    pub signatures_per_image: usize,
    /// Images of one review. Default 128.
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
