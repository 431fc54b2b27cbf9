//! `sealgate verify`, the whole program.
