//! The byte stream of a connection, which reports its progress.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::progress::Progress;

/// A connection, plain or over TLS.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Transport for T {}

/// A connection that reports all reads and writes to [`Progress`].
pub(super) struct Observed {
    transport: Box<dyn Transport>,
    progress: Rc<Progress>,
}

impl Observed {
    pub(super) fn new(transport: impl Transport + 'static, progress: Rc<Progress>) -> Self {
        Self { transport: Box::new(transport), progress }
    }

    pub(super) fn progress(&self) -> &Rc<Progress> {
        &self.progress
    }

    fn wrote<T>(&self, outcome: Poll<T>) -> Poll<T> {
        self.progress.write_blocked(outcome.is_pending());
        outcome
    }
}

impl AsyncRead for Observed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.transport).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.progress.received(&buffer.filled()[before..])?;
        }
        outcome
    }
}

impl AsyncWrite for Observed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.transport).poll_write(cx, bytes);
        self.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.transport).poll_write_vectored(cx, bytes);
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.transport).poll_flush(cx);
        self.wrote(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.transport).poll_shutdown(cx);
        self.wrote(outcome)
    }
}
