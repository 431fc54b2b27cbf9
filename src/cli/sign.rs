//! `sealgate sign`: signs an image that is in a registry.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;
use url::Url;

use super::arguments::{Format, ShellCommand};
use super::exit_status::{CliError, ExitStatus};
use super::image_arguments::{self, ImageArguments, ImageContext, Mirrors};
use super::terminal::{self, Colours, Tone, plain};
use crate::configuration::SignatureSource;
use crate::gate::ResolveDigest as _;
use crate::image::{Digest, Reference};
use crate::registry::Client;
use crate::signature::{Payload, compose::text};
use crate::signature_sources::{self, Destination, Written};
use crate::signing::{
    self, Gnupg, KeyError, KeyQuery, SigningKey,
    plan::{self, Plan, PlanError, Planned},
};
use crate::telemetry::logging;

/// How long one step may take: finding out what is to be signed, or writing one signature. Typing a passphrase is no step.
const STEP_TIMEOUT: Duration = Duration::from_mins(1);

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
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Which key signs.
#[derive(Args, Debug)]
#[command(next_help_heading = "Key")]
pub(super) struct KeyArguments {
    /// The key, in GnuPG's keyring ($GNUPGHOME, or ~/.gnupg): fingerprint, key ID (16 digits) or e-mail address. gpg-agent
    /// signs with it, and asks for its passphrase or card
    #[arg(long, value_name = "KEY", required_unless_present = "key_file")]
    sign_by: Option<String>,
    /// A file with the secret key, in place of GnuPG's keyring and agent
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A file with the passphrase of the key in --key-file
    #[arg(long, value_name = "FILE", requires = "key_file")]
    passphrase_file: Option<PathBuf>,
}

/// The identity to sign, and the place of the signature.
#[derive(Args, Debug)]
#[command(next_help_heading = "Signature")]
pub(super) struct SignatureArguments {
    /// The name that is signed (the identity), where it is another one than the image's
    #[arg(long, value_name = "REFERENCE")]
    sign_identity: Option<String>,
    /// Where the signature goes: `extension` (the registry's own), the URL of a store, or a lookaside folder. Left out:
    /// where the configuration looks for this image's signatures first
    #[arg(long, value_name = "extension|URL|FOLDER")]
    to: Option<String>,
    /// Of an image index, sign the index alone. Nodes verify the manifest of their platform, and then find no signature
    #[arg(long)]
    index_only: bool,
    /// Sign again where a good signature of this key is there already, for rules with `maxAge`
    #[arg(long)]
    renew: bool,
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

/// The name to sign, the place to write, and how, checked.
pub(super) struct SignatureRequest {
    pub(super) identity: Reference,
    pub(super) destination: Destination,
    /// Where it is written instead if the registry announces no extension.
    without_extension: Option<Destination>,
    /// The tag that has to name what is signed, before and after.
    tag: Option<Reference>,
    pub(super) index_only: bool,
    renew: bool,
}

impl SignatureArguments {
    /// These arguments again, but for the identity, which another image may need.
    pub(super) fn again(&self, command: &mut ShellCommand) {
        let Self { sign_identity: _, to, index_only, renew } = self;
        command.option("--to", to.as_ref());
        command.flag("--index-only", *index_only);
        command.flag("--renew", *renew);
    }

    pub(super) fn read(&self, subject: &ImageContext) -> Result<SignatureRequest, CliError> {
        let identity = match &self.sign_identity {
            Some(text) => image_arguments::reference(text)
                .map_err(|failure| CliError::usage(format_args!("--sign-identity {failure}")))?,
            None => subject.image.clone(),
        };
        let identity = plan::identity_of(&identity);
        let (destination, without_extension) = match &self.to {
            Some(text) => (destination(text)?, None),
            None => configured(subject)?,
        };
        let Self { index_only, renew, .. } = *self;
        Ok(SignatureRequest { identity, destination, without_extension, tag: None, index_only, renew })
    }
}

/// The tag whose name would be signed: of `repo:tag@digest` the digest is signed under the tag's name, so that a tag which
/// names something else has to be said with `--sign-identity`.
fn tag_of(image: &Reference, own_identity: bool) -> Option<Reference> {
    match image.digest() {
        None => Some(image.clone()),
        Some(_) if own_identity => None,
        Some(_) => image.tag().map(|tag| Reference::from_parts(image.repository().clone(), Some(tag.clone()), None)),
    }
}

impl SignatureRequest {
    /// Asks the registry whether it has an extension, if there is another place for signatures. containers/image does so, too.
    pub(super) async fn choose_destination(&mut self, client: &Client, image: &Reference) -> Result<(), CliError> {
        let Some(folder) = self.without_extension.take() else { return Ok(()) };
        let announced =
            signature_sources::is_extension_announced(client, image.repository(), Instant::now() + STEP_TIMEOUT).await;
        if !announced.map_err(|error| CliError::from(error).about(image))? {
            self.destination = folder;
        }
        Ok(())
    }

