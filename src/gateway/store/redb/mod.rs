//! The store in one file, with redb: B-trees, copy on write, checksums.
//!
//! Table `signatures`: from `repository NUL digest NUL name` to the OpenPGP message. A list is thus one range read, and
//! no repository name or digest can reach into another's range, since neither has a NUL in it. Tables `origins` and
//! `statuses` have what is known of a signature, in JSON, below the same key; who reads signatures needs neither. Table
//! `about` holds the format's number.

mod catch_panic;
mod group_commit;
mod overlay;
mod reopen;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError,
    TableHandle, WriteTransaction,
};
use tokio::task::spawn_blocking;

use self::{
    catch_panic::guarded,
    group_commit::Writer,
    overlay::Unchanged,
    reopen::{FIRST_WAIT, Keeper},
};
use super::{
    Change, Changed, ImageId, ImageLimits, Origin, Position, Put, Record, RepositoryName, SignatureList, SignatureName,
    SignatureStore, StoreError, StoredSignature,
    list_cache::{KeptLists, Ticket},
    quota::Admission,
};
use crate::files::durable::{above, create_folder, sync_folder};
use crate::image::Digest;
use crate::single_flight::{SingleFlight, Unwanted};

/// See the module.
const SIGNATURES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("signatures");
const ORIGINS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("origins");
const STATUSES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("statuses");
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
const FORMAT_KEY: &str = "format";
/// The format that this program writes, and the only one that it reads.
const FORMAT: u64 = 1;
/// Memory for pages. redb's default is 1 GiB, more than a gateway should ever need.
const CACHE_BYTES: usize = 64 << 20;

/// The redb engine.
pub struct RedbStore {
    // First, since it uses the other. Nothing: the store is only read.
    writer: Option<Writer>,
    keeper: Arc<Keeper>,
    /// Forgotten when the file is closed after an error: the one that is opened then may be another one.
    lists: Arc<KeptLists>,
    /// Who asks for a list that is being read shares it, if nothing has changed since that began.
    reads: SingleFlight<(ImageId, Ticket), Option<Result<SignatureList, StoreError>>>,
    path: PathBuf,
}

impl RedbStore {
    /// Opens the file, or makes it where there is none (with the folder that it is to be in).
    ///
    /// All of the file is read and its checksums are verified: signatures that rot unseen would be missed on the day
    /// they are needed. Blocks while it does.
    pub fn open(path: &Path, limits: ImageLimits) -> Result<Self, StoreError> {
        let started = Instant::now();
        if look(path)?.is_none() {
            create(path)?;
        }
        let store = {
            let path = path.to_owned();
            Self::start(&path.clone(), Some(limits), FIRST_WAIT, move || open(&path, |path| builder().open(path)))?
        };
        tracing::info!(store = %path.display(), took = ?started.elapsed(), "the store is open");
        Ok(store)
    }

    /// Opens a store that is there to read it, and changes nothing of its file: one that was not closed well stays as it is,
    /// and can be read all the same. While it is open, no other process opens it to write. All of the file is checked.
    pub fn open_unchanged(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_owned();
        let database = |path: &Path| builder().create_with_backend(Unchanged::open(path)?);
        Self::start(&path.clone(), None, FIRST_WAIT, move || open(&path, database))
    }

    /// Looks at the file without changing it: whether it is a store, or there is none yet. One that is in use is good, and
    /// one that was not closed well is checked when it is opened.
    pub fn check(path: &Path) -> Result<(), StoreError> {
        if look(path)?.is_none() {
            return Ok(());
        }
        let checked = guarded(|| match builder().open_read_only(path) {
            Ok(database) => check_format(path, &database),
            Err(
                DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch | DatabaseError::RepairAborted,
            ) => Ok(()),
            Err(error) => Err(database_error(path, error)),
        });
        checked.unwrap_or_else(|_| Err(damaged(path, "its content can't be right")))
    }

