use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use redb::{Database, StorageBackend, backends::FileBackend};

use super::{
    error::database_error,
    file::{builder, create, initialize, open},
    reopen::FIRST_BACKOFF,
    store::RedbStore,
    tables::{ABOUT, FORMAT_KEY},
};
use crate::gateway::store::{
    Change, Changed, ImageId, ImageLimits, Origin, Put, Record, RepositoryName, SignatureName, SignatureStore as _,
    StoreError, StoredSignature,
};
use crate::image::Digest;

fn image(repository: &str, content: &str) -> ImageId {
    ImageId { repository: RepositoryName::parse(repository).unwrap(), digest: Digest::sha256(content.as_bytes()) }
}

fn signature(number: usize) -> StoredSignature {
    StoredSignature {
        name: SignatureName::parse(&format!("{number:032}")).unwrap(),
        content: format!("content {number}").into_bytes().into(),
    }
}

fn record(signature: StoredSignature) -> Record {
    Record { signature, origin: None, status: None }
}

async fn try_put(store: &RedbStore, image: &ImageId, signature: StoredSignature) -> Result<Put, StoreError> {
    match store.change(Change::Put(image.clone(), record(signature))).await? {
        Changed::Put(put) => Ok(put),
        changed => panic!("{changed:?}"),
    }
}

async fn put(store: &RedbStore, image: &ImageId, signature: StoredSignature) -> Put {
    try_put(store, image, signature).await.unwrap()
}

fn store() -> (tempfile::TempDir, PathBuf, RedbStore) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/new/folder/signatures.redb");
    let store = RedbStore::open(&path, ImageLimits::default()).unwrap();
    (folder, path, store)
}

#[tokio::test]
async fn signatures_belong_to_repository_and_digest_and_survive_reopening() {
    let (_folder, path, store) = store();
    let (web, other) = (image("acme/web", "1"), image("acme/web2", "1"));
    assert_eq!(put(&store, &web, signature(2)).await, Put::Created);
    assert_eq!(put(&store, &web, signature(1)).await, Put::Created);
    assert_eq!(put(&store, &other, signature(3)).await, Put::Created);
    drop(store);
    let store = RedbStore::open(&path, ImageLimits::default()).unwrap();
    assert_eq!(store.list(&web).await.unwrap(), [signature(1), signature(2)]);
    assert_eq!(store.list(&other).await.unwrap(), [signature(3)]);
    assert_eq!(store.list(&image("acme/web", "2")).await.unwrap(), []);
    assert_eq!(store.list(&image("acme/we", "1")).await.unwrap(), []);
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [path], "nothing is left beside the store");
}

#[test]
fn a_store_that_runs_was_killed_or_is_not_there_yet_passes_the_check() {
    let (_folder, path, store) = store();
    RedbStore::check(&path).unwrap();
    let killed = path.with_extension("killed");
    fs::copy(&path, &killed).unwrap();
    RedbStore::check(&killed).unwrap();
    drop(store);
    RedbStore::check(&path).unwrap();
    let none = path.with_extension("none");
    RedbStore::check(&none).unwrap();
    assert!(!none.exists());
}

#[tokio::test]
async fn a_store_that_was_killed_is_read_without_a_change_of_its_file() {
    let (_folder, path, store) = store();
    let web = image("acme/web", "1");
    for number in 0..300 {
        put(&store, &image("acme/web", &number.to_string()), signature(number)).await;
    }
    put(&store, &web, signature(300)).await;
    let locked = RedbStore::open_unchanged(&path).err().unwrap();
    assert!(matches!(locked, StoreError::Locked { .. }), "{locked}");
    let killed = path.with_extension("killed");
    fs::copy(&path, &killed).unwrap();
    drop(store);
    for path in [&path, &killed] {
        let before = fs::read(path).unwrap();
        let [one, other] = [(); 2].map(|()| RedbStore::open_unchanged(path).unwrap());
        assert_eq!(one.scan(None, usize::MAX).await.unwrap().len(), 301, "{}", path.display());
        assert_eq!(other.list(&web).await.unwrap().len(), 2);
        let refused = try_put(&one, &web, signature(1)).await.unwrap_err();
        assert!(matches!(refused, StoreError::ReadOnly { .. }), "{refused}");
        let locked = RedbStore::open(path, ImageLimits::default()).err().unwrap();
        assert!(matches!(locked, StoreError::Locked { .. }), "{locked}");
        drop((one, other));
        assert!(fs::read(path).unwrap() == before, "{}", path.display());
    }
    assert!(RedbStore::open_unchanged(&path.with_extension("none")).is_err());
    assert!(!path.with_extension("none").exists());
}

