use proptest::prelude::*;
use sequoia_openpgp::{cert::CipherSuite, types::HashAlgorithm};

use super::*;
use crate::signature::{
    KeyFault,
    framing::tests::in_parts,
    testing::{self, Key, armored, at},
};

const NOW: &str = "2026-06-01T00:00:00Z";
const REVOKED: &str = "2026-01-01T00:00:00Z";

/// The files as one keyring.
fn read(files: &[Vec<u8>]) -> Result<Keys, CertificateError> {
    let mut keyring = Keyring::default();
    for file in files {
        keyring.add(file)?;
    }
    keyring.finish()
}

/// Returns whether this key is revoked, in the keys that were read.
fn is_revoked(keys: &Keys, key: &Key) -> bool {
    let certificate = keys.certificates.iter().find(|one| one.fingerprint() == key.fingerprint());
    match certificate.unwrap_or_else(|| panic!("{} is not there", key.fingerprint())).usable(at(NOW)) {
        Ok(()) => false,
        Err(KeyFault::Revoked { .. }) => true,
        Err(fault) => panic!("{fault}"),
    }
}

/// Every order of three things.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[test]
fn a_revocation_certificate_revokes_its_key_wherever_it_stands() {
    let (key, other) = (Key::new("ours"), Key::new("other"));
    let parts = [key.public(), other.public(), key.revocation(at(REVOKED))];
    for order in ORDERS {
        let parts = order.map(|part| parts[part].clone());
        let blocks = parts.each_ref().map(|part| armored(part).into_bytes());
        let text = blocks.join(&b"\r\nand:\n"[..]);
        let binary = parts.concat();
        let one_block = armored(&binary).into_bytes();
        for files in [vec![text], vec![binary], vec![one_block], blocks.to_vec(), parts.to_vec()] {
            let keys = read(&files).unwrap();
            assert_eq!(keys.certificates.len(), 2);
            assert!(is_revoked(&keys, &key), "{order:?} in {} files", files.len());
            assert!(!is_revoked(&keys, &other), "{order:?} in {} files", files.len());
            assert_eq!(keys.notices, []);
        }
    }
}

#[test]
fn a_key_and_its_revocation_certificate_need_no_other_key() {
    let key = Key::new("ours");
    let (public, revocation) = (key.public(), key.revocation(at(REVOKED)));
    for parts in [[&public, &revocation], [&revocation, &public]] {
        let armored = parts.map(|part| armored(part)).concat().into_bytes();
        let binary = [parts[0].as_slice(), parts[1]].concat();
        for file in [armored, binary] {
            assert!(is_revoked(&read(&[file]).unwrap(), &key));
        }
    }
}

#[test]
fn a_revocation_by_a_stranger_revokes_nothing_and_is_told() {
    let (key, stranger) = (Key::new("ours"), Key::new("stranger"));
    let theirs = stranger.revocation(at(REVOKED));
    let forged = key.forged_revocation(&stranger, at(REVOKED));
    for (revocation, named) in [(theirs, stranger.fingerprint()), (forged, key.fingerprint())] {
        for files in [
            vec![[armored(&key.public()), armored(&revocation)].concat().into_bytes()],
            vec![[armored(&revocation), armored(&key.public())].concat().into_bytes()],
            vec![[revocation.clone(), key.public()].concat()],
            vec![key.public(), revocation.clone()],
        ] {
            let keys = read(&files).unwrap();
            assert!(!is_revoked(&keys, &key));
            assert_eq!(keys.notices, [KeyNotice::Revocation(Some(named.clone()))]);
            assert!(keys.notices[0].to_string().contains("revokes no key that stands here"));
        }
    }
}

#[test]
fn a_revocation_with_a_colon_before_its_armor_is_none() {
    let key = Key::new("ours");
    let kept = armored(&key.revocation(at(REVOKED))).replacen("-----BEGIN", ":-----BEGIN", 1);
    let kept = format!("This is a revocation certificate for the OpenPGP key:\n\n{kept}");
    for text in [format!("{}{kept}", armored(&key.public())), format!("{kept}\n{}", armored(&key.public()))] {
        let keys = read(&[text.into_bytes()]).unwrap();
        assert!(!is_revoked(&keys, &key));
        assert_eq!(keys.notices, []);
    }
    assert!(matches!(read(&[kept.into_bytes()]), Err(CertificateError::Malformed(_))));
}

#[test]
fn a_block_that_begins_where_another_ends_is_not_passed_over() {
    let (key, other) = (Key::new("ours"), Key::new("other"));
    for second in [key.revocation(at(REVOKED)), other.public()] {
        let blocks = [armored(&key.public()), armored(&second)];
        let glued = blocks.each_ref().map(|block| block.trim_end()).concat();
        for text in [glued.clone(), format!("{}{glued}", armored(&other.public())), format!("{glued}\n{}", blocks[0])] {
            let error = read(&[text.into_bytes()]).unwrap_err();
            assert!(error.to_string().contains("a line break is missing"), "{error}");
        }
        let apart = blocks.each_ref().map(|block| block.trim_end()).join("\n");
        read(&[apart.into_bytes()]).unwrap();
    }
}

