//! The files of a folder, or of an archive, by name.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{SourceError, tar::Archive};

/// Bytes in a file, or in a part of one.
#[derive(Clone, Debug)]
pub struct Data {
    place: Place,
    offset: u64,
    length: u64,
    name: Arc<str>,
}

#[derive(Clone, Debug)]
enum Place {
    /// A file of its own, opened when it is read: an image may have more of them than a process may have open.
    Path(Arc<Path>),
    /// A part of one that is open.
    Open(Arc<File>),
}

impl Data {
    pub(crate) fn of(file: Arc<File>, offset: u64, length: u64, name: &str) -> Self {
        Self { place: Place::Open(file), offset, length, name: name.into() }
    }

    /// How many.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The file's name in its folder or archive.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads a part; all of it has to be there. This blocks.
    pub fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        self.file()?.read_exact_at(&mut bytes, self.offset + offset)?;
        Ok(bytes)
    }

    /// Reads it from the beginning. This blocks.
    pub(super) fn reader(&self) -> io::Result<impl Read + use<>> {
        Ok(Part { file: self.file()?, at: self.offset, left: self.length })
    }

    fn file(&self) -> io::Result<Arc<File>> {
        match &self.place {
            Place::Path(path) => File::open(path).map(Arc::new),
            Place::Open(file) => Ok(Arc::clone(file)),
        }
    }
}

struct Part {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// Where the files of an image are.
pub(super) enum Files {
    /// In this folder, whose path has no links in it.
    Folder(PathBuf),
    /// In an archive.
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

    /// What it is called in messages.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Folder(path) => path.display().to_string(),
            Self::Archive(archive) => archive.path().display().to_string(),
        }
    }

    /// A file, through links that stay inside.
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
        Ok(Data { place: Place::Path(path.into()), offset: 0, length: metadata.len(), name: name.into() })
    }

    /// All of a small file.
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
