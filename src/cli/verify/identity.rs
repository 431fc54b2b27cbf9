//! `sealgate verify --expected-identity`: each signature of an image against an identity and keys that are given, as
//! `oc adm verify-image-signature` did, and the outcome kept in the store.

use std::{collections::HashMap, fmt::Write as _, fs, io, io::Read as _, num::NonZeroUsize, path::PathBuf, sync::Arc};

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::identity_report::{IdentityReport, SavedStatus};
use crate::cli::arguments::Format;
use crate::cli::exit_status::{CliError, ExitStatus};
use crate::cli::image_arguments::{self, ImageArguments, ImageContext, Mirrors, RegistryOverride};
use crate::cli::image_tree::{IndexNode, ManifestNode, STEP_TIMEOUT, found_at};
use crate::cli::terminal::{self, Colours, Tone, plain};
use crate::configuration::SignatureSource;
use crate::image::{Descriptor, Digest, Reference, walk::runnable};
use crate::policy::{Identity, Platforms, Requirement, Requirements, RuleId, Signer};
use crate::refusal::{Refusal, refusal_of_index};
use crate::registry::Client;
use crate::signature::{Certificate, Fingerprint, Keyring, Keys, keyring::LARGEST_KEYRING};
use crate::signature_sources::store_client::{Finding, Name, Outcome, Store};
use crate::signing::{self, Gnupg, KeyError, user_id};
use crate::verification::{
    Examination, ExaminedSignature, FoundSignatures, Question, VerifiedImage, examine_all, verify_each,
};

/// The longest user ID that a store keeps, in bytes.
const MAX_SIGNER_BYTES: usize = 512;

/// The second way to verify: without a policy.
#[derive(Args, Debug)]
#[command(next_help_heading = "Against an identity, without a policy")]
pub(in crate::cli) struct IdentityArguments {
    /// The name that signatures must be for, to the letter. Every signature is looked at and printed
    #[arg(long, value_name = "REFERENCE")]
    expected_identity: Option<String>,
    /// A file with public keys that may have signed; may be repeated. Left out: all of GnuPG's keyring ($GNUPGHOME, or
    /// ~/.gnupg)
    #[arg(long, value_name = "FILE", requires = "expected_identity", conflicts_with = "policy")]
    public_key: Vec<PathBuf>,
    /// Keep the outcome in the store: who verified each good signature, when, and with which key. Of one that is not good, it
    /// is unset
    #[arg(long, requires = "expected_identity", conflicts_with = "policy")]
    save: bool,
    /// Verify nothing, and clear the status of all signatures of the image in the store
    #[arg(long, conflicts_with_all = ["expected_identity", "public_key", "save"])]
    remove_all: bool,
    /// Where the registry is really asked, in place of the host in the image's name
    #[arg(long, value_name = "URL", conflicts_with = "policy")]
    registry_url: Option<RegistryOverride>,
    /// The same as --tls-verify=false
    #[arg(long, conflicts_with_all = ["policy", "tls_verify"])]
    insecure: bool,
}

impl IdentityArguments {
    /// Whether this way is taken, and not that of a policy.
    pub(super) fn is_taken(&self) -> bool {
        self.expected_identity.is_some() || self.remove_all
    }

    /// Refuses what only this way has, where it is not taken.
    pub(super) fn must_be_unused(&self) -> Result<(), CliError> {
        let flag = match self {
            Self { registry_url: Some(_), .. } => "--registry-url",
            Self { insecure: true, .. } => "--insecure",
            _ => return Ok(()),
        };
        Err(CliError::usage(format_args!(
            "{flag} goes with --expected-identity or --remove-all; a policy is about the image by its own name"
        )))
    }

