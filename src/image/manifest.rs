//! Manifests and indexes, as far as a decision needs them.
//!
//! The members that decide here must be those that a node sees in the same bytes. Container runtimes read manifests with
//! Go's JSON, which takes `Digest` and `DIGEST` for `digest` and the last of two equal members; so a member twice, or in
//! another spelling, is refused wherever it could change which image runs.

use std::borrow::Cow;
use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::digest::Digest;
use crate::json::{Array, Members, Text};

/// The most entries of an index. The largest of Docker's official images have about 30, attestations included; each may
/// have to be asked for.
pub const MAX_ENTRIES: usize = 256;

/// The most members of an object that is looked into. OCI's image specification knows seven for a manifest and eight for an
/// index's entry; what tools add are annotations, which stand in an object of their own.
const MAX_MEMBERS: usize = 128;
/// The longest name of a member, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Images that an index of another kind never has: what `os` and `architecture` of an attestation say.
const UNKNOWN: &str = "unknown/unknown";
/// The annotation by which `BuildKit` says that an entry is about another one ("Image attestation storage").
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const ATTESTATION: &str = "attestation-manifest";

/// The body that a digest names in a registry: an image or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// One image (OCI image manifest, or Docker schema 2), or an OCI artifact in the form of one.
    Image,
    /// Several images, usually one a platform (OCI image index, or Docker manifest list).
    Index(Vec<Descriptor>),
}

/// An entry of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The digest of the manifest that it names.
    pub digest: Digest,
    /// `os/architecture[/variant]`, or nothing where the index does not say.
    pub platform: Option<String>,
    /// True for an attestation about another entry, which no node ever runs: its platform is `unknown/unknown`, and
    /// it is annotated as an attestation. Both are needed; each alone is easily put on an image.
    pub attestation: bool,
}

/// Bytes with the digest that was computed over them.
#[derive(Clone, Copy, Debug)]
pub struct Hashed<'a> {
    digest: Digest,
    body: &'a [u8],
}

impl<'a> Hashed<'a> {
    /// With their SHA-256 digest.
    pub fn sha256(body: &'a [u8]) -> Self {
        Self { digest: Digest::sha256(body), body }
    }

    /// With the digest that they should have, if they have it.
    pub fn expected(digest: Digest, body: &'a [u8]) -> Option<Self> {
        digest.matches(body).then_some(Self { digest, body })
    }

    /// The digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Parses them as [`Manifest::parse`] does.
    ///
    /// # Errors
    /// They are no manifest that a decision can stand on.
    pub fn manifest(self, content_type: Option<&str>) -> Result<HashedManifest, ManifestError> {
        let Self { digest, body } = self;
        let manifest = Manifest::parse(content_type, body)?;
        Ok(HashedManifest { digest, other_digest: Digest::of(digest.algorithm().other(), body), manifest })
    }
}

/// A manifest and the digest that was computed over its bytes, never taken from a header. [`Hashed::manifest`] alone makes one,
/// so that what stands in an index belongs to the index's digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedManifest {
    digest: Digest,
    other_digest: Digest,
    manifest: Manifest,
}

impl HashedManifest {
    /// The digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The digest of the same bytes by the other algorithm: a policy may name the image by it.
    pub fn other_digest(&self) -> Digest {
        self.other_digest
    }

    /// Returns the image or index that it is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The entries of an index; none of an image.
    pub fn entries(&self) -> &[Descriptor] {
        match &self.manifest {
            Manifest::Index(entries) => entries,
            Manifest::Image => &[],
        }
    }

    /// One without bytes.
    #[cfg(test)]
    pub(crate) fn made_up(digest: Digest, manifest: Manifest) -> Self {
        Self::made_up_with(digest, Digest::of(digest.algorithm().other(), digest.hex().as_bytes()), manifest)
    }

    /// One without bytes, that has both digests.
    #[cfg(test)]
    pub(crate) fn made_up_with(digest: Digest, other_digest: Digest, manifest: Manifest) -> Self {
        Self { digest, other_digest, manifest }
    }
}

