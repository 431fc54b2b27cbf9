//! What every engine of the store does, whatever it keeps signatures in.

use sealgate::{
    gateway::store::{
        Change, Changed, Finding, ImageId, ImageLimits, Origin, Position, Put, Record, RepositoryName, SignatureName,
        SignatureStore, Status, StoredSignature, redb::RedbStore,
    },
    image::Digest,
};

use crate::support::Scratch;

fn image(repository: &str, content: &str) -> ImageId {
    ImageId {
        repository: RepositoryName::parse(repository).expect("a name"),
        digest: Digest::sha256(content.as_bytes()),
    }
}

fn name(number: usize) -> SignatureName {
    SignatureName::parse(&format!("{number:032}")).expect("32 characters")
}

fn record(number: usize, signer: &str) -> Record {
    Record {
        signature: StoredSignature { name: name(number), content: format!("content {number}").into_bytes().into() },
        origin: Some(Origin {
            added_by: Some(signer.into()),
            added_at: "2026-11-26T00:00:00Z".parse().expect("a time"),
            issuers: vec!["0123456789ABCDEF".into()],
        }),
        status: None,
    }
}

fn status() -> Status {
    Status {
        verified_by: Some("jane".into()),
        verified_at: "2026-11-26T01:00:00Z".parse().expect("a time"),
        finding: Finding {
            key: "0123456789ABCDEF".into(),
            signer: None,
            identity: "registry.example.com/acme/web:1".into(),
            digest: Digest::sha256(b"1").to_string().into(),
        },
    }
}

async fn put(store: &dyn SignatureStore, image: &ImageId, record: Record) -> Put {
    match store.change(Change::Put(image.clone(), record)).await.expect("the store works") {
        Changed::Put(put) => put,
        other => panic!("{other:?}"),
    }
}

async fn touched(store: &dyn SignatureStore, change: Change) -> usize {
    match store.change(change).await.expect("the store works") {
        Changed::Signatures(number) => number,
        other => panic!("{other:?}"),
    }
}

/// Signatures belong to repository and digest; a name and a content exist once an image.
async fn keeps_signatures_apart(store: &dyn SignatureStore) {
    let (web, other) = (image("acme/web", "1"), image("acme/web2", "1"));
    for number in [2, 1] {
        assert_eq!(put(store, &web, record(number, "robot")).await, Put::Created);
    }
    assert_eq!(put(store, &other, record(3, "robot")).await, Put::Created);
    assert_eq!(put(store, &web, record(1, "robot")).await, Put::NameExists);
    let renamed =
        Record { signature: StoredSignature { name: name(9), ..record(1, "robot").signature }, ..record(1, "robot") };
    assert_eq!(put(store, &web, renamed).await, Put::ContentExists);
    assert_eq!(store.list(&web).await.unwrap(), [record(1, "robot").signature, record(2, "robot").signature]);
    assert_eq!(store.inspect(&other).await.unwrap(), [record(3, "robot")]);
    for nothing in [image("acme/web", "2"), image("acme/we", "1"), image("acme", "1")] {
        assert_eq!(store.list(&nothing).await.unwrap(), []);
    }
}

/// A status belongs to a signature that is there; it is set and cleared without a change of anything else.
async fn keeps_statuses(store: &dyn SignatureStore) {
    let web = image("status/web", "1");
    for number in [1, 2] {
        put(store, &web, record(number, "robot")).await;
        assert_eq!(touched(store, Change::SetStatus(web.clone(), name(number), None, Some(status()))).await, 1);
    }
    assert_eq!(touched(store, Change::SetStatus(web.clone(), name(7), None, Some(status()))).await, 0);
    let with_status = |number| Record { status: Some(status()), ..record(number, "robot") };
    assert_eq!(store.inspect(&web).await.unwrap(), [with_status(1), with_status(2)]);
    assert_eq!(touched(store, Change::SetStatus(web.clone(), name(1), None, None)).await, 1);
    assert_eq!(store.inspect(&web).await.unwrap(), [record(1, "robot"), with_status(2)]);
    assert_eq!(touched(store, Change::ClearStatuses(web.clone())).await, 1);
    assert_eq!(store.inspect(&web).await.unwrap(), [record(1, "robot"), record(2, "robot")]);
}

/// A status that somebody found of one signature does not become that of another one of the same name.
async fn keeps_a_status_to_the_signature_that_was_looked_at(store: &dyn SignatureStore) {
    let web = image("swapped/web", "1");
    put(store, &web, record(1, "robot")).await;
    let looked_at = Digest::sha256(&record(1, "robot").signature.content);
    let set = |status: Option<Status>| store.change(Change::SetStatus(web.clone(), name(1), Some(looked_at), status));
    assert_eq!(set(Some(status())).await.unwrap(), Changed::Signatures(1));
    assert_eq!(touched(store, Change::Remove(web.clone(), name(1))).await, 1);
    assert_eq!(set(Some(status())).await.unwrap(), Changed::Signatures(0));
    let other = StoredSignature { name: name(1), ..record(2, "robot").signature };
    put(store, &web, Record { signature: other.clone(), ..record(2, "robot") }).await;
    assert_eq!(set(Some(status())).await.unwrap(), Changed::Another);
    assert_eq!(store.inspect(&web).await.unwrap()[0].status, None);
    let content = Some(Digest::sha256(&other.content));
    assert_eq!(touched(store, Change::SetStatus(web.clone(), name(1), content, Some(status()))).await, 1);
    assert_eq!(set(None).await.unwrap(), Changed::Another);
    assert_eq!(store.inspect(&web).await.unwrap()[0].status, Some(status()));
}

