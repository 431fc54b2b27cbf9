//! Signatures that prove what is asked, and answers about all signatures.

use super::*;

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
    let scenario = Scenario { tries: 1, ..by(&key) };
    assert_eq!(scenario.with(&signatures).signatures.len(), 1, "the gate stops at the proof");
    let Examination { result, mut signatures, .. } = scenario.all(&signatures);
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
    let revoked = scenario(vec![requirement(&[signer("acme-release", &[key.revoked(at(NOW))])])]);
    assert_eq!(revoked.code(copy), Some(Code::RevokedKey));
    by(&key).proof(copy);
}