#[test]
fn of_many_revocations_of_one_key_one_is_kept() {
    let key = Key::new("ours");
    let revocations = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"];
    let mut file = key.public();
    // In front of the key, so that none is a part of it.
    for when in revocations {
        file = [key.revocation(at(when)), file].concat();
    }
    let keys = read(&[file]).unwrap();
    assert!(is_revoked(&keys, &key));
    assert_eq!(keys.certificates[0].cert().primary_key().self_revocations().count(), 1);
    assert_eq!(keys.notices, []);
}

#[test]
fn a_revocation_alone_is_no_key() {
    let revocation = Key::new("ours").revocation(at(REVOKED));
    for file in [armored(&revocation).into_bytes(), revocation] {
        assert_eq!(read(&[file]).unwrap_err(), CertificateError::OnlyRevocations);
    }
}

#[test]
fn another_signature_by_itself_is_an_error_and_so_is_any_other_packet() {
    let key = Key::new("ours");
    let packets = key.public();
    let (first, rest) = first_packet(&packets).unwrap();
    assert_eq!(first.tag, Tag::PublicKey);
    for file in
        [rest.to_vec(), [rest, &packets].concat(), armored(rest).into_bytes(), testing::rsa_1024().sign(b"{}", at(NOW))]
    {
        let error = read(&[file]).unwrap_err();
        assert!(matches!(error, CertificateError::Malformed(_)), "{error}");
    }
    // A block that can't be read is not passed over because another one can.
    let text = armored(&packets);
    let broken = text.replacen("-----END PGP PUBLIC KEY BLOCK-----", "", 1);
    for file in [format!("{text}{broken}"), format!("{broken}{text}")] {
        assert!(matches!(read(&[file.into_bytes()]), Err(CertificateError::Malformed(_))));
    }
}

#[test]
fn binary_data_beside_an_armored_block_is_an_error() {
    let (key, other) = (Key::new("ours"), Key::new("other"));
    let text = armored(&key.public()).into_bytes();
    for binary in [other.public(), key.revocation(at(REVOKED))] {
        for file in [[text.clone(), binary.clone()].concat(), [binary, text.clone()].concat()] {
            assert!(matches!(read(&[file]), Err(CertificateError::Malformed(_))));
        }
    }
}

/// Packets of keys that can't be used here, each with the key and the reason that are said.
fn unusable() -> Vec<(Vec<u8>, String, &'static str)> {
    let time = [0x5e, 0, 0, 0];
    let number = |bytes: &[u8]| [&u16::try_from(bytes.len() * 8).unwrap().to_be_bytes()[..], bytes].concat();
    let modulus = [&[0xc1; 248][..], &[0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89]].concat();
    let point = number(&[&[0x84][..], &[7; 64]].concat());
    let on_curve = |version: &[u8], algorithm: u8, oid: &[u8]| {
        let material = [&[u8::try_from(oid.len()).unwrap()][..], oid, &point].concat();
        let length = u32::try_from(material.len()).unwrap().to_be_bytes();
        let length = if version == [4] { &[][..] } else { &length };
        [version, &time, &[algorithm], length, &material].concat()
    };
    let opaque = |version: u8, algorithm: u8, size: usize| {
        let length = u32::try_from(size).unwrap().to_be_bytes();
        let length = if version == 4 { &[][..] } else { &length };
        [&[version][..], &time, &[algorithm], length, &vec![9; size]].concat()
    };
    let hashed = |algorithm: HashAlgorithm, head: u8, body: &[u8], size: usize| {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        raw_key::hashed(algorithm, &[&[head], &length[4 - size..], body]).unwrap().to_string()
    };
    let four = |body: &[u8]| hashed(HashAlgorithm::SHA1, 0x99, body, 2);
    let six = |body: &[u8]| hashed(HashAlgorithm::SHA256, 0x9b, body, 4);
    let five = |body: &[u8]| hashed(HashAlgorithm::SHA256, 0x9a, body, 4);
    let old = |version: u8| [&[version][..], &time, &[0, 0, 1], &number(&modulus), &number(&[1, 0, 1])].concat();
    let secp256k1 = on_curve(&[4], 19, &[0x2b, 0x81, 4, 0, 10]);
    let another = on_curve(&[4], 19, &[0x2b, 0x99]);
    let newer = on_curve(&[6], 19, &[0x2b, 0x81, 4, 0, 10]);
    let post_quantum = opaque(6, 30, 32 + 1952);
    let hash_based = opaque(6, 32, 32);
    let unknown = opaque(4, 99, 20);
    let libre = on_curve(&[5], 22, &[0x2b, 6, 1, 4, 1, 0xda, 0x47, 0x0f, 1]);
    let named = |body: Vec<u8>, name: &dyn Fn(&[u8]) -> String, why| (name(&body), body, why);
    let all = [
        named(secp256k1, &four, "curve secp256k1"),
        named(another, &four, "curve OID 2b99"),
        named(newer, &six, "curve secp256k1"),
        named(old(3), &|_| "0xABCDEF0123456789".to_owned(), "version 3"),
        named(old(2), &|_| "0xABCDEF0123456789".to_owned(), "version 2"),
        named(libre, &five, "version 5"),
        named(post_quantum, &six, "algorithm ML-DSA-65+Ed25519 (30)"),
        named(hash_based, &six, "algorithm SLH-DSA-SHAKE-128s (32)"),
        named(unknown, &four, "algorithm 99"),
        named(vec![9, 1, 2, 3], &|_| "a key".to_owned(), "version 9"),
    ];
    let packets = |body: &[u8]| {
        let signature = [4, 0x13, 19, 8, 0, 0, 0, 0, 1, 2, 0, 1, 1, 0, 1, 1];
        [in_parts(6, body, []), in_parts(13, b"old <old@example.com>", []), in_parts(2, &signature, [])].concat()
    };
    all.into_iter().map(|(name, body, why)| (packets(&body), name, why)).collect()
}