    async fn check_tag(&self, client: &Client, plan: &Plan) -> Result<(), CliError> {
        let Some(tag) = &self.tag else { return Ok(()) };
        let now = client
            .resolve(tag, Instant::now() + STEP_TIMEOUT)
            .await
            .map_err(|error| CliError::from(error).about(tag))?;
        if now.digest() == plan.digest {
            return Ok(());
        }
        Err(CliError::refused(format_args!(
            "{tag} names {} now, not {}, which was to be signed: nothing is written. Sign the tag again, or sign {} (with \
             --sign-identity {} only if it is to pass under that name)",
            now.digest(),
            plan.digest,
            by_digest(tag, plan.digest),
            self.identity,
        )))
    }
}

/// `repo@digest`: under this name no tag is claimed.
pub(super) fn by_digest(image: &Reference, digest: Digest) -> Reference {
    Reference::from_parts(image.repository().clone(), None, Some(digest))
}

fn destination(text: &str) -> Result<Destination, CliError> {
    let bad = |why: &str| CliError::usage(format_args!("--to {text}: {why}"));
    if text == "extension" {
        return Ok(Destination::RegistryExtension);
    }
    if !text.contains("://") {
        let folder = std::path::absolute(text).map_err(|error| bad(&error.to_string()))?;
        return Ok(Destination::Folder(folder));
    }
    let url: Url = text.parse().map_err(|error: url::ParseError| bad(&error.to_string()))?;
    match url.scheme() {
        "file" if url.query().is_none() && url.fragment().is_none() => {
            url.to_file_path().map(Destination::Folder).map_err(|()| bad("expected file:///FOLDER"))
        }
        "file" => Err(bad("expected file:///FOLDER without a query or fragment; %3F and %23 stand for ? and #")),
        "http" | "https" if url.query().is_some() || url.fragment().is_some() => {
            Err(bad("expected https://HOST[:PORT][/PATH] without a query or fragment"))
        }
        "http" | "https" if url.has_host() && url.username().is_empty() && url.password().is_none() => {
            Ok(Destination::Extension(url))
        }
        "http" | "https" => {
            Err(bad("expected https://HOST[:PORT] without a user name; credentials are given with --creds"))
        }
        _ => Err(bad("expected `extension`, an https:// URL, or a folder")),
    }
}

/// Where the image's signatures are looked for first, if signatures can be written there. If that is the registry's own
/// extension: also the folder where they are looked for beside it.
fn configured(subject: &ImageContext) -> Result<(Destination, Option<Destination>), CliError> {
    let folder =
        |url: &Url| (url.scheme() == "file").then(|| url.to_file_path().ok()).flatten().map(Destination::Folder);
    let entry = subject.configuration.registries.entries.get_repository(subject.image.repository());
    let Some(sources) = entry.and_then(|entry| entry.signatures.as_ref()) else {
        return Ok((Destination::RegistryExtension, None));
    };
    let mut writable = sources.iter().filter_map(|source| match source {
        SignatureSource::RegistryExtension => Some(Destination::RegistryExtension),
        SignatureSource::Extension(url) => Some(Destination::Extension(url.clone())),
        // The lookaside of registries.d comes last; it is for reading, and has another place for writing beside it.
        SignatureSource::Lookaside(_) if subject.staging.is_some() && Some(source) == sources.last() => None,
        SignatureSource::Lookaside(url) => folder(url),
    });
    let staging = subject.staging.as_ref().and_then(folder);
    let (first, second) = (writable.next(), writable.next().or_else(|| staging.clone()));
    match first.or(staging) {
        Some(Destination::RegistryExtension) => {
            let folder = second.filter(|second| matches!(second, Destination::Folder(_)));
            Ok((Destination::RegistryExtension, folder))
        }
        Some(destination) => Ok((destination, None)),
        None => Err(CliError::usage(
            "signatures of this image are looked for on web servers alone, which take none: say where they go with --to",
        )),
    }
}

impl KeyArguments {
    /// These arguments again, for another command.
    pub(super) fn again(&self, key: &SigningKey, command: &mut ShellCommand) {
        let Self { sign_by: _, key_file, passphrase_file } = self;
        command.option("--sign-by", Some(key.certificate.fingerprint()));
        command.option("--key-file", key_file.as_ref().map(|file| file.display()));
        command.option("--passphrase-file", passphrase_file.as_ref().map(|file| file.display()));
    }

