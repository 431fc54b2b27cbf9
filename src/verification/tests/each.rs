//! Rules for which every manifest of an index must be signed.

use super::*;

fn entry(digest: Digest, attestation: bool) -> Descriptor {
    Descriptor { digest, platform: None, attestation }
}

fn join(
    question: &Scenario,
    rule: &str,
    entries: &[Descriptor],
    proofs: &[Result<VerifiedImage, Refusal>],
) -> Result<VerifiedImage, Code> {
    join_index(question, rule, Digest::sha256(b"index"), entries, proofs)
}

fn join_index(
    question: &Scenario,
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
    let second = Scenario { digest: other, ..by(&key) };
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
    let renamed = Scenario { image: Reference::parse("registry.example.com/acme/other:1.2").unwrap(), ..by(&key) };
    assert_eq!(join(&renamed, "acme", &entries, &good).unwrap_err(), Code::Unsigned, "another image");
    let refused = [Ok(a), Err(Refusal::Lookup(down()))];
    assert_eq!(join(&first, "acme", &entries, &refused).unwrap_err(), Code::RegistryUnavailable);
    let other_index = join_index(&first, "acme", Digest::sha256(b"other index"), &entries, &good);
    assert_eq!(other_index.unwrap_err(), Code::Unsigned, "another index");
    assert_eq!(join(&first, "acme", &[], &[]).unwrap_err(), Code::Unsigned, "an empty index");
    let attestations = [entry(one, true)];
    assert_eq!(join(&first, "acme", &attestations, &[]).unwrap_err(), Code::Unsigned, "attestations alone");
    assert_eq!(join(&scenario(vec![]), "acme", &entries, &good).unwrap_err(), Code::DeniedByPolicy);
}
