//! The checked policy: what decides. Files become this in [`load()`], which reads policy files itself and hands containers-policy.json
//! to [`policy_json`]; after that, nothing here can be malformed.

mod check;
mod document;
pub(crate) mod identity;
mod layer;
mod load;
pub mod policy_json;
mod rule;
mod source_file;

pub use document::schema;
pub(crate) use document::{API_VERSION, RawMode};
pub use layer::{Dialect, KeyWarning, Layer, MAX_KEY_WARNINGS, Policy};
pub use load::load;
pub use rule::{Action, Exemption, Identity, Mode, Platforms, Requirement, Requirements, Rule, RuleId, Signer};
pub use source_file::{KeyFileError, ReadKey, SourceFile};
