mod cost;

use std::{io::Write as _, num::NonZeroUsize, sync::Arc, time::Duration};

use jiff::Timestamp;
use proptest::prelude::*;
use sequoia_openpgp::{
    Packet, PacketPile,
    cert::CipherSuite,
    packet::signature::{SignatureBuilder, subpacket::SubpacketTag},
    parse::Parse as _,
    serialize::{
        SerializeInto as _,
        stream::{Compressor, LiteralWriter, Message as Writer, Signer as MessageSigner},
    },
    types::{CompressionAlgorithm, HashAlgorithm, SignatureType},
};

use super::{check::MAX_LISTED, *};
use crate::image::{Descriptor, Digest, Manifest, Reference};
use crate::policy::{Identity, Platforms, Requirement, Requirements, RuleId, Signer};
use crate::refusal::{Code, Invalid, LookupError};
use crate::signature::testing::{self, Key, at, payload, signer, untrusted};
use crate::signature::{Disagreement, Fingerprint, KeyFault, Malformed, UntrustedSignature, envelope};

const IMAGE: &str = "registry.example.com/acme/web:1.2";
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const OTHER: &str = "sha256:4028782c08eae4a8c9a28bf661c0a8d1c2fc8e19dbaae2b018b21011197e1484";
const SIGNED: &str = "2026-05-01T00:00:00Z";
const NOW: &str = "2026-06-01T00:00:00Z";

/// In seconds.
const DAY: u64 = 24 * 3600;

fn requirement(signed_by: &[Arc<Signer>]) -> Requirement {
    Requirement {
        signed_by: signed_by.to_vec(),
        threshold: NonZeroUsize::MIN,
        identity: Identity::RepoDigestOrExact,
        max_age: None,
    }
}

fn of(threshold: usize, signed_by: &[Arc<Signer>]) -> Requirement {
    Requirement { threshold: NonZeroUsize::new(threshold).unwrap(), ..requirement(signed_by) }
}

/// A question that tests change a little.
#[derive(Clone)]
struct Ask {
    requirements: Requirements,
    image: Reference,
    digest: Digest,
    now: Timestamp,
    tries: usize,
    failure: Option<LookupError>,
}

fn ask(requirements: Vec<Requirement>) -> Ask {
    Ask {
        requirements: Requirements { all: requirements, platforms: Platforms::Index },
        image: Reference::parse(IMAGE).unwrap(),
        digest: Digest::parse(DIGEST).unwrap(),
        now: at(NOW),
        tries: 64,
        failure: None,
    }
}

/// One requirement: signed by this key.
fn by(key: &Key) -> Ask {
    ask(vec![requirement(&[key.signer("acme-release")])])
}

impl Ask {
    fn at(mut self, now: &str) -> Self {
        self.now = at(now);
        self
    }

    fn with(&self, signatures: &[Vec<u8>]) -> Examination {
        self.by(verify, signatures)
    }

    fn all(&self, signatures: &[Vec<u8>]) -> Examination {
        self.by(examine_all, signatures)
    }

    fn by(&self, verify: fn(&Question<'_>, &FoundSignatures) -> Examination, signatures: &[Vec<u8>]) -> Examination {
        let rule = RuleId::new("production", "acme");
        let question = Question {
            image: &self.image,
            digest: self.digest,
            rule: &rule,
            requirements: &self.requirements,
            now: self.now,
            tries: self.tries,
        };
        let asked = AskedSource {
            url: "https://registry.example.com/".into(),
            outcome: self.failure.clone().map_or(Ok(signatures.len()), Err),
        };
        let signatures = signatures.iter().cloned().map(untrusted).collect();
        verify(&question, &FoundSignatures { signatures, asked: vec![asked] })
    }

    fn code(&self, signatures: &[Vec<u8>]) -> Option<Code> {
        self.with(signatures).result.err().map(|refusal| refusal.code())
    }

    fn proof(&self, signatures: &[Vec<u8>]) -> VerifiedImage {
        self.with(signatures).result.unwrap()
    }
}

fn good(key: &Key) -> Vec<u8> {
    key.sign(&payload(IMAGE, DIGEST), at(SIGNED))
}

fn down() -> LookupError {
    LookupError::Unavailable {
        registry: "registry.example.com".into(),
        url: "https://registry.example.com/".into(),
        cause: "connection refused".into(),
        retry_after: None,
    }
}

#[test]
fn a_good_signature_of_every_usual_kind_of_key_is_proof() {
    for suite in [CipherSuite::Cv25519, CipherSuite::P256, CipherSuite::RSA2k, CipherSuite::RSA4k] {
        let key = Key::with("acme", |choice| choice.suite(suite));
        let proof = by(&key).proof(&[good(&key)]);
        assert_eq!(proof.digest().to_string(), DIGEST);
        assert_eq!(proof.rule().as_str(), "production/acme");
        let expected =
            VerifiedKey { signer: "acme-release".into(), fingerprint: key.fingerprint(), signed_at: at(SIGNED) };
        assert_eq!(proof.keys(), [expected]);
        assert_eq!(proof.valid_until(), None);
    }
}

#[test]
fn whoever_asks_about_all_signatures_is_told_of_each_whatever_the_first_one_proves() {
    let (key, stranger) = (Key::new("acme"), Key::new("stranger"));
    let elsewhere = key.sign(&payload("registry.example.com/acme/db:1", DIGEST), at(SIGNED));
    let other = key.sign(&payload(IMAGE, OTHER), at(SIGNED));
    let mut signatures = vec![good(&key), b"junk".to_vec(), good(&key), elsewhere, other, good(&stranger)];
    signatures.push(signatures[0].clone());
    signatures.extend((0..=MAX_LISTED).map(|_| good(&stranger)));
    let ask = Ask { tries: 1, ..by(&key) };
    assert_eq!(ask.with(&signatures).signatures.len(), 1, "the gate stops at the proof");
    let Examination { result, mut signatures, .. } = ask.all(&signatures);
    assert_eq!(result.unwrap().keys().len(), 1);
    signatures.sort_by_key(|one| one.place);
    assert!(signatures.iter().enumerate().all(|(number, one)| one.place == number));
    let codes = signatures.iter().map(|one| one.outcome.as_ref().err().map(Refusal::code));
    let mut expected = vec![
        None,
        Some(Code::MalformedSignature),
        None,
        Some(Code::WrongIdentity),
        Some(Code::WrongDigest),
        Some(Code::UntrustedKey),
        None,
    ];
    expected.extend([Some(Code::UntrustedKey); MAX_LISTED + 1]);
    assert_eq!(codes.collect::<Vec<_>>(), expected);
    for place in [0, 2, 3, 4, 6] {
        assert_eq!(signatures[place].certificate, Some(key.fingerprint()));
    }
    assert_eq!(signatures[5].certificate, None);
}

#[test]
fn all_of_no_good_signatures_are_no_proof_either() {
    let (key, stranger) = (Key::new("acme"), Key::new("stranger"));
    for signatures in [vec![], vec![good(&stranger)], vec![b"junk".to_vec(); 3]] {
        let (enough, all) = (by(&key).with(&signatures), by(&key).all(&signatures));
        assert_eq!(all.result.unwrap_err().code(), enough.result.unwrap_err().code());
        assert_eq!(all.signatures.len(), signatures.len());
    }
}

#[test]
fn a_signing_subkey_signs_for_its_certificate() {
    let key = Key::with("acme", testing::Choice::signing_subkey);
    let proof = by(&key).proof(&[good(&key)]);
    assert_eq!(proof.keys()[0].fingerprint, key.fingerprint());
    assert_eq!(by(&key).with(&[good(&key)]).signatures[0].signer.as_deref(), Some("acme-release"));
}

#[test]
fn every_usual_compression_is_read() {
    let key = Key::new("acme");
    for compression in
        [None, Some(CompressionAlgorithm::Zip), Some(CompressionAlgorithm::Zlib), Some(CompressionAlgorithm::BZip2)]
    {
        let message = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, compression, |b| b);
        by(&key).proof(std::slice::from_ref(&message));
        let mut followed = message;
        followed.extend(good(&key));
        // As containers/image: what follows a compressed packet is ignored, what follows an uncompressed message spoils it.
        let expected = compression.is_none().then_some(Code::MalformedSignature);
        assert_eq!(by(&key).code(&[followed]), expected, "{compression:?}");
    }
}

