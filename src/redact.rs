//! Redacts URLs for messages, logs and reports. A query is often a secret (a shared access signature, a signed URL, the
//! state of an upload), and user information always is one.

use std::{borrow::Cow, ops::Range};

use url::Url;

/// The text in place of a secret.
const MASK: &str = "***";

/// Returns a URL without user information, query and fragment.
pub(crate) fn shown(url: &Url) -> Box<str> {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Both fail only for URLs that can't have user information.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.as_str().into()
}

/// Redacts user information and queries of the URLs in a text that a user typed, or a server sent.
pub(crate) fn shown_text(text: &str) -> Cow<'_, str> {
    masked(text, |_| MASK.into())
}

/// Redacts as [`shown_text`] does, without changing the number of characters, so that columns stay true.
pub(crate) fn shown_line(text: &str) -> Cow<'_, str> {
    masked(text, |secret| "*".repeat(secret.chars().count()).into())
}

fn masked(text: &str, mask: impl Fn(&str) -> Cow<'static, str>) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut end = 0;
    for secret in secrets(text) {
        shown.push_str(&text[end..secret.start]);
        shown.push_str(&mask(&text[secret.clone()]));
        end = secret.end;
    }
    if end == 0 {
        return text.into();
    }
    shown.push_str(&text[end..]);
    shown.into()
}

/// Returns the ranges of user information and queries of every URL in a text.
fn secrets(text: &str) -> Vec<Range<usize>> {
    let ends_url = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '`' | '<' | '>');
    let mut secrets = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("://") {
        let start = at + found + "://".len();
        let end = text[start..].find(ends_url).map_or(text.len(), |length| start + length);
        let url = &text[start..end];
        let user = user_information(url);
        if user > 0 {
            secrets.push(start..start + user);
        }
        if let Some(query) = url[user..].find('?').map(|query| user + query).filter(|query| query + 1 < url.len()) {
            secrets.push(start + query + 1..end);
        }
        at = end;
    }
    secrets
}

/// Returns the length of the user information in front of a host, in a URL without its scheme.
fn user_information(url: &str) -> usize {
    let authority = &url[..url.find(['/', '?', '#']).unwrap_or(url.len())];
    if let Some(length) = authority.rfind('@') {
        return length;
    }
    // A password that is not percent-encoded may contain such a character. A URL parser then takes the part before it
    // for a host with an invalid port.
    let after_address = authority.rsplit(']').next().unwrap_or(authority);
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match after_address.split_once(':') {
        Some((_, port)) if !is_port(port) => url.rfind('@').unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_shown_url_has_no_secrets() {
        let url = Url::parse("https://user:pass@r.example.com:5000/v2/x?token=secret#f").unwrap();
        assert_eq!(&*shown(&url), "https://r.example.com:5000/v2/x");
    }

    #[test]
    fn of_urls_in_a_text_everything_but_secrets_is_shown() {
        for (text, expected) in [
            ("no URL?", "no URL?"),
            ("see https://r.example.com/v2/: 401", "see https://r.example.com/v2/: 401"),
            ("https://a.example.com/s?sv=1&sig=x%2F: no", "https://a.example.com/s?*** no"),
            (
                "'https://u:p@a.example.com/s?sig=x' and \"http://b?y\"",
                "'https://***@a.example.com/s?***' and \"http://b?***\"",
            ),
            ("https://u@h/a@b", "https://***@h/a@b"),
            ("https://s.example.com/x#sha256:00@name", "https://s.example.com/x#sha256:00@name"),
            ("https://u:p@ss@h?x#y", "https://***@h?***"),
            ("https://@h", "https://@h"),
            ("https://u:p/s@h/x", "https://***@h/x"),
            ("https://u:p?s@h/x?y", "https://***@h/x?***"),
            ("https://u:p#s@h:5000/x", "https://***@h:5000/x"),
            ("https://u:7p/s@t@h/x", "https://***@h/x"),
            ("https://h:5000/a@b", "https://h:5000/a@b"),
            ("https://[::1]:5000/a@b", "https://[::1]:5000/a@b"),
            ("https://[2001:db8::1]/a@b", "https://[2001:db8::1]/a@b"),
            ("https://host:port/x", "https://host:port/x"),
            ("did you mean https://h/?", "did you mean https://h/?"),
            ("a://b?c://d?e", "a://b?***"),
        ] {
            assert_eq!(shown_text(text), expected);
            assert_eq!(shown_line(text).chars().count(), text.chars().count(), "{text}");
        }
        assert_eq!(shown_line("at: https://h/s?sig=ü #"), "at: https://h/s?***** #");
    }

    proptest! {
        #[test]
        fn whatever_stands_around_a_url_its_secrets_are_gone(
            before in "[a-z :'\"(=]{0,10}",
            behind in "([ '\"<>\n].{0,10})?",
            path in "(/[a-z0-9._~:@=-]{0,8}){0,3}",
            user in prop_oneof![Just(""), Just("SECRET@"), Just("u:SECRET@"), Just("u:S@SECRET@")],
            query in prop_oneof![Just(""), Just("?SECRET"), Just("?sv=1&sig=SECRET%3D"), Just("?x=SECRET#SECRET")],
        ) {
            let text = format!("{before}https://{user}h.example.com{path}{query}{behind}");
            prop_assert!(!shown_text(&text).contains("SECRET"), "{}", text);
            prop_assert!(!shown_line(&text).contains("SECRET"), "{}", text);
            let shown = shown_text(&text);
            let host = format!("h.example.com{path}");
            prop_assert!(shown.contains(&host), "{}", text);
        }

        #[test]
        fn any_text_can_be_shown(text in "(?s).{0,80}|[a:/?@# ]{0,40}") {
            let again = shown_text(&text).into_owned();
            prop_assert_eq!(shown_text(&again).into_owned(), again);
            prop_assert_eq!(shown_line(&text).chars().count(), text.chars().count());
        }
    }
}
