//! Watches folders.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::telemetry::catch_panic;

/// The time within which several changes are one: editors write a file in several steps.
const DEBOUNCE_INTERVAL: Duration = Duration::from_millis(100);
/// The maximum delay of a check while changes go on.
const MAX_DEBOUNCE_INTERVAL: Duration = Duration::from_secs(1);

/// The folders to watch after a check of files, and when to check again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextCheck {
    /// The folders to watch from now on.
    pub folders: BTreeSet<PathBuf>,
    /// The time until the next check, if that is earlier than the poll.
    pub again: Option<Duration>,
}

impl From<BTreeSet<PathBuf>> for NextCheck {
    fn from(folders: BTreeSet<PathBuf>) -> Self {
        Self { folders, again: None }
    }
}

/// Calls `check` when files in some folders may have changed, until it is dropped.
///
/// Events of the file system make it quick, and a slow poll makes it certain: a watch ends when its folder is replaced,
/// and some file systems (NFS, FUSE) send no events.
#[derive(Debug)]
pub struct ChangeWatcher {
    messages: Sender<WatchMessage>,
    thread: Option<JoinHandle<()>>,
}

enum WatchMessage {
    Changed,
    Stop,
}

impl ChangeWatcher {
    /// Starts to watch. `check` is called at once, then after changes and at least every `poll`, always on one thread
    /// of its own. It returns the folders to watch from now on, and may ask for an earlier check.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn start<L: Into<NextCheck>>(
        name: &'static str,
        poll: Duration,
        mut check: impl FnMut() -> L + Send + 'static,
    ) -> std::io::Result<Self> {
        let (messages, received) = mpsc::channel();
        let events = messages.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // `check` reads the files, and a read is an event, too. An error means that events were lost, so a change
            // is possible.
            if event.map_or(true, |event| !event.kind.is_access()) {
                // The receiver is gone once the watcher is dropped.
                let _ = events.send(WatchMessage::Changed);
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "no file system events; changes are found every {poll:?}"))
            .ok();
        let mut state = FolderWatches { watcher, watched: BTreeSet::new() };
        let work = move || {
            // A panic would end the thread, and no later change would be seen.
            while catch_panic(name, None, || run(&received, poll, &mut state, || check().into())).is_none() {
                thread::sleep(DEBOUNCE_INTERVAL);
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { messages, thread: Some(thread) })
    }
}

impl Drop for ChangeWatcher {
    fn drop(&mut self) {
        let _ = self.messages.send(WatchMessage::Stop);
        if let Some(thread) = self.thread.take() {
            // The thread catches panics.
            let _ = thread.join();
        }
    }
}

fn run(
    received: &Receiver<WatchMessage>,
    poll: Duration,
    watches: &mut FolderWatches,
    mut check: impl FnMut() -> NextCheck,
) {
    loop {
        let before = watches.watched.clone();
        let mut look = check();
        watches.set(&look.folders);
        if watches.watched != before {
            // A change between the check and the start of the watch made no event.
            look = check();
            watches.set(&look.folders);
        }
        match received.recv_timeout(look.again.map_or(poll, |again| again.min(poll))) {
            Ok(WatchMessage::Changed) => {}
            Ok(WatchMessage::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                watches.renew();
                continue;
            }
        }
        let first = Instant::now();
        while first.elapsed() < MAX_DEBOUNCE_INTERVAL {
            match received.recv_timeout(DEBOUNCE_INTERVAL) {
                Ok(WatchMessage::Changed) => {}
                Ok(WatchMessage::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        watches.renew();
    }
}

struct FolderWatches {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl FolderWatches {
    fn set(&mut self, folders: &BTreeSet<PathBuf>) {
        for gone in self.watched.difference(folders) {
            if let Some(watcher) = &mut self.watcher {
                // The folder may not exist any more.
                let _ = watcher.unwatch(gone);
            }
        }
        let new: Vec<PathBuf> = folders.difference(&self.watched).cloned().collect();
        self.watched.retain(|folder| folders.contains(folder));
        for folder in new {
            if self.watch(&folder) {
                self.watched.insert(folder);
            }
        }
    }

    /// Watches each folder anew: it may have been replaced by another one of the same name.
    fn renew(&mut self) {
        let watched = std::mem::take(&mut self.watched);
        for folder in watched {
            if let Some(watcher) = &mut self.watcher {
                let _ = watcher.unwatch(&folder);
            }
            if self.watch(&folder) {
                self.watched.insert(folder);
            }
        }
    }

    /// Watches a folder. Returns whether that succeeded; a folder that does not exist has no watch, and the poll
    /// notices when it appears.
    fn watch(&mut self, folder: &Path) -> bool {
        self.watcher.as_mut().is_some_and(|watcher| watcher.watch(folder, RecursiveMode::NonRecursive).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_panics_is_followed_by_the_next_one() {
        let (tell, told) = mpsc::channel();
        let mut looks = 0;
        let watcher = ChangeWatcher::start("test-watcher", Duration::from_millis(10), move || {
            looks += 1;
            assert!(looks != 2, "a bug");
            let _ = tell.send(looks);
            BTreeSet::new()
        });
        let watcher = watcher.unwrap();
        for expected in [1, 3, 4] {
            assert_eq!(told.recv_timeout(Duration::from_mins(1)), Ok(expected));
        }
        drop(watcher);
    }
}