#[tokio::test]
async fn a_name_and_a_content_exist_once_an_image() {
    let (_folder, _path, store) = store();
    let web = image("acme/web", "1");
    assert_eq!(put(&store, &web, signature(1)).await, Put::Created);
    assert_eq!(put(&store, &web, signature(1)).await, Put::NameExists);
    let renamed = StoredSignature { name: signature(2).name, ..signature(1) };
    assert_eq!(put(&store, &web, renamed).await, Put::ContentExists);
    let same_name = StoredSignature { content: signature(2).content, ..signature(1) };
    assert_eq!(put(&store, &web, same_name).await, Put::NameExists);
    assert_eq!(put(&store, &image("acme/web", "2"), signature(1)).await, Put::Created);
    assert_eq!(store.list(&web).await.unwrap(), [signature(1)]);
}

#[tokio::test]
async fn an_image_has_no_more_than_its_limits() {
    let folder = tempfile::tempdir().unwrap();
    let limits = ImageLimits { signatures: 2, list_bytes: 4096, ..ImageLimits::default() };
    let store = RedbStore::open(&folder.path().join("s.redb"), limits).unwrap();
    let web = image("acme/web", "1");
    let long = StoredSignature { content: vec![1; 4096].into(), ..signature(9) };
    assert_eq!(put(&store, &web, long).await, Put::TooLong { limit: 4096 });
    assert_eq!(put(&store, &web, signature(1)).await, Put::Created);
    assert_eq!(put(&store, &web, signature(2)).await, Put::Created);
    assert_eq!(put(&store, &web, signature(3)).await, Put::TooMany { limit: 2 });
    assert_eq!(put(&store, &image("acme/web", "2"), signature(3)).await, Put::Created);
}

#[tokio::test]
async fn of_many_at_once_with_one_name_one_is_created() {
    let (_folder, _path, store) = store();
    let web = image("acme/web", "1");
    let puts = (0..32).map(|number| {
        let (store, web) = (&store, &web);
        let signature = StoredSignature { name: signature(1).name, ..signature(number) };
        async move { put(store, web, signature).await }
    });
    let outcomes = futures_util::future::join_all(puts).await;
    assert_eq!(outcomes.iter().filter(|&&outcome| outcome == Put::Created).count(), 1);
    assert_eq!(outcomes.iter().filter(|&&outcome| outcome == Put::NameExists).count(), 31);
    assert_eq!(store.list(&web).await.unwrap().len(), 1);
}

/// A file whose disk does what a test tells it to.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    fault: Arc<Mutex<Option<Fault>>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Read,
    Write,
    /// The next write fails, and no further one.
    NextWrite,
    Sync,
    /// The next read waits until another fault, or none, is set; only that one.
    Wait,
    /// It waits.
    Waits,
}

