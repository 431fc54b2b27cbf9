//! What tests need more than once: real programs, started on ports of their own and ended with the test.

mod gpg;
mod liar;
mod markdown;
mod process;
mod proxy;
mod registry;
mod scratch;
mod skopeo;
mod store;
#[cfg(test)]
mod tests;
mod watchdog;

pub(crate) use gpg::{Gpg, payload};
pub(crate) use liar::{Asked, Liar, Reply};
pub(crate) use markdown::code_blocks;
pub(crate) use process::{Process, run, wait_until};
pub(crate) use proxy::Proxy;
pub(crate) use registry::{DockerRegistry, Pushed};
pub(crate) use scratch::Scratch;
pub(crate) use skopeo::{accept_anything, skopeo};
pub(crate) use store::Store;
pub(crate) use watchdog::{Left, Watchdog};
