//! The destination of new signatures.

use std::path::PathBuf;

use url::Url;

use crate::configuration::SignatureSource;

/// The destination of new signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The registry's own extension endpoint.
    RegistryExtension,
    /// The extension endpoint of a store.
    Extension(Url),
    /// A lookaside tree on this machine.
    Folder(PathBuf),
}

impl Destination {
    /// Returns the source that reads from this destination; `None` if the folder has no absolute path.
    pub fn source(&self) -> Option<SignatureSource> {
        Some(match self {
            Self::RegistryExtension => SignatureSource::RegistryExtension,
            Self::Extension(url) => SignatureSource::Extension(url.clone()),
            Self::Folder(folder) => SignatureSource::Lookaside(Url::from_directory_path(folder).ok()?),
        })
    }
}
