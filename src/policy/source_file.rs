//! Policy files and the key files that they name, as they are read.

use std::path::{Path, PathBuf};

/// A policy file as it was read. The reader bounds its size.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// The name of the file in diagnostics.
    pub name: Box<str>,
    /// The folder to which paths in it are relative.
    pub folder: PathBuf,
    /// The bytes of the file.
    pub bytes: Vec<u8>,
}

/// Reads a key file: its path, joined to the folder of the file that names it. The implementation bounds the size.
pub type ReadKey<'a> = dyn FnMut(&Path) -> Result<Vec<u8>, KeyFileError> + 'a;

/// Why a key file could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It is not there.
    #[error("there is no such file")]
    Missing,
    /// It is a folder, or something else that is no file.
    #[error("this is not a file")]
    NotAFile,
    /// It is larger than any key.
    #[error("a key file has at most {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// The system refuses.
    #[error("it can't be read: {0}")]
    Unreadable(String),
}
