//! The `sealgate` program.

fn main() {}