#[test]
fn without_a_signature_the_image_is_unsigned() {
    assert_eq!(by(&Key::new("acme")).code(&[]), Some(Code::Unsigned));
}

#[test]
fn a_signature_by_another_key_is_untrusted_without_a_try() {
    let (ours, theirs) = (Key::new("acme"), Key::new("other"));
    let question = Ask { tries: 0, ..by(&ours) };
    let examination = question.with(&[good(&theirs)]);
    let Err(Refusal::UntrustedKey { signed_by, wanted }) = examination.result else { panic!("{examination:?}") };
    assert_eq!(signed_by, [theirs.fingerprint()]);
    assert_eq!(wanted.signers[0], ("acme-release".into(), vec![ours.fingerprint()]));
    assert_eq!(examination.signatures[0].key, Some(theirs.fingerprint()));
    assert_eq!(examination.signatures[0].signer, None);
    assert_eq!(examination.signatures[0].identity, None, "nothing of it is proven");
}

#[test]
fn a_signature_for_another_name_tag_or_digest_says_for_which() {
    let key = Key::new("acme");
    let moved = key.sign(&payload("registry.example.com/acme/web:1.1", DIGEST), at(SIGNED));
    let examination = by(&key).with(&[moved]);
    let Err(Refusal::WrongIdentity { signed, .. }) = &examination.result else { panic!("{examination:?}") };
    assert_eq!(signed.to_string(), "registry.example.com/acme/web:1.1");
    assert_eq!(examination.signatures[0].identity.as_ref(), Some(&**signed));

    let other = key.sign(&payload(IMAGE, OTHER), at(SIGNED));
    let examination = by(&key).with(&[other]);
    let Err(Refusal::WrongDigest { signed, .. }) = &examination.result else { panic!("{examination:?}") };
    assert_eq!(signed.to_string(), OTHER);
}

#[test]
fn a_payload_that_is_not_strict_is_malformed() {
    let key = Key::new("acme");
    let text = String::from_utf8(payload(IMAGE, DIGEST)).unwrap();
    for bad in
        [text.replace("\"optional\"", "\"more\""), text.replace("}}", "},\"x\":1}"), "{}".into(), text[1..].into()]
    {
        assert_eq!(by(&key).code(&[key.sign(bad.as_bytes(), at(SIGNED))]), Some(Code::MalformedSignature), "{bad}");
    }
}

