//! Certificates that Sealgate makes: a CA for the folder, and a server certificate signed by it.
//!
//! The CA stays when the server's certificate is renewed, so that clients that trust it need no change. Processes that
//! share a folder serialize on its lock file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;

use super::{
    TlsError,
    pair::{self, Pair},
};

/// The file of the CA's certificate, for clients.
pub(super) const CA: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
/// The file of the server's certificate.
pub(super) const CHAIN: &str = "tls.crt";
/// The file of the server's private key.
pub(super) const KEY: &str = "tls.key";
const LOCK: &str = ".lock";

/// The validity of a server certificate that Sealgate makes. It is renewed once less than [`RENEW`] is left.
const VALID: Duration = Duration::from_hours(365 * 24);
const RENEW: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The validity of the CA. It is renewed once the next server certificate would outlive it.
const CA_VALID: Duration = Duration::from_hours(10 * 365 * 24);
/// The tolerance for clocks that differ: certificates are valid from this long before now.
const SKEW: Duration = Duration::from_hours(1);

/// Reads the pair in the folder. Makes a new pair if there is none, or if it expires soon, is broken, or lacks a name.
pub(super) fn read_or_make(
    folder: &Path,
    names: &[String],
    provider: &CryptoProvider,
    now: Timestamp,
) -> Result<Pair, TlsError> {
    let mut names = names.to_vec();
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    let read = || match Pair::read(&folder.join(CHAIN), &folder.join(KEY), provider) {
        Ok(pair) if fresh(&pair, &names, folder, now) => Some(pair),
        _ => None,
    };
    // The usual case needs no lock, so that a folder mounted read-only does.
    if let Some(pair) = read() {
        return Ok(pair);
    }
    let keep = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Keep { path, source }
    };
    fs::create_dir_all(folder).map_err(keep(folder))?;
    let lock = folder.join(LOCK);
    let lock_file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock).map_err(keep(&lock))?;
    lock_file.lock().map_err(keep(&lock))?;
    if let Some(pair) = read() {
        return Ok(pair); // Another process was faster.
    }
    make(folder, &names, now)?;
    tracing::info!(folder = %folder.display(), "made a certificate; clients trust its ca.crt");
    Pair::read(&folder.join(CHAIN), &folder.join(KEY), provider)
}

/// Returns whether the pair is valid for longer than [`RENEW`] and for these names, and its CA certificate exists.
fn fresh(pair: &Pair, names: &[String], folder: &Path, now: Timestamp) -> bool {
    let Ok((_, found)) = pair::expiry_and_names(&pair.certified.cert[0]) else { return false };
    names.iter().all(|name| found.contains(name))
        && pair.expires_at.duration_since(now) > RENEW
        && folder.join(CA).exists()
}

fn make(folder: &Path, names: &[String], now: Timestamp) -> Result<(), TlsError> {
    let ca_key = if let Some(key) = ca_key(folder, now) {
        key
    } else {
        let key = KeyPair::generate()?;
        let certificate = ca_params(now).self_signed(&key)?;
        write(&folder.join(CA_KEY), &key.serialize_pem(), 0o600)?;
        write(&folder.join(CA), &certificate.pem(), 0o644)?;
        key
    };
    let ca_params = ca_params(now);
    let issuer = Issuer::from_params(&ca_params, &ca_key);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = name("Sealgate");
    set_validity(&mut params, now, VALID);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    write(&folder.join(KEY), &key.serialize_pem(), 0o600)?;
    write(&folder.join(CHAIN), &certificate.pem(), 0o644)
}

/// Returns the CA's key if it fits a CA certificate that outlives the next server certificate.
fn ca_key(folder: &Path, now: Timestamp) -> Option<KeyPair> {
    let path = folder.join(CA);
    let certificates = pair::certificates(&path, &pair::read_file(&path).ok()?).ok()?;
    let key = KeyPair::from_pem(&String::from_utf8(pair::read_file(&folder.join(CA_KEY)).ok()?).ok()?).ok()?;
    let (expires_at, _) = pair::expiry_and_names(&certificates[0]).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificates[0]).ok()?;
    let same_key = *parsed.public_key().subject_public_key.data == *key.public_key_raw();
    let lasts = expires_at.duration_since(now) > SignedDuration::try_from(VALID).ok()?;
    (same_key && lasts).then_some(key)
}

fn ca_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("Sealgate's own CA");
    set_validity(&mut params, now, CA_VALID);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Sets the validity: from [`SKEW`] before `now` until `valid` after it.
fn set_validity(params: &mut CertificateParams, now: Timestamp, valid: Duration) {
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    params.not_before = now - SKEW;
    params.not_after = now + valid;
}

/// Writes a file completely or not at all, with its permissions from the start.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let temporary = path.with_extension("new");
    let written = (|| -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file: File = OpenOptions::new().create_new(true).write(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(|source| TlsError::Keep { path: path.to_owned(), source })
}
