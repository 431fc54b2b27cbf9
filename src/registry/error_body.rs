//! What a server says of an error, in its own words: for whoever called it from a command line, never for a denial.

use serde::Deserialize;
use url::Url;

use super::{
    answer::Answer,
    credentials::{looked_in, needed},
    target::Target,
};
use crate::redact::{shown, shown_text};

/// The longest message that is repeated.
const LONGEST_MESSAGE: usize = 300;

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Error>,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// A server's answer to somebody whom it does not do what they ask it to.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{url} answers {status}: {}{message}", match with_credentials {
    Some(true) => "these credentials do not suffice: ".to_owned(),
    Some(false) => format!("{}: ", needed(looked_in.as_deref())),
    None => String::new(),
})]
pub struct SaidNo {
    /// What was asked.
    pub url: Box<str>,
    /// The status.
    pub status: u16,
    /// Where whoever asks may not (401, 403): whether there are credentials for this server.
    pub with_credentials: Option<bool>,
    /// Where credentials for it were looked for and not found, where a person calls.
    pub looked_in: Option<Box<str>>,
    /// The server's own words.
    pub message: String,
}

impl SaidNo {
    /// Of this answer.
    pub(crate) fn of(target: &Target, url: &Url, answer: &Answer) -> Self {
        let (url, status, message) = (shown(url), answer.status, message(&answer.body));
        // Elsewhere nobody's credentials are sent.
        let denied = matches!(status, 401 | 403) && !answer.elsewhere;
        let credentials = target.peer.settings.credentials.as_ref();
        let is_there = match credentials {
            // What is there was found or not found by now.
            _ if target.peer.settings.is_asked_by_a_person() => answer.with_credentials,
            credentials => credentials.is_some(),
        };
        let looked_in = looked_in(credentials, false).filter(|_| denied && !is_there);
        Self { url, status, with_credentials: denied.then_some(is_there), looked_in, message }
    }
}

/// The first error of a body as the distribution specification has it.
fn first_error(body: &[u8]) -> Option<Error> {
    serde_json::from_slice::<Errors>(body).ok()?.errors.into_iter().next()
}

/// The code of its first error.
pub(crate) fn code(body: &[u8]) -> Option<String> {
    first_error(body).map(|error| error.code)
}

/// A server's own words, for whoever called it: on one line, and not many.
pub(crate) fn message(body: &[u8]) -> String {
    let text = match first_error(body) {
        Some(Error { code, message }) if message.is_empty() => code,
        Some(Error { code, message }) => format!("{message} ({code})"),
        None => "it does not say why".to_owned(),
    };
    shown_text(&text).chars().take(LONGEST_MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_stay_on_one_line() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\nway"}]}"#;
        assert_eq!(message(body), "no way (DENIED)");
        let body = br#"{"errors":[{"message":"moved to https://b.example.com/x?sig=secret"}]}"#;
        assert_eq!(message(body), "moved to https://b.example.com/x?*** ()");
        assert_eq!(message(b"<html>"), "it does not say why");
        assert_eq!(message(br#"{"errors":[]}"#), "it does not say why");
    }
}
