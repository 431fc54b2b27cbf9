//! `sealgate signatures`: lists the signatures of an image in stores and lookasides, and removes them from stores.

use std::{fmt::Write as _, io, str::FromStr, sync::Arc};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::arguments::Format;
use super::exit_status::{CliError, ExitStatus};
use super::image_arguments::{ImageArguments, ImageContext, Mirrors};
use super::image_tree::{ManifestNode, STEP_TIMEOUT, found_at};
use super::report::SourceReport;
use super::signature_status::{self, StatusCommand};
use super::terminal::{self, Colours, Tone, plain};
use crate::configuration::SignatureSource;
use crate::gate::ResolveDigest as _;
use crate::image::Digest;
use crate::registry::Client;
use crate::signature::{UntrustedSignature, claim};
use crate::signature_sources::store_client::{SignatureStatus, StoreClient, StoredName, StoredSignatureInfo};
use crate::telemetry::logging;
use crate::verification::AskedSource;

#[derive(Debug, Subcommand)]
pub(super) enum SignaturesCommand {
    /// List an image's signatures: who added each one and when, and who verified it
    List(ListArguments),
    /// Remove a signature
    Remove(RemoveArguments),
    /// Change the verification status of signatures
    #[command(subcommand)]
    Status(StatusCommand),
}

#[derive(Args, Debug)]
pub(super) struct ListArguments {
    #[command(flatten)]
    image: ImageArguments,
    /// The format of the list
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT", help_heading = None)]
    output: Format,
}

#[derive(Args, Debug)]
pub(super) struct RemoveArguments {
    #[command(flatten)]
    image: ImageArguments,
    /// The signature's name in the list, with or without the digest in front. Without it, the name is one of the
    /// image's own signatures, not of a manifest in an index
    #[arg(help_heading = None)]
    name: SignatureName,
    /// The format of the result
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT", help_heading = None)]
    output: Format,
}

/// `[<digest>@]<32 characters>`.
#[derive(Clone, Debug)]
struct SignatureName {
    digest: Option<Digest>,
    name: StoredName,
}

impl FromStr for SignatureName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digest, name) = match text.split_once('@') {
            Some((digest, name)) => (Some(Digest::parse(digest).map_err(|error| error.to_string())?), name),
            None => (None, text),
        };
        let name = StoredName::parse(name);
        let name = name.ok_or("expected [DIGEST@]NAME, where the name has 32 characters of A-Z a-z 0-9 _ . -")?;
        Ok(Self { digest, name })
    }
}

pub(super) fn run(command: SignaturesCommand) -> Result<ExitStatus, CliError> {
    logging::start(logging::Format::Text, "sealgate=warn")?;
    match command {
        SignaturesCommand::List(ListArguments { image, output }) => {
            let subject = image.read(Mirrors::LeftOut)?;
            let list = super::runtime::block_on(list(&subject))??;
            terminal::print(&match output {
                Format::Text => list.text(Colours::of(&io::stdout())),
                Format::Json => serde_json::to_string_pretty(&list).map_err(CliError::undecided)? + "\n",
            })?;
            Ok(list.exit())
        }
        SignaturesCommand::Remove(RemoveArguments { image, name, output }) => {
            let subject = image.read(Mirrors::LeftOut)?;
            let removed = super::runtime::block_on(remove(&subject, &name))??;
            terminal::print(&match output {
                Format::Text => removed.text(Colours::of(&io::stdout())),
                Format::Json => serde_json::to_string_pretty(&removed).map_err(CliError::undecided)? + "\n",
            })?;
            Ok(ExitStatus::Done)
        }
        SignaturesCommand::Status(command) => signature_status::run(command),
    }
}

/// The signatures that are stored for an image, and the sources that were asked.
#[derive(Debug, Serialize)]
struct SignatureList {
    image: String,
    digest: String,
    signatures: Vec<ListedSignature>,
    sources: Vec<ListedSource>,
}

