//! The store in one file, with redb: B-trees, copy on write, checksums.
//!
//! Table `signatures`: from `repository NUL digest NUL name` to the OpenPGP message. A list is thus one range read, and
//! no repository name or digest can reach into another's range, since neither has a NUL in it. Table `about` holds the
//! format's number.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use async_trait::async_trait;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError,
    TableHandle, WriteTransaction,
};
use tokio::task::spawn_blocking;

use super::{ImageId, ImageLimits, Put, SignatureName, SignatureStore, StoreError, StoredSignature, writer::Writer};

/// See the module.
const SIGNATURES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("signatures");
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
const FORMAT_KEY: &str = "format";
/// The format that this program writes, and the only one that it reads.
const FORMAT: u64 = 1;
/// Memory for pages. redb's default is 1 GiB, more than a gateway should ever need.
const CACHE_BYTES: usize = 64 << 20;

/// The redb engine.
pub struct RedbStore {
    database: Arc<Database>,
    writer: Writer,
    path: PathBuf,
}

impl RedbStore {
    /// Opens the file, or makes it where there is none (with the folder that it is to be in).
    ///
    /// All of the file is read and its checksums are verified: signatures that rot unseen would be missed on the day
    /// they are needed. Blocks while it does.
    pub fn open(path: &Path, limits: ImageLimits) -> Result<Self, StoreError> {
        let started = Instant::now();
        match fs::metadata(path) {
            Ok(about) if !about.is_file() => {
                return Err(StoreError::NotAStore { path: path.into(), what: "it is not a regular file".into() });
            }
            // redb would make an empty database of it.
            Ok(about) if about.len() == 0 => return Err(StoreError::NoBytes { path: path.into() }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(path)?,
            Err(source) => return Err(StoreError::Io { path: path.into(), doing: "opened", source }),
        }
        // redb promises errors for a damaged file when it checks; where it breaks the promise, that is damage as well.
        let database = catch_unwind(AssertUnwindSafe(|| {
            let database = builder().open(path).map_err(|error| database_error(path, error))?;
            check_format(path, &database)?;
            Ok(database)
        }))
        .unwrap_or_else(|_| Err(damaged(path, "its checksums do not match")))?;
        let database = Arc::new(database);
        tracing::info!(store = %path.display(), took = ?started.elapsed(), "the store is open");
        let writer = {
            let database = Arc::clone(&database);
            Writer::start(path, move |batch| write(&database, &limits, batch))?
        };
        Ok(Self { database, writer, path: path.into() })
    }
}

#[async_trait]
impl SignatureStore for RedbStore {
    async fn list(&self, image: &ImageId) -> Result<Vec<StoredSignature>, StoreError> {
        let (database, image) = (Arc::clone(&self.database), image.clone());
        spawn_blocking(move || read(&database, &image))
            .await
            .map_err(|_| damaged(&self.path, "reading it failed"))?
            .map_err(|error| storage_error(&self.path, "read", error))
    }

    async fn put(&self, image: &ImageId, signature: StoredSignature) -> Result<Put, StoreError> {
        self.writer.put(image.clone(), signature).await
    }