#[test]
fn what_is_not_one_message_of_one_signer_is_malformed() {
    let (key, second) = (Key::new("acme"), Key::new("second"));
    let question = ask(vec![requirement(&[key.signer("acme-release"), second.signer("second")])]);
    let body = payload(IMAGE, DIGEST);
    let plain = key.sign_with(&body, at(SIGNED), HashAlgorithm::SHA256, None, |builder| builder);
    let packets: Vec<Packet> = PacketPile::from_bytes(&plain).unwrap().into_children().collect();
    let [one_pass, literal, signature] = <[Packet; 3]>::try_from(packets).unwrap();
    let pile = |packets: &[&Packet]| PacketPile::from(packets.iter().map(|&p| p.clone()).collect::<Vec<_>>());

    let mut two_signers = Vec::new();
    let message = MessageSigner::with_template(
        Writer::new(&mut two_signers),
        key.pair(),
        SignatureBuilder::new(SignatureType::Binary),
    );
    let message = message.unwrap().add_signer(second.pair()).unwrap();
    let mut message = LiteralWriter::new(message.build().unwrap()).build().unwrap();
    message.write_all(&body).unwrap();
    message.finalize().unwrap();

    let mut armored = sequoia_openpgp::armor::Writer::new(Vec::new(), sequoia_openpgp::armor::Kind::Message).unwrap();
    armored.write_all(&good(&key)).unwrap();

    let mut nested = Vec::new();
    let outer = Compressor::new(Writer::new(&mut nested)).build().unwrap();
    let inner = Compressor::new(outer).build().unwrap();
    let signed = MessageSigner::with_template(inner, key.pair(), SignatureBuilder::new(SignatureType::Binary)).unwrap();
    let mut literal_writer = LiteralWriter::new(signed.build().unwrap()).build().unwrap();
    literal_writer.write_all(&body).unwrap();
    literal_writer.finalize().unwrap();

    for (name, message) in [
        ("two signers", two_signers),
        ("armored", armored.finalize().unwrap()),
        ("clear-signed", b"-----BEGIN PGP SIGNED MESSAGE-----\n\n{}\n-----BEGIN PGP SIGNATURE-----\n".to_vec()),
        ("detached", pile(&[&signature]).to_vec().unwrap()),
        ("signature last", pile(&[&literal, &signature]).to_vec().unwrap()),
        ("unsigned", pile(&[&literal]).to_vec().unwrap()),
        ("two literals", pile(&[&one_pass, &literal, &literal, &signature]).to_vec().unwrap()),
        ("two signatures", pile(&[&one_pass, &literal, &signature, &signature]).to_vec().unwrap()),
        ("two messages", [plain.clone(), plain.clone()].concat()),
        ("something after it", [plain.clone(), b"x".to_vec()].concat()),
        ("nested compression", nested),
        ("empty", vec![]),
        ("lookaside prefix", [b"\0simple-signing\n".to_vec(), plain.clone()].concat()),
        ("a certificate", key.public()),
    ] {
        assert_eq!(question.code(&[message]), Some(Code::MalformedSignature), "{name}");
    }
    question.proof(&[plain]);
}

#[test]
fn a_bomb_is_put_out_early() {
    let key = Key::new("acme");
    for algorithm in [CompressionAlgorithm::Zip, CompressionAlgorithm::Zlib, CompressionAlgorithm::BZip2] {
        let mut bomb = Vec::new();
        let mut message = Compressor::new(Writer::new(&mut bomb)).algo(algorithm).build().unwrap();
        message.write_all(&vec![0xc0; 1 << 20]).unwrap();
        message.finalize().unwrap();
        assert!(bomb.len() < 4096);
        let examination = by(&key).with(&[bomb]);
        let Err(Refusal::MalformedSignature { why, .. }) = examination.result else { panic!("{examination:?}") };
        let expected = match algorithm {
            CompressionAlgorithm::BZip2 => Malformed::TooLarge { limit: envelope::MAX_MESSAGE_BYTES },
            _ => Malformed::Envelope,
        };
        assert_eq!(why, expected, "{algorithm}");
    }
    let long = key.sign(&vec![b' '; 1 << 15], at(SIGNED));
    assert_eq!(by(&key).code(&[long]), Some(Code::MalformedSignature));
    assert_eq!(by(&key).code(&[vec![0xff; 1 << 20]]), Some(Code::MalformedSignature));
}

/// A small compressed packet of this and 64 KiB of zeros behind it.
fn bomb(start: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::DeflateEncoder::new(vec![0xa3, 1], flate2::Compression::best());
    writer.write_all(start).unwrap();
    writer.write_all(&vec![0; 64 << 10]).unwrap();
    writer.finish().unwrap()
}

/// The packet with which a message of this key begins.
fn start_of(key: &Key) -> Vec<u8> {
    let plain = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, |builder| builder);
    plain[..2 + usize::from(plain[1])].to_vec()
}

#[test]
fn twenty_thousand_bombs_cost_what_their_size_costs_and_hide_no_good_signature() {
    let (key, other) = (Key::new("acme"), Key::new("other"));
    let starts = [Vec::new(), start_of(&other), start_of(&key)];
    let bombs = starts.map(|start| bomb(&start));
    assert!(bombs.iter().all(|bomb| bomb.len() < 200));
    // What follows a compressed packet is no part of the message: so each is another one.
    let mut signatures: Vec<UntrustedSignature> = (0..20_000_u32)
        .map(|number| untrusted([bombs[number as usize % 3].as_slice(), &number.to_be_bytes()].concat()))
        .collect();
    signatures.push(untrusted(good(&key)));
    let received: usize = signatures.iter().map(|signature| signature.content.len()).sum();
    let ask = Ask { tries: 1, ..by(&key) };
    let rule = RuleId::new("production", "acme");
    let question = Question {
        image: &ask.image,
        digest: ask.digest,
        rule: &rule,
        requirements: &ask.requirements,
        now: ask.now,
        tries: ask.tries,
    };
    let mut budget = VerificationBudget::new(ask.tries);
    let checked =
        check_all(&question, &trusted_certificates(&ask.requirements), &signatures, &mut budget, Extent::UntilProven);
    assert!(prove(&question, &checked).is_some());
    assert!(budget.inflated <= envelope::USUAL_RATIO * received + 20_001, "{}", budget.inflated);
}

#[test]
fn a_signature_that_takes_long_to_open_is_found_in_one_try_among_bombs_that_name_no_key_of_the_rule() {
    let (key, other) = (Key::new("acme"), Key::new("other"));
    let spaced = [payload(IMAGE, DIGEST), vec![b' '; 12 << 10]].concat();
    let zip = key.sign(&spaced, at(SIGNED));
    assert!(zip.len() * envelope::USUAL_RATIO < spaced.len());
    let bzip2 = Some(CompressionAlgorithm::BZip2);
    let bzip2 = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA512, bzip2, |builder| builder);
    for good in [zip, bzip2] {
        let question = Ask { tries: 1, ..by(&key) };
        question.proof(&[bomb(b""), bomb(&start_of(&other)), good]);
        let named = question.with(&[bomb(&start_of(&other))]).result.unwrap_err();
        let Refusal::UntrustedKey { signed_by, .. } = named else { panic!("{named}") };
        assert!(other.fingerprint().0.ends_with(&*signed_by[0].0), "{signed_by:?}");
    }
}

