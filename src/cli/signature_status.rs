//! `sealgate signatures status`: changes the verification status of signatures in a store.

use std::{fmt::Write as _, io};

use clap::{Args, Subcommand};
use serde::Serialize;
use tokio::time::Instant;

use super::arguments::Format;
use super::exit_status::{CliError, ExitStatus};
use super::image_arguments::{ImageArguments, ImageContext, Mirrors};
use super::image_tree::{ManifestNode, STEP_TIMEOUT};
use super::runtime::block_on;
use super::terminal::{self, Colours, Tone, plain};
use crate::image::Reference;
use crate::signature_sources::store_client::StoreClient;

#[derive(Debug, Subcommand)]
pub(super) enum StatusCommand {
    /// Clear the verification status of all signatures of an image, and of each manifest in it, without a check
    Clear(ClearArguments),
}

#[derive(Args, Debug)]
pub(super) struct ClearArguments {
    #[command(flatten)]
    image: ImageArguments,
    /// The format of the result
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT", help_heading = None)]
    output: Format,
}

pub(super) fn run(command: StatusCommand) -> Result<ExitStatus, CliError> {
    let StatusCommand::Clear(ClearArguments { image, output }) = command;
    let named = image.named()?;
    let subject = image.read(Mirrors::LeftOut)?;
    block_on(clear(&named, &subject, output))?
}

/// Clears the verification status of all signatures of an image, and of each manifest in it, and prints the places.
///
/// # Errors
/// A store can't be asked or refuses, or the signatures are in no store.
pub(super) async fn clear(named: &Reference, subject: &ImageContext, output: Format) -> Result<ExitStatus, CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Cleared {
        image: String,
        digest: String,
        /// The places whose signatures have no status now.
        places: Vec<String>,
    }
    let client = subject.client()?;
    let repository = subject.image.repository();
    let failed = |error: CliError| error.about("the status of signatures can't be cleared");
    let whole = ManifestNode::of(&client, &subject.image).await.map_err(|error| CliError::from(error).about(named))?;
    let mut report = Cleared { image: named.to_string(), digest: whole.digest.to_string(), places: Vec::new() };
    for source in &client.signature_sources(repository) {
        let store = StoreClient::of(&client, source, repository, Instant::now() + STEP_TIMEOUT).await;
        let Some(store) = store.map_err(|error| failed(error.into()))? else { continue };
        for part in whole.different() {
            store
                .clear_statuses(&part.digest, Instant::now() + STEP_TIMEOUT)
                .await
                .map_err(|error| failed(CliError::from(error)))?;
            report.places.push(store.url(&part.digest).into());
        }
    }
    if report.places.is_empty() {
        return Err(CliError::refused(format_args!(
            "{named}: this image's signatures are in no store, and nothing else keeps their status"
        )));
    }
    terminal::print(&match output {
        Format::Text => {
            let colours = Colours::of(&io::stdout());
            let mut text = format!("{} {}\n", colours.paint(Tone::Good, "cleared"), report.image);
            for place in &report.places {
                let _ = writeln!(text, "  {} {}", colours.paint(Tone::Quiet, "status    "), plain(place));
            }
            text
        }
        Format::Json => serde_json::to_string_pretty(&report).map_err(CliError::undecided)? + "\n",
    })?;
    Ok(ExitStatus::Done)
}
