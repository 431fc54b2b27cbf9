//! The program under test, run to its end.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
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
        Self::from(command.stdin(Stdio::null()).output().expect("sealgate can be started"))
    }

    /// Runs a command to its end, with this on its standard input, whether or not it reads that.
    pub(crate) fn with_input(command: &mut Command, input: &[u8]) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("sealgate can be started");
        let (mut stdin, input) = (child.stdin.take().expect("it is piped"), input.to_owned());
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("sealgate ends");
        writer.join().expect("the input is written or refused");
        Self::from(output)
    }

    fn from(output: Output) -> Self {
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

    /// The run has to end as with [`Answer::fails`], and print nothing before the error.
    #[track_caller]
    pub(crate) fn fails_with(&self, status: i32, text: &str) {
        self.fails(status, text);
        assert!(self.stderr.starts_with("error: "), "{}", self.stderr);
    }

    /// The run has to end as with [`Answer::fails`], with the error as its last line, behind lines about its progress.
    #[track_caller]
    pub(crate) fn fails_after_lines(&self, status: i32, text: &str) {
        self.fails(status, text);
        let last = self.stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains(text), "{}", self.stderr);
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
