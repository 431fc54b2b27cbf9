mod wording;

use super::*;
use crate::image::WalkLimit;
use crate::image::{ManifestError, Repository};
use crate::policy::identity;

const IMAGE: &str = "registry.example.com/acme/web:1.2";
const DOCUMENT: &str = include_str!("../../docs/refusals.md");

fn wanted() -> RequirementSummary {
    let release = Fingerprint("81A2B3C4D5E6F708192A3B4C5D6E7F8091A2B302".into());
    let security = Fingerprint("5C0FFEE0D5E6F708192A3B4C5D6E7F80DEADBEEF".into());
    let signers = Arc::new([("acme-release".into(), vec![release]), ("acme-security".into(), vec![security])]);
    RequirementSummary {
        rule: RuleId::new("production", "acme"),
        signers,
        unusable: Arc::new([]),
        identity: Arc::new(Identity::RepoDigestOrExact),
        manifest: None,
    }
}

#[test]
fn a_refusal_of_an_index_names_the_manifest_that_is_short_of_a_signature() {
    let (inner, outer) = (Digest::sha256(b"inner"), Digest::sha256(b"outer"));
    for refusal in examples() {
        let entry = refusal.clone().of_entry(inner).of_entry(outer);
        let wants = refusal.wanted().is_some();
        assert_eq!(entry.to_string().contains(&format!("for the manifest {inner} in this index")), wants, "{entry}");
        assert_eq!(entry.facts().get("manifest").is_some(), wants, "{entry}");
        assert_eq!(entry.next_step(IMAGE), refusal.next_step(IMAGE), "sealgate sign signs all of it");
    }
}

