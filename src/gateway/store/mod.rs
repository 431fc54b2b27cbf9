//! The signature store. The trait is independent of the engines: [`redb`] needs only a file, and several gateways can
//! share [`etcd`].

mod change;
mod error;
pub mod etcd;
mod image_id;
mod list_cache;
mod position;
mod quota;
mod record;
pub mod redb;
mod signature;
mod signature_list;
mod signature_store;

pub use change::{Change, Changed, Put};
pub use error::StoreError;
pub use image_id::{ImageId, RepositoryName};
pub use position::Position;
pub use quota::ImageLimits;
pub use record::{Finding, Origin, Record, Status, kept_name};
pub use signature::{SignatureName, StoredSignature};
pub use signature_list::SignatureList;
pub use signature_store::SignatureStore;
