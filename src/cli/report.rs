//! The report of `sealgate verify`. docs/command-line.md describes its JSON form, whose members keep their meaning.

use std::fmt::Write as _;

use serde::Serialize;

use super::exit_status::ExitStatus;
use super::terminal::{Colours, Tone, plain};
use crate::gate::{Decision, Verdict};
use crate::policy::RuleId;
use crate::refusal::Refusal;
use crate::verification::{AskedSource, ExaminedSignature, VerifiedImage};

/// The report about one image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VerifyReport {
    image: String,
    allowed: bool,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_step: Option<String>,
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<RuleName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<ReportedKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exemption: Option<ReportedExemption>,
    signatures: Vec<ReportedSignature>,
    sources: Vec<SourceReport>,
    #[serde(skip)]
    status: ExitStatus,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct RuleName(String);

/// A key whose signature counted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportedKey {
    signer: String,
    fingerprint: String,
    signed_at: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportedExemption {
    name: String,
    until: String,
    approved_by: String,
    reason: String,
}

/// A signature that was checked.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportedSignature {
    source: String,
    counts: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

/// A signature source that was asked.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SourceReport {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    signatures: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl VerifyReport {
    /// Makes the report of a decision. `image` is the canonical reference.
    pub(super) fn new(image: &str, decision: &Decision) -> Self {
        let Decision { verdict, image: _, rule, mode, pinned, examinations } = decision;
        let refusal = match verdict {
            Ok(verdict) => verdict.refusal(),
            Err(refusal) => Some(refusal),
        };
        let (status, label) = match verdict {
            // A refusal that the mode does not enforce is a refusal here.
            Ok(Verdict::NotEnforced { refusal, .. }) => (of_refusal(refusal), "not_enforced"),
            Ok(verdict) => (ExitStatus::Done, verdict.label()),
            Err(refusal) => {
                let status = of_refusal(refusal);
                (status, if status == ExitStatus::Undecided { "undecided" } else { "refused" })
            }
        };
        let verified = examinations.iter().find_map(|examination| examination.result.as_ref().ok());
        let verified = match verdict {
            Ok(Verdict::Verified(image)) => Some(image),
            _ => verified,
        };
        let digest = match verdict {
            Ok(Verdict::NotEnforced { digest, .. }) => *digest,
            _ => verified.map(VerifiedImage::digest),
        };
        let mut keys: Vec<ReportedKey> = Vec::new();
        for key in verified.into_iter().flat_map(VerifiedImage::keys) {
            keys.push(ReportedKey {
                signer: key.signer.to_string(),
                fingerprint: key.fingerprint.0.to_string(),
                signed_at: key.signed_at.to_string(),
            });
        }
        Self {
            image: image.to_owned(),
            allowed: status == ExitStatus::Done,
            verdict: label,
            code: refusal.map(|refusal| refusal.code().as_str()),
            message: match verdict {
                Ok(Verdict::AllowedByRule { reason, .. }) => Some(reason.to_string()),
                _ => refusal.map(ToString::to_string),
            },
            next_step: refusal.map(|refusal| refusal.next_step(image)),
            mode: mode.as_str(),
            rule: rule.as_ref().map(RuleName::from),
            digest: digest.map(|digest| digest.to_string()),
            pinned: pinned.as_ref().map(ToString::to_string),
            keys,
            valid_until: verified.and_then(VerifiedImage::valid_until).map(|time| time.to_string()),
            exemption: match verdict {
                Ok(Verdict::Exempted { exemption, .. }) => Some(ReportedExemption {
                    name: exemption.id.to_string(),
                    until: exemption.until.to_string(),
                    approved_by: exemption.approved_by.to_string(),
                    reason: exemption.reason.to_string(),
                }),
                _ => None,
            },
            signatures: examinations
                .iter()
                .flat_map(|examination| &examination.signatures)
                .map(ReportedSignature::from)
                .collect(),
            sources: examinations.iter().flat_map(|examination| &examination.asked).map(SourceReport::from).collect(),
            status,
        }
    }

    /// Returns the exit status.
    pub(super) fn status(&self) -> ExitStatus {
        self.status
    }

    /// Formats the report as one JSON object.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// Formats the report for a terminal: the verdict in the first line, then its reasons.
    pub(super) fn text(&self, colours: Colours) -> String {
        let mut text = String::new();
        self.write(&mut text, colours).expect("a string takes any text");
        text
    }

    fn write(&self, text: &mut String, colours: Colours) -> std::fmt::Result {
        let (tone, answer) = match (self.status, self.verdict) {
            (ExitStatus::Done, "verified") => (Tone::Good, "verified"),
            (ExitStatus::Done, "exempted") => (Tone::Unsure, "exempted"),
            (ExitStatus::Done, _) => (Tone::Good, "allowed"),
            (ExitStatus::Refused, _) => (Tone::Bad, "refused"),
            _ => (Tone::Unsure, "undecided"),
        };
        write!(text, "{} {}", colours.paint(tone, answer), self.image)?;
        if let Some(code) = self.code {
            write!(text, " {}", colours.paint(tone, format_args!("[{code}]")))?;
        }
        writeln!(text)?;
        let mut line = |label: &str, value: &str| {
            writeln!(text, "  {} {value}", colours.paint(Tone::Quiet, format_args!("{label:<10}")))
        };
        if let Some(message) = &self.message {
            line("why", message)?;
        }
        if self.verdict == "not_enforced" {
            line("mode", &format!("{}: the gate would let it run all the same", self.mode))?;
        }
        if let Some(ReportedExemption { name, until, approved_by, reason }) = &self.exemption {
            line("exemption", &format!("{name}, until {until}, approved by {approved_by}: {reason}"))?;
        }
        if let Some(rule) = &self.rule {
            line("rule", &rule.0)?;
        }
        if let Some(digest) = &self.digest {
            line("digest", digest)?;
        }
        for ReportedKey { signer, fingerprint, signed_at } in &self.keys {
            line("key", &format!("{signer} 0x{fingerprint}, signed {signed_at}"))?;
        }
        if let Some(time) = &self.valid_until {
            line("until", time)?;
        }
        if let Some(pinned) = &self.pinned {
            line("runs as", pinned)?;
        }
        // For a verified image, the keys above suffice; otherwise every signature and source matters.
        if self.verdict != "verified" {
            for signature in &self.signatures {
                line("signature", &signature.text(colours))?;
            }
            for source in &self.sources {
                line("asked", &source.text(colours))?;
            }
        }
        if let Some(step) = &self.next_step {
            line("next", step)?;
        }
        Ok(())
    }
}

