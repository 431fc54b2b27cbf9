//! The record of a signature: its origin, and the status that an auditor set.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::signature::StoredSignature;
use crate::image::Digest;

/// The origin of a signature. Signatures from before origins existed have none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The caller who added it; `None` for an anonymous one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added_by: Option<Box<str>>,
    /// The time, by the store's clock.
    pub added_at: Timestamp,
    /// The keys that the signature names as its issuers, in upper-case hexadecimal digits. **Claimed**: nothing is
    /// verified.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<Box<str>>,
}

impl Origin {
    /// Returns whether each text has a length and characters that can be shown to users.
    pub fn is_plain(&self) -> bool {
        let Self { added_by, added_at: _, issuers } = self;
        added_by.iter().chain(issuers).all(|text| is_plain(text))
    }

    /// Returns the signer whose share of an image's signatures this one takes: the user who added it, or else the key
    /// that it names.
    pub fn signer(&self) -> Option<&str> {
        self.added_by.as_deref().or_else(|| self.issuers.first().map(|issuer| &**issuer))
    }
}

/// The status of a signature: an auditor verified it. A signature that does not verify has no status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The auditor; `None` for an anonymous caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_by: Option<Box<str>>,
    /// The time, by the store's clock.
    pub verified_at: Timestamp,
    /// The auditor's finding.
    #[serde(flatten)]
    pub finding: Finding,
}

/// An auditor's finding about a signature that verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Finding {
    /// The fingerprint of the certificate.
    pub key: Box<str>,
    /// The owner of the certificate, by a user ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<Box<str>>,
    /// The docker reference that was expected, and that the signature has.
    pub identity: Box<str>,
    /// The digest that was computed over the image's manifest.
    pub digest: Box<str>,
}

/// The maximum length of a text in an [`Origin`] or a [`Status`], in bytes.
const MAX_MEMBER_BYTES: usize = 512;

impl Finding {
    /// Returns whether each member has a length and characters that can be shown to users.
    pub fn is_plain(&self) -> bool {
        let Self { key, signer, identity, digest } = self;
        [Some(key), signer.as_ref(), Some(identity), Some(digest)].into_iter().flatten().all(|text| is_plain(text))
    }
}

/// Returns a caller's name in the form that the store keeps. A backend's name may be so long, or contain such
/// characters, that it could not be shown, nor be accepted by another store. It is then cut, and a hash distinguishes
/// names with the same beginning.
pub fn kept_name(name: &str) -> Box<str> {
    const HASH: usize = 16;
    if is_plain(name) {
        return name.into();
    }
    let plain =
        name.chars().map(|character| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character });
    let room = MAX_MEMBER_BYTES - HASH - 1;
    let mut kept = String::new();
    for character in plain {
        if kept.len() + character.len_utf8() > room {
            break;
        }
        kept.push(character);
    }
    let hash = Digest::sha256(name.as_bytes());
    format!("{kept}~{}", &hash.hex()[..HASH]).into()
}

fn is_plain(text: &str) -> bool {
    text.len() <= MAX_MEMBER_BYTES && !text.chars().any(char::is_control)
}

impl Status {
    /// Returns whether each text has a length and characters that can be shown to users.
    pub fn is_plain(&self) -> bool {
        self.finding.is_plain() && self.verified_by.as_deref().is_none_or(is_plain)
    }
}

/// The record of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The signature.
    pub signature: StoredSignature,
    /// The origin.
    pub origin: Option<Origin>,
    /// The status.
    pub status: Option<Status>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_usual_name_is_kept_as_it_is() {
        for name in ["jane", "system:serviceaccount:ci:signer", "jürgen@example.com", &"x".repeat(512)] {
            assert_eq!(&*kept_name(name), name);
        }
        assert_ne!(kept_name(&"x".repeat(513)), kept_name(&"x".repeat(514)));
    }

    proptest! {
        #[test]
        fn whatever_name_is_kept_another_store_takes(name in "(?s).{0,600}") {
            let origin = Origin {
                added_by: Some(kept_name(&name)),
                added_at: Timestamp::UNIX_EPOCH,
                issuers: Vec::new(),
            };
            prop_assert!(origin.is_plain());
        }
    }
}
