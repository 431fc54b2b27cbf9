//! Images: references, digests, manifests, and the scopes of rules.

mod contents;
pub mod digest;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub(crate) mod host;
pub mod manifest;
pub mod reference;
pub mod scope;
pub mod walk;

pub use contents::{Contents, Part};
pub use digest::{Digest, Hasher, Mismatch};
pub use host::HostError;
pub use manifest::{Descriptor, Hashed, HashedManifest, Manifest, ManifestError};
pub use reference::{Reference, ReferenceError, Repository, Tag};
pub use scope::{Scope, ScopeError, ScopeMap};
pub use walk::{Walk, WalkLimit};
