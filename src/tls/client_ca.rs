//! The CA of clients, replaceable while the server runs: only clients with a certificate of this CA are served.

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use tokio::time::Instant;

use super::{TlsError, pair};
use crate::files::follower::{Follower, Progress};
use crate::image::Digest;

/// Verifies client certificates against the CA in force.
#[derive(Debug)]
pub(super) struct Verifier(ArcSwap<ClientCa>);

/// The CAs of a file.
#[derive(Debug)]
pub(super) struct ClientCa {
    verifier: Arc<dyn ClientCertVerifier>,
    /// The digest of the file's bytes.
    digest: Digest,
}

impl PartialEq for ClientCa {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Verifier {
    pub(super) fn read(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        load(path, provider).map(|loaded| Self(ArcSwap::from_pointee(loaded)))
    }

    /// Returns the digest of the file whose CAs are in force.
    #[cfg(test)]
    pub(super) fn digest(&self) -> Digest {
        self.0.load().digest
    }

    /// Reads the file again, and puts it in force once a change of it has settled.
    pub(super) fn refresh(
        &self,
        path: &Path,
        provider: &Arc<CryptoProvider>,
        follower: &mut Follower<Arc<ClientCa>>,
        now: Instant,
    ) -> Progress {
        follower.follow(&self.0, load(path, provider), now)
    }
}

fn load(path: &Path, provider: &Arc<CryptoProvider>) -> Result<ClientCa, TlsError> {
    let failed = |why: String| TlsError::ClientCa { path: path.to_owned(), why };
    let bytes = pair::read_file(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in pair::certificates(path, &bytes)? {
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| failed(error.to_string()))?;
    Ok(ClientCa { verifier, digest: Digest::sha256(&bytes) })
}

impl ClientCertVerifier for Verifier {
    /// Returns no hints. They could not follow a replaced CA, and a client without hints offers the certificate that it
    /// has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.load().verifier.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.load().verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.load().verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.load().verifier.supported_verify_schemes()
    }
}
