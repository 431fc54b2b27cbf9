//! Lists in memory: shared by readers, and never older than what was acknowledged.

use super::{
    faulty_disk::{Fault, failing_store, failing_store_with, until_healthy},
    *,
};

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
async fn a_reader_after_an_acknowledged_change_shares_no_read_from_before_it() {
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
