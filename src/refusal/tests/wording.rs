//! The words of all refusals in one snapshot, which changes with them.

use std::{fmt::Debug, fs, path::Path};

use super::*;
use crate::image::{HostError, digest::DigestError};
use crate::signature::{Disagreement, PayloadError};

/// Returns the name of a value's variant.
fn variant(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    text.split(|character: char| !character.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// Returns the variants of the one enum of this name in a folder of the source.
#[allow(clippy::disallowed_methods)] // The files are the program's own source.
fn declared(folder: &str, name: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let items = sources.flat_map(|path| syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap().items);
    let mut enums = items.filter_map(|item| match item {
        syn::Item::Enum(item) if item.ident == name => Some(item.variants),
        _ => None,
    });
    let found = enums.next().unwrap_or_else(|| panic!("there is no enum {name} in the folder"));
    assert!(enums.next().is_none(), "there are two enums {name} in the folder");
    found.iter().map(|variant| variant.ident.to_string()).collect()
}

/// Asserts that the examples are of each variant of the enum of this name.
#[track_caller]
fn assert_complete(folder: &str, name: &str, examples: &[impl Debug]) {
    let shown: Vec<String> = examples.iter().map(variant).collect();
    let lacking: Vec<String> = declared(folder, name).into_iter().filter(|variant| !shown.contains(variant)).collect();
    assert!(lacking.is_empty(), "no example of {name}::{}", lacking.join(", "));
}

/// Asserts that what is shown is the snapshot of this name in `src/refusal/snapshots`.
macro_rules! assert_reads {
    ($name:literal, $text:expr) => {
        insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!($name, $text);
        });
    };
}

fn key() -> Fingerprint {
    Fingerprint("3A90F1E2D5E6F708192A3B4C5D6E7F8012345F9F".into())
}

/// Every reason why an image must name its digest.
fn unpinned() -> Vec<Unpinned> {
    let (rule, exemption) = (RuleId::new("production", "acme"), RuleId::new("production", "night"));
    vec![
        Unpinned::Verified { rule: rule.clone() },
        Unpinned::Allowed { rule: rule.clone() },
        Unpinned::MayFallUnder { rule: Some(rule.clone()) },
        Unpinned::MayFallUnder { rule: None },
        Unpinned::ShortName { rule },
        Unpinned::ExemptedShortName { exemption: exemption.clone() },
        Unpinned::Exempted { exemption },
    ]
}

fn key_faults() -> Vec<KeyFault> {
    let (key, day) = (key(), at("2026-05-02T00:00:00Z"));
    vec![
        KeyFault::Revoked { key: key.clone() },
        KeyFault::Expired { key: key.clone(), at: day },
        KeyFault::Weak { key: key.clone(), algorithm: "RSA of 1024 bits".into() },
        KeyFault::NotForSigning { key: key.clone() },
        KeyFault::Unbound { key: key.clone() },
        KeyFault::Younger { key, created: day },
    ]
}

/// Every reason why a signature is invalid.
fn invalid() -> Vec<Invalid> {
    let future = at("2026-05-02T00:00:00Z");
    let keys = key_faults().into_iter().map(Invalid::Key);
    [Invalid::Cryptography, Invalid::Future(future), Invalid::Critical].into_iter().chain(keys).collect()
}

fn digest_errors() -> Vec<DigestError> {
    let wrong_length = "sha256:00".parse::<Digest>().unwrap_err();
    vec![DigestError::NoAlgorithm, DigestError::UnknownAlgorithm, wrong_length, DigestError::NotLowerHex]
}

fn host_errors() -> Vec<HostError> {
    vec![HostError::Name, HostError::Number, HostError::Port]
}

fn reference_errors() -> Vec<ReferenceError> {
    let mut errors = vec![
        ReferenceError::Empty,
        ReferenceError::TooLong { length: 1_000 },
        ReferenceError::NameTooLong { length: 300 },
        ReferenceError::LocalId,
        ReferenceError::UpperCase,
        ReferenceError::Path,
        ReferenceError::Tag,
    ];
    errors.extend(host_errors().into_iter().map(ReferenceError::Host));
    errors.extend(digest_errors().into_iter().map(ReferenceError::Digest));
    errors
}

