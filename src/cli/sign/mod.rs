//! `sealgate sign`: signs an image that is in a registry.

mod destination;
mod key;
mod report;
mod signature_request;

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::Arc,
};

use clap::Args;
use jiff::Timestamp;
use tokio::time::Instant;

pub(super) use self::{
    key::KeyArguments,
    report::SignReport,
    signature_request::{SignatureArguments, by_digest},
};
use self::{
    report::{SignOutcome, SignedManifest},
    signature_request::{STEP_TIMEOUT, SignatureRequest, tag_of},
};
use super::arguments::Format;
use super::exit_status::{CliError, ExitStatus};
use super::image_arguments::{ImageArguments, Mirrors};
use super::terminal::{self, Colours, Tone, plain};
use crate::image::Reference;
use crate::registry::Client;
use crate::signature::{Payload, compose::text};
use crate::signature_sources::{self, Written};
use crate::signing::{
    SigningKey,
    plan::{self, Plan, PlanError, Planned},
};
use crate::telemetry::logging;

/// Manifests that a message names one by one.
const MAX_NAMED: usize = 8;

#[derive(Args, Debug)]
pub(super) struct SignArguments {
    #[command(flatten)]
    image: ImageArguments,
    #[command(flatten)]
    key: KeyArguments,
    #[command(flatten)]
    signature: SignatureArguments,
    /// Show what would be signed, and sign nothing
    #[arg(long)]
    dry_run: bool,
    /// The format of the result
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

pub(super) fn run(arguments: SignArguments) -> Result<ExitStatus, CliError> {
    let SignArguments { image, key, signature, dry_run, output } = arguments;
    logging::start(logging::Format::Text, "sealgate=warn")?;
    let subject = image.read(Mirrors::LeftOut)?;
    let own_identity = signature.sign_identity.is_some();
    let mut signature = signature.read(&subject)?;
    signature.tag = tag_of(&subject.image, own_identity);
    let query = key.query()?;
    super::runtime::block_on(async {
        let client = subject.client()?;
        let report = if dry_run {
            let plan = plan(&client, &subject.image, signature.index_only).await?;
            signature.check_tag(&client, &plan).await?;
            return print_payloads(&plan, &signature.identity, output);
        } else {
            let key = key.open(query.as_ref()).await?;
            signature.choose_destination(&client, &subject.image).await?;
            sign(&client, &subject.image, &signature, key).await?
        };
        terminal::print(&match output {
            Format::Text => report.text(Colours::of(&io::stdout())),
            Format::Json => serde_json::to_string_pretty(&report).map_err(CliError::undecided)? + "\n",
        })?;
        Ok(ExitStatus::Done)
    })?
}

async fn plan(client: &Client, image: &Reference, index_only: bool) -> Result<Plan, CliError> {
    plan::plan(client, image, index_only, Instant::now() + STEP_TIMEOUT).await.map_err(|error| match error {
        PlanError::Lookup(error) => CliError::from(error).about(image),
        PlanError::Missing(ref missing) => CliError::refused(format_args!(
            "{error}: {}; nothing is signed: copy them into it and sign again, or sign the index alone with --index-only",
            named_briefly(missing)
        ))
        .about(image),
        error => CliError::refused(error).about(image),
    })
}

/// Signs what has to be signed, and writes it: nothing before everything is signed, and nothing if the tag names another
/// image by then.
pub(super) async fn sign(
    client: &Arc<Client>,
    image: &Reference,
    signature: &SignatureRequest,
    mut key: SigningKey,
) -> Result<SignReport, CliError> {
    let SignatureRequest { identity, destination, index_only, renew, .. } = signature;
    let plan = plan(client, image, *index_only).await?;
    if image.digest().is_some() {
        signature.check_tag(client, &plan).await?;
    }
    let source = destination.source().ok_or_else(|| CliError::usage("--to: the folder has no absolute path"))?;
    let mut signed = Vec::new();
    for Planned { digest, platform } in &plan.manifests {
        let there = plan::stored(client, &source, image, *digest, Instant::now() + STEP_TIMEOUT).await?;
        let message = if !renew && plan::is_signed(&there, &key, identity, *digest, Timestamp::now()) {
            None
        } else {
            let message = plan::sign(&mut key, identity, *digest, Timestamp::now());
            Some(message.map_err(|error| not_signed(&key, &error))?)
        };
        signed.push((*digest, platform.clone(), message));
    }
    signature.check_tag(client, &plan).await?;
    let mut report = SignReport::new(image, identity, &plan, &key);
    for (digest, platform, message) in signed {
        let place = match message {
            None => None,
            Some(message) => {
                let deadline = Instant::now() + STEP_TIMEOUT;
                let written =
                    signature_sources::write(client, destination, image.repository(), &digest, &message, deadline);
                // Signatures that are written stay: each stands for itself.
                let Written { place, existed: _ } = written.await.map_err(|error| {
                    let failure = CliError::from(error).about(image);
                    let there = report.signatures.len();
                    if plan.manifests.len() > 1 { failure.after(how_far(&plan.manifests, there)) } else { failure }
                })?;
                Some(place)
            }
        };
        report.signatures.push(SignedManifest {
            digest: digest.to_string(),
            platform,
            outcome: if place.is_some() { SignOutcome::Signed } else { SignOutcome::Present },
            place,
        });
    }
    if *index_only && plan.is_index {
        let _ = writeln!(
            io::stderr(),
            "{} only the index is signed: nodes (CRI-O, podman) verify the manifest of their platform, and will find no signature",
            Colours::of(&io::stderr()).paint(Tone::Unsure, "warning:")
        );
    }
    Ok(report)
}

/// Manifests with their platforms, on one line.
fn named_briefly(manifests: &[Planned]) -> String {
    let platform = |planned: &Planned| planned.platform.as_deref().map(|name| format!(" ({})", plain(name)));
    let name = |planned: &Planned| format!("{}{}", planned.digest, platform(planned).unwrap_or_default());
    let mut names: Vec<String> = manifests.iter().take(MAX_NAMED).map(name).collect();
    if let Some(more) = manifests.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

/// Returns a message about several signatures of which only the first `there` were written.
fn how_far(manifests: &[Planned], there: usize) -> String {
    let (done, open) = manifests.split_at(there);
    let done = match done {
        [] => "none is there".to_owned(),
        [_] => format!("1 is there: {}", named_briefly(done)),
        _ => format!("{there} are there: {}", named_briefly(done)),
    };
    let (all, open) = (manifests.len(), named_briefly(open));
    format!("of {all} signatures {done}; not there, or not for certain: {open}; the same command writes the rest")
}

fn not_signed(key: &SigningKey, error: &plan::SignError) -> CliError {
    let text = format!("{} did not sign: {error}", key.certificate.fingerprint());
    // pinentry-curses, in a terminal, has to be told which one.
    let hint = if io::stdin().is_terminal() && std::env::var_os("GPG_TTY").is_none_or(|tty| tty.is_empty()) {
        "; if the passphrase is asked for in a terminal, set it: export GPG_TTY=$(tty)"
    } else {
        "; nothing is written"
    };
    CliError::undecided(format_args!("{text}{hint}"))
}

fn print_payloads(plan: &Plan, identity: &Reference, output: Format) -> Result<ExitStatus, CliError> {
    let now = Timestamp::now();
    let payloads =
        plan.manifests.iter().map(|planned| text(&Payload { digest: planned.digest, identity: identity.clone() }, now));
    let lines: Vec<String> = payloads.map(|payload| String::from_utf8_lossy(&payload).into_owned()).collect();
    terminal::print(&match output {
        Format::Text => lines.iter().fold(String::new(), |text, line| text + line + "\n"),
        Format::Json => format!("[{}]\n", lines.join(",\n ")),
    })?;
    Ok(ExitStatus::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    #[test]
    fn how_far_it_came_is_told_in_a_line_that_ends() {
        let planned =
            |number: usize| Planned { digest: Digest::sha256(&[u8::try_from(number).unwrap()]), platform: None };
        let manifests: Vec<_> = (0..30).map(planned).collect();
        let text = how_far(&manifests, 0);
        assert!(text.starts_with("of 30 signatures none is there; not there, or not for certain: sha256:"), "{text}");
        let text = how_far(&manifests, 20);
        assert!(text.contains("20 are there: sha256:") && text.contains(", and 12 more; not there"), "{text}");
        assert!(text.contains(", and 2 more; the same command"), "{text}");
        assert!(!how_far(&manifests, 22).contains("and 0 more"), "{text}");
    }
}
