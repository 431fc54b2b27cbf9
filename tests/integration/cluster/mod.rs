//! With a real control plane: what the API server asks the gate, what it stores, and what kubectl's user reads.
//!
//! `make binaries` builds the programs; `cargo test -- --skip cluster::` leaves these tests out.

mod apiserver;
mod control_plane;
mod manifests;

use apiserver::Cluster;
