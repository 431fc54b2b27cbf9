//! A server's refusal of a request, for all requests that read, write or remove.

use url::Url;

use super::{
    answer::Answer,
    credentials::{looked_in, needed},
    error_body::message,
    target::Target,
};
use crate::redact::shown;

/// The refusal of a request by a server.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{url} answers {status}: {}{message}", match with_credentials {
    Some(true) => "these credentials do not suffice: ".to_owned(),
    Some(false) => format!("{}: ", needed(looked_in.as_deref())),
    None => String::new(),
})]
pub struct ServerRefused {
    /// The URL of the request.
    pub url: Box<str>,
    /// The status.
    pub status: u16,
    /// For 401 and 403: there are credentials for this server.
    pub with_credentials: Option<bool>,
    /// The places that were searched for credentials without success, if a user called the command.
    pub looked_in: Option<Box<str>>,
    /// The server's message.
    pub message: String,
}

impl ServerRefused {
    /// Makes the refusal from an answer.
    pub(crate) fn of(target: &Target, url: &Url, answer: &Answer) -> Self {
        let (url, status, message) = (shown(url), answer.status, message(&answer.body));
        // Other hosts get no credentials.
        let denied = matches!(status, 401 | 403) && !answer.elsewhere;
        let credentials = target.remote.settings.credentials.as_ref();
        let is_there = match credentials {
            // The credentials were found or not by now.
            _ if target.remote.settings.is_asked_by_a_person() => answer.with_credentials,
            credentials => credentials.is_some(),
        };
        let looked_in = looked_in(credentials, false).filter(|_| denied && !is_there);
        Self { url, status, with_credentials: denied.then_some(is_there), looked_in, message }
    }
}
