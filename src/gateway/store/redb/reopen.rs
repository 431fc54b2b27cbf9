//! A database that is closed and opened anew after an error.
//!
//! After the first error of the file below it redb gives no page out any more that it has not in memory: what the file
//! holds is only known once it is read again. So that is done here, for as long as it takes; until then requests fail, at
//! once, and the store's health says why.

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

/// The first wait after an error that comes again; each further one is twice as long.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest of these waits. Errors that lie this far apart are not the same one again.
const MAX_BACKOFF: Duration = Duration::from_mins(1);

/// Opens the database, which is there, and checks all of it.
type Open = dyn Fn() -> Result<Database, StoreError> + Send + Sync;

/// Hears that the database is taken out of use, before anything is read from the one that is opened then, which may be
/// another one. It must not ask for the database.
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
    /// Held for reading by all who work with it, and for writing by the one who closes it, who so waits for them.
    database: RwLock<Option<Database>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Why the database is closed, or about to be.
    closed: Option<StoreError>,
    /// Why nothing is written, and until when: a disk that is full is not tried with every PUT, since each failure closes
    /// the database for those who read.
    unwritable: Option<(StoreError, Instant)>,
    /// Whether the error came while the file was written.
    while_writing: bool,
    /// The wait after the next error, and when the last one was.
    wait: Duration,
    last_error: Option<Instant>,
    /// The end has come.
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

    /// Reads. Whatever error redb has, the database is opened anew after it.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        self.inner.work(false, work)
    }

    /// Writes; the same holds, and nothing is written for a while after an error.
    pub(super) fn write<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        self.health()?;
        let outcome = self.inner.work(true, work);
        if outcome.is_ok() {
            self.inner.state().wait = Duration::ZERO;
        }
        outcome
    }

    /// Whether it can be read and written.
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
    /// The file is closed when this returns, so that it can be opened again.
    fn drop(&mut self) {
        self.inner.state().ended = true;
        self.inner.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It catches the panics of others.
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
        // Not only below: no request waits behind the one that closes it.
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

    /// Takes the database out of use.
    fn failed(&self, error: &StoreError, writing: bool) {
        let mut state = self.state();
        // Others may have come upon the same error.
        if state.closed.is_some() {
            return;
        }
        tracing::error!(%error, "the store is closed, to be opened anew");
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
        // While no other thread can see that it is closed, or open again.
        (self.closed)();
        drop(state);
        self.changed.notify_all();
    }

    fn longer(&self, wait: Duration) -> Duration {
        (wait * 2).clamp(self.first_backoff, MAX_BACKOFF)
    }

    /// Waits for an error, closes the database and opens it again; until the end.
    fn keep(&self) {
        loop {
            let state = self.state();
            let unbroken = |state: &mut State| state.closed.is_none() && !state.ended;
            let mut state = self.changed.wait_while(state, unbroken).unwrap_or_else(PoisonError::into_inner);
            // The first time at once, for readers wait; of writers [`State::unwritable`] takes care.
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
                        tracing::error!(%error, ?wait, "the store can't be opened again; it is tried further");
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

/// Writes a file onto itself, and syncs it. After a sync that failed, the system takes pages for clean that never reached
/// the disk: it shows them to readers of the file, and no later sync writes them, so that the next loss of power would
/// take them, and with them what was built upon them.
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
            // What was never written takes no room, and shall not take any.
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
