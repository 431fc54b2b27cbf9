//! Files that people write and change under a running process: read with bounds, and watched.

mod configuration_file;
mod descriptor_reserve;
pub(crate) mod durable;
pub(crate) mod follower;
mod policy_folder;
mod policy_freshness;
mod policy_watcher;
mod watch;

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

pub use configuration_file::{ConfigurationLoadError, load_configuration};
pub use descriptor_reserve::reserve_descriptors;
pub(crate) use descriptor_reserve::with_reserve;
pub use follower::SETTLE_INTERVAL;
pub use policy_folder::{PolicyFiles, PolicyLoadError};
pub use policy_watcher::PolicyWatcher;
pub use watch::{ChangeWatcher, NextCheck};

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
    Io(#[source] std::io::Error),
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::Missing,
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
