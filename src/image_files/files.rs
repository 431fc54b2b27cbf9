//! Access by name to the files of a folder or an archive.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{data::Data, error::SourceError, tar::Archive};

/// The files of an image.
pub(super) enum Files {
    /// A folder, whose path contains no links.
    Folder(PathBuf),
    /// An archive.
    Archive(Archive),
}

impl Files {
    pub(super) fn folder(path: &Path) -> Result<Self, SourceError> {
        let read = |source| SourceError::Read { path: path.to_owned(), source };
        let folder = path.canonicalize().map_err(read)?;
        if !folder.is_dir() {
            return Err(read(io::ErrorKind::NotADirectory.into()));
        }
        Ok(Self::Folder(folder))
    }

    pub(super) fn archive(path: &Path) -> Result<Self, SourceError> {
        Archive::open(path).map(Self::Archive)
    }

    /// Returns the name of the folder or archive, for messages.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Folder(path) => path.display().to_string(),
            Self::Archive(archive) => archive.path().display().to_string(),
        }
    }

    /// Finds a file, through links that stay inside the folder or archive.
    pub(super) fn find(&self, name: &str) -> Result<Data, SourceError> {
        let folder = match self {
            Self::Archive(archive) => return archive.find(name),
            Self::Folder(folder) => folder,
        };
        let outside = || SourceError::Outside { place: self.place(), name: name.to_owned() };
        let path = folder.join(name);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => SourceError::Missing { place: self.place(), name: name.to_owned() },
            _ => SourceError::Read { path: path.clone(), source },
        };
        let path = path.canonicalize().map_err(failed)?;
        if !path.starts_with(folder) {
            return Err(outside());
        }
        let metadata = path.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(SourceError::Malformed { place: self.place(), what: format!("{name:?} is no file") });
        }
        Ok(Data::of_path(&path, metadata.len(), name))
    }

    /// Reads a small file completely.
    pub(super) fn read(&self, name: &str, limit: usize) -> Result<Vec<u8>, SourceError> {
        let data = self.find(name)?;
        let size = data.length();
        match usize::try_from(size) {
            Ok(length) if length <= limit => data.read_at(0, length).map_err(|source| self.unreadable(name, source)),
            _ => Err(SourceError::TooLarge { place: self.place(), name: name.to_owned(), size, limit: limit as u64 }),
        }
    }

    pub(super) fn unreadable(&self, name: &str, source: io::Error) -> SourceError {
        let path = match self {
            Self::Folder(folder) => folder.join(name),
            Self::Archive(archive) => archive.path().to_owned(),
        };
        SourceError::Read { path, source }
    }

    pub(super) fn malformed(&self, what: impl Into<String>) -> SourceError {
        SourceError::Malformed { place: self.place(), what: what.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _, sync::Arc};

    use super::*;

    #[test]
    fn a_folder_gives_no_file_that_is_not_in_it() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("layout");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(outer.path().join("secret"), "secret").unwrap();
        std::fs::write(folder.join("file"), "content").unwrap();
        std::os::unix::fs::symlink("file", folder.join("inside")).unwrap();
        std::os::unix::fs::symlink("../secret", folder.join("outside")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.join("endless")).unwrap();
        let files = Files::folder(&folder).unwrap();
        assert_eq!(files.read("inside", 7).unwrap(), b"content");
        assert!(matches!(files.read("file", 6), Err(SourceError::TooLarge { size: 7, limit: 6, .. })));
        for name in ["outside", "../secret", "endless", "/etc/passwd"] {
            assert!(matches!(files.find(name), Err(SourceError::Outside { .. })), "{name}");
        }
        assert!(matches!(files.find("none"), Err(SourceError::Missing { .. })));
        assert!(matches!(files.find("."), Err(SourceError::Malformed { .. })));
        assert!(matches!(Files::folder(&folder.join("file")), Err(SourceError::Read { .. })));
    }

    #[test]
    fn a_part_ends_where_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "0123456789").unwrap();
        let file = Arc::new(File::open(folder.path().join("file")).unwrap());
        let data = Data::of(Arc::clone(&file), 2, 5, "x");
        assert_eq!(data.read_at(1, 3).unwrap(), b"345");
        assert!(data.read_at(3, 3).is_err() && data.read_at(u64::MAX, 1).is_err());
        let mut all = String::new();
        data.reader().unwrap().read_to_string(&mut all).unwrap();
        assert_eq!(all, "23456");
        let truncated = Data::of(file, 8, 5, "x");
        assert!(truncated.reader().unwrap().read_to_string(&mut all).is_err());
    }
}
