//! A database that is closed and opened again after an error.
//!
//! After the first I/O error, redb returns only the pages that are in memory, and the content of the file is unknown
//! until it is read again. So the database is opened again, with back-off. Until then, requests fail at once, and the
//! store's health has the reason.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use redb::Database;

use super::{catch_panic::catch_panic, error::storage_error};
use crate::gateway::store::StoreError;

/// The first back-off after a repeated error. It doubles each time.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The maximum back-off. Errors that are further apart than this do not count as repeated.
const MAX_BACKOFF: Duration = Duration::from_mins(1);

/// Opens the existing database, and checks the whole file.
type Open = dyn Fn() -> Result<Database, StoreError> + Send + Sync;

/// A callback for when the database is closed, before anything is read from the one that is opened next, which may be
/// another one. It must not use the database.
type Closed = dyn Fn() + Send + Sync;

/// The database, and the thread that opens it again.
pub(super) struct ReopeningDatabase {
    inner: Arc<Inner>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Inner {
    path: PathBuf,
    open: Box<Open>,
    closed: Box<Closed>,
    first_backoff: Duration,
    /// The database. The lock is held for reading by requests, and for writing by the thread that closes it, which so
    /// waits for the requests.
    database: RwLock<Option<Database>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The reason why the database is closed, or about to be.
    closed: Option<StoreError>,
    /// The reason why writes are refused, and the end of that. A full disk is not tried with every PUT, since each
    /// failure closes the database for readers.
    unwritable: Option<(StoreError, Instant)>,
    /// The error occurred while the file was written.
    while_writing: bool,
    /// The back-off after the next error, and the time of the last one.
    wait: Duration,
    last_error: Option<Instant>,
    /// Shutdown has begun.
    ended: bool,
}

impl ReopeningDatabase {
    /// Opens the database, and keeps it open.
    pub(super) fn start(
        path: &Path,
        first_backoff: Duration,
        open: impl Fn() -> Result<Database, StoreError> + Send + Sync + 'static,
        closed: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let database = RwLock::new(Some(open()?));
        let (state, changed) = (Mutex::default(), Condvar::new());
        let (path, open, closed) = (path.to_owned(), Box::new(open), Box::new(closed));
        let inner = Arc::new(Inner { path: path.clone(), open, closed, first_backoff, database, state, changed });
        let keep = {
            let inner = Arc::clone(&inner);
            move || inner.keep()
        };
        let thread = thread::Builder::new()
            .name("store-reopen".into())
            .spawn(keep)
            .map_err(|source| StoreError::Io { path, doing: "opened", source: Arc::new(source) })?;
        Ok(Self { inner, thread: Some(thread) })
    }

    /// Reads. After any error of redb, the database is opened again.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        self.inner.work(false, work)
    }

    /// Writes. After any error of redb, the database is opened again, and writes are refused for a while.
    pub(super) fn write<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        self.health()?;
        let outcome = self.inner.work(true, work);
        if outcome.is_ok() {
            self.inner.state().wait = Duration::ZERO;
        }
        outcome
    }

    /// Returns an error if the database can't be read or written.
    pub(super) fn health(&self) -> Result<(), StoreError> {
        let mut state = self.inner.state();
        if let Some(error) = &state.closed {
            return Err(error.clone());
        }
        match &state.unwritable {
            Some((error, until)) if Instant::now() < *until => return Err(error.clone()),
            _ => state.unwritable = None,
        }
        Ok(())
    }
}

impl Drop for ReopeningDatabase {
    /// Closes the file, so that it can be opened again after this returns.
    fn drop(&mut self) {
        self.inner.state().ended = true;
        self.inner.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread catches panics.
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self, cause: &str) -> StoreError {
        StoreError::Stopped { path: self.path.clone(), cause: cause.into() }
    }

    fn work<T>(&self, writing: bool, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        // Checked before the lock as well, so that no request waits behind the thread that closes the database.
        if let Some(error) = &self.state().closed {
            return Err(error.clone());
        }
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = &*database else { return Err(self.stopped("it was closed just now")) };
        let outcome = catch_panic(|| work(database))
            .unwrap_or_else(|_| Err(redb::Error::Corrupted("its content can't be right".into())));
        outcome.map_err(|error| {
            let error = storage_error(&self.path, if writing { "written" } else { "read" }, error);
            self.failed(&error, writing);
            error
        })
    }

