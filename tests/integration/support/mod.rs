//! What tests need more than once: real programs, started on ports of their own and ended with the test.

mod console;
mod gpg;
mod issuer;
mod liar;
mod markdown;
mod masks;
mod ports;
mod process;
mod proxy;
mod random;
mod registry;
mod review;
mod scratch;
mod sealgate;
mod skopeo;
mod store;
#[cfg(test)]
mod tests;
mod watchdog;

pub(crate) use console::follow;
pub(crate) use gpg::{Gpg, payload};
pub(crate) use issuer::Issuer;
pub(crate) use liar::{Asked, Liar, Reply};
pub(crate) use markdown::code_blocks;
pub(crate) use masks::{Masks, assert_reads};
pub(crate) use ports::free_ports;
pub(crate) use process::{Process, run, wait_until};
pub(crate) use proxy::Proxy;
pub(crate) use random::Random;
pub(crate) use registry::{DockerRegistry, Pushed};
pub(crate) use review::review;
pub(crate) use scratch::Scratch;
pub(crate) use sealgate::{Answer, SEALGATE, sealgate, sealgate_with_keys};
pub(crate) use skopeo::{accept_anything, error_of, skopeo};
pub(crate) use store::Store;
pub(crate) use watchdog::{Left, Watchdog};
