//! CA certificates beside the system's: PEM files, and folders of them.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use rustls::RootCertStore;
use rustls_pki_types::pem::{PemObject, SectionKind};

/// The largest CA file that is read.
const MAX_CA_FILE: u64 = 4 << 20;

/// Why a CA file, or a folder of them, is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// It can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A folder without a CA file.
    #[error("{} has no *.crt file", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// A file has no certificate, one that is none, or a key.
    #[error(
        "{} must have PEM certificates (-----BEGIN CERTIFICATE-----), only good ones, and no keys or lists beside them: \
         {problem}",
        path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: Box<str>,
    },
}

/// Trusts the certificates of a PEM file, or of the `*.crt` files of a folder.
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

/// Whether [`trust`] would take it.
pub(crate) fn check_cas(path: &Path) -> Result<(), CaError> {
    trust(&mut RootCertStore::empty(), path)
}

fn trust_file(roots: &mut RootCertStore, path: &Path, pem: &[u8]) -> Result<(), CaError> {
    let bad = |problem: &str| CaError::Content { path: path.to_owned(), problem: problem.into() };
    let mut certificates = 0;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        match section {
            // Text around them is usual. A private key is not, and should not lie there.
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