/// Why a body is no manifest that a decision can stand on. Nothing of the body is repeated.
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
    #[error("the image has a Docker schema 1 manifest, a format given up in 2017")]
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

/// The kind of body that a media type announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MediaType {
    OciImage,
    OciIndex,
    DockerImage,
    DockerIndex,
    SchemaOne,
    /// Sent by servers that know files, not manifests.
    Generic,
    Other,
}

impl MediaType {
    /// Reads a media type; parameters (`; charset=utf-8`) don't count (RFC 9110, section 8.3.1).
    fn parse(text: &str) -> Self {
        let text = text.split_once(';').map_or(text, |(name, _)| name).trim().to_ascii_lowercase();
        match text.as_str() {
            "application/vnd.oci.image.manifest.v1+json" => Self::OciImage,
            "application/vnd.oci.image.index.v1+json" => Self::OciIndex,
            "application/vnd.docker.distribution.manifest.v2+json" => Self::DockerImage,
            "application/vnd.docker.distribution.manifest.list.v2+json" => Self::DockerIndex,
            "application/vnd.docker.distribution.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v1+prettyjws" => Self::SchemaOne,
            "" | "application/json" | "application/octet-stream" | "binary/octet-stream" | "text/plain" => {
                Self::Generic
            }
            _ => Self::Other,
        }
    }
}

impl Manifest {
    /// Parses a manifest's bytes, with the `Content-Type` that came with them.
    ///
    /// The body's own `mediaType` and a specific `Content-Type` must agree. Where the body has none, which OCI allows, the
    /// `Content-Type` decides, or without a specific one the members; the members must fit in any case.
    pub fn parse(content_type: Option<&str>, body: &[u8]) -> Result<Self, ManifestError> {
        let header = content_type.map_or(MediaType::Generic, MediaType::parse);
        if header == MediaType::SchemaOne {
            return Err(ManifestError::SchemaOne);
        }
        let top: Object<'_> = serde_json::from_slice(body).map_err(|error| json(&error))?;
        let media_type = media_type(&top)?.map(|text| MediaType::parse(&text));
        let version: Option<u64> = match top.get("schemaVersion")? {
            Some(value) => {
                Some(serde_json::from_str(value.get()).map_err(|_| malformed("schemaVersion is no number"))?)
            }
            None => None,
        };
        let has_old = top.get("fsLayers")?.is_some();
        if version == Some(1) || media_type == Some(MediaType::SchemaOne) {
            return Err(ManifestError::SchemaOne);
        }
        let entries = top.get("manifests")?;
        let (config, layers) = (top.get("config")?, top.get("layers")?);
        if (entries.is_some() || has_old) && (config.is_some() || layers.is_some()) || entries.is_some() && has_old {
            return Err(ManifestError::Ambiguous);
        }
        if version != Some(2) {
            return Err(malformed("schemaVersion is not 2"));
        }
        let kind = match (header, media_type) {
            (MediaType::Other, None) | (_, Some(MediaType::Other | MediaType::Generic)) => {
                return Err(ManifestError::UnknownMediaType);
            }
            (MediaType::Generic, Some(body)) => body,
            (header, Some(body)) if header != body => return Err(ManifestError::MediaTypeMismatch),
            (header, _) => header,
        };
        let wants_index = match kind {
            MediaType::OciIndex | MediaType::DockerIndex => true,
            MediaType::OciImage | MediaType::DockerImage => false,
            _ => entries.is_some(),
        };
        match (wants_index, entries, config, layers) {
            (true, Some(entries), ..) => index(entries),
            (true, None, ..) => Err(malformed("an index has manifests, this one none")),
            (false, None, Some(config), Some(layers)) => {
                let is_object = config.get().starts_with('{');
                let is_array = layers.get().starts_with('[');
                if is_object && is_array {
                    Ok(Self::Image)
                } else {
                    Err(malformed("config or layers is of another type"))
                }
            }
            (false, ..) => Err(malformed("an image's manifest has config and layers")),
        }
    }
}

