//! A certificate chain and its key, read from PEM files.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use jiff::Timestamp;
use rustls::{
    Error, InconsistentKeys,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::TlsError;
use crate::files::with_reserve;
use crate::image::Digest;

/// The maximum size of a PEM file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A chain and its key, checked to belong together.
#[derive(Debug)]
pub(super) struct Pair {
    /// The pair in the form that rustls uses.
    pub(super) certified: Arc<CertifiedKey>,
    /// The expiry time of the server's own certificate.
    pub(super) expires_at: Timestamp,
    /// The digest of both files' bytes. Equal digests mean equal pairs.
    pub(super) digest: Digest,
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Pair {
    /// Reads the chain (the server's own certificate first) and the key.
    pub(super) fn read(chain_path: &Path, key_path: &Path, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let chain_bytes = read_file(chain_path)?;
        let key_bytes = read_file(key_path)?;
        let chain = certificates(chain_path, &chain_bytes)?;
        let key = private_key(key_path, &key_bytes)?;
        let (expires_at, _) =
            expiry_and_names(&chain[0]).map_err(|why| TlsError::Certificate { path: chain_path.to_owned(), why })?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { chain: chain_path.to_owned(), key: key_path.to_owned() }
            }
            Error::InvalidCertificate(why) => {
                TlsError::Certificate { path: chain_path.to_owned(), why: format!("{why:?}") }
            }
            other => TlsError::Key { path: key_path.to_owned(), why: other.to_string() },
        })?;
        let digest = Digest::sha256(&[chain_bytes, key_bytes].concat());
        Ok(Self { certified: Arc::new(certified), expires_at, digest })
    }
}

/// Reads a file of at most [`MAX_FILE_BYTES`].
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = with_reserve(read).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(TlsError::TooLong { path: path.to_owned(), limit: MAX_FILE_BYTES });
    }
    Ok(bytes)
}

/// Parses all certificates of a PEM file, at least one.
pub(super) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| TlsError::Certificate { path: path.to_owned(), why: error.to_string() })?;
    if all.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(all) }
}

fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let path = path.to_owned();
        let has = |text: &[u8]| pem.windows(text.len()).any(|window| window == text);
        match error {
            // OpenSSL writes encrypted keys in either of these forms.
            _ if has(b"ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED") => {
                TlsError::EncryptedKey { path }
            }
            rustls::pki_types::pem::Error::NoItemsFound => TlsError::NoKey { path },
            error => TlsError::Key { path, why: error.to_string() },
        }
    })
}

/// Returns when a certificate expires, and its subject alternative names (addresses in their usual text).
pub(super) fn expiry_and_names(certificate: &CertificateDer<'_>) -> Result<(Timestamp, Vec<String>), String> {
    use x509_parser::extensions::GeneralName;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    let expires_at =
        Timestamp::from_second(parsed.validity().not_after.timestamp()).map_err(|error| error.to_string())?;
    let names = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => match octets.len() {
            4 => <[u8; 4]>::try_from(*octets).ok().map(|octets| std::net::Ipv4Addr::from(octets).to_string()),
            16 => <[u8; 16]>::try_from(*octets).ok().map(|octets| std::net::Ipv6Addr::from(octets).to_string()),
            _ => None,
        },
        _ => None,
    });
    Ok((expires_at, names.collect()))
}