#[test]
fn a_message_in_parts_and_under_every_kind_of_header_is_read() {
    let key = Key::new("acme");
    let old = good(&key);
    // The writer of the tests makes one packet in one part: its content is put under other headers.
    let mut compressed = flate2::write::DeflateEncoder::new(vec![1], flate2::Compression::best());
    let plain = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, |builder| builder);
    compressed.write_all(&plain).unwrap();
    let body = compressed.finish().unwrap();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let two = u16::try_from(body.len() - 192).unwrap().to_be_bytes();
    let rest = u8::try_from(body.len() - 256 - 64).unwrap();
    assert!(rest < 192);
    let messages = [
        old,
        [&[0xa3][..], &body].concat(),
        [&[0xa1][..], &length, &body].concat(),
        [&[0xa2, 0, 0][..], &length, &body].concat(),
        [&[0xc8, 192 + two[0], two[1]][..], &body].concat(),
        [&[0xc8, 255, 0, 0][..], &length, &body].concat(),
        [&[0xc8, 224 + 8][..], &body[..256], &[224 + 6], &body[256..320], &[rest], &body[320..]].concat(),
    ];
    for message in &messages {
        by(&key).proof(std::slice::from_ref(message));
        let cut = &message[..message.len() - 40];
        assert_eq!(by(&key).code(&[cut.to_vec()]), Some(Code::MalformedSignature));
    }
}

#[test]
fn a_signature_that_was_damaged_on_its_way_costs_no_try() {
    let key = Key::new("acme");
    let plain = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, |builder| builder);
    let place = plain.windows(10).position(|window| window == b"1764000000").unwrap();
    let damaged = (0..200_u8).map(|number| {
        let mut message = plain.clone();
        message[place + 1 + usize::from(number % 9)] = b'0' + number / 20;
        message
    });
    let mut signatures: Vec<Vec<u8>> = damaged.filter(|message| *message != plain).collect();
    let question = Ask { tries: 1, ..by(&key) };
    assert_eq!(question.code(&signatures), Some(Code::InvalidSignature));
    signatures.push(plain);
    question.proof(&signatures);
}

#[test]
fn a_signature_that_does_not_belong_to_its_payload_is_invalid() {
    let key = Key::new("acme");
    let mut message = key.sign_with(&payload(IMAGE, OTHER), at(SIGNED), HashAlgorithm::SHA256, None, |builder| builder);
    let place = message.windows(OTHER.len()).position(|window| window == OTHER.as_bytes()).unwrap();
    message[place..place + OTHER.len()].copy_from_slice(DIGEST.as_bytes());
    let examination = by(&key).with(&[message]);
    let Err(Refusal::InvalidSignature { why, .. }) = examination.result else { panic!("{examination:?}") };
    assert_eq!(why, Invalid::Cryptography);
    assert_eq!(examination.signatures[0].digest, None, "a forged payload proves nothing");
}

#[test]
fn a_signature_that_names_a_key_it_is_not_of_never_counts() {
    let (ours, theirs) = (Key::new("acme"), Key::new("other"));
    let lie =
        |issuer: Option<&Key>| {
            let handle = issuer.map(|key| key.pair().public().fingerprint());
            theirs.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, move |builder| {
                match handle {
                    Some(handle) => builder.set_issuer_fingerprint(handle).unwrap(),
                    None => builder,
                }
            })
        };
    by(&theirs).proof(&[lie(None)]);
    let lying = lie(Some(&ours));
    // It names both, or only ours, and its one-pass packet theirs: trusted as neither.
    for ask in [by(&ours), by(&theirs)] {
        assert_eq!(ask.code(std::slice::from_ref(&lying)), Some(Code::MalformedSignature));
    }
    let packets = PacketPile::from_bytes(&lying).unwrap().into_children().collect::<Vec<_>>();
    let [_, literal, signature] = <[Packet; 3]>::try_from(packets).unwrap();
    let without_one_pass = PacketPile::from(vec![signature, literal]).to_vec().unwrap();
    let code = by(&ours).code(std::slice::from_ref(&without_one_pass));
    assert!(matches!(code, Some(Code::InvalidSignature | Code::UntrustedKey)), "{code:?}");
    assert_eq!(by(&theirs).code(&[without_one_pass]), Some(Code::UntrustedKey));
}

#[test]
fn a_signature_that_names_no_key_is_untrusted() {
    let key = Key::new("acme");
    let plain = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, |builder| builder);
    let mut packets: Vec<Packet> = PacketPile::from_bytes(&plain).unwrap().into_children().collect();
    let Some(Packet::Signature(signature)) = packets.last_mut() else { panic!("{packets:?}") };
    signature.hashed_area_mut().remove_all(SubpacketTag::IssuerFingerprint);
    signature.hashed_area_mut().remove_all(SubpacketTag::Issuer);
    signature.unhashed_area_mut().clear();
    let examination = by(&key).with(&[PacketPile::from(packets).to_vec().unwrap()]);
    let Err(Refusal::UntrustedKey { signed_by, .. }) = &examination.result else { panic!("{examination:?}") };
    assert!(signed_by.is_empty());
    assert_eq!(examination.signatures[0].key, None);
}

#[test]
fn an_expired_signature_does_not_count() {
    let key = Key::new("acme");
    let message = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, |builder| {
        builder.set_signature_validity_period(Duration::from_hours(24)).unwrap()
    });
    let expiry = "2026-05-02T00:00:00Z";
    let proof = by(&key).at("2026-05-01T23:59:59Z").proof(std::slice::from_ref(&message));
    assert_eq!(proof.valid_until(), Some(at(expiry)));
    let refusal = by(&key).at(expiry).with(&[message]).result.unwrap_err();
    assert!(matches!(refusal, Refusal::ExpiredSignature { at: end, .. } if end == at(expiry)), "{refusal:?}");
}

