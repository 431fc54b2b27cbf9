//! Parses the response of a token realm.

use std::time::Duration;

use reqwest::header::HeaderValue;
use serde::Deserialize;

/// The maximum size of a response, in bytes.
pub(super) const MAX_ANSWER: usize = 64 << 10;
/// The lifetime of a token if the response does not have one, in seconds (the specification's default).
const DEFAULT_TOKEN_TTL: u64 = 60;
/// The maximum lifetime of a token in the cache, in seconds.
const MAX_TOKEN_TTL: u64 = 24 * 60 * 60;
/// The maximum size of a token, in bytes: servers refuse headers that are much longer.
pub(super) const MAX_TOKEN: usize = 16 << 10;

pub(super) fn parse(body: &[u8]) -> Option<(HeaderValue, Duration)> {
    #[derive(Deserialize)]
    struct Body {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<serde_json::Value>,
    }
    let Body { token, access_token, expires_in } = serde_json::from_slice(body).ok()?;
    let token = token.filter(|token| !token.is_empty()).or(access_token).filter(|token| !token.is_empty())?;
    if token.len() > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    // Some servers write zero for no value.
    let life = expires_in.and_then(|value| value.as_u64()).filter(|&life| life > 0);
    let life = life.unwrap_or(DEFAULT_TOKEN_TTL).min(MAX_TOKEN_TTL);
    // A token is renewed early, so that it does not expire under way.
    let slack = (life / 4).min(10);
    Some((header, Duration::from_secs(life - slack)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_as_long_as_its_answer_says_and_a_little_less() {
        let life = |body: &str| parse(body.as_bytes()).map(|(_, life)| life.as_secs());
        assert_eq!(life(r#"{"token": "t"}"#), Some(50));
        assert_eq!(life(r#"{"token": "t", "expires_in": 0}"#), Some(50));
        assert_eq!(life(r#"{"access_token": "t", "expires_in": 300}"#), Some(290));
        assert_eq!(life(r#"{"token": "", "access_token": "t", "expires_in": 4}"#), Some(3));
        assert_eq!(life(r#"{"token": "t", "expires_in": "x"}"#), Some(50));
        assert_eq!(life(r#"{"token": "t", "expires_in": 99999999999}"#), Some(24 * 60 * 60 - 10));
        for body in
            ["", "{}", "[]", r#"{"token": "a\nb"}"#, r#"{"token": "a b"}"#, r#"{"token": 1}"#, r#"{"token": "é"}"#]
        {
            assert_eq!(life(body), None, "{body}");
        }
    }

    #[test]
    fn a_token_has_a_longest_length() {
        let of = |length| parse(format!(r#"{{"token": "{}"}}"#, "t".repeat(length)).as_bytes());
        assert!(of(MAX_TOKEN).is_some());
        assert!(of(MAX_TOKEN + 1).is_none());
    }
}
