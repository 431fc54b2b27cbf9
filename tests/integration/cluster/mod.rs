//! With a real control plane: what the API server asks the gate, what it stores, and what kubectl's user reads;
//! and what the store asks the API server.
//!
//! `make binaries` builds the programs; `cargo test -- --skip cluster::` leaves these tests out.

mod access;
mod admission;
mod apiserver;
mod control_plane;
mod controllers;
mod etcd;
mod line;
mod manifests;
mod operations;
mod other_webhook;
mod places;
mod roles;
mod scenario;

use apiserver::Cluster;
use scenario::Scenario;
