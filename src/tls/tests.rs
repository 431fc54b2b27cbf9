use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use super::*;
use crate::files::SETTLE_INTERVAL;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn now() -> Timestamp {
    Timestamp::now()
}

fn made(folder: &Path, now: Timestamp) -> Result<ServerTls, TlsError> {
    ServerTls::load(&Certificate::Made { folder: folder.to_owned() }, None, WEBHOOK_NAMES, now)
}

fn files(folder: &Path) -> Certificate {
    Certificate::Files { chain: folder.join("tls.crt"), key: folder.join("tls.key") }
}

/// Refreshes until what is there has settled.
fn refresh(tls: &ServerTls, now: Timestamp) -> Refreshed {
    let at = Instant::now();
    let first = tls.refresh(now, at);
    assert!(!first.changed, "no change counts at first sight");
    tls.refresh(now, at + SETTLE_INTERVAL)
}

fn leaf(tls: &ServerTls) -> Vec<u8> {
    tls.current.0.load().certified.cert[0].to_vec()
}

#[test]
fn a_certificate_is_made_once_and_kept_with_its_keys_private() {
    let scratch = TempDir::new().unwrap();
    let folder = scratch.path().join("deep/certs");
    let first = made(&folder, now()).unwrap();
    let second = made(&folder, now()).unwrap();
    assert_eq!(leaf(&first), leaf(&second));
    assert!(first.expires_at().duration_since(now()) > HOUR * 24 * 300);
    for (file, mode) in [("tls.key", 0o600), ("ca.key", 0o600), ("tls.crt", 0o644), ("ca.crt", 0o644)] {
        let found = fs::metadata(folder.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found & !mode, 0, "{file} has mode {found:o}");
    }
    let (_, names) = pair::expiry_and_names(&first.current.0.load().certified.cert[0]).unwrap();
    for name in ["sealgate-webhook.sealgate.svc", "localhost", "127.0.0.1", "::1"] {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
}

#[test]
fn a_made_certificate_is_made_anew_before_it_ends_and_by_the_same_ca() {
    let folder = TempDir::new().unwrap();
    let tls = made(folder.path(), now()).unwrap();
    let ca = fs::read(folder.path().join("ca.crt")).unwrap();
    let before = leaf(&tls);
    let later = tls.expires_at() - HOUR * 24 * 29;
    assert!(!refresh(&tls, tls.expires_at() - HOUR * 24 * 31).changed);
    assert!(refresh(&tls, later).changed);
    assert_ne!(leaf(&tls), before);
    assert!(tls.expires_at() > later + HOUR * 24 * 300);
    assert_eq!(fs::read(folder.path().join("ca.crt")).unwrap(), ca);
}

#[test]
fn a_made_ca_is_made_anew_before_it_cannot_cover_a_server_certificate() {
    let folder = TempDir::new().unwrap();
    let tls = made(folder.path(), now()).unwrap();
    let ca = fs::read(folder.path().join("ca.crt")).unwrap();
    assert!(refresh(&tls, now() + HOUR * 24 * (9 * 365 + 10)).changed);
    assert_ne!(fs::read(folder.path().join("ca.crt")).unwrap(), ca);
}

#[test]
fn a_made_certificate_that_is_broken_or_for_other_names_is_made_anew() {
    let folder = TempDir::new().unwrap();
    let certificate = Certificate::Made { folder: folder.path().to_owned() };
    let first = ServerTls::load(&certificate, None, &["a.example.com"], now()).unwrap();
    let second = ServerTls::load(&certificate, None, &["b.example.com"], now()).unwrap();
    assert_ne!(leaf(&first), leaf(&second));
    // As a crash between the two files would leave it.
    let other = TempDir::new().unwrap();
    made(other.path(), now()).unwrap();
    fs::copy(other.path().join("tls.key"), folder.path().join("tls.key")).unwrap();
    let third = ServerTls::load(&certificate, None, &["b.example.com"], now()).unwrap();
    assert_ne!(leaf(&second), leaf(&third));
}

#[test]
fn processes_that_make_a_certificate_at_once_end_up_with_one() {
    let folder = TempDir::new().unwrap();
    let leaves: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| leaf(&made(folder.path(), now()).unwrap()))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(leaves.iter().all(|leaf| *leaf == leaves[0]));
}