impl Disk {
    fn check(&self, kind: Fault) -> io::Result<()> {
        match *self.fault.lock().unwrap() {
            Some(fault) if fault == kind => Err(io::Error::other(format!("{fault:?} fails"))),
            _ => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check(Fault::Read)?;
        let next = self.fault.lock().unwrap().take_if(|fault| *fault == Fault::Wait).is_some();
        if next {
            *self.fault.lock().unwrap() = Some(Fault::Waits);
            while *self.fault.lock().unwrap() == Some(Fault::Waits) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check(Fault::Write)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check(Fault::Sync)?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(Fault::Write)?;
        if self.fault.lock().unwrap().take_if(|fault| *fault == Fault::NextWrite).is_some() {
            return Err(io::Error::other("a write fails"));
        }
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// A store on a disk that fails when told to.
fn failing_store(path: &Path) -> (RedbStore, Arc<Mutex<Option<Fault>>>) {
    failing_store_with(path, Duration::from_millis(1))
}

/// The same; `first_backoff`: for how long nothing is written after an error.
fn failing_store_with(path: &Path, first_backoff: Duration) -> (RedbStore, Arc<Mutex<Option<Fault>>>) {
    create(path).unwrap();
    let fault = Arc::new(Mutex::new(None));
    let (disk, own) = (Arc::clone(&fault), path.to_owned());
    let store = RedbStore::start(path, Some(ImageLimits::default()), first_backoff, move || {
        open(&own, |path| {
            let file = FileBackend::new(fs::File::options().read(true).write(true).open(path)?)?;
            // Without a cache each request comes to the disk.
            let mut builder = builder();
            builder.set_cache_size(0).create_with_backend(Disk { file, fault: Arc::clone(&disk) })
        })
    });
    (store.unwrap(), fault)
}

async fn until_healthy(store: &RedbStore) {
    while store.health().await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn after_an_error_of_the_disk_the_store_says_so_and_comes_back_with_all_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (store, fault) = failing_store(&folder.path().join("signatures.redb"));
    let web = image("acme/web", "1");
    let mut acknowledged = Vec::new();
    for (number, kind) in [Fault::Read, Fault::Write, Fault::Sync, Fault::Read, Fault::Sync].into_iter().enumerate() {
        let good = signature(2 * number);
        assert_eq!(put(&store, &web, good.clone()).await, Put::Created);
        acknowledged.push(good);
        *fault.lock().unwrap() = Some(kind);
        let error = if kind == Fault::Read {
            store.list(&web).await.unwrap_err()
        } else {
            try_put(&store, &web, signature(2 * number + 1)).await.unwrap_err()
        };
        assert!(error.to_string().contains("signatures.redb") && error.to_string().contains("fails"), "{error}");
        assert!(store.health().await.is_err(), "{kind:?}");
        *fault.lock().unwrap() = None;
        until_healthy(&store).await;
        let found = store.list(&web).await.unwrap();
        assert!(acknowledged.iter().all(|signature| found.contains(signature)), "{kind:?}: {found:?}");
    }
}

#[tokio::test]
async fn what_was_read_before_a_change_or_an_error_is_not_believed_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signatures.redb");
    let (web, other) = (image("acme/web", "1"), path.with_extension("other"));
    assert_eq!(put(&RedbStore::open(&other, ImageLimits::default()).unwrap(), &web, signature(3)).await, Put::Created);
    let (store, fault) = failing_store(&path);
    assert_eq!(store.list(&web).await.unwrap(), []);
    assert_eq!(put(&store, &web, signature(1)).await, Put::Created);
    assert_eq!(store.list(&web).await.unwrap(), [signature(1)]);
    // An operator puts a backup in its place, and it is opened anew.
    fs::rename(&other, &path).unwrap();
    *fault.lock().unwrap() = Some(Fault::Read);
    store.list(&image("acme/another", "1")).await.unwrap_err();
    *fault.lock().unwrap() = None;
    until_healthy(&store).await;
    assert_eq!(store.list(&web).await.unwrap(), [signature(3)]);
}

#[tokio::test]
async fn what_makes_no_other_list_lets_nobody_read_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let (store, fault) = failing_store_with(&folder.path().join("signatures.redb"), Duration::from_mins(1));
    let web = image("acme/web", "1");
    assert_eq!(put(&store, &web, signature(1)).await, Put::Created);
    store.list(&web).await.unwrap();
    let is_kept = || store.lists.get(&web).is_some();
    assert_eq!(put(&store, &web, signature(1)).await, Put::NameExists);
    assert_eq!(
        put(&store, &web, StoredSignature { name: signature(2).name, ..signature(1) }).await,
        Put::ContentExists
    );
    let origin = Some(Origin { added_by: None, added_at: jiff::Timestamp::UNIX_EPOCH, issuers: Vec::new() });
    for (change, outcome) in [
        (Change::Import(web.clone(), Record { origin, ..record(signature(1)) }), Changed::Put(Put::Completed)),
        (Change::Remove(web.clone(), signature(2).name), Changed::Signatures(0)),
        (Change::SetStatus(web.clone(), signature(1).name, None, None), Changed::Signatures(1)),
        (Change::ClearStatuses(web.clone()), Changed::Signatures(0)),
    ] {
        assert_eq!(store.change(change.clone()).await.unwrap(), outcome, "{change:?}");
        assert!(is_kept(), "{change:?}");
    }
    *fault.lock().unwrap() = Some(Fault::NextWrite);
    try_put(&store, &web, signature(2)).await.unwrap_err();
    assert!(!is_kept(), "the file may be another one");
    while store.list(&web).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    try_put(&store, &web, signature(2)).await.unwrap_err();
    assert!(is_kept(), "nothing is written for a while, and what is read stays");
    assert_eq!(store.list(&web).await.unwrap(), [signature(1)]);
}

#[tokio::test]
async fn readers_of_one_list_share_one_reading_of_it() {
    let (_folder, _path, store) = store();
    let web = image("acme/web", "1");
    assert_eq!(put(&store, &web, signature(1)).await, Put::Created);
    let lists = futures_util::future::join_all((0..20).map(|_| store.list(&web))).await;
    let first = lists[0].as_ref().unwrap();
    assert_eq!(*first, [signature(1)]);
    assert!(lists.iter().all(|list| list.as_ref().unwrap().encoded().as_ptr() == first.encoded().as_ptr()));
}

#[tokio::test]
async fn whoever_comes_after_a_change_was_acknowledged_does_not_share_what_is_read_since_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, fault) = failing_store(&folder.path().join("signatures.redb"));
    let web = image("acme/web", "1");
    assert_eq!(put(&store, &web, signature(1)).await, Put::Created);
    *fault.lock().unwrap() = Some(Fault::Wait);
    let mut early = Box::pin(store.list(&web));
    assert!(futures_util::poll!(&mut early).is_pending());
    while *fault.lock().unwrap() != Some(Fault::Waits) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(put(&store, &web, signature(2)).await, Put::Created);
    let late = store.list(&web).await.unwrap();
    assert_eq!(late, [signature(1), signature(2)]);
    *fault.lock().unwrap() = None;
    assert_eq!(early.await.unwrap(), [signature(1)], "of the moment when it asked");
    assert_eq!(store.list(&web).await.unwrap(), [signature(1), signature(2)]);
}

