//! CA certificates beside the system's, from PEM files and folders of PEM files.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use rustls::RootCertStore;
use rustls_pki_types::pem::{PemObject, SectionKind};

/// The maximum size of a CA file, in bytes.
const MAX_CA_FILE: u64 = 4 << 20;

/// The reason why a CA file, or a folder of them, can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// The file or folder can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The folder has no CA file.
    #[error("{} has no *.crt file", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The file has no certificate, a malformed one, or a private key.
    #[error(
        "{} must have PEM certificates (-----BEGIN CERTIFICATE-----), only good ones, and no keys or lists beside them: \
         {problem}",
        path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: Box<str>,
    },
}

/// Adds the certificates of a PEM file, or of the `*.crt` files of a folder, to the trusted ones.
pub(super) fn trust(roots: &mut RootCertStore, path: &Path) -> Result<(), CaError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| CaError::Read { path, source }
    };
    if !fs::metadata(path).map_err(unreadable(path))?.is_dir() {
        return trust_file(roots, path, &read_bounded(path).map_err(unreadable(path))?);
    }
    let mut empty = true;
    for entry in fs::read_dir(path).map_err(unreadable(path))? {
        let file = entry.map_err(unreadable(path))?.path();
        if file.extension().is_some_and(|extension| extension == "crt") {
            trust_file(roots, &file, &read_bounded(&file).map_err(unreadable(&file))?)?;
            empty = false;
        }
    }
    if empty { Err(CaError::Empty { path: path.to_owned() }) } else { Ok(()) }
}

/// Checks that [`trust`] would accept a file or folder.
pub(crate) fn check_cas(path: &Path) -> Result<(), CaError> {
    trust(&mut RootCertStore::empty(), path)
}

fn trust_file(roots: &mut RootCertStore, path: &Path, pem: &[u8]) -> Result<(), CaError> {
    let bad = |problem: &str| CaError::Content { path: path.to_owned(), problem: problem.into() };
    let mut certificates = 0;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        match section {
            // Text around certificates is usual. A private key is not, and should not be there.
            Ok((SectionKind::Certificate, certificate)) => {
                roots.add(certificate.into()).map_err(|error| bad(&error.to_string()))?;
                certificates += 1;
            }
            Ok(_) => return Err(bad("something else than a certificate is in it")),
            Err(error) => return Err(bad(&error.to_string())),
        }
    }
    if certificates == 0 { Err(bad("there is none")) } else { Ok(()) }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_CA_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_CA_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 4 MiB"));
    }
    Ok(bytes)
}