/// Reads the entries of an index.
fn index(entries: &RawValue) -> Result<Manifest, ManifestError> {
    let Array::<MAX_ENTRIES> { first: entries, found } =
        serde_json::from_str(entries.get()).map_err(|_| malformed("manifests is not an array"))?;
    if found > MAX_ENTRIES {
        return Err(ManifestError::TooManyEntries { found, limit: MAX_ENTRIES });
    }
    // As large as it has to be: it may be kept for long.
    let mut descriptors = Vec::with_capacity(entries.len());
    for entry in entries {
        descriptors.push(descriptor(entry)?);
    }
    Ok(Manifest::Index(descriptors))
}

fn descriptor(entry: &RawValue) -> Result<Descriptor, ManifestError> {
    let entry: Object<'_> = serde_json::from_str(entry.get()).map_err(|error| json(&error))?;
    let digest = entry.get("digest")?.ok_or_else(|| malformed("an entry of the index has no digest"))?;
    let digest = Digest::parse(&string(digest, "an entry's digest is not a string")?)
        .map_err(|error| ManifestError::Malformed(format!("an entry of the index: {error}")))?;
    let platform = match present(entry.get("platform")?) {
        Some(value) => platform(value)?,
        None => None,
    };
    let annotated = match present(entry.get("annotations")?) {
        Some(value) => {
            let Annotations(reference_type) = serde_json::from_str(value.get()).map_err(|error| json(&error))?;
            reference_type.as_deref() == Some(ATTESTATION)
        }
        None => false,
    };
    let attestation = annotated && platform.as_deref() == Some(UNKNOWN);
    Ok(Descriptor { digest, platform, attestation })
}

/// `os/architecture[/variant]`. It is shown to people, so it is held to the characters that platforms have.
fn platform(value: &RawValue) -> Result<Option<String>, ManifestError> {
    let value: Object<'_> = serde_json::from_str(value.get()).map_err(|error| json(&error))?;
    let mut text = String::new();
    for member in ["os", "architecture", "variant"] {
        let part = match present(value.get(member)?) {
            Some(part) => string(part, "a platform's part is not a string")?,
            None => String::new(),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if part.len() > 64 || !part.bytes().all(plain) {
            return Err(malformed("a platform has other characters than letters, digits, '.', '_' and '-'"));
        }
        if member != "variant" || !part.is_empty() {
            if member != "os" {
                text.push('/');
            }
            text.push_str(&part);
        }
    }
    text.shrink_to_fit();
    Ok((text != "/").then_some(text))
}

/// The media type that a manifest says it is of. Empty text and `null` say nothing: Go's tools can't tell them from absence.
pub(super) fn media_type(top: &Object<'_>) -> Result<Option<String>, ManifestError> {
    let Some(value) = present(top.get("mediaType")?) else { return Ok(None) };
    let text = string(value, "mediaType is not a string")?;
    Ok((!text.is_empty()).then_some(text))
}

/// `null` is absence to Go.
pub(super) fn present(value: Option<&RawValue>) -> Option<&RawValue> {
    value.filter(|value| value.get() != "null")
}

pub(super) fn string(value: &RawValue, otherwise: &str) -> Result<String, ManifestError> {
    serde_json::from_str(value.get()).map_err(|_| malformed(otherwise))
}

pub(super) fn malformed(what: &str) -> ManifestError {
    ManifestError::Malformed(what.to_owned())
}

/// The parser's messages may quote the body; ours say where, and of what kind the error is.
pub(super) fn json(error: &serde_json::Error) -> ManifestError {
    use serde_json::error::Category;
    match error.classify() {
        Category::Eof | Category::Io => malformed("the JSON ends too early"),
        Category::Syntax => {
            ManifestError::Malformed(format!("not JSON (line {}, column {})", error.line(), error.column()))
        }
        Category::Data => {
            malformed("not the JSON object that is expected, or one with a member twice or too many members")
        }
    }
}

/// A JSON object no two members of which are the same to Go; values unread.
pub(super) struct Object<'a>(Vec<Member<'a>>);

struct Member<'a> {
    name: Cow<'a, str>,
    /// The name as Go compares it.
    folded: String,
    value: &'a RawValue,
}