    fn start(
        path: &Path,
        limits: Option<ImageLimits>,
        first_wait: Duration,
        open: impl Fn() -> Result<Database, StoreError> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let lists = Arc::new(KeptLists::new());
        let closed = {
            let lists = Arc::clone(&lists);
            move || lists.forget_all()
        };
        let keeper = Arc::new(Keeper::start(path, first_wait, open, closed)?);
        let writer = |limits| {
            let (keeper, lists) = (Arc::clone(&keeper), Arc::clone(&lists));
            Writer::start(path, move |batch| {
                let outcome = keeper.write(|database| write(database, &limits, batch));
                // Before anybody is told. (After an error that may have left something written all is forgotten already.)
                for (change, outcome) in batch.iter().zip(outcome.iter().flatten()) {
                    if changes_list(change, *outcome) {
                        lists.forget(change.image());
                    }
                }
                outcome
            })
        };
        let writer = limits.map(writer).transpose()?;
        Ok(Self { writer, keeper, lists, reads: SingleFlight::new(Unwanted::Finishes), path: path.into() })
    }
}

/// Whether a change made another list of its image's: what is known of a signature is not in there.
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
        // Whatever was acknowledged by now was so before this ticket, and before each read with the same one began.
        let ticket = self.lists.ticket(image);
        let read = || {
            let (keeper, lists, path) = (Arc::clone(&self.keeper), Arc::clone(&self.lists), self.path.clone());
            let image = image.clone();
            async move {
                let read = spawn_blocking(move || {
                    let found = keeper.read(|database| read(database, &image))?;
                    let malformed = || damaged(&path, "a signature's name is malformed");
                    let signature = |(name, content): NameAndContent| {
                        Ok(StoredSignature { name: SignatureName::parse(&name).ok_or_else(malformed)?, content })
                    };
                    let signatures = found.into_iter().map(signature).collect::<Result<_, StoreError>>()?;
                    let list = SignatureList::new(&image, signatures);
                    lists.keep(&image, ticket, list.clone());
                    Ok(list)
                });
                read.await.ok()
            }
        };
        let landed = self.reads.join(&(image.clone(), ticket), read).await;
        landed.answer.flatten().unwrap_or_else(|| Err(damaged(&self.path, "reading it failed")))
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
        self.keeper.health()
    }
}

