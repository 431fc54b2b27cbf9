//! Real skopeo.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
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

/// A policy.json that accepts anything: for copies that only make material.
pub(crate) fn accept_anything(folder: &Scratch) -> PathBuf {
    folder.write("accept-anything.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)
}

/// Returns what a program wrote to standard error.
pub(crate) fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
