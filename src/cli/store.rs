//! `sealgate store`: all signatures of a store, into a file or a lookaside tree, and into another store.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use super::arguments::{Format, RegistryArguments};
use super::exit_status::{CliError, ExitStatus};
use super::image_arguments::{self, RegistryOverride};
use super::progress::ProgressCounter;
use super::terminal::{self, Colours, Tone, plain};
use crate::configuration::{self, Configuration};
use crate::gateway::store::ImageLimits;
use crate::image::Repository;
use crate::registry::{Client, HostSet};
use crate::store_transfer::{
    ExportFile, ExportLines, ExportReport, ExportStream, ExportTarget, ImportReport, ImportSource, ItemLocation,
    RemoteStore, TransferError, TransferStore, TreeReader, TreeWriter, export, import,
};
use crate::telemetry::{Metrics, logging};

/// Reasons that are printed for people. As JSON there are more.
const MAX_PRINTED: usize = 20;

/// The exit status of an interrupted command, as for `TransferError::Interrupted`.
const INTERRUPTED: i32 = 3;

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
    /// Where to: a file that is not there yet, - for standard output, or a lookaside tree: a folder, or lookaside:FOLDER
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
    /// Where from: the file of an export, - for standard input, or a lookaside tree: a folder, or lookaside:FOLDER
    from: TransferFile,
    /// Check what would be imported, and ask no store
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    common: CommonArguments,
}

#[derive(Args, Debug)]
pub(super) struct CommonArguments {
    /// The configuration file: how a running store is asked, and limits
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// A store as it is named.
#[derive(Clone, Debug, PartialEq, Eq)]
enum StoreName {
    /// `redb:FILE`.
    Redb(PathBuf),
    /// `config:FILE`.
    Configured(PathBuf),
    /// A URL with its scheme.
    Url(RegistryOverride),
    /// A host, or a file, whatever is there.
    Plain(String),
}

impl FromStr for StoreName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("redb" | "config", "")) => Err("a file's name follows".to_owned()),
            Some(("redb", file)) => Ok(Self::Redb(file.into())),
            Some(("config", file)) => Ok(Self::Configured(file.into())),
            _ if text.contains("://") => text.parse().map(Self::Url),
            _ if text.is_empty() => {
                Err("expected HOST[:PORT], https://HOST[:PORT], redb:FILE or config:FILE".to_owned())
            }
            _ => Ok(Self::Plain(text.to_owned())),
        }
    }
}

/// The argument that names where an export is written to, or an import read from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TransferFile {
    /// `-`.
    Stream,
    /// `lookaside:FOLDER`.
    Tree(PathBuf),
    /// A file, or a tree, whatever is there.
    Plain(PathBuf),
}

impl FromStr for TransferFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("lookaside:") {
            Some("") => Err("a folder's name follows".to_owned()),
            Some(folder) => Ok(Self::Tree(folder.into())),
            None if text == "-" => Ok(Self::Stream),
            None if text.is_empty() => Err("expected a file, - or lookaside:FOLDER".to_owned()),
            None => Ok(Self::Plain(text.into())),
        }
    }
}

/// Whether a store is only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreAccess {
    Read,
    Write,
}

/// Where a store is.
struct StoreTarget {
    place: StoreLocation,
    /// For people, and to tell it from others.
    name: String,
    configuration: Configuration,
}

enum StoreLocation {
    Running { repository: Repository, url: Option<url::Url> },
    Redb(PathBuf),
    Etcd(configuration::Etcd),
}

impl CommonArguments {
    /// Finds the store that is named, without a request.
    fn find(&self, store: &StoreName) -> Result<StoreTarget, CliError> {
        let configuration = image_arguments::configuration(self.config.as_deref())?;
        let here = |place, name, configuration| {
            if self.registry.is_given() {
                let text = "--creds, --authfile, --cert-dir and --tls-verify are for running stores, which are given by their URL";
                return Err(CliError::usage(text));
            }
            Ok(StoreTarget { place, name, configuration })
        };
        let redb = |file: PathBuf, configuration| {
            // One file is one store, by whatever path it is named.
            let name = file.canonicalize().unwrap_or_else(|_| file.clone()).display().to_string();
            here(StoreLocation::Redb(file), name, configuration)
        };
        match store {
            StoreName::Redb(file) => redb(file.clone(), configuration),
            StoreName::Configured(file) => {
                let configuration = image_arguments::configuration(Some(file))?;
                let none =
                    || CliError::usage(format_args!("{}: there is no gateway in this configuration", file.display()));
                match configuration.gateway.as_ref().ok_or_else(none)?.store.clone() {
                    configuration::Store::Redb(file) => redb(file, configuration),
                    configuration::Store::Etcd(etcd) => {
                        let endpoints: Vec<&str> = etcd.endpoints.iter().map(url::Url::as_str).collect();
                        let name = format!("{} {}", endpoints.join(","), etcd.prefix);
                        here(StoreLocation::Etcd(etcd), name, configuration)
                    }
                }
            }
            StoreName::Url(elsewhere) => self.running(elsewhere, configuration),
            StoreName::Plain(text) if Path::new(text).exists() => redb(text.into(), configuration),
            StoreName::Plain(text) if text.contains('/') => Err(CliError::refused(format_args!(
                "{}: there is no such file (redb:FILE makes one for an import)",
                plain(text)
            ))),
            StoreName::Plain(text) => {
                let elsewhere =
                    text.parse().map_err(|error| CliError::usage(format_args!("{}: {error}", plain(text))))?;
                self.running(&elsewhere, configuration)
            }
        }
    }

