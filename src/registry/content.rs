//! The content of a request.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

/// The content of a request.
#[derive(Clone)]
pub(crate) struct Content {
    /// `Content-Type`.
    pub(crate) kind: Cow<'static, str>,
    pub(crate) bytes: Payload,
    /// Whether it is sent on to where the server redirects: layers, but never what has secrets in it.
    pub(crate) may_move: bool,
}

/// The bytes of a request's content.
#[derive(Clone)]
pub(crate) enum Payload {
    /// They are in memory.
    Bytes(Bytes),
    /// They are read while they are sent.
    Stream {
        /// How many.
        length: u64,
        /// Begins to read them: once for each request that carries them.
        open: Arc<dyn Fn() -> reqwest::Body + Send + Sync>,
    },
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}
