//! Messages in forms that current tools do not write: version 3, short parts, text signatures, the signature first.

use std::sync::LazyLock;

use sequoia_openpgp::{KeyHandle, KeyID};

use super::*;
use crate::signature::{
    framing::tests::{in_parts, under_every_header},
    testing::{Parts, deflated, rsa_1024},
};

const REDHAT: &[u8] = include_bytes!("../../../tests/fixtures/redhat-rhel7-7.6.signature");
const REDHAT_KEY: &[u8] = include_bytes!("../../../tests/fixtures/redhat-release.asc");
const OPENSHIFT: &[u8] = include_bytes!("../../../tests/fixtures/openshift-ci-release.signature");
const OPENSHIFT_KEY: &[u8] = include_bytes!("../../../tests/fixtures/openshift-ci.asc");

const SHA256: HashAlgorithm = HashAlgorithm::SHA256;

/// Makes the parts of a message, of one version or the other.
type Make = fn(&Key, &[u8], Timestamp, HashAlgorithm, SignatureType) -> Parts;

fn rsa() -> Key {
    static KEY: LazyLock<Key> = LazyLock::new(|| Key::with("acme", |choice| choice.suite(CipherSuite::RSA2k)));
    KEY.clone()
}

fn v3(key: &Key) -> Parts {
    Parts::v3(key, &payload(IMAGE, DIGEST), at(SIGNED), SHA256, SignatureType::Binary)
}

/// The same question about another image, by another's keys.
fn published(key: &[u8], image: &str, digest: &str, now: &str) -> Scenario {
    let requirement = requirement(&[signer("published", &[key.to_vec()])]);
    let (image, digest) = (Reference::parse(image).unwrap(), Digest::parse(digest).unwrap());
    Scenario { image, digest, ..scenario(vec![requirement]).at(now) }
}

fn body(message: &[u8]) -> Result<Vec<u8>, Malformed> {
    envelope::open(message, &mut 0).map(|message| message.body)
}

#[test]
fn a_signature_of_version_3_is_verified_under_every_header_and_hash() {
    for key in [rsa(), Key::with("acme", |choice| choice.suite(CipherSuite::P256))] {
        for hash in [SHA256, HashAlgorithm::SHA512] {
            let parts = Parts::v3(&key, &payload(IMAGE, DIGEST), at(SIGNED), hash, SignatureType::Binary);
            for (format, name) in [(b'b', ""), (b't', ""), (b'u', "_rpmsig-req-KOr4fw.bin")] {
                let literal = parts.literal(format, name);
                let signatures = under_every_header(2, &parts.signature);
                for one_pass in under_every_header(4, &parts.one_pass) {
                    for literal in under_every_header(11, &literal) {
                        let message = [&one_pass[..], &literal, &signatures[0]].concat();
                        by(&key).proof(std::slice::from_ref(&message));
                        // Old, and without a length: what GnuPG and Red Hat's server write.
                        by(&key).proof(&[[&[0xa3][..], &deflated(&message)].concat()]);
                    }
                    for signature in &signatures {
                        let message = [&one_pass[..], &in_parts(11, &literal, []), signature].concat();
                        by(&key).proof(&[message]);
                    }
                }
            }
            let examination = by(&key).with(&[parts.message()]);
            assert_eq!(examination.signatures[0].key, Some(key.fingerprint()));
            assert_eq!(examination.signatures[0].signed_at, Some(at(SIGNED)));
        }
    }
}

