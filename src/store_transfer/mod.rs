//! Whole stores, moved: from a store into a file or a lookaside tree, and from there into another one.
//!
//! Nothing of it has to be done in one go. What is in a store already is no error, and what was exported is taken up behind
//! the last signature that is whole.

mod export_file;
mod lookaside_tree;
mod remote;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::try_join_all;
use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};

pub(crate) use export_file::{ExportFile, Lines};
pub(crate) use lookaside_tree::{Tree, Walk};
pub(crate) use remote::Running;

use crate::configuration::Etcd;
use crate::gateway::export_format::{self, Imported, MOST_TOLD};
use crate::gateway::store::{
    Change, ImageId, ImageLimits, Position, Record, SignatureStore, StoreError, etcd::EtcdStore, redb::RedbStore,
};
use crate::refusal::LookupError;
use crate::registry::{
    SaidNo,
    retry::{Patience, wait_after},
};

/// Signatures that are read of an opened store, or put into one, at once; the latter until they have so many bytes.
const AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = 512 << 10;

/// What is moved.
type Signature = (ImageId, Record);

/// Why something is not moved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    /// A store that is opened here can't be used.
    #[error(transparent)]
    Store(StoreError),
    /// The same.
    #[error("{0}; if it is a running store's, give the store's URL in place of its file")]
    InUse(StoreError),
    /// A running store can't be asked.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It is none.
    #[error("{url} answers {status}: there is no store of `sealgate gateway` at this address")]
    NoStore {
        /// What was asked.
        url: Box<str>,
        /// The status.
        status: u16,
    },
    /// It does not do it, or not for whoever asks: its own words say why.
    #[error(transparent)]
    SaidNo(SaidNo),
    /// A file of this machine.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is there stays there.
    #[error("{}: this is there already; give another name, or move it away", .0.display())]
    Exists(PathBuf),
    /// Somebody else is at it.
    #[error("{}: another export writes this file; wait for its end", .0.display())]
    Busy(PathBuf),
    /// Something else is where an export is until it is whole.
    #[error("{}: no export has left this; move it away", .0.display())]
    NotPartial(PathBuf),
    /// Somebody wants it to end.
    #[error("interrupted")]
    Interrupted,
    /// Not what an import takes.
    #[error("{}: this is no export of a store: {why}", path.display())]
    NotAnExport {
        /// The file.
        path: PathBuf,
        /// What it is.
        why: String,
    },
}

impl From<StoreError> for TransferError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::Locked { .. }) { Self::InUse(error) } else { Self::Store(error) }
    }
}

impl TransferError {
    fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// How long to wait before another try, if one may help: as the other side wishes, or so long.
    fn wait(&self, otherwise: Duration) -> Option<Duration> {
        match self {
            Self::Lookup(error) => wait_after(error, otherwise),
            Self::Store(StoreError::Unavailable { retry_after, .. }) => Some(*retry_after),
            _ => None,
        }
    }
}

/// What signatures are moved from, or into.
pub(crate) enum Store {
    /// One that is asked.
    Running(Box<Running>),
    /// One that is opened by this process.
    Opened(Arc<dyn SignatureStore>),
}

impl Store {
    /// Opens a file to read it, or to write into it; then it is made where there is none. Blocks while it reads all of it.
    pub(crate) fn redb(path: &std::path::Path, limits: Option<ImageLimits>) -> Result<Self, TransferError> {
        Ok(Self::Opened(Arc::new(match limits {
            None => RedbStore::open_unchanged(path)?,
            Some(limits) => RedbStore::open(path, limits)?,
        })))
    }

    /// The same in etcd, where others may have it open, too.
    pub(crate) async fn etcd(settings: &Etcd, limits: Option<ImageLimits>) -> Result<Self, TransferError> {
        Ok(Self::Opened(Arc::new(match limits {
            None => EtcdStore::open_existing(settings, ImageLimits::default()).await?,
            Some(limits) => EtcdStore::open(settings, limits).await?,
        })))
    }

    /// Signatures behind a position, in the store's order; none: there are no further ones. A failure that may pass is borne
    /// for a while.
    async fn page(&self, after: Option<&Position>) -> Result<Vec<Signature>, TransferError> {
        patiently(async || match self {
            Self::Running(store) => store.page(after).await,
            Self::Opened(store) => Ok(store.scan(after, AT_ONCE).await?),
        })
        .await
    }