#[test]
fn a_key_that_is_expired_now_does_not_count_whatever_the_signing_time() {
    let key = Key::with("acme", |choice| choice.expires(at("2026-05-15T00:00:00Z")));
    let proof = by(&key).at("2026-05-14T00:00:00Z").proof(&[good(&key)]);
    assert_eq!(proof.valid_until(), Some(at("2026-05-15T00:00:00Z")));
    let refusal = by(&key).with(&[good(&key)]).result.unwrap_err();
    assert!(matches!(&refusal, Refusal::ExpiredKey { key: named, .. } if *named == key.fingerprint()), "{refusal:?}");
    assert_eq!(by(&key).code(&[]), Some(Code::ExpiredKey), "no signature could help");
}

#[test]
fn a_key_whose_expiry_was_put_off_still_counts_for_what_it_signed_before() {
    let key = Key::with("acme", |choice| choice.expires(at("2026-05-15T00:00:00Z")));
    for keyring in
        [key.expiry_moved(at("2026-05-10T00:00:00Z"), None), key.expiry_added(at("2026-05-10T00:00:00Z"), None)]
    {
        ask(vec![requirement(&[signer("acme-release", &[keyring])])]).proof(&[good(&key)]);
    }
}

#[test]
fn a_key_that_had_lapsed_when_it_signed_does_not_count() {
    let key = Key::with("acme", |choice| choice.expires(at("2026-04-01T00:00:00Z")));
    let keyring = key.expiry_added(at("2026-05-10T00:00:00Z"), None);
    let question = ask(vec![requirement(&[signer("acme-release", &[keyring])])]);
    assert_eq!(question.code(&[good(&key)]), Some(Code::ExpiredKey));
    question.proof(&[key.sign(&payload(IMAGE, DIGEST), at("2026-03-01T00:00:00Z"))]);
}

#[test]
fn a_revoked_certificate_or_subkey_does_not_count_whatever_the_signing_time() {
    let key = Key::new("acme");
    let later = at("2026-05-20T00:00:00Z");
    let question = ask(vec![requirement(&[signer("acme-release", &[key.revoked(later)])])]);
    assert_eq!(question.code(&[good(&key)]), Some(Code::RevokedKey));
    assert_eq!(question.at("2026-05-02T00:00:00Z").code(&[good(&key)]), Some(Code::RevokedKey));

    let key = Key::with("acme", testing::Choice::signing_subkey);
    let question = ask(vec![requirement(&[signer("acme-release", &[key.subkey_revoked(later)])])]);
    assert_eq!(question.code(&[good(&key)]), Some(Code::RevokedKey));
}

#[test]
fn a_revocation_holds_in_whichever_keyring_it_stands() {
    let key = Key::new("acme");
    let revoked = signer("elsewhere", &[key.revoked(at(SIGNED))]);
    let both = [requirement(&[key.signer("acme-release")]), requirement(&[revoked])];
    assert_eq!(ask(both.to_vec()).code(&[good(&key)]), Some(Code::RevokedKey));
}

#[test]
fn weak_keys_and_hashes_do_not_count() {
    let key = Key::new("acme");
    for hash in [HashAlgorithm::SHA1, HashAlgorithm::RipeMD] {
        let message = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), hash, None, |builder| builder);
        assert_eq!(by(&key).code(&[message]), Some(Code::WeakAlgorithm), "{hash}");
    }
    for key in [testing::rsa_1024(), testing::sha1_key()] {
        assert_eq!(by(&key).code(&[good(&key)]), Some(Code::WeakAlgorithm));
    }
    let old = Key::with("old", |choice| choice.born(at("2010-01-01T00:00:00Z")));
    let signed = at("2011-01-01T00:00:00Z");
    let message = old.sign_with(&payload(IMAGE, DIGEST), signed, HashAlgorithm::SHA1, None, |builder| builder);
    assert_eq!(by(&old).at("2011-02-01T00:00:00Z").code(&[message]), Some(Code::WeakAlgorithm), "at any time");
}

#[test]
fn a_key_not_made_for_signing_does_not_count() {
    let key = Key::with("acme", testing::Choice::no_signing);
    let refusal = by(&key).with(&[good(&key)]).result.unwrap_err();
    let Refusal::InvalidSignature { why: Invalid::Key(KeyFault::NotForSigning { .. }), .. } = refusal else {
        panic!("{refusal:?}")
    };
}

#[test]
fn a_signature_older_than_its_key_does_not_count() {
    let key = Key::with("acme", |choice| choice.born(at("2026-05-02T00:00:00Z")));
    let refusal = by(&key).with(&[good(&key)]).result.unwrap_err();
    let Refusal::InvalidSignature { why: Invalid::Key(KeyFault::Younger { .. }), .. } = refusal else {
        panic!("{refusal:?}")
    };
}

#[test]
fn a_signer_s_clock_may_be_five_minutes_ahead() {
    let key = Key::new("acme");
    by(&key).at("2026-04-30T23:55:00Z").proof(&[good(&key)]);
    let refusal = by(&key).at("2026-04-30T23:54:59Z").with(&[good(&key)]).result.unwrap_err();
    assert!(matches!(refusal, Refusal::InvalidSignature { why: Invalid::Future(_), .. }), "{refusal:?}");
}

#[test]
fn a_critical_part_that_is_not_known_spoils_a_signature() {
    use sequoia_openpgp::packet::signature::subpacket::NotationDataFlags;
    let key = Key::new("acme");
    let noted = |critical| {
        key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, |builder| {
            let flags = NotationDataFlags::empty().set_human_readable();
            builder.add_notation("only-for@example.com", b"staging", flags, critical).unwrap()
        })
    };
    by(&key).proof(&[noted(false)]);
    let refusal = by(&key).with(&[noted(true)]).result.unwrap_err();
    assert!(matches!(refusal, Refusal::InvalidSignature { why: Invalid::Critical, .. }), "{refusal:?}");
}

