//! The etcd engine: starts the watch, and runs each request to its end.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::{runtime::Handle, task::AbortHandle, time::Instant};

use super::{
    members,
    operations::{Operations, REQUEST_TIMEOUT},
    watch,
};
use crate::configuration::Etcd;
use crate::gateway::store::{
    Change, Changed, ImageId, ImageLimits, Position, Record, SignatureList, SignatureStore, StoreError,
};
use crate::telemetry::supervise;

/// The etcd engine.
pub struct EtcdStore {
    operations: Arc<Operations>,
    runtime: Handle,
    watch: AbortHandle,
}

impl EtcdStore {
    /// Opens the store, or makes it if it does not exist. If the cluster can't be reached now, each request tries
    /// again. It is an error if the cluster refuses, or if the prefix holds something else.
    ///
    /// The store works on the current runtime, for as long as that exists.
    pub async fn open(settings: &Etcd, limits: ImageLimits) -> Result<Self, StoreError> {
        Self::start(settings, limits, true).await
    }

    /// Opens an existing store. It is an error if there is none.
    pub async fn open_existing(settings: &Etcd, limits: ImageLimits) -> Result<Self, StoreError> {
        Self::start(settings, limits, false).await
    }

    async fn start(settings: &Etcd, limits: ImageLimits, may_create: bool) -> Result<Self, StoreError> {
        Self::check(settings)?;
        let operations = Arc::new(Operations::new(settings, limits, may_create));
        match operations.read(&[], Instant::now() + REQUEST_TIMEOUT).await {
            Ok(_) => tracing::info!(store = operations.members.name(), "the store is open"),
            Err(error @ StoreError::Unavailable { .. }) => {
                tracing::error!(%error, "the store is not available; retrying with each request");
            }
            Err(error) => return Err(error),
        }
        let watched = Arc::clone(&operations);
        let watch = async move { supervise("etcd-watch", None, || watch::watch(Arc::clone(&watched))).await };
        let watch = tokio::spawn(watch).abort_handle();
        Ok(Self { operations, runtime: Handle::current(), watch })
    }

    /// Reads the files that the settings name. Sends no request.
    pub fn check(settings: &Etcd) -> Result<(), StoreError> {
        members::options(settings).map(drop)
    }

    /// Runs work to its end even if the request is dropped, on a runtime that outlives the connections of clients.
    async fn run<T, F>(&self, work: impl FnOnce(Arc<Operations>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let done = self.runtime.spawn(work(Arc::clone(&self.operations))).await;
        done.unwrap_or_else(|_| Err(self.operations.members.unavailable("the program ends")))
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

#[async_trait]
impl SignatureStore for EtcdStore {
    async fn list(&self, image: &ImageId) -> Result<SignatureList, StoreError> {
        if let Some(list) = self.operations.lists.get(image, Instant::now()) {
            return Ok(list);
        }
        let image = image.clone();
        self.run(|operations| async move { operations.list(&image).await }).await
    }

    async fn inspect(&self, image: &ImageId) -> Result<Vec<Record>, StoreError> {
        let image = image.clone();
        let found = self.run(|operations| async move { operations.inspect(&image).await }).await?;
        Ok(found.into_iter().map(|(_, record)| record).collect())
    }

    async fn change(&self, change: Change) -> Result<Changed, StoreError> {
        self.run(|operations| async move { operations.change(&change).await }).await
    }

    async fn scan(&self, after: Option<&Position>, limit: usize) -> Result<Vec<(ImageId, Record)>, StoreError> {
        let after = after.cloned();
        self.run(|operations| async move { operations.scan(after.as_ref(), limit).await }).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.run(|operations| async move { operations.health().await }).await
    }
}
