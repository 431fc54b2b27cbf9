//! Failures of an exchange with a server. No text of the server gets into them.

use std::{error::Error, io, time::Duration};

use url::Url;

use super::{
    quota::Exhausted,
    resolver::{LookupFailed, LookupsExhausted, NotPublic},
};
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::telemetry::OutboundQuota;

/// The message about names with private addresses only, and about names that can't be resolved. A difference would tell
/// users who may create pods which names exist inside the network.
const NOT_PUBLIC: &str = "no public address of it can be found, and neither a rule that requires signatures (but one for *) nor a registries entry names it";

/// The reason why an exchange gave no usable answer.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// A failure that may pass.
    Unavailable(String),
    /// The connection was lost under way; an immediate retry may help.
    Lost,
    /// The host's name can't be resolved.
    Unresolved,
    /// The host has no public address that can be found, and neither a rule nor a registries entry names it.
    NotPublic,
    /// The answer violates the specification, or a limit.
    Misbehaved(String),
    /// The time limit was reached.
    TimedOut,
    /// The time limit was reached before a request was sent, since a quota was used up.
    Exhausted(OutboundQuota, Exhausted),
}

impl Failure {
    /// Adds that the failure happened at a registry's token realm. `not_public` makes the message about a realm that
    /// may not be dialled.
    pub(super) fn of_token_realm(self, not_public: impl FnOnce() -> String) -> Self {
        match self {
            Self::NotPublic => Self::Unavailable(not_public()),
            Self::Unresolved => Self::Unavailable("its token realm's name can't be resolved".to_owned()),
            Self::Unavailable(cause) => Self::Unavailable(format!("its token realm can't be asked: {cause}")),
            Self::Misbehaved(what) => Self::Misbehaved(format!("of its token realm: {what}")),
            failure => failure,
        }
    }

    /// Classifies an error of reqwest.
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        let mut next: Option<&(dyn Error + 'static)> = error.source();
        let mut parse = false;
        let mut kind = None;
        while let Some(cause) = next {
            if cause.is::<NotPublic>() {
                return Self::NotPublic;
            }
            if let Some(LookupsExhausted(share)) = cause.downcast_ref() {
                return Self::Exhausted(OutboundQuota::Lookups, *share);
            }
            if cause.is::<LookupFailed>() {
                return Self::Unresolved;
            }
            if let Some(tls) = tls_error(cause) {
                return Self::Unavailable(tls_words(tls).to_owned());
            }
            if let Some(error) = cause.downcast_ref::<io::Error>() {
                kind = Some(error.kind());
            }
            parse |= cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
            next = cause.source();
        }
        if parse {
            return Self::Misbehaved("its answer is not HTTP, or has too many or too long headers".to_owned());
        }
        if error.is_dns() {
            return Self::Unresolved;
        }
        if error.is_connect() {
            let words = match kind {
                Some(io::ErrorKind::ConnectionRefused) => "the connection is refused",
                Some(io::ErrorKind::TimedOut) => "it can't be reached",
                _ if error.is_timeout() => "it can't be reached",
                _ => "the connection failed",
            };
            return Self::Unavailable(words.to_owned());
        }
        Self::Lost
    }

    /// Makes the error of a look-up: the registry, the URL, and the time that the look-up had.
    pub(crate) fn at(self, registry: &str, url: &Url, after: Duration) -> LookupError {
        let (registry, url) = (registry.into(), shown(url));
        match self {
            Self::Unavailable(cause) => {
                LookupError::Unavailable { registry, url, cause: cause.into(), retry_after: None }
            }
            Self::Lost => LookupError::Unavailable {
                registry,
                url,
                cause: "the connection ended in the middle of its answer".into(),
                retry_after: None,
            },
            Self::Unresolved => LookupError::Unavailable {
                registry,
                url,
                cause: "its name can't be resolved".into(),
                retry_after: None,
            },
            Self::NotPublic => LookupError::Unavailable { registry, url, cause: NOT_PUBLIC.into(), retry_after: None },
            Self::Misbehaved(what) => LookupError::Misbehaved { registry, url, what: what.into() },
            Self::TimedOut => LookupError::TimedOut { registry, url, after },
            Self::Exhausted(quota, share) => {
                LookupError::NotAsked { registry, url, after, cause: exhausted(quota, share).into() }
            }
        }
    }
}

/// Returns the message about a request that was not sent because of a quota. It is for operators, who may raise the
/// limits.
fn exhausted(quota: OutboundQuota, share: Exhausted) -> String {
    let what = match quota {
        OutboundQuota::Requests => "requests in flight",
        OutboundQuota::Memory => "memory for answers",
        OutboundQuota::Lookups => "name resolutions",
    };
    let whose = match share {
        Exhausted::All => "all registries together",
        Exhausted::OfRegistry => "this registry",
        Exhausted::OfUnnamed => "all registries that neither a rule nor a registries entry names",
    };
    format!("the limit of {what} for {whose} was reached")
}

/// Returns the TLS error under a cause. `io::Error`s wrap it, and their `source` leaves out what they wrap.
fn tls_error<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = cause;
    loop {
        if let Some(error) = cause.downcast_ref() {
            return Some(error);
        }
        cause = cause.downcast_ref::<io::Error>()?.get_ref()?;
    }
}

fn tls_words(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer => {
                "its TLS certificate is of no CA that is trusted here (caFile, or --cert-dir, names further ones)"
            }
            Bad::Expired | Bad::ExpiredContext { .. } => "its TLS certificate is expired",
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => "its TLS certificate is not valid yet",
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => "its TLS certificate is for another name",
            // `openssl req -x509` makes such certificates; rustls has no error variant for them.
            Bad::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                "its TLS certificate is a CA's own, which is not taken for a server's: have that CA sign one for the server"
            }
            _ => "its TLS certificate is not valid",
        },
        rustls::Error::InvalidMessage(_) => "it does not speak TLS",
        _ => "the TLS handshake failed",
    }
}