    pub(super) fn run(&self, image: &ImageArguments, output: Format) -> Result<ExitStatus, CliError> {
        let Self { expected_identity, public_key, save, remove_all: _, registry_url, insecure } = self;
        let named = image.named()?;
        let subject = image.read_at(registry_url.as_ref(), *insecure, Mirrors::LeftOut)?;
        let Some(identity) = expected_identity else {
            return crate::cli::block_on(clear(&named, &subject, output))?;
        };
        let identity = image_arguments::reference(identity).map_err(|failure| failure.about("--expected-identity"))?;
        let keys = if public_key.is_empty() { keyring()? } else { key_files(public_key)? };
        let ask = IdentityCheck { identity, keys, save: *save };
        crate::cli::block_on(async {
            let (report, failure) = audit(&named, &subject, ask).await?;
            terminal::print(&match output {
                Format::Text => report.text(Colours::of(&io::stdout())),
                Format::Json => serde_json::to_string_pretty(&report).map_err(CliError::undecided)? + "\n",
            })?;
            match failure {
                Some(failure) => Err(failure),
                None => Ok(report.status),
            }
        })?
    }
}

/// Keys that may have signed.
pub(super) struct CandidateKeys {
    /// Where they are from, for people.
    pub(super) from: String,
    certificates: Vec<Arc<Certificate>>,
}

fn key_files(files: &[PathBuf]) -> Result<CandidateKeys, CliError> {
    let mut keyring = Keyring::default();
    for file in files {
        let bad = |why: &dyn std::fmt::Display| CliError::usage(format_args!("--public-key {}: {why}", file.display()));
        let mut bytes = Vec::new();
        let limit = LARGEST_KEYRING as u64 + 1;
        fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(|error| bad(&error))?;
        keyring.add(&bytes).map_err(|error| bad(&error))?;
    }
    let from = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    let found = keyring.finish().map_err(|error| CliError::usage(format_args!("--public-key {from}: {error}")))?;
    let Keys { certificates, notices } = found;
    for notice in notices {
        tracing::warn!("--public-key {from}: {notice}");
    }
    Ok(CandidateKeys { from, certificates: certificates.into_iter().map(Arc::new).collect() })
}

/// The keys of GnuPG.
fn keyring() -> Result<CandidateKeys, CliError> {
    let none = |why: &dyn std::fmt::Display| {
        CliError::usage(format_args!("{why}: name the signers' public keys with --public-key, or import them with gpg"))
    };
    let home = signing::home().ok_or_else(|| none(&"there is no home folder, and GNUPGHOME is not set"))?;
    if !home.is_dir() {
        return Err(none(&format_args!("there is no GnuPG folder {}", home.display())));
    }
    let from = format!("the keyring in {}", home.display());
    let certificates = Gnupg::at(home)?.certificates().map_err(|error| match error {
        KeyError::Keyboxd(file) => CliError::usage(format_args!(
            "{}: use-keyboxd keeps the keys where only GnuPG reads them: gpg --export KEY > FILE, and name it with --public-key",
            file.display()
        )),
        error => error.into(),
    })?;
    if certificates.is_empty() {
        return Err(none(&format_args!("{from} has no key")));
    }
    Ok(CandidateKeys { from, certificates: certificates.into_iter().map(Arc::new).collect() })
}

/// What is asked of each signature.
pub(super) struct IdentityCheck {
    pub(super) identity: Reference,
    pub(super) keys: CandidateKeys,
    save: bool,
}

/// A part of the image, with its signatures and what they are.
pub(super) struct ExaminedManifest<'a> {
    pub(super) part: &'a ManifestNode,
    pub(super) found: CollectedSignatures,
    pub(super) examination: Examination,
}

/// The signatures of one digest, all sources in one row.
#[derive(Default)]
pub(super) struct CollectedSignatures {
    pub(super) all: FoundSignatures,
    /// Of each signature, the source (by its number).
    sources: Vec<usize>,
}

