//! Errors of server certificates.

use std::{io, path::PathBuf};

/// The reason why a server has no usable certificate. Each message names the file and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file can't be read.
    #[error("{}: can't be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A file is too long for certificates and keys.
    #[error("{}: longer than {limit} bytes; a PEM file with certificates or a key is expected", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The maximum, in bytes.
        limit: u64,
    },
    /// There is no certificate in the file.
    #[error("{}: no certificate is there; a PEM file with -----BEGIN CERTIFICATE----- is expected", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate can't be read.
    #[error("{}: not a usable certificate: {why}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// There is no private key in the file.
    #[error("{}: no private key is there; a PEM file with -----BEGIN PRIVATE KEY----- is expected", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is encrypted with a passphrase.
    #[error("{}: the private key is encrypted; write it without a passphrase: openssl pkey -in {} -out tls.key", path.display(), path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key can't be used.
    #[error("{}: not a usable private key: {why}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The key belongs to another certificate.
    #[error(
        "{} and {} do not belong together: the key is not that of the first certificate; put both of one pair there, \
         the server's own certificate before those of its CAs",
        chain.display(), key.display()
    )]
    Mismatch {
        /// The certificates.
        chain: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The CA of the clients can't be used.
    #[error("{}: not a usable CA for clients: {why}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A made certificate can't be stored.
    #[error(
        "{}: can't keep a certificate made for this server there ({source}); make it writable, or name files as \
         certificate: {{file: ..., key: ...}}",
        path.display()
    )]
    Keep {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A certificate can't be made.
    #[error("no certificate can be made: {0}")]
    Make(#[from] rcgen::Error),
}