#[test]
fn a_key_that_can_not_be_used_is_refused_alone_with_its_name_and_the_reason() {
    for (packets, name, why) in unusable() {
        for file in [packets.clone(), armored(&packets).into_bytes()] {
            let error = read(&[file]).unwrap_err();
            assert!(matches!(error, CertificateError::Unusable(_)), "{why}: {error}");
            let said = error.to_string();
            assert!(said.contains(&name) && said.contains(why), "{name}, {why}: {said}");
        }
    }
    let all: Vec<u8> = unusable().into_iter().flat_map(|(packets, ..)| packets).collect();
    let said = read(&[all]).unwrap_err().to_string();
    assert!(said.ends_with("; and 7 more"), "{said}");
}

#[test]
fn a_key_that_can_not_be_used_is_named_beside_a_good_one_that_counts() {
    let key = Key::new("ours");
    let good = key.public();
    for (packets, name, why) in unusable() {
        for order in [[&packets, &good], [&good, &packets]] {
            let binary = [order[0].as_slice(), order[1]].concat();
            let blocks = order.map(|part| armored(part)).concat().into_bytes();
            let one_block = armored(&binary).into_bytes();
            for files in [vec![binary], vec![blocks], vec![one_block], order.map(Clone::clone).to_vec()] {
                let keys = read(&files).unwrap();
                assert_eq!(keys.certificates.len(), 1, "{why}");
                assert!(!is_revoked(&keys, &key));
                let [notice @ KeyNotice::Unusable(_)] = &keys.notices[..] else { panic!("{:?}", keys.notices) };
                let said = notice.to_string();
                assert!(said.contains(&name) && said.contains(why), "{name}, {why}: {said}");
            }
        }
    }
}

#[test]
fn what_is_passed_over_is_bounded_in_number() {
    let key = Key::new("ours");
    // The smallest key there is, of a version that is not known.
    let files = |count: usize| [key.public(), in_parts(6, &[9], []).repeat(count)].concat();
    assert_eq!(read(&[files(MAX_NOTICES)]).unwrap().notices.len(), MAX_NOTICES);
    let revocation = key.revocation(at(REVOKED));
    let subkeys = with_subkey(&key, 19)[key.public().len()..].repeat(MAX_NOTICES + 1);
    for file in [
        files(MAX_NOTICES + 2),
        [key.public(), subkeys].concat(),
        [revocation.repeat(MAX_NOTICES + 1), key.public()].concat(),
    ] {
        for file in [armored(&file).into_bytes(), file] {
            assert_eq!(read(&[file]).unwrap_err(), CertificateError::TooManyNotices);
        }
    }
}

#[test]
fn a_revocation_is_found_among_keys_that_can_not_be_used() {
    let key = Key::new("ours");
    let (packets, ..) = unusable().remove(0);
    let file = [key.public(), packets, key.revocation(at(REVOKED))].concat();
    assert!(is_revoked(&read(&[file]).unwrap(), &key));
}