async fn audit(
    named: &Reference,
    subject: &ImageContext,
    ask: IdentityCheck,
) -> Result<(IdentityReport, Option<CliError>), CliError> {
    let client = subject.client()?;
    let repository = subject.image.repository();
    let sources = client.signature_sources(repository);
    if ask.save && sources.iter().all(|source| matches!(source, SignatureSource::Lookaside(_))) {
        return Err(CliError::usage(
            "--save: this image's signatures are looked for in lookasides alone, which keep no status",
        ));
    }
    let signer = Signer { name: "signer".into(), certificates: ask.keys.certificates.clone() };
    let requirement = Requirement {
        signed_by: vec![Arc::new(signer)],
        threshold: NonZeroUsize::MIN,
        identity: Identity::ExactReference(ask.identity.clone()),
        max_age: None,
    };
    let requirements = Arc::new(Requirements { all: vec![requirement], platforms: Platforms::default() });
    let inquiry =
        IdentityQuestion { image: named.clone(), rule: RuleId::new("verify", "--expected-identity"), requirements };

    let whole = ManifestNode::of(&client, &subject.image).await.map_err(|error| CliError::from(error).about(named))?;
    let mut parts = Vec::new();
    for part in whole.different() {
        let mut found = CollectedSignatures::default();
        for (number, source) in sources.iter().enumerate() {
            let at = found_at(&client, source, repository, part.digest).await;
            found.sources.extend(at.signatures.iter().map(|_| number));
            found.all.signatures.extend_from_slice(&at.signatures);
            found.all.asked.extend_from_slice(&at.asked);
        }
        let (inquiry, digest, all) = (inquiry.clone(), part.digest, found.all.clone());
        // Arithmetic, however much there is of it.
        let examination =
            tokio::task::spawn_blocking(move || inquiry.ask(digest, |question| examine_all(question, &all)));
        let mut examination = examination.await.map_err(CliError::undecided)?;
        examination.signatures.sort_by_key(|examined| examined.place);
        parts.push(ExaminedManifest { part, found, examination });
    }

    let results: HashMap<Digest, _> =
        parts.iter().map(|one| (one.part.digest, one.examination.result.clone())).collect();
    let result = inquiry.verdict(&whole, &results);
    let mut report = IdentityReport::new(named, &ask, &parts, &result);
    let failure = if ask.save { save(&client, subject, &sources, &parts, &ask, &mut report).await.err() } else { None };
    Ok((report, failure))
}

/// What is asked, with all that it takes to ask it of another digest.
#[derive(Clone)]
struct IdentityQuestion {
    image: Reference,
    rule: RuleId,
    requirements: Arc<Requirements>,
}

