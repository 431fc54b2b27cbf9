//! The keys of whoever signs: in GnuPG's keyring and agent, or in a file.
//!
//! [`crate::signature::compose()`] makes the signature. Here it is found out which key is meant, whether a verifier would take
//! its signatures at all, and who holds its secret part.

mod agent;
mod gnupg;
mod key_file;
pub mod plan;
mod query;

use std::{fmt, path::PathBuf};

use jiff::Timestamp;
use sequoia_openpgp::crypto;

use crate::signature::{Certificate, Fingerprint, KeyFault};

pub use gnupg::{Gnupg, home};
pub use key_file::read as key_file;
pub use query::KeyQuery;

/// A key that can sign now.
pub struct SigningKey {
    /// The certificate that it belongs to: what a policy names.
    pub certificate: Certificate,
    /// The key itself: the certificate's primary key, or a subkey of it.
    pub key: Fingerprint,
    /// Its first user ID, for people.
    pub user_id: Option<String>,
    /// What signs with it.
    pub signer: Box<dyn crypto::Signer + Send + Sync>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Why there is no key to sign with. Each says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// What was asked for is none of the three.
    #[error(
        "{0:?} is no key: expected a fingerprint (40 or 64 hexadecimal digits), a key ID (16), or an e-mail address"
    )]
    Query(String),
    /// Eight digits name many keys.
    #[error("{0:?} is a short key ID, and anyone can make another key with it: give the fingerprint")]
    ShortKeyId(String),
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
    /// Nothing in the keyring fits.
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

/// The one certificate that is meant, if it can sign at `now`.
fn chosen(
    certificates: Vec<Certificate>,
    query: &KeyQuery,
    keyring: &std::path::Path,
    now: Timestamp,
) -> Result<Certificate, KeyError> {
    let mut fitting: Vec<Certificate> =
        certificates.into_iter().filter(|certificate| query.fits(certificate.cert())).collect();
    if fitting.len() > 1 {
        // An e-mail address often has an old, expired key beside the one in use.
        let usable = |certificate: &Certificate| certificate.usable(now).is_ok();
        if fitting.iter().any(usable) {
            fitting.retain(usable);
        }
    }
    match fitting.len() {
        0 => Err(KeyError::NotFound { query: query.clone(), keyring: keyring.to_owned() }),
        1 => {
            let certificate = fitting.remove(0);
            let fault = match query {
                // A subkey that is named signs, or none does.
                KeyQuery::Key(name) if !certificate.cert().key_handle().aliases(name) => {
                    certificate.fault_of(name, now)
                }
                _ => certificate.usable(now).err(),
            };
            match fault {
                None => Ok(certificate),
                Some(fault) => Err(KeyError::Unusable { certificate: certificate.fingerprint(), fault }),
            }
        }
        _ => Err(KeyError::Ambiguous {
            query: query.clone(),
            found: fitting.iter().map(Certificate::fingerprint).collect(),
        }),
    }
}

/// The first user ID of a certificate, for people.
pub fn user_id(certificate: &Certificate) -> Option<String> {
    certificate.cert().userids().next().map(|user_id| String::from_utf8_lossy(user_id.userid().value()).into_owned())
}
