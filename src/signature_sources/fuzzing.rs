//! What fuzz targets reach of the signature sources. Only there with the feature `fuzzing`.

use super::extension;

/// Whatever a store sends: an entry is a signature, left out, or broken, and where it came from is one line.
pub fn list(body: &[u8]) {
    if let Some(list) = extension::parse(body, "https://store.example.com/") {
        for signature in list.signatures {
            assert!(!signature.source.chars().any(char::is_control), "{:?}", signature.source);
        }
    }
}
