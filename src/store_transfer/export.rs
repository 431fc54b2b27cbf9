//! Exports a whole store to a stream, a file or a lookaside tree.

use std::io;

use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};

use super::{
    error::TransferError, export_file::ExportFile, export_report::ExportReport, signature::Signature,
    store::TransferStore, tree_writer::TreeWriter,
};
use crate::gateway::export_format;
use crate::gateway::store::Position;

/// The target of an export.
pub(crate) enum ExportTarget {
    /// A stream of lines.
    Stream(ExportStream),
    /// A file.
    File(ExportFile),
    /// A lookaside tree.
    Tree(TreeWriter),
}

/// Exports all signatures of a store. When this returns, the target is durable, except for a stream.
pub(crate) async fn export(
    store: &TransferStore,
    sink: &mut ExportTarget,
    exported: &mut ExportReport,
    watch: &(dyn Fn(usize) + Sync),
) -> Result<(), TransferError> {
    let mut after = match sink {
        ExportTarget::File(file) => tokio::task::block_in_place(|| file.take_up(exported))?,
        ExportTarget::Stream(_) | ExportTarget::Tree(_) => None,
    };
    loop {
        watch(exported.signatures);
        let page = store.page(after.as_ref()).await?;
        let Some((image, record)) = page.last() else { break };
        after = Some(Position::behind(image, &record.signature.name));
        sink.add(&page, exported).await?;
    }
    sink.finish().await
}

impl ExportTarget {
    async fn add(&mut self, page: &[Signature], exported: &mut ExportReport) -> Result<(), TransferError> {
        let text = || {
            let mut text = Vec::new();
            for (image, record) in page {
                export_format::write(&mut text, image, record);
            }
            text
        };
        match self {
            Self::Stream(stream) => stream.write(text()).await?,
            Self::File(file) => tokio::task::block_in_place(|| file.write(&text()))?,
            Self::Tree(tree) => tokio::task::block_in_place(|| {
                page.iter().try_for_each(|(image, record)| tree.add(image, record, exported))
            })?,
        }
        for (_, record) in page {
            exported.count(record);
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), TransferError> {
        match self {
            Self::Stream(stream) => stream.finish().await,
            Self::File(file) => tokio::task::block_in_place(|| file.finish()),
            Self::Tree(_) => Ok(()),
        }
    }
}

/// A stream whose reader may stop for any time. A thread of its own writes to it, so that the caller can stop waiting.
pub(crate) struct ExportStream {
    /// `None` once the stream has ended.
    pages: Option<mpsc::Sender<Vec<u8>>>,
    written: JoinHandle<io::Result<()>>,
}

impl ExportStream {
    pub(crate) fn new(mut to: impl io::Write + Send + 'static) -> Self {
        let (pages, mut written) = mpsc::channel::<Vec<u8>>(1);
        let written = spawn_blocking(move || {
            while let Some(page) = written.blocking_recv() {
                to.write_all(&page)?;
            }
            to.flush()
        });
        Self { pages: Some(pages), written }
    }

    async fn write(&mut self, page: Vec<u8>) -> Result<(), TransferError> {
        match &self.pages {
            Some(pages) if pages.send(page).await.is_ok() => Ok(()),
            // The thread returns the error that ended it.
            _ => self.finish().await,
        }
    }

    async fn finish(&mut self) -> Result<(), TransferError> {
        self.pages = None;
        let written = (&mut self.written).await.map_err(io::Error::other);
        written.flatten().map_err(TransferError::file("standard output"))
    }
}
