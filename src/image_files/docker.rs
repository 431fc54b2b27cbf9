//! Archives of `docker save` and `podman save`. Their layers are not compressed, and they lack the manifest that a
//! registry has. It is made as podman and skopeo make it: Docker schema 2, with layers compressed by gzip.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde::{Deserialize, Serialize};

use super::{
    data::Data,
    error::SourceError,
    files::Files,
    image::{CompressionProgress, Image, ImageBlob, MAX_BLOBS, SourceManifest},
    layer::{LayerError, compressed},
};
use crate::image::{self, Digest, Reference};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// The maximum number of layers that are compressed at once.
const MAX_AT_ONCE: usize = 8;

/// An entry of `manifest.json`.
#[derive(Deserialize)]
struct ManifestEntry {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    names: Option<Vec<String>>,
    #[serde(rename = "Layers", default)]
    layers: Option<Vec<String>>,
}

/// The part of an image's configuration that names its layers.
#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u8,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: &'static str,
    size: u64,
    digest: String,
}

impl Descriptor {
    fn of(blob: &ImageBlob, media_type: &'static str) -> Self {
        Self { media_type, size: blob.data.length(), digest: blob.digest.to_string() }
    }
}

pub(super) fn read(
    files: &Files,
    name: Option<&str>,
    manifest_bytes: usize,
    watch: CompressionProgress<'_>,
) -> Result<Image, SourceError> {
    let ManifestEntry { config: config_name, layers, .. } = choose(files, name, manifest_bytes)?;
    let bytes = files.read(&config_name, manifest_bytes)?;
    let config = ImageBlob { digest: Digest::sha256(&bytes), data: files.find(&config_name)? };
    // The file is named after its digest: `HEX.json`, or `blobs/sha256/HEX`.
    let stem = config_name.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if let Ok(expected) = Digest::parse(&format!("sha256:{stem}"))
        && let Some(mismatch) = expected.mismatch(config.digest)
    {
        return Err(SourceError::Damaged { place: files.place(), name: config_name, mismatch });
    }
    let Config { rootfs: RootFs { diff_ids } } = serde_json::from_slice(&bytes)
        .map_err(|_| files.malformed(format!("{config_name:?} is no image's configuration with rootfs.diff_ids")))?;
    let (layers, diff_ids) = (layers.unwrap_or_default(), diff_ids.unwrap_or_default());
    if layers.len() != diff_ids.len() {
        let what = format!("it has {} layers, and its configuration speaks of {}", layers.len(), diff_ids.len());
        return Err(files.malformed(what));
    }
    if layers.len() > MAX_BLOBS {
        return Err(SourceError::TooMany { place: files.place(), what: "layers", limit: MAX_BLOBS });
    }
    let mut wanted = Vec::new();
    for (layer, diff_id) in layers.iter().zip(&diff_ids) {
        let diff_id = Digest::parse(diff_id)
            .map_err(|error| files.malformed(format!("{config_name:?}: an entry of diff_ids: {error}")))?;
        wanted.push((diff_id, files.find(layer)?));
    }
    let blobs = compress(files, &wanted, watch)?;
    let mut manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST,
        config: Descriptor::of(&config, CONFIG),
        layers: Vec::with_capacity(wanted.len()),
    };
    for (diff_id, _) in &wanted {
        // Every layer was compressed above.
        manifest.layers.extend(blobs.get(diff_id).map(|blob| Descriptor::of(blob, LAYER)));
    }
    // Numbers and strings can't fail to be JSON.
    let bytes = serde_json::to_vec(&manifest).expect("strings are JSON");
    let manifest = SourceManifest {
        digest: Digest::sha256(&bytes),
        media_type: MANIFEST.to_owned(),
        manifest: image::Manifest::Image,
        bytes: bytes.into(),
    };
    let mut all = vec![config];
    for (diff_id, _) in &wanted {
        let blob = blobs.get(diff_id).filter(|blob| all.iter().all(|other| other.digest != blob.digest));
        all.extend(blob.cloned());
    }
    Ok(Image { manifests: vec![manifest], blobs: all })
}

fn choose(files: &Files, name: Option<&str>, manifest_bytes: usize) -> Result<ManifestEntry, SourceError> {
    let bytes = files.read("manifest.json", manifest_bytes)?;
    let mut entries: Vec<ManifestEntry> = serde_json::from_slice(&bytes)
        .map_err(|_| files.malformed("its manifest.json is no list of images with Config, RepoTags and Layers"))?;
    let wanted = name.and_then(|name| Reference::for_image(name).ok());
    let is = |found: &String| {
        name == Some(found.as_str()) || (wanted.is_some() && Reference::for_image(found).ok() == wanted)
    };
    let fits = |entry: &ManifestEntry| name.is_none() || entry.names.iter().flatten().any(is);
    let mut fitting = entries.iter().enumerate().filter(|(_, entry)| fits(entry)).map(|(number, _)| number);
    if let (Some(number), None) = (fitting.next(), fitting.next()) {
        return Ok(entries.swap_remove(number));
    }
    Err(SourceError::Choice {
        place: files.place(),
        wanted: name.map(str::to_owned),
        found: entries.into_iter().flat_map(|entry| entry.names.unwrap_or_default()).collect(),
    })
}

/// Compresses each distinct layer once, several in parallel.
fn compress(
    files: &Files,
    wanted: &[(Digest, Data)],
    watch: CompressionProgress<'_>,
) -> Result<HashMap<Digest, ImageBlob>, SourceError> {
    let different: Vec<(&Digest, &Data)> = {
        let by_id: HashMap<&Digest, &Data> = wanted.iter().map(|(diff_id, data)| (diff_id, data)).collect();
        by_id.into_iter().collect()
    };
    let next = AtomicUsize::new(0);
    let done = Mutex::new(HashMap::new());
    let work = || {
        while let Some(&(diff_id, data)) = different.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = compressed(data, diff_id, |bytes| watch(diff_id, bytes, data.length()));
            let failed = result.is_err();
            done.lock().unwrap_or_else(PoisonError::into_inner).insert(*diff_id, (data.name(), result));
            if failed {
                next.store(different.len(), Ordering::Relaxed);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_AT_ONCE).min(different.len());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut blobs = HashMap::new();
    for (diff_id, (name, result)) in done {
        let error = match result {
            Ok(blob) => {
                blobs.insert(diff_id, blob);
                continue;
            }
            Err(error) => error,
        };
        return Err(match error {
            LayerError::Io(source) => files.unreadable(name, source),
            LayerError::Temporary(source) => SourceError::Temporary { folder: std::env::temp_dir(), source },
            LayerError::Damaged(mismatch) => {
                SourceError::Damaged { place: files.place(), name: name.to_owned(), mismatch }
            }
            LayerError::Zstandard => files.malformed(format!(
                "{name:?} is compressed with zstd, which Docker's manifests don't have; where the archive has an index.json, push it as oci-archive:"
            )),
            LayerError::TooLarge => files.malformed(format!("{name:?} has more than 64 GiB")),
        });
    }
    Ok(blobs)
}
