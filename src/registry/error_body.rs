//! Parses the body of an error answer (distribution specification, "Error Codes"). Its text is for users of the command
//! line, never for a denial.

use serde::Deserialize;

use crate::redact::shown_text;

/// The maximum length of a message that is repeated.
const MAX_MESSAGE: usize = 300;

#[derive(Deserialize)]
struct ErrorBody {
    errors: Vec<Error>,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Parses the first error of a body (distribution specification, "Error Codes").
fn first_error(body: &[u8]) -> Option<Error> {
    serde_json::from_slice::<ErrorBody>(body).ok()?.errors.into_iter().next()
}

/// Returns the code of the first error.
pub(crate) fn code(body: &[u8]) -> Option<String> {
    first_error(body).map(|error| error.code)
}

/// Returns a server's message for the user who called it, bounded and on one line.
pub(crate) fn message(body: &[u8]) -> String {
    let text = match first_error(body) {
        Some(Error { code, message }) if message.is_empty() => code,
        Some(Error { code, message }) => format!("{message} ({code})"),
        None => "it does not say why".to_owned(),
    };
    shown_text(&text).chars().take(MAX_MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect()
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
