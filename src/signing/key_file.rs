//! A secret key in a file, with its passphrase in another file: for machines without gpg-agent.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use sequoia_openpgp::{Cert, cert::CertParser, crypto::Password, packet::key::SecretKeyMaterial, parse::Parse as _};

use super::{
    key_error::KeyError,
    query::KeyQuery,
    signing_key::{SigningKey, chosen, user_id},
};
use crate::signature::{Certificate, Fingerprint};

/// The maximum size of a key file, in bytes.
const MAX_FILE: u64 = 4 << 20;
const MAX_PASSPHRASE: u64 = 4 << 10;

/// Reads the key from a file, armored or binary (`gpg --export-secret-keys`), and decrypts it. If the file has several
/// keys, `query` names one.
///
/// # Errors
/// There is no key that can sign, or several; or the passphrase is wrong or missing.
pub fn read(
    path: &Path,
    passphrase: Option<&Path>,
    query: Option<&KeyQuery>,
    now: Timestamp,
) -> Result<SigningKey, KeyError> {
    let certs = parse(path)?;
    let query = match (query, &certs[..]) {
        (Some(query), _) => query.clone(),
        (None, [only]) => KeyQuery::Key(only.key_handle()),
        (None, several) => {
            let found: Vec<String> = several.iter().map(|cert| cert.fingerprint().to_hex()).collect();
            let what = format!("it has several keys ({}): say which one with --sign-by", found.join(", "));
            return Err(KeyError::Content { path: path.to_owned(), what });
        }
    };
    let certificates = certs.iter().cloned().map(Certificate::of).collect();
    let certificate = chosen(certificates, &query, path, now)?;
    let fingerprint = certificate.cert().fingerprint();
    // `chosen` returns one of the parsed certificates.
    let secret = certs.iter().find(|cert| cert.fingerprint() == fingerprint);
    for key in certificate.signing_keys(now) {
        if !query.allows(certificate.cert(), &key.key_handle()) {
            continue;
        }
        let with_secret = secret.and_then(|cert| cert.keys().secret().key_handle(key.key_handle()).next());
        let Some(with_secret) = with_secret else { continue };
        let mut pair = with_secret.key().clone();
        if let SecretKeyMaterial::Encrypted(_) = pair.secret() {
            let passphrase_file = passphrase.ok_or_else(|| KeyError::NoPassphrase(path.to_owned()))?;
            let password = read_passphrase(passphrase_file)?;
            pair = pair.decrypt_secret(&password).map_err(|_| KeyError::WrongPassphrase {
                key: path.to_owned(),
                passphrase: passphrase_file.to_owned(),
            })?;
        }
        let handle = pair.key_handle();
        let signer = pair
            .into_keypair()
            .map_err(|error| KeyError::Content { path: path.to_owned(), what: format!("{error:#}") })?;
        let key = Fingerprint::of(&handle);
        let user_id = user_id(&certificate);
        return Ok(SigningKey { certificate, key, user_id, signer: Box::new(signer) });
    }
    let what = "it has no secret key that may sign; gpg --export-secret-keys writes one".to_owned();
    Err(KeyError::Content { path: path.to_owned(), what })
}

fn parse(path: &Path) -> Result<Vec<Cert>, KeyError> {
    let bytes = read_bounded(path, MAX_FILE)?;
    let content = |what: String| KeyError::Content { path: path.to_owned(), what };
    let parser =
        CertParser::from_bytes(&bytes).map_err(|error| content(format!("this is no OpenPGP key: {error:#}")))?;
    let mut certs: Vec<Cert> = Vec::new();
    for cert in parser {
        let cert = cert.map_err(|error| content(format!("this is no OpenPGP key: {error:#}")))?;
        // Copies of one certificate are merged: only together they say whether it is revoked.
        match certs.iter_mut().find(|known| known.fingerprint() == cert.fingerprint()) {
            Some(known) => {
                let merged = known.clone().merge_public_and_secret(cert);
                *known = merged.map_err(|error| content(format!("two copies of a key contradict: {error:#}")))?;
            }
            None => certs.push(cert),
        }
    }
    if certs.is_empty() {
        return Err(content("there is no OpenPGP key in it".to_owned()));
    }
    Ok(certs)
}