impl IdentityQuestion {
    fn ask<T>(&self, digest: Digest, ask: impl FnOnce(&Question<'_>) -> T) -> T {
        let Self { image, rule, requirements } = self;
        let now = Timestamp::now();
        ask(&Question { image, digest, rule, requirements, now, tries: usize::MAX })
    }

    /// What holds of the image: that its own signatures prove it, or those of each manifest in it.
    fn verdict(
        &self,
        part: &ManifestNode,
        results: &HashMap<Digest, Result<VerifiedImage, Refusal>>,
    ) -> Result<VerifiedImage, Refusal> {
        let inside = part.index.as_ref().map_err(|error| Refusal::from(error.clone()))?;
        let unasked = || Err(Refusal::DeniedByPolicy { rule: self.rule.clone(), reason: "it was not examined".into() });
        let own = results.get(&part.digest).cloned().unwrap_or_else(&unasked);
        let (own, IndexNode { manifest, parts }) = match (own, inside) {
            (Err(own), Some(index)) => (own, index),
            (own, _) => return own,
        };
        let proof = |entry: &Descriptor| {
            let part = parts.iter().find(|part| part.digest == entry.digest);
            part.map_or_else(&unasked, |part| self.verdict(part, results))
                .map_err(|refusal| refusal.of_entry(entry.digest))
        };
        let proofs: Vec<_> = runnable(manifest.entries()).map(proof).collect();
        self.ask(part.digest, |question| verify_each(question, manifest, &proofs))
            .map_err(|each| refusal_of_index(own, each, proofs.iter().any(Result::is_ok)))
    }
}

/// Writes down in the store what each signature is worth.
async fn save(
    client: &Client,
    subject: &ImageContext,
    sources: &[SignatureSource],
    parts: &[ExaminedManifest<'_>],
    ask: &IdentityCheck,
    report: &mut IdentityReport,
) -> Result<(), CliError> {
    let repository = subject.image.repository();
    let failed = |failure: CliError, report: &IdentityReport| {
        let saved = report.signatures.iter().filter(|signature| signature.saved.is_some()).count();
        let all = report.signatures.len();
        failure.about("--save").after(format_args!("the outcome of {saved} of {all} signatures is saved"))
    };
    let mut stores: Vec<Option<Store<'_>>> = Vec::new();
    for source in sources {
        let store = Store::of(client, source, repository, Instant::now() + STEP_TIMEOUT).await;
        stores.push(store.map_err(|error| failed(error.into(), report))?);
    }
    let mut number = 0;
    for ExaminedManifest { part, found, examination } in parts {
        let digest = part.digest;
        for examined in &examination.signatures {
            number += 1;
            let source = found.sources.get(examined.place).and_then(|source| stores.get(*source));
            let name = Name::of_source(&examined.source, &digest);
            let signature = found.all.signatures.get(examined.place);
            let (Some(Some(store)), Some(name), Some(signature)) = (source, name, signature) else { continue };
            let (deadline, finding) = (Instant::now() + STEP_TIMEOUT, finding(examined, ask));
            let signature = (&name, &*signature.content);
            let done = match &finding {
                Some(finding) => store.set_status(&digest, signature, finding, deadline).await,
                None => store.unset_status(&digest, signature, deadline).await,
            };
            let saved = match (done.map_err(|error| failed(error.into(), report))?, finding) {
                (Outcome::Done, Some(_)) => SavedStatus::Set,
                (Outcome::Done, None) => SavedStatus::Unset,
                (Outcome::Gone, _) => SavedStatus::Gone,
                (Outcome::Changed, _) => SavedStatus::Changed,
            };
            report.signatures[number - 1].saved = Some(saved);
        }
    }
    let changed = report.signatures.iter().filter(|signature| signature.saved == Some(SavedStatus::Changed)).count();
    if changed > 0 {
        return Err(CliError::undecided(format_args!(
            "--save: {changed} of the signatures were replaced while they were looked at: verify again"
        )));
    }
    Ok(())
}

/// What an auditor writes down of a signature that counts.
fn finding(examined: &ExaminedSignature, ask: &IdentityCheck) -> Option<Finding> {
    let ExaminedSignature {
        outcome: Ok(()),
        certificate: Some(key),
        identity: Some(identity),
        digest: Some(digest),
        ..
    } = examined
    else {
        return None;
    };
    let signer = ask.keys.user_id(key).filter(|signer| signer.len() <= MAX_SIGNER_BYTES && *signer == plain(signer));
    Some(Finding { key: key.0.to_string(), signer, identity: identity.to_string(), digest: digest.to_string() })
}

impl CandidateKeys {
    pub(super) fn user_id(&self, key: &Fingerprint) -> Option<String> {
        self.certificates.iter().find(|certificate| certificate.fingerprint() == *key).and_then(|one| user_id(one))
    }
}

/// Clears the status of all signatures of the image, and of each manifest in it.
async fn clear(named: &Reference, subject: &ImageContext, output: Format) -> Result<ExitStatus, CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Cleared {
        image: String,
        digest: String,
        /// Each place where there is no status any more.
        places: Vec<String>,
    }
    let client = subject.client()?;
    let repository = subject.image.repository();
    let failed = |failure: CliError| failure.about("--remove-all");
    let whole = ManifestNode::of(&client, &subject.image).await.map_err(|error| CliError::from(error).about(named))?;
    let mut report = Cleared { image: named.to_string(), digest: whole.digest.to_string(), places: Vec::new() };
    for source in &client.signature_sources(repository) {
        let store = Store::of(&client, source, repository, Instant::now() + STEP_TIMEOUT).await;
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
            "{named}: --remove-all: this image's signatures are in no store, and nothing else keeps their status"
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
