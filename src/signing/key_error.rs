//! Why there is no key to sign with.

use std::path::PathBuf;

use super::query::{KeyQuery, KeyQueryError};
use crate::signature::{Fingerprint, KeyFault};

/// Why there is no key to sign with. Each says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text names no key.
    #[error(transparent)]
    Query(#[from] KeyQueryError),
    /// A file can't be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is expected, and what was found.
        what: String,
    },
    /// There is no such folder.
    #[error("there is no GnuPG folder {}: name yours with GNUPGHOME, or sign with a key file: --key-file", .0.display())]
    NoHome(PathBuf),
    /// GnuPG's keys are in a database of its own.
    #[error(
        "{}: use-keyboxd keeps the keys where only GnuPG reads them: export yours with gpg --export-secret-keys KEY > FILE, \
         and sign with --key-file FILE",
        .0.display()
    )]
    Keyboxd(PathBuf),
    /// No key in the keyring fits.
    #[error("no key of {query} in {}; gpg --list-secret-keys lists what is there", keyring.display())]
    NotFound {
        /// What was asked for.
        query: KeyQuery,
        /// Where it was looked for.
        keyring: PathBuf,
    },
    /// Several keys fit.
    #[error("{query} names several keys ({}): give the fingerprint of one", list(found))]
    Ambiguous {
        /// What was asked for.
        query: KeyQuery,
        /// The certificates that fit.
        found: Vec<Fingerprint>,
    },
    /// No verifier would take its signatures.
    #[error("signatures of {certificate} would be refused: {fault}")]
    Unusable {
        /// The certificate.
        certificate: Fingerprint,
        /// Why.
        #[source]
        fault: KeyFault,
    },
    /// The public key is there, the secret one is not.
    #[error(
        "the secret key of {0} is not here: gpg-agent has none of its keys that may sign (a smart card may have to be inserted)"
    )]
    NoSecret(Fingerprint),
    /// gpg-agent can't be asked.
    #[error("gpg-agent can't be asked: {source:#}; is GnuPG installed, and may it be started in {}?", home.display())]
    Agent {
        /// Why.
        source: anyhow::Error,
        /// GnuPG's folder.
        home: PathBuf,
    },
    /// The key file's secret key is locked.
    #[error("{}: the key has a passphrase: name a file with it: --passphrase-file", .0.display())]
    NoPassphrase(PathBuf),
    /// The passphrase is another one.
    #[error("{}: the passphrase in {} is wrong", key.display(), passphrase.display())]
    WrongPassphrase {
        /// The key file.
        key: PathBuf,
        /// The passphrase's.
        passphrase: PathBuf,
    },
}

fn list(found: &[Fingerprint]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
