//! The file of an export: written, and resumed after an interruption.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, TryLockError},
    io::{self, BufReader, Seek as _, SeekFrom, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};

use super::{
    error::TransferError,
    export_report::ExportReport,
    line_reader::{LineReader, RawLine},
};
use crate::files::durable::{above, sync_folder};
use crate::gateway::export_format;
use crate::gateway::store::Position;
use crate::image::Digest;

/// The time after its start for which an export is resumed without `--resume`. The file keeps signatures that were
/// removed from the store meanwhile, and misses those that were added before its last one.
const RESUME_TTL: SignedDuration = SignedDuration::from_hours(1);
/// The first bytes of every line of an export.
const BEGINNING: &[u8] = b"{\"repository\":\"";

/// The file that an export writes. It gets its name once it is complete; until then it is a [`Partial`].
pub(crate) struct ExportFile {
    path: PathBuf,
    partial: Partial,
    discarded: Option<Timestamp>,
}

/// An unfinished export, `NAME.<8 characters of the store>.<start>.partial`. The name keeps an export of one store from
/// being resumed with signatures of another, and old exports from being resumed unasked.
struct Partial {
    path: PathBuf,
    begun: Timestamp,
    /// The file, locked.
    file: fs::File,
}

impl ExportFile {
    /// Opens the file. `store` identifies the store. An unfinished export of it is resumed if it is recent, or if
    /// `resume` is set.
    pub(crate) fn open(path: &Path, store: &str, now: Timestamp, resume: bool) -> Result<Self, TransferError> {
        is_free(path)?;
        let prefix = prefix(path, store);
        let mut left = Partial::all(path, &prefix)?;
        let young = |begun| (SignedDuration::ZERO..RESUME_TTL).contains(&now.duration_since(begun));
        let taken = left.pop_if(|partial| resume || young(partial.begun));
        // Another export may have finished just now.
        is_free(path)?;
        let (partial, discarded) = match taken {
            Some(partial) => (partial, None),
            None => (Partial::begin(path, prefix, now)?, left.last().map(|partial| partial.begun)),
        };
        for Partial { path, .. } in left {
            fs::remove_file(&path).map_err(TransferError::file(path))?;
        }
        Ok(Self { path: path.to_owned(), partial, discarded })
    }

    /// Returns the start of an unfinished export that was too old to be resumed, and is deleted.
    pub(crate) fn discarded(&self) -> Option<Timestamp> {
        self.discarded
    }

    /// Returns the time until which this export is resumed without `--resume`.
    pub(crate) fn young_until(&self) -> Timestamp {
        self.partial.begun.saturating_add(RESUME_TTL).unwrap_or(Timestamp::MAX)
    }

    /// Counts the lines of an unfinished export, cuts off an incomplete end, and returns the position after the last
    /// line.
    pub(super) fn take_up(&mut self, exported: &mut ExportReport) -> Result<Option<Position>, TransferError> {
        let failed = TransferError::file(&self.partial.path);
        let (mut last, mut whole) = (None, 0);
        let mut taken = || {
            let mut file = &self.partial.file;
            let mut lines = LineReader::new(BufReader::new(file));
            // After a loss of power, anything may follow the synced part. The first invalid line ends the part that
            // counts.
            while let Some(RawLine::Whole(line)) = lines.next()?
                && let Ok((image, record)) = export_format::read(&line)
            {
                last = Some(Position::behind(&image, &record.signature.name));
                whole = lines.bytes;
                exported.count(&record);
            }
            file.set_len(whole)?;
            file.seek(SeekFrom::Start(whole)).map(drop)
        };
        taken().map_err(failed)?;
        exported.resumed = exported.signatures;
        exported.begun = last.is_some().then_some(self.partial.begun);
        Ok(last)
    }

    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), TransferError> {
        self.partial.file.write_all(lines).map_err(TransferError::file(&self.partial.path))
    }

    /// Gives the file its name.
    pub(super) fn finish(&mut self) -> Result<(), TransferError> {
        self.partial.file.sync_all().map_err(TransferError::file(&self.partial.path))?;
        // Unlike a rename, a link does not replace a file that another process may have put there.
        match fs::hard_link(&self.partial.path, &self.path) {
            Ok(()) => fs::remove_file(&self.partial.path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(TransferError::Exists(self.path.clone()));
            }
            // The file system has no hard links.
            Err(_) => fs::rename(&self.partial.path, &self.path),
        }
        .and_then(|()| sync_folder(above(&self.path)))
        .map_err(TransferError::file(&self.path))
    }

    /// Returns the path of the file until it is complete.
    pub(crate) fn partial(&self) -> &Path {
        &self.partial.path
    }
}