#[test]
fn a_signature_older_than_max_age_does_not_count() {
    let key = Key::new("acme");
    let aged = |days: u64| {
        let max_age = Some(Duration::from_secs(days * DAY));
        ask(vec![Requirement { max_age, ..requirement(&[key.signer("acme-release")]) }])
    };
    assert_eq!(aged(32).proof(&[good(&key)]).valid_until(), Some(at("2026-06-02T00:00:00Z")));
    assert_eq!(aged(31).code(&[good(&key)]), Some(Code::TooOld));
    let newer = key.sign(&payload(IMAGE, DIGEST), at("2026-05-31T00:00:00Z"));
    aged(31).proof(&[good(&key), newer]);
    aged(u64::MAX / DAY).proof(&[good(&key)]);
}

#[test]
fn a_threshold_counts_different_signers() {
    let (one, two, three) = (Key::new("one"), Key::new("two"), Key::new("three"));
    let names = [one.signer("one"), two.signer("two"), three.signer("three")];
    let question = ask(vec![of(2, &names)]);
    assert_eq!(question.proof(&[good(&one), good(&three)]).keys().len(), 2);
    let again = one.sign(&payload(IMAGE, DIGEST), at("2026-05-02T00:00:00Z"));
    let refusal = question.with(&[good(&one), again]).result.unwrap_err();
    assert!(
        matches!(&refusal, Refusal::ThresholdNotMet { good, .. } if good.len() == 1 && *good[0] == *"one"),
        "{refusal:?}"
    );
    // Two certificates of one signer, who is rotating keys, are one signer.
    let question = ask(vec![of(2, &[signer("one", &[one.public(), two.public()]), names[2].clone()])]);
    assert_eq!(question.code(&[good(&one), good(&two)]), Some(Code::ThresholdNotMet));
    question.proof(&[good(&one), good(&two), good(&three)]);
    // One certificate under two names, which no loader lets pass, is one signer as well.
    let question = ask(vec![of(2, &[one.signer("one"), one.signer("also-one")])]);
    let again = one.sign(&payload(IMAGE, DIGEST), at("2026-05-02T00:00:00Z"));
    assert_eq!(question.code(&[good(&one), again]), Some(Code::ThresholdNotMet));
}

#[test]
fn all_requirements_must_hold_and_one_signature_may_serve_several() {
    let (one, two) = (Key::new("one"), Key::new("two"));
    let (release, security) = (requirement(&[one.signer("one")]), requirement(&[one.signer("one"), two.signer("two")]));
    assert_eq!(ask(vec![release.clone(), security.clone()]).proof(&[good(&one)]).keys().len(), 1);
    assert_eq!(ask(vec![release.clone(), security]).code(&[good(&two)]), Some(Code::UntrustedKey));
    let strict = Requirement {
        identity: Identity::ExactReference(Reference::parse("x.example.com/y:1").unwrap()),
        ..release.clone()
    };
    assert_eq!(ask(vec![release, strict]).code(&[good(&one)]), Some(Code::WrongIdentity));
}

#[test]
fn nothing_required_or_nobody_named_is_no_proof() {
    let key = Key::new("acme");
    assert_eq!(ask(vec![]).code(&[good(&key)]), Some(Code::DeniedByPolicy));
    assert_eq!(ask(vec![requirement(&[])]).code(&[good(&key)]), Some(Code::DeniedByPolicy));
    assert_eq!(
        ask(vec![requirement(&[key.signer("a")]), requirement(&[])]).code(&[good(&key)]),
        Some(Code::DeniedByPolicy)
    );
    assert_eq!(ask(vec![of(2, &[key.signer("a")])]).code(&[good(&key)]), Some(Code::DeniedByPolicy));
    assert_eq!(ask(vec![of(2, &[key.signer("a"), key.signer("a")])]).code(&[good(&key)]), Some(Code::DeniedByPolicy));
    assert_eq!(ask(vec![requirement(&[signer("a", &[])])]).code(&[good(&key)]), Some(Code::DeniedByPolicy));
}

#[test]
fn the_refusal_is_that_of_the_signature_closest_to_success() {
    let (key, other) = (Key::new("acme"), Key::new("other"));
    let moved = key.sign(&payload("registry.example.com/acme/web:1.1", DIGEST), at(SIGNED));
    let elsewhere = key.sign(&payload(IMAGE, OTHER), at(SIGNED));
    let weak = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA1, None, |builder| builder);
    let ladder = [
        (vec![0x90], Code::MalformedSignature),
        (weak, Code::WeakAlgorithm),
        (elsewhere, Code::WrongDigest),
        (moved, Code::WrongIdentity),
    ];
    let mut signatures = vec![good(&other)];
    assert_eq!(by(&key).code(&signatures), Some(Code::UntrustedKey));
    for (signature, code) in ladder {
        signatures.insert(0, signature);
        assert_eq!(by(&key).code(&signatures), Some(code));
        signatures.rotate_left(1);
        assert_eq!(by(&key).code(&signatures), Some(code), "in any order");
    }
    signatures.push(good(&key));
    by(&key).proof(&signatures);
}

#[test]
fn while_a_source_fails_the_absence_of_a_signature_proves_nothing() {
    let (key, other) = (Key::new("acme"), Key::new("other"));
    let question = Ask { failure: Some(down()), ..by(&key) };
    assert_eq!(question.code(&[]), Some(Code::RegistryUnavailable));
    assert_eq!(question.code(&[good(&other)]), Some(Code::RegistryUnavailable));
    question.proof(&[good(&key)]);
    let revoked = ask(vec![requirement(&[signer("acme-release", &[key.revoked(at(SIGNED))])])]);
    let question = Ask { failure: Some(down()), ..revoked };
    assert_eq!(question.code(&[]), Some(Code::RevokedKey), "no signature could help");
    let question = Ask { failure: Some(down()), ..ask(vec![]) };
    assert_eq!(question.code(&[]), Some(Code::DeniedByPolicy), "no signature could help");
}

