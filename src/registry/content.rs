//! The content of a request.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

/// The content of a request.
#[derive(Clone)]
pub(crate) struct Content {
    /// `Content-Type`.
    pub(crate) kind: Cow<'static, str>,
    pub(crate) bytes: Payload,
    /// The content may follow a redirect to another server. True for layers, never for content with secrets.
    pub(crate) may_move: bool,
}

/// The bytes of a request's content.
#[derive(Clone)]
pub(crate) enum Payload {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A stream that is read while it is sent.
    Stream {
        /// The number of bytes.
        length: u64,
        /// Opens the stream, once for each request that carries it.
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
