//! Agreement with containers/image: real skopeo and `sealgate verify` are given the same policy.json, the same registry and
//! the same signatures, and have to come to the same answer. Where we differ it is for one of the reasons that
//! docs/policy-json.md names, and each reason is checked: without what it is about, both agree.

mod case;
mod documents;
mod scenario;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use self::case::{Case, Envelope, Image, Key, Payload, Requirement, Signature};
use self::scenario::{Answer, Scenario};
use crate::support::Store;

/// The seed of the mixed cases. `SEALGATE_MATRIX_SEED` and `SEALGATE_MATRIX_CASES` try others, and more of them.
const SEED: u64 = 20_261_123;
const MIXED: usize = 180;
const THREADS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn verify_agrees_with_skopeo_over_the_matrix() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("SEALGATE_MATRIX_SEED").unwrap_or(SEED);
    let mixed = number("SEALGATE_MATRIX_CASES").and_then(|number| usize::try_from(number).ok()).unwrap_or(MIXED);
    let cases = case::all(seed, mixed);
    assert!(cases.len() >= 300, "{} cases", cases.len());
    let scenario = Scenario::new().await;
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::<&str, usize>::new());
    let disagreements = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { return };
                    let result = compare(&scenario, case, &number.to_string()).unwrap_or_else(|what| {
                        let what = format!("case {number} of seed {seed}: {what}\n{case:#?}");
                        disagreements.lock().expect("nothing panics with it").push(what);
                        "DISAGREEMENT"
                    });
                    *results.lock().expect("nothing panics with it").entry(result).or_default() += 1;
                }
            });
        }
    });
    let results = results.into_inner().expect("nothing panics with it");
    println!("{results:#?}");
    let disagreements = disagreements.into_inner().expect("nothing panics with it");
    assert!(
        disagreements.is_empty(),
        "{} of {} cases:\n{}",
        disagreements.len(),
        cases.len(),
        disagreements.join("\n\n")
    );
    // A matrix in which one answer is rare shows little.
    for answer in [BOTH_ALLOW, BOTH_REFUSE] {
        assert!(results[answer] * 5 >= cases.len(), "{answer}: {} of {}", results[answer], cases.len());
    }
    // Nor does one in which no index is ever allowed.
    for result in [BOTH_ALLOW_AN_INDEX, EACH_MANIFEST] {
        let count = results.get(result).copied().unwrap_or_default();
        assert!(count >= 3, "{result}: {count}");
    }
}

/// Whether a reason is about this signature.
type Applies = fn(&Signature) -> bool;

/// Through the store, in front of the same registry: every case has a store, and so an address, of its own. The store takes
/// only what a gate could use, so these are the cases whose signatures are good messages.
#[tokio::test(flavor = "multi_thread")]
async fn verify_agrees_with_skopeo_through_the_extension_endpoint() {
    let scenario = Scenario::new().await;
    let storable = |case: &&Case| {
        let good = |signature: &Signature| {
            let envelope =
                matches!(signature.envelope, Envelope::Compressed | Envelope::Uncompressed | Envelope::Sha512);
            let key = !matches!(signature.key, Key::Rsa1024 | Key::Subkey);
            key && envelope && signature.right_digest && matches!(signature.payload, Payload::Good | Payload::Spaced)
        };
        // Where we are stricter about an index is compared above.
        let same = case.image != Image::Index || case.each_signed;
        same && !case.signatures.is_empty() && case.signatures.iter().all(good)
    };
    let cases = case::all(SEED, MIXED);
    let cases: Vec<&Case> = cases.iter().filter(storable).step_by(4).collect();
    assert!(cases.len() >= 30, "{} cases", cases.len());
    let mut results = BTreeMap::<&str, usize>::new();
    for (number, case) in cases.into_iter().enumerate() {
        let mut store = Store::start(&scenario.registry_url());
        let here = scenario.behind(store.host());
        let (repository, digests) = here.signatures(case);
        let all = digests.into_iter().flat_map(|(digest, signatures)| {
            signatures.into_iter().enumerate().map(move |(index, signature)| (digest, index, signature))
        });
        let mut stored = HashSet::new();
        for (digest, index, signature) in all {
            // What names no reference is not stored, and nothing is stored twice: both programs see the same.
            let expected = match case.signatures[index].names_a_reference() {
                false => 400,
                true if stored.insert((digest, signature.clone())) => 201,
                true => 409,
            };
            let url = store.signatures_url(repository, digest);
            let body = serde_json::json!({
                "schemaVersion": 2,
                "type": "atomic",
                "name": format!("{digest}@{index:032}"),
                "content": STANDARD.encode(signature),
            });
            let put = reqwest::Client::new().put(&url).body(body.to_string());
            let answer = put.send().await.expect("the store answers");
            let status = answer.status().as_u16();
            let said = answer.text().await.unwrap_or_default();
            assert_eq!(status, expected, "signature {index}: {said}\n{case:#?}");
        }
        let result = tokio::task::block_in_place(|| compare(&here, case, &format!("store-{number}")));
        let result = result.unwrap_or_else(|what| panic!("case {number}: {what}\n{case:#?}"));
        *results.entry(result).or_default() += 1;
        store.stop().wait();
    }
    println!("{results:#?}");
    assert!(results[BOTH_ALLOW] >= 5 && results[BOTH_REFUSE] >= 5, "{results:?}");
}

