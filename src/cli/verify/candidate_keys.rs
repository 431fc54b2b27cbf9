//! The keys that signatures are checked against, from files or GnuPG's keyring.

use std::{fs, io::Read as _, path::PathBuf, sync::Arc};

use crate::cli::exit_status::CliError;
use crate::signature::{Certificate, Fingerprint, Keyring, Keys, keyring::MAX_KEYRING_BYTES};
use crate::signing::{self, Gnupg, KeyError, user_id};

/// The keys that signatures are checked against.
pub(super) struct CandidateKeys {
    /// The files or the folder of the keys, for messages.
    pub(super) from: String,
    pub(super) certificates: Vec<Arc<Certificate>>,
}

/// Reads the certificates in key files.
pub(super) fn key_files(files: &[PathBuf]) -> Result<CandidateKeys, CliError> {
    let mut keyring = Keyring::default();
    for file in files {
        let bad = |why: &dyn std::fmt::Display| CliError::usage(format_args!("--public-key {}: {why}", file.display()));
        let mut bytes = Vec::new();
        let limit = MAX_KEYRING_BYTES as u64 + 1;
        fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(|error| bad(&error))?;
        keyring.add(&bytes).map_err(|error| bad(&error))?;
    }
    let from = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    let found = keyring.finish().map_err(|error| CliError::usage(format_args!("--public-key {from}: {error}")))?;
    let Keys { certificates, notices } = found;
    for notice in notices {
        tracing::warn!("--public-key {from}: {notice}");
    }
    Ok(CandidateKeys { from, certificates: certificates.into_iter().map(Arc::new).collect() })
}

/// Reads all certificates of GnuPG's keyring.
pub(super) fn keyring() -> Result<CandidateKeys, CliError> {
    let none = |why: &dyn std::fmt::Display| {
        CliError::usage(format_args!("{why}: name the signers' public keys with --public-key, or import them with gpg"))
    };
    let home = signing::home().ok_or_else(|| none(&"there is no home folder, and GNUPGHOME is not set"))?;
    if !home.is_dir() {
        return Err(none(&format_args!("there is no GnuPG folder {}", home.display())));
    }
    let from = format!("the keyring in {}", home.display());
    let certificates = Gnupg::at(home)?.certificates().map_err(|error| match error {
        KeyError::Keyboxd(file) => CliError::usage(format_args!(
            "{}: use-keyboxd keeps the keys where only GnuPG reads them: gpg --export KEY > FILE, and name it with --public-key",
            file.display()
        )),
        error => error.into(),
    })?;
    if certificates.is_empty() {
        return Err(none(&format_args!("{from} has no key")));
    }
    Ok(CandidateKeys { from, certificates: certificates.into_iter().map(Arc::new).collect() })
}

impl CandidateKeys {
    /// Returns the user ID of the certificate with this fingerprint.
    pub(super) fn user_id(&self, key: &Fingerprint) -> Option<String> {
        self.certificates.iter().find(|certificate| certificate.fingerprint() == *key).and_then(|one| user_id(one))
    }
}
