//! Files that users write, and may change while a server runs: bounded reads, and watches.

mod configuration_file;
mod descriptor_reserve;
pub(crate) mod durable;
pub(crate) mod follower;
mod policy_folder;
mod read;
mod watch;

pub use configuration_file::{ConfigurationLoadError, load_configuration};
pub use descriptor_reserve::reserve_descriptors;
pub(crate) use descriptor_reserve::with_reserve;
pub use follower::SETTLE_INTERVAL;
pub use policy_folder::{PolicyFiles, PolicyLoadError};
pub use read::ReadError;
pub(crate) use read::read_bounded;
pub use watch::{ChangeWatcher, NextCheck};
