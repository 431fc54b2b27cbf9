//! What the store knows of a signature beside its bytes: who added it, and what an auditor found out about it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::signature::StoredSignature;
use crate::image::Digest;

/// Where a signature comes from. What was stored before origins were kept has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The caller who added it; `None` for an anonymous one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added_by: Option<Box<str>>,
    /// When, by the store's clock.
    pub added_at: Timestamp,
    /// The keys that it names as its issuers, upper-case hexadecimal digits. **Claimed**: nothing was verified.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<Box<str>>,
}

impl Origin {
    /// Whether each text is of a length and kind that a person may be shown.
    pub fn is_plain(&self) -> bool {
        let Self { added_by, added_at: _, issuers } = self;
        added_by.iter().chain(issuers).all(|text| is_plain(text))
    }

    /// Whose share of an image's signatures it takes: that of the one who added it, else of the key that it names.
    pub fn signer(&self) -> Option<&str> {
        self.added_by.as_deref().or_else(|| self.issuers.first().map(|issuer| &**issuer))
    }
}

/// What an auditor found out: that the signature verified. That it did not is said by there being no status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The caller who says so; `None` for an anonymous one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_by: Option<Box<str>>,
    /// When, by the store's clock.
    pub verified_at: Timestamp,
    /// What the auditor says.
    #[serde(flatten)]
    pub finding: Finding,
}

/// What an auditor says of a signature that verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Finding {
    /// The fingerprint of the certificate that it verified with.
    pub key: Box<str>,
    /// Whose that is: a user ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<Box<str>>,
    /// The docker reference that was expected, and that it has.
    pub identity: Box<str>,
    /// The digest that was computed over the image's manifest.
    pub digest: Box<str>,
}

/// The longest text of an [`Origin`] or a [`Status`].
const MAX_MEMBER_BYTES: usize = 512;

impl Finding {
    /// Whether each member is of a length and kind that a person may be shown.
    pub fn is_plain(&self) -> bool {
        let Self { key, signer, identity, digest } = self;
        [Some(key), signer.as_ref(), Some(identity), Some(digest)].into_iter().flatten().all(|text| is_plain(text))
    }
}

/// A caller's name as it is kept. A backend may make one so long, or of such characters, that it could not be
/// shown, nor be taken by another store; of those, a hash tells two apart that begin alike.
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
    /// Returns whether each text is of a length and kind that a person may be shown.
    pub fn is_plain(&self) -> bool {
        self.finding.is_plain() && self.verified_by.as_deref().is_none_or(is_plain)
    }
}

/// All that the store has of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The signature.
    pub signature: StoredSignature,
    /// Where it comes from.
    pub origin: Option<Origin>,
    /// What an auditor found out.
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
