//! The answer to a request.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use url::Url;

use super::body::Body;

/// The answer of a server.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The decoded body. It is complete for status 200, and possibly empty or cut off for any other.
    pub(crate) body: Body,
    /// The URL of the answer: the one that was asked, or the last one that redirects led to.
    pub(crate) url: Url,
    /// A redirect led to another origin.
    pub(crate) elsewhere: bool,
    /// The request was authenticated with credentials.
    pub(crate) with_credentials: bool,
}

impl Answer {
    /// Returns the time of `Retry-After`.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse::<u32>() {
            return Some(Duration::from_secs(seconds.into()));
        }
        let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        let wait = date.duration_since(jiff::Timestamp::now());
        Some(Duration::try_from(wait).unwrap_or_default())
    }

    pub(super) fn is_transient(&self) -> bool {
        matches!(self.status, 429 | 502..=504)
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn retry_after(value: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).unwrap())]);
        let url = Url::parse("https://r.example.com/").unwrap();
        Answer { status: 429, headers, body: Body::default(), url, elsewhere: false, with_credentials: false }
            .retry_after()
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        assert_eq!(retry_after("120"), Some(Duration::from_mins(2)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert!(retry_after("Thu, 06 Nov 2994 08:49:37 GMT").unwrap() > Duration::from_hours(24 * 365));
        for value in ["", "-1", "soon", "99999999999999"] {
            assert_eq!(retry_after(value), None, "{value}");
        }
    }
}
