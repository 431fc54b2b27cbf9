//! Ports for programs that can't be asked which one they got.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    net::TcpListener,
};

/// Ports that are free now, from below those which the kernel gives out for port 0, so that nothing that runs beside gets
/// one of them by chance.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let mut seed = usize::try_from(RandomState::new().build_hasher().finish() % 12_000).expect("it is small");
    let mut held = Vec::new();
    while held.len() < N {
        seed = seed.wrapping_add(7919);
        let port = u16::try_from(20_000 + seed % 12_000).expect("it is below 32,000");
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push((port, listener));
        }
    }
    std::array::from_fn(|index| held[index].0)
}
