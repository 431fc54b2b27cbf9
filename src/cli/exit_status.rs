//! Exit statuses, and failures that end a command with one.

use std::{error::Error, fmt, io, process::ExitCode};

use crate::gateway::store::StoreError as EngineError;
use crate::image_files::SourceError;
use crate::push::PushError;
use crate::redact::shown_text;
use crate::refusal::LookupError;
use crate::registry::{UploadError, credentials_needed};
use crate::signature_sources::{WriteError, store_client::StoreClientError};
use crate::signing::KeyError;
use crate::store_transfer::TransferError;

/// The exit status of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// 0: allowed, or done.
    Done,
    /// 1: refused, or not found.
    Refused,
    /// 2: the command line, a policy or a configuration is not valid.
    Usage,
    /// 3: undecided.
    Undecided,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(match status {
            ExitStatus::Done => 0,
            ExitStatus::Refused => 1,
            ExitStatus::Usage => 2,
            ExitStatus::Undecided => 3,
        })
    }
}

/// The error that ended a command before it had a result.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) status: ExitStatus,
    message: String,
}

impl CliError {
    /// Makes an error that the user can correct: in arguments, policy or configuration. The text says everything.
    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self { status: ExitStatus::Usage, message: text.to_string() }
    }

    /// Makes an error that the user can correct, with its causes.
    pub(crate) fn usage_of(error: impl Error) -> Self {
        Self::usage(with_causes(&error))
    }

    /// Makes an error for a refusal by a policy or server, or for something that does not exist.
    pub(crate) fn refused(text: impl fmt::Display) -> Self {
        Self { status: ExitStatus::Refused, message: text.to_string() }
    }

    /// Puts a subject in front of the message.
    pub(crate) fn about(self, subject: impl fmt::Display) -> Self {
        Self { message: format!("{subject}: {}", self.message), ..self }
    }

    /// Adds what was done before the error to the message.
    pub(crate) fn after(self, done: impl fmt::Display) -> Self {
        Self { message: format!("{} ({done})", self.message), ..self }
    }

    /// Makes an error of the environment: a server, a file, the system.
    pub(crate) fn undecided(error: impl fmt::Display) -> Self {
        Self { status: ExitStatus::Undecided, message: error.to_string() }
    }
}

/// Converts a look-up's error. A missing image, or missing permission of these credentials, is a definite answer
/// (refused); any other error is undecided.
impl From<LookupError> for CliError {
    fn from(error: LookupError) -> Self {
        let status = match &error {
            LookupError::ManifestUnknown { .. } => ExitStatus::Refused,
            // The error's own message is about the gate's credentials.
            LookupError::Unauthorized { registry, status, with_credentials, looked_in, .. } => {
                return Self::refused(if *with_credentials {
                    format!("{registry} answers {status}: the credentials that it was given do not suffice")
                } else {
                    format!("{registry} answers {status}: {}", credentials_needed(looked_in.as_deref()))
                });
            }
            // A verdict has a separate line for the next step; a command has one line in all.
            LookupError::CredentialsUnusable { .. } => {
                return Self::undecided(format_args!("{error}. {}", error.next_step()));
            }
            _ => ExitStatus::Undecided,
        };
        Self { status, message: with_causes(&error) }
    }
}

impl From<WriteError> for CliError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Lookup(error) => error.into(),
            WriteError::File { .. } => Self::undecided(error),
            error => Self::refused(error),
        }
    }
}

impl From<SourceError> for CliError {
    fn from(error: SourceError) -> Self {
        match &error {
            SourceError::Name(_) => Self::usage(error),
            SourceError::Temporary { .. } => Self::undecided(error),
            SourceError::Read { source, .. } if !is_an_answer(source) => Self::undecided(error),
            _ => Self::refused(error),
        }
    }
}

/// Returns whether an error says definitely that a file does not exist, or is something else. Other errors say nothing
/// about the file.
fn is_an_answer(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::NotFound
            | Kind::NotADirectory
            | Kind::IsADirectory
            | Kind::InvalidData
            | Kind::InvalidInput
            | Kind::UnexpectedEof
    )
}

impl From<PushError> for CliError {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Upload(UploadError::Lookup(error)) => error.into(),
            PushError::Upload(UploadError::Read { ref source, .. }) if !is_an_answer(source) => Self::undecided(error),
            PushError::Lost { .. } => Self::undecided(error),
            error => Self::refused(error),
        }
    }
}

impl From<StoreClientError> for CliError {
    fn from(error: StoreClientError) -> Self {
        match error {
            StoreClientError::Lookup(error) => error.into(),
            error => Self::refused(error),
        }
    }
}