/// Without the first key.
fn without_first() -> RequirementSummary {
    RequirementSummary { unusable: [wanted().signers[0].1[0].clone()].into(), ..wanted() }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// One refusal of each code: the examples of docs/refusals.md.
fn examples() -> Vec<Refusal> {
    let key = Fingerprint("3A90F1E2D5E6F708192A3B4C5D6E7F8012345F9F".into());
    let ours = wanted().signers[0].1[0].clone();
    let digest = Digest::sha256(b"another image");
    let (registry, url): (Box<str>, Box<str>) =
        ("registry.example.com".into(), "https://registry.example.com/v2/acme/web/manifests/1.2".into());
    let rule = RuleId::new("production", "acme");
    vec![
        Refusal::NoPolicy,
        Refusal::DeniedByPolicy { rule: RuleId::new("production", "no-hub"), reason: "use mirror.internal".into() },
        Refusal::NotPinned { why: Unpinned::Verified { rule }, digest: Some(Digest::sha256(b"this image")) },
        Refusal::Unsigned(wanted()),
        Refusal::UntrustedKey { signed_by: vec![key.clone()], wanted: wanted() },
        Refusal::WrongIdentity {
            signed: Box::new(Reference::parse("registry.example.com/acme/web:1.1").unwrap()),
            wanted: wanted(),
        },
        Refusal::WrongDigest { signed: Box::new(digest), wanted: wanted() },
        Refusal::MalformedSignature {
            why: Malformed::Armored,
            at: Some("https://lookaside.example.com/acme/web@sha256=02f0ad7b/signature-1".into()),
            wanted: wanted(),
        },
        Refusal::InvalidSignature { key: ours.clone(), why: Invalid::Cryptography, wanted: wanted() },
        Refusal::ExpiredSignature { key: ours.clone(), at: at("2026-05-02T00:00:00Z"), wanted: wanted() },
        Refusal::ExpiredKey { key: ours.clone(), at: at("2026-05-02T00:00:00Z"), wanted: without_first() },
        Refusal::RevokedKey { key: ours.clone(), wanted: without_first() },
        Refusal::WeakAlgorithm { key: ours, algorithm: "SHA-1".into(), wanted: wanted() },
        Refusal::ThresholdNotMet {
            good: vec!["acme-release".into()],
            threshold: NonZeroUsize::MIN.saturating_add(1),
            wanted: wanted(),
        },
        Refusal::TooOld {
            signed_at: at("2026-01-01T00:00:00Z"),
            max_age: Duration::from_hours(90 * 24),
            wanted: wanted(),
        },
        Refusal::InvalidReference(ReferenceError::UpperCase),
        Refusal::UnknownResource { group: "batch".into(), version: "v2".into(), resource: "jobs".into() },
        Refusal::TooManyImages { found: 10_000, limit: 128 },
        Refusal::TooManySignatures,
        LookupError::ManifestUnknown { registry: registry.clone(), url: url.clone() }.into(),
        LookupError::UnsupportedManifest { url: url.clone(), error: ManifestError::SchemaOne }.into(),
        LookupError::Unauthorized {
            registry: registry.clone(),
            url: url.clone(),
            status: 401,
            with_credentials: false,
            looked_in: None,
        }
        .into(),
        LookupError::Unavailable {
            registry: registry.clone(),
            url: url.clone(),
            cause: "connection refused".into(),
            retry_after: None,
        }
        .into(),
        LookupError::Misbehaved {
            registry,
            url,
            what: "its answer does not have the digest that was asked for".into(),
        }
        .into(),
        Refusal::PolicyUnavailable { limit: Duration::from_hours(1) },
        Refusal::DeadlineExceeded { after: Duration::from_secs(8) },
        Refusal::Overloaded,
    ]
}

#[test]
fn a_registry_that_was_not_asked_is_not_said_to_be_down() {
    let error = LookupError::NotAsked {
        registry: "registry.example.com".into(),
        url: "https://registry.example.com/v2/".into(),
        after: Duration::from_secs(7),
        cause: "the limit of requests in flight for this registry was reached".into(),
    };
    assert!(error.is_out_of_time() && error.is_outage());
    let refusal = Refusal::from(error);
    assert_eq!(refusal.code(), Code::DeadlineExceeded);
    assert_eq!(
        format!("{refusal}. {}", refusal.next_step(IMAGE)),
        "registry.example.com could not be asked within 7s: the limit of requests in flight for this registry was reached. \
         Try again; if it lasts, tell those who run the gate: it is asked about more than it can look up at once."
    );
}

#[test]
fn every_code_has_its_section_and_its_example_is_what_a_denial_says() {
    let examples = examples();
    let codes: Vec<Code> = examples.iter().map(Refusal::code).collect();
    assert_eq!(codes, Code::ALL, "an example for each code");
    let sections: Vec<&str> = DOCUMENT.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections, Code::ALL.map(Code::as_str), "a section for each code, and none for another");
    let mut lacking = Vec::new();
    for refusal in &examples {
        let code = refusal.code();
        let (_, section) = DOCUMENT.split_once(&format!("\n## {code}\n")).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let line = format!("{IMAGE} refused [{code}]: {refusal}. {}", refusal.next_step(IMAGE));
        if !section.contains(&format!("\n    {line}\n")) {
            lacking.push(line);
        }
        for part in ["**What it means.**", "**Why it happens.**", "**What to do.**"] {
            assert!(section.contains(part), "docs/refusals.md, {code}: {part}");
        }
    }
    assert!(lacking.is_empty(), "docs/refusals.md lacks these examples:\n    {}", lacking.join("\n    "));
}

#[test]
fn facts_have_the_code_and_whole_fingerprints() {
    for refusal in examples() {
        let facts = refusal.facts();
        assert_eq!(facts["code"], refusal.code().as_str());
        if refusal.wanted().is_some() {
            assert_eq!(facts["rule"], "production/acme");
            assert_eq!(facts["wanted"][0]["name"], "acme-release");
            assert_eq!(facts["wanted"][0]["keys"][0], "0x81A2B3C4D5E6F708192A3B4C5D6E7F8091A2B302");
        }
    }
}

#[test]
fn a_denial_is_one_line() {
    for refusal in examples() {
        let line = format!("{refusal} {}", refusal.next_step(IMAGE));
        assert!(!line.contains('\n') && line.len() < 600, "{line}");
    }
}

