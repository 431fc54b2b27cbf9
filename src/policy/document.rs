//! Policy documents as they are written; [`super::load()`] checks them.
//!
//! The JSON schema in docs/policy.schema.json is made from these types, so their comments are for people who write
//! policies.

use schemars::JsonSchema;
use serde::Deserialize;

use super::rule::Mode;
use crate::yaml::{Entries, Lenient, Located};

/// The `apiVersion` of all our documents.
pub(crate) const API_VERSION: &str = "sealgate.dev/v1";
/// The kinds of documents that a policy folder may hold.
pub(super) const KINDS: [&str; 3] = ["ClusterSealPolicy", "SealPolicy", "PolicyTest"];

/// A policy: which images may run, and whose signatures they need. See docs/policy.md.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "A policy of Sealgate")]
pub(super) struct RawDocument {
    /// Which version of this format it is.
    #[allow(dead_code)] // Looked at before the document is read.
    api_version: ApiVersion,
    /// `ClusterSealPolicy` holds for the whole cluster; `SealPolicy` is one namespace's, and can only tighten.
    pub(super) kind: Kind,
    pub(super) metadata: RawMetadata,
    pub(super) spec: RawSpec,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
enum ApiVersion {
    #[serde(rename = "sealgate.dev/v1")]
    V1,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
pub(super) enum Kind {
    ClusterSealPolicy,
    SealPolicy,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Metadata")]
pub(super) struct RawMetadata {
    /// The document's name; rules are called `document/rule` in messages, metrics and logs.
    pub(super) name: Located<Box<str>>,
    /// The namespace of a `SealPolicy`.
    pub(super) namespace: Option<Located<Box<str>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Spec")]
pub(super) struct RawSpec {
    /// The mode of this document's rules; without it, the configuration's. A rule may set its own.
    pub(super) mode: Option<RawMode>,
    /// The signers. A name is one signer, whose file may hold several certificates while keys rotate.
    #[serde(default)]
    pub(super) keys: Entries<Lenient<RawKey>>,
    /// The rules. Of those of all documents, the one with the most specific scope decides about an image, alone.
    #[serde(default)]
    pub(super) rules: Vec<Lenient<RawRule>>,
    /// Visible, attributed exceptions that end by themselves.
    #[serde(default)]
    pub(super) exemptions: Vec<Lenient<RawExemption>>,
}

/// The enforcement of a refusal: refuse the image, or let it run with a warning or a log line.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Mode")]
pub(crate) enum RawMode {
    /// It does not run.
    Enforce,
    /// It runs, and the user sees a warning.
    Warn,
    /// It runs, and the audit log tells.
    Audit,
}

impl From<RawMode> for Mode {
    fn from(raw: RawMode) -> Self {
        match raw {
            RawMode::Enforce => Self::Enforce,
            RawMode::Warn => Self::Warn,
            RawMode::Audit => Self::Audit,
        }
    }
}

/// A signer's OpenPGP certificates: in a file, or in the document itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Key")]
pub(super) enum RawKey {
    /// A file, relative to this one, armored or binary.
    File(Located<Box<str>>),
    /// The armored certificates themselves.
    Inline(Located<Box<str>>),
}

/// A rule: exactly one of `require`, `allow` and `deny`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Rule")]
pub(super) struct RawRule {
    /// The rule's name, once in a document.
    pub(super) name: Located<Box<str>>,
    /// The scopes that it covers: `*`, `*.example.com`, `host`, `host/namespace`, `host/namespace/repo`,
    /// `host/namespace/repo@digest`.
    #[schemars(length(min = 1))]
    pub(super) images: Located<Vec<Located<Box<str>>>>,
    /// The rule's own mode.
    pub(super) mode: Option<RawMode>,
    /// Signatures that they need. All entries must hold.
    #[schemars(length(min = 1))]
    pub(super) require: Option<Located<Vec<Lenient<RawRequirement>>>>,
    /// Which signature of an image index counts; left out: either.
    pub(super) platforms: Option<Located<RawPlatforms>>,
    /// They run unsigned.
    pub(super) allow: Option<Located<RawReason>>,
    /// They never run.
    pub(super) deny: Option<Located<RawReason>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Reason")]
pub(super) struct RawReason {
    /// Why; people read it in denials and logs.
    #[schemars(length(min = 1))]
    pub(super) reason: Located<Box<str>>,
}

/// Signed by enough of these signers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Requirement")]
pub(super) struct RawRequirement {
    /// Names of `keys`: any one of these ...
    #[schemars(length(min = 1))]
    pub(super) signed_by: Located<Vec<Located<Box<str>>>>,
    /// ... or this many different ones.
    #[schemars(range(min = 1))]
    pub(super) threshold: Option<Located<i64>>,
    /// The relation between the signed name and the image; left out: `repoDigestOrExact`.
    pub(super) identity: Option<Located<RawIdentity>>,
    /// The oldest that a signature may be, like `90d` or `12h`.
    pub(super) max_age: Option<Located<Box<str>>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Platforms")]
pub(super) enum RawPlatforms {
    /// Only the index's own.
    Index,
    /// Only that of each manifest in it.
    Each,
}

/// The relation between the docker reference inside a signature and the image.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Identity")]
pub(super) enum RawIdentity {
    /// An image by digest: the repository as signed. Else: name and tag as signed.
    RepoDigestOrExact,
    /// Name and tag as signed.
    Exact,
    /// The repository as signed, whatever the tag.
    Repository,
    /// One of the words above.
    Match(RawMatch),
    /// This reference must be signed, whatever was asked for.
    ExactReference(Located<Box<str>>),
    /// This repository must be signed, whatever was asked for.
    ExactRepository(Located<Box<str>>),
    /// The image's name with one prefix replaced by another, then as `repoDigestOrExact`.
    Remap(RawRemap),
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Match")]
pub(super) enum RawMatch {
    /// An image by digest: the repository as signed. Else: name and tag as signed.
    RepoDigestOrExact,
    /// Name and tag as signed.
    Exact,
    /// The repository as signed, whatever the tag.
    Repository,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Remap")]
pub(super) struct RawRemap {
    /// The prefix of the image that is asked for, like `mirror.example.com/acme`.
    pub(super) from: Located<Box<str>>,
    /// The prefix that the signature has in its place, like `registry.example.com/acme`.
    pub(super) to: Located<Box<str>>,
}

/// An exception with an end.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Exemption")]
pub(super) struct RawExemption {
    /// Its name, once in a document.
    pub(super) name: Located<Box<str>>,
    /// The scopes that it covers, as in rules.
    #[schemars(length(min = 1))]
    pub(super) images: Located<Vec<Located<Box<str>>>>,
    /// The namespaces where it holds; left out: all.
    #[schemars(length(min = 1))]
    pub(super) namespaces: Option<Located<Vec<Located<Box<str>>>>>,
    /// The time at which the exemption ends, like `2027-01-31T00:00:00Z`.
    #[schemars(extend("format" = "date-time"))]
    pub(super) until: Located<Box<str>>,
    /// The person who approved the exemption.
    #[schemars(length(min = 1))]
    pub(super) approved_by: Located<Box<str>>,
    /// Why.
    #[schemars(length(min = 1))]
    pub(super) reason: Located<Box<str>>,
}

/// The JSON schema of policy documents.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(RawDocument)
}