impl From<TransferError> for CliError {
    fn from(error: TransferError) -> Self {
        let status = match &error {
            TransferError::Lookup(_) => {
                let TransferError::Lookup(error) = error else { unreachable!("it was just looked at") };
                return error.into();
            }
            TransferError::Store(EngineError::Setting { .. }) => ExitStatus::Usage,
            TransferError::Store(EngineError::Io { source, .. }) if source.kind() != io::ErrorKind::NotFound => {
                ExitStatus::Undecided
            }
            TransferError::Store(EngineError::Unavailable { .. } | EngineError::Stopped { .. })
            | TransferError::InUse(_)
            | TransferError::Busy(_)
            | TransferError::Interrupted => ExitStatus::Undecided,
            TransferError::File { source, .. } if source.kind() != io::ErrorKind::NotFound => ExitStatus::Undecided,
            _ => ExitStatus::Refused,
        };
        Self { status, message: with_causes(&error) }
    }
}

impl From<KeyError> for CliError {
    fn from(error: KeyError) -> Self {
        let status = match error {
            KeyError::NotFound { .. }
            | KeyError::Unusable { .. }
            | KeyError::NoSecret(_)
            | KeyError::WrongPassphrase { .. } => ExitStatus::Refused,
            KeyError::Agent { .. } => ExitStatus::Undecided,
            _ => ExitStatus::Usage,
        };
        Self { status, message: with_causes(&error) }
    }
}

/// Converts an error of `anyhow`, and prints its causes after it. Most are about the user's input.
impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        Self::usage(with_causes(error.as_ref()))
    }
}

/// Returns the messages of an error and its causes, the nearest first. A cause that the error's own message contains is
/// not repeated.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The message may repeat arguments, or the content of a file.
        f.write_str(&shown_text(&self.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Caused {
        text: &'static str,
        #[source]
        source: io::Error,
    }

    #[test]
    fn who_may_not_look_is_told_so_in_words_about_his_own_credentials() {
        let places = || Some("/home/jane/.docker/config.json".into());
        for (with_credentials, looked_in, text) in [
            (true, None, "do not suffice"),
            (false, None, "--creds"),
            (false, places(), "none for it are in /home/jane/.docker/config.json"),
        ] {
            let (registry, url) = ("registry.example.com".into(), "https://registry.example.com/v2/".into());
            let error = LookupError::Unauthorized { registry, url, status: 401, with_credentials, looked_in };
            let failure = CliError::from(error);
            assert_eq!(failure.status, ExitStatus::Refused);
            assert!(failure.message.contains(text) && !failure.message.contains("gate"), "{failure}");
        }
    }

    #[test]
    fn what_can_not_be_read_is_undecided_and_what_is_not_there_is_refused() {
        let status = |kind: io::ErrorKind| {
            let read = SourceError::Read { path: "web.tar".into(), source: kind.into() };
            let upload = UploadError::Read { name: "layer.tar".to_owned(), source: kind.into() };
            let [source, upload] = [CliError::from(read), CliError::from(PushError::Upload(upload))];
            assert_eq!(source.status, upload.status, "{kind}");
            source.status
        };
        for kind in [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory, io::ErrorKind::UnexpectedEof] {
            assert_eq!(status(kind), ExitStatus::Refused, "{kind}");
        }
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::StorageFull, io::ErrorKind::Other] {
            assert_eq!(status(kind), ExitStatus::Undecided, "{kind}");
        }
        let outside = SourceError::Outside { place: "web.tar".to_owned(), name: "/etc/passwd".to_owned() };
        assert_eq!(CliError::from(outside).status, ExitStatus::Refused);
    }

    #[test]
    fn a_failure_repeats_no_secret_of_a_url() {
        for failure in [
            CliError::usage("--to https://user:secret@store.example.com/?sig=secret: no"),
            CliError::undecided("x").about("https://store.example.com/?sig=secret"),
            CliError::refused("x").after("https://store.example.com/?sig=secret"),
        ] {
            let text = failure.to_string();
            assert!(text.contains("store.example.com/") && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn a_failure_says_what_it_comes_from_once() {
        let caused = |text| Caused { text, source: io::Error::other("permission denied") };
        let said = |text| CliError::usage_of(caused(text)).to_string();
        assert_eq!(said("ca.crt can't be read"), "ca.crt can't be read: permission denied");
        assert_eq!(said("ca.crt: permission denied; mend it"), "ca.crt: permission denied; mend it");
        let error = anyhow::Error::new(caused("ca.crt can't be read")).context("--cert-dir certs");
        assert_eq!(CliError::from(error).to_string(), "--cert-dir certs: ca.crt can't be read: permission denied");
    }
}
