//! The result of an export or import, as it is printed.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::transfer_file::TransferFile;
use crate::cli::arguments::Format;
use crate::cli::exit_status::{CliError, ExitStatus};
use crate::cli::terminal::{self, Colours, Tone, plain};
use crate::store_transfer::{ExportReport, ExportTarget, ImportReport, ItemLocation};

/// Reasons that are printed for people. As JSON there are more.
const MAX_PRINTED: usize = 20;

/// The result of an export or import.
pub(super) struct TransferReport {
    head: &'static str,
    rows: Vec<(&'static str, String)>,
    /// The places of the first signatures that were refused, each with the reason.
    reasons: Vec<(ItemLocation, String)>,
    refused: usize,
    json: Value,
}

/// The reason why one signature was refused, as JSON.
#[derive(Serialize)]
struct ReportedReason<'a> {
    #[serde(flatten)]
    place: &'a ItemLocation,
    reason: &'a str,
}

fn reported(reasons: &[(ItemLocation, String)]) -> Vec<ReportedReason<'_>> {
    reasons.iter().map(|(place, reason)| ReportedReason { place, reason }).collect()
}

impl TransferReport {
    pub(super) fn of_export(store: &str, to: &TransferFile, sink: &ExportTarget, exported: &ExportReport) -> Self {
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
            json["reasons"] = json!(reported(reasons));
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

    pub(super) fn of_import(store: &str, from: &TransferFile, import: &ImportReport, dry_run: bool) -> Self {
        let ImportReport { created, completed, present, refused, reasons, gaps, first_gaps } = import;
        let mut rows = vec![("from", from.to_string()), ("to", store.to_owned())];
        let mut json =
            json!({ "store": store, "from": from.to_string(), "refused": refused, "reasons": reported(reasons) });
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

    pub(super) fn status(&self) -> ExitStatus {
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

    pub(super) fn print(&self, format: Format) -> Result<(), CliError> {
        terminal::print(&self.written(format, Colours::of(&io::stdout()))?)
    }

    /// Prints to standard error. If that is closed, the exit status still has the result.
    pub(super) fn print_to_error(&self, format: Format) -> Result<(), CliError> {
        let text = self.written(format, Colours::of(&io::stderr()))?;
        let _ = io::stderr().write_all(text.as_bytes());
        Ok(())
    }
}
