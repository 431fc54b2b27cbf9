//! The outcome of writing a signature, and its errors.

use std::{io, path::PathBuf};

use super::lookaside::MAX_FILES;
use crate::refusal::LookupError;
use crate::registry::ServerRefused;

/// The reason why a signature was not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The server can't be asked.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The registry has no signature extension.
    #[error(
        "{registry} does not announce a signature extension (X-Registry-Supports-Signatures on /v2/): write into a store \
         (--to https://...), a lookaside folder (--to FOLDER), or put `sealgate gateway` in front of the registry"
    )]
    NoExtension {
        /// The registry.
        registry: Box<str>,
    },
    /// The server refused the signature; 404 if the registry has no such image.
    #[error(transparent)]
    Refused(#[from] ServerRefused),
    /// A file can't be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file in a signature's place would stop readers before they reach the new signature.
    #[error("{}: {what}: readers stop at it, so remove it first", path.display())]
    InTheWay {
        /// The file.
        path: PathBuf,
        /// The reason why readers stop at it.
        what: String,
    },
    /// The folder has as many signatures as readers accept.
    #[error("{}: there are {MAX_FILES} signatures already, and readers refuse an image with more", .0.display())]
    Full(PathBuf),
}

/// The outcome of writing a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its place: a URL with its name, or a file.
    pub place: String,
    /// An identical signature was there already.
    pub existed: bool,
}
