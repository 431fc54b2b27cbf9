//! Configuration files as operators write them.
