//! Why nothing could be learned from those who know.

use std::time::Duration;

use serde_json::{Value, json};

use super::code::Code;
use crate::image::{ManifestError, Repository, WalkLimit};

/// Why nothing could be learned from a registry or signature source. `registry` is the canonical host, `url` what was
/// asked for, without credentials and query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The registry has no such image.
    #[error("{registry} has no such image")]
    ManifestUnknown {
        /// The registry.
        registry: Box<str>,
        /// The URL of the request.
        url: Box<str>,
    },
    /// The manifest is of a kind that no decision can stand on.
    #[error("{error}")]
    UnsupportedManifest {
        /// The URL of the request.
        url: Box<str>,
        /// The fault of the manifest.
        error: ManifestError,
    },
    /// It is an index with more in it than is looked at.
    #[error("its index has {beyond}")]
    IndexTooLarge {
        /// The URL of the request.
        url: Box<str>,
        /// The limit that the index is over.
        beyond: WalkLimit,
    },
    /// The registry wants other credentials, or any.
    #[error("{registry} answers {status}: {}", why_unauthorized(*with_credentials, looked_in.as_deref()))]
    Unauthorized {
        /// The registry.
        registry: Box<str>,
        /// The URL of the request.
        url: Box<str>,
        /// 401 or 403.
        status: u16,
        /// True if credentials were sent.
        with_credentials: bool,
        /// The places where a person's command looked for credentials. `None` for the gate, which looks in none.
        looked_in: Option<Box<str>>,
    },
    /// A command's credentials for the registry can't be read: of the gate's own, the log says why.
    #[error("{registry} needs credentials, and those for it can't be used: {cause}")]
    CredentialsUnusable {
        /// The registry.
        registry: Box<str>,
        /// The URL of the request that was not made.
        url: Box<str>,
        /// Which file or credential helper failed, and why.
        cause: Box<str>,
    },
    /// A lookaside tree does not let everybody read it. It is asked without credentials, whatever is configured.
    #[error("{registry} answers {status} to a request for a signature{}", of_s3(*status))]
    LookasideDenied {
        /// The server.
        registry: Box<str>,
        /// The URL of the request.
        url: Box<str>,
        /// 401 or 403.
        status: u16,
    },
    /// The registry can't be reached or is in trouble; it may be better later.
    #[error("{registry} can't be asked: {cause}")]
    Unavailable {
        /// The registry.
        registry: Box<str>,
        /// The URL of the request.
        url: Box<str>,
        /// In our own words.
        cause: Box<str>,
        /// The time that the server asked us to wait (`Retry-After`).
        retry_after: Option<Duration>,
    },
    /// The registry answers what no registry may answer.
    #[error("{registry} misbehaves: {what}")]
    Misbehaved {
        /// The registry.
        registry: Box<str>,
        /// The URL of the request.
        url: Box<str>,
        /// In our own words.
        what: Box<str>,
    },
    /// The time for this look-up is over.
    #[error("{registry} did not answer within {}", humantime::format_duration(*after))]
    TimedOut {
        /// The registry.
        registry: Box<str>,
        /// The URL of the request.
        url: Box<str>,
        /// The time that there was.
        after: Duration,
    },
    /// The time for this look-up is over, and the registry was not asked, or its answer not read: the gate had too many
    /// others to ask.
    #[error("{registry} could not be asked within {}: {cause}", humantime::format_duration(*after))]
    NotAsked {
        /// The registry.
        registry: Box<str>,
        /// The URL of the request that was not made.
        url: Box<str>,
        /// The time that there was.
        after: Duration,
        /// Which limit was reached, in our own words.
        cause: Box<str>,
    },
}

fn why_unauthorized(with_credentials: bool, looked_in: Option<&str>) -> String {
    match looked_in {
        Some(places) if with_credentials => format!("the credentials for it, from {places}, do not suffice"),
        Some(places) => format!("credentials are needed, and none for it are in {places}"),
        None => "the gate's credentials do not suffice".to_owned(),
    }
}

impl LookupError {
    /// Returns the error of a look-up whose time is over.
    pub(crate) fn timed_out(repository: &Repository, after: Duration) -> Self {
        Self::TimedOut { registry: repository.host().into(), url: repository.as_str().into(), after }
    }

    /// Returns the error of a task that ended without an answer: it panicked, or the program is ending.
    pub(crate) fn without_answer(repository: &Repository, cause: &str) -> Self {
        let (registry, url) = (repository.host().into(), repository.as_str().into());
        Self::Unavailable { registry, url, cause: cause.into(), retry_after: None }
    }

    /// Returns the error of a registry that answers a request for one digest with the manifest of another.
    pub(crate) fn another_digest(repository: &Repository) -> Self {
        let (registry, url) = (repository.host().into(), repository.as_str().into());
        Self::Misbehaved { registry, url, what: "it answers with another digest".into() }
    }