/// A signature that is stored.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedSignature {
    /// The name that an endpoint lists, with the digest in front; or the file in a lookaside.
    name: String,
    /// The digest of the manifest that it is stored for.
    manifest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    /// The URL of its source.
    source: String,
    bytes: u64,
    /// The keys that the signature claims.
    issuers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    added_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    added_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<SignatureStatus>,
    #[serde(skip)]
    keeps_status: bool,
}

/// A source that was asked about one digest.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedSource {
    #[serde(flatten)]
    source: SourceReport,
    /// The source knows the verification statuses of signatures.
    keeps_status: bool,
    #[serde(skip)]
    failed: bool,
}

async fn list(subject: &ImageContext) -> Result<SignatureList, CliError> {
    let ImageContext { image, .. } = subject;
    let client = subject.client()?;
    let whole = ManifestNode::of(&client, image).await.map_err(|error| CliError::from(error).about(image))?;
    let mut list = SignatureList {
        image: image.to_string(),
        digest: whole.digest.to_string(),
        signatures: Vec::new(),
        sources: Vec::new(),
    };
    for part in whole.different() {
        for source in &client.signature_sources(image.repository()) {
            list.add(&client, subject, source, part).await;
        }
    }
    Ok(list)
}

impl SignatureList {
    /// Adds the signatures of a part from a source: the records of a store, or the list of an extension or lookaside.
    async fn add(
        &mut self,
        client: &Arc<Client>,
        subject: &ImageContext,
        source: &SignatureSource,
        part: &ManifestNode,
    ) {
        let repository = subject.image.repository();
        let (digest, deadline) = (part.digest, Instant::now() + STEP_TIMEOUT);
        let store = match StoreClient::of(client, source, repository, deadline).await {
            Ok(Some(store)) => match store.inspect(&digest, deadline).await {
                Ok(Some(listed)) => Ok(Some((store.url(&digest), listed))),
                Ok(None) => Ok(None),
                Err(error) => Err((store.url(&digest), error)),
            },
            // The request that follows reports the problem with the source.
            Ok(None) | Err(_) => Ok(None),
        };
        match store {
            Ok(Some((url, listed))) => {
                let asked = AskedSource { url: Arc::from(&*url), outcome: Ok(listed.len()) };
                self.sources.push(ListedSource::new(&asked, true));
                self.signatures.extend(listed.into_iter().map(|listed| ListedSignature::listed(part, &url, listed)));
            }
            Err((url, error)) => {
                self.sources.push(ListedSource::new(&AskedSource { url: Arc::from(&*url), outcome: Err(error) }, true));
            }
            Ok(None) => {
                let found = found_at(client, source, repository, digest).await;
                self.sources.extend(found.asked.iter().map(|asked| ListedSource::new(asked, false)));
                self.signatures.extend(found.signatures.iter().map(|found| ListedSignature::found(part, found)));
            }
        }
    }

    /// Returns `Undecided` if a source could not be asked, since it may have more signatures.
    fn exit(&self) -> ExitStatus {
        if self.sources.iter().any(|place| place.failed) { ExitStatus::Undecided } else { ExitStatus::Done }
    }

    fn text(&self, colours: Colours) -> String {
        let quiet = |label: &str| colours.paint(Tone::Quiet, format_args!("{label:<10}"));
        let mut text = format!("{}\n  {} {}\n", self.image, quiet("digest"), self.digest);
        let mut manifest = &self.digest;
        let mut rows: Vec<[String; 5]> = Vec::new();
        let mut entries = self.signatures.iter().peekable();
        while let Some(entry) = entries.next() {
            rows.push(entry.row());
            if entries.peek().is_none_or(|next| next.manifest != entry.manifest) {
                if *manifest != entry.manifest {
                    let platform = entry.platform.as_deref().map(|platform| format!(" ({})", plain(platform)));
                    let platform = platform.unwrap_or_default();
                    let _ = writeln!(text, "  {} {}{platform}", quiet("manifest"), entry.manifest);
                    manifest = &entry.manifest;
                }
                text.push_str(&table(&rows, colours));
                rows.clear();
            }
        }
        for ListedSource { source, keeps_status, failed } in &self.sources {
            let note = if *keeps_status || *failed { "" } else { " (who verified them is not kept there)" };
            let _ = writeln!(text, "  {} {}{note}", quiet("asked"), source.text(colours));
        }
        text
    }
}

