//! Why there is no image to push.

use std::{io, path::PathBuf};

use crate::image::{ManifestError, Mismatch};

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
    /// The folder for layers that are being compressed can't be written to.
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
