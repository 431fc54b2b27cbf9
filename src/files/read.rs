//! Reads a file within a bound.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use super::descriptor_reserve::with_reserve;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It is not there.
    #[error("there is no such file")]
    Missing,
    /// It is a folder, a pipe, a device: something that does not end, or blocks.
    #[error("this is not a file")]
    NotAFile,
    /// It is larger than it can sensibly be.
    #[error("it has more than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// The system refuses.
    #[error("it can't be read: {0}")]
    Io(#[source] io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Io(error),
        }
    }
}

/// Reads a regular file, symbolic links followed, of at most `limit` bytes; with a descriptor of the reserve where there is no
/// other.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    // Before it is opened: opening a pipe would wait for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(ReadError::NotAFile);
    }
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = with_reserve(read)?;
    if bytes.len() as u64 > limit {
        return Err(ReadError::TooLarge { limit });
    }
    Ok(bytes)
}
