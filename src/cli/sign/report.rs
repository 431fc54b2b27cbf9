//! The result of signing, as it is printed.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::terminal::{Colours, Tone, plain};
use crate::image::Reference;
use crate::signing::{SigningKey, plan::Plan};

/// The result of signing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct SignReport {
    image: String,
    identity: String,
    digest: String,
    /// The certificate's fingerprint.
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    pub(super) signatures: Vec<SignedManifest>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SignedManifest {
    pub(super) digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<String>,
    pub(super) outcome: SignOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SignOutcome {
    /// A signature was made and stored.
    Signed,
    /// A good one of this key, under this name, was there.
    Present,
}

impl SignReport {
    pub(super) fn new(image: &Reference, identity: &Reference, plan: &Plan, key: &SigningKey) -> Self {
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

    pub(in crate::cli) fn text(&self, colours: Colours) -> String {
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
