//! The file: checked, locked, of other versions, and damaged.

use super::*;

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