#[test]
fn what_is_wrong_with_a_signature_has_the_same_code_in_either_version() {
    let (key, other) = (rsa(), Key::with("other", |choice| choice.suite(CipherSuite::RSA2k)));
    let good = payload(IMAGE, DIGEST);
    let text = String::from_utf8(good.clone()).unwrap();
    let too_much = text.replace("}}", "},\"x\":1}").into_bytes();
    let renamed = payload("registry.example.com/acme/web:1.1", DIGEST);
    let expired = Key::with("old", |choice| choice.suite(CipherSuite::RSA2k).expires(at("2026-05-15T00:00:00Z")));
    let revoked = scenario(vec![requirement(&[signer("acme-release", &[key.revoked(at("2026-05-20T00:00:00Z"))])])]);
    let binary = SignatureType::Binary;
    for make in [Parts::v3 as Make, Parts::v4] {
        let plain = |payload: &[u8]| make(&key, payload, at(SIGNED), SHA256, binary);
        let of = |key: &Key, when: &str, hash| make(key, &good, at(when), hash, binary).message();
        let parts = plain(&good);
        let changed = |change: fn(&mut Parts)| {
            let mut parts = parts.clone();
            change(&mut parts);
            parts.message()
        };
        for (name, scenario, message, code) in [
            ("the payload changed", by(&key), changed(|parts| parts.data[40] ^= 1), Code::InvalidSignature),
            (
                "its last octet changed",
                by(&key),
                changed(|p| *p.signature.last_mut().unwrap() ^= 1),
                Code::InvalidSignature,
            ),
            ("a key that is not named", by(&other), parts.message(), Code::UntrustedKey),
            ("another tag", by(&key), plain(&renamed).message(), Code::WrongIdentity),
            ("another image", by(&key), plain(&payload(IMAGE, OTHER)).message(), Code::WrongDigest),
            ("a member too many", by(&key), plain(&too_much).message(), Code::MalformedSignature),
            ("something behind it", by(&key), [parts.message(), parts.message()].concat(), Code::MalformedSignature),
            ("SHA-1", by(&key), of(&key, SIGNED, HashAlgorithm::SHA1), Code::WeakAlgorithm),
            ("RSA with 1024 bits", by(&rsa_1024()), of(&rsa_1024(), SIGNED, SHA256), Code::WeakAlgorithm),
            ("older than its key", by(&key), of(&key, "2024-12-31T23:59:59Z", SHA256), Code::InvalidSignature),
            ("of the future", by(&key), of(&key, "2026-06-01T01:00:00Z", SHA256), Code::InvalidSignature),
            ("an expired key", by(&expired), of(&expired, SIGNED, SHA256), Code::ExpiredKey),
            ("a revoked key", revoked.clone(), parts.message(), Code::RevokedKey),
        ] {
            assert_eq!(scenario.code(&[message]), Some(code), "{name}, version {}", parts.signature[0]);
        }
        by(&key).proof(&[changed(|parts| parts.signature[0] ^= 1), parts.message()]);
    }
}

#[test]
fn the_time_and_type_of_a_version_3_signature_are_part_of_what_is_signed() {
    let key = rsa();
    // Version, length of what is hashed, type, time, key ID (RFC 4880, section 5.2.2).
    for place in 0..15 {
        let mut parts = v3(&key);
        parts.signature[place] ^= 1;
        assert!(by(&key).with(&[parts.message()]).result.is_err(), "{place}");
        assert!(by(&key).with(&[parts.signature_first()]).result.is_err(), "{place}");
    }
}

#[test]
fn a_version_3_signature_that_names_another_trusted_key_never_counts() {
    let (ours, theirs) = (rsa(), Key::with("theirs", |choice| choice.suite(CipherSuite::RSA2k)));
    let both = scenario(vec![of(1, &[ours.signer("ours"), theirs.signer("theirs")])]);
    let id = theirs.pair().public().keyid();
    let mut parts = v3(&ours);
    both.proof(&[parts.message()]);
    parts.signature[7..15].copy_from_slice(id.as_bytes());
    assert_eq!(both.code(&[parts.message()]), Some(Code::MalformedSignature), "its two packets name two keys");
    assert_eq!(both.code(&[parts.signature_first()]), Some(Code::InvalidSignature));
    parts.one_pass[4..12].copy_from_slice(id.as_bytes());
    assert_eq!(both.code(&[parts.message()]), Some(Code::InvalidSignature));
}

#[test]
fn the_signature_of_red_hat_is_of_the_image_that_it_names() {
    let (image, digest) = (
        "registry.access.redhat.com/rhel7:7.6",
        "sha256:e3f12513a4b22a2d7c0e7c9207f52128113758d9d68c7d06b11a0ac7672966f7",
    );
    let signature = [REDHAT.to_vec()];
    let examination = published(REDHAT_KEY, image, digest, NOW).with(&signature);
    let proof = examination.result.unwrap();
    assert_eq!(proof.keys()[0].signed_at, at("2019-04-09T18:14:24Z"));
    assert_eq!(published(REDHAT_KEY, image, DIGEST, NOW).code(&signature), Some(Code::WrongDigest));
    let other = "registry.access.redhat.com/rhel7:7.7";
    assert_eq!(published(REDHAT_KEY, other, digest, NOW).code(&signature), Some(Code::WrongIdentity));
    assert_eq!(
        published(OPENSHIFT_KEY, image, digest, "2020-01-01T00:00:00Z").code(&signature),
        Some(Code::UntrustedKey)
    );
}

