//! Builds the servers from their parts; no other module does.

mod certificates;
mod error;
mod gate;
mod listener;
mod policy_freshness;
mod policy_hosts;
mod policy_watcher;
mod shutdown;
mod store;

pub use error::StartupError;
pub use gate::{engine, serve, validate_gate};
pub use policy_watcher::PolicyWatcher;
pub use store::{gateway, validate_store};