impl RedbStore {
    /// Records of a range of keys, `limit` at the most.
    async fn records(
        &self,
        range: (Bound<String>, Bound<String>),
        limit: usize,
    ) -> Result<Vec<(ImageId, Record)>, StoreError> {
        let keeper = Arc::clone(&self.keeper);
        let found = spawn_blocking(move || keeper.read(|database| read_records(database, &range, limit)));
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

/// Looks at the file without opening it. Nothing: there is none.
fn look(path: &Path) -> Result<Option<()>, StoreError> {
    match fs::metadata(path) {
        Ok(about) if !about.is_file() => {
            Err(StoreError::NotAStore { path: path.into(), what: "it is not a regular file".into() })
        }
        // redb would make an empty database of it.
        Ok(about) if about.len() == 0 => Err(StoreError::NoBytes { path: path.into() }),
        Ok(_) => Ok(Some(())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error(path, "opened", source)),
    }
}

/// Opens a store that is there, and checks all of it.
fn open(path: &Path, database: impl FnOnce(&Path) -> Result<Database, DatabaseError>) -> Result<Database, StoreError> {
    if look(path)?.is_none() {
        return Err(io_error(path, "opened", io::ErrorKind::NotFound.into()));
    }
    guarded(|| {
        let database = database(path).map_err(|error| database_error(path, error))?;
        check_format(path, &database)?;
        Ok(database)
    })
    .unwrap_or_else(|_| Err(damaged(path, "its checksums do not match")))
}

/// Makes a store beside its final place and moves it there when it is whole: a crash must not leave a file that looks
/// like a store that lost everything.
fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |source| io_error(path, "made", source);
    let folder = above(path);
    create_folder(folder).map_err(failed)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = folder.join(name);
    let made = initialize(&new).map_err(|error| storage_error(path, "made", error)).and_then(|()| {
        // Unlike a rename, this does not replace what another process may have made meanwhile.
        match fs::hard_link(&new, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
            _ => sync_folder(folder).map_err(failed),
        }
    });
    // It is only a second name by now, or of no use; what is left of it does no harm.
    let _ = fs::remove_file(&new);
    made?;
    tracing::warn!(store = %path.display(), "there was no store; a new one without any signature is made");
    Ok(())
}

fn initialize(path: &Path) -> Result<(), redb::Error> {
    let _ = fs::remove_file(path);
    let database = builder().create(path)?;
    let transaction = begin_write(&database)?;
    transaction.open_table(SIGNATURES)?;
    transaction.open_table(ABOUT)?.insert(FORMAT_KEY, FORMAT)?;
    transaction.commit()?;
    database.close()?;
    Ok(())
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Whether this is a store, of a format that is known here.
fn check_format(path: &Path, database: &impl ReadableDatabase) -> Result<(), StoreError> {
    let failed = |error: redb::Error| storage_error(path, "opened", error);
    let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
    let foreign = |what: &str| StoreError::NotAStore { path: path.into(), what: what.into() };
    let about = match transaction.open_table(ABOUT) {
        Ok(table) => table,
        Err(TableError::Storage(error)) => return Err(failed(error.into())),
        Err(_) => return Err(foreign("a redb file of another program")),
    };
    let found = about.get(FORMAT_KEY).map_err(|error| failed(error.into()))?.map(|value| value.value());
    match found {
        Some(FORMAT) => {}
        Some(found) => return Err(StoreError::Format { path: path.into(), found, known: FORMAT }),
        None => return Err(foreign("a redb file of another program")),
    }
    match transaction.open_table(SIGNATURES) {
        Ok(_) => Ok(()),
        Err(TableError::Storage(error)) => Err(failed(error.into())),
        Err(error) => Err(damaged(path, &format!("table {}: {error}", SIGNATURES.name()))),
    }
}

/// `repository NUL digest NUL`.
fn prefix(image: &ImageId) -> String {
    format!("{}\0{}\0", image.repository.as_str(), image.digest)
}

/// The first key after all that begin with this prefix.
fn end(prefix: &str) -> String {
    format!("{}\u{1}", &prefix[..prefix.len() - 1])
}

fn key(image: &ImageId, name: &SignatureName) -> String {
    format!("{}{}", prefix(image), name.as_str())
}

fn parse_key(key: &str) -> Option<(ImageId, SignatureName)> {
    let (repository, rest) = key.split_once('\0')?;
    let (digest, name) = rest.split_once('\0')?;
    let image = ImageId { repository: RepositoryName::parse(repository).ok()?, digest: Digest::parse(digest).ok()? };
    Some((image, SignatureName::parse(name)?))
}

/// The key that a position is behind: no name has `@` or `/` in a place where they could be confused.
fn key_of(position: &Position) -> String {
    let (image, name) = position.as_str().rsplit_once('/').unwrap_or((position.as_str(), ""));
    let (repository, digest) = image.split_once('@').unwrap_or((image, ""));
    format!("{repository}\0{digest}\0{name}")
}

/// All of a signature as it stands in the file.
struct RawRecord {
    key: Box<str>,
    content: Arc<[u8]>,
    origin: Option<Box<[u8]>>,
    status: Option<Box<[u8]>>,
}

fn read_records(
    database: &Database,
    range: &(Bound<String>, Bound<String>),
    limit: usize,
) -> Result<Vec<RawRecord>, redb::Error> {
    let transaction = database.begin_read()?;
    let signatures = transaction.open_table(SIGNATURES)?;
    // A file that an earlier version made has them only once something is in them.
    let [origins, statuses] = [ORIGINS, STATUSES].map(|table| match transaction.open_table(table) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error),
    });
    let (origins, statuses) = (origins?, statuses?);
    let range = (range.0.as_ref().map(String::as_str), range.1.as_ref().map(String::as_str));
    let mut records = Vec::new();
    for entry in signatures.range::<&str>(range)?.take(limit) {
        let (key, content) = entry?;
        let key = key.value();
        let known = |table: &Option<redb::ReadOnlyTable<&'static str, &'static [u8]>>| match table {
            Some(table) => Ok::<_, redb::Error>(table.get(key)?.map(|json| Box::from(json.value()))),
            None => Ok(None),
        };
        let (origin, status) = (known(&origins)?, known(&statuses)?);
        records.push(RawRecord { key: key.into(), content: content.value().into(), origin, status });
    }
    Ok(records)
}

