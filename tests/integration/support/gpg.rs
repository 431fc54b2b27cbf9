//! Real GnuPG, with a home folder of its own.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use sealgate::image::Digest;

use super::{Left, Scratch};

/// A GnuPG home folder with its agent.
pub(crate) struct Gpg {
    home: Scratch,
}

impl Gpg {
    pub(crate) fn new() -> Self {
        let home = Scratch::new();
        home.write("gpg.conf", "batch\nno-tty\nno-greeting\ntrust-model always\n");
        home.write("gpg-agent.conf", "allow-loopback-pinentry\nmax-cache-ttl 86400\n");
        let path = home.path().display().to_string();
        super::run("chmod", ["700", &path]);
        Left::Gnupg(path).note();
        Self { home }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Makes an Ed25519 key without passphrase and without end; gives its fingerprint.
    pub(crate) fn generate(&self, user: &str) -> String {
        self.generate_with(user, "ed25519", &[])
    }

    /// Makes a key of an algorithm as `gpg --quick-generate-key` names it (`rsa2048`, `ed25519`, `nistp256`), with further
    /// options (`--faked-system-time` and the like).
    pub(crate) fn generate_with(&self, user: &str, algorithm: &str, options: &[&str]) -> String {
        let mut arguments = options.to_vec();
        arguments.extend(["--pinentry-mode", "loopback", "--passphrase", "", "--status-fd", "1"]);
        arguments.extend(["--quick-generate-key", user, algorithm, "sign,cert", "never"]);
        let output = self.run(&arguments, b"");
        let text = String::from_utf8_lossy(&output);
        let fingerprint = text
            .lines()
            .find_map(|line| line.strip_prefix("[GNUPG:] KEY_CREATED P "))
            .unwrap_or_else(|| panic!("gpg made no key: {text}"));
        fingerprint.trim().to_owned()
    }

    /// The armored public key.
    pub(crate) fn export(&self, fingerprint: &str) -> Vec<u8> {
        self.run(&["--armor", "--export", fingerprint], b"")
    }

    /// Writes the armored public key into a file.
    pub(crate) fn export_to(&self, fingerprint: &str, path: PathBuf) -> PathBuf {
        std::fs::write(&path, self.export(fingerprint)).expect("a key file can be written");
        path
    }

    /// Signs bytes as skopeo does: one binary message with its content inside.
    pub(crate) fn sign(&self, fingerprint: &str, payload: &[u8]) -> Vec<u8> {
        self.run(&["--pinentry-mode", "loopback", "--passphrase", "", "--local-user", fingerprint, "--sign"], payload)
    }

    /// Signs a payload that claims this digest and this docker reference.
    pub(crate) fn sign_image(&self, fingerprint: &str, digest: &Digest, reference: &str) -> Vec<u8> {
        self.sign(fingerprint, payload(digest, reference).as_bytes())
    }

    /// Runs gpg with these arguments and this input; it has to succeed; gives what it prints.
    pub(crate) fn run(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.try_run(arguments, input);
        assert!(output.status.success(), "gpg {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// As [`Gpg::run`], but it may fail.
    pub(crate) fn try_run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new("gpg")
            .arg("--homedir")
            .arg(self.home())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gpg is installed");
        child.stdin.take().expect("stdin is a pipe").write_all(input).expect("gpg reads its input");
        child.wait_with_output().expect("gpg ends")
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        // The agent would outlive the test; where none was started there is nothing to end.
        let _ = Command::new("gpgconf").arg("--homedir").arg(self.home()).args(["--kill", "all"]).output();
        Left::Gnupg(self.home().display().to_string()).forget();
    }
}

/// The payload that skopeo signs (containers-signature(5)).
pub(crate) fn payload(digest: &Digest, reference: &str) -> String {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{reference}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"atomic container signature"}},"optional":{{"creator":"tests","timestamp":1790000000}}}}"#
    )
}
