//! Exit statuses, and failures that end a command with one.

use std::{fmt, process::ExitCode};

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
    message: String,
}

impl Failure {
    /// The user's to mend: arguments, policy, configuration. The error's text says all of it, its source included.
    pub(crate) fn usage(error: impl fmt::Display) -> Self {
        Self { status: Status::Usage, message: error.to_string() }
    }

    /// The surroundings don't let it work.
    pub(crate) fn undecided(error: impl fmt::Display) -> Self {
        Self { status: Status::Undecided, message: error.to_string() }
    }
}

/// From `anyhow`, whose causes are printed behind the error. What a command is given is nearly always what it fails of.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::usage(format_args!("{error:#}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