#[tokio::test]
async fn what_can_not_be_opened_again_stays_out_of_use_and_says_why_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signatures.redb");
    let (store, fault) = failing_store(&path);
    let web = image("acme/web", "1");
    assert_eq!(put(&store, &web, signature(1)).await, Put::Created);
    let away = path.with_extension("away");
    fs::rename(&path, &away).unwrap();
    *fault.lock().unwrap() = Some(Fault::Read);
    store.list(&web).await.unwrap_err();
    while !store.health().await.unwrap_err().to_string().contains("can't be opened") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    *fault.lock().unwrap() = None;
    assert!(matches!(store.list(&web).await.unwrap_err(), StoreError::Stopped { .. }));
    assert!(matches!(try_put(&store, &web, signature(2)).await.unwrap_err(), StoreError::Stopped { .. }));
    assert!(!path.exists(), "no new store is made in its place");
    fs::rename(&away, &path).unwrap();
    until_healthy(&store).await;
    assert_eq!(store.list(&web).await.unwrap(), [signature(1)]);
    assert_eq!(put(&store, &web, signature(2)).await, Put::Created);
}

#[tokio::test]
async fn a_store_can_end_while_it_is_out_of_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signatures.redb");
    let (store, fault) = failing_store(&path);
    fs::rename(&path, path.with_extension("away")).unwrap();
    *fault.lock().unwrap() = Some(Fault::Read);
    store.list(&image("acme/web", "1")).await.unwrap_err();
    drop(store);
    RedbStore::open(&path.with_extension("away"), ImageLimits::default()).unwrap();
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
        assert_eq!(RedbStore::check(&path).unwrap_err().to_string(), error.to_string());
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
        assert_eq!(put(&store, &web, StoredSignature { content, ..signature(number) }).await, Put::Created);
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