/// Reads a passphrase from a file. A line end at its end is not part of the passphrase.
fn read_passphrase(path: &Path) -> Result<Password, KeyError> {
    let mut bytes = read_bounded(path, MAX_PASSPHRASE)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(bytes.into())
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, KeyError> {
    let failed = |source| KeyError::File { path: PathBuf::from(path), source };
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(failed)?.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        let limit = bytesize::ByteSize::b(limit);
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {limit}"))));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use sequoia_openpgp::serialize::SerializeInto as _;

    use super::*;
    use crate::signature::testing::{Key, at};

    fn written(key: &Key, passphrase: Option<&str>) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.asc");
        let mut cert = key.cert.clone();
        if let Some(passphrase) = passphrase {
            let primary = cert.primary_key().key().clone().parts_into_secret().unwrap();
            let locked = primary.encrypt_secret(&passphrase.into()).unwrap();
            cert = cert.insert_packets(locked).unwrap().0;
        }
        fs::write(&path, cert.as_tsk().armored().to_vec().unwrap()).unwrap();
        fs::write(folder.path().join("passphrase"), format!("{}\n", passphrase.unwrap_or("none"))).unwrap();
        (folder, path)
    }

    fn now() -> Timestamp {
        at("2026-01-01T00:00:00Z")
    }

    #[test]
    fn the_only_key_of_a_file_is_meant() {
        let key = Key::new("release");
        let (_folder, path) = written(&key, None);
        let read = read(&path, None, None, now()).unwrap();
        assert_eq!(read.certificate.fingerprint(), key.fingerprint());
        assert_eq!(read.user_id.as_deref(), Some("release <release@example.com>"));
    }

    #[test]
    fn a_locked_key_wants_its_passphrase() {
        let key = Key::new("release");
        let (folder, path) = written(&key, Some("secret"));
        assert!(matches!(read(&path, None, None, now()), Err(KeyError::NoPassphrase(_))));
        let good = folder.path().join("passphrase");
        assert!(read(&path, Some(&good), None, now()).is_ok());
        let bad = folder.path().join("bad");
        fs::write(&bad, "Secret").unwrap();
        assert!(matches!(read(&path, Some(&bad), None, now()), Err(KeyError::WrongPassphrase { .. })));
    }

    #[test]
    fn a_key_that_no_verifier_would_take_is_refused_with_its_fault() {
        let expired = Key::with("old", |choice| choice.expires(at("2025-06-01T00:00:00Z")));
        let (_folder, path) = written(&expired, None);
        let error = read(&path, None, None, now()).unwrap_err().to_string();
        assert!(error.contains("would be refused") && error.contains("expired at 2025-06-01"), "{error}");
        let useless = Key::with("useless", super::super::super::signature::testing::Choice::no_signing);
        let (_folder, path) = written(&useless, None);
        assert!(matches!(read(&path, None, None, now()), Err(KeyError::Unusable { .. })));
    }

    #[test]
    fn a_revocation_in_another_copy_of_the_key_counts() {
        let key = Key::new("release");
        let revoked = key.revoked(at("2025-06-01T00:00:00Z"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.pgp");
        for copies in [[key.private(), revoked.clone()], [revoked.clone(), key.private()]] {
            fs::write(&path, copies.concat()).unwrap();
            for query in [None, Some(key.fingerprint().to_string().parse().unwrap())] {
                let error = read(&path, None, query.as_ref(), now()).unwrap_err();
                assert!(matches!(error, KeyError::Unusable { .. }), "{error}");
            }
        }
        fs::write(&path, [key.public(), key.private()].concat()).unwrap();
        assert!(read(&path, None, None, now()).is_ok());
    }

    #[test]
    fn a_public_key_is_not_enough() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("public.asc");
        fs::write(&path, Key::new("release").cert.armored().to_vec().unwrap()).unwrap();
        let error = read(&path, None, None, now()).unwrap_err().to_string();
        assert!(error.contains("no secret key"), "{error}");
    }
}
