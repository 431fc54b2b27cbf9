//! The report of `sealgate verify --expected-identity`. docs/command-line.md describes its JSON form, whose members
//! keep their meaning.

use std::fmt::Write as _;

use serde::Serialize;

use super::identity_check::{ExaminedManifest, IdentityCheck};
use crate::cli::exit_status::ExitStatus;
use crate::cli::report::{self, of_refusal};
use crate::cli::terminal::{Colours, Tone, plain};
use crate::image::Reference;
use crate::refusal::Refusal;
use crate::signature::{Fingerprint, claimed_payload};
use crate::verification::{AskedSource, ExaminedSignature, VerifiedImage};

/// The outcome of saving a signature's verification status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SavedStatus {
    /// The status names the auditor now.
    Set,
    /// The status is cleared.
    Unset,
    /// Another client removed the signature meanwhile.
    Gone,
    /// Another client replaced the signature meanwhile; its status is unchanged.
    Changed,
}

/// The report about one image. docs/command-line.md describes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IdentityReport {
    image: String,
    allowed: bool,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    expected_identity: String,
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<String>,
    pub(super) signatures: Vec<SignatureReport>,
    sources: Vec<report::SourceReport>,
    #[serde(skip)]
    pub(super) status: ExitStatus,
}

/// One signature.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SignatureReport {
    /// The digest of the manifest that it is stored for.
    manifest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    source: String,
    counts: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_at: Option<String>,
    /// The signed identity, or without a valid signature the claimed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// The key made the signature over this identity and digest, whether these are the expected ones or not.
    proven: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) saved: Option<SavedStatus>,
}

impl IdentityReport {
    pub(super) fn new(
        named: &Reference,
        ask: &IdentityCheck,
        parts: &[ExaminedManifest<'_>],
        result: &Result<VerifiedImage, Refusal>,
    ) -> Self {
        let (status, verdict) = match result {
            Ok(_) => (ExitStatus::Done, "verified"),
            Err(refusal) => match of_refusal(refusal) {
                ExitStatus::Undecided => (ExitStatus::Undecided, "undecided"),
                status => (status, "refused"),
            },
        };
        let refusal = result.as_ref().err();
        let signatures = parts.iter().flat_map(|part| {
            part.examination.signatures.iter().map(|examined| SignatureReport::new(part, examined, ask))
        });
        let asked = parts.iter().flat_map(|part| &part.examination.asked);
        Self {
            image: named.to_string(),
            allowed: result.is_ok(),
            verdict,
            code: refusal.map(|refusal| refusal.code().as_str()),
            message: refusal.map(|refusal| why(refusal, ask)),
            expected_identity: ask.identity.to_string(),
            digest: parts.first().map(|whole| whole.part.digest.to_string()).unwrap_or_default(),
            valid_until: result.as_ref().ok().and_then(VerifiedImage::valid_until).map(|time| time.to_string()),
            signatures: signatures.collect(),
            sources: asked.map(|asked: &AskedSource| asked.into()).collect(),
            status,
        }
    }

    pub(super) fn text(&self, colours: Colours) -> String {
        let mut text = String::new();
        let tone = match self.status {
            ExitStatus::Done => Tone::Good,
            ExitStatus::Refused => Tone::Bad,
            _ => Tone::Unsure,
        };
        let _ = write!(text, "{} {}", colours.paint(tone, self.verdict), self.image);
        if let Some(code) = self.code {
            let _ = write!(text, " {}", colours.paint(tone, format_args!("[{code}]")));
        }
        text.push('\n');
        let mut line = |label: &str, value: &str| {
            let _ = writeln!(text, "  {} {value}", colours.paint(Tone::Quiet, format_args!("{label:<10}")));
        };
        if let Some(message) = &self.message {
            line("why", &plain(message));
        }
        line("expected", &self.expected_identity);
        line("digest", &self.digest);
        if let Some(time) = &self.valid_until {
            line("until", time);
        }
        let mut manifest = &self.digest;
        for signature in &self.signatures {
            if *manifest != signature.manifest {
                manifest = &signature.manifest;
                let platform = signature.platform.as_deref().map(|platform| format!(" ({})", plain(platform)));
                line("manifest", &format!("{manifest}{}", platform.unwrap_or_default()));
            }
            line("signature", &signature.text(colours));
        }
        for source in &self.sources {
            line("asked", &source.text(colours));
        }
        text
    }
}

impl SignatureReport {
    fn new(examined_part: &ExaminedManifest<'_>, examined: &ExaminedSignature, ask: &IdentityCheck) -> Self {
        let ExaminedManifest { part, found, .. } = examined_part;
        let ExaminedSignature { place, source, key, certificate, signer: _, signed_at, identity, digest, outcome } =
            examined;
        let refusal = outcome.as_ref().err();
        let content = found.all.signatures.get(*place).map(|signature| &signature.content);
        let claimed = content.and_then(|content| claimed_payload(content).ok());
        let claimed_identity = claimed.as_ref().map(|payload| &payload.identity);
        let hex = |fingerprint: &Option<Fingerprint>| fingerprint.as_ref().map(|one| one.0.to_string());
        Self {
            manifest: part.digest.to_string(),
            platform: part.platform.clone(),
            source: source.to_string(),
            counts: outcome.is_ok(),
            code: refusal.map(|refusal| refusal.code().as_str()),
            message: refusal.map(|refusal| why(refusal, ask)),
            key: hex(key),
            certificate: hex(certificate),
            signer: certificate.as_ref().and_then(|certificate| ask.keys.user_id(certificate)),
            signed_at: signed_at.map(|time| time.to_string()),
            identity: identity.as_ref().or(claimed_identity).map(ToString::to_string),
            digest: digest.or(claimed.as_ref().map(|payload| payload.digest)).map(|digest| digest.to_string()),
            proven: identity.is_some() && digest.is_some(),
            saved: None,
        }
    }