    /// Puts signatures into it; that they are there is no error. The numbers of what became of them are from 1 on. A failure
    /// that may pass is borne for a while, by trying all of them again.
    async fn take(&self, signatures: &[Signature]) -> Result<Imported, TransferError> {
        patiently(async || match self {
            Self::Running(store) => store.import(signatures).await,
            Self::Opened(store) => {
                let changes = signatures.iter().map(|(image, record)| Change::Import(image.clone(), record.clone()));
                // Side by side: they share syncs.
                let changes = try_join_all(changes.map(|change| store.change(change))).await?;
                let mut imported = Imported::default();
                for (number, changed) in changes.into_iter().enumerate() {
                    imported.count(number + 1, Ok(changed));
                }
                Ok(imported)
            }
        })
        .await
    }
}

async fn patiently<T>(mut work: impl AsyncFnMut() -> Result<T, TransferError>) -> Result<T, TransferError> {
    let mut patience = Patience::default();
    loop {
        match work().await {
            Err(error) if patience.bear(&error, 0, |usual| error.wait(usual)).await => {}
            done => return done,
        }
    }
}

/// What an export is written to.
pub(crate) enum Sink {
    /// Lines that others read meanwhile.
    Stream(Stream),
    /// A file.
    File(ExportFile),
    /// A lookaside tree.
    Tree(Tree),
}

/// What became of an export so far.
#[derive(Debug, Default)]
pub(crate) struct Exported {
    /// Signatures of the store.
    pub(crate) signatures: usize,
    /// How many of them an earlier export wrote.
    pub(crate) resumed: usize,
    /// When that one was begun.
    pub(crate) begun: Option<Timestamp>,
    /// How many have an origin, and a status.
    pub(crate) origins: usize,
    pub(crate) statuses: usize,
    /// Of a tree: how many are new, and how many were there.
    pub(crate) created: usize,
    pub(crate) present: usize,
    /// How many are not there, and why, of the first ones.
    pub(crate) refused: usize,
    pub(crate) reasons: Vec<(Place, String)>,
}

impl Exported {
    fn count(&mut self, record: &Record) {
        self.signatures += 1;
        self.origins += usize::from(record.origin.is_some());
        self.statuses += usize::from(record.status.is_some());
    }
}

