//! Errors of finding a key to sign with.

use std::path::PathBuf;

use super::query::{KeyQuery, KeyQueryError};
use crate::signature::{Fingerprint, KeyFault};

/// The reason why there is no key to sign with. Each message says what to do next.
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
        /// The system's error.
        source: std::io::Error,
    },
    /// A file does not contain what is expected.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The expectation, and the finding.
        what: String,
    },
    /// The GnuPG folder does not exist.
    #[error("there is no GnuPG folder {}: name yours with GNUPGHOME, or sign with a key file: --key-file", .0.display())]
    NoHome(PathBuf),
    /// GnuPG keeps its keys in a database that only GnuPG reads.
    #[error(
        "{}: use-keyboxd keeps the keys where only GnuPG reads them: export yours with gpg --export-secret-keys KEY > FILE, \
         and sign with --key-file FILE",
        .0.display()
    )]
    Keyboxd(PathBuf),
    /// No key in the keyring matches.
    #[error("no key of {query} in {}; gpg --list-secret-keys lists what is there", keyring.display())]
    NotFound {
        /// The query.
        query: KeyQuery,
        /// The keyring that was searched.
        keyring: PathBuf,
    },
    /// Several keys match.
    #[error("{query} names several keys ({}): give the fingerprint of one", list(found))]
    Ambiguous {
        /// The query.
        query: KeyQuery,
        /// The certificates that match.
        found: Vec<Fingerprint>,
    },
    /// Verifiers would refuse the key's signatures.
    #[error("signatures of {certificate} would be refused: {fault}")]
    Unusable {
        /// The certificate.
        certificate: Fingerprint,
        /// The reason.
        #[source]
        fault: KeyFault,
    },
    /// The keyring has the public key, but the agent does not have the secret key.
    #[error(
        "the secret key of {0} is not here: gpg-agent has none of its keys that may sign (a smart card may have to be inserted)"
    )]
    NoSecret(Fingerprint),
    /// gpg-agent can't be asked.
    #[error("gpg-agent can't be asked: {source:#}; is GnuPG installed, and may it be started in {}?", home.display())]
    Agent {
        /// The error of the agent, or of starting it.
        source: anyhow::Error,
        /// GnuPG's folder.
        home: PathBuf,
    },
    /// The key file's secret key is encrypted, and no passphrase was given.
    #[error("{}: the key has a passphrase: name a file with it: --passphrase-file", .0.display())]
    NoPassphrase(PathBuf),
    /// The passphrase is wrong.
    #[error("{}: the passphrase in {} is wrong", key.display(), passphrase.display())]
    WrongPassphrase {
        /// The key file.
        key: PathBuf,
        /// The file of the passphrase.
        passphrase: PathBuf,
    },
}

fn list(found: &[Fingerprint]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