    fn health(&self) -> Result<(), StoreError> {
        self.writer.health()
    }
}

/// Makes a store beside its final place and moves it there when it is whole: a crash must not leave a file that looks
/// like a store that lost everything.
fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { path: path.into(), doing: "made", source };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = folder.join(name);
    let made = initialize(&new).map_err(|error| storage_error(path, "made", error)).and_then(|()| {
        // Unlike a rename, this does not replace what another process may have made meanwhile.
        match fs::hard_link(&new, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
            _ => fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed),
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
fn check_format(path: &Path, database: &Database) -> Result<(), StoreError> {
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

fn read(database: &Database, image: &ImageId) -> Result<Vec<StoredSignature>, redb::Error> {
    let table = database.begin_read()?.open_table(SIGNATURES)?;
    let prefix = prefix(image);
    let mut signatures = Vec::new();
    for entry in table.range::<&str>(prefix.as_str()..end(&prefix).as_str())? {
        let (key, content) = entry?;
        let name = SignatureName::parse(&key.value()[prefix.len()..])
            .ok_or_else(|| redb::Error::Corrupted("a signature's name is malformed".into()))?;
        signatures.push(StoredSignature { name, content: content.value().into() });
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
fn write(
    database: &Database,
    limits: &ImageLimits,
    batch: &[(ImageId, StoredSignature)],
) -> Result<Vec<Put>, redb::Error> {
    let transaction = begin_write(database)?;
    let mut outcomes = Vec::with_capacity(batch.len());
    {
        let mut table = transaction.open_table(SIGNATURES)?;
        for (image, signature) in batch {
            let prefix = prefix(image);
            let outcome = check(&table, limits, &prefix, signature)?;
            if outcome == Put::Created {
                let key = format!("{prefix}{}", signature.name.as_str());
                table.insert(key.as_str(), &*signature.content)?;
            }
            outcomes.push(outcome);
        }
    }
    if outcomes.contains(&Put::Created) {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(outcomes)
}

/// Whether the image may have this signature too. One range read, bounded by the limits themselves.
fn check(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    limits: &ImageLimits,
    prefix: &str,
    signature: &StoredSignature,
) -> Result<Put, StorageError> {
    let mut count = 0;
    let mut bytes = ImageLimits::listed_bytes(signature.content.len());
    let mut content_exists = false;
    for entry in table.range::<&str>(prefix..end(prefix).as_str())? {
        let (key, content) = entry?;
        if key.value()[prefix.len()..] == *signature.name.as_str() {
            return Ok(Put::NameExists);
        }
        content_exists |= *content.value() == *signature.content;
        count += 1;
        bytes += ImageLimits::listed_bytes(content.value().len());
    }
    Ok(if content_exists {
        Put::ContentExists
    } else if count >= limits.signatures {
        Put::TooMany { limit: limits.signatures }
    } else if bytes > limits.list_bytes {
        Put::TooLong { limit: limits.list_bytes }
    } else {
        Put::Created
    })
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

fn storage_error(path: &Path, doing: &'static str, error: redb::Error) -> StoreError {
    match error {
        // What redb says of a file that does not begin as its own do.
        redb::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
            StoreError::NotAStore { path: path.into(), what: source.to_string().into() }
        }
        redb::Error::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => damaged(path, "its end is missing"),
        redb::Error::Io(source) => StoreError::Io { path: path.into(), doing, source },
        redb::Error::DatabaseAlreadyOpen => StoreError::Locked { path: path.into() },
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => StoreError::Stopped { path: path.into() },
        error => damaged(path, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gateway::store::RepositoryName, image::Digest};

    fn image(repository: &str, content: &str) -> ImageId {
        ImageId { repository: RepositoryName::parse(repository).unwrap(), digest: Digest::sha256(content.as_bytes()) }
    }

    fn signature(number: usize) -> StoredSignature {
        StoredSignature {
            name: SignatureName::parse(&format!("{number:032}")).unwrap(),
            content: format!("content {number}").into_bytes().into(),
        }
    }

    fn store() -> (tempfile::TempDir, PathBuf, RedbStore) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/signatures.redb");
        let store = RedbStore::open(&path, ImageLimits::default()).unwrap();
        (folder, path, store)
    }

    #[tokio::test]
    async fn signatures_belong_to_repository_and_digest_and_survive_reopening() {
        let (_folder, path, store) = store();
        let (web, other) = (image("acme/web", "1"), image("acme/web2", "1"));
        assert_eq!(store.put(&web, signature(2)).await.unwrap(), Put::Created);
        assert_eq!(store.put(&web, signature(1)).await.unwrap(), Put::Created);
        assert_eq!(store.put(&other, signature(3)).await.unwrap(), Put::Created);
        drop(store);
        let store = RedbStore::open(&path, ImageLimits::default()).unwrap();
        assert_eq!(store.list(&web).await.unwrap(), [signature(1), signature(2)]);
        assert_eq!(store.list(&other).await.unwrap(), [signature(3)]);
        assert_eq!(store.list(&image("acme/web", "2")).await.unwrap(), []);
        assert_eq!(store.list(&image("acme/we", "1")).await.unwrap(), []);
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [path], "nothing is left beside the store");
    }

    #[tokio::test]
    async fn a_name_and_a_content_exist_once_an_image() {
        let (_folder, _path, store) = store();
        let web = image("acme/web", "1");
        assert_eq!(store.put(&web, signature(1)).await.unwrap(), Put::Created);
        assert_eq!(store.put(&web, signature(1)).await.unwrap(), Put::NameExists);
        let renamed = StoredSignature { name: signature(2).name, ..signature(1) };
        assert_eq!(store.put(&web, renamed).await.unwrap(), Put::ContentExists);
        let same_name = StoredSignature { content: signature(2).content, ..signature(1) };
        assert_eq!(store.put(&web, same_name).await.unwrap(), Put::NameExists);
        assert_eq!(store.put(&image("acme/web", "2"), signature(1)).await.unwrap(), Put::Created);
        assert_eq!(store.list(&web).await.unwrap(), [signature(1)]);
    }

    #[tokio::test]
    async fn an_image_has_no_more_than_its_limits() {
        let folder = tempfile::tempdir().unwrap();
        let limits = ImageLimits { signatures: 2, list_bytes: 4096 };
        let store = RedbStore::open(&folder.path().join("s.redb"), limits).unwrap();
        let web = image("acme/web", "1");
        let long = StoredSignature { content: vec![1; 4096].into(), ..signature(9) };
        assert_eq!(store.put(&web, long).await.unwrap(), Put::TooLong { limit: 4096 });
        assert_eq!(store.put(&web, signature(1)).await.unwrap(), Put::Created);
        assert_eq!(store.put(&web, signature(2)).await.unwrap(), Put::Created);
        assert_eq!(store.put(&web, signature(3)).await.unwrap(), Put::TooMany { limit: 2 });
        assert_eq!(store.put(&image("acme/web", "2"), signature(3)).await.unwrap(), Put::Created);
    }

    #[tokio::test]
    async fn of_many_at_once_with_one_name_one_is_created() {
        let (_folder, _path, store) = store();
        let web = image("acme/web", "1");
        let puts = (0..32).map(|number| {
            let (store, web) = (&store, &web);
            let signature = StoredSignature { name: signature(1).name, ..signature(number) };
            async move { store.put(web, signature).await.unwrap() }
        });
        let outcomes = futures_util::future::join_all(puts).await;
        assert_eq!(outcomes.iter().filter(|&&outcome| outcome == Put::Created).count(), 1);
        assert_eq!(outcomes.iter().filter(|&&outcome| outcome == Put::NameExists).count(), 31);
        assert_eq!(store.list(&web).await.unwrap().len(), 1);
    }

    #[test]
    fn a_store_that_is_open_already_says_so() {
        let (_folder, path, _store) = store();
        let error = RedbStore::open(&path, ImageLimits::default()).err().unwrap();
        assert!(matches!(error, StoreError::Locked { .. }), "{error}");
        assert!(error.to_string().contains("signatures.redb: another process"), "{error}");
    }

    #[test]
    fn what_is_no_store_is_named_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            let error = RedbStore::open(&path, ImageLimits::default()).err().unwrap();
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
            error
        };
        assert!(matches!(open("empty", b""), StoreError::NoBytes { .. }));
        assert!(matches!(open("text", b"apiVersion: sealgate.dev/v1\n"), StoreError::NotAStore { .. }));
        assert!(matches!(open("zeros", &vec![0; 65536]), StoreError::NotAStore { .. }));
        let error = RedbStore::open(folder.path(), ImageLimits::default()).err().unwrap();
        assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
    }

    #[test]
    fn redb_files_of_others_and_of_later_versions_are_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.redb");
        let database = Database::create(&path).unwrap();
        drop(database);
        let error = RedbStore::open(&path, ImageLimits::default()).err().unwrap();
        assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
        let path = folder.path().join("later.redb");
        initialize(&path).unwrap();
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(ABOUT).unwrap().insert(FORMAT_KEY, 2).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let error = RedbStore::open(&path, ImageLimits::default()).err().unwrap();
        assert!(matches!(error, StoreError::Format { found: 2, known: 1, .. }), "{error}");
    }

    #[tokio::test]
    async fn what_was_acknowledged_last_is_damaged_or_there_but_never_rolled_back() {
        let (_folder, path, store) = store();
        let web = image("acme/web", "1");
        for number in 0..4 {
            let content = vec![u8::try_from(number).unwrap(); 4000].into();
            assert_eq!(store.put(&web, StoredSignature { content, ..signature(number) }).await.unwrap(), Put::Created);
        }
        // As `kill -9` leaves it: nothing is closed.
        let mut killed = fs::read(&path).unwrap();
        std::mem::forget(store);
        let path = path.with_extension("killed");
        fs::write(&path, &killed).unwrap();
        let whole = RedbStore::open(&path, ImageLimits::default()).unwrap();
        assert_eq!(whole.list(&web).await.unwrap().len(), 4);
        drop(whole);
        // One byte of the last commit's pages rots.
        let place = killed.windows(4000).position(|bytes| bytes == [3; 4000]).unwrap();
        killed[place + 2000] ^= 1;
        fs::write(&path, &killed).unwrap();
        let error = RedbStore::open(&path, ImageLimits::default()).err().unwrap();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_damaged_store_is_never_an_empty_one() {
        let (_folder, path, store) = store();
        for number in 0..64 {
            let content = vec![u8::try_from(number).unwrap(); 4000].into();
            let put = StoredSignature { content, ..signature(number) };
            assert_eq!(store.put(&image("acme/web", "1"), put).await.unwrap(), Put::Created);
        }
        drop(store);
        let whole = fs::read(&path).unwrap();
        // One signature's bytes change on the disk.
        let mut rotten = whole.clone();
        let place = rotten.windows(4000).position(|bytes| bytes == [42; 4000]).unwrap();
        rotten[place + 2000] ^= 1;
        fs::write(&path, &rotten).unwrap();
        let error = RedbStore::open(&path, ImageLimits::default()).err().unwrap();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        // A copy that ended early.
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let error = RedbStore::open(&path, ImageLimits::default()).err().unwrap();
        assert!(matches!(error, StoreError::Damaged { .. } | StoreError::NotAStore { .. }), "{error}");
    }
}
