//! A folder of a test's own, gone with it.

use std::path::{Path, PathBuf};

use super::Left;

/// A temporary folder with a short name: gpg-agent's socket path has to fit into 108 bytes.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        let scratch = Self(tempfile::Builder::new().prefix("sg").tempdir().expect("a temporary folder can be made"));
        scratch.left().note();
        scratch
    }

    fn left(&self) -> Left {
        Left::Folder(self.path().display().to_string())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
        std::fs::write(&path, content).expect("a file can be written");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.left().forget();
    }
}
