//! Manifests and indexes, as far as a decision needs them.

use super::digest::Digest;

/// What a digest names in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// One image (OCI image manifest, or Docker schema 2).
    Image,
    /// Several images, usually one a platform (OCI image index, or Docker manifest list).
    Index(Vec<Descriptor>),
}

/// An entry of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What it names.
    pub digest: Digest,
    /// `os/architecture[/variant]`, or nothing where the index does not say.
    pub platform: Option<String>,
    /// Whether it is an attestation about another entry, which no node ever runs: its platform is `unknown/unknown`, and
    /// it is annotated as an attestation. Both are needed; each alone is easily put on an image.
    pub attestation: bool,
}

/// Why a body is no manifest that a decision can stand on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not JSON, or not the members that a manifest has.
    #[error("the body is not a manifest: {0}")]
    Malformed(String),
    /// Both an image's members and an index's (CVE-2021-41190: two readers would see two different things).
    #[error("the manifest has both an index's members and an image's; clients would not agree on what it is")]
    Ambiguous,
    /// Docker schema 1.
    #[error("the image has a Docker schema 1 manifest, a format given up in 2017; push it again with a current tool")]
    SchemaOne,
    /// Another media type.
    #[error("the manifest's media type is not one of the OCI image manifest or index, or Docker schema 2")]
    UnknownMediaType,
    /// `Content-Type` and the body's `mediaType` differ (distribution specification, "Pulling manifests").
    #[error("the manifest's media type and its Content-Type header differ")]
    MediaTypeMismatch,
    /// An index with more entries than are looked at.
    #[error("the index has {found} entries, over the limit of {limit}")]
    TooManyEntries {
        /// Entries there.
        found: usize,
        /// Entries allowed.
        limit: usize,
    },
}

impl Manifest {
    /// Parses a manifest's bytes, with the `Content-Type` that came with them.
    pub fn parse(content_type: Option<&str>, body: &[u8]) -> Result<Self, ManifestError> {
        let _ = (content_type, body);
        todo!("manifests")
    }
}
