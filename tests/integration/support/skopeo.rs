//! Real skopeo.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::Scratch;

/// Runs skopeo with this GnuPG home folder; it may fail.
pub(crate) fn skopeo(gnupg_home: &Path, arguments: &[&str]) -> Output {
    Command::new("skopeo")
        .args(arguments)
        .current_dir(gnupg_home)
        .env("GNUPGHOME", gnupg_home)
        .stdin(Stdio::null())
        .output()
        .expect("skopeo is installed")
}

/// Writes a policy.json that accepts anything: for copies that only make material. Each call has a file of its own, so that no
/// other thread's skopeo reads one that is being written.
pub(crate) fn accept_anything(folder: &Scratch) -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("accept-anything-{}.json", NUMBER.fetch_add(1, Ordering::Relaxed));
    folder.write(&name, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)
}

/// Returns what a program wrote to standard error.
pub(crate) fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