#[test]
fn the_command_asks_a_signer_who_has_not_signed_yet() {
    let good = vec!["acme-release".into()];
    let refusal = Refusal::ThresholdNotMet { good, threshold: NonZeroUsize::MIN, wanted: wanted() };
    assert!(refusal.next_step(IMAGE).ends_with("--sign-by 0x5C0FFEE0D5E6F708192A3B4C5D6E7F80DEADBEEF"));
}

#[test]
fn an_index_that_is_too_large_says_what_there_is_too_much_of_and_what_helps() {
    let said = |beyond| {
        let refusal = Refusal::from(LookupError::IndexTooLarge { url: "registry.example.com/acme/web".into(), beyond });
        assert_eq!(refusal.code(), Code::UnsupportedManifest);
        format!("{refusal}. {}", refusal.next_step(IMAGE))
    };
    let step = "Push an index with fewer manifests and no indexes in it, or sign the index itself.";
    assert_eq!(
        said(WalkLimit::Manifests { limit: 128 }),
        format!("its index has more manifests than the limit of 128, those of nested indexes counted. {step}")
    );
    assert_eq!(
        said(WalkLimit::Depth { limit: 3 }),
        format!("its index has indexes in it, deeper than the limit of 3. {step}")
    );
}

#[test]
fn what_is_no_reference_does_not_get_into_a_command() {
    let step = Refusal::Unsigned(wanted()).next_step("x; rm -rf ~");
    assert!(step.contains("sealgate sign IMAGE --sign-by"), "{step}");
}

/// The same refusal of a rule that wants something else.
fn wanting(refusal: Refusal, other: RequirementSummary) -> Refusal {
    let mut refusal = refusal;
    if let Refusal::Unsigned(wanted)
    | Refusal::UntrustedKey { wanted, .. }
    | Refusal::WrongIdentity { wanted, .. }
    | Refusal::WrongDigest { wanted, .. }
    | Refusal::MalformedSignature { wanted, .. }
    | Refusal::InvalidSignature { wanted, .. }
    | Refusal::ExpiredSignature { wanted, .. }
    | Refusal::ExpiredKey { wanted, .. }
    | Refusal::RevokedKey { wanted, .. }
    | Refusal::WeakAlgorithm { wanted, .. }
    | Refusal::ThresholdNotMet { wanted, .. }
    | Refusal::TooOld { wanted, .. } = &mut refusal
    {
        *wanted = other;
    }
    refusal
}

