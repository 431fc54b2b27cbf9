//! `sealgate push`: pushes an image from files to a registry, and signs it there.

use std::{fmt::Write as _, io, sync::Arc, time::Duration};

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use super::arguments::{Format, ShellCommand};
use super::exit_status::{CliError, ExitStatus};
use super::image_arguments::{self, ImageArguments, Mirrors};
use super::progress::PushProgress;
use super::sign::{self, KeyArguments, SignatureArguments};
use super::terminal::{self, Colours, Tone};
use crate::image::{Digest, Reference, Repository};
use crate::image_files::{Image, ImageSource, SourceError};
use crate::push::{Pushed, push};
use crate::registry::BlobOutcome;
use crate::signature_sources;
use crate::signing;
use crate::telemetry::logging;

/// The time limit for the check that signatures can be stored.
const STEP_TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Args, Debug)]
pub(super) struct PushArguments {
    /// The image's files: oci:FOLDER[:TAG], oci-archive:FILE[:TAG], or docker-archive:FILE[:REFERENCE] (from `docker
    /// save` or `podman save`)
    #[arg(value_parser = source)]
    source: ImageSource,
    #[command(flatten)]
    image: ImageArguments,
    /// Another repository of the same registry, from which blobs are mounted if it has them
    #[arg(long, value_name = "REPOSITORY")]
    mount_from: Option<String>,
    #[command(flatten)]
    key: KeyArguments,
    #[command(flatten)]
    signature: SignatureArguments,
    /// The format of the result
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

fn source(text: &str) -> Result<ImageSource, String> {
    text.parse().map_err(|error: SourceError| error.to_string())
}

pub(super) fn run(arguments: PushArguments) -> Result<ExitStatus, CliError> {
    let PushArguments { source, image, mount_from, key: key_arguments, signature: signature_arguments, output } =
        arguments;
    logging::start(logging::Format::Text, "sealgate=warn")?;
    let subject = image.read(Mirrors::LeftOut)?;
    let mut signature = signature_arguments.read(&subject)?;
    let query = key_arguments.query()?;
    let mount_from = mount_from.map(|text| repository(&text, &subject.image)).transpose()?;
    let manifest_bytes = subject.configuration.limits.manifest_bytes;
    super::runtime::block_on(async {
        let client = subject.client()?;
        // Errors that would prevent signing are found before the push.
        let key = key_arguments.open(query.as_ref()).await?;
        let repository = subject.image.repository();
        signature.choose_destination(&client, &subject.image).await?;
        signature_sources::check(&client, &signature.destination, repository, Instant::now() + STEP_TIMEOUT)
            .await
            .map_err(|error| CliError::from(error).about(&subject.image).after("nothing is pushed"))?;
        let progress = Arc::new(PushProgress::new());
        let files = read(&source, manifest_bytes, &progress).await?;
        signing::plan::plan_of(&files, signature.index_only)
            .await
            .map_err(|error| CliError::refused(error).about(&source).after("nothing is pushed"))?;
        let pushed = push(&client, &subject.image, &files, mount_from.as_ref(), &*progress)
            .await
            .map_err(|error| CliError::from(error).about(&subject.image))?;
        // By digest: if another client pushes an image under the tag meanwhile, that one is not signed.
        let pinned = subject.image.pinned(pushed.digest);
        let mut again = ShellCommand::new(format_args!("sealgate sign {}", sign::by_digest(&pinned, pushed.digest)));
        again.option("--sign-identity", Some(&signature.identity));
        key_arguments.again(&key, &mut again);
        signature_arguments.again(&mut again);
        image.again(&mut again);
        let signing = sign::sign(&client, &pinned, &signature, key)
            .await
            .map_err(|failure| failure.after(format_args!("the image is pushed; sign it with: {again}")))?;
        let report = PushReport::new(&source, &pushed, signing);
        terminal::print(&match output {
            Format::Text => report.text(Colours::of(&io::stdout())),
            Format::Json => serde_json::to_string_pretty(&report).map_err(CliError::undecided)? + "\n",
        })?;
        Ok(ExitStatus::Done)
    })?
}

async fn read(source: &ImageSource, manifest_bytes: usize, progress: &Arc<PushProgress>) -> Result<Image, CliError> {
    let (source, progress) = (source.clone(), Arc::clone(progress));
    let work = move || source.read(manifest_bytes, &|layer: &Digest, done, all| progress.compressing(layer, done, all));
    Ok(tokio::task::spawn_blocking(work).await.map_err(CliError::undecided)??)
}

/// Parses a repository of the image's registry.
fn repository(text: &str, image: &Reference) -> Result<Repository, CliError> {
    let failed = |why: &str| CliError::usage(format_args!("--mount-from {text}: {why}"));
    let reference = image_arguments::reference(text).map_err(|failure| failed(&failure.to_string()))?;
    if reference.repository().host() != image.repository().host() {
        return Err(failed("blobs are mounted from repositories of the same registry only"));
    }
    Ok(reference.repository().clone())
}

/// The result of a push, with that of signing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PushReport {
    source: String,
    manifests: Vec<PushedPart>,
    blobs: Vec<PushedPart>,
    #[serde(flatten)]
    signing: sign::SignReport,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PushedPart {
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    outcome: BlobOutcome,
}

impl PushReport {
    fn new(source: &ImageSource, pushed: &Pushed, signing: sign::SignReport) -> Self {
        let Pushed { digest: _, manifests, blobs } = pushed;
        let part = |digest: &Digest, size, outcome| PushedPart { digest: digest.to_string(), size, outcome };
        Self {
            source: source.to_string(),
            manifests: manifests.iter().map(|(digest, outcome)| part(digest, None, *outcome)).collect(),
            blobs: blobs.iter().map(|(digest, size, outcome)| part(digest, Some(*size), *outcome)).collect(),
            signing,
        }
    }

    fn text(&self, colours: Colours) -> String {
        let parts = || self.blobs.iter().chain(&self.manifests);
        let count = |outcome| parts().filter(|part| part.outcome == outcome).count();
        let pushed = count(BlobOutcome::Pushed);
        let answer = if pushed > 0 { "pushed" } else { "pushed already" };
        let mut text = String::new();
        let _ = writeln!(text, "{} {}", colours.paint(Tone::Good, answer), terminal::plain(&self.source));
        let blobs = format_args!(
            "{pushed} sent, {} mounted, {} there already",
            count(BlobOutcome::Mounted),
            count(BlobOutcome::Present)
        )
        .to_string();
        let _ = writeln!(text, "  {} {blobs}", colours.paint(Tone::Quiet, format_args!("{:<10}", "parts")));
        text + &self.signing.text(colours)
    }
}