    fn text(&self, colours: Colours) -> String {
        let Self {
            manifest: _,
            platform: _,
            source,
            counts,
            code,
            message,
            key,
            certificate,
            signer,
            signed_at,
            identity,
            digest,
            proven,
            saved,
        } = self;
        let mut text = plain(source);
        // Everything about an invalid signature is only claimed.
        let claims = if *proven { "" } else { "claims: " };
        let details = [
            signer.as_ref().map(|signer| format!("{claims}by {}", plain(signer))),
            key.as_ref().map(|key| format!("{claims}key 0x{key}")),
            certificate.as_ref().filter(|one| Some(*one) != key.as_ref()).map(|one| format!("of certificate 0x{one}")),
            signed_at.as_ref().map(|time| format!("{claims}signed {time}")),
            identity.as_ref().map(|identity| format!("{claims}for {identity}")),
            digest.as_ref().map(|digest| format!("{claims}at {digest}")),
        ];
        let outcome = match (counts, code, message) {
            (false, Some(code), Some(message)) => {
                colours.paint(Tone::Bad, format_args!("does not count [{code}]: {}", plain(message)))
            }
            _ => colours.paint(Tone::Good, "counts"),
        };
        let saved = saved.map(|saved| match saved {
            SavedStatus::Set => "status set in the store".to_owned(),
            SavedStatus::Unset => "status unset in the store".to_owned(),
            SavedStatus::Gone => "the store has not got it any more".to_owned(),
            SavedStatus::Changed => "the store has another one of this name by now; verify again".to_owned(),
        });
        for line in details.into_iter().flatten().chain([outcome]).chain(saved) {
            text.push_str("\n             ");
            text.push_str(&line);
        }
        text
    }
}

/// Describes a refusal for a user who gave keys and an identity, without mention of a rule.
fn why(refusal: &Refusal, ask: &IdentityCheck) -> String {
    match refusal {
        Refusal::Unsigned(wanted) => match &wanted.manifest {
            Some(manifest) => format!("there is no signature of the manifest {manifest}, which is in this index"),
            None => "there is no signature".to_owned(),
        },
        Refusal::UntrustedKey { .. } => format!("its key is not in {}", ask.keys.from),
        Refusal::WrongIdentity { signed, .. } => format!("it is for {signed} instead of {}", ask.identity),
        Refusal::WrongDigest { signed, .. } => format!("it is for another image, {signed}"),
        Refusal::MalformedSignature { why, .. } => format!("it is malformed: {why}"),
        Refusal::InvalidSignature { why, .. } => format!("it is not valid: {why}"),
        Refusal::ExpiredSignature { at, .. } => format!("it expired at {at}"),
        Refusal::ExpiredKey { key, at, .. } => format!("key {key} expired at {at}"),
        Refusal::RevokedKey { key, .. } => format!("key {key} is revoked"),
        Refusal::WeakAlgorithm { key, algorithm, .. } => {
            format!("key {key} or its signature uses a weak algorithm, {algorithm}")
        }
        other => other.to_string(),
    }
}
