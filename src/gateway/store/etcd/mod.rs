//! The store in an etcd cluster: several gateways, one store.
//!
//! Below the prefix, where `<image>` is `<repository>@<digest>`:
//!
//! | key | value |
//! |---|---|
//! | `format` | the format's number |
//! | `signatures/<image>/<name>` | the OpenPGP message |
//! | `origins/<image>/<name>`, `statuses/<image>/<name>` | what is known of it, in JSON |
//! | `images/<image>` | the image's [history]: the last changes of its signatures |
//!
//! A change reads the image, decides, and writes in one transaction that etcd commits only if the image's history is still
//! the one that was read. So of two at once, in whichever gateway, one is made, and the other decides anew. The history
//! also tells whether a transaction was committed whose answer was lost. It stays when the last signature is removed: were
//! it to begin anew, a transaction that was held up somewhere could still find the history that it expects.

mod error;
mod history;
mod keys;
mod members;
mod operations;
mod plan;
mod store;
mod watch;
mod watched_lists;

pub use store::EtcdStore;