#[test]
fn the_signature_of_an_openshift_release_counts_while_its_key_does() {
    let (image, digest) = (
        "registry.svc.ci.openshift.org/ocp/release:4.0.0-0.ci-2019-04-19-181452",
        "sha256:edd9824f0404f1a139688017e7001370e2f3fbc088b94da84506653b473fe140",
    );
    let signature = [OPENSHIFT.to_vec()];
    let then = "2020-01-01T00:00:00Z";
    published(OPENSHIFT_KEY, image, digest, then).proof(&signature);
    assert_eq!(published(OPENSHIFT_KEY, image, digest, NOW).code(&signature), Some(Code::ExpiredKey));
    assert_eq!(published(OPENSHIFT_KEY, image, DIGEST, then).code(&signature), Some(Code::WrongDigest));
}

#[test]
fn a_literal_in_short_parts_is_read_open_and_compressed() {
    let key = rsa();
    for parts in [v3(&key), Parts::v4(&key, &payload(IMAGE, DIGEST), at(SIGNED), SHA256, SignatureType::Binary)] {
        for powers in [vec![1, 2, 8], vec![0], vec![0; 200], vec![8], vec![3, 0, 6, 0]] {
            let message = parts.in_parts(powers.clone());
            let compressed = in_parts(8, &deflated(&message), powers);
            for message in [message, compressed] {
                by(&key).proof(std::slice::from_ref(&message));
                assert_eq!(body(&message), Ok(payload(IMAGE, DIGEST)));
            }
        }
    }
}

#[test]
fn a_compressed_message_in_short_parts_is_read_whatever_the_compression() {
    let key = Key::new("acme");
    for algorithm in [CompressionAlgorithm::Zip, CompressionAlgorithm::Zlib, CompressionAlgorithm::BZip2] {
        let message = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), SHA256, Some(algorithm), |builder| builder);
        let (packet, _) = crate::signature::framing::first_packet(&message).unwrap();
        by(&key).proof(&[in_parts(8, &packet.body, [0, 1, 2, 5])]);
    }
}

#[test]
fn a_signature_in_front_of_its_payload_is_read_under_every_header() {
    let key = rsa();
    for parts in [v3(&key), Parts::v4(&key, &payload(IMAGE, DIGEST), at(SIGNED), SHA256, SignatureType::Binary)] {
        let literal = parts.literal(b'b', "payload");
        for signature in under_every_header(2, &parts.signature) {
            for literal in under_every_header(11, &literal) {
                let message = [&signature[..], &literal].concat();
                by(&key).proof(std::slice::from_ref(&message));
                by(&key).proof(&[[&[0xa3][..], &deflated(&message)].concat()]);
                let followed = [&message[..], &literal].concat();
                assert_eq!(by(&key).code(&[followed]), Some(Code::MalformedSignature));
            }
        }
        // A key that is not of the rule costs no try, as with a one-pass packet.
        let mut other = Scenario { tries: 0, ..by(&Key::new("other")) };
        assert_eq!(other.code(&[parts.signature_first()]), Some(Code::UntrustedKey));
        other.tries = 1;
        assert_eq!(other.code(&[parts.signature_first()]), Some(Code::UntrustedKey));
    }
}

#[test]
fn a_signature_in_front_of_a_payload_that_inflates_a_lot_costs_one_try() {
    let key = rsa();
    let spaced = [payload(IMAGE, DIGEST), vec![b' '; 12 << 10]].concat();
    let parts = Parts::v4(&key, &spaced, at(SIGNED), SHA256, SignatureType::Binary);
    let message = [&[0xa3][..], &deflated(&parts.signature_first())].concat();
    assert!(message.len() * envelope::USUAL_RATIO < spaced.len());
    Scenario { tries: 1, ..by(&key) }.proof(std::slice::from_ref(&message));
    let refusal = by(&Key::new("other")).with(&[message]).result.unwrap_err();
    let Refusal::UntrustedKey { signed_by, .. } = refusal else { panic!("{refusal}") };
    assert_eq!(signed_by, [key.fingerprint()]);
}