#[test]
fn what_a_rule_wants_is_there_once_however_many_signatures_there_are() {
    let (key, other) = (Key::new("acme"), Key::new("other"));
    let content = |reference: &str| other.sign(&payload(reference, DIGEST), at(SIGNED));
    let examination = by(&key).with(&[content(IMAGE), content("registry.example.com/acme/web:2")]);
    let refusals = examination.signatures.iter().filter_map(|one| one.outcome.as_ref().err());
    let all: Vec<_> = refusals.chain(examination.result.as_ref().err()).filter_map(Refusal::wanted).collect();
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|wanted| Arc::ptr_eq(&wanted.signers, &all[0].signers)));
}

#[test]
fn a_thousand_bad_signatures_beside_a_good_one_do_no_harm() {
    let (key, other) = (Key::new("acme"), Key::new("other"));
    let mut signatures: Vec<Vec<u8>> = Vec::new();
    for number in 0..250_u8 {
        signatures.push(vec![number; 200]);
        let mut text = good(&other);
        *text.last_mut().unwrap() = number;
        signatures.push(text);
        // They name our key, but are for other images.
        let tag = format!("registry.example.com/acme/web:{number}");
        signatures.push(key.sign_with(&payload(&tag, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, |b| b));
        signatures.push(other.sign(&payload(&tag, DIGEST), at(SIGNED)));
    }
    signatures.push(good(&key));
    let question = Ask { tries: 1, ..by(&key) };
    question.proof(&signatures);
    signatures.pop();
    let examination = question.with(&signatures);
    assert_eq!(examination.result.unwrap_err().code(), Code::WrongIdentity);
    assert!(examination.signatures.len() <= MAX_LISTED + 1);
}

#[test]
fn tries_are_bounded_and_copies_count_once() {
    let key = Key::new("acme");
    let forged = |number: u8| {
        let mut message =
            key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, |builder| builder);
        let last = message.len() - 1;
        message[last] ^= number;
        message
    };
    let mut signatures: Vec<Vec<u8>> = (1..=10).map(forged).collect();
    signatures.push(good(&key));
    let question = Ask { tries: 10, ..by(&key) };
    let examination = question.with(&signatures);
    assert_eq!(examination.result.unwrap_err().code(), Code::InvalidSignature);
    assert_eq!(examination.signatures.len(), 10);
    Ask { tries: 11, ..by(&key) }.proof(&signatures);
    assert_eq!(Ask { tries: 0, ..by(&key) }.code(&[good(&key)]), Some(Code::TooManySignatures));
    let copies = vec![forged(1); 50];
    Ask { tries: 2, ..by(&key) }.proof(&[copies, vec![good(&key)]].concat());
}

#[test]
fn the_next_step_proposes_a_key_that_can_sign_and_the_name_that_is_wanted() {
    let other = Key::new("other");
    let subkey = Key::with("acme", testing::Choice::signing_subkey);
    let revoked = signer("acme-release", &[subkey.subkey_revoked(at(NOW))]);
    let weak = testing::rsa_1024();
    let identity = Identity::ExactReference(Reference::parse("origin.example.com/web:1").unwrap());
    for (signers, by) in [(revoked, &subkey), (weak.signer("acme-release"), &weak)] {
        let both = Requirement { identity: identity.clone(), ..requirement(&[signers.clone(), other.signer("other")]) };
        let refusal = ask(vec![both]).with(&[good(by)]).result.unwrap_err();
        assert!(matches!(refusal.code(), Code::RevokedKey | Code::WeakAlgorithm), "{refusal}");
        let step = refusal.next_step(IMAGE);
        let expected = format!("--sign-by {} --sign-identity origin.example.com/web:1", other.fingerprint());
        assert!(step.ends_with(&expected), "{step}");
        let step = ask(vec![requirement(&[signers])]).with(&[good(by)]).result.unwrap_err().next_step(IMAGE);
        assert_eq!(step, "Put a valid key into rule production/acme, and sign it with that.");
    }
}

#[test]
fn what_was_proven_once_does_not_help_what_is_not() {
    // Sequoia remembers, for the whole process, which signatures were good.
    let key = Key::with("acme", |choice| choice.expires(at("2026-07-01T00:00:00Z")));
    let message = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, |builder| builder);
    by(&key).proof(std::slice::from_ref(&message));
    let place = message.windows(DIGEST.len()).position(|window| window == DIGEST.as_bytes()).unwrap();
    let mut changed = message.clone();
    changed[place + 10] = if changed[place + 10] == b'0' { b'1' } else { b'0' };
    assert_eq!(by(&key).code(&[changed]), Some(Code::InvalidSignature));
    let copy = std::slice::from_ref(&message);
    assert_eq!(by(&key).at("2026-07-01T00:00:00Z").code(copy), Some(Code::ExpiredKey));
    assert_eq!(by(&Key::new("other")).code(copy), Some(Code::UntrustedKey));
    let revoked = ask(vec![requirement(&[signer("acme-release", &[key.revoked(at(NOW))])])]);
    assert_eq!(revoked.code(copy), Some(Code::RevokedKey));
    by(&key).proof(copy);
}

#[test]
fn an_image_by_digest_takes_a_signature_of_its_repository() {
    let key = Key::new("acme");
    let image = Reference::parse(&format!("registry.example.com/acme/web:9@{DIGEST}")).unwrap();
    let proof = Ask { image: image.clone(), ..by(&key) }.proof(&[good(&key)]);
    assert_eq!(*proof.image(), image);
}

mod each {
    use super::*;

    fn entry(digest: Digest, attestation: bool) -> Descriptor {
        Descriptor { digest, platform: None, attestation }
    }

    fn join(
        question: &Ask,
        rule: &str,
        entries: &[Descriptor],
        proofs: &[Result<VerifiedImage, Refusal>],
    ) -> Result<VerifiedImage, Code> {
        join_index(question, rule, Digest::sha256(b"index"), entries, proofs)
    }

