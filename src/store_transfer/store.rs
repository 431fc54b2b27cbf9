//! A store that signatures are moved from, or into: one that runs, or one that this process opens.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::{error::TransferError, remote::RemoteStore, signature::Signature};
use crate::configuration::Etcd;
use crate::gateway::export_format::Imported;
use crate::gateway::store::{Change, ImageLimits, Position, SignatureStore, etcd::EtcdStore, redb::RedbStore};
use crate::registry::retry::Retries;

/// Signatures that are read from an opened store, or put into one, at once.
pub(super) const MAX_BATCH: usize = 256;

/// A store that signatures are moved from, or into.
pub(crate) enum TransferStore {
    /// One that is asked.
    Running(Box<RemoteStore>),
    /// One that is opened by this process.
    Opened(Arc<dyn SignatureStore>),
}

impl TransferStore {
    /// Opens a file to read it, or to write into it; then it is made where there is none. Blocks while it reads all of it.
    pub(crate) fn redb(path: &std::path::Path, limits: Option<ImageLimits>) -> Result<Self, TransferError> {
        Ok(Self::Opened(Arc::new(match limits {
            None => RedbStore::open_unchanged(path)?,
            Some(limits) => RedbStore::open(path, limits)?,
        })))
    }

    /// Opens a store in etcd, which other processes may have open, too.
    pub(crate) async fn etcd(settings: &Etcd, limits: Option<ImageLimits>) -> Result<Self, TransferError> {
        Ok(Self::Opened(Arc::new(match limits {
            None => EtcdStore::open_existing(settings, ImageLimits::default()).await?,
            Some(limits) => EtcdStore::open(settings, limits).await?,
        })))
    }

    /// Signatures behind a position, in the store's order; none: there are no further ones. A transient failure is
    /// retried.
    pub(super) async fn page(&self, after: Option<&Position>) -> Result<Vec<Signature>, TransferError> {
        with_retries(async || match self {
            Self::Running(store) => store.page(after).await,
            Self::Opened(store) => Ok(store.scan(after, MAX_BATCH).await?),
        })
        .await
    }

    /// Puts signatures into it; that they are there is no error. The numbers of what became of them are from 1 on. A failure
    /// that may pass is borne for a while, by trying all of them again.
    pub(super) async fn take(&self, signatures: &[Signature]) -> Result<Imported, TransferError> {
        with_retries(async || match self {
            Self::Running(store) => store.import(signatures).await,
            Self::Opened(store) => {
                let changes = signatures.iter().map(|(image, record)| Change::Import(image.clone(), record.clone()));
                // Side by side: they share syncs.
                let changes = try_join_all(changes.map(|change| store.change(change))).await?;
                let mut imported = Imported::default();
                for (number, changed) in changes.into_iter().enumerate() {
                    imported.count(number + 1, Ok(changed));
                }
                Ok(imported)
            }
        })
        .await
    }
}

async fn with_retries<T>(mut work: impl AsyncFnMut() -> Result<T, TransferError>) -> Result<T, TransferError> {
    let mut retries = Retries::default();
    loop {
        match work().await {
            Err(error) if retries.wait_before_retry(&error, 0, |usual| error.wait(usual)).await => {}
            done => return done,
        }
    }
}