#[test]
fn the_command_of_every_code_makes_a_signature_that_the_rule_takes() {
    let digest = Digest::sha256(b"this image");
    let by_digest = format!("registry.example.com/acme/web@{digest}");
    let pinned = format!("{IMAGE}@{digest}");
    let plain = "registry.example.com/acme/web";
    let fixed = Reference::parse("x.example.com/y:1").unwrap();
    let remap = |from: &str, to: &str| Identity::Remap { from: from.into(), to: to.into() };
    let repository = Identity::ExactRepository(Repository::parse("x.example.com/y").unwrap());
    let own = Identity::ExactRepository(Repository::parse(plain).unwrap());
    let cases = [
        (Identity::RepoDigestOrExact, IMAGE, None),
        (Identity::Exact, IMAGE, None),
        (Identity::Repository, IMAGE, None),
        (Identity::ExactReference(fixed), IMAGE, Some("x.example.com/y:1".to_owned())),
        (repository.clone(), IMAGE, Some("x.example.com/y:1.2".to_owned())),
        (repository.clone(), &pinned, Some("x.example.com/y:1.2".to_owned())),
        (repository.clone(), &by_digest, Some(format!("x.example.com/y@{digest}"))),
        (repository, plain, Some("x.example.com/y:latest".to_owned())),
        (own, IMAGE, None),
        (
            remap("registry.example.com", "origin.example.com"),
            IMAGE,
            Some("origin.example.com/acme/web:1.2".to_owned()),
        ),
        (
            remap("registry.example.com", "origin.example.com"),
            &pinned,
            Some("origin.example.com/acme/web:1.2".to_owned()),
        ),
        (remap("other.example.com", "origin.example.com"), IMAGE, None),
    ];
    for (identity, image, signed) in cases {
        let command_ends = signed.as_ref().map(|signed| format!(" --sign-identity {signed}")).unwrap_or_default();
        for refusal in examples().into_iter().filter(|refusal| refusal.wanted().is_some()) {
            let other =
                RequirementSummary { identity: Arc::new(identity.clone()), ..refusal.wanted().unwrap().clone() };
            let step = wanting(refusal, other).next_step(image);
            let (_, command) = step.split_once(&format!("sealgate sign {image} --sign-by 0x")).unwrap();
            let (_, rest) = command.split_at(40);
            assert_eq!(rest, command_ends, "{identity:?}: {step}");
        }
        // And that it takes it is not for this test to say.
        let signed = signed.unwrap_or_else(|| Reference::for_image(image).unwrap().to_string());
        let (image, signed) = (Reference::for_image(image).unwrap(), Reference::parse(&signed).unwrap());
        assert!(identity::fits(&identity, &image, &signed), "{identity:?} {image} {signed}");
    }
    let repository = Identity::ExactRepository(Repository::parse("x.example.com/y").unwrap());
    let wrong = Refusal::WrongIdentity {
        signed: Box::new(Reference::parse("a.example.com/b:1").unwrap()),
        wanted: RequirementSummary { identity: Arc::new(repository), ..wanted() },
    };
    assert!(wrong.to_string().contains("instead of x.example.com/y"));
    assert!(wrong.next_step(IMAGE).starts_with("Sign it under that name: "));
}

#[test]
fn a_key_that_can_t_be_used_is_proposed_by_no_code() {
    let (first, second) = (wanted().signers[0].1[0].clone(), wanted().signers[1].1[0].clone());
    let none = RequirementSummary { unusable: [first.clone(), second.clone()].into(), ..wanted() };
    for refusal in examples().into_iter().filter(|refusal| refusal.wanted().is_some()) {
        let step = wanting(refusal.clone(), without_first()).next_step(IMAGE);
        assert!(step.ends_with(&format!("--sign-by {second}")), "{step}");
        let step = wanting(refusal, none.clone()).next_step(IMAGE);
        assert_eq!(step, "Put a valid key into rule production/acme, and sign it with that.");
    }
}

#[test]
fn waiting_helps_after_failed_look_ups_and_pins_but_not_without_credentials() {
    let undecided = [
        Code::RegistryUnavailable,
        Code::RegistryMisbehaved,
        Code::PolicyUnavailable,
        Code::DeadlineExceeded,
        Code::Overloaded,
    ];
    let of = |which: fn(Code) -> bool| Code::ALL.into_iter().filter(|&code| which(code)).collect::<Vec<_>>();
    assert_eq!(of(Code::is_transient), [&[Code::NotPinned], &undecided[..]].concat());
    assert_eq!(of(Code::is_undecided), [&[Code::RegistryUnauthorized], &undecided[..]].concat());
}

#[test]
fn a_person_whose_credentials_do_not_suffice_is_told_of_them_and_not_of_the_gates() {
    for (with_credentials, places, words) in [
        (true, "--creds", "the credentials for it, from --creds, do not suffice"),
        (true, "/home/jane/.docker/config.json", "from /home/jane/.docker/config.json, do not suffice"),
        (false, "/home/jane/.docker/config.json", "none for it are in /home/jane/.docker/config.json"),
    ] {
        for status in [401, 403] {
            let (registry, url) = ("registry.example.com".into(), "https://registry.example.com/v2/".into());
            let looked_in = Some(places.into());
            let error = LookupError::Unauthorized { registry, url, status, with_credentials, looked_in };
            let text = format!("{error}. {}", error.next_step());
            assert!(text.contains(words) && text.contains("docker login") && !text.contains("gate"), "{text}");
        }
    }
}
