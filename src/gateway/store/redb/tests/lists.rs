//! The lists of images: names, limits, and what lasts.

use super::*;

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