/// A disk that forgets, when the power fails, what it was not told to sync, or some of it.
#[derive(Debug, Default)]
struct Volatile {
    /// As it is read.
    content: Vec<u8>,
    synced: Vec<u8>,
    /// Written since, in order.
    written: Vec<(usize, Vec<u8>)>,
    length: usize,
}

impl Volatile {
    /// What is left: of what was written since the last sync, each sector or not, as `chance` has it.
    fn after_a_power_loss(&self, mut chance: impl FnMut() -> bool) -> Vec<u8> {
        const SECTOR: usize = 512;
        let mut left = self.synced.clone();
        if chance() {
            left.resize(self.length.max(left.len()), 0);
        }
        for (offset, data) in &self.written {
            for (number, sector) in data.chunks(SECTOR).enumerate() {
                let begin = offset + number * SECTOR;
                if begin + sector.len() <= left.len() && chance() {
                    left[begin..begin + sector.len()].copy_from_slice(sector);
                }
            }
        }
        left
    }
}

#[derive(Clone, Debug, Default)]
struct VolatileDisk(Arc<Mutex<Volatile>>);

impl StorageBackend for VolatileDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.lock().unwrap().content[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.length = usize::try_from(len).unwrap();
        let length = disk.length;
        disk.content.resize(length, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.synced = disk.content.clone();
        disk.written.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        disk.content[offset..offset + data.len()].copy_from_slice(data);
        disk.written.push((offset, data.to_vec()));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_loss_at_any_time_takes_nothing_that_was_acknowledged() {
    const LOSSES: usize = 100;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signatures.redb");
    create(&path).unwrap();
    let made = fs::read(&path).unwrap();
    let disk = VolatileDisk(Arc::new(Mutex::new(Volatile {
        length: made.len(),
        content: made.clone(),
        synced: made,
        written: Vec::new(),
    })));
    let store = {
        let disk = disk.clone();
        RedbStore::start(&path, Some(ImageLimits::default()), FIRST_BACKOFF, move || {
            builder().create_with_backend(disk.clone()).map_err(|error| database_error(Path::new("disk"), error))
        })
    };
    let store = Arc::new(store.unwrap());
    let web = image("acme/web", "1");
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    // As many as are wanted, and one more that is under way: a disk that grows without end is slow to look at.
    let wanted = Arc::new(tokio::sync::Semaphore::new(0));
    let writing = {
        let (store, web, wanted) = (Arc::clone(&store), web.clone(), Arc::clone(&wanted));
        let acknowledged = Arc::clone(&acknowledged);
        tokio::spawn(async move {
            for number in 0..2 * LOSSES + 2 {
                wanted.acquire().await.unwrap().forget();
                let one = StoredSignature { content: vec![1; 100 + 37 * number % 3000].into(), ..signature(number) };
                assert_eq!(put(&store, &web, one.clone()).await, Put::Created);
                acknowledged.lock().unwrap().push(one);
            }
        })
    };
    // A generator of its own, so that a failure can be repeated (Knuth's MMIX).
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let lost = folder.path().join("lost.redb");
    for loss in 0..LOSSES {
        wanted.add_permits(2);
        while acknowledged.lock().unwrap().len() <= 2 * loss {
            tokio::task::yield_now().await;
        }
        // First what was acknowledged, then the disk as it is somewhat later.
        let known = acknowledged.lock().unwrap().clone();
        let odds = random() % 5;
        let left = disk.0.lock().unwrap().after_a_power_loss(|| random() % 4 < odds);
        fs::write(&lost, left).unwrap();
        let found = RedbStore::open(&lost, ImageLimits::default()).unwrap_or_else(|error| panic!("{loss}: {error}"));
        let there = found.list(&web).await.unwrap();
        for one in known {
            assert!(there.contains(&one), "loss {loss}: {} is gone", one.name.as_str());
        }
    }
    writing.abort();
}

#[tokio::test]
async fn a_damaged_store_is_never_an_empty_one() {
    let (_folder, path, store) = store();
    for number in 0..64 {
        let content = vec![u8::try_from(number).unwrap(); 4000].into();
        let long = StoredSignature { content, ..signature(number) };
        assert_eq!(put(&store, &image("acme/web", "1"), long).await, Put::Created);
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