#[test]
fn a_folder_that_cannot_be_written_says_what_to_do() {
    let scratch = TempDir::new().unwrap();
    let file = scratch.path().join("certs");
    fs::write(&file, "a file, not a folder").unwrap();
    let message = made(&file, now()).unwrap_err().to_string();
    assert!(message.contains("certs") && message.contains("make it writable"), "{message}");
}

#[test]
fn files_that_are_no_pair_are_refused_by_name_with_what_to_do() {
    let one = TempDir::new().unwrap();
    let other = TempDir::new().unwrap();
    made(one.path(), now()).unwrap();
    made(other.path(), now()).unwrap();
    let chain = one.path().join("tls.crt");
    let key = one.path().join("tls.key");
    let refused = |chain: &Path, key: &Path| {
        let certificate = Certificate::Files { chain: chain.to_owned(), key: key.to_owned() };
        ServerTls::load(&certificate, None, &[], now()).unwrap_err().to_string()
    };
    let empty = one.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let garbage = one.path().join("garbage.pem");
    fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let encrypted = one.path().join("encrypted.pem");
    fs::write(&encrypted, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
        .unwrap();
    for (message, expected) in [
        (refused(&chain, &other.path().join("tls.key")), "do not belong together"),
        (refused(&chain, &chain), "no private key is there"),
        (refused(&key, &key), "no certificate is there"),
        (refused(&empty, &key), "empty.pem: no certificate is there"),
        (refused(&garbage, &key), "garbage.pem: not a usable certificate"),
        (refused(&chain, &encrypted), "encrypted.pem: the private key is encrypted"),
        (refused(&one.path().join("missing"), &key), "missing: can't be read: No such file"),
    ] {
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn a_refresh_puts_a_new_pair_in_force_and_a_broken_one_not() {
    let folder = TempDir::new().unwrap();
    let other = TempDir::new().unwrap();
    made(folder.path(), now()).unwrap();
    made(other.path(), now()).unwrap();
    let tls = ServerTls::load(&files(folder.path()), None, &[], now()).unwrap();
    let before = leaf(&tls);
    let unchanged = Refreshed { changed: false, certificate_refused: false, client_ca_refused: false, again: None };
    assert_eq!(refresh(&tls, now()), unchanged);

    fs::copy(other.path().join("tls.crt"), folder.path().join("tls.crt")).unwrap();
    assert!(matches!(Pair::read(&tls.files()[0], &tls.files()[1], &tls.provider), Err(TlsError::Mismatch { .. })));
    assert_eq!(refresh(&tls, now()), Refreshed { certificate_refused: true, ..unchanged }, "half of the exchange");
    assert_eq!(leaf(&tls), before);

    fs::copy(other.path().join("tls.key"), folder.path().join("tls.key")).unwrap();
    assert_eq!(refresh(&tls, now()), Refreshed { changed: true, ..unchanged });
    assert_ne!(leaf(&tls), before);
}

#[test]
fn certificate_and_client_ca_are_exchanged_each_whatever_is_wrong_with_the_other() {
    let [folder, one, two] = [(); 3].map(|()| TempDir::new().unwrap());
    for made_in in [&folder, &one, &two] {
        made(made_in.path(), now()).unwrap();
    }
    let path = |file: &str| folder.path().join(file);
    let copy = |from: &TempDir, file: &str, to: &str| fs::copy(from.path().join(file), path(to)).map(drop).unwrap();
    copy(&folder, "ca.crt", "clients.crt");
    let tls = ServerTls::load(&files(folder.path()), Some(&path("clients.crt")), &[], now()).unwrap();
    let in_force = || (leaf(&tls), tls.client_ca.as_ref().unwrap().1.digest());
    // What stands in the CA's file, and then in the key's: missing, empty, garbage, half of what is good.
    let half = |path: &Path| {
        let whole = fs::read(path).unwrap();
        fs::write(path, &whole[..whole.len() / 2]).unwrap();
    };
    let broken: [&dyn Fn(&Path); 4] = [
        &|path| fs::remove_file(path).unwrap(),
        &|path| fs::write(path, "").unwrap(),
        &|path| fs::write(path, "garbage").unwrap(),
        &half,
    ];
    for breaks in broken {
        let (before_leaf, before_ca) = in_force();
        copy(&one, "ca.crt", "clients.crt");
        breaks(&path("clients.crt"));
        copy(&one, "tls.crt", "tls.crt");
        copy(&one, "tls.key", "tls.key");
        let refreshed = refresh(&tls, now());
        assert!(refreshed.changed && refreshed.client_ca_refused && !refreshed.certificate_refused, "{refreshed:?}");
        let (renewed_leaf, ca) = in_force();
        assert!(renewed_leaf != before_leaf && ca == before_ca);

        copy(&two, "ca.crt", "clients.crt");
        copy(&two, "tls.crt", "tls.crt");
        copy(&two, "tls.key", "tls.key");
        breaks(&path("tls.key"));
        let refreshed = refresh(&tls, now());
        assert!(refreshed.changed && refreshed.certificate_refused && !refreshed.client_ca_refused, "{refreshed:?}");
        let (leaf, ca) = in_force();
        assert!(leaf == renewed_leaf && ca != before_ca);

        copy(&folder, "ca.crt", "clients.crt");
        copy(&two, "tls.key", "tls.key");
        assert!(refresh(&tls, now()).changed);
    }
}

/// The first half of a chain is a certificate that is good by itself, and no client trusts it.
#[test]
fn files_that_are_written_in_place_take_effect_whole_however_long_that_takes() {
    let [folder, other] = [(); 2].map(|()| TempDir::new().unwrap());
    let path = |file: &str| folder.path().join(file);
    made(folder.path(), now()).unwrap();
    made(other.path(), now()).unwrap();
    let read = |file: &str| fs::read_to_string(other.path().join(file)).unwrap();
    let whole = read("tls.crt") + &read("ca.crt");
    fs::write(path("clients.crt"), read("ca.crt")).unwrap();
    let tls = ServerTls::load(&files(folder.path()), Some(&path("clients.crt")), &[], now()).unwrap();
    let clients = || tls.client_ca.as_ref().unwrap().1.digest();
    let (before, clients_before) = (leaf(&tls), clients());
    fs::write(path("tls.key"), read("tls.key")).unwrap();
    let mut at = Instant::now();
    for end in whole.match_indices('\n').map(|(end, _)| end + 1) {
        fs::write(path("tls.crt"), &whole[..end]).unwrap();
        fs::write(path("clients.crt"), &whole[..end]).unwrap();
        for _ in 0..2 {
            assert!(!tls.refresh(now(), at).changed);
            at += SETTLE_INTERVAL / 2;
        }
        assert_eq!((leaf(&tls), clients()), (before.clone(), clients_before));
    }
    assert!(tls.refresh(now(), at).changed);
    assert_eq!(tls.current.0.load().certified.cert.len(), 2, "the whole chain");
    assert_ne!(clients(), clients_before);
}

#[test]
fn a_client_ca_that_is_none_is_refused() {
    let folder = TempDir::new().unwrap();
    made(folder.path(), now()).unwrap();
    let load = |ca: &str| ServerTls::load(&files(folder.path()), Some(&folder.path().join(ca)), &[], now());
    assert!(matches!(load("missing.crt"), Err(TlsError::Read { .. })));
    assert!(matches!(load("tls.key"), Err(TlsError::NoCertificate { .. })));
    assert_eq!(load("ca.crt").unwrap().files().len(), 3);
}
