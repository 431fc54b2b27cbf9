//! Keys: other ones, expired, revoked, weak, and not made for signing.

use super::*;

#[test]
fn a_signing_subkey_signs_for_its_certificate() {
    let key = Key::with("acme", testing::Choice::signing_subkey);
    let proof = by(&key).proof(&[good(&key)]);
    assert_eq!(proof.keys()[0].fingerprint, key.fingerprint());
    assert_eq!(by(&key).with(&[good(&key)]).signatures[0].signer.as_deref(), Some("acme-release"));
}

#[test]
fn a_signature_by_another_key_is_untrusted_without_a_try() {
    let (ours, theirs) = (Key::new("acme"), Key::new("other"));
    let question = Scenario { tries: 0, ..by(&ours) };
    let examination = question.with(&[good(&theirs)]);
    let Err(Refusal::UntrustedKey { signed_by, wanted }) = examination.result else { panic!("{examination:?}") };
    assert_eq!(signed_by, [theirs.fingerprint()]);
    assert_eq!(wanted.signers[0], ("acme-release".into(), vec![ours.fingerprint()]));
    assert_eq!(examination.signatures[0].key, Some(theirs.fingerprint()));
    assert_eq!(examination.signatures[0].signer, None);
    assert_eq!(examination.signatures[0].identity, None, "nothing of it is proven");
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
    for scenario in [by(&ours), by(&theirs)] {
        assert_eq!(scenario.code(std::slice::from_ref(&lying)), Some(Code::MalformedSignature));
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
        scenario(vec![requirement(&[signer("acme-release", &[keyring])])]).proof(&[good(&key)]);
    }
}

#[test]
fn a_key_that_had_lapsed_when_it_signed_does_not_count() {
    let key = Key::with("acme", |choice| choice.expires(at("2026-04-01T00:00:00Z")));
    let keyring = key.expiry_added(at("2026-05-10T00:00:00Z"), None);
    let question = scenario(vec![requirement(&[signer("acme-release", &[keyring])])]);
    assert_eq!(question.code(&[good(&key)]), Some(Code::ExpiredKey));
    question.proof(&[key.sign(&payload(IMAGE, DIGEST), at("2026-03-01T00:00:00Z"))]);
}

#[test]
fn a_revoked_certificate_or_subkey_does_not_count_whatever_the_signing_time() {
    let key = Key::new("acme");
    let later = at("2026-05-20T00:00:00Z");
    let question = scenario(vec![requirement(&[signer("acme-release", &[key.revoked(later)])])]);
    assert_eq!(question.code(&[good(&key)]), Some(Code::RevokedKey));
    assert_eq!(question.at("2026-05-02T00:00:00Z").code(&[good(&key)]), Some(Code::RevokedKey));

    let key = Key::with("acme", testing::Choice::signing_subkey);
    let question = scenario(vec![requirement(&[signer("acme-release", &[key.subkey_revoked(later)])])]);
    assert_eq!(question.code(&[good(&key)]), Some(Code::RevokedKey));
}

#[test]
fn a_revocation_holds_in_whichever_keyring_it_stands() {
    let key = Key::new("acme");
    let revoked = signer("elsewhere", &[key.revoked(at(SIGNED))]);
    let both = [requirement(&[key.signer("acme-release")]), requirement(&[revoked])];
    assert_eq!(scenario(both.to_vec()).code(&[good(&key)]), Some(Code::RevokedKey));
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
