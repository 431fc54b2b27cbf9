//! Errors of the disk: the store says so, and opens its file again.

use super::{
    faulty_disk::{Fault, failing_store, until_healthy},
    *,
};

#[tokio::test]
async fn a_store_reports_a_disk_error_and_comes_back_with_all_that_was_acknowledged() {
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
