//! Entry points of fuzz targets to the signature sources. Only built with the feature `fuzzing`.

use super::extension;

/// Parses a list of signatures. Panics unless each entry is a signature, left out, or broken, and its source is one
/// line.
pub fn list(body: &[u8]) {
    if let Some(list) = extension::parse(body, "https://store.example.com/") {
        for signature in list.signatures {
            assert!(!signature.source.chars().any(char::is_control), "{:?}", signature.source);
        }
    }
}
