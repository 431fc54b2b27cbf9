//! `sealgate store`: all signatures of a store, into a file or a lookaside tree, and into another store.

mod interrupt;
mod report;
mod target;
mod transfer_file;

use std::io::{self, Write as _};

use clap::{Args, Subcommand};
use jiff::Timestamp;

use self::{
    interrupt::unless_interrupted,
    report::TransferReport,
    target::{CommonArguments, StoreAccess, StoreName},
    transfer_file::TransferFile,
};
use super::exit_status::{CliError, ExitStatus};
use super::progress::ProgressCounter;
use super::terminal::{Colours, Tone};
use crate::store_transfer::{
    ExportFile, ExportLines, ExportReport, ExportStream, ExportTarget, ImportReport, ImportSource, TreeReader,
    TreeWriter, export, import,
};
use crate::telemetry::logging;

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Write all signatures of a store into a file or a lookaside tree
    Export(ExportArguments),
    /// Put signatures out of a file or a lookaside tree into a store
    Import(ImportArguments),
}

#[derive(Args, Debug)]
pub(super) struct ExportArguments {
    /// The store: HOST[:PORT] or a URL of a running one, redb:FILE of a stopped one, or config:FILE, where that
    /// configuration's gateway.store is. A host named redb or config is given as a URL
    store: StoreName,
    /// The destination: a file that is not there yet, - for standard output, or a lookaside tree: a folder, or lookaside:FOLDER
    to: TransferFile,
    /// Go on with a file that was interrupted, however long ago it was begun. What was removed from the store since then stays in
    /// it, and some of what was added is missing. Without this, one that was begun within the last hour is taken up
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    common: CommonArguments,
}

#[derive(Args, Debug)]
pub(super) struct ImportArguments {
    /// The store: HOST[:PORT] or a URL of a running one, redb:FILE of a stopped one (made if it is not there), or
    /// config:FILE, where that configuration's gateway.store is. A host named redb or config is given as a URL
    store: StoreName,
    /// The origin: the file of an export, - for standard input, or a lookaside tree: a folder, or lookaside:FOLDER
    from: TransferFile,
    /// Check what would be imported, and ask no store
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    common: CommonArguments,
}

pub(super) fn run(command: StoreCommand) -> Result<ExitStatus, CliError> {
    logging::start(logging::Format::Text, "sealgate=warn")?;
    match command {
        StoreCommand::Export(arguments) => super::runtime::block_on(run_export(&arguments))?,
        StoreCommand::Import(arguments) => super::runtime::block_on(run_import(&arguments))?,
    }
}

async fn run_export(arguments: &ExportArguments) -> Result<ExitStatus, CliError> {
    let ExportArguments { store, to, resume, common } = arguments;
    if *resume && !matches!(to, TransferFile::Plain(path) if !path.is_dir()) {
        return Err(CliError::usage("--resume goes on with a file; into a lookaside tree, every export does"));
    }
    let found = common.find(store)?;
    // First: a store that can't be opened must not leave a file.
    let opened = found.open(StoreAccess::Read).await?;
    let mut sink = open_sink(to, &found.name, *resume)?;
    if let ExportTarget::File(file) = &sink
        && let Some(begun) = file.discarded()
    {
        // If standard error is closed, there is no other place to report that.
        let _ = writeln!(
            io::stderr(),
            "{} this begins anew: an earlier export, begun at {begun}, is removed (--resume goes on with one of any age)",
            Colours::of(&io::stderr()).paint(Tone::Unsure, "warning:")
        );
    }
    let mut exported = ExportReport::default();
    let tally = ProgressCounter::new(None);
    let watch = |signatures| tally.at(0, format_args!("{signatures} signatures read"));
    let done = unless_interrupted(Box::pin(export(&opened, &mut sink, &mut exported, &watch))).await;
    tally.end();
    if let Err(error) = done {
        let failure = CliError::from(error);
        return Err(match &sink {
            ExportTarget::File(file) if exported.signatures > 0 => failure.after(format_args!(
                "{} signatures are in {}; the same command goes on behind them until {}, and later with --resume",
                exported.signatures,
                file.partial().display(),
                file.young_until()
            )),
            _ => failure,
        });
    }
    let report = TransferReport::of_export(&found.name, to, &sink, &exported);
    // Standard output has the lines.
    match sink {
        ExportTarget::Stream(_) => report.print_to_error(common.output)?,
        ExportTarget::File(_) | ExportTarget::Tree(_) => report.print(common.output)?,
    }
    Ok(report.status())
}

fn open_sink(to: &TransferFile, store: &str, resume: bool) -> Result<ExportTarget, CliError> {
    Ok(match to {
        TransferFile::Stream => ExportTarget::Stream(ExportStream::new(io::stdout())),
        TransferFile::Tree(folder) => ExportTarget::Tree(TreeWriter::open(folder)?),
        TransferFile::Plain(path) if path.is_dir() => ExportTarget::Tree(TreeWriter::open(path)?),
        TransferFile::Plain(path) if path.as_os_str().as_encoded_bytes().ends_with(b"/") => {
            let path = path.display();
            return Err(CliError::usage(format_args!("{path}: there is no such folder (lookaside:{path} makes it)")));
        }
        TransferFile::Plain(path) => ExportTarget::File(ExportFile::open(path, store, Timestamp::now(), resume)?),
    })
}

async fn run_import(arguments: &ImportArguments) -> Result<ExitStatus, CliError> {
    let ImportArguments { store, from, dry_run, common } = arguments;
    let found = common.find(store)?;
    let source = match from {
        TransferFile::Stream => ImportSource::Lines(Box::new(ExportLines::standard_input()?)),
        TransferFile::Tree(folder) => ImportSource::Tree(TreeReader::open(folder)?),
        TransferFile::Plain(path) if path.is_dir() => ImportSource::Tree(TreeReader::open(path)?),
        TransferFile::Plain(path) if std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.len() == 0) => {
            return Err(CliError::refused(format_args!(
                "{}: it has no bytes: nothing is imported (a full disk leaves such files; so does the export of an empty store)",
                path.display()
            )));
        }
        TransferFile::Plain(path) => ImportSource::Lines(Box::new(ExportLines::open(path)?)),
    };
    // Only now: what is no export must not make a store.
    let opened = if *dry_run { None } else { Some(found.open(StoreAccess::Write).await?) };
    let mut report = ImportReport::default();
    let tally = ProgressCounter::new(source.bytes().1);
    let watch = |signatures, bytes| tally.at(bytes, format_args!("{signatures} signatures"));
    let done = unless_interrupted(Box::pin(import(source, opened.as_ref(), &mut report, &watch))).await;
    tally.end();
    if let Err(error) = done {
        let failure = CliError::from(error);
        return Err(match report.stored() {
            0 => failure,
            _ if *dry_run => failure,
            stored => failure.after(format_args!("{stored} signatures are in; the same command brings the rest")),
        });
    }
    let report = TransferReport::of_import(&found.name, from, &report, *dry_run);
    report.print(common.output)?;
    Ok(report.status())
}