#[test]
fn a_detached_signature_is_told_from_other_messages() {
    let parts = v3(&rsa());
    assert_eq!(body(&in_parts(2, &parts.signature, [])), Err(Malformed::Detached));
}

/// The payload, one member a line.
fn lines(end: &str) -> Vec<u8> {
    String::from_utf8(payload(IMAGE, DIGEST)).unwrap().replace(',', &format!(",{end}")).into_bytes()
}

#[test]
fn a_text_signature_is_about_lines_that_end_in_cr_lf_and_no_others() {
    let key = rsa();
    let text = SignatureType::Text;
    // A writer of the library's ends lines by itself; the one of version 3 is handed them as they are signed.
    let library = Parts { data: lines("\r\n"), ..Parts::v4(&key, &lines("\n"), at(SIGNED), SHA256, text) };
    for parts in [library, Parts::v3(&key, &lines("\r\n"), at(SIGNED), SHA256, text)] {
        for message in [parts.message(), parts.signature_first()] {
            by(&key).proof(std::slice::from_ref(&message));
            // What is read is what was signed, to the byte.
            assert_eq!(body(&message), Ok(lines("\r\n")));
        }
        // GnuPG finds the signature wrong over each of these, whichever line ends were signed.
        for end in ["\n", "\r", "\n\n", "\r\r\n", "\n\r", " \n"] {
            let parts = Parts { data: lines(end), ..parts.clone() };
            for message in [parts.message(), parts.signature_first()] {
                assert_eq!(body(&message), Err(Malformed::LineEnd), "{end:?}");
                assert_eq!(by(&key).code(&[message]), Some(Code::MalformedSignature), "{end:?}");
            }
        }
        for end in ["", " ", " \r\n", "\r\n\r\n"] {
            let parts = Parts { data: lines(end), ..parts.clone() };
            assert_eq!(by(&key).code(&[parts.message()]), Some(Code::InvalidSignature), "{end:?}");
        }
    }
    // Signed over single line feeds, as GnuPG would verify it and the library would not: refused by its form.
    let parts = Parts::v3(&key, &lines("\n"), at(SIGNED), SHA256, text);
    assert_eq!(body(&parts.message()), Err(Malformed::LineEnd));
    // At the end of a text, too.
    for (end, is_read) in [("\r\n", true), ("\n", false), ("\r", false)] {
        let data = [&payload(IMAGE, DIGEST)[..], end.as_bytes()].concat();
        let parts = Parts::v3(&key, &data, at(SIGNED), SHA256, text);
        assert_eq!(by(&key).with(&[parts.message()]).result.is_ok(), is_read, "{end:?}");
    }
}

#[test]
fn a_text_signature_may_not_pass_for_a_binary_one_nor_the_reverse() {
    let key = rsa();
    for make in [Parts::v3 as Make, Parts::v4] {
        for typ in [SignatureType::Text, SignatureType::Binary] {
            let mut parts = make(&key, &lines("\r\n"), at(SIGNED), SHA256, typ);
            by(&key).proof(&[parts.message()]);
            parts.one_pass[1] ^= 1;
            assert_eq!(by(&key).code(&[parts.message()]), Some(Code::MalformedSignature), "its packets disagree");
            let place = if parts.signature[0] == 3 { 2 } else { 1 };
            parts.signature[place] ^= 1;
            assert_eq!(by(&key).code(&[parts.message()]), Some(Code::InvalidSignature));
            assert_eq!(by(&key).code(&[parts.signature_first()]), Some(Code::InvalidSignature));
        }
    }
}

fn bzip2(message: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    let mut writer = Compressor::new(Writer::new(&mut compressed)).algo(CompressionAlgorithm::BZip2).build().unwrap();
    writer.write_all(message).unwrap();
    writer.finalize().unwrap();
    compressed
}