    /// Returns whether the time was over. Another caller may have more time.
    pub fn is_out_of_time(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::NotAsked { .. })
    }

    /// Returns whether there is no answer, good or bad, but one may come later.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable { .. }) || self.is_out_of_time()
    }

    pub(super) fn facts(&self) -> Value {
        match self {
            Self::ManifestUnknown { registry, url } => json!({ "registry": registry, "url": url }),
            Self::UnsupportedManifest { url, error } => json!({ "url": url, "why": error.to_string() }),
            Self::IndexTooLarge { url, beyond } => {
                json!({ "url": url, "why": format!("its index has {beyond}") })
            }
            Self::Unauthorized { registry, url, status, with_credentials, looked_in: _ } => {
                json!({ "registry": registry, "url": url, "status": status, "withCredentials": with_credentials })
            }
            Self::CredentialsUnusable { registry, url, cause } => {
                json!({ "registry": registry, "url": url, "why": cause })
            }
            Self::LookasideDenied { registry, url, status } => {
                json!({ "registry": registry, "url": url, "status": status })
            }
            Self::Unavailable { registry, url, cause, retry_after } => {
                let retry_after = retry_after.map(|after| after.as_secs());
                json!({ "registry": registry, "url": url, "why": cause, "retryAfterSeconds": retry_after })
            }
            Self::Misbehaved { registry, url, what } => json!({ "registry": registry, "url": url, "why": what }),
            Self::TimedOut { registry, url, after } => {
                json!({ "registry": registry, "url": url, "afterSeconds": after.as_secs_f64() })
            }
            Self::NotAsked { registry, url, after, cause } => {
                json!({ "registry": registry, "url": url, "afterSeconds": after.as_secs_f64(), "why": cause })
            }
        }
    }

    /// Returns the next step for the reader of a denial.
    pub(crate) fn next_step(&self) -> &'static str {
        match self {
            Self::ManifestUnknown { .. } => "Push the image, or correct its name.",
            Self::UnsupportedManifest { error: ManifestError::TooManyEntries { .. }, .. }
            | Self::IndexTooLarge { .. } => {
                "Push an index with fewer manifests and no indexes in it, or sign the index itself."
            }
            Self::UnsupportedManifest { .. } => "Push it again with a current tool.",
            Self::Unauthorized { looked_in: Some(_), .. } => {
                "Correct its name, or log in (docker login, podman login; or --creds, --authfile)."
            }
            Self::CredentialsUnusable { .. } => {
                "Correct what failed, log in again (docker login, podman login), or give other credentials (--creds, --authfile)."
            }
            Self::LookasideDenied { .. } => {
                "See that everybody may read the signatures there, and that one that is not there is answered with 404 (S3: allow \
                 s3:ListBucket); a query in its URL may have expired."
            }
            Self::Unauthorized { looked_in: None, .. } => {
                "Correct its name, or give the gate credentials that may pull it (registries, credentials in its \
                 configuration)."
            }
            Self::Unavailable { .. } | Self::TimedOut { .. } => {
                "Try again; if it lasts, see whether the gate can reach the registry."
            }
            Self::NotAsked { .. } => {
                "Try again; if it lasts, tell those who run the gate: it is asked about more than it can look up at once."
            }
            Self::Misbehaved { .. } => "Tell those who run the registry; the log has what it answered.",
        }
    }

    /// The code.
    pub fn code(&self) -> Code {
        match self {
            Self::ManifestUnknown { .. } => Code::ManifestUnknown,
            Self::UnsupportedManifest { .. } | Self::IndexTooLarge { .. } => Code::UnsupportedManifest,
            Self::Unauthorized { .. } | Self::CredentialsUnusable { .. } | Self::LookasideDenied { .. } => {
                Code::RegistryUnauthorized
            }
            Self::Unavailable { .. } => Code::RegistryUnavailable,
            Self::Misbehaved { .. } => Code::RegistryMisbehaved,
            Self::TimedOut { .. } | Self::NotAsked { .. } => Code::DeadlineExceeded,
        }
    }
}

/// Returns a hint at what 403 may mean at S3: a missing object. Empty for another status.
fn of_s3(status: u16) -> &'static str {
    if status == 403 {
        "; of a signature that is not there, S3 says 403 in place of 404 where listing is not allowed"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_s3_says_in_place_of_404_is_told_of_a_403_alone() {
        let denied =
            |status| LookupError::LookasideDenied { registry: "r".into(), url: "u".into(), status }.to_string();
        assert!(denied(403).starts_with("r answers 403 to a request for a signature; ") && denied(403).contains("S3"));
        assert_eq!(denied(401), "r answers 401 to a request for a signature");
    }
}