fn is_free(path: &Path) -> Result<(), TransferError> {
    match path.symlink_metadata() {
        Ok(_) => Err(TransferError::Exists(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(TransferError::file(path)(error)),
    }
}

/// Returns the common prefix of the partial files of a file.
fn prefix(path: &Path, store: &str) -> OsString {
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(format!(".{}.", &Digest::sha256(store.as_bytes()).hex()[..8]));
    prefix
}

impl Partial {
    /// Returns the existing partial files, the oldest first.
    fn all(path: &Path, prefix: &OsStr) -> Result<Vec<Self>, TransferError> {
        let failed = || TransferError::file(above(path));
        let mut found = Vec::new();
        for entry in fs::read_dir(above(path)).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
            let begun = rest.and_then(|rest| str::from_utf8(rest.strip_suffix(b".partial")?).ok()?.parse().ok());
            if let Some(begun) = begun {
                found.push((begun, path.with_file_name(name)));
            }
        }
        found.sort_unstable();
        found.into_iter().map(|(begun, path)| Self::open(path, begun)).collect()
    }

    fn begin(path: &Path, mut name: OsString, begun: Timestamp) -> Result<Self, TransferError> {
        name.push(begun.strftime("%Y%m%dT%H%M%SZ.partial").to_string());
        let path = path.with_file_name(name);
        match fs::File::options().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => Self { path, begun, file }.locked(),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(TransferError::Busy(path)),
            Err(error) => Err(TransferError::file(path)(error)),
        }
    }

    /// Opens an existing partial file. Its name is predictable, so another user may have put something there: nothing
    /// is written through a link, nor to a file that no export began.
    fn open(path: PathBuf, begun: Timestamp) -> Result<Self, TransferError> {
        let about = path.symlink_metadata().map_err(TransferError::file(&path))?;
        if !about.is_file() {
            return Err(TransferError::NotPartial(path));
        }
        let file = fs::File::options().read(true).write(true).open(&path).map_err(TransferError::file(&path))?;
        let partial = Self { path, begun, file }.locked()?;
        match partial.is_ours() {
            Ok(true) => Ok(partial),
            Ok(false) => Err(TransferError::NotPartial(partial.path)),
            Err(error) => Err(TransferError::file(partial.path)(error)),
        }
    }

    fn locked(self) -> Result<Self, TransferError> {
        match self.file.try_lock() {
            Ok(()) => Ok(self),
            Err(TryLockError::WouldBlock) => Err(TransferError::Busy(self.path)),
            Err(TryLockError::Error(error)) => Err(TransferError::file(self.path)(error)),
        }
    }

    /// Returns whether the opened file is still the one of this name, and is empty or begins with a line of an export,
    /// possibly a torn one.
    fn is_ours(&self) -> io::Result<bool> {
        let (named, opened) = (self.path.symlink_metadata()?, self.file.metadata()?);
        if (named.dev(), named.ino()) != (opened.dev(), opened.ino()) {
            return Ok(false);
        }
        let mut file = &self.file;
        let first = LineReader::new(BufReader::new(file)).next()?;
        file.rewind()?;
        Ok(match first {
            None => true,
            Some(RawLine::Whole(line)) => export_format::read(&line).is_ok(),
            Some(RawLine::Torn(line)) => line.iter().zip(BEGINNING).all(|(one, other)| one == other),
            Some(RawLine::Long(_)) => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::export_format::MAX_LINE_BYTES;
    use crate::gateway::store::{ImageId, Record, RepositoryName, SignatureName, StoredSignature};

    fn line(number: usize) -> Vec<u8> {
        let digest = Digest::sha256(b"image");
        let image = ImageId { repository: RepositoryName::parse("acme/web").unwrap(), digest };
        let name = SignatureName::parse(&format!("{number:032}")).unwrap();
        let signature = StoredSignature { name, content: [0x90].into() };
        let mut line = Vec::new();
        export_format::write(&mut line, &image, &Record { signature, origin: None, status: None });
        line
    }

    const BEGUN: &str = "2026-11-26T10:00:00Z";

    fn open(path: &Path, store: &str, now: &str, resume: bool) -> Result<ExportFile, TransferError> {
        ExportFile::open(path, store, now.parse().unwrap(), resume)
    }

    fn taken(left: &[u8]) -> (usize, Option<String>, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup.ndjson");
        let partial = open(&path, "store", BEGUN, false).unwrap().partial().to_owned();
        fs::write(&partial, left).unwrap();
        let mut file = open(&path, "store", "2026-11-26T10:59:59Z", false).unwrap();
        let mut exported = ExportReport::default();
        let last = file.take_up(&mut exported).unwrap();
        file.write(b"more\n").unwrap();
        file.finish().unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, std::slice::from_ref(&path), "nothing is left beside it");
        (exported.resumed, last.map(|last| last.as_str().to_owned()), fs::read(path).unwrap())
    }

    #[test]
    fn what_is_whole_of_an_earlier_export_is_taken_up_and_the_rest_is_cut_off() {
        let two = [line(1), line(2)].concat();
        let behind = format!("acme/web@{}/{:032}", Digest::sha256(b"image"), 2);
        let more = [two.as_slice(), b"more\n"].concat();
        for torn in
            [&b""[..], &line(3)[..7], &line(3)[..line(3).len() - 1], b"\0\0\0\n", b"\n", b"{}\n", &vec![b'x'; 200_000]]
        {
            let left = [two.as_slice(), torn].concat();
            assert_eq!(taken(&left), (2, Some(behind.clone()), more.clone()));
        }
        // What lies behind something that is no line was written before the power was lost, perhaps not all of it.
        let left = [two.as_slice(), b"\0\n", &line(4)].concat();
        assert_eq!(taken(&left), (2, Some(behind), more));
        for nothing in [&b""[..], b"{\"rep", &line(1)[..99]] {
            assert_eq!(taken(nothing), (0, None, b"more\n".to_vec()));
        }
    }

    #[test]
    fn an_export_replaces_no_other_file_and_resumes_none_of_another_store() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup.ndjson");
        let one = open(&path, "store", BEGUN, false).unwrap();
        for (now, resume) in [(BEGUN, false), ("2026-11-26T12:00:00Z", false), ("2026-11-26T12:00:00Z", true)] {
            assert!(matches!(open(&path, "store", now, resume), Err(TransferError::Busy(_))));
        }
        let mut other = open(&path, "other", BEGUN, false).unwrap();
        assert_ne!(one.partial(), other.partial());
        fs::write(&path, "somebody's").unwrap();
        assert!(matches!(other.finish(), Err(TransferError::Exists(_))));
        drop(one);
        assert!(matches!(open(&path, "store", BEGUN, false), Err(TransferError::Exists(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
    }

    #[test]
    fn an_export_that_was_begun_an_hour_ago_is_taken_up_only_where_that_is_wished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup.ndjson");
        let begun: Timestamp = BEGUN.parse().unwrap();
        let left = open(&path, "store", BEGUN, false).unwrap();
        assert_eq!((left.discarded(), left.young_until().to_string().as_str()), (None, "2026-11-26T11:00:00Z"));
        fs::write(left.partial(), line(1)).unwrap();
        drop(left);
        let taken = |now, resume| {
            let (mut file, mut exported) = (open(&path, "store", now, resume).unwrap(), ExportReport::default());
            file.take_up(&mut exported).unwrap();
            (exported.resumed, exported.begun, file.discarded())
        };
        assert_eq!(taken("2026-11-26T10:59:59Z", false), (1, Some(begun), None));
        // It does not grow younger.
        assert_eq!(taken("2026-11-30T00:00:00Z", true), (1, Some(begun), None));
        assert_eq!(taken("2026-11-26T11:00:00Z", false), (0, None, Some(begun)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the old one is gone");
        // Nor is one that a clock had begun in the future.
        assert_eq!(taken(BEGUN, false), (0, None, Some("2026-11-26T11:00:00Z".parse().unwrap())));
    }

    #[test]
    fn nothing_is_written_to_what_somebody_else_has_put_in_an_exports_place() {
        let folder = tempfile::tempdir().unwrap();
        let (path, theirs) = (folder.path().join("backup.ndjson"), folder.path().join("theirs"));
        let partial = open(&path, "store", BEGUN, false).unwrap().partial().to_owned();
        let refused = |why: &str| {
            for (now, resume) in [(BEGUN, false), ("2026-11-30T00:00:00Z", false), ("2026-11-30T00:00:00Z", true)] {
                let opened = open(&path, "store", now, resume).map(drop);
                assert!(matches!(opened, Err(TransferError::NotPartial(_))), "{why}: {opened:?}");
            }
        };
        for content in [&b"x"[..], b"x\n", b"{}\n", &vec![b'{'; MAX_LINE_BYTES + 2]] {
            fs::write(&partial, content).unwrap();
            refused("no export");
            assert_eq!(fs::read(&partial).unwrap(), content);
        }
        fs::remove_file(&partial).unwrap();
        fs::create_dir(&partial).unwrap();
        refused("a folder");
        fs::remove_dir(&partial).unwrap();
        for content in [&b"theirs"[..], b"", &line(1)] {
            fs::write(&theirs, content).unwrap();
            std::os::unix::fs::symlink(&theirs, &partial).unwrap();
            refused("a link");
            assert_eq!(fs::read(&theirs).unwrap(), content);
            fs::remove_file(&partial).unwrap();
        }
    }
}