#[test]
fn a_message_whose_packets_disagree_is_malformed_and_says_in_what() {
    let (key, other) = (rsa(), Key::with("other", |choice| choice.suite(CipherSuite::RSA2k)));
    let both = scenario(vec![requirement(&[key.signer("acme-release"), other.signer("other")])]);
    let other_id = KeyHandle::from(other.pair().public().keyid());
    for make in [Parts::v3 as Make, Parts::v4] {
        let of = |key: &Key| make(key, &payload(IMAGE, DIGEST), at(SIGNED), SHA256, SignatureType::Binary);
        let (good, others) = (of(&key), of(&other));
        by(&key).proof(&[good.message()]);
        // Version, type, hash, algorithm, the key's ID in eight octets, and whether another one-pass packet follows.
        for (place, value, what) in [
            (1, vec![1], Disagreement::Type),
            (2, vec![10], Disagreement::Hash),
            (3, vec![17], Disagreement::PublicKey),
            (4, others.one_pass[4..12].to_vec(), Disagreement::Key(Fingerprint::of(&other_id))),
            (4, vec![0; 8], Disagreement::Key(Fingerprint::of(&KeyID::wildcard().into()))),
        ] {
            let mut parts = good.clone();
            parts.one_pass[place..place + value.len()].copy_from_slice(&value);
            let open = parts.message();
            let deflated = [&[0xa3][..], &deflated(&open)].concat();
            let slow = bzip2(&open);
            for message in [open, deflated, slow] {
                assert_eq!(body(&message).err(), Some(Malformed::Disagreement(what.clone())));
                assert_eq!(crate::signature::claim(&message).err(), Some(Malformed::Disagreement(what.clone())));
                // Whichever of the two keys is wanted, or both.
                for scenario in [by(&key), by(&other), both.clone()] {
                    let refusal = scenario.with(std::slice::from_ref(&message)).result.unwrap_err();
                    let text = refusal.to_string();
                    let Refusal::MalformedSignature { why, .. } = refusal else { panic!("{text}") };
                    assert_eq!(why, Malformed::Disagreement(what.clone()));
                    assert!(
                        text.contains(&format!("its one-pass packet names {what} than its signature packet")),
                        "{text}"
                    );
                }
                by(&key).proof(&[message, good.message()]);
            }
        }
        // Of the two packets of different messages, neither is believed.
        let mixed = Parts { one_pass: others.one_pass.clone(), ..good.clone() };
        assert_eq!(both.code(&[mixed.message()]), Some(Code::MalformedSignature));
    }
}

#[test]
fn signatures_of_other_types_sign_no_payload() {
    let key = rsa();
    for typ in [SignatureType::Standalone, SignatureType::GenericCertification, SignatureType::KeyRevocation] {
        let parts = Parts::v3(&key, &payload(IMAGE, DIGEST), at(SIGNED), SHA256, typ);
        assert_eq!(by(&key).code(&[parts.message()]), Some(Code::MalformedSignature), "{typ}");
        assert_eq!(by(&key).code(&[parts.signature_first()]), Some(Code::MalformedSignature), "{typ}");
    }
}

#[test]
fn a_bomb_inside_a_message_of_another_shape_is_not_lit() {
    let key = rsa();
    let parts = v3(&key);
    let (one_pass, signature) = (in_parts(4, &parts.one_pass, []), in_parts(2, &parts.signature, []));
    let bomb = in_parts(8, &deflated(&vec![0xc0; 1 << 24]), []);
    assert!(bomb.len() < 20_000);
    let bodies = [
        bomb.clone(),
        [&one_pass[..], &bomb].concat(),
        [&one_pass[..], &bomb, &signature].concat(),
        [&signature[..], &bomb].concat(),
        [&parts.message()[..], &bomb].concat(),
        [&parts.signature_first()[..], &bomb].concat(),
    ];
    for (number, body) in bodies.iter().enumerate() {
        let open = body.clone();
        // Stored, so that opening it costs no more than its size.
        let stored = in_parts(8, &[&[0][..], body].concat(), []);
        let packed = in_parts(8, &deflated(body), []);
        let messages = if number == 0 { vec![stored, packed] } else { vec![open, stored, packed] };
        for message in messages {
            let mut inflated = 0;
            assert_eq!(envelope::open(&message, &mut inflated).err(), Some(Malformed::Envelope), "{number}");
            let _ = envelope::peek(&message, &mut inflated);
            assert!(inflated <= 2 * body.len(), "{number}: {inflated}");
            assert_eq!(by(&key).code(&[message]), Some(Code::MalformedSignature), "{number}");
        }
    }
    let mut inflated = 0;
    assert!(envelope::open(&bomb, &mut inflated).is_err());
    assert!(inflated <= envelope::MAX_MESSAGE_BYTES + 1);
}

