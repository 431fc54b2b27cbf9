//! A signature in the store.

use std::{fmt, sync::Arc};

/// The number of characters after the `@` of a signature's name.
const NAME_CHARACTERS: usize = 32;

/// The name of a signature without the digest in front: 32 characters of `A-Z a-z 0-9 _ . -`, which the client chose.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SignatureName(Box<str>);

impl SignatureName {
    /// Parses the 32 characters. Returns `None` if they are malformed.
    pub fn parse(text: &str) -> Option<Self> {
        let good = text.len() == NAME_CHARACTERS
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
        good.then(|| Self(text.into()))
    }

    /// Returns the 32 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A signature in the store.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredSignature {
    /// Its name.
    pub name: SignatureName,
    /// The OpenPGP message.
    pub content: Arc<[u8]>,
}

impl fmt::Debug for StoredSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredSignature({}, {} bytes)", self.name.as_str(), self.content.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_names_have_32_characters() {
        assert!(SignatureName::parse(&"a1".repeat(16)).is_some());
        for bad in ["", "a", &"a".repeat(31), &"a".repeat(33), &"@".repeat(32), &"é".repeat(16), &"/".repeat(32)] {
            assert!(SignatureName::parse(bad).is_none(), "{bad}");
        }
    }
}
