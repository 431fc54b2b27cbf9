//! The configuration as it is written; [`super::load()`] checks it.
//!
//! The JSON schema in docs/configuration.schema.json is made from these types, so their comments are for people who write
//! configurations.

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
    /// Which version of this format it is.
    pub(super) api_version: ApiVersion,
    /// What this file is.
    pub(super) kind: Kind,
    /// The policy folder or file. All paths are relative to this file. The gate needs it.
    pub(super) policies: Option<Located<Box<str>>>,
    /// How long the gate goes on deciding by a policy that could not be loaded from its files again; after that it refuses
    /// (`policy-unavailable`). At least `5s`. Left out: without limit.
    pub(super) policy_max_stale: Option<Located<RawDuration>>,
    /// Serve a policy.json whose default accepts anything.
    #[serde(default)]
    pub(super) accept_anything_by_default: bool,
    /// The gate's listener.
    #[serde(default)]
    pub(super) webhook: RawWebhook,
    /// Where /metrics is served.
    #[serde(default)]
    pub(super) metrics: RawMetrics,
    /// Where /healthz and /readyz are served. Left out: beside /metrics.
    pub(super) health: Option<RawHealth>,
    /// How registries are talked to. The most specific scope's entry holds, alone.
    #[serde(default)]
    pub(super) registries: Vec<Lenient<RawRegistry>>,
    /// How long what was learned is kept.
    #[serde(default)]
    pub(super) caches: RawCaches,
    /// The store; `sealgate gateway` needs it.
    pub(super) gateway: Option<RawGateway>,
    /// Bounds on what comes from outside.
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
    /// Its certificate, read again when it changes. Left out: made, and kept in `certs/`.
    pub(super) certificate: Option<RawCertificate>,
    /// PEM file of a CA: only callers with a certificate of it are served. Left out: all callers.
    pub(super) client_ca: Option<Located<Box<str>>>,
    /// How long a review may take; below the webhook's `timeoutSeconds`. Default: `8s`.
    pub(super) deadline: Option<Located<RawDuration>>,
    /// The mode of rules that have none, and where no rule covers an image. Default: `enforce`.
    pub(super) mode: Option<RawMode>,
    /// Whether a pod must name the digest of an image that must be signed. Default: `required`.
    pub(super) pin: Option<RawPin>,
    /// Texts that stand in templates (Deployments and the like) where another webhook writes the image into the pod, like
    /// Istio's `auto`. Templates may have exactly these texts; a pod that has one is judged like any other.
    #[serde(default)]
    pub(super) placeholders: Vec<Located<Box<str>>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Pin")]
