//! Certificates of Sealgate's own servers: loaded or made, and replaced while a server runs.
//!
//! A [`ServerTls`] gives out one rustls configuration whose certificate can be replaced: open connections keep theirs,
//! the next handshake gets the new one. This module does not watch files; the code that does calls
//! [`ServerTls::refresh`].

mod client_ca;
mod error;
mod made;
mod pair;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::time::Instant;

use crate::configuration::Certificate;
use crate::files::follower::{Follower, Progress};

pub use error::TlsError;
use pair::Pair;

/// The DNS names of the webhook's Service, which the API server verifies. A certificate that Sealgate makes carries
/// them.
pub const WEBHOOK_NAMES: &[&str] = &["sealgate-webhook.sealgate.svc", "sealgate-webhook.sealgate.svc.cluster.local"];

/// A server's certificate, its key, and the CA of its clients, replaceable while the server runs.
#[derive(Debug)]
pub struct ServerTls {
    source: Certificate,
    names: Vec<String>,
    current: Arc<Current>,
    client_ca: Option<(PathBuf, Arc<client_ca::Verifier>)>,
    provider: Arc<CryptoProvider>,
    followers: Mutex<Followers>,
}

/// The state of the files of certificate and client CA. Each is replaced by itself: a broken CA file does not keep a
/// renewed certificate out, nor the reverse.
#[derive(Debug)]
struct Followers {
    pair: Follower<Arc<Pair>>,
    client_ca: Follower<Arc<client_ca::ClientCa>>,
}

/// The result of [`ServerTls::refresh`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// A new certificate or a new client CA is in force.
    pub changed: bool,
    /// The certificate's files are refused, so that the last good pair stays in force.
    pub certificate_refused: bool,
    /// The client CA's file is refused, so that the last good CA stays in force.
    pub client_ca_refused: bool,
    /// The time until the next refresh, if it should come earlier than usual because a change has to settle.
    pub again: Option<Duration>,
}

/// The pair that new handshakes get.
#[derive(Debug)]
struct Current(ArcSwap<Pair>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().certified))
    }
}

/// Checks that these files are one usable pair, for a client or a server.
///
/// # Errors
/// The files can't be read, are malformed, or do not belong together; the message names them.
pub(crate) fn check_pair(chain: &Path, key: &Path) -> Result<(), TlsError> {
    Pair::read(chain, key, &rustls::crypto::aws_lc_rs::default_provider()).map(drop)
}

impl ServerTls {
    /// Loads the certificate, or makes one that carries `names`, `localhost` and the loopback addresses.
    ///
    /// With `client_ca` (a PEM file), the handshake fails for clients without a certificate of that CA.
    ///
    /// # Errors
    /// The files are not one usable pair; the message names them and says what to do. An expired certificate is no
    /// error: see [`ServerTls::expires_at`].
    pub fn load(
        certificate: &Certificate,
        client_ca: Option<&Path>,
        names: &[&str],
        now: Timestamp,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let pair = read(certificate, &names, &provider, now)?;
        let client_ca = match client_ca {
            Some(path) => Some((path.to_owned(), Arc::new(client_ca::Verifier::read(path, &provider)?))),
            None => None,
        };
        let current = Arc::new(Current(ArcSwap::from_pointee(pair)));
        let followers = Mutex::new(Followers {
            pair: Follower::new("the certificate's files"),
            client_ca: Follower::new("the client CA's certificates"),
        });
        Ok(Self { source: certificate.clone(), names, current, client_ca, provider, followers })
    }

    /// Returns a rustls configuration for TLS 1.2 and 1.3. Every configuration given out follows each reload. The
    /// listener adds its application protocols (ALPN).
    pub fn server_config(&self) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider knows both versions");
        let builder = match &self.client_ca {
            Some((_, verifier)) => builder.with_client_cert_verifier(Arc::clone(verifier) as _),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&self.current) as _);
        if self.client_ca.is_some() {
            // A resumed session would not be checked against a CA that was exchanged since.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config
    }

    /// Reads the files again, renews a made certificate that expires soon, and puts changes in force. Certificate and
    /// client CA change independently, each once two reads a little apart are equal. If a change is refused, the last
    /// good one stays in force. Logs each change.
    ///
    /// `now` is the wall-clock time for expiry, `at` the time of the monotonic clock.
    pub fn refresh(&self, now: Timestamp, at: Instant) -> Refreshed {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        let Followers { pair, client_ca } = &mut *followers;
        let certificate = read(&self.source, &self.names, &self.provider, now);
        let mut progress = vec![pair.follow(&self.current.0, certificate, at)];
        if let Some((path, verifier)) = &self.client_ca {
            progress.push(verifier.refresh(path, &self.provider, client_ca, at));
        }
        Refreshed {
            changed: progress.contains(&Progress::Changed),
            certificate_refused: pair.is_refused(),
            client_ca_refused: client_ca.is_refused(),
            again: progress.into_iter().filter_map(Progress::again).min(),
        }
    }

    /// Returns when the server's certificate expires.
    pub fn expires_at(&self) -> Timestamp {
        self.current.0.load().expires_at
    }

    /// Returns the files whose change should lead to [`ServerTls::refresh`].
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = match &self.source {
            Certificate::Files { chain, key } => vec![chain.clone(), key.clone()],
            Certificate::Made { folder } => vec![folder.join(made::CHAIN), folder.join(made::KEY)],
        };
        files.extend(self.client_ca.iter().map(|(path, _)| path.clone()));
        files
    }

    /// Returns the PEM file of the CA that signed a made certificate, for clients to trust. `None` if the certificate
    /// is from the configuration.
    pub fn made_ca(&self) -> Option<PathBuf> {
        match &self.source {
            Certificate::Files { .. } => None,
            Certificate::Made { folder } => Some(folder.join(made::CA)),
        }
    }
}

fn read(source: &Certificate, names: &[String], provider: &CryptoProvider, now: Timestamp) -> Result<Pair, TlsError> {
    match source {
        Certificate::Files { chain, key } => Pair::read(chain, key, provider),
        Certificate::Made { folder } => made::read_or_make(folder, names, provider, now),
    }
}

#[cfg(test)]
mod tests;