/// What is removed is gone with all that was known of it.
async fn removes(store: &dyn SignatureStore) {
    let web = image("removed/web", "1");
    put(store, &web, record(1, "robot")).await;
    touched(store, Change::SetStatus(web.clone(), name(1), None, Some(status()))).await;
    assert_eq!(touched(store, Change::Remove(web.clone(), name(1))).await, 1);
    assert_eq!(touched(store, Change::Remove(web.clone(), name(1))).await, 0);
    assert_eq!(store.list(&web).await.unwrap(), []);
    put(store, &web, record(1, "other")).await;
    assert_eq!(store.inspect(&web).await.unwrap(), [record(1, "other")], "no status of the former one");
}

/// Of many at once with one name, one is created.
async fn creates_a_name_once(store: &dyn SignatureStore) {
    let web = image("race/web", "1");
    let puts = (0..32).map(|number| {
        let one = record(number, "robot");
        let one = Record { signature: StoredSignature { name: name(1), ..one.signature }, ..one };
        put(store, &web, one)
    });
    let outcomes = futures_util::future::join_all(puts).await;
    assert_eq!(outcomes.iter().filter(|&&outcome| outcome == Put::Created).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|&&outcome| outcome == Put::NameExists).count(), 31, "{outcomes:?}");
    assert_eq!(store.list(&web).await.unwrap().len(), 1);
}

/// An image has no more than its limits, and one signer no more than a share of them.
async fn keeps_limits(store: &dyn SignatureStore) {
    let web = image("limits/web", "1");
    for number in 0..3 {
        assert_eq!(put(store, &web, record(number, "robot")).await, Put::Created);
    }
    assert_eq!(put(store, &web, record(3, "robot")).await, Put::TooManyOfSigner { limit: 3 });
    assert_eq!(put(store, &web, record(4, "jane")).await, Put::Created);
    assert_eq!(put(store, &web, record(5, "joe")).await, Put::TooMany { limit: 4 });
    let long =
        Record { signature: StoredSignature { name: name(1), content: vec![1; 8192].into() }, ..record(1, "robot") };
    assert_eq!(put(store, &image("limits/web", "2"), long).await, Put::TooLong { limit: 8192 });
    let wide = |number: u8| {
        let content = vec![number; 700].into();
        let signature = StoredSignature { name: name(number.into()), content };
        Record { signature, ..record(number.into(), "robot") }
    };
    assert_eq!(put(store, &image("limits/web", "3"), wide(1)).await, Put::Created);
    assert_eq!(put(store, &image("limits/web", "3"), wide(2)).await, Put::TooLongOfSigner { limit: 2048 });
}

/// Everything is read in order, from any place on, and put into another store as it was.
async fn moves(from: &dyn SignatureStore, to: &dyn SignatureStore) {
    let images = [image("move/a", "1"), image("move/a", "2"), image("move/b/c", "1")];
    for (number, image) in images.iter().enumerate() {
        put(from, image, record(number, "robot")).await;
        touched(from, Change::SetStatus(image.clone(), name(number), None, Some(status()))).await;
    }
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let some = from.scan(after.as_ref(), 2).await.unwrap();
        let Some((image, last)) = some.last() else { break };
        let position = Position::behind(image, &last.signature.name);
        assert_eq!(Position::parse(position.as_str()), Some(position.clone()));
        after = Some(position);
        all.extend(some);
    }
    for (image, record) in &all {
        let import = Change::Import(image.clone(), record.clone());
        // What is known of it may come later.
        let bare = Change::Import(image.clone(), Record { origin: None, status: None, ..record.clone() });
        let changes =
            [(&bare, Put::Created), (&import, Put::Completed), (&import, Put::Present), (&bare, Put::Present)];
        for (change, expected) in changes {
            assert_eq!(to.change(change.clone()).await.unwrap(), Changed::Put(expected));
        }
    }
    for image in &images {
        assert_eq!(to.inspect(image).await.unwrap(), from.inspect(image).await.unwrap());
        assert_eq!(to.inspect(image).await.unwrap().len(), 1);
    }
    let (image, record) = &all[0];
    let changed = StoredSignature { content: b"other".as_slice().into(), ..record.signature.clone() };
    let import = Change::Import(image.clone(), Record { signature: changed, ..record.clone() });
    assert_eq!(to.change(import).await.unwrap(), Changed::Put(Put::NameExists));
}

pub(crate) fn limits() -> ImageLimits {
    ImageLimits { signatures: 4, signatures_per_signer: 3, list_bytes: 8192 }
}

pub(crate) async fn does_all_that_a_store_does(store: &dyn SignatureStore, other: &dyn SignatureStore) {
    keeps_signatures_apart(store).await;
    keeps_statuses(store).await;
    keeps_a_status_to_the_signature_that_was_looked_at(store).await;
    removes(store).await;
    creates_a_name_once(store).await;
    keeps_limits(store).await;
    moves(store, other).await;
    store.health().await.unwrap();
}

#[tokio::test]
async fn redb_does_all_that_a_store_does() {
    let folder = Scratch::new();
    let open = |name: &str| RedbStore::open(&folder.path().join(name), limits()).unwrap();
    does_all_that_a_store_does(&open("one.redb"), &open("other.redb")).await;
}