const BOTH_ALLOW: &str = "both allow";
const BOTH_ALLOW_AN_INDEX: &str = "both allow an index of which each manifest is signed";
const BOTH_REFUSE: &str = "both refuse";
const EACH_MANIFEST: &str = "stricter: each manifest of an index must be signed";

fn compare(scenario: &Scenario, case: &Case, name: &str) -> Result<&'static str, String> {
    let skopeo = scenario.skopeo(case, &format!("{name}-skopeo"));
    let sealgate = scenario.sealgate(case, &format!("{name}-sealgate"));
    if !matches!(sealgate.status, Some(0 | 1)) {
        return Err(format!("sealgate ends with {:?}: {}", sealgate.status, sealgate.said));
    }
    let why = match (skopeo.allowed, sealgate.allowed) {
        (true, true) if case.image == Image::Index && asks_for_signatures(case) => return Ok(BOTH_ALLOW_AN_INDEX),
        (true, true) => return Ok(BOTH_ALLOW),
        (false, false) => return Ok(BOTH_REFUSE),
        (true, false) => stricter(scenario, case, name),
        (false, true) => wider(scenario, case, name),
    };
    why.ok_or_else(|| {
        let say = |answer: &Answer| format!("{}\n{}", if answer.allowed { "allows" } else { "refuses" }, answer.said);
        format!("skopeo {}sealgate {}", say(&skopeo), say(&sealgate))
    })
}

/// We refuse what skopeo allows: only where nothing but what we don't accept makes skopeo allow it.
fn stricter(scenario: &Scenario, case: &Case, name: &str) -> Option<&'static str> {
    // skopeo looks at this machine's platform alone. Once the other one is signed too, there is nothing else between us.
    if case.image == Image::Index && !case.each_signed {
        let each = Case { each_signed: true, ..case.clone() };
        if scenario.sealgate(&each, &format!("{name}-each")).allowed {
            return Some(EACH_MANIFEST);
        }
    }
    let reasons: [(&str, Applies); 4] = [
        ("stricter: SHA-1", |signature| signature.envelope == Envelope::Sha1),
        ("stricter: RSA below 2048 bits", |signature| signature.key == Key::Rsa1024),
        ("stricter: a signature from the future", |signature| signature.envelope == Envelope::Future),
        ("stricter: invalid UTF-8", |signature| signature.payload == Payload::InvalidUtf8),
    ];
    let (reason, _) = reasons.iter().find(|(_, applies)| case.signatures.iter().any(applies))?;
    let mut without = case.clone();
    without.signatures.retain(|signature| !reasons.iter().any(|(_, applies)| applies(signature)));
    let skopeo = scenario.skopeo(&without, &format!("{name}-without"));
    (!skopeo.allowed).then_some(reason)
}

fn asks_for_signatures(case: &Case) -> bool {
    let mut all = case.scopes.iter().flat_map(|(_, requirements)| requirements).chain(&case.default);
    all.any(|requirement| matches!(requirement, Requirement::SignedBy(..)))
}

/// We allow what skopeo refuses: only where skopeo allows it too without what we don't mind.
fn wider(scenario: &Scenario, case: &Case, name: &str) -> Option<&'static str> {
    let spoilt = case.signatures.iter().any(unreadable);
    let subkey = case.signatures.iter().any(|signature| signature.key == Key::Subkey);
    let mut without = case.clone();
    without.signatures.retain(|signature| !unreadable(signature));
    for signature in &mut without.signatures {
        if signature.key == Key::Subkey {
            signature.key = Key::SubkeyPrimary;
        }
    }
    let reason = match (spoilt, subkey) {
        (true, _) => "wider: a good signature is proof whatever lies beside it",
        (false, true) => "wider: subkeys that sign (skopeo 1.22 accepts them, 1.9 does not)",
        (false, false) => return None,
    };
    scenario.skopeo(&without, &format!("{name}-without")).allowed.then_some(reason)
}

/// What containers/image can't tell apart from another kind of signature: it refuses the image, whatever else lies there.
fn unreadable(signature: &Signature) -> bool {
    matches!(signature.envelope, Envelope::Armored | Envelope::ClearSigned | Envelope::Empty | Envelope::NoOpenPgp)
}