/// Formats rows as a table with columns of the width of their content.
fn table(rows: &[[String; 5]], colours: Colours) -> String {
    let head = ["NAME", "CLAIMED KEY", "ADDED", "BYTES", "VERIFIED"];
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or_default()
    };
    let line = |cells: [&str; 5]| {
        let mut line = String::from("   ");
        for (column, cell) in cells.into_iter().enumerate() {
            let _ = write!(line, " {cell:<width$} ", width = width(column));
        }
        line.trim_end().to_owned()
    };
    let mut text = colours.paint(Tone::Quiet, line(head)) + "\n";
    for row in rows {
        text.push_str(&line(row.each_ref().map(String::as_str)));
        text.push('\n');
    }
    text
}

impl ListedSignature {
    fn listed(part: &ManifestNode, url: &str, listed: StoredSignatureInfo) -> Self {
        let StoredSignatureInfo { name, bytes, added_by, added_at, issuers, status } = listed;
        Self {
            name,
            manifest: part.digest.to_string(),
            platform: part.platform.clone(),
            source: url.to_owned(),
            bytes,
            issuers,
            added_by,
            added_at,
            status,
            keeps_status: true,
        }
    }

    fn found(part: &ManifestNode, found: &UntrustedSignature) -> Self {
        let UntrustedSignature { content, source, number: _ } = found;
        let (url, name) = match source.rsplit_once('#') {
            Some((url, name)) => (url, name),
            None => source.rsplit_once('/').unwrap_or(("", source)),
        };
        let issuers = claim(content).map(|claim| claim.issuers).unwrap_or_default();
        Self {
            name: name.to_owned(),
            manifest: part.digest.to_string(),
            platform: part.platform.clone(),
            source: url.to_owned(),
            bytes: content.len() as u64,
            issuers: issuers.into_iter().map(|issuer| issuer.0.into()).collect(),
            added_by: None,
            added_at: None,
            status: None,
            keeps_status: false,
        }
    }

    fn row(&self) -> [String; 5] {
        let Self { name, bytes, issuers, added_by, added_at, status, keeps_status, .. } = self;
        let name = name.rsplit_once('@').map_or(name.as_str(), |(_, name)| name);
        let added = match (added_at.map(seconds), added_by) {
            (Some(at), Some(by)) => format!("{at} by {by}"),
            (Some(at), None) => at.to_string(),
            (None, _) => "-".to_owned(),
        };
        let verified = match status {
            Some(SignatureStatus { verified_by, verified_at, finding }) => {
                let by = verified_by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
                let signer = finding.signer.as_ref().map(|signer| format!(" ({signer})")).unwrap_or_default();
                let at = seconds(*verified_at);
                format!("{at}{by} with 0x{}{signer} as {}", finding.key, finding.identity)
            }
            None if *keeps_status => "no".to_owned(),
            None => "not known".to_owned(),
        };
        let key = issuers.first().map_or_else(|| "-".to_owned(), |key| format!("0x{key}"));
        // All cells contain text from outside.
        [name.to_owned(), key, added, bytes.to_string(), verified].map(|cell| plain(&cell))
    }
}

/// Returns a time without fractions of a second, for tables.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

impl ListedSource {
    fn new(asked: &AskedSource, keeps_status: bool) -> Self {
        Self { source: asked.into(), keeps_status, failed: asked.outcome.is_err() }
    }
}

/// A signature that was removed.
#[derive(Debug, Serialize)]
struct RemovedSignature {
    image: String,
    /// The name with the digest in front.
    name: String,
    source: String,
}