fn payload_errors() -> Vec<PayloadError> {
    vec![
        PayloadError::TooLarge { limit: 65_536 },
        PayloadError::Json { line: 1, column: 2 },
        PayloadError::Expected { place: "critical.type", expected: "\"atomic container signature\"" },
        PayloadError::Missing { place: "critical", member: "identity" },
        PayloadError::Unknown { place: "critical" },
        PayloadError::Twice { place: "critical" },
        PayloadError::Digest(DigestError::NotLowerHex),
        PayloadError::Reference(ReferenceError::UpperCase),
    ]
}

fn disagreements() -> Vec<Disagreement> {
    vec![Disagreement::Type, Disagreement::Hash, Disagreement::PublicKey, Disagreement::Key(key())]
}

/// Every reason why a signature is malformed.
fn malformed() -> Vec<Malformed> {
    let mut all = vec![
        Malformed::Envelope,
        Malformed::Empty,
        Malformed::Armored,
        Malformed::ClearSigned,
        Malformed::Utf16,
        Malformed::NoPacket,
        Malformed::Detached,
        Malformed::LineEnd,
        Malformed::TooLarge { limit: 65_536 },
        Malformed::NoTime,
    ];
    all.extend(disagreements().into_iter().map(Malformed::Disagreement));
    all.extend(payload_errors().into_iter().map(Malformed::Payload));
    all
}

fn manifest_errors() -> Vec<ManifestError> {
    vec![
        ManifestError::Malformed("expected value at line 1 column 1".into()),
        ManifestError::Ambiguous,
        ManifestError::SchemaOne,
        ManifestError::UnknownMediaType,
        ManifestError::MediaTypeMismatch,
        ManifestError::TooManyEntries { found: 10_000, limit: 1_024 },
    ]
}

fn walk_limits() -> Vec<WalkLimit> {
    vec![WalkLimit::Manifests { limit: 128 }, WalkLimit::Depth { limit: 3 }]
}

fn lookup_errors() -> Vec<LookupError> {
    let registry = || Box::from("registry.example.com");
    let url = || Box::from("https://registry.example.com/v2/acme/web/manifests/1.2");
    let after = Duration::from_millis(2_500);
    let unauthorized = |status, with_credentials, looked_in: Option<&str>| LookupError::Unauthorized {
        registry: registry(),
        url: url(),
        status,
        with_credentials,
        looked_in: looked_in.map(Box::from),
    };
    let mut all = vec![
        LookupError::ManifestUnknown { registry: registry(), url: url() },
        unauthorized(401, false, None),
        unauthorized(403, true, None),
        unauthorized(401, false, Some("/home/jane/.docker/config.json")),
        unauthorized(403, true, Some("--creds")),
        LookupError::CredentialsUnusable {
            registry: registry(),
            url: url(),
            cause: "docker-credential-pass: not found".into(),
        },
        LookupError::LookasideDenied { registry: registry(), url: url(), status: 401 },
        LookupError::LookasideDenied { registry: registry(), url: url(), status: 403 },
        LookupError::Unavailable {
            registry: registry(),
            url: url(),
            cause: "connection refused".into(),
            retry_after: Some(Duration::from_secs(30)),
        },
        LookupError::Misbehaved { registry: registry(), url: url(), what: "it answers with another digest".into() },
        LookupError::TimedOut { registry: registry(), url: url(), after },
        LookupError::NotAsked {
            registry: registry(),
            url: url(),
            after,
            cause: "the limit of requests in flight for this registry was reached".into(),
        },
    ];
    all.extend(manifest_errors().into_iter().map(|error| LookupError::UnsupportedManifest { url: url(), error }));
    all.extend(walk_limits().into_iter().map(|beyond| LookupError::IndexTooLarge { url: url(), beyond }));
    all
}

/// Every refusal: those of the documentation, and each other form of one. The reasons in them are listed by themselves.
fn refusals() -> Vec<Refusal> {
    let mut all = examples();
    let digest = Digest::sha256(b"this image");
    let first = wanted().signers[0].1[0].clone();
    all.extend(unpinned().into_iter().map(|why| Refusal::NotPinned { why, digest: Some(digest) }));
    all.push(Refusal::NotPinned { why: Unpinned::ShortName { rule: wanted().rule }, digest: None });
    all.push(Refusal::Unsigned(wanted()).of_entry(digest));
    all.push(Refusal::UntrustedKey { signed_by: vec![key()], wanted: wanted() }.of_entry(digest));
    all.push(Refusal::UntrustedKey { signed_by: vec![], wanted: wanted() });
    all.push(Refusal::UntrustedKey { signed_by: vec![key(), first], wanted: wanted() });
    all.push(Refusal::MalformedSignature { why: Malformed::Empty, at: None, wanted: wanted() });
    all.push(Refusal::TooOld {
        signed_at: at("2026-01-01T00:00:00Z"),
        max_age: Duration::from_hours(36),
        wanted: wanted(),
    });
    all.push(Refusal::ReviewTooCostly);
    all.extend(lookup_errors().into_iter().map(Refusal::Lookup));
    all
}

