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

    /// Exchanges a file for another one, as careful editors do: whoever watches it never sees half of it, or an empty one.
    pub(crate) fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        let hidden = format!(".{}.new", path.file_name().expect("a file has a name").to_string_lossy());
        let new = self.write(&Path::new(name).with_file_name(hidden).to_string_lossy(), content);
        std::fs::rename(new, path).expect("a file can be renamed");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.left().forget();
    }
}