impl RemovedSignature {
    fn text(&self, colours: Colours) -> String {
        let Self { image, name, source } = self;
        let line = |label: &str, value: &str| {
            format!("  {} {}\n", colours.paint(Tone::Quiet, format_args!("{label:<10}")), plain(value))
        };
        let head = format!("{} {image}\n", colours.paint(Tone::Good, "removed"));
        head + &line("signature", name) + &line("store", source)
    }
}

async fn remove(
    subject: &ImageContext,
    SignatureName { digest, name }: &SignatureName,
) -> Result<RemovedSignature, CliError> {
    let ImageContext { image, .. } = subject;
    let client = subject.client()?;
    let digest = if let Some(digest) = digest {
        *digest
    } else {
        let resolved = client.resolve(image, Instant::now() + STEP_TIMEOUT).await;
        resolved.map_err(|error| CliError::from(error).about(image))?.digest()
    };
    let full = format!("{digest}@{}", name.as_str());
    let mut asked = Vec::new();
    for source in &client.signature_sources(image.repository()) {
        let store = StoreClient::of(&client, source, image.repository(), Instant::now() + STEP_TIMEOUT).await;
        let Some(store) = store.map_err(|error| CliError::from(error).about(image))? else { continue };
        let removed = store.remove(&digest, name, Instant::now() + STEP_TIMEOUT).await;
        let url = store.url(&digest);
        if removed.map_err(|error| CliError::from(error).about(image))? {
            return Ok(RemovedSignature { image: image.to_string(), name: full, source: url.into() });
        }
        asked.push(url);
    }
    Err(CliError::refused(if asked.is_empty() {
        format!("{image}: its signatures are in no store; what lies in a lookaside folder is removed there, as a file")
    } else {
        format!("{image}: there is no signature {full} at {}", asked.join(" or "))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature_sources::store_client::AuditFinding;

    fn entry(name: &str, status: Option<SignatureStatus>) -> ListedSignature {
        let digest = Digest::sha256(b"image");
        ListedSignature {
            name: format!("{digest}@{name}"),
            manifest: digest.to_string(),
            platform: None,
            source: "https://store.example.com".to_owned(),
            bytes: 312,
            issuers: vec!["81A2B3C4".to_owned()],
            added_by: Some("ro\u{1b}[2Jbot".to_owned()),
            added_at: Some("2026-05-01T00:00:00.123456789Z".parse().unwrap()),
            status,
            keeps_status: true,
        }
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_has_no_control_characters_of_others() {
        let finding = AuditFinding {
            key: "81A2B3C4".to_owned(),
            signer: Some("Release".to_owned()),
            identity: "registry.example.com/acme/web:1".to_owned(),
            digest: Digest::sha256(b"image").to_string(),
        };
        let verified_at = "2026-05-02T00:00:00.9Z".parse().unwrap();
        let status = SignatureStatus { verified_by: Some("jane".to_owned()), verified_at, finding };
        let rows = [entry("short", None).row(), entry("a-longer-name", Some(status)).row()];
        assert_eq!(
            table(&rows, Colours::OFF),
            "    NAME           CLAIMED KEY  ADDED                              BYTES  VERIFIED\n\
             \u{20}   short          0x81A2B3C4   2026-05-01T00:00:00Z by ro\u{fffd}[2Jbot  312    no\n\
             \u{20}   a-longer-name  0x81A2B3C4   2026-05-01T00:00:00Z by ro\u{fffd}[2Jbot  312    2026-05-02T00:00:00Z by jane with 0x81A2B3C4 (Release) as registry.example.com/acme/web:1\n"
        );
    }

    #[test]
    fn a_name_is_given_with_the_digest_or_without() {
        let (digest, name) = (Digest::sha256(b"image"), "0".repeat(32));
        assert_eq!(name.parse::<SignatureName>().unwrap().digest, None);
        assert_eq!(format!("{digest}@{name}").parse::<SignatureName>().unwrap().digest, Some(digest));
        for text in ["", "x", "sha256:00@x", &format!("{digest}@"), &format!("latest@{name}"), &"/".repeat(32)] {
            assert!(text.parse::<SignatureName>().is_err(), "{text}");
        }
    }
}
