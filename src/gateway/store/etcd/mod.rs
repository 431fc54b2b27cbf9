//! The store in an etcd cluster, which several gateways share.
//!
//! Below the prefix, with `<image>` for `<repository>@<digest>`:
//!
//! | key | value |
//! |---|---|
//! | `format` | the format's number |
//! | `signatures/<image>/<name>` | the OpenPGP message |
//! | `origins/<image>/<name>`, `statuses/<image>/<name>` | origin and status, in JSON |
//! | `images/<image>` | the image's [history]: the last changes of its signatures |
//!
//! A change reads the image, decides, and writes in one transaction, which etcd commits only if the image's history has
//! not changed. So of two concurrent changes, in whichever gateways, one is made, and the other decides anew. The
//! history also tells whether a transaction was committed whose answer was lost. It stays when the last signature is
//! removed: a new history could match the one that a delayed transaction expects.

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
