//! The redb engine: lists are cached, and writes share syncs.

use std::{
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use redb::{Database, DatabaseError};
use tokio::task::spawn_blocking;

use super::{
    catch_panic::catch_panic,
    changes::write,
    error::{damaged, database_error},
    file::{builder, check_format, create, look, open},
    group_commit::GroupCommit,
    overlay::ReadOnlyOverlay,
    reopen::{FIRST_BACKOFF, ReopeningDatabase},
    tables::{NameAndContent, RawRecord, end, key_of, parse_key, prefix, read, read_records},
};
use crate::gateway::store::{
    Change, Changed, ImageId, ImageLimits, Position, Put, Record, SignatureList, SignatureName, SignatureStore,
    StoreError, StoredSignature,
    list_cache::{ListCache, Version},
};
use crate::single_flight::{SingleFlight, Unwanted};

/// The redb engine.
pub struct RedbStore {
    // Declared first, so that it is dropped before the database. `None` if the store is read-only.
    writer: Option<GroupCommit>,
    reopening: Arc<ReopeningDatabase>,
    /// Cleared when the file is closed after an error: the file that is opened next may be another one.
    pub(super) lists: Arc<ListCache>,
    /// Reads in flight. A caller that wants a list that is being read shares the read if nothing has changed since it
    /// began.
    reads: SingleFlight<(ImageId, Version), Option<Result<SignatureList, StoreError>>>,
    path: PathBuf,
}

impl RedbStore {
    /// Opens the file, or makes it, and its folder, if it does not exist.
    ///
    /// Reads the whole file and verifies its checksums: damage that stays unnoticed would be noticed when the
    /// signatures are needed. Blocks meanwhile.
    pub fn open(path: &Path, limits: ImageLimits) -> Result<Self, StoreError> {
        let started = Instant::now();
        if look(path)?.is_none() {
            create(path)?;
        }
        let store = {
            let path = path.to_owned();
            Self::start(&path.clone(), Some(limits), FIRST_BACKOFF, move || open(&path, |path| builder().open(path)))?
        };
        tracing::info!(store = %path.display(), took = ?started.elapsed(), "the store is open");
        Ok(store)
    }

    /// Opens an existing store for reading, without changing its file, also after an unclean shutdown. No other process
    /// can open it for writing meanwhile. Reads and checks the whole file.
    pub fn open_unchanged(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_owned();
        let database = |path: &Path| builder().create_with_backend(ReadOnlyOverlay::open(path)?);
        Self::start(&path.clone(), None, FIRST_BACKOFF, move || open(&path, database))
    }

    /// Checks the file without changing it: it is a store, or does not exist. A file that is in use is accepted. After
    /// an unclean shutdown, the file is checked when it is opened.
    pub fn check(path: &Path) -> Result<(), StoreError> {
        if look(path)?.is_none() {
            return Ok(());
        }
        let checked = catch_panic(|| match builder().open_read_only(path) {
            Ok(database) => check_format(path, &database),
            Err(
                DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch | DatabaseError::RepairAborted,
            ) => Ok(()),
            Err(error) => Err(database_error(path, error)),
        });
        checked.unwrap_or_else(|_| Err(damaged(path, "its content can't be right")))
    }

    pub(super) fn start(
        path: &Path,
        limits: Option<ImageLimits>,
        first_backoff: Duration,
        open: impl Fn() -> Result<Database, StoreError> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let lists = Arc::new(ListCache::new());
        let closed = {
            let lists = Arc::clone(&lists);
            move || lists.forget_all()
        };
        let reopening = Arc::new(ReopeningDatabase::start(path, first_backoff, open, closed)?);
        let writer = |limits| {
            let (reopening, lists) = (Arc::clone(&reopening), Arc::clone(&lists));
            GroupCommit::start(path, move |batch| {
                let outcome = reopening.write(|database| write(database, &limits, batch));
                // Before any caller gets its answer. (After an error that may have left a part written, all lists are
                // forgotten already.)
                for (change, outcome) in batch.iter().zip(outcome.iter().flatten()) {
                    if changes_list(change, *outcome) {
                        lists.forget(change.image());
                    }
                }
                outcome
            })
        };
        let writer = limits.map(writer).transpose()?;
        Ok(Self { writer, reopening, lists, reads: SingleFlight::new(Unwanted::Finishes), path: path.into() })
    }
}

/// Returns whether a change affects its image's list, which contains neither origins nor statuses.
fn changes_list(change: &Change, outcome: Changed) -> bool {
    match change {
        Change::Put(..) | Change::Import(..) => outcome == Changed::Put(Put::Created),
        Change::Remove(..) => outcome != Changed::Signatures(0),
        Change::SetStatus(..) | Change::ClearStatuses(_) => false,
    }
}

#[async_trait]
impl SignatureStore for RedbStore {
    async fn list(&self, image: &ImageId) -> Result<SignatureList, StoreError> {
        if let Some(list) = self.lists.get(image) {
            return Ok(list);
        }
        // A change that was acknowledged before this version was taken is seen by every read that began with the same
        // version.
        let version = self.lists.version(image);
        let read = || {
            let (reopening, lists, path) = (Arc::clone(&self.reopening), Arc::clone(&self.lists), self.path.clone());
            let image = image.clone();
            async move {
                let read = spawn_blocking(move || {
                    let found = reopening.read(|database| read(database, &image))?;
                    let malformed = || damaged(&path, "a signature's name is malformed");
                    let signature = |(name, content): NameAndContent| {
                        Ok(StoredSignature { name: SignatureName::parse(&name).ok_or_else(malformed)?, content })
                    };
                    let signatures = found.into_iter().map(signature).collect::<Result<_, StoreError>>()?;
                    let list = SignatureList::new(&image, signatures);
                    lists.keep(&image, version, list.clone());
                    Ok(list)
                });
                read.await.ok()
            }
        };
        let completed = self.reads.join(&(image.clone(), version), read).await;
        completed.answer.flatten().unwrap_or_else(|| Err(damaged(&self.path, "reading it failed")))
    }

    async fn inspect(&self, image: &ImageId) -> Result<Vec<Record>, StoreError> {
        let prefix = prefix(image);
        let range = (Bound::Included(prefix.clone()), Bound::Excluded(end(&prefix)));
        let found = self.records(range, usize::MAX).await?;
        Ok(found.into_iter().map(|(_, record)| record).collect())
    }

    async fn change(&self, change: Change) -> Result<Changed, StoreError> {
        match &self.writer {
            Some(writer) => writer.make(change).await,
            None => Err(StoreError::ReadOnly { path: self.path.clone() }),
        }
    }

    async fn scan(&self, after: Option<&Position>, limit: usize) -> Result<Vec<(ImageId, Record)>, StoreError> {
        let from = after.map_or(Bound::Unbounded, |position| Bound::Excluded(key_of(position)));
        self.records((from, Bound::Unbounded), limit).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.reopening.health()
    }
}

impl RedbStore {
    /// Reads the records of a range of keys, at most `limit`.
    async fn records(
        &self,
        range: (Bound<String>, Bound<String>),
        limit: usize,
    ) -> Result<Vec<(ImageId, Record)>, StoreError> {
        let reopening = Arc::clone(&self.reopening);
        let found = spawn_blocking(move || reopening.read(|database| read_records(database, &range, limit)));
        let found = found.await.map_err(|_| damaged(&self.path, "reading it failed"))??;
        let malformed = |what: &str| damaged(&self.path, what);
        let record = |raw: RawRecord| {
            let (image, name) = parse_key(&raw.key).ok_or_else(|| malformed("a signature's key is malformed"))?;
            let origin = raw.origin.map(|json| serde_json::from_slice(&json)).transpose();
            let status = raw.status.map(|json| serde_json::from_slice(&json)).transpose();
            let record = Record {
                signature: StoredSignature { name, content: raw.content },
                origin: origin.map_err(|_| malformed("a signature's origin is malformed"))?,
                status: status.map_err(|_| malformed("a signature's status is malformed"))?,
            };
            Ok((image, record))
        };
        found.into_iter().map(record).collect()
    }
}
