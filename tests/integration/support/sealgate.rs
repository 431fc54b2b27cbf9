//! The program under test, run to its end.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

/// The path of the program.
pub(crate) const SEALGATE: &str = env!("CARGO_BIN_EXE_sealgate");

/// The exit status of a run, and what it printed.
pub(crate) struct Answer {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Both, standard output first.
    pub(crate) text: String,
}

impl Answer {
    /// Runs a command to its end, without standard input.
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output().expect("sealgate can be started");
        let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("UTF-8"));
        let text = [stdout.as_str(), stderr.as_str()].concat();
        Self { status: output.status.code().expect("it ends by itself"), stdout, stderr, text }
    }

    /// Standard output as JSON; the run has to end with this status.
    #[track_caller]
    pub(crate) fn json(&self, status: i32) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{}", self.text))
    }

    /// The run has to end with this status, nothing on standard output, and this in its one message.
    #[track_caller]
    pub(crate) fn fails(&self, status: i32, text: &str) {
        assert_eq!((self.status, self.stdout.as_str()), (status, ""), "{}", self.stderr);
        assert!(self.stderr.contains(text), "{}", self.stderr);
    }
}

/// Runs `sealgate`.
pub(crate) fn sealgate(arguments: &[&str]) -> Answer {
    Answer::of(Command::new(SEALGATE).args(arguments))
}

/// Runs `sealgate` with this `GNUPGHOME`.
pub(crate) fn sealgate_with_keys(gnupg: &Path, arguments: &[&str]) -> Answer {
    Answer::of(Command::new(SEALGATE).args(arguments).env("GNUPGHOME", gnupg))
}
