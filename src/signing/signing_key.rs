//! A key that signs, and the choice of one.

use std::fmt;

use jiff::Timestamp;
use sequoia_openpgp::crypto;

use super::{key_error::KeyError, query::KeyQuery};
use crate::signature::{Certificate, Fingerprint};

/// A key that can sign now.
pub struct SigningKey {
    /// The certificate of the key, which policies name.
    pub certificate: Certificate,
    /// The key itself: the certificate's primary key, or a subkey of it.
    pub key: Fingerprint,
    /// The first user ID of the certificate, for messages.
    pub user_id: Option<String>,
    /// The holder of its secret part.
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

/// Returns the one certificate that matches and can sign at `now`.
pub(super) fn chosen(
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
                // If the query names a subkey, only that one signs.
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

/// Returns the first user ID of a certificate, for messages.
pub fn user_id(certificate: &Certificate) -> Option<String> {
    certificate.cert().userids().next().map(|user_id| String::from_utf8_lossy(user_id.userid().value()).into_owned())
}