    /// Closes the database after an error.
    fn failed(&self, error: &StoreError, writing: bool) {
        let mut state = self.state();
        // Another request may have met the same error.
        if state.closed.is_some() {
            return;
        }
        tracing::error!(%error, "the store is closed after an error, and will be opened again");
        let now = Instant::now();
        if state.last_error.is_none_or(|last| now.duration_since(last) > MAX_BACKOFF * 2) {
            state.wait = Duration::ZERO;
        }
        state.last_error = Some(now);
        state.while_writing |= writing;
        let stopped = self.stopped(&error.to_string());
        if writing {
            let wait = self.longer(state.wait);
            state.unwritable = Some((stopped.clone(), now + wait));
        }
        state.closed = Some(stopped);
        // Called with the lock, so that no other thread sees the database closed, or open again, before.
        (self.closed)();
        drop(state);
        self.changed.notify_all();
    }

    fn longer(&self, wait: Duration) -> Duration {
        (wait * 2).clamp(self.first_backoff, MAX_BACKOFF)
    }

    /// Waits for an error, closes the database, and opens it again; until shutdown.
    fn keep(&self) {
        loop {
            let state = self.state();
            let unbroken = |state: &mut State| state.closed.is_none() && !state.ended;
            let mut state = self.changed.wait_while(state, unbroken).unwrap_or_else(PoisonError::into_inner);
            // The first try is immediate, for the sake of readers; [`State::unwritable`] delays writers.
            let mut wait = if state.unwritable.is_some() { Duration::ZERO } else { state.wait };
            state.wait = self.longer(state.wait);
            drop(state);
            let close = || drop(self.database.write().unwrap_or_else(PoisonError::into_inner).take());
            let _ = catch_panic(close);
            loop {
                let (state, _) = self
                    .changed
                    .wait_timeout_while(self.state(), wait, |state| !state.ended)
                    .unwrap_or_else(PoisonError::into_inner);
                if state.ended {
                    return;
                }
                let while_writing = state.while_writing;
                drop(state);
                match self.reopen(while_writing) {
                    Ok(database) => {
                        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
                        let mut state = self.state();
                        state.closed = None;
                        state.while_writing = false;
                        tracing::warn!(store = %self.path.display(), "the store is open again");
                        break;
                    }
                    Err(error) => {
                        wait = self.longer(wait);
                        tracing::error!(%error, ?wait, "the store can't be opened again; retrying");
                        self.state().closed = Some(self.stopped(&error.to_string()));
                    }
                }
            }
        }
    }

    fn reopen(&self, after_writing: bool) -> Result<Database, StoreError> {
        let database =
            catch_panic(|| (self.open)()).unwrap_or_else(|_| Err(self.stopped("its content can't be right")))?;
        if after_writing {
            write_back(&self.path).map_err(|source| StoreError::Io {
                path: self.path.clone(),
                doing: "written",
                source: Arc::new(source),
            })?;
        }
        Ok(database)
    }
}

/// Writes a file onto itself, and syncs it. After a failed sync, the system treats pages as clean that never reached
/// the disk: readers of the file see them, and no later sync writes them. The next loss of power would lose them, and
/// with them all that was built upon them.
fn write_back(path: &Path) -> std::io::Result<()> {
    const BLOCK: usize = 4096;
    let file = fs::File::options().read(true).write(true).open(path)?;
    let mut bytes = vec![0; 256 * BLOCK];
    let mut offset = 0;
    loop {
        let count = file.read_at(&mut bytes, offset)?;
        if count == 0 {
            return file.sync_all();
        }
        for (number, block) in bytes[..count].chunks(BLOCK).enumerate() {
            // Holes in the file take no space, and must not get any.
            if block.iter().any(|&byte| byte != 0) {
                file.write_all_at(block, offset + (number * BLOCK) as u64)?;
            }
        }
        offset += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_back_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut content = vec![0; 3 << 20];
        content[7] = 7;
        content[2 << 20] = 1;
        content.extend([9; 5000]);
        fs::write(&path, &content).unwrap();
        write_back(&path).unwrap();
        assert!(fs::read(&path).unwrap() == content);
    }
}
