//! The trait that each engine implements.

use async_trait::async_trait;

use super::{
    change::{Change, Changed},
    error::StoreError,
    image_id::ImageId,
    position::Position,
    record::Record,
    signature_list::SignatureList,
};

/// A signature store.
#[async_trait]
pub trait SignatureStore: Send + Sync + 'static {
    /// Returns all signatures of an image, ordered by name. An empty list is no error.
    async fn list(&self, image: &ImageId) -> Result<SignatureList, StoreError>;

    /// Returns all signatures of an image, with their origins and statuses.
    async fn inspect(&self, image: &ImageId) -> Result<Vec<Record>, StoreError>;

    /// Makes a change durably.
    async fn change(&self, change: Change) -> Result<Changed, StoreError>;

    /// Returns the signatures after a position, in the store's order, at most `limit`; fewer only at the end.
    async fn scan(&self, after: Option<&Position>, limit: usize) -> Result<Vec<(ImageId, Record)>, StoreError>;

    /// Checks that signatures can be stored and read; an error says what to do.
    async fn health(&self) -> Result<(), StoreError>;
}