impl<'a> Object<'a> {
    /// The member of this name.
    ///
    /// # Errors
    /// It is there in another spelling, which Go would take for it, and others would not.
    pub(super) fn get(&self, name: &str) -> Result<Option<&'a RawValue>, ManifestError> {
        let folded = fold(name);
        match self.0.iter().find(|member| member.folded == folded) {
            Some(member) if member.name == name => Ok(Some(member.value)),
            Some(_) => Err(ManifestError::Malformed(format!("the member {name} is there in another spelling"))),
            None => Ok(None),
        }
    }
}

/// Equal for what Go's `encoding/json` takes for equal: simple case folding, where `ſ` is an `s` and the Kelvin sign a `k`.
fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Members(read) = Members::<'de, Text<'de>, MAX_MEMBERS>::deserialize(deserializer)?;
        let mut members = Vec::<Member<'de>>::with_capacity(read.len());
        for (Text(name), value) in read {
            if name.len() > MAX_NAME_BYTES {
                return Err(D::Error::custom("a member's name is too long"));
            }
            let folded = fold(&name);
            if members.iter().any(|member| member.folded == folded) {
                return Err(D::Error::custom("a member twice"));
            }
            members.push(Member { name, folded, value });
        }
        Ok(Self(members))
    }
}

/// The one annotation that matters. Annotations are a map, so their names are told apart by case. There may be any number:
/// none but this one is kept.
struct Annotations(Option<String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Annotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = None;
                while let Some((Text(key), Text(value))) = map.next_entry::<Text<'de>, Text<'de>>()? {
                    if key == REFERENCE_TYPE && found.replace(value.into_owned()).is_some() {
                        return Err(A::Error::custom("a member twice"));
                    }
                }
                Ok(Annotations(found))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    const SIGNED_SCHEMA_ONE: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn image(media_type: Option<&str>) -> String {
        let media_type = media_type.map(|text| format!(r#""mediaType":"{text}","#)).unwrap_or_default();
        format!(r#"{{"schemaVersion":2,{media_type}"config":{{"digest":"{DIGEST}"}},"layers":[]}}"#)
    }

    fn index_of(entries: &str) -> String {
        format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{entries}]}}"#)
    }

    fn parse(content_type: Option<&str>, body: &str) -> Result<Manifest, ManifestError> {
        Manifest::parse(content_type, body.as_bytes())
    }

    fn entry(rest: &str) -> Result<Descriptor, ManifestError> {
        match parse(None, &index_of(&format!(r#"{{"digest":"{DIGEST}"{rest}}}"#)))? {
            Manifest::Index(mut entries) => Ok(entries.remove(0)),
            Manifest::Image => panic!("an index was given"),
        }
    }

    #[test]
    fn bytes_have_the_digest_that_they_should_have_or_are_not_hashed() {
        let digest = Digest::sha256(b"one");
        let hashed = Hashed::expected(digest, b"one").unwrap();
        assert_eq!(hashed.digest(), digest);
        assert!(Hashed::expected(digest, b"two").is_none());
    }

    #[test]
    fn a_media_type_goes_before_the_members_that_do_not_fit_it() {
        for kind in [OCI_IMAGE, DOCKER_IMAGE] {
            let body = index_of("").replace(OCI_INDEX, kind);
            assert!(matches!(parse(Some(kind), &body), Err(ManifestError::Malformed(_))), "{kind}");
        }
        for kind in ["application/vnd.docker.distribution.manifest.v1+json", SIGNED_SCHEMA_ONE] {
            assert_eq!(parse(Some(kind), &image(None)), Err(ManifestError::SchemaOne));
            assert_eq!(parse(None, &image(Some(kind))), Err(ManifestError::SchemaOne));
        }
    }

    #[test]
    fn a_member_in_another_spelling_is_none_and_refused() {
        for (from, to) in [("config", "Config"), ("layers", "LAYERS"), ("schemaVersion", "schemaversion")] {
            let body = image(None).replace(from, to);
            let error = parse(Some(OCI_IMAGE), &body).unwrap_err().to_string();
            assert!(error.contains("is there in another spelling"), "{error}");
        }
    }

    #[test]
    fn images_and_indexes_of_both_families_are_known() {
        for kind in [OCI_IMAGE, DOCKER_IMAGE] {
            assert_eq!(parse(Some(kind), &image(Some(kind))), Ok(Manifest::Image));
            assert_eq!(parse(Some(kind), &image(None)), Ok(Manifest::Image));
        }
        for kind in [OCI_INDEX, DOCKER_INDEX] {
            let body = index_of("").replace(OCI_INDEX, kind);
            assert_eq!(parse(Some(kind), &body), Ok(Manifest::Index(vec![])));
        }
        assert_eq!(parse(Some(&format!("{OCI_IMAGE}; charset=utf-8")), &image(Some(OCI_IMAGE))), Ok(Manifest::Image));
    }

    #[test]
    fn a_server_of_plain_files_leaves_the_kind_to_the_body() {
        for generic in [None, Some("application/json"), Some("application/octet-stream"), Some("text/plain")] {
            assert_eq!(parse(generic, &image(Some(DOCKER_IMAGE))), Ok(Manifest::Image));
            assert_eq!(parse(generic, &image(None)), Ok(Manifest::Image));
            assert_eq!(parse(generic, r#"{"schemaVersion":2,"manifests":[]}"#), Ok(Manifest::Index(vec![])));
        }
    }

    #[test]
    fn an_artifact_counts_as_an_image() {
        let body = image(Some(OCI_IMAGE)).replace("\"config\"", "\"artifactType\":\"application/x\",\"config\"");
        assert_eq!(parse(Some(OCI_IMAGE), &body), Ok(Manifest::Image));
    }

    #[test]
    fn header_and_body_must_agree() {
        assert_eq!(parse(Some(OCI_INDEX), &image(Some(OCI_IMAGE))), Err(ManifestError::MediaTypeMismatch));
        assert_eq!(parse(Some("text/html"), &image(Some(OCI_IMAGE))), Err(ManifestError::MediaTypeMismatch));
        assert_eq!(parse(Some("text/html"), &image(None)), Err(ManifestError::UnknownMediaType));
        assert!(matches!(parse(Some(OCI_INDEX), &image(None)), Err(ManifestError::Malformed(_))));
        assert_eq!(parse(None, &image(Some("application/x"))), Err(ManifestError::UnknownMediaType));
        assert_eq!(parse(None, &image(Some("application/json"))), Err(ManifestError::UnknownMediaType));
    }

    #[test]
    fn a_media_type_that_is_empty_or_null_is_as_good_as_none() {
        for empty in [r#""""#, "null", r#" "" "#] {
            let with = |body: &str| body.replacen('{', &format!(r#"{{"mediaType":{empty},"#), 1);
            let (image, index) = (with(&image(None)), with(r#"{"schemaVersion":2,"manifests":[]}"#));
            for kind in [Some(OCI_IMAGE), Some(DOCKER_IMAGE), Some("application/json"), None] {
                assert_eq!(parse(kind, &image), Ok(Manifest::Image), "{kind:?}");
            }
            for kind in [Some(OCI_INDEX), Some(DOCKER_INDEX), Some("application/json"), None] {
                assert_eq!(parse(kind, &index), Ok(Manifest::Index(vec![])), "{kind:?}");
            }
            // What else holds without one holds here.
            assert_eq!(parse(Some("text/html"), &image), Err(ManifestError::UnknownMediaType));
            assert!(matches!(parse(Some(OCI_INDEX), &image), Err(ManifestError::Malformed(_))));
            let both = with(r#"{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}"#);
            assert_eq!(parse(Some(OCI_IMAGE), &both), Err(ManifestError::Ambiguous));
            let twice = image.replacen('{', &format!(r#"{{"mediaType":"{OCI_IMAGE}","#), 1);
            assert!(parse(Some(OCI_IMAGE), &twice).is_err(), "{twice}");
            let spelled = image.replacen('{', r#"{"MediaType":"","#, 1);
            assert!(parse(Some(OCI_IMAGE), &spelled).is_err(), "{spelled}");
        }
        for other in [r#"" ""#, r#"";""#, r#""\u0000""#, "0", "[]", "{}", "false"] {
            let body = image(None).replacen('{', &format!(r#"{{"mediaType":{other},"#), 1);
            assert!(parse(Some(OCI_IMAGE), &body).is_err(), "{other}");
        }
    }

    #[test]
    fn schema_one_has_its_own_words() {
        let body = r#"{"schemaVersion":1,"name":"x","tag":"y","fsLayers":[],"history":[],"signatures":[]}"#;
        assert_eq!(parse(Some("application/json"), body), Err(ManifestError::SchemaOne));
        assert_eq!(parse(None, body), Err(ManifestError::SchemaOne));
        for kind in ["v1+json", "v1+prettyjws"] {
            let kind = format!("application/vnd.docker.distribution.manifest.{kind}");
            assert_eq!(parse(Some(&kind), body), Err(ManifestError::SchemaOne));
        }
    }

    #[test]
    fn a_body_that_is_both_image_and_index_is_refused() {
        for extra in ["\"layers\":[]", "\"config\":{}", "\"fsLayers\":[]"] {
            for kind in [Some(OCI_INDEX), Some(OCI_IMAGE), None] {
                let body = format!(r#"{{"schemaVersion":2,"manifests":[],{extra}}}"#);
                assert_eq!(parse(kind, &body), Err(ManifestError::Ambiguous), "{extra}");
            }
        }
        let body = image(None).replace("\"layers\"", "\"fsLayers\":[],\"layers\"");
        assert_eq!(parse(None, &body), Err(ManifestError::Ambiguous));
    }

    #[test]
    fn a_member_twice_or_in_another_spelling_is_refused() {
        for (name, extra) in [
            ("twice", r#""layers":[],"#),
            ("case", r#""LAYERS":[],"#),
            ("long s", "\"layer\u{17f}\":[],"),
            ("escaped", r#""layer\u0073":[],"#),
            ("index in another spelling", r#""Manifests":[],"#),
            ("another type", r#""MediaType":"x","#),
        ] {
            let body = image(None).replace("\"config\"", &format!("{extra}\"config\""));
            assert!(parse(None, &body).is_err(), "{name}");
        }
        let evil = DIGEST.replace("e3", "00");
        for extra in ["digest", "Digest", "DIGEST"] {
            assert!(entry(&format!(r#","{extra}":"{evil}""#)).is_err(), "{extra}");
        }
        assert!(entry(r#","platform":{"os":"unknown","architecture":"unknown","OS":"linux"}"#).is_err());
        assert!(entry(r#","annotations":{"a":"1","A":"2"}"#).is_ok(), "annotations are a map");
    }

    #[test]
    fn an_attestation_has_both_the_platform_and_the_annotation() {
        let platform = r#","platform":{"architecture":"unknown","os":"unknown"}"#;
        let annotation = r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#;
        assert!(entry(&format!("{platform}{annotation}")).unwrap().attestation);
        assert!(!entry(platform).unwrap().attestation);
        assert!(!entry(annotation).unwrap().attestation);
        let variant = platform.replace("\"os\"", "\"variant\":\"v8\",\"os\"");
        assert!(!entry(&format!("{variant}{annotation}")).unwrap().attestation);
        let twice = annotation.replace('}', ",\"vnd.docker.reference.type\":\"attestation-manifest\"}");
        assert!(entry(&format!("{platform}{twice}")).is_err());
    }

    #[test]
    fn platforms_are_read_and_held_to_their_characters() {
        let platform = |text: &str| entry(&format!(r#","platform":{text}"#)).map(|entry| entry.platform);
        assert_eq!(
            platform(r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#),
            Ok(Some("linux/arm64/v8".into()))
        );
        assert_eq!(platform(r#"{"os":"linux","architecture":"amd64"}"#), Ok(Some("linux/amd64".into())));
        assert_eq!(platform("null"), Ok(None));
        assert_eq!(platform(r#"{"os":"","architecture":""}"#), Ok(None));
        assert!(platform(r#"{"os":"linux\nrefused","architecture":"amd64"}"#).is_err());
        assert!(platform(r#"{"os":1,"architecture":"amd64"}"#).is_err());
    }

    #[test]
    fn a_part_of_a_platform_has_at_most_64_characters() {
        let entry = |os: &str| {
            entry(&format!(r#","platform":{{"os":"{os}","architecture":"amd64"}}"#)).map(|entry| entry.platform)
        };
        let most = "x".repeat(64);
        assert_eq!(entry(&most), Ok(Some(format!("{most}/amd64"))));
        assert!(entry(&"x".repeat(65)).is_err());
        assert_eq!(entry("a.b_c-D9"), Ok(Some("a.b_c-D9/amd64".to_owned())));
    }

    #[test]
    fn an_index_is_bounded() {
        let many = vec![format!(r#"{{"digest":"{DIGEST}"}}"#); MAX_ENTRIES + 1];
        let error = parse(None, &index_of(&many.join(","))).unwrap_err();
        assert_eq!(error, ManifestError::TooManyEntries { found: MAX_ENTRIES + 1, limit: MAX_ENTRIES });
        assert!(parse(None, &index_of(&many[1..].join(","))).is_ok());
    }

    #[test]
    fn an_object_has_few_members_with_short_names_but_any_number_of_annotations() {
        let members = |count: usize| (0..count).map(|number| format!(r#""x{number}":0,"#)).collect::<Vec<_>>().concat();
        let image = |extra: &str| parse(None, &image(None).replace("\"config\"", &format!("{extra}\"config\"")));
        // schemaVersion, config and layers are there anyway.
        assert_eq!(image(&members(MAX_MEMBERS - 3)), Ok(Manifest::Image));
        assert!(matches!(image(&members(MAX_MEMBERS - 2)), Err(ManifestError::Malformed(_))));
        assert_eq!(image(&format!("\"{}\":0,", "x".repeat(MAX_NAME_BYTES))), Ok(Manifest::Image));
        assert!(image(&format!("\"{}\":0,", "x".repeat(MAX_NAME_BYTES + 1))).is_err());
        // What follows is not even read.
        let cut = format!("{{{}", members(MAX_MEMBERS + 1));
        assert!(parse(None, &cut).unwrap_err().to_string().contains("too many members"));
        let annotations = (0..1000).map(|number| format!(r#""x{number}":"y""#)).collect::<Vec<_>>().join(",");
        assert!(entry(&format!(r#","annotations":{{{annotations}}}"#)).is_ok());
    }

    #[test]
    fn what_is_no_manifest_is_refused_without_repeating_it() {
        for body in [
            "",
            "{",
            "null",
            "[]",
            "7",
            "<html>secret",
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":3,"manifests":[]}"#,
            r#"{"manifests":[]}"#,
            r#"{"schemaVersion":"2","manifests":[]}"#,
            r#"{"schemaVersion":2,"manifests":{}}"#,
            r#"{"schemaVersion":2,"manifests":["secret"]}"#,
            r#"{"schemaVersion":2,"manifests":[{}]}"#,
            r#"{"schemaVersion":2,"config":{}}"#,
            r#"{"schemaVersion":2,"config":[],"layers":[]}"#,
            r#"{"schemaVersion":2,"manifests":[]} secret"#,
            "{\"\u{0}secret",
        ] {
            let error = parse(None, body).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(Manifest::parse(None, b"{\"schemaVersion\":2,\"x\":\"\xff\",\"manifests\":[]}").is_err());
        assert!(Manifest::parse(None, "[".repeat(1 << 20).as_bytes()).is_err());
        assert!(Manifest::parse(None, format!("{{\"a\":{}", "[".repeat(1 << 20)).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn junk_is_no_manifest(body in proptest::collection::vec(any::<u8>(), 0..200), kind in "[a-z/;+ ]{0,40}") {
            let _ = Manifest::parse(Some(&kind), &body);
        }

        #[test]
        fn a_cut_manifest_is_none(at in 0_usize..1000) {
            let body = index_of(&format!(r#"{{"digest":"{DIGEST}","platform":{{"os":"linux","architecture":"amd64"}}}}"#));
            let at = at % body.len();
            prop_assert!(Manifest::parse(None, &body.as_bytes()[..at]).is_err());
        }
    }
}