/// A certificate with a subkey of a kind that can't be used behind it.
fn with_subkey(key: &Key, algorithm: u8) -> Vec<u8> {
    let body = [&[4, 0x5e, 0, 0, 0, algorithm][..], &[5, 0x2b, 0x81, 4, 0, 10], &[2, 8], &[0x84; 65]].concat();
    let signature = [4, 0x18, 22, 8, 0, 0, 0, 0, 1, 2, 0, 1, 1, 0, 1, 1];
    [key.public(), in_parts(14, &body, []), in_parts(2, &signature, [])].concat()
}

#[test]
fn a_subkey_that_can_not_be_used_is_named_if_it_signs() {
    let key = Key::new("ours");
    let keys = read(&[with_subkey(&key, 19)]).unwrap();
    assert!(!is_revoked(&keys, &key));
    assert!(matches!(&keys.notices[..], [KeyNotice::Unusable(_)]), "{:?}", keys.notices);
    let encrypting = read(&[with_subkey(&key, 18)]).unwrap();
    assert_eq!(encrypting.notices, []);
    let certifying = Key::with("ours", testing::Choice::no_signing);
    let error = read(&[with_subkey(&certifying, 19)]).unwrap_err();
    assert!(error.to_string().contains("curve secp256k1"), "{error}");
    read(&[with_subkey(&certifying, 18)]).unwrap();
}

#[test]
fn what_a_file_says_of_a_key_holds_though_none_of_its_own_keys_can_be_used() {
    let key = Key::with("ours", |choice| choice.no_signing().signing_subkey());
    let older = key.public();
    // The newer file: the key revoked, without its good subkey, with one that can't be used.
    let subkey = with_subkey(&Key::new("another"), 19);
    let mut newer = key.revoked(at(REVOKED));
    let without = |bytes: &[u8], is_wanted: &dyn Fn(bool) -> bool| {
        let (mut kept, mut rest, mut in_subkeys) = (Vec::new(), bytes, false);
        while let Some((packet, behind)) = first_packet(rest) {
            in_subkeys |= packet.tag == Tag::PublicSubkey;
            if is_wanted(in_subkeys) {
                kept.extend_from_slice(&rest[..rest.len() - behind.len()]);
            }
            rest = behind;
        }
        kept
    };
    newer = without(&newer, &|in_subkeys| !in_subkeys);
    newer.extend(without(&subkey, &|in_subkeys| in_subkeys));
    assert!(matches!(read(std::slice::from_ref(&newer)), Err(CertificateError::Unusable(_))));
    assert!(!is_revoked(&read(std::slice::from_ref(&older)).unwrap(), &key));
    for files in [vec![older.clone(), newer.clone()], vec![newer.clone(), older.clone()], vec![[older, newer].concat()]]
    {
        let keys = read(&files).unwrap();
        assert!(is_revoked(&keys, &key));
        assert!(matches!(&keys.notices[..], [KeyNotice::Unusable(_)]), "{:?}", keys.notices);
    }
}

#[test]
fn a_private_key_of_any_kind_is_refused_as_private() {
    let key = Key::with("ours", |choice| choice.suite(CipherSuite::P256));
    assert_eq!(read(&[key.private()]).unwrap_err(), CertificateError::Private(key.fingerprint()));
    for (packets, _, why) in unusable() {
        let (public, _) = first_packet(&packets).unwrap();
        let error = read(&[in_parts(5, &public.body, []), key.public()]).unwrap_err();
        assert!(error.to_string().starts_with("this is a private key"), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn a_key_file_in_utf_16_is_called_that() {
    let text = armored(&Key::new("ours").public());
    for text in [text.clone(), format!("\u{feff}{}", text.replace('\n', "\r\n")), format!("\r\n{text}")] {
        let units: Vec<u16> = text.encode_utf16().collect();
        for bytes in [
            units.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
            units.iter().flat_map(|unit| unit.to_be_bytes()).collect::<Vec<_>>(),
        ] {
            let error = read(&[bytes]).unwrap_err();
            assert_eq!(error, CertificateError::Utf16);
            assert!(error.to_string().contains("UTF-16"));
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_among_good_ones_make_it_panic_or_lift_a_revocation(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        place in any::<prop::sample::Index>(),
    ) {
        static FILE: std::sync::LazyLock<(Key, Vec<u8>)> = std::sync::LazyLock::new(|| {
            let key = Key::new("ours");
            let file = [key.revocation(at(REVOKED)), key.public()].concat();
            (key, file)
        });
        let (key, file) = &*FILE;
        let mut file = file.clone();
        // Behind the revocation: what stands in front of it, it survives.
        let start = first_packet(&file).unwrap().1.len();
        let start = file.len() - start;
        let place = start + place.index(file.len() - start);
        file.splice(place..place, bytes);
        if let Ok(keys) = read(&[file])
            && let Some(certificate) = keys.certificates.iter().find(|one| one.fingerprint() == key.fingerprint())
        {
            prop_assert!(certificate.usable(at(NOW)).is_err());
        }
    }
}