    fn join_index(
        question: &Ask,
        rule: &str,
        digest: Digest,
        entries: &[Descriptor],
        proofs: &[Result<VerifiedImage, Refusal>],
    ) -> Result<VerifiedImage, Code> {
        let index = HashedManifest::made_up(digest, Manifest::Index(entries.to_vec()));
        let rule = RuleId::new("production", rule);
        let question = Question {
            image: &question.image,
            digest: Digest::sha256(b"index"),
            rule: &rule,
            requirements: &question.requirements,
            now: question.now,
            tries: 0,
        };
        verify_each(&question, &index, proofs).map_err(|refusal| refusal.code())
    }

    #[test]
    fn every_manifest_but_attestations_must_be_proven() {
        let key = Key::with("acme", |choice| choice.expires(at("2026-07-01T00:00:00Z")));
        let (one, other) = (Digest::parse(DIGEST).unwrap(), Digest::parse(OTHER).unwrap());
        let first = by(&key);
        let second = Ask { digest: other, ..by(&key) };
        let expiring = key.sign_with(&payload(IMAGE, OTHER), at(SIGNED), HashAlgorithm::SHA256, None, |builder| {
            builder.set_signature_validity_period(Duration::from_hours(40 * 24)).unwrap()
        });
        let (a, b) = (first.proof(&[good(&key)]), second.proof(&[expiring]));
        let entries = [entry(one, false), entry(Digest::sha256(b"sbom"), true), entry(other, false)];

        let proof = join(&first, "acme", &entries, &[Ok(a.clone()), Ok(b.clone())]).unwrap();
        assert_eq!(proof.digest(), Digest::sha256(b"index"));
        assert_eq!(proof.keys().len(), 1);
        assert_eq!(proof.valid_until(), Some(at("2026-06-10T00:00:00Z")));

        for (name, proofs) in [
            ("one missing", vec![Ok(a.clone())]),
            ("one too many", vec![Ok(a.clone()), Ok(b.clone()), Ok(b.clone())]),
            ("another order", vec![Ok(b.clone()), Ok(a.clone())]),
            ("one twice", vec![Ok(a.clone()), Ok(a.clone())]),
            ("none", vec![]),
        ] {
            assert_eq!(join(&first, "acme", &entries, &proofs).unwrap_err(), Code::Unsigned, "{name}");
        }
        let good = [Ok(a.clone()), Ok(b.clone())];
        assert_eq!(join(&first, "other", &entries, &good).unwrap_err(), Code::Unsigned, "another rule");
        let renamed = Ask { image: Reference::parse("registry.example.com/acme/other:1.2").unwrap(), ..by(&key) };
        assert_eq!(join(&renamed, "acme", &entries, &good).unwrap_err(), Code::Unsigned, "another image");
        let refused = [Ok(a), Err(Refusal::Lookup(down()))];
        assert_eq!(join(&first, "acme", &entries, &refused).unwrap_err(), Code::RegistryUnavailable);
        let other_index = join_index(&first, "acme", Digest::sha256(b"other index"), &entries, &good);
        assert_eq!(other_index.unwrap_err(), Code::Unsigned, "another index");
        assert_eq!(join(&first, "acme", &[], &[]).unwrap_err(), Code::Unsigned, "an empty index");
        let attestations = [entry(one, true)];
        assert_eq!(join(&first, "acme", &attestations, &[]).unwrap_err(), Code::Unsigned, "attestations alone");
        assert_eq!(join(&ask(vec![]), "acme", &entries, &good).unwrap_err(), Code::DeniedByPolicy);
    }
}

mod forms;

mod mutations {
    use std::sync::LazyLock;

    use super::*;

    static KEY: LazyLock<Key> = LazyLock::new(|| Key::new("acme"));
    static PLAIN: LazyLock<Vec<u8>> = LazyLock::new(|| {
        KEY.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, |builder| builder)
    });
    static PACKED: LazyLock<Vec<u8>> = LazyLock::new(|| good(&KEY));

    /// Never a yes but for what was signed.
    fn check(message: &[u8]) -> Result<(), TestCaseError> {
        if let Ok(proof) = by(&KEY).with(&[message.to_vec()]).result {
            prop_assert_eq!(proof.keys()[0].signed_at, at(SIGNED));
            prop_assert_eq!(
                &envelope::open(message, &mut 0).ok().map(|message| message.body),
                &Some(payload(IMAGE, DIGEST))
            );
        }
        let other = Ask { digest: Digest::parse(OTHER).unwrap(), ..by(&KEY) };
        prop_assert!(other.with(&[message.to_vec()]).result.is_err());
        let image = Reference::parse("registry.example.com/acme/web:1.3").unwrap();
        let other = Ask { image, ..by(&KEY) };
        prop_assert!(other.with(&[message.to_vec()]).result.is_err());
        Ok(())
    }

    #[test]
    fn no_single_bit_turns_a_no_into_a_yes() {
        for place in 0..PLAIN.len() {
            let mut message = PLAIN.clone();
            message[place] ^= 1 << (place % 8);
            check(&message).unwrap();
        }
    }

    #[test]
    fn a_cut_message_is_none() {
        for end in 0..PLAIN.len() {
            assert!(by(&KEY).with(&[PLAIN[..end].to_vec()]).result.is_err(), "{end}");
        }
        for end in 0..PACKED.len() {
            check(&PACKED[..end]).unwrap();
        }
    }

    proptest! {
        #[test]
        fn a_changed_message_proves_nothing_else(
            packed: bool,
            changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        ) {
            let mut message = if packed { PACKED.clone() } else { PLAIN.clone() };
            for (place, byte) in changes {
                let place = place % message.len();
                message[place] = byte;
            }
            check(&message)?;
        }

        #[test]
        fn junk_proves_nothing(first in 0x80_u8.., rest in proptest::collection::vec(any::<u8>(), 0..300)) {
            let message = [vec![first], rest].concat();
            prop_assert!(by(&KEY).with(&[message]).result.is_err());
        }
    }
}
