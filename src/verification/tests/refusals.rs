//! The refusal of several, and the next step that it proposes.

use super::*;

#[test]
fn without_a_signature_the_image_is_unsigned() {
    assert_eq!(by(&Key::new("acme")).code(&[]), Some(Code::Unsigned));
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
    let question = Scenario { failure: Some(down()), ..by(&key) };
    assert_eq!(question.code(&[]), Some(Code::RegistryUnavailable));
    assert_eq!(question.code(&[good(&other)]), Some(Code::RegistryUnavailable));
    question.proof(&[good(&key)]);
    let revoked = scenario(vec![requirement(&[signer("acme-release", &[key.revoked(at(SIGNED))])])]);
    let question = Scenario { failure: Some(down()), ..revoked };
    assert_eq!(question.code(&[]), Some(Code::RevokedKey), "no signature could help");
    let question = Scenario { failure: Some(down()), ..scenario(vec![]) };
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
fn the_next_step_proposes_a_key_that_can_sign_and_the_name_that_is_wanted() {
    let other = Key::new("other");
    let subkey = Key::with("acme", testing::Choice::signing_subkey);
    let revoked = signer("acme-release", &[subkey.subkey_revoked(at(NOW))]);
    let weak = testing::rsa_1024();
    let identity = Identity::ExactReference(Reference::parse("origin.example.com/web:1").unwrap());
    for (signers, by) in [(revoked, &subkey), (weak.signer("acme-release"), &weak)] {
        let both = Requirement { identity: identity.clone(), ..requirement(&[signers.clone(), other.signer("other")]) };
        let refusal = scenario(vec![both]).with(&[good(by)]).result.unwrap_err();
        assert!(matches!(refusal.code(), Code::RevokedKey | Code::WeakAlgorithm), "{refusal}");
        let step = refusal.next_step(IMAGE);
        let expected = format!("--sign-by {} --sign-identity origin.example.com/web:1", other.fingerprint());
        assert!(step.ends_with(&expected), "{step}");
        let step = scenario(vec![requirement(&[signers])]).with(&[good(by)]).result.unwrap_err().next_step(IMAGE);
        assert_eq!(step, "Put a valid key into rule production/acme, and sign it with that.");
    }
}

#[test]
fn of_signatures_that_fail_alike_the_first_is_named() {
    let key = Key::new("acme");
    let moved = |tag: &str| key.sign(&payload(&format!("registry.example.com/acme/web:{tag}"), DIGEST), at(SIGNED));
    let refusal = by(&key).with(&[moved("a"), moved("b")]).result.unwrap_err();
    let Refusal::WrongIdentity { signed, .. } = refusal else { panic!("{refusal}") };
    assert_eq!(signed.to_string(), "registry.example.com/acme/web:a");
}

#[test]
fn at_most_eight_unknown_keys_are_named() {
    let others: Vec<Vec<u8>> = (0..9).map(|number| good(&Key::new(&format!("other {number}")))).collect();
    let refusal = by(&Key::new("acme")).with(&others).result.unwrap_err();
    let Refusal::UntrustedKey { signed_by, .. } = refusal else { panic!("{refusal}") };
    assert_eq!(signed_by.len(), 8);
}

#[test]
fn a_malformed_signature_is_shown_before_those_of_unknown_keys() {
    let examination = by(&Key::new("acme")).with(&[good(&Key::new("other")), vec![0x90]]);
    let codes = examination.signatures.iter().map(|one| one.outcome.as_ref().err().map(Refusal::code));
    assert_eq!(codes.collect::<Vec<_>>(), [Some(Code::MalformedSignature), Some(Code::UntrustedKey)]);
}

#[test]
fn a_key_that_can_not_be_used_is_the_reason_where_too_few_others_are_left() {
    let (good, revoked) = (Key::new("good"), Key::new("revoked"));
    let signers = [good.signer("good"), signer("revoked", &[revoked.revoked(at(SIGNED))])];
    for (threshold, code) in [(1, Code::Unsigned), (2, Code::RevokedKey)] {
        assert_eq!(scenario(vec![of(threshold, &signers)]).code(&[]), Some(code), "{threshold}");
    }
    // The other copy of the certificate is another requirement's.
    let copies = [requirement(&[revoked.signer("revoked")]), requirement(&[signers[0].clone(), signers[1].clone()])];
    assert_eq!(scenario(copies.into()).code(&[]), Some(Code::RevokedKey));
}

#[test]
fn the_requirement_that_a_signature_comes_closest_to_says_why_it_does_not_count() {
    let (key, other) = (Key::new("acme"), Key::new("other"));
    let (closer, farther) = (requirement(&[key.signer("acme")]), requirement(&[other.signer("other")]));
    let moved = key.sign(&payload("registry.example.com/acme/web:1.1", DIGEST), at(SIGNED));
    for requirements in [[closer.clone(), farther.clone()], [farther, closer]] {
        let examination = scenario(requirements.into()).with(std::slice::from_ref(&moved));
        let codes = examination.signatures.iter().map(|one| one.outcome.as_ref().err().map(Refusal::code));
        assert_eq!(codes.collect::<Vec<_>>(), [Some(Code::WrongIdentity)]);
    }
}