/// The name that a rule wants signed, each with the words for it and the step to it.
fn of_each_identity() -> Vec<Refusal> {
    let repository = Repository::parse("origin.example.com/acme/web").unwrap();
    let reference = Reference::parse("origin.example.com/acme/web:1.2").unwrap();
    let identities = [
        Identity::RepoDigestOrExact,
        Identity::Exact,
        Identity::Repository,
        Identity::ExactReference(reference),
        Identity::ExactRepository(repository),
        Identity::Remap { from: "registry.example.com".into(), to: "origin.example.com".into() },
    ];
    let signed = Reference::parse("registry.example.com/acme/web:1.1").unwrap();
    let refusals = identities.map(|identity| Refusal::WrongIdentity {
        signed: Box::new(signed.clone()),
        wanted: RequirementSummary { identity: Arc::new(identity), ..wanted() },
    });
    refusals.into()
}

/// Returns refusals for want of no signer, of many, and of signers that have no key left.
fn of_other_signers() -> Vec<Refusal> {
    let none = RequirementSummary { signers: Arc::new([]), ..wanted() };
    let many = (0..5).map(|number| (format!("signer-{number}").into(), vec![key(); 5]));
    let many = RequirementSummary { signers: many.collect(), ..wanted() };
    let all: Vec<Fingerprint> = wanted().signers.iter().flat_map(|(_, keys)| keys.clone()).collect();
    let unusable = RequirementSummary { unusable: all.into(), ..wanted() };
    [none, many, unusable].map(Refusal::Unsigned).into()
}

#[test]
fn there_is_an_example_of_every_variant() {
    assert_complete("refusal", "Refusal", &refusals());
    assert_complete("refusal", "Unpinned", &unpinned());
    assert_complete("refusal", "Invalid", &invalid());
    assert_complete("refusal", "LookupError", &lookup_errors());
    assert_complete("signature", "Malformed", &malformed());
    assert_complete("signature", "Disagreement", &disagreements());
    assert_complete("signature", "PayloadError", &payload_errors());
    assert_complete("signature", "KeyFault", &key_faults());
    assert_complete("image", "ReferenceError", &reference_errors());
    assert_complete("image", "HostError", &host_errors());
    assert_complete("image", "DigestError", &digest_errors());
    assert_complete("image", "ManifestError", &manifest_errors());
    assert_complete("image", "WalkLimit", &walk_limits());
    assert_complete("policy", "Identity", &of_each_identity_names());
}

fn of_each_identity_names() -> Vec<Identity> {
    of_each_identity().iter().map(|refusal| (*refusal.wanted().unwrap().identity).clone()).collect()
}

/// A denial as a user of the cluster reads it.
fn denial(refusal: &Refusal) -> String {
    format!("[{}] {refusal}.\n    {}\n", refusal.code(), refusal.next_step(IMAGE))
}

#[test]
fn denials_read_as_the_snapshot() {
    let all = [refusals(), of_each_identity(), of_other_signers()].concat();
    let text: Vec<String> = all.iter().map(denial).collect();
    assert_reads!("denials", text.join("\n"));
}

#[test]
fn reasons_in_denials_read_as_the_snapshot() {
    fn list(title: &str, reasons: &[impl ToString]) -> String {
        let reasons: Vec<String> = reasons.iter().map(|reason| format!("    {}\n", reason.to_string())).collect();
        format!("{title}\n{}", reasons.concat())
    }
    let lists = [
        list("a signature is malformed", &malformed()),
        list("a signature is invalid", &invalid()),
        list("not an image reference", &reference_errors()),
    ];
    assert_reads!("reasons", lists.join("\n"));
}

#[test]
fn facts_of_refusals_are_those_of_the_snapshot() {
    let facts: Vec<String> = refusals().iter().map(|refusal| refusal.facts().to_string()).collect();
    assert_reads!("facts", facts.join("\n"));
}
