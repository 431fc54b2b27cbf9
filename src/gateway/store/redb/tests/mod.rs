//! One redb store in a folder of its own.

mod disk_errors;
mod faulty_disk;
mod files;
mod lists;
mod power_loss;
mod shared_reads;

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
