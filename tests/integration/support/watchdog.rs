//! Cleaning up after tests that can't do so themselves.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

/// A shell that waits beside this process and cleans up once this process has ended, however it ended: its standard
/// input is a pipe whose other end is only here. It has a process group of its own, so that Ctrl-C does not reach it.
///
/// Statics are never dropped, destructors don't run on signals, and `PR_SET_PDEATHSIG` is about threads: a pipe's end is
/// what is left, and it is certain.
pub(crate) struct Watchdog(Child);

impl Watchdog {
    /// Runs a script; `read` in it returns when this process is at its end (or the watchdog was dropped). What it prints
    /// is thrown away.
    pub(crate) fn start(script: &str, arguments: &[&str]) -> Self {
        let child = Command::new("sh")
            .args(["-c", script, "watchdog"])
            .args(arguments)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        Self(child)
    }

    /// Whether the script is still running.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
