//! `sealgate verify --expected-identity`: checks each signature of an image against an identity and keys, as
//! `oc adm verify-image-signature` did, and saves the outcome in the store.

use std::{collections::HashMap, io, num::NonZeroUsize, path::PathBuf, sync::Arc};

use clap::Args;
use jiff::Timestamp;
use tokio::time::Instant;

use super::candidate_keys::{key_files, keyring};
use super::identity_check::{CollectedSignatures, ExaminedManifest, IdentityCheck};
use super::identity_report::{IdentityReport, SavedStatus};
use crate::cli::arguments::Format;
use crate::cli::exit_status::{CliError, ExitStatus};
use crate::cli::image_arguments::{self, ImageArguments, ImageContext, Mirrors, RegistryOverride};
use crate::cli::image_tree::{IndexNode, ManifestNode, STEP_TIMEOUT, found_at};
use crate::cli::runtime::block_on;
use crate::cli::signature_status;
use crate::cli::terminal::{self, Colours, plain};
use crate::configuration::SignatureSource;
use crate::image::{Descriptor, Digest, Reference, walk::runnable};
use crate::policy::{Identity, Platforms, Requirement, Requirements, RuleId, Signer};
use crate::refusal::{Refusal, refusal_of_index};
use crate::registry::Client;
use crate::signature_sources::store_client::{AuditFinding, ChangeOutcome, StoreClient, StoredName};
use crate::verification::{ExaminedSignature, Question, VerifiedImage, examine_all, verify_each};

/// The maximum length of a user ID in a store, in bytes.
const MAX_SIGNER_BYTES: usize = 512;

/// The arguments of a check without a policy.
#[derive(Args, Debug)]
#[command(next_help_heading = "Against an identity, without a policy")]
pub(super) struct IdentityArguments {
    /// The exact name that signatures must be for. Every signature is checked and printed
    #[arg(long, value_name = "REFERENCE")]
    expected_identity: Option<String>,
    /// A file with trusted public keys; may be repeated. Default: all keys of GnuPG's keyring ($GNUPGHOME, or ~/.gnupg)
    #[arg(long, value_name = "FILE", requires = "expected_identity", conflicts_with = "policy")]
    public_key: Vec<PathBuf>,
    /// Save the outcome in the store: who verified each good signature, when, and with which key. The status of every
    /// other signature is cleared
    #[arg(long, requires = "expected_identity", conflicts_with = "policy")]
    save: bool,
    /// Alias of `sealgate signatures status clear`: clear the status of all signatures of the image, without a check
    #[arg(long, conflicts_with_all = ["expected_identity", "public_key", "save"])]
    remove_all: bool,
    /// The actual address of the registry, in place of the host in the image's name
    #[arg(long, value_name = "URL", conflicts_with = "policy")]
    registry_url: Option<RegistryOverride>,
    /// Alias of --tls-verify=false
    #[arg(long, conflicts_with_all = ["policy", "tls_verify"])]
    insecure: bool,
}

impl IdentityArguments {
    /// Returns whether the check is against an identity, and not against a policy.
    pub(super) fn is_taken(&self) -> bool {
        self.expected_identity.is_some() || self.remove_all
    }

    /// Refuses these arguments in a check against a policy.
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
            return block_on(signature_status::clear(&named, &subject, output))?;
        };
        let identity = image_arguments::reference(identity).map_err(|failure| failure.about("--expected-identity"))?;
        let keys = if public_key.is_empty() { keyring()? } else { key_files(public_key)? };
        let ask = IdentityCheck { identity, keys, save: *save };
        block_on(async {
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
        // Only computation, however many signatures there are.
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

/// The question about each digest of the image.
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

    /// Returns the proof of the image by its own signatures, or by those of each manifest in it.
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

/// Saves each signature's outcome in its store.
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
    let mut stores: Vec<Option<StoreClient<'_>>> = Vec::new();
    for source in sources {
        let store = StoreClient::of(client, source, repository, Instant::now() + STEP_TIMEOUT).await;
        stores.push(store.map_err(|error| failed(error.into(), report))?);
    }
    let mut number = 0;
    for ExaminedManifest { part, found, examination } in parts {
        let digest = part.digest;
        for examined in &examination.signatures {
            number += 1;
            let source = found.sources.get(examined.place).and_then(|source| stores.get(*source));
            let name = StoredName::of_source(&examined.source, &digest);
            let signature = found.all.signatures.get(examined.place);
            let (Some(Some(store)), Some(name), Some(signature)) = (source, name, signature) else { continue };
            let (deadline, finding) = (Instant::now() + STEP_TIMEOUT, finding(examined, ask));
            let signature = (&name, &*signature.content);
            let done = match &finding {
                Some(finding) => store.set_status(&digest, signature, finding, deadline).await,
                None => store.unset_status(&digest, signature, deadline).await,
            };
            let saved = match (done.map_err(|error| failed(error.into(), report))?, finding) {
                (ChangeOutcome::Done, Some(_)) => SavedStatus::Set,
                (ChangeOutcome::Done, None) => SavedStatus::Unset,
                (ChangeOutcome::Gone, _) => SavedStatus::Gone,
                (ChangeOutcome::Changed, _) => SavedStatus::Changed,
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

/// Returns the verification status to store for a signature that counts.
fn finding(examined: &ExaminedSignature, ask: &IdentityCheck) -> Option<AuditFinding> {
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
    Some(AuditFinding { key: key.0.to_string(), signer, identity: identity.to_string(), digest: digest.to_string() })
}
