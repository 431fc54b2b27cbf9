//! Keys of GnuPG: the certificates from its keyring, the secret parts behind gpg-agent. gpg itself is not run.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use sequoia_gpg_agent::{
    Agent,
    sequoia_ipc::keybox::{Keybox, KeyboxRecord},
};
use sequoia_openpgp::{Cert, KeyHandle, cert::CertParser, parse::Parse as _};

use super::{KeyError, KeyQuery, SigningKey, chosen, user_id};
use crate::signature::{Certificate, Fingerprint};

/// Keyrings are longer than this only by mistake: Debian's has about a tenth of it.
const LARGEST_KEYRING: u64 = 256 << 20;

/// A GnuPG folder.
#[derive(Clone, Debug)]
pub struct Gnupg {
    home: PathBuf,
}

/// The folder that GnuPG uses: `$GNUPGHOME`, or `~/.gnupg`.
pub fn home() -> Option<PathBuf> {
    let set = env::var_os("GNUPGHOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    set.or_else(|| env::home_dir().map(|home| home.join(".gnupg")))
}

impl Gnupg {
    /// The folder, which must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn at(home: PathBuf) -> Result<Self, KeyError> {
        if home.is_dir() { Ok(Self { home }) } else { Err(KeyError::NoHome(home)) }
    }

    /// Every certificate of its keyrings, `pubring.kbx` (GnuPG since 2.1) and `pubring.gpg`. What GnuPG itself could not read
    /// is left out.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn certificates(&self) -> Result<Vec<Certificate>, KeyError> {
        let mut certificates = Vec::new();
        if let Some(bytes) = self.read("pubring.kbx")? {
            let path = self.home.join("pubring.kbx");
            let keybox = Keybox::from_bytes(&bytes)
                .map_err(|error| KeyError::Content { path, what: format!("this is no keybox of GnuPG: {error:#}") })?;
            for record in keybox.flatten() {
                if let KeyboxRecord::OpenPGP(record) = record
                    && let Ok(certificate) = record.cert()
                {
                    add(&mut certificates, certificate);
                }
            }
        }
        if let Some(bytes) = self.read("pubring.gpg")? {
            let parser = CertParser::from_bytes(&bytes).map_err(|error| KeyError::Content {
                path: self.home.join("pubring.gpg"),
                what: format!("this is no keyring of GnuPG: {error:#}"),
            })?;
            for certificate in parser.flatten() {
                add(&mut certificates, certificate);
            }
        }
        Ok(certificates.into_iter().map(Certificate::of).collect())
    }

    /// The key that is meant, with gpg-agent to sign. The agent (started if need be) asks for the passphrase or the card,
    /// when it is time to sign.
    ///
    /// # Errors
    /// No such key, several, none that may sign; the agent can't be asked or does not have it.
    pub async fn signing_key(&self, query: &KeyQuery, now: Timestamp) -> Result<SigningKey, KeyError> {
        let keyring = self.home.join("pubring.kbx");
        let certificate = chosen(self.certificates()?, query, &keyring, now)?;
        let failed =
            |error: sequoia_gpg_agent::Error| KeyError::Agent { source: error.into(), home: self.home.clone() };
        let mut agent = Agent::connect_to(&self.home).await.map_err(failed)?;
        for key in certificate.signing_keys(now) {
            let handle: KeyHandle = key.key_handle();
            if !query.allows(certificate.cert(), &handle) {
                continue;
            }
            if !agent.has_key(&key).await.map_err(failed)? {
                continue;
            }
            let mut pair = agent.keypair(&key).map_err(failed)?;
            if let Ok(valid) = certificate.cert().with_policy(&sequoia_openpgp::policy::StandardPolicy::new(), None) {
                pair = pair.with_cert(&valid);
            }
            let user_id = user_id(&certificate);
            return Ok(SigningKey { key: Fingerprint::of(&handle), user_id, signer: Box::new(pair), certificate });
        }
        Err(KeyError::NoSecret(certificate.fingerprint()))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, KeyError> {
        use io::Read as _;
        let path = self.home.join(name);
        let mut bytes = Vec::new();
        let read = fs::File::open(&path).and_then(|file| file.take(LARGEST_KEYRING + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) if bytes.len() as u64 > LARGEST_KEYRING => {
                let limit = bytesize::ByteSize::b(LARGEST_KEYRING);
                let source = io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {limit}"));
                Err(KeyError::File { path, source })
            }
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeyError::File { path, source }),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.home
    }
}

/// Adds a certificate, or merges it with what another keyring says of it.
fn add(certificates: &mut Vec<Cert>, certificate: Cert) {
    let fingerprint = certificate.fingerprint();
    match certificates.iter_mut().find(|known| known.fingerprint() == fingerprint) {
        Some(known) => {
            if let Ok(merged) = known.clone().merge_public(certificate) {
                *known = merged;
            }
        }
        None => certificates.push(certificate),
    }
}
