//! Parses the offset of an upload from a registry's answer.

use reqwest::header::{HeaderMap, RANGE};

/// Returns the number of bytes that a registry has of an upload, from `Range: 0-<last>`. The first registries and their
/// successors answer `0-0` if they have none; one that has the single byte answers the next request with 416.
pub(super) fn received_bytes(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?;
    let (first, last) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    match (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?) {
        (0, 0) => Some(0),
        (0, last) => last.checked_add(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn a_range_says_how_many_bytes_are_there() {
        let of = |text: &str| received_bytes(&HeaderMap::from_iter([(RANGE, HeaderValue::from_str(text).unwrap())]));
        assert_eq!(of("0-0"), Some(0));
        assert_eq!(of("0-15"), Some(16));
        assert_eq!(of("bytes=0-15"), Some(16));
        for bad in ["", "15", "1-15", "0-", "-15", "0--1", "0-18446744073709551615", "0-99999999999999999999"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(received_bytes(&HeaderMap::new()), None);
    }
}