/// A signature as it stands in the file.
type NameAndContent = (Box<str>, Arc<[u8]>);

/// All signatures of an image.
fn read(database: &Database, image: &ImageId) -> Result<Vec<NameAndContent>, redb::Error> {
    let table = database.begin_read()?.open_table(SIGNATURES)?;
    let prefix = prefix(image);
    let mut signatures = Vec::new();
    for entry in table.range::<&str>(prefix.as_str()..end(&prefix).as_str())? {
        let (key, content) = entry?;
        signatures.push((key.value()[prefix.len()..].into(), content.value().into()));
    }
    Ok(signatures)
}

/// A transaction whose commit is durable once it returns, and never taken back: with the default, of one phase, redb takes
/// a last commit whose pages can't be right for one that a crash cut off, and goes back to the one before without a word.
fn begin_write(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

/// Writes a batch in one transaction.
fn write(database: &Database, limits: &ImageLimits, batch: &[Change]) -> Result<Vec<Changed>, redb::Error> {
    let transaction = begin_write(database)?;
    let (outcomes, changed) = {
        let mut tables = Tables {
            signatures: transaction.open_table(SIGNATURES)?,
            origins: transaction.open_table(ORIGINS)?,
            statuses: transaction.open_table(STATUSES)?,
            changed: false,
        };
        let outcomes: Vec<Changed> =
            batch.iter().map(|change| tables.make(change, limits)).collect::<Result<_, StorageError>>()?;
        (outcomes, tables.changed)
    };
    if changed {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(outcomes)
}

type WriteTable<'a> = redb::Table<'a, &'static str, &'static [u8]>;

/// What a batch is written to.
struct Tables<'a> {
    signatures: WriteTable<'a>,
    origins: WriteTable<'a>,
    statuses: WriteTable<'a>,
    changed: bool,
}

impl Tables<'_> {
    fn make(&mut self, change: &Change, limits: &ImageLimits) -> Result<Changed, StorageError> {
        Ok(match change {
            Change::Put(image, record) => Changed::Put(self.put(image, record, limits)?),
            Change::Import(image, record) => Changed::Put(match self.put(image, record, limits)? {
                exists @ (Put::NameExists | Put::ContentExists) => self.complete(image, record)?.unwrap_or(exists),
                put => put,
            }),
            Change::Remove(image, name) => {
                let key = key(image, name);
                let removed = self.signatures.remove(key.as_str())?.is_some();
                self.origins.remove(key.as_str())?;
                self.statuses.remove(key.as_str())?;
                self.signatures(usize::from(removed))
            }
            Change::SetStatus(image, name, content, status) => {
                let key = key(image, name);
                match self.signatures.get(key.as_str())? {
                    None => return Ok(Changed::Signatures(0)),
                    Some(there) if !content.is_none_or(|content| content.matches(there.value())) => {
                        return Ok(Changed::Another);
                    }
                    Some(_) => {}
                }
                match status {
                    Some(status) => drop(self.statuses.insert(key.as_str(), &*json(status))?),
                    None => drop(self.statuses.remove(key.as_str())?),
                }
                self.signatures(1)
            }
            Change::ClearStatuses(image) => {
                let prefix = prefix(image);
                let mut cleared = 0;
                self.statuses.retain_in::<&str, _>(prefix.as_str()..end(&prefix).as_str(), |_, _| {
                    cleared += 1;
                    false
                })?;
                self.signatures(cleared)
            }
        })
    }

    fn signatures(&mut self, number: usize) -> Changed {
        self.changed |= number > 0;
        Changed::Signatures(number)
    }

    fn put(&mut self, image: &ImageId, record: &Record, limits: &ImageLimits) -> Result<Put, StorageError> {
        let put = self.admit(image, record, limits)?;
        if put == Put::Created {
            let key = key(image, &record.signature.name);
            self.signatures.insert(key.as_str(), &*record.signature.content)?;
            self.know(&key, record)?;
            self.changed = true;
        }
        Ok(put)
    }

    /// Whether the image may have this signature too. One range read, bounded by the limits themselves.
    fn admit(&self, image: &ImageId, record: &Record, limits: &ImageLimits) -> Result<Put, StorageError> {
        let prefix = prefix(image);
        let mut admission = Admission::new(limits, record);
        for entry in self.signatures.range::<&str>(prefix.as_str()..end(&prefix).as_str())? {
            let (key, content) = entry?;
            let key = key.value();
            let origin: Option<Origin> =
                self.origins.get(key)?.and_then(|json| serde_json::from_slice(json.value()).ok());
            let signer = origin.as_ref().and_then(Origin::signer);
            admission.count(&key[prefix.len()..], content.value(), signer);
        }
        Ok(admission.decide())
    }

    /// Adds what is not known yet of a signature that is there, to the byte. Nothing: it is another one.
    fn complete(&mut self, image: &ImageId, record: &Record) -> Result<Option<Put>, StorageError> {
        let key = key(image, &record.signature.name);
        match self.signatures.get(key.as_str())? {
            Some(content) if *content.value() == *record.signature.content => {}
            _ => return Ok(None),
        }
        let missing = |table: &WriteTable<'_>| Ok::<_, StorageError>(table.get(key.as_str())?.is_none());
        let record = Record {
            signature: record.signature.clone(),
            origin: if missing(&self.origins)? { record.origin.clone() } else { None },
            status: if missing(&self.statuses)? { record.status.clone() } else { None },
        };
        self.know(&key, &record)?;
        let completed = record.origin.is_some() || record.status.is_some();
        self.changed |= completed;
        Ok(Some(if completed { Put::Completed } else { Put::Present }))
    }

    fn know(&mut self, key: &str, record: &Record) -> Result<(), StorageError> {
        if let Some(origin) = &record.origin {
            self.origins.insert(key, &*json(origin))?;
        }
        if let Some(status) = &record.status {
            self.statuses.insert(key, &*json(status))?;
        }
        Ok(())
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    // Strings and times can't fail to be JSON.
    serde_json::to_vec(value).expect("strings are JSON")
}

fn io_error(path: &Path, doing: &'static str, source: io::Error) -> StoreError {
    StoreError::Io { path: path.into(), doing, source: Arc::new(source) }
}

fn damaged(path: &Path, what: &str) -> StoreError {
    StoreError::Damaged { path: path.into(), what: what.into() }
}

fn database_error(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::Locked { path: path.into() }
        }
        DatabaseError::UpgradeRequired(version) => {
            StoreError::NotAStore { path: path.into(), what: format!("a redb file of old format {version}").into() }
        }
        DatabaseError::RepairAborted => damaged(path, "it could not be repaired"),
        error => storage_error(path, "opened", error.into()),
    }
}

/// What an error of redb's means for the file.
pub(super) fn storage_error(path: &Path, doing: &'static str, error: redb::Error) -> StoreError {
    match error {
        // What redb says of a file that does not begin as its own do.
        redb::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
            StoreError::NotAStore { path: path.into(), what: source.to_string().into() }
        }
        redb::Error::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => damaged(path, "its end is missing"),
        redb::Error::Io(source) => io_error(path, doing, source),
        redb::Error::DatabaseAlreadyOpen => StoreError::Locked { path: path.into() },
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
            StoreError::Stopped { path: path.into(), cause: "there was an error before".into() }
        }
        error => damaged(path, &error.to_string()),
    }
}