    fn running(
        &self,
        RegistryOverride { url, scheme }: &RegistryOverride,
        mut configuration: Configuration,
    ) -> Result<StoreTarget, CliError> {
        // Settings of the host hold for the store, which is in no repository.
        let repository = Repository::at(url, "signatures");
        let repository = repository.ok_or_else(|| CliError::usage(format_args!("{url}: no store can be there")))?;
        configuration.registries.logins = Some(self.registry.logins()?);
        let mut entry = image_arguments::entry_for(&configuration.registries, &repository);
        self.registry.apply(&mut entry, &repository)?;
        if url.scheme() == "http" && !entry.insecure {
            return Err(CliError::usage(format_args!("{url}: plain HTTP needs --tls-verify=false")));
        }
        // Of a host alone it is not known whether it speaks TLS, and that is only asked where it need not.
        let url = (scheme.is_some() || !entry.insecure).then(|| url.clone());
        image_arguments::put(&mut configuration.registries, entry);
        let name = match &url {
            Some(url) => url.to_string(),
            None => repository.host().to_owned(),
        };
        Ok(StoreTarget { place: StoreLocation::Running { repository, url }, name, configuration })
    }
}

impl StoreTarget {
    async fn open(&self, to: StoreAccess) -> Result<TransferStore, CliError> {
        let Configuration { registries, limits, .. } = &self.configuration;
        let writing = (to == StoreAccess::Write).then(|| ImageLimits::with_lists_of(limits.signature_list_bytes));
        Ok(match &self.place {
            StoreLocation::Running { repository, url } => {
                let client = Client::new(registries, limits, Arc::new(HostSet::default()), Arc::new(Metrics::new()));
                let running = RemoteStore::at(client.map_err(CliError::usage_of)?, repository, url.as_ref())?;
                TransferStore::Running(Box::new(running))
            }
            StoreLocation::Redb(file) => tokio::task::block_in_place(|| TransferStore::redb(file, writing))?,
            StoreLocation::Etcd(etcd) => TransferStore::etcd(etcd, writing).await?,
        })
    }
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

/// Ends the work between two of its steps when the process receives SIGINT or SIGTERM, so that its progress can be reported.
/// At a second signal, or at one after the work, the process ends at once: a step may take as long as a disk or a reader
/// does.
async fn unless_interrupted(work: impl Future<Output = Result<(), TransferError>>) -> Result<(), TransferError> {
    let (tell, told) = oneshot::channel();
    // If there are no signals, it ends as any process does.
    if let [Ok(mut interrupt), Ok(mut terminate)] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal) {
        let mut next = async move || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        // On a thread that no step blocks.
        tokio::spawn(async move {
            next().await;
            if tell.send(()).is_ok() {
                next().await;
            }
            std::process::exit(INTERRUPTED);
        });
    }
    tokio::select! {
        biased;
        Ok(()) = told => Err(TransferError::Interrupted),
        done = work => done,
    }
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

/// The result of an export or import.
struct TransferReport {
    head: &'static str,
    rows: Vec<(&'static str, String)>,
    /// Where something is not in, and why, of the first ones.
    reasons: Vec<(ItemLocation, String)>,
    refused: usize,
    json: Value,
}

/// Why something is not in.
#[derive(Serialize)]
struct ReportedReason<'a> {
    #[serde(flatten)]
    place: &'a ItemLocation,
    reason: &'a str,
}

fn told(reasons: &[(ItemLocation, String)]) -> Vec<ReportedReason<'_>> {
    reasons.iter().map(|(place, reason)| ReportedReason { place, reason }).collect()
}

impl TransferReport {
    fn of_export(store: &str, to: &TransferFile, sink: &ExportTarget, exported: &ExportReport) -> Self {
        let ExportReport { signatures, resumed, begun, origins, statuses, created, present, refused, reasons } =
            exported;
        let mut rows = vec![("from", store.to_owned()), ("to", to.to_string())];
        let mut json = json!({
            "store": store, "to": to.to_string(), "signatures": signatures, "origins": origins, "statuses": statuses,
        });
        if let ExportTarget::Tree(_) = sink {
            rows.push(("signatures", format!("{created} new, {present} there already, {refused} refused")));
            if origins + statuses > 0 {
                let left = format!("{origins} origins and {statuses} statuses: a lookaside tree has no place for them");
                rows.push(("left", left));
            }
            json["created"] = (*created).into();
            json["present"] = (*present).into();
            json["refused"] = (*refused).into();
            json["reasons"] = json!(told(reasons));
        } else {
            rows.push(("signatures", format!("{signatures}, {statuses} of them with a verification status")));
            json["resumed"] = (*resumed).into();
            if let Some(begun) = begun {
                json["begun"] = begun.to_string().into();
                rows.push(("resumed", format!("begun at {begun}, and resumed behind {resumed} signatures")));
            }
        }
        let head = if *refused > 0 { "exported in part" } else { "exported" };
        Self { head, rows, reasons: reasons.clone(), refused: *refused, json }
    }

