//! Keys of GnuPG: certificates from its keyring, secret keys in gpg-agent. gpg itself is not run.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use sequoia_gpg_agent::Agent;
use sequoia_openpgp::{Cert, KeyHandle, cert::CertParser, crypto, parse::Parse as _};

use super::{
    agent::AgentKey,
    key_error::KeyError,
    query::KeyQuery,
    signing_key::{SigningKey, chosen, user_id},
};
use crate::signature::{Certificate, Fingerprint};

/// The maximum size of a keyring, in bytes. Debian's has about a tenth of it.
const MAX_KEYRING: u64 = 256 << 20;

/// The time limit for gpg-agent to start and to list its keys. It asks the user nothing until it signs.
const AGENT_TIMEOUT: Duration = Duration::from_secs(15);

/// A GnuPG folder.
#[derive(Clone, Debug)]
pub struct Gnupg {
    home: PathBuf,
}

/// Returns the folder that GnuPG uses: `$GNUPGHOME`, or `~/.gnupg`.
pub fn home() -> Option<PathBuf> {
    let set = env::var_os("GNUPGHOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    set.or_else(|| env::home_dir().map(|home| home.join(".gnupg")))
}

impl Gnupg {
    /// Opens a GnuPG folder.
    ///
    /// # Errors
    /// The folder does not exist.
    pub fn at(home: PathBuf) -> Result<Self, KeyError> {
        if home.is_dir() { Ok(Self { home }) } else { Err(KeyError::NoHome(home)) }
    }

    /// Returns every certificate of the keyrings `pubring.kbx` (GnuPG since 2.1) and `pubring.gpg`, without those that
    /// GnuPG itself could not read.
    ///
    /// # Errors
    /// A file can't be read, or is damaged.
    pub fn certificates(&self) -> Result<Vec<Certificate>, KeyError> {
        if let Some(bytes) = self.read("common.conf")?
            && uses_keyboxd(&String::from_utf8_lossy(&bytes))
        {
            return Err(KeyError::Keyboxd(self.home.join("common.conf")));
        }
        let mut certificates = Vec::new();
        if let Some(bytes) = self.read("pubring.kbx")? {
            let path = self.home.join("pubring.kbx");
            let keyblocks = keyblocks(&bytes).map_err(|what| KeyError::Content { path, what })?;
            for certificate in keyblocks.into_iter().filter_map(|bytes| Cert::from_bytes(bytes).ok()) {
                add(&mut certificates, certificate);
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

    /// Finds the one key that the query names, with gpg-agent as its signer. The agent is started if it does not run.
    /// It asks for the passphrase or the card when it signs.
    ///
    /// # Errors
    /// No key matches, several do, or none of them may sign; or the agent can't be asked, or does not have the key.
    pub async fn signing_key(&self, query: &KeyQuery, now: Timestamp) -> Result<SigningKey, KeyError> {
        let keyring = self.home.join("pubring.kbx");
        let certificate = chosen(self.certificates()?, query, &keyring, now)?;
        let asked = self.ask_agent(&certificate, query, now);
        let found = tokio::time::timeout(AGENT_TIMEOUT, asked).await.unwrap_or_else(|_| {
            let seconds = AGENT_TIMEOUT.as_secs();
            Err(self.no_agent(anyhow::anyhow!("it has not answered within {seconds} s")))
        });
        let (key, signer) = found?.ok_or_else(|| KeyError::NoSecret(certificate.fingerprint()))?;
        Ok(SigningKey { key, user_id: user_id(&certificate), signer, certificate })
    }

    /// Returns the first key of a certificate that may sign, and that the agent has.
    async fn ask_agent(
        &self,
        certificate: &Certificate,
        query: &KeyQuery,
        now: Timestamp,
    ) -> Result<Option<(Fingerprint, Box<dyn crypto::Signer + Send + Sync>)>, KeyError> {
        let failed = |error: sequoia_gpg_agent::Error| self.no_agent(error.into());
        // Starting the agent runs gpgconf and waits for it, which would block the timer.
        let (home, runtime) = (self.home.clone(), tokio::runtime::Handle::current());
        let connected = tokio::task::spawn_blocking(move || runtime.block_on(Agent::connect_to(&home)));
        let mut agent = connected.await.map_err(|panic| self.no_agent(panic.into()))?.map_err(failed)?;
        for key in certificate.signing_keys(now) {
            let handle: KeyHandle = key.key_handle();
            if !query.allows(certificate.cert(), &handle) || !agent.has_key(&key).await.map_err(failed)? {
                continue;
            }
            let signer = AgentKey::new(self.home.clone(), certificate.cert(), key);
            return Ok(Some((Fingerprint::of(&handle), Box::new(signer))));
        }
        Ok(None)
    }

    fn no_agent(&self, source: anyhow::Error) -> KeyError {
        KeyError::Agent { source, home: self.home.clone() }
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, KeyError> {
        use io::Read as _;
        let path = self.home.join(name);
        let mut bytes = Vec::new();
        let read = fs::File::open(&path).and_then(|file| file.take(MAX_KEYRING + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) if bytes.len() as u64 > MAX_KEYRING => {
                let limit = bytesize::ByteSize::b(MAX_KEYRING);
                let source = io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {limit}"));
                Err(KeyError::File { path, source })
            }
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeyError::File { path, source }),
        }
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.home
    }
}

/// Splits a keybox into its OpenPGP certificates, each as its packets (GnuPG's kbx/keybox-blob.c). sequoia-ipc's reader
/// does not terminate, or panics, if a record's lengths are wrong.
fn keyblocks(bytes: &[u8]) -> Result<Vec<&[u8]>, String> {
    /// The bytes of length, type and version.
    const LEAST: usize = 6;
    const HEADER: u8 = 1;
    const OPENPGP: u8 = 2;
    let number = |bytes: &[u8], at: usize| -> Option<usize> {
        let bytes = bytes.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_be_bytes(*bytes)).ok()
    };
    let mut found = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let damaged = || {
            format!("this keybox of GnuPG is damaged at byte {at}: restore it, or sign with a key file (--key-file)")
        };
        let length = number(rest, 0).filter(|&length| length >= LEAST).ok_or_else(damaged)?;
        let (record, behind) = rest.split_at_checked(length).ok_or_else(damaged)?;
        if at == 0 && (record[4] != HEADER || record.get(8..12) != Some(b"KBXf")) {
            return Err("this is no keybox of GnuPG: it does not begin with a header".to_owned());
        }
        if (record[4], record[5]) == (OPENPGP, 1) {
            let start = number(record, 8).ok_or_else(damaged)?;
            let end = number(record, 12).and_then(|length| start.checked_add(length)).ok_or_else(damaged)?;
            found.push(record.get(start..end).ok_or_else(damaged)?);
        }
        rest = behind;
    }
    Ok(found)
}

/// Returns whether GnuPG keeps its certificates in keyboxd's database, so that `pubring.kbx` is out of date or missing.
fn uses_keyboxd(common_conf: &str) -> bool {
    common_conf.lines().any(|line| line.split_whitespace().next().is_some_and(|word| word == "use-keyboxd"))
}

/// Adds a certificate, or merges it with the copy from another keyring.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(rest.len() + 6).unwrap();
        [&length.to_be_bytes()[..], &[kind, 1], rest].concat()
    }

    fn header() -> Vec<u8> {
        record(1, b"\0\0KBXf\0\0\0\0")
    }

    #[test]
    fn a_keybox_has_keys_between_records_of_other_kinds() {
        let key = [&[0, 0][..], &16_u32.to_be_bytes(), &3_u32.to_be_bytes(), b"keychecksum"].concat();
        let keybox = [header(), record(0, b"deleted"), record(2, &key), record(3, b"X.509")].concat();
        assert_eq!(keyblocks(&keybox), Ok(vec![&b"key"[..]]));
        assert_eq!(keyblocks(b""), Ok(Vec::new()), "GnuPG makes an empty file before it writes");
    }

    #[test]
    fn keys_that_keyboxd_has_are_not_looked_for_in_an_old_keyring() {
        let folder = tempfile::tempdir().unwrap();
        let gnupg = Gnupg::at(folder.path().to_owned()).unwrap();
        let configure = |text: &str| fs::write(folder.path().join("common.conf"), text).unwrap();
        configure("# use-keyboxd\nno-autostart\n");
        assert!(gnupg.certificates().is_ok());
        configure("no-autostart\n  use-keyboxd # as of GnuPG 2.4\n");
        let error = gnupg.certificates().unwrap_err().to_string();
        assert!(error.contains("common.conf") && error.contains("gpg --export-secret-keys"), "{error}");
    }

    #[test]
    fn lengths_that_can_not_be_are_refused() {
        let key = |start: u32, length: u32| {
            record(2, &[&[0, 0][..], &start.to_be_bytes(), &length.to_be_bytes(), b"key"].concat())
        };
        for bad in [
            vec![0; 4],
            vec![0; 32],
            vec![0, 0, 0, 5, 2, 1],
            vec![255; 8],
            record(2, b""),
            record(2, &[0; 9]),
            key(16, 4),
            key(20, 0),
            key(u32::MAX, u32::MAX),
        ] {
            let error = keyblocks(&[header(), bad.clone()].concat()).unwrap_err();
            assert!(error.contains("is damaged at byte 16"), "{bad:?}: {error}");
        }
        assert!(keyblocks(&record(2, b"")).unwrap_err().contains("is no keybox"));
    }
}