pub(super) enum RawPin {
    /// A pod names a digest, or is refused. (/mutate writes it.)
    Required,
    /// Tags may stay: what runs then is what the node pulls, not what was verified.
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

/// How one registry, or a part of it, is talked to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Registry")]
pub(super) struct RawRegistry {
    /// What this entry is about: `*`, `*.example.com`, `host`, `host/namespace`, `host/namespace/repo`.
    pub(super) scope: Located<Box<str>>,
    /// PEM file of CAs that count beside the system's.
    pub(super) ca_file: Option<Located<Box<str>>>,
    /// Plain HTTP, or a certificate that is not checked.
    #[serde(default)]
    pub(super) insecure: bool,
    /// Credentials. Left out: none.
    pub(super) credentials: Option<Located<RawCredentials>>,
    /// Where its tokens come from, if not from its own host or domain, like `https://login.example.com`.
    #[serde(default)]
    pub(super) token_realms: Vec<Located<Box<str>>>,
    /// Where signatures are, asked side by side. Left out: the registry's own extension where it announces one.
    #[schemars(length(min = 1))]
    pub(super) signatures: Option<Located<Vec<Located<Lenient<RawSource>>>>>,
    /// Prefixes that hold copies of what lies below `scope`, like `mirror.example.com/acme`.
    #[serde(default)]
    pub(super) mirrors: Vec<Located<Box<str>>>,
}

/// Either `username` and `passwordFile`, or `dockerConfig`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Credentials")]
pub(super) struct RawCredentials {
    pub(super) username: Option<Located<Box<str>>>,
    /// The file with the password, read again for every token.
    pub(super) password_file: Option<Located<Box<str>>>,
    /// A Docker configuration file with `auths`. Credential helpers are not run.
    pub(super) docker_config: Option<Located<Box<str>>>,
    /// Known only to say that passwords stand in files.
    #[schemars(skip)]
    pub(super) password: Option<Located<IgnoredValue>>,
}

/// A place where signatures are found.
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
    /// Tag to digest. Default: `30s`.
    pub(super) tag: Option<Located<RawDuration>>,
    /// Digest to signatures. Default: `10m`. "None found" is kept for 10 s at the most.
    pub(super) signatures: Option<Located<RawDuration>>,
    /// How long a verified digest may be admitted again while its registry is down. Default: `0s`, not at all.
    pub(super) last_known_good: Option<Located<RawDuration>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Gateway")]
pub(super) struct RawGateway {
    /// Address and port. Default: `127.0.0.1:5000`.
    pub(super) listen: Option<Located<Box<str>>>,
    /// Its certificate. Left out: plain HTTP, on loopback only.
    pub(super) certificate: Option<RawCertificate>,
    /// Everyone who reaches the store may add signatures, although it is not for this machine alone: it listens beyond loopback,
    /// or has an `externalUrl` of another host or `trustedProxies`.
    #[serde(default)]
    pub(super) anyone_may_sign: bool,
    /// The registry that it stands in front of.
    pub(super) registry: RawUpstream,
    /// Where signatures are kept. Default: `{redb: {file: data/signatures.redb}}`.
    pub(super) store: Option<RawStore>,
    /// Who may sign. Left out: everyone who reaches the listener.
    pub(super) access: Option<Located<RawAccess>>,
    /// The address that clients know the store by, `https://host[:port]`. Left out: the `Host` that they send.
    pub(super) external_url: Option<Located<Box<str>>>,
    /// Proxies in front of the store, like `192.0.2.10`, and no other clients: what they say in `X-Forwarded-Host`,
    /// `X-Forwarded-Proto` and `X-Forwarded-For` is believed.
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
    /// The file with the key that seals tokens, made where there is none; replicas share it. Left out: a key of each
    /// process's own.
    pub(super) token_key: Option<Located<Box<str>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Htpasswd")]
pub(super) struct RawHtpasswd {
    /// Users and passwords, as `htpasswd -B` writes them; read again when it changes.
    pub(super) file: Located<Box<str>>,
    /// Their roles; read again when it changes.
    pub(super) roles: Located<Box<str>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Kubernetes")]
pub(super) struct RawKubernetes {
    /// How the API server is reached. Left out: as the service account of the store's pod.
    pub(super) kubeconfig: Option<Located<Box<str>>>,
    /// Tokens count that are meant for one of these. Left out: those that are meant for the API server.
    #[schemars(length(min = 1))]
    pub(super) audiences: Option<Located<Vec<Located<Box<str>>>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Upstream")]
pub(super) struct RawUpstream {
    /// `https://host[:port]` or `http://host[:port]`.
    pub(super) url: Located<Box<str>>,
    /// PEM file of CAs that count beside the system's.
    pub(super) ca_file: Option<Located<Box<str>>>,
    /// Where its tokens come from, if not from its own host or domain, or if from another port of a private host; like
    /// `https://login.example.com`.
    #[serde(default)]
    pub(super) token_realms: Vec<Located<Box<str>>>,
    /// Plain HTTP to the registry, and to its token realms, also beyond loopback: everyone on the way reads the credentials of
    /// callers, and can change what the registry answers. Default false.
    pub(super) insecure: Option<Located<bool>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Store")]
pub(super) enum RawStore {
    /// One file on this machine.
    Redb(RawRedb),
    /// An etcd cluster, which several gateways share.
    Etcd(Box<RawEtcd>),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Redb")]
pub(super) struct RawRedb {
    /// The file. Default: `data/signatures.redb`.
    pub(super) file: Option<Located<Box<str>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Etcd")]
pub(super) struct RawEtcd {
    /// The members: `https://host:2379`, or `http://` on loopback.
    #[schemars(length(min = 1))]
    pub(super) endpoints: Located<Vec<Located<Box<str>>>>,
    /// What all keys of the store begin with. Default: `/sealgate`.
    pub(super) prefix: Option<Located<Box<str>>>,
    /// PEM file of the CAs that vouch for the members, and no others do. Needed with https.
    pub(super) ca_file: Option<Located<Box<str>>>,
    /// The certificate that the members are shown. Left out: none.
    pub(super) certificate: Option<Located<RawCertificate>>,
    /// A user of etcd's. Left out: none.
    pub(super) username: Option<Located<Box<str>>>,
    /// The file with the user's password.
    pub(super) password_file: Option<Located<Box<str>>>,
    /// Known only to say that passwords stand in files.
    #[schemars(skip)]
    pub(super) password: Option<Located<IgnoredValue>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Limits")]
pub(super) struct RawLimits {
    /// Bytes of a review. Default: `8MiB`.
    pub(super) review_bytes: Option<Located<RawSize>>,
    /// Bytes of a manifest. Default: `4MiB`.
    pub(super) manifest_bytes: Option<Located<RawSize>>,
    /// Bytes of a list of signatures. Default: `4MiB`.
    pub(super) signature_list_bytes: Option<Located<RawSize>>,
    /// Signatures that are tried for one manifest. Default: 256.
    #[schemars(range(min = 1))]
    pub(super) signatures_per_image: Option<Located<i64>>,
    /// Images of one review. Default: 128.
    #[schemars(range(min = 1))]
    pub(super) images_per_review: Option<Located<i64>>,
}

/// The longest duration: clocks can't tell times that are too far away, and nothing should be kept for longer.
const MAX_DURATION: std::time::Duration = std::time::Duration::from_hours(8_766);

/// A duration: `30s`, `10m`, `1h 30m`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawDuration(pub(super) std::time::Duration);

/// A number of bytes: `8MiB`, or a plain number.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawSize(pub(super) u64);

/// Whatever stands there is not looked at.
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
