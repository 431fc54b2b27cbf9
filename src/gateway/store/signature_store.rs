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

/// Keeps signatures.
#[async_trait]
pub trait SignatureStore: Send + Sync + 'static {
    /// All signatures of an image, by name. None is not an error.
    async fn list(&self, image: &ImageId) -> Result<SignatureList, StoreError>;

    /// Returns all signatures of an image, with all that is known of each.
    async fn inspect(&self, image: &ImageId) -> Result<Vec<Record>, StoreError>;

    /// Makes a change, durably.
    async fn change(&self, change: Change) -> Result<Changed, StoreError>;

    /// Signatures behind a position, in order, `limit` at the most; fewer only at the end.
    async fn scan(&self, after: Option<&Position>, limit: usize) -> Result<Vec<(ImageId, Record)>, StoreError>;

    /// Whether signatures can be stored and read; an error says what to do.
    async fn health(&self) -> Result<(), StoreError>;
}
