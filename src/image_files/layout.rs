//! OCI image layouts (OCI image specification, "Image Layout").

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;

use super::{
    error::SourceError,
    files::Files,
    image::{Image, ImageBlob, MAX_BLOBS, SourceManifest},
};
use crate::image::{Contents, Digest, Manifest, Part};

/// The maximum depth of nested indexes, as in verification.
const MAX_DEPTH: usize = 3;
/// The maximum number of manifests of one image, attestations included.
const MAX_MANIFESTS: usize = 512;
/// The maximum size of `oci-layout`, in bytes.
const MAX_MARK: usize = 4 << 10;
/// The annotation that gives a manifest its tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// The content of `oci-layout`.
#[derive(Deserialize)]
struct LayoutMarker {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

/// The part of `index.json` by which manifests are chosen.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<NamedManifest>,
}

#[derive(Deserialize)]
struct NamedManifest {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl NamedManifest {
    fn name(&self) -> Option<&str> {
        self.annotations.as_ref()?.get(REF_NAME).map(String::as_str)
    }
}

/// Reads the image, with all manifests and blobs that belong to it.
pub(super) fn read(files: &Files, name: Option<&str>, manifest_bytes: usize) -> Result<Image, SourceError> {
    let mark = files.read("oci-layout", MAX_MARK)?;
    match serde_json::from_slice::<LayoutMarker>(&mark) {
        Ok(LayoutMarker { version }) if version == "1.0.0" => {}
        _ => return Err(files.malformed("its oci-layout does not say imageLayoutVersion 1.0.0")),
    }
    let mut walk = LayoutReader {
        files,
        manifest_bytes,
        seen: HashSet::new(),
        image: Image { manifests: Vec::new(), blobs: Vec::new() },
    };
    let root = choose(files, name, manifest_bytes)?;
    walk.manifest(&root, 0)?;
    Ok(walk.image)
}

fn choose(files: &Files, name: Option<&str>, manifest_bytes: usize) -> Result<Part, SourceError> {
    let bytes = files.read("index.json", manifest_bytes)?;
    let contents = Contents::parse(Some(OCI_INDEX), &bytes)
        .map_err(|error| files.malformed(format!("its index.json is no index: {error}")))?;
    let Contents::Index(mut parts) = contents else {
        return Err(files.malformed("its index.json is an image's manifest, not an index"));
    };
    let Index { manifests } = serde_json::from_slice(&bytes)
        .map_err(|_| files.malformed("its index.json has annotations that are not texts"))?;
    let fits = |named: &NamedManifest| name.is_none() || named.name() == name;
    let mut fitting = manifests.iter().enumerate().filter(|(_, named)| fits(named));
    match (fitting.next(), fitting.next()) {
        (Some((number, _)), None) if number < parts.len() => Ok(parts.swap_remove(number)),
        _ => Err(SourceError::Choice {
            place: files.place(),
            wanted: name.map(str::to_owned),
            found: manifests.iter().filter_map(NamedManifest::name).map(str::to_owned).collect(),
        }),
    }
}

struct LayoutReader<'a> {
    files: &'a Files,
    manifest_bytes: usize,
    seen: HashSet<Digest>,
    image: Image,
}

impl LayoutReader<'_> {
    fn manifest(&mut self, part: &Part, depth: usize) -> Result<(), SourceError> {
        if !self.seen.insert(part.digest) {
            return Ok(());
        }
        let Part { media_type, digest, .. } = part;
        let wrong = |source| SourceError::Manifest { place: self.files.place(), name: name(digest), source };
        let name = name(digest);
        let bytes = self.files.read(&name, self.manifest_bytes)?;
        self.size(&name, part, bytes.len() as u64)?;
        if let Some(mismatch) = digest.mismatch(Digest::of(digest.algorithm(), &bytes)) {
            return Err(SourceError::Damaged { place: self.files.place(), name, mismatch });
        }
        let contents = Contents::parse(media_type.as_deref(), &bytes).map_err(wrong)?;
        let manifest = Manifest::parse(media_type.as_deref(), &bytes).map_err(wrong)?;
        let own = Contents::media_type(&bytes).map_err(wrong)?;
        let media_type = own.or_else(|| media_type.clone()).unwrap_or_else(|| {
            match contents {
                Contents::Index(_) => OCI_INDEX,
                Contents::Image(_) => OCI_IMAGE,
            }
            .to_owned()
        });
        match contents {
            Contents::Index(_) if depth == MAX_DEPTH => {
                return Err(self.files.malformed(format!("indexes stand in indexes, deeper than {MAX_DEPTH}")));
            }
            Contents::Index(parts) => parts.iter().try_for_each(|part| self.manifest(part, depth + 1))?,
            Contents::Image(parts) => parts.iter().try_for_each(|part| self.blob(part))?,
        }
        if self.image.manifests.len() == MAX_MANIFESTS {
            return Err(self.too_many("manifests", MAX_MANIFESTS));
        }
        // Registries name an image that is pushed under a tag by its SHA-256, whichever digest the layout uses.
        let digest = if depth == 0 { Digest::sha256(&bytes) } else { *digest };
        self.image.manifests.push(SourceManifest { digest, media_type, manifest, bytes: bytes.into() });
        Ok(())
    }

    fn blob(&mut self, part: &Part) -> Result<(), SourceError> {
        if !self.seen.insert(part.digest) {
            return Ok(());
        }
        let name = name(&part.digest);
        let data = match self.files.find(&name) {
            Err(SourceError::Missing { .. }) if part.is_foreign => return Ok(()),
            data => data?,
        };
        self.size(&name, part, data.length())?;
        if self.image.blobs.len() == MAX_BLOBS {
            return Err(self.too_many("blobs", MAX_BLOBS));
        }
        self.image.blobs.push(ImageBlob { digest: part.digest, data });
        Ok(())
    }

    fn size(&self, name: &str, part: &Part, found: u64) -> Result<(), SourceError> {
        if part.size == found {
            return Ok(());
        }
        Err(self.files.malformed(format!("{name:?} is damaged: it should have {} bytes and has {found}", part.size)))
    }

    fn too_many(&self, what: &'static str, limit: usize) -> SourceError {
        SourceError::TooMany { place: self.files.place(), what, limit }
    }
}

fn name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}
