//! The store of a transfer: a running store, or one that this process opens.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::{error::TransferError, remote::RemoteStore, signature::Signature};
use crate::configuration::Etcd;
use crate::gateway::export_format::Imported;
use crate::gateway::store::{Change, ImageLimits, Position, SignatureStore, etcd::EtcdStore, redb::RedbStore};
use crate::registry::retry::Retries;

/// The maximum number of signatures in one batch of an opened store.
pub(super) const MAX_BATCH: usize = 256;

/// The store that a transfer exports or imports.
pub(crate) enum TransferStore {
    /// A running store, reached over HTTP.
    Running(Box<RemoteStore>),
    /// A store that this process opened.
    Opened(Arc<dyn SignatureStore>),
}

impl TransferStore {
    /// Opens a database file: without limits to read it, with limits to write it, which creates the file if it does not
    /// exist. Blocks while it reads the whole file.
    pub(crate) fn redb(path: &std::path::Path, limits: Option<ImageLimits>) -> Result<Self, TransferError> {
        Ok(Self::Opened(Arc::new(match limits {
            None => RedbStore::open_unchanged(path)?,
            Some(limits) => RedbStore::open(path, limits)?,
        })))
    }

    /// Opens a store in etcd, which other processes may have open at the same time.
    pub(crate) async fn etcd(settings: &Etcd, limits: Option<ImageLimits>) -> Result<Self, TransferError> {
        Ok(Self::Opened(Arc::new(match limits {
            None => EtcdStore::open_existing(settings, ImageLimits::default()).await?,
            Some(limits) => EtcdStore::open(settings, limits).await?,
        })))
    }

    /// Returns the signatures after a position, in the store's order; an empty list at the end. Retries a transient
    /// failure.
    pub(super) async fn page(&self, after: Option<&Position>) -> Result<Vec<Signature>, TransferError> {
        with_retries(async || match self {
            Self::Running(store) => store.page(after).await,
            Self::Opened(store) => Ok(store.scan(after, MAX_BATCH).await?),
        })
        .await
    }

    /// Adds signatures; those that are there already are no error. The indices in the outcome start at 1. Retries all
    /// of them after a transient failure, up to a limit.
    pub(super) async fn take(&self, signatures: &[Signature]) -> Result<Imported, TransferError> {
        with_retries(async || match self {
            Self::Running(store) => store.import(signatures).await,
            Self::Opened(store) => {
                let changes = signatures.iter().map(|(image, record)| Change::Import(image.clone(), record.clone()));
                // In parallel, so that they share syncs.
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
