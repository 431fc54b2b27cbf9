//! Errors of reading an image from files.

use std::{io, path::PathBuf};

use crate::image::{ManifestError, Mismatch};

/// The reason why there is no image to push. Text from the files appears only quoted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The text is not the name of a source.
    #[error("{0:?} is no source: expected oci:FOLDER[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:REFERENCE]")]
    Name(String),
    /// A file or folder can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The temporary folder for compressed layers can't be written to.
    #[error("{}: layers can't be kept here while they are compressed: {source}; TMPDIR names another folder", folder.display())]
    Temporary {
        /// The folder.
        folder: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A required file is missing.
    #[error("{place} has no {name:?}: it is incomplete, or of another kind")]
    Missing {
        /// The folder or archive.
        place: String,
        /// The name of the file.
        name: String,
    },
    /// A name or link leads out of the folder or archive.
    #[error("{place}: {name:?} leads out of it, and is not followed")]
    Outside {
        /// The folder or archive.
        place: String,
        /// The name.
        name: String,
    },
    /// A file is too large.
    #[error("{place}: {name:?} has {size} bytes, over the limit of {limit}")]
    TooLarge {
        /// The folder or archive.
        place: String,
        /// The file in it.
        name: String,
        /// Its size, in bytes.
        size: u64,
        /// The maximum, in bytes.
        limit: u64,
    },
    /// The folder or archive has too many parts.
    #[error("{place}: there are more than {limit} {what}")]
    TooMany {
        /// The folder or archive.
        place: String,
        /// The kind of part.
        what: &'static str,
        /// The maximum.
        limit: usize,
    },
    /// A file is malformed.
    #[error("{place}: {what}")]
    Malformed {
        /// The folder or archive.
        place: String,
        /// The expectation, and the finding.
        what: String,
    },
    /// A manifest is malformed.
    #[error("{place}: {name:?}: {source}")]
    Manifest {
        /// The folder or archive.
        place: String,
        /// The file in it.
        name: String,
        /// The reason.
        source: ManifestError,
    },
    /// A file's bytes do not have the expected digest.
    #[error("{place}: {name:?} is damaged: {mismatch}")]
    Damaged {
        /// The folder or archive.
        place: String,
        /// The file in it.
        name: String,
        /// The expected and the actual digest.
        mismatch: Box<Mismatch>,
    },
    /// The source has several images, or lacks the one that was asked for.
    #[error("{place} {}", choice(wanted.as_deref(), found))]
    Choice {
        /// The folder or archive.
        place: String,
        /// The name that the user gave.
        wanted: Option<String>,
        /// The names in the source.
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
