//! The webhook over TLS.
