//! Images in files: OCI layouts, archives of them, and what `docker save` and `podman save` write.
//!
//! Nothing is unpacked: an archive is indexed, and what is wanted is read where it stands. All of it is somebody else's:
//! counts and sizes are bounded, links lead nowhere outside, and a digest is what was computed over the bytes.

mod docker;
mod files;
mod layer;
mod layout;
mod tar;

use std::{fmt, io, path::PathBuf, str::FromStr};

use bytes::Bytes;

use self::files::Files;
use crate::image::{Digest, Manifest, ManifestError, Mismatch};

pub use files::Data;

/// The most blobs of one image, all platforms together.
const MOST_BLOBS: usize = 4096;

/// An image that is in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    kind: Kind,
    path: PathBuf,
    /// Which image, where there are several: a tag of the layout, a reference of the archive.
    name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Layout,
    LayoutArchive,
    DockerArchive,
}

/// An image as a registry takes it.
#[derive(Debug)]
pub struct Image {
    /// Its manifests, each behind those that it names. The last one is the image.
    pub manifests: Vec<SourceManifest>,
    /// What they name, each once.
    pub blobs: Vec<Blob>,
}

/// A manifest or index.
#[derive(Clone, Debug)]
pub struct SourceManifest {
    /// Computed over its bytes.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// What it names.
    pub manifest: Manifest,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A layer or configuration.
#[derive(Clone, Debug)]
pub struct Blob {
    /// What it should be; whoever reads it has to look whether it is.
    pub digest: Digest,
    /// Where it is.
    pub data: Data,
}

/// Why there is no image to push. Text of the files is only shown quoted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The text names no source.
    #[error("{0:?} is no source: expected oci:FOLDER[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:REFERENCE]")]
    Name(String),
    /// A file or folder can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing can be written where layers are kept while they are compressed.
    #[error("{}: layers can't be kept here while they are compressed: {source}; TMPDIR names another folder", folder.display())]
    Temporary {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something that has to be there is not.
    #[error("{place} has no {name:?}: it is incomplete, or not what it is said to be")]
    Missing {
        /// The folder or archive.
        place: String,
        /// What was looked for.
        name: String,
    },
    /// A name or link that leads out of the folder or archive.
    #[error("{place}: {name:?} leads out of it, and is not followed")]
    Outside {
        /// The folder or archive.
        place: String,
        /// The name.
        name: String,
    },
    /// Something is larger than it may be.
    #[error("{place}: {name:?} has {size} bytes, over the limit of {limit}")]
    TooLarge {
        /// The folder or archive.
        place: String,
        /// The file in it.
        name: String,
        /// Bytes that it has.
        size: u64,
        /// Bytes that it may have.
        limit: u64,
    },
    /// It has more parts than any image.
    #[error("{place}: there are more than {limit} {what}")]
    TooMany {
        /// The folder or archive.
        place: String,
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// It is not in the form that it should have.
    #[error("{place}: {what}")]
    Malformed {
        /// The folder or archive.
        place: String,
        /// What is expected, and what was found.
        what: String,
    },
    /// A manifest that is none.
    #[error("{place}: {name:?}: {source}")]
    Manifest {
        /// The folder or archive.
        place: String,
        /// The file in it.
        name: String,
        /// Why.
        source: ManifestError,
    },
    /// Bytes have another digest than they should.
    #[error("{place}: {name:?} is damaged: {mismatch}")]
    Damaged {
        /// The folder or archive.
        place: String,
        /// The file in it.
        name: String,
        /// What it should be, and what it is.
        mismatch: Box<Mismatch>,
    },
    /// There are several images, or not the one that is wanted.
    #[error("{place} {}", choice(wanted.as_deref(), found))]
    Choice {
        /// The folder or archive.
        place: String,
        /// The name that was given.
        wanted: Option<String>,
        /// The names that are there.
        found: Vec<String>,
    },
}

fn choice(wanted: Option<&str>, found: &[String]) -> String {
    let names = match found {
        [] => "it has no names".to_owned(),
        found => format!("there are {}", found.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")),
    };
    match wanted {
        Some(wanted) => format!("has not exactly one image of the name {wanted:?}: {names}"),
        None => format!("has not exactly one image, so say which one behind a colon: {names}"),
    }
}

/// Hears how far the work on a layer is: which one, bytes done, bytes in all.
pub type Watch<'a> = &'a (dyn Fn(&Digest, u64, u64) + Sync);

impl FromStr for Source {
    type Err = SourceError;

    /// As skopeo splits it: at the first colon behind the kind.
    fn from_str(text: &str) -> Result<Self, SourceError> {
        let bad = || SourceError::Name(text.to_owned());
        let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
        let kind = match kind {
            "oci" => Kind::Layout,
            "oci-archive" => Kind::LayoutArchive,
            "docker-archive" => Kind::DockerArchive,
            _ => return Err(bad()),
        };
        let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
        if path.is_empty() || name == Some("") {
            return Err(bad());
        }
        Ok(Self { kind, path: path.into(), name: name.map(str::to_owned) })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Layout => "oci",
            Kind::LayoutArchive => "oci-archive",
            Kind::DockerArchive => "docker-archive",
        };
        write!(f, "{kind}:{}", self.path.display())?;
        self.name.iter().try_for_each(|name| write!(f, ":{name}"))
    }
}

impl Source {
    /// Finds out what the image consists of, and compresses the layers of a docker-archive. No manifest is larger than
    /// `manifest_bytes`. This blocks.
    pub fn read(&self, manifest_bytes: usize, watch: Watch<'_>) -> Result<Image, SourceError> {
        let name = self.name.as_deref();
        match self.kind {
            Kind::Layout => layout::read(&Files::folder(&self.path)?, name, manifest_bytes),
            Kind::LayoutArchive => layout::read(&Files::archive(&self.path)?, name, manifest_bytes),
            Kind::DockerArchive => docker::read(&Files::archive(&self.path)?, name, manifest_bytes, watch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_kind_a_path_and_perhaps_a_name() {
        for text in ["oci:images", "oci:images:1", "oci-archive:a.tar:acme/web:1", "docker-archive:/tmp/a.tar"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        let source: Source = "docker-archive:a.tar:r.example.com:5000/web:1".parse().unwrap();
        assert_eq!(source.path, PathBuf::from("a.tar"));
        assert_eq!(source.name.as_deref(), Some("r.example.com:5000/web:1"));
        for bad in ["", "images", "dir:images", "oci:", "oci::1", "oci:images:", "docker://a"] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }
}
