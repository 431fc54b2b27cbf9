//! Exit statuses, and failures that end a command with one.

use std::{fmt, process::ExitCode};

use crate::diagnostic::{Diagnostic, Diagnostics};

/// What the process's exit status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// 0: allowed, or done.
    Done,
    /// 1: refused, or not found.
    Refused,
    /// 2: the command line, a policy or a configuration is not valid.
    Usage,
    /// 3: it could not be decided.
    Undecided,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(match status {
            Status::Done => 0,
            Status::Refused => 1,
            Status::Usage => 2,
            Status::Undecided => 3,
        })
    }
}

/// Why a command ended before it had a result.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    what: What,
}

#[derive(Debug)]
enum What {
    Error(anyhow::Error),
    Diagnostics(Vec<Diagnostic>),
}

impl Failure {
    /// The user's to mend: arguments, policy, configuration.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { status: Status::Usage, what: What::Error(error.into()) }
    }

    /// Mistakes in files.
    pub(crate) fn diagnostics(diagnostics: Vec<Diagnostic>) -> Self {
        Self { status: Status::Usage, what: What::Diagnostics(diagnostics) }
    }

    /// The surroundings don't let it work.
    pub(crate) fn undecided(error: impl Into<anyhow::Error>) -> Self {
        Self { status: Status::Undecided, what: What::Error(error.into()) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Error(error) => write!(f, "{error:#}"),
            What::Diagnostics(diagnostics) => Diagnostics(diagnostics).fmt(f),
        }
    }
}
