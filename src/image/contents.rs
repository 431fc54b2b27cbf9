//! The manifests and blobs that a manifest or index names, for callers that copy it.

use serde_json::value::RawValue;

use super::digest::Digest;
use super::manifest::{MAX_ENTRIES, Manifest, ManifestError, Object, json, malformed, media_type, present, string};
use crate::json::Array;

/// Something that a manifest names (OCI image specification, "Content Descriptors").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its media type, or nothing where the manifest does not say.
    pub media_type: Option<String>,
    /// Its digest.
    pub digest: Digest,
    /// Bytes that it has.
    pub size: u64,
    /// True for a non-distributable layer: another server has it, so that registries need not have it.
    pub is_foreign: bool,
}

/// All that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// The configuration and the layers of one image.
    Image(Vec<Part>),
    /// The manifests of an index.
    Index(Vec<Part>),
}

impl Contents {
    /// Reads a manifest or index, held to all that [`Manifest::parse`] holds it to.
    pub fn parse(media_type: Option<&str>, body: &[u8]) -> Result<Self, ManifestError> {
        let manifest = Manifest::parse(media_type, body)?;
        let top: Object<'_> = serde_json::from_slice(body).map_err(|error| json(&error))?;
        let list = |name: &str| {
            let value = top.get(name)?.ok_or_else(|| malformed("a list is missing"))?;
            let Array::<MAX_ENTRIES> { first, found } =
                serde_json::from_str(value.get()).map_err(|_| malformed("a list is expected"))?;
            if found > first.len() {
                return Err(ManifestError::Malformed(format!("it has {found} layers, more than {MAX_ENTRIES}")));
            }
            first.into_iter().map(part).collect::<Result<Vec<_>, _>>()
        };
        match manifest {
            Manifest::Index(_) => list("manifests").map(Self::Index),
            Manifest::Image => {
                let config = top.get("config")?.ok_or_else(|| malformed("an image's manifest has config"))?;
                let mut parts = vec![part(config)?];
                parts.extend(list("layers")?);
                Ok(Self::Image(parts))
            }
        }
    }

    /// The media type that a manifest says it is of.
    pub fn media_type(body: &[u8]) -> Result<Option<String>, ManifestError> {
        let top: Object<'_> = serde_json::from_slice(body).map_err(|error| json(&error))?;
        media_type(&top)
    }
}

fn part(value: &RawValue) -> Result<Part, ManifestError> {
    let value: Object<'_> = serde_json::from_str(value.get()).map_err(|error| json(&error))?;
    let digest = value.get("digest")?.ok_or_else(|| malformed("a descriptor has no digest"))?;
    let digest = Digest::parse(&string(digest, "a descriptor's digest is not a string")?)
        .map_err(|error| ManifestError::Malformed(format!("a descriptor: {error}")))?;
    let size = value.get("size")?.ok_or_else(|| malformed("a descriptor has no size"))?;
    let size = serde_json::from_str(size.get()).map_err(|_| malformed("a descriptor's size is no number of bytes"))?;
    let media_type = present(value.get("mediaType")?)
        .map(|value| string(value, "a descriptor's mediaType is not a string"))
        .transpose()?;
    let has_urls = present(value.get("urls")?).is_some_and(|urls| urls.get() != "[]");
    let foreign = |text: &String| text.contains(".nondistributable.") || text.contains(".foreign.");
    let is_foreign = has_urls && media_type.as_ref().is_some_and(foreign);
    Ok(Part { media_type, digest, size, is_foreign })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

    fn image(layers: &str) -> String {
        let digest = Digest::sha256(b"config");
        format!(r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":6}},"layers":[{layers}]}}"#)
    }

    #[test]
    fn an_image_names_its_configuration_and_its_layers() {
        let layer = Digest::sha256(b"layer");
        let body = image(&format!(
            r#"{{"mediaType":"x","digest":"{layer}","size":5}},{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{layer}","size":5,"urls":["https://example.com/"]}}"#
        ));
        let Contents::Image(parts) = Contents::parse(Some(OCI), body.as_bytes()).unwrap() else { panic!() };
        let found: Vec<_> = parts.iter().map(|part| (part.size, part.is_foreign)).collect();
        assert_eq!(found, [(6, false), (5, false), (5, true)]);
        // Neither addresses alone nor such a type alone make it one that lies elsewhere.
        let body = image(&format!(
            r#"{{"mediaType":"x","digest":"{layer}","size":5,"urls":["https://example.com/"]}},{{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"{layer}","size":5}}"#
        ));
        let Contents::Image(parts) = Contents::parse(Some(OCI), body.as_bytes()).unwrap() else { panic!() };
        assert!(parts.iter().all(|part| !part.is_foreign), "{parts:?}");
        assert_eq!(Contents::media_type(body.as_bytes()).unwrap(), None);
        for empty in [r#""""#, "null"] {
            let body = body.replacen('{', &format!(r#"{{"mediaType":{empty},"#), 1);
            assert_eq!(Contents::media_type(body.as_bytes()).unwrap(), None, "{empty}");
        }
        assert_eq!(Contents::media_type(br#"{"mediaType":"a/b"}"#).unwrap().as_deref(), Some("a/b"));
    }

    #[test]
    fn what_is_no_descriptor_is_refused() {
        let layer = Digest::sha256(b"layer");
        for bad in [
            "1".to_owned(),
            "{}".to_owned(),
            format!(r#"{{"digest":"{layer}"}}"#),
            format!(r#"{{"digest":"{layer}","size":-1}}"#),
            format!(r#"{{"digest":"{layer}","size":1.5}}"#),
            r#"{"digest":"sha256:../../etc/passwd","size":1}"#.to_owned(),
            format!(r#"{{"digest":"{layer}","size":1,"Digest":"{layer}"}}"#),
        ] {
            assert!(Contents::parse(Some(OCI), image(&bad).as_bytes()).is_err(), "{bad}");
        }
        let many = vec![format!(r#"{{"digest":"{layer}","size":1}}"#); MAX_ENTRIES + 1].join(",");
        assert!(Contents::parse(Some(OCI), image(&many).as_bytes()).is_err());
    }
}
