//! What a server says of an error, in its own words: for whoever called it from a command line, never for a denial.

use serde::Deserialize;

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
    text.chars().take(LONGEST_MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_stay_on_one_line() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\nway"}]}"#;
        assert_eq!(message(body), "no way (DENIED)");
        assert_eq!(message(b"<html>"), "it does not say why");
        assert_eq!(message(br#"{"errors":[]}"#), "it does not say why");
    }
}
