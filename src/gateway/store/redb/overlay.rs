//! A read-only file as a database. The changes that redb makes when it opens a database (more after an unclean
//! shutdown) stay in memory.

use std::{
    collections::BTreeMap,
    fs, io,
    ops::Bound,
    path::Path,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use redb::{BackendError, DatabaseError, StorageBackend, backends::FileBackend};

const BLOCK: u64 = 4096;

/// The file, and the changed blocks in memory.
#[derive(Debug)]
pub(super) struct ReadOnlyOverlay {
    file: FileBackend,
    differences: RwLock<Differences>,
}

#[derive(Debug)]
struct Differences {
    length: u64,
    /// The length of the part that is still the file's; zeros follow.
    of_file: u64,
    /// The changed blocks, by number.
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl ReadOnlyOverlay {
    pub(super) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let file = fs::File::open(path).map_err(redb::StorageError::Io)?;
        let length = file.metadata().map_err(redb::StorageError::Io)?.len();
        let differences = RwLock::new(Differences { length, of_file: length, blocks: BTreeMap::new() });
        Ok(Self { file: FileBackend::new(file)?, differences })
    }

    fn differences(&self) -> RwLockReadGuard<'_, Differences> {
        self.differences.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from the file, with zeros after `of_file`.
    fn read_file(&self, of_file: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(of_file.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (there, behind) = out.split_at_mut(there);
        behind.fill(0);
        if there.is_empty() { Ok(()) } else { self.file.read(offset, there) }
    }
}

/// Splits a range into blocks: the number of each, the offset in it, and the length.
fn parts(mut offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + length as u64;
    std::iter::from_fn(move || {
        let (number, within) = (offset / BLOCK, offset % BLOCK);
        let length = (BLOCK - within).min(end - offset);
        offset += length;
        // Both are at most the size of a block.
        let [within, length] = [within, length].map(|bytes| usize::try_from(bytes).unwrap_or_default());
        (length > 0).then_some((number, within, length))
    })
}

impl StorageBackend for ReadOnlyOverlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.differences().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let Differences { length, of_file, blocks } = &*self.differences();
        let end = offset.checked_add(out.len() as u64).filter(|end| end <= length);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.read_file(*of_file, offset, out)?;
        if blocks.range(offset / BLOCK..=end / BLOCK).next().is_none() {
            return Ok(());
        }
        let mut rest = out;
        for (number, within, length) in parts(offset, rest.len()) {
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(length);
            if let Some(block) = blocks.get(&number) {
                part.copy_from_slice(&block[within..within + length]);
            }
            rest = behind;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut differences = self.differences.write().unwrap_or_else(PoisonError::into_inner);
        differences.length = len;
        differences.of_file = differences.of_file.min(len);
        differences.blocks.split_off(&len.div_ceil(BLOCK));
        if let Some(block) = differences.blocks.get_mut(&(len / BLOCK)) {
            block[usize::try_from(len % BLOCK).unwrap_or_default()..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut differences = self.differences.write().unwrap_or_else(PoisonError::into_inner);
        let Differences { length, of_file, blocks } = &mut *differences;
        let mut rest = data;
        for (number, within, count) in parts(offset, data.len()) {
            let (part, behind) = rest.split_at(count);
            let block = match blocks.entry(number) {
                std::collections::btree_map::Entry::Occupied(block) => block.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    let mut block = vec![0; usize::try_from(BLOCK).unwrap_or_default()].into_boxed_slice();
                    self.read_file(*of_file, number * BLOCK, &mut block)?;
                    place.insert(block)
                }
            };
            block[within..within + count].copy_from_slice(part);
            rest = behind;
        }
        *length = (*length).max(offset + data.len() as u64);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    /// Takes a shared lock: it only has to keep writers out. (A process without permission to write the file can't lock
    /// it exclusively.)
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_as_if_the_file_were_changed(
            steps in proptest::collection::vec((0..20_000_u64, 0..9_000_usize, any::<u8>(), any::<bool>()), 1..20),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            let before: Vec<u8> = (0..10_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
            fs::write(&path, &before).unwrap();
            let mut expected = before.clone();
            let file = ReadOnlyOverlay::open(&path).unwrap();
            for (offset, length, byte, cut) in steps {
                let start = usize::try_from(offset).unwrap();
                if cut {
                    expected.resize(start, 0);
                    file.set_len(offset).unwrap();
                } else {
                    expected.resize(expected.len().max(start + length), 0);
                    expected[start..start + length].fill(byte);
                    file.write(offset, &vec![byte; length]).unwrap();
                }
                let mut found = vec![1; expected.len()];
                file.read(0, &mut found).unwrap();
                prop_assert!(found == expected);
                prop_assert_eq!(file.len().unwrap(), expected.len() as u64);
                prop_assert!(file.read(1, &mut found).is_err(), "nothing is behind the end");
            }
            prop_assert!(fs::read(&path).unwrap() == before);
        }
    }
}
