//! Times: signatures that expired, that are too old, and that are of the future.

use super::*;

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
fn a_signer_s_clock_may_be_five_minutes_ahead() {
    let key = Key::new("acme");
    by(&key).at("2026-04-30T23:55:00Z").proof(&[good(&key)]);
    let refusal = by(&key).at("2026-04-30T23:54:59Z").with(&[good(&key)]).result.unwrap_err();
    assert!(matches!(refusal, Refusal::InvalidSignature { why: Invalid::Future(_), .. }), "{refusal:?}");
}

#[test]
fn a_signature_older_than_max_age_does_not_count() {
    let key = Key::new("acme");
    let aged = |days: u64| {
        let max_age = Some(Duration::from_secs(days * DAY));
        scenario(vec![Requirement { max_age, ..requirement(&[key.signer("acme-release")]) }])
    };
    assert_eq!(aged(32).proof(&[good(&key)]).valid_until(), Some(at("2026-06-02T00:00:00Z")));
    assert_eq!(aged(31).code(&[good(&key)]), Some(Code::TooOld));
    let newer = key.sign(&payload(IMAGE, DIGEST), at("2026-05-31T00:00:00Z"));
    aged(31).proof(&[good(&key), newer]);
    aged(u64::MAX / DAY).proof(&[good(&key)]);
}
