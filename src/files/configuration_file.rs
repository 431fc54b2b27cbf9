//! The configuration file.

use std::path::{Path, PathBuf};

use super::read::{ReadError, read_bounded};
use crate::configuration::{self, Configuration};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::policy::SourceFile;

/// The maximum size of a configuration file, in bytes.
const MAX_CONFIGURATION_BYTES: u64 = 1 << 20;

/// The reason why a configuration can't be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigurationLoadError {
    /// The file can't be read.
    #[error("configuration {}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        why: ReadError,
    },
    /// The file has these mistakes.
    #[error("{}", Diagnostics(.0))]
    Refused(Vec<Diagnostic>),
}

/// Reads and checks a configuration file. The paths in it are made absolute.
pub fn load_configuration(path: &Path) -> Result<Configuration, ConfigurationLoadError> {
    let unreadable = |why| ConfigurationLoadError::Unreadable { path: path.to_owned(), why };
    let bytes = read_bounded(path, MAX_CONFIGURATION_BYTES).map_err(unreadable)?;
    let absolute = std::path::absolute(path).map_err(|error| unreadable(ReadError::Io(error)))?;
    let folder = absolute.parent().map(Path::to_owned).unwrap_or_default();
    let file = SourceFile { name: path.display().to_string().into(), folder, bytes };
    configuration::load(&file).map_err(ConfigurationLoadError::Refused)
}
