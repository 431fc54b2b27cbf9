//! `sealgate serve`, the whole program.
