//! What fuzz targets reach of the registry client. Only there with the feature `fuzzing`.

use super::challenge::Challenge;

/// Whatever realm is read is one that can be asked.
pub fn challenge<'a>(headers: impl Iterator<Item = &'a [u8]>) {
    if let Ok(Challenge::Bearer { realm, service: _ }) = Challenge::parse(headers) {
        assert!(matches!(realm.scheme(), "http" | "https") && realm.has_host(), "{realm}");
        assert!(realm.username().is_empty() && realm.password().is_none(), "{realm}");
    }
}
