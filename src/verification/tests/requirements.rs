//! Requirements: identity, threshold, and several of them.

use super::*;

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
fn a_threshold_counts_different_signers() {
    let (one, two, three) = (Key::new("one"), Key::new("two"), Key::new("three"));
    let names = [one.signer("one"), two.signer("two"), three.signer("three")];
    let question = scenario(vec![of(2, &names)]);
    assert_eq!(question.proof(&[good(&one), good(&three)]).keys().len(), 2);
    let again = one.sign(&payload(IMAGE, DIGEST), at("2026-05-02T00:00:00Z"));
    let refusal = question.with(&[good(&one), again]).result.unwrap_err();
    assert!(
        matches!(&refusal, Refusal::ThresholdNotMet { good, .. } if good.len() == 1 && *good[0] == *"one"),
        "{refusal:?}"
    );
    // Two certificates of one signer, who is rotating keys, are one signer.
    let question = scenario(vec![of(2, &[signer("one", &[one.public(), two.public()]), names[2].clone()])]);
    assert_eq!(question.code(&[good(&one), good(&two)]), Some(Code::ThresholdNotMet));
    question.proof(&[good(&one), good(&two), good(&three)]);
    // One certificate under two names, which no loader lets pass, is one signer as well.
    let question = scenario(vec![of(2, &[one.signer("one"), one.signer("also-one")])]);
    let again = one.sign(&payload(IMAGE, DIGEST), at("2026-05-02T00:00:00Z"));
    assert_eq!(question.code(&[good(&one), again]), Some(Code::ThresholdNotMet));
}

#[test]
fn all_requirements_must_hold_and_one_signature_may_serve_several() {
    let (one, two) = (Key::new("one"), Key::new("two"));
    let (release, security) = (requirement(&[one.signer("one")]), requirement(&[one.signer("one"), two.signer("two")]));
    assert_eq!(scenario(vec![release.clone(), security.clone()]).proof(&[good(&one)]).keys().len(), 1);
    assert_eq!(scenario(vec![release.clone(), security]).code(&[good(&two)]), Some(Code::UntrustedKey));
    let strict = Requirement {
        identity: Identity::ExactReference(Reference::parse("x.example.com/y:1").unwrap()),
        ..release.clone()
    };
    assert_eq!(scenario(vec![release, strict]).code(&[good(&one)]), Some(Code::WrongIdentity));
}

#[test]
fn nothing_required_or_nobody_named_is_no_proof() {
    let key = Key::new("acme");
    assert_eq!(scenario(vec![]).code(&[good(&key)]), Some(Code::DeniedByPolicy));
    assert_eq!(scenario(vec![requirement(&[])]).code(&[good(&key)]), Some(Code::DeniedByPolicy));
    assert_eq!(
        scenario(vec![requirement(&[key.signer("a")]), requirement(&[])]).code(&[good(&key)]),
        Some(Code::DeniedByPolicy)
    );
    assert_eq!(scenario(vec![of(2, &[key.signer("a")])]).code(&[good(&key)]), Some(Code::DeniedByPolicy));
    assert_eq!(
        scenario(vec![of(2, &[key.signer("a"), key.signer("a")])]).code(&[good(&key)]),
        Some(Code::DeniedByPolicy)
    );
    assert_eq!(scenario(vec![requirement(&[signer("a", &[])])]).code(&[good(&key)]), Some(Code::DeniedByPolicy));
}

#[test]
fn an_image_by_digest_takes_a_signature_of_its_repository() {
    let key = Key::new("acme");
    let image = Reference::parse(&format!("registry.example.com/acme/web:9@{DIGEST}")).unwrap();
    let proof = Scenario { image: image.clone(), ..by(&key) }.proof(&[good(&key)]);
    assert_eq!(*proof.image(), image);
}