#[test]
fn a_message_whose_first_octet_lost_its_top_bit_is_none() {
    let key = rsa();
    let plain = v3(&key).message();
    for message in [plain.clone(), good(&key), [&[0xa3][..], &deflated(&plain)].concat(), v3(&key).signature_first()] {
        by(&key).proof(std::slice::from_ref(&message));
        let mut damaged = message;
        damaged[0] &= 0x7f;
        assert_eq!(by(&key).code(&[damaged]), Some(Code::MalformedSignature));
    }
}

mod changes {
    use super::*;

    static KEY: LazyLock<Key> = LazyLock::new(|| Key::new("acme"));
    static ASK: LazyLock<Scenario> = LazyLock::new(|| by(&KEY));
    static OTHER_ASK: LazyLock<Scenario> =
        LazyLock::new(|| Scenario { digest: Digest::parse(OTHER).unwrap(), ..by(&KEY) });

    /// Good messages in every form, with the payload that each is about.
    static FORMS: LazyLock<Vec<(Vec<u8>, Vec<u8>)>> = LazyLock::new(|| {
        let (key, data) = (KEY.clone(), payload(IMAGE, DIGEST));
        let old = v3(&key);
        let new = Parts::v4(&key, &data, at(SIGNED), SHA256, SignatureType::Binary);
        let text = Parts::v3(&key, &lines("\r\n"), at(SIGNED), SHA256, SignatureType::Text);
        let message = old.in_parts([1, 2, 8]);
        vec![
            (old.message(), data.clone()),
            (in_parts(8, &deflated(&old.message()), [0, 3, 1]), data.clone()),
            ([&[0xa3][..], &deflated(&message)].concat(), data.clone()),
            (message, data.clone()),
            (old.signature_first(), data.clone()),
            (new.in_parts([0, 0, 0, 5]), data.clone()),
            (new.signature_first(), data),
            (text.message(), lines("\r\n")),
            (text.signature_first(), lines("\r\n")),
        ]
    });

    /// A yes only for what was signed, and nothing else read than that.
    fn check(message: &[u8], signed: &[u8]) -> Result<(), TestCaseError> {
        crate::signature::fuzzing::envelope(message);
        if let Ok(proof) = ASK.with(&[message.to_vec()]).result {
            prop_assert_eq!(proof.keys()[0].signed_at, at(SIGNED));
            prop_assert_eq!(body(message), Ok(signed.to_vec()));
        }
        prop_assert!(OTHER_ASK.with(&[message.to_vec()]).result.is_err());
        Ok(())
    }

    #[test]
    fn every_form_is_good_as_it_is() {
        for (message, signed) in &*FORMS {
            ASK.proof(std::slice::from_ref(message));
            assert_eq!(body(message).as_ref(), Ok(signed));
        }
    }

    #[test]
    fn no_octet_changed_proves_another_payload() {
        for (message, signed) in &*FORMS {
            for place in 0..message.len() {
                let mut message = message.clone();
                message[place] ^= 1 << (place % 8);
                check(&message, signed).unwrap();
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_put_in_taken_out_or_changed_proves_another_payload(
            form in any::<prop::sample::Index>(),
            place in any::<prop::sample::Index>(),
            taken in 0_usize..4,
            put in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let (message, signed) = form.get(&FORMS);
            let mut message = message.clone();
            let place = place.index(message.len());
            let end = (place + taken).min(message.len());
            message.splice(place..end, put);
            check(&message, signed)?;
        }

        #[test]
        fn a_message_split_at_random_is_the_same_message(
            powers in proptest::collection::vec(0_u8..9, 0..60),
            outer in proptest::collection::vec(0_u8..9, 0..60),
            v4: bool,
        ) {
            static MADE: LazyLock<[Parts; 2]> = LazyLock::new(|| {
                [Parts::v3 as Make, Parts::v4].map(|make| {
                    make(&KEY, &payload(IMAGE, DIGEST), at(SIGNED), SHA256, SignatureType::Binary)
                })
            });
            let parts = &MADE[usize::from(v4)];
            let open = parts.in_parts(powers);
            let compressed = in_parts(8, &deflated(&open), outer);
            for message in [open, compressed] {
                ASK.proof(std::slice::from_ref(&message));
                prop_assert_eq!(body(&message), Ok(parts.data.clone()));
            }
        }
    }
}
