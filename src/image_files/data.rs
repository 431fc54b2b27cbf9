//! Bytes in a file, or in a part of one.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

/// Bytes in a file, or in a part of one.
#[derive(Clone, Debug)]
pub struct Data {
    place: DataLocation,
    offset: u64,
    length: u64,
    name: Arc<str>,
}

#[derive(Clone, Debug)]
enum DataLocation {
    /// A path that is opened for each read: an image may have more files than a process may open.
    Path(Arc<Path>),
    /// A part of an open file.
    Open(Arc<File>),
}

impl Data {
    /// Makes data of a file that is opened for each read.
    pub(super) fn of_path(path: &Path, length: u64, name: &str) -> Self {
        Self { place: DataLocation::Path(path.into()), offset: 0, length, name: name.into() }
    }

    /// Makes data of a part of an open file.
    pub(crate) fn of(file: Arc<File>, offset: u64, length: u64, name: &str) -> Self {
        Self { place: DataLocation::Open(file), offset, length, name: name.into() }
    }

    /// Returns the number of bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the file's name in its folder or archive.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads a part, which must be there completely. Blocks.
    pub fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        self.file()?.read_exact_at(&mut bytes, self.offset + offset)?;
        Ok(bytes)
    }

    /// Returns a reader that starts at the beginning. It blocks.
    pub(super) fn reader(&self) -> io::Result<impl Read + use<>> {
        Ok(DataReader { file: self.file()?, at: self.offset, left: self.length })
    }

    fn file(&self) -> io::Result<Arc<File>> {
        match &self.place {
            DataLocation::Path(path) => File::open(path).map(Arc::new),
            DataLocation::Open(file) => Ok(Arc::clone(file)),
        }
    }
}

struct DataReader {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for DataReader {
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