    pub(super) fn query(&self) -> Result<Option<KeyQuery>, CliError> {
        Ok(self.sign_by.as_deref().map(str::parse).transpose().map_err(KeyError::from)?)
    }

    pub(super) async fn open(&self, query: Option<&KeyQuery>) -> Result<SigningKey, CliError> {
        let now = Timestamp::now();
        match (&self.key_file, query) {
            (Some(file), query) => Ok(signing::key_file(file, self.passphrase_file.as_deref(), query, now)?),
            (None, Some(query)) => {
                let home = signing::home().ok_or_else(|| CliError::usage("there is no home folder: set GNUPGHOME"))?;
                Ok(Gnupg::at(home)?.signing_key(query, now).await?)
            }
            // The arguments' own rules leave no other case.
            (None, None) => Err(CliError::usage("say which key with --sign-by or --key-file")),
        }
    }
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
    let SignatureRequest { identity, destination, without_extension: _, tag: _, index_only, renew } = signature;
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

/// The result of signing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SignReport {
    image: String,
    identity: String,
    digest: String,
    /// The certificate's fingerprint.
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    signatures: Vec<SignedManifest>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignedManifest {
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    outcome: SignOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum SignOutcome {
    /// A signature was made and stored.
    Signed,
    /// A good one of this key, under this name, was there.
    Present,
}

impl SignReport {
    fn new(image: &Reference, identity: &Reference, plan: &Plan, key: &SigningKey) -> Self {
        Self {
            image: image.to_string(),
            identity: identity.to_string(),
            digest: plan.digest.to_string(),
            key: key.certificate.fingerprint().0.to_string(),
            user_id: key.user_id.clone(),
            signatures: Vec::new(),
        }
    }

    fn written(&self) -> usize {
        self.signatures.iter().filter(|signed| signed.outcome == SignOutcome::Signed).count()
    }

    pub(super) fn text(&self, colours: Colours) -> String {
        let mut text = String::new();
        let answer = if self.written() > 0 { "signed" } else { "signed already" };
        let _ = writeln!(text, "{} {}", colours.paint(Tone::Good, answer), self.image);
        let mut line = |label: &str, value: &str| {
            let _ = writeln!(text, "  {} {value}", colours.paint(Tone::Quiet, format_args!("{label:<10}")));
        };
        line("identity", &self.identity);
        line("digest", &self.digest);
        match &self.user_id {
            Some(user_id) => line("key", &format!("0x{} {}", self.key, plain(user_id))),
            None => line("key", &format!("0x{}", self.key)),
        }
        for SignedManifest { digest, platform, outcome: _, place } in &self.signatures {
            let platform = platform.as_deref().map(|platform| format!(" ({})", plain(platform))).unwrap_or_default();
            match place {
                Some(place) => line("signature", &format!("{digest}{platform}: {}", plain(place))),
                None => line("signature", &format!("{digest}{platform}: is there already (--renew makes another)")),
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_destination_is_the_extension_a_store_or_a_folder() {
        assert_eq!(destination("extension").unwrap(), Destination::RegistryExtension);
        assert_eq!(
            destination("https://store.example.com").unwrap(),
            Destination::Extension("https://store.example.com/".parse().unwrap())
        );
        assert_eq!(destination("file:///var/lib/x").unwrap(), Destination::Folder("/var/lib/x".into()));
        assert_eq!(destination("/var/lib/x").unwrap(), Destination::Folder("/var/lib/x".into()));
        for bad in [
            "ftp://x",
            "https://user:password@x",
            "https://",
            "file://host/x",
            "https://x/?sig=1",
            "https://x/#y",
            "file:///x?y",
            "file:///x#y",
        ] {
            let failure = destination(bad).unwrap_err();
            assert_eq!(failure.status, ExitStatus::Usage, "{bad}");
        }
    }
}