impl ReportedSignature {
    fn text(&self, colours: Colours) -> String {
        let Self { source, counts, code, message, key, signer, signed_at, identity, digest } = self;
        let mut text = plain(source);
        let details = [
            key.as_ref().map(|key| format!("key 0x{key}")),
            signer.as_ref().map(|signer| format!("of {signer}")),
            signed_at.as_ref().map(|time| format!("signed {time}")),
            identity.as_ref().map(|identity| format!("for {identity}")),
            digest.as_ref().map(|digest| format!("at {digest}")),
        ];
        for detail in details.into_iter().flatten() {
            text.push_str("\n             ");
            text.push_str(&detail);
        }
        let outcome = match (counts, code, message) {
            (false, Some(code), Some(message)) => {
                colours.paint(Tone::Bad, format_args!("does not count [{code}]: {message}"))
            }
            _ => colours.paint(Tone::Good, "counts"),
        };
        text + "\n             " + &outcome
    }
}

impl SourceReport {
    pub(super) fn text(&self, colours: Colours) -> String {
        let url = plain(&self.url);
        match (&self.signatures, &self.message) {
            (Some(1), _) => format!("{url}: 1 signature"),
            (Some(count), _) => format!("{url}: {count} signatures"),
            (None, message) => {
                let message = message.as_deref().unwrap_or_default();
                format!("{url}: {}", colours.paint(Tone::Bad, message))
            }
        }
    }
}

/// Returns the exit status of a refusal: refused, or undecided if too little is known.
pub(super) fn of_refusal(refusal: &Refusal) -> ExitStatus {
    if refusal.code().is_undecided() { ExitStatus::Undecided } else { ExitStatus::Refused }
}

impl From<&RuleId> for RuleName {
    fn from(rule: &RuleId) -> Self {
        Self(rule.to_string())
    }
}

impl From<&ExaminedSignature> for ReportedSignature {
    fn from(examined: &ExaminedSignature) -> Self {
        let ExaminedSignature { place: _, source, key, certificate: _, signer, signed_at, identity, digest, outcome } =
            examined;
        let refusal = outcome.as_ref().err();
        Self {
            source: source.to_string(),
            counts: outcome.is_ok(),
            code: refusal.map(|refusal| refusal.code().as_str()),
            message: refusal.map(ToString::to_string),
            key: key.as_ref().map(|key| key.0.to_string()),
            signer: signer.as_ref().map(ToString::to_string),
            signed_at: signed_at.map(|time| time.to_string()),
            identity: identity.as_ref().map(ToString::to_string),
            digest: digest.map(|digest| digest.to_string()),
        }
    }
}

impl From<&AskedSource> for SourceReport {
    fn from(asked: &AskedSource) -> Self {
        let AskedSource { url, outcome } = asked;
        let error = outcome.as_ref().err();
        Self {
            url: url.to_string(),
            signatures: outcome.as_ref().ok().copied(),
            code: error.map(|error| error.code().as_str()),
            message: error.map(ToString::to_string),
        }
    }
}
