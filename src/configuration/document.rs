//! The raw configuration, as the file has it; [`super::load()`] checks it.
//!
//! `docs/configuration.schema.json` is generated from these types: write their comments for operators.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

use crate::diagnostic::quoted;
use crate::policy::RawMode;
use crate::yaml::{Lenient, Located};

/// The configuration of Sealgate. See docs/configuration.md.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "The configuration of Sealgate")]
pub(super) struct RawConfiguration {
    /// The version of this format.
    pub(super) api_version: ApiVersion,
    /// The kind of document that this file holds.
    pub(super) kind: Kind,
    /// The policy folder or file. The gate needs it. Relative paths, here and below, start at the folder of this file.
    pub(super) policies: Option<Located<Box<str>>>,
    /// The maximum time for which the gate decides by a policy whose files can't be loaded again. After that the gate
    /// refuses every image (`policy-unavailable`). At least `5s`. Default: no limit.
    pub(super) policy_max_stale: Option<Located<RawDuration>>,
    /// Allows a policy.json whose default accepts any image.
    #[serde(default)]
    pub(super) accept_anything_by_default: bool,
    /// The gate's listener.
    #[serde(default)]
    pub(super) webhook: RawWebhook,
    /// The listener of `/metrics`.
    #[serde(default)]
    pub(super) metrics: RawMetrics,
    /// The listener of `/healthz` and `/readyz`. Left out: the listener of `/metrics` serves both.
    pub(super) health: Option<RawHealth>,
    /// Settings for registries. Only the entry with the most specific scope applies.
    #[serde(default)]
    pub(super) registries: Vec<Lenient<RawRegistry>>,
    /// Cache lifetimes.
    #[serde(default)]
    pub(super) caches: RawCaches,
    /// The signature store and its gateway. `sealgate gateway` needs it.
    pub(super) gateway: Option<RawGateway>,
    /// Bounds on input from outside.
    #[serde(default)]
    pub(super) limits: RawLimits,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(super) enum ApiVersion {
    #[serde(rename = "sealgate.dev/v1")]
    V1,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(super) enum Kind {
    Configuration,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Webhook")]
pub(super) struct RawWebhook {
    /// Address and port. Default: `0.0.0.0:8443`.
    pub(super) listen: Option<Located<Box<str>>>,
    /// The listener's certificate, read again when it changes. Left out: Sealgate makes one, and keeps it in `certs/`.
    pub(super) certificate: Option<RawCertificate>,
    /// PEM file of a CA. The gate serves only callers with a certificate of this CA. Left out: all callers.
    pub(super) client_ca: Option<Located<Box<str>>>,
    /// The time limit of a review; must be below the webhook's `timeoutSeconds`. Default: `8s`.
    pub(super) deadline: Option<Located<RawDuration>>,
    /// The mode of rules without a mode of their own, and of images that no rule covers. Default: `enforce`.
    pub(super) mode: Option<RawMode>,
    /// Requires a pod to name the digest of an image that must be signed. Default: `required`.
    pub(super) pin: Option<RawPin>,
    /// Placeholder images in templates (Deployments and the like) that another webhook replaces in the pod, like
    /// Istio's `auto`. A template may have exactly these texts; in a pod, they are decided about like any other image.
    #[serde(default)]
    pub(super) placeholders: Vec<Located<Box<str>>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Pin")]
pub(super) enum RawPin {
    /// Refuses a pod that names no digest. (`/mutate` writes the digest.)
    Required,
    /// Allows tags. The node then runs the image that it pulls, which may differ from the one that was verified.
    Off,
}

/// A server's certificate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Certificate")]
pub(super) struct RawCertificate {
    /// PEM file of the chain, the server's own certificate first.
    pub(super) file: Located<Box<str>>,
    /// PEM file of the private key.
    pub(super) key: Located<Box<str>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Metrics")]
pub(super) struct RawMetrics {
    /// Address and port, or `off`. Default: `0.0.0.0:9090`.
    pub(super) listen: Option<Located<Box<str>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Health")]
pub(super) struct RawHealth {
    /// Address and port. Default: `0.0.0.0:9091`.
    pub(super) listen: Option<Located<Box<str>>>,
}

/// Settings for one registry, or a part of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Registry")]
pub(super) struct RawRegistry {
    /// The scope of this entry: `*`, `*.example.com`, `host`, `host/namespace` or `host/namespace/repo`.
    pub(super) scope: Located<Box<str>>,
    /// PEM file of CAs to trust beside the system's.
    pub(super) ca_file: Option<Located<Box<str>>>,
    /// Allows plain HTTP, and certificates that can't be verified.
    #[serde(default)]
    pub(super) insecure: bool,
    /// Credentials for the registry. Left out: none.
    pub(super) credentials: Option<Located<RawCredentials>>,
    /// URLs of token servers outside the registry's own host and domain, like `https://login.example.com`.
    #[serde(default)]
    pub(super) token_realms: Vec<Located<Box<str>>>,
    /// Signature sources, all asked in parallel. Left out: the registry's own extension, if it announces one.
    #[schemars(length(min = 1))]
    pub(super) signatures: Option<Located<Vec<Located<Lenient<RawSource>>>>>,
    /// Mirrors: prefixes that hold copies of what is below `scope`, like `mirror.example.com/acme`.
    #[serde(default)]
    pub(super) mirrors: Vec<Located<Box<str>>>,
}

/// Either `username` and `passwordFile`, or `dockerConfig`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Credentials")]
pub(super) struct RawCredentials {
    pub(super) username: Option<Located<Box<str>>>,
    /// The file that contains the password, read again for every token.
    pub(super) password_file: Option<Located<Box<str>>>,
    /// A Docker configuration file with `auths`. Sealgate runs no credential helpers for it.
    pub(super) docker_config: Option<Located<Box<str>>>,
    /// Recognized only to report that passwords belong in files.
    #[schemars(skip)]
    pub(super) password: Option<Located<IgnoredValue>>,
}

/// A signature source.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Source")]
pub(super) enum RawSource {
    /// An extension endpoint.
    Extension(RawExtension),
    /// A lookaside tree.
    Lookaside(RawLookaside),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Extension")]
pub(super) struct RawExtension {
    /// A store's URL. Left out: the registry's own endpoint.
    pub(super) url: Option<Located<Box<str>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Lookaside")]
pub(super) struct RawLookaside {
    /// `https://...`, `http://...` or `file:///...`.
    pub(super) url: Located<Box<str>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Caches")]
pub(super) struct RawCaches {
    /// The lifetime of the digest that a tag names. Default: `30s`.
    pub(super) tag: Option<Located<RawDuration>>,
    /// The lifetime of an image's signatures. Default: `10m`. The absence of signatures is cached for at most 10 s.
    pub(super) signatures: Option<Located<RawDuration>>,
    /// The maximum age of a verification by which an image is admitted while its registry is down. Default: `0s`
    /// (never).
    pub(super) last_known_good: Option<Located<RawDuration>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Gateway")]
pub(super) struct RawGateway {
    /// Address and port. Default: `127.0.0.1:5000`.
    pub(super) listen: Option<Located<Box<str>>>,
    /// The listener's certificate. Left out: plain HTTP, which is allowed on loopback only.
    pub(super) certificate: Option<RawCertificate>,
    /// Allows every client that reaches the store to add signatures, although other machines can reach it: it listens
    /// beyond loopback, or has an `externalUrl` of another host or `trustedProxies`.
    #[serde(default)]
    pub(super) anyone_may_sign: bool,
    /// The registry behind the gateway.
    pub(super) registry: RawUpstream,
    /// The storage of signatures. Default: `{redb: {file: data/signatures.redb}}`.
    pub(super) store: Option<RawStore>,
    /// The users who may sign. Left out: every client that reaches the listener.
    pub(super) access: Option<Located<RawAccess>>,
    /// The address by which clients know the store, `https://host[:port]`. Left out: the `Host` that the client sends.
    pub(super) external_url: Option<Located<Box<str>>>,
    /// The proxies in front of the store, like `192.0.2.10`, and no other clients. The store believes their
    /// `X-Forwarded-Host`, `X-Forwarded-Proto` and `X-Forwarded-For`.
    #[serde(default)]
    pub(super) trusted_proxies: Vec<Located<Box<str>>>,
}

/// Either `htpasswd` or `kubernetes`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Access")]
pub(super) struct RawAccess {
    /// Users and roles in files.
    pub(super) htpasswd: Option<Located<RawHtpasswd>>,
    /// Users and roles of a Kubernetes cluster.
    pub(super) kubernetes: Option<Located<RawKubernetes>>,
    /// The file with the key that seals tokens. The store makes the file if it does not exist; replicas share it. Left
    /// out: each process makes a key of its own.
    pub(super) token_key: Option<Located<Box<str>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Htpasswd")]
pub(super) struct RawHtpasswd {
    /// Users and passwords, as `htpasswd -B` writes them; read again when the file changes.
    pub(super) file: Located<Box<str>>,
    /// The roles of these users; read again when the file changes.
    pub(super) roles: Located<Box<str>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Kubernetes")]
pub(super) struct RawKubernetes {
    /// The kubeconfig for the API server. Left out: the service account of the store's pod.
    pub(super) kubeconfig: Option<Located<Box<str>>>,
    /// The accepted audiences of tokens. Left out: the API server's own.
    #[schemars(length(min = 1))]
    pub(super) audiences: Option<Located<Vec<Located<Box<str>>>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Upstream")]
pub(super) struct RawUpstream {
    /// `https://host[:port]` or `http://host[:port]`.
    pub(super) url: Located<Box<str>>,
    /// PEM file of CAs to trust beside the system's.
    pub(super) ca_file: Option<Located<Box<str>>>,
    /// URLs of token servers outside the registry's own host and domain, or at another port of a private host; like
    /// `https://login.example.com`.
    #[serde(default)]
    pub(super) token_realms: Vec<Located<Box<str>>>,
    /// Allows plain HTTP beyond loopback to the registry and its token servers. An attacker on the network can then
    /// read the credentials of callers, and change what the registry answers. Default: `false`.
    pub(super) insecure: Option<Located<bool>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Store")]
pub(super) enum RawStore {
    /// One file on this machine, opened by one process.
    Redb(RawRedb),
    /// An etcd cluster that several gateways share.
    Etcd(Box<RawEtcd>),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Redb")]
pub(super) struct RawRedb {
    /// The database file. Default: `data/signatures.redb`.
    pub(super) file: Option<Located<Box<str>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Etcd")]
pub(super) struct RawEtcd {
    /// The URLs of the members: `https://host:2379`, or `http://` on loopback.
    #[schemars(length(min = 1))]
    pub(super) endpoints: Located<Vec<Located<Box<str>>>>,
    /// The prefix of all keys of the store. Default: `/sealgate`.
    pub(super) prefix: Option<Located<Box<str>>>,
    /// PEM file of the only CAs to trust for the members. Needed with https.
    pub(super) ca_file: Option<Located<Box<str>>>,
    /// The client certificate for the members. Left out: none.
    pub(super) certificate: Option<Located<RawCertificate>>,
    /// The name of a user of etcd. Left out: none.
    pub(super) username: Option<Located<Box<str>>>,
    /// The file that contains the user's password.
    pub(super) password_file: Option<Located<Box<str>>>,
    /// Recognized only to report that passwords belong in files.
    #[schemars(skip)]
    pub(super) password: Option<Located<IgnoredValue>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Limits")]
pub(super) struct RawLimits {
    /// The maximum size of a review. Default: `8MiB`.
    pub(super) review_bytes: Option<Located<RawSize>>,
    /// The maximum size of a manifest. Default: `4MiB`.
    pub(super) manifest_bytes: Option<Located<RawSize>>,
    /// The maximum size of the signatures that one source has of an image. Default: `4MiB`.
    pub(super) signature_list_bytes: Option<Located<RawSize>>,
    /// The maximum number of public-key checks for one manifest. Default: 256.
    #[schemars(range(min = 1))]
    pub(super) signatures_per_image: Option<Located<i64>>,
    /// The maximum number of images in one review. Default: 128.
    #[schemars(range(min = 1))]
    pub(super) images_per_review: Option<Located<i64>>,
}

/// The maximum duration, one year. Clocks can't represent times that are too far away, and no cache needs a longer
/// life.
const MAX_DURATION: std::time::Duration = std::time::Duration::from_hours(8_766);

/// A duration: `30s`, `10m`, `1h 30m`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawDuration(pub(super) std::time::Duration);

/// A number of bytes: `8MiB`, or a plain number.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawSize(pub(super) u64);

/// A value that is skipped, whatever its type.
#[derive(Clone, Copy, Debug)]
pub(super) struct IgnoredValue;

impl<'de> Deserialize<'de> for IgnoredValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl<'de> Deserialize<'de> for RawDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DurationVisitor;

        impl Visitor<'_> for DurationVisitor {
            type Value = RawDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration like 30s or 10m")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RawDuration, E> {
                let duration = humantime::parse_duration(text).map_err(|error| {
                    E::custom(format!("{} is not a duration like 30s or 10m: {error}", quoted(text)))
                })?;
                if duration > MAX_DURATION {
                    return Err(E::custom("a duration is at most a year (1y)"));
                }
                Ok(RawDuration(duration))
            }
        }

        deserializer.deserialize_any(DurationVisitor)
    }
}

impl<'de> Deserialize<'de> for RawSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;

        impl Visitor<'_> for SizeVisitor {
            type Value = RawSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size like 8MiB")
            }

            fn visit_u64<E: Error>(self, bytes: u64) -> Result<RawSize, E> {
                Ok(RawSize(bytes))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RawSize, E> {
                let size = text.parse::<bytesize::ByteSize>();
                size.map(|size| RawSize(size.as_u64()))
                    .map_err(|_| E::custom(format!("{} is not a size like 8MiB", quoted(text))))
            }
        }

        deserializer.deserialize_any(SizeVisitor)
    }
}

impl JsonSchema for RawDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["30s", "10m"] })
    }
}

impl JsonSchema for RawSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "examples": ["8MiB"] })
    }
}

/// The JSON schema of the configuration.
pub fn schema() -> Schema {
    schemars::schema_for!(RawConfiguration)
}
