//! The figures of `sealgate gateway`: each is a ratio to something that does less, measured in one run in which both take
//! turns, or a bound; and the run fails where one is not met.
//!
//! `cargo bench --bench store` measures all, `cargo bench --bench store -- put get` some. docs/performance.md has the methods
//! and figures. A debug build tries the same with less of everything.

#![allow(clippy::unwrap_used)]

mod client;
mod get;
mod memory;
mod million;
mod passage;
mod program;
mod put;
mod signed;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

/// Connections kept alive, and writers at once.
const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);
const ROUND: Duration = Duration::from_secs(1);
/// Rounds, each of both in turn.
const ROUNDS: usize = if cfg!(debug_assertions) { 3 } else { 15 };

/// Measures a figure; whether it is met.
type Measure = fn() -> bool;

/// What can be measured.
const PARTS: [(&str, Measure); 5] = [
    ("put", put::measure),
    ("get", get::measure),
    ("passage", passage::measure),
    ("million", million::measure),
    ("memory", memory::measure),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` builds and runs this too; there it measures nothing.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let asked: Vec<&str> = arguments.iter().map(String::as_str).filter(|text| !text.starts_with('-')).collect();
    for name in &asked {
        assert!(PARTS.iter().any(|(part, _)| part == name), "{name} is none of {:?}", PARTS.map(|(part, _)| part));
    }
    let mut missed = Vec::new();
    for (name, measure) in PARTS.iter().filter(|(part, _)| asked.is_empty() || asked.contains(part)) {
        println!("== {name}");
        if !measure() {
            missed.push(*name);
        }
    }
    assert!(missed.is_empty(), "not met: {missed:?}");
}

/// A folder on the disk that the build is on: one in memory would have nothing to sync.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}