    fn of_import(store: &str, from: &TransferFile, import: &ImportReport, dry_run: bool) -> Self {
        let ImportReport { created, completed, present, refused, reasons, gaps, first_gaps } = import;
        let mut rows = vec![("from", from.to_string()), ("to", store.to_owned())];
        let mut json =
            json!({ "store": store, "from": from.to_string(), "refused": refused, "reasons": told(reasons) });
        if dry_run {
            rows.push(("signatures", format!("{created} good, {refused} would be refused")));
            json["dryRun"] = true.into();
            json["good"] = (*created).into();
        } else {
            let counted = format!("{created} new, {completed} completed, {present} there already, {refused} refused");
            rows.push(("signatures", counted));
            json["created"] = (*created).into();
            json["completed"] = (*completed).into();
            json["present"] = (*present).into();
        }
        if let TransferFile::Tree(_) | TransferFile::Plain(_) = from
            && *gaps > 0
        {
            json["gaps"] = first_gaps.iter().map(|path| path.display().to_string()).collect();
            for path in first_gaps.iter().take(MAX_PRINTED) {
                let why = "is missing: readers stop here, and never saw what lies behind, which is not left out";
                rows.push(("gap", format!("{} {why}", path.display())));
            }
            if *gaps > MAX_PRINTED {
                rows.push(("gap", format!("and {} more", gaps - MAX_PRINTED)));
            }
        }
        let head = match (dry_run, refused) {
            (true, _) => "checked",
            (false, 0) => "imported",
            (false, _) => "imported in part",
        };
        Self { head, rows, reasons: reasons.clone(), refused: *refused, json }
    }

    fn status(&self) -> ExitStatus {
        if self.refused > 0 { ExitStatus::Refused } else { ExitStatus::Done }
    }

    fn text(&self, colours: Colours) -> String {
        let tone = if self.refused > 0 { Tone::Unsure } else { Tone::Good };
        let mut text = colours.paint(tone, self.head) + "\n";
        let mut row = |label: &str, value: &str| {
            // Files and servers have a say in it.
            let _ = writeln!(text, "  {} {}", colours.paint(Tone::Quiet, format_args!("{label:<10}")), plain(value));
        };
        for (label, value) in &self.rows {
            row(label, value);
        }
        for (place, reason) in self.reasons.iter().take(MAX_PRINTED) {
            row("refused", &format!("{place}: {reason}"));
        }
        if self.refused > MAX_PRINTED {
            row("refused", &format!("and {} more", self.refused - self.reasons.len().min(MAX_PRINTED)));
        }
        text
    }

    fn written(&self, format: Format, colours: Colours) -> Result<String, CliError> {
        Ok(match format {
            Format::Text => self.text(colours),
            Format::Json => serde_json::to_string_pretty(&self.json).map_err(CliError::undecided)? + "\n",
        })
    }

    fn print(&self, format: Format) -> Result<(), CliError> {
        terminal::print(&self.written(format, Colours::of(&io::stdout()))?)
    }

    /// Prints to standard error. If that is closed, the exit status still has the result.
    fn print_to_error(&self, format: Format) -> Result<(), CliError> {
        let text = self.written(format, Colours::of(&io::stderr()))?;
        let _ = io::stderr().write_all(text.as_bytes());
        Ok(())
    }
}

impl std::fmt::Display for TransferFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stream => f.write_str("-"),
            Self::Tree(path) | Self::Plain(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_and_files_are_told_apart_by_their_names() {
        let url = |text: &str| StoreName::Url(text.parse().unwrap());
        for (text, name) in [
            ("store.example.com", StoreName::Plain("store.example.com".to_owned())),
            ("store.example.com:5000", StoreName::Plain("store.example.com:5000".to_owned())),
            ("https://store.example.com", url("https://store.example.com")),
            ("redb:data/signatures.redb", StoreName::Redb("data/signatures.redb".into())),
            ("config:sealgate.yaml", StoreName::Configured("sealgate.yaml".into())),
            ("data/signatures.redb", StoreName::Plain("data/signatures.redb".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(name), "{text}");
        }
        for text in ["", "redb:", "config:", "https://", "https://store.example.com/path", "ftp://store.example.com"] {
            assert!(text.parse::<StoreName>().is_err(), "{text}");
        }
        for (text, name) in [
            ("-", TransferFile::Stream),
            ("backup.ndjson", TransferFile::Plain("backup.ndjson".into())),
            ("lookaside:tree", TransferFile::Tree("tree".into())),
        ] {
            assert_eq!(text.parse(), Ok(name), "{text}");
        }
        for text in ["", "lookaside:"] {
            assert!(text.parse::<TransferFile>().is_err(), "{text}");
        }
    }
}