/// Reads all of a store. When this returns, all of it stays through a loss of power, but for a stream.
pub(crate) async fn export(
    store: &Store,
    sink: &mut Sink,
    exported: &mut Exported,
    watch: &(dyn Fn(usize) + Sync),
) -> Result<(), TransferError> {
    let mut after = match sink {
        Sink::File(file) => tokio::task::block_in_place(|| file.take_up(exported))?,
        Sink::Stream(_) | Sink::Tree(_) => None,
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

impl Sink {
    async fn add(&mut self, page: &[Signature], exported: &mut Exported) -> Result<(), TransferError> {
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

/// Something that may stand still for as long as its reader likes. It is written to by a thread of its own, so that whoever
/// waits for that can leave.
pub(crate) struct Stream {
    /// Nothing: it is over.
    pages: Option<mpsc::Sender<Vec<u8>>>,
    written: JoinHandle<io::Result<()>>,
}

impl Stream {
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
            // It says why it ended.
            _ => self.finish().await,
        }
    }

    async fn finish(&mut self) -> Result<(), TransferError> {
        self.pages = None;
        let written = (&mut self.written).await.map_err(io::Error::other);
        written.flatten().map_err(TransferError::file("standard output"))
    }
}

/// What an import is read from.
pub(crate) enum Source {
    /// Lines of an export.
    Lines(Box<Lines>),
    /// A lookaside tree.
    Tree(Walk),
}

/// What is found in it.
struct Found {
    place: Place,
    what: What,
}

enum What {
    /// What a store takes.
    Signature(Box<Signature>),
    /// What none takes, and why.
    Junk(String),
    /// A number that is missing, where readers of a lookaside stop.
    Gap,
}

/// Where something was found, or should be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Place {
    /// A line's number, from 1 on.
    Line(usize),
    /// A file or folder.
    #[serde(serialize_with = "as_shown")]
    Path(PathBuf),
}

/// A path as people are shown it: what is not UTF-8 in it does not keep a report from being JSON.
fn as_shown<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl Source {
    fn next(&mut self) -> Result<Option<Found>, TransferError> {
        match self {
            Self::Lines(lines) => lines.next(),
            Self::Tree(walk) => Ok(walk.next()),
        }
    }

    /// How far it is read, and how much there is, in bytes, where that is known.
    pub(crate) fn bytes(&self) -> (u64, Option<u64>) {
        match self {
            Self::Lines(lines) => lines.bytes(),
            Self::Tree(_) => (0, None),
        }
    }
}

/// What became of an import so far.
#[derive(Debug, Default)]
pub(crate) struct Import {
    /// How many are new; without a store, how many it would take.
    pub(crate) created: usize,
    /// Of how many that were there something more is known now.
    pub(crate) completed: usize,
    /// How many were there, as they are.
    pub(crate) present: usize,
    /// How many are not in, and why, of the first ones.
    pub(crate) refused: usize,
    pub(crate) reasons: Vec<(Place, String)>,
    /// Where readers of a lookaside stop before the end: how often, and the first ones.
    pub(crate) gaps: usize,
    pub(crate) first_gaps: Vec<PathBuf>,
}

impl Import {
    fn refuse(&mut self, place: Place, reason: String) {
        self.refused += 1;
        if self.reasons.len() < MOST_TOLD {
            self.reasons.push((place, reason));
        }
    }

    /// What became of signatures that were found there.
    fn add(&mut self, imported: Imported, places: &[Place]) {
        let Imported { created, completed, present, refused, reasons } = imported;
        self.created += created;
        self.completed += completed;
        self.present += present;
        // It tells the first ones.
        self.refused += refused.saturating_sub(reasons.len());
        for reason in reasons {
            let place = reason.line.checked_sub(1).and_then(|index| places.get(index)).cloned();
            self.refuse(place.unwrap_or(Place::Line(0)), reason.reason);
        }
    }

    /// How many are in the store.
    pub(crate) fn stored(&self) -> usize {
        self.created + self.completed + self.present
    }

    fn done(&self) -> usize {
        self.stored() + self.refused
    }
}

/// Puts what is found into a store, or looks at it where there is none to put it into. What is counted as created,
/// completed or present is durable.
pub(crate) async fn import(
    source: Source,
    store: Option<&Store>,
    report: &mut Import,
    watch: &(dyn Fn(usize, u64) + Sync),
) -> Result<(), TransferError> {
    let mut batches = read(source);
    loop {
        // Its end is said: that of a thread alone might be any.
        let cut_off = || TransferError::file("what is imported")(io::Error::other("it can't be read to its end"));
        let Batch { found, bytes } = batches.recv().await.ok_or_else(cut_off)??;
        if found.is_empty() {
            return Ok(());
        }
        let (mut places, mut signatures) = (Vec::new(), Vec::new());
        for Found { place, what } in found {
            match what {
                What::Signature(signature) => {
                    places.push(place);
                    signatures.push(*signature);
                }
                What::Junk(reason) => report.refuse(place, reason),
                What::Gap => {
                    report.gaps += 1;
                    if let (Place::Path(path), true) = (place, report.first_gaps.len() < MOST_TOLD) {
                        report.first_gaps.push(path);
                    }
                }
            }
        }
        match store {
            _ if signatures.is_empty() => {}
            None => report.created += signatures.len(),
            Some(store) => report.add(store.take(&signatures).await?, &places),
        }
        watch(report.done(), bytes);
    }
}

/// What is found at once, and how far that is read.
struct Batch {
    found: Vec<Found>,
    bytes: u64,
}

/// Reads on a thread of its own: what is read may stand still, and whoever waits for it can leave.
fn read(mut source: Source) -> mpsc::Receiver<Result<Batch, TransferError>> {
    let (sender, batches) = mpsc::channel(1);
    spawn_blocking(move || {
        loop {
            let batch = next_batch(&mut source);
            let is_last = batch.as_ref().map_or(true, |batch| batch.found.is_empty());
            // Nobody listens any more when the import has failed.
            if sender.blocking_send(batch).is_err() || is_last {
                return;
            }
        }
    });
    batches
}

/// What is found next; nothing: there is no more.
fn next_batch(source: &mut Source) -> Result<Batch, TransferError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    while found.len() < AT_ONCE && bytes < BYTES_AT_ONCE {
        let Some(next) = source.next()? else { break };
        if let What::Signature(signature) = &next.what {
            bytes += signature.1.signature.content.len();
        }
        found.push(next);
    }
    Ok(Batch { found, bytes: source.bytes().0 })
}
