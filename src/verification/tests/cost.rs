//! The cost of verification, by the prices of its steps, and its end where an allowance ends.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

use super::*;
use crate::verification::budget::MAX_SLOW_OPENINGS;

/// Counts what is taken, and ends after so much.
struct Purse {
    left: AtomicU64,
    taken: AtomicU64,
    refused: AtomicU64,
}

impl Purse {
    fn with(left: u64) -> Self {
        Self { left: left.into(), taken: AtomicU64::default(), refused: AtomicU64::default() }
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Allowance for Purse {
    fn take(&self, price: u64) -> bool {
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(price));
        match taken {
            Ok(_) => self.taken.fetch_add(price, Ordering::Relaxed),
            Err(_) => self.refused.fetch_add(1, Ordering::Relaxed),
        };
        taken.is_ok()
    }
}

fn examine_with(scenario: &Scenario, purse: &Purse, signatures: &[Vec<u8>]) -> Examination {
    let rule = RuleId::new("production", "acme");
    let question = Question {
        image: &scenario.image,
        digest: scenario.digest,
        rule: &rule,
        requirements: &scenario.requirements,
        now: scenario.now,
        tries: scenario.tries,
    };
    let source = AskedSource { url: "https://registry.example.com/".into(), outcome: Ok(signatures.len()) };
    let signatures = signatures.iter().cloned().map(untrusted).collect();
    verify_within(&question, &FoundSignatures { signatures, asked: vec![source] }, purse)
}

/// A block of bzip2 in 55 to 100 bytes, each another one: what follows the packet is no part of the message.
fn bzip2_bombs(count: u32) -> Vec<Vec<u8>> {
    let mut bomb = Vec::new();
    let mut message = Compressor::new(Writer::new(&mut bomb)).algo(CompressionAlgorithm::BZip2).build().unwrap();
    message.write_all(&vec![0; 1 << 20]).unwrap();
    message.finalize().unwrap();
    assert!(bomb.len() < 128, "{}", bomb.len());
    (0..count).map(|number| [bomb.as_slice(), &number.to_be_bytes()].concat()).collect()
}

fn zip_bombs(key: &Key, count: u32) -> Vec<Vec<u8>> {
    let bomb = bomb(&start_of(key));
    (0..count).map(|number| [bomb.as_slice(), &number.to_be_bytes()].concat()).collect()
}

/// Whole but for the signature itself.
fn forgeries(key: &Key, count: u8) -> Vec<Vec<u8>> {
    let plain = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, |builder| builder);
    let forged = |number| {
        let mut message = plain.clone();
        *message.last_mut().unwrap() ^= number;
        message
    };
    (1..=count).map(forged).collect()
}

fn by_bzip2(key: &Key) -> Vec<u8> {
    let bzip2 = Some(CompressionAlgorithm::BZip2);
    key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, bzip2, |builder| builder)
}

#[test]
fn what_takes_long_to_open_is_opened_a_few_times_however_many_tries_there_are() {
    let key = Key::new("acme");
    let scenario = Scenario { tries: 256, ..by(&key) };
    for (name, junk, opening) in [("bzip2", bzip2_bombs(256), 1_010), ("zip", zip_bombs(&key, 256), 300)] {
        let purse = Purse::with(u64::MAX);
        let code = examine_with(&scenario, &purse, &junk).result.unwrap_err().code();
        assert_eq!(code, Code::MalformedSignature, "{name}");
        let looks = 40 * junk.len() as u64;
        assert!(purse.taken() <= looks + MAX_SLOW_OPENINGS as u64 * opening, "{name}: {}", purse.taken());
        // Where there are few, a good one of that kind is found among them.
        let few = [&junk[..MAX_SLOW_OPENINGS - 1], &[by_bzip2(&key)]].concat();
        scenario.proof(&few);
        // Where there are many, it is left out; what is cheap to open never is.
        let many = [&junk[..MAX_SLOW_OPENINGS], &[by_bzip2(&key)]].concat();
        assert!(examine_with(&scenario, &Purse::with(u64::MAX), &many).result.is_err(), "{name}");
        scenario.proof(&[junk, vec![good(&key)]].concat());
    }
}

#[test]
fn whoever_asks_about_all_signatures_has_every_slow_one_opened() {
    let key = Key::new("acme");
    let examination = by(&key).all(&[bzip2_bombs(20), vec![by_bzip2(&key)]].concat());
    assert!(examination.result.is_ok());
    assert_eq!(examination.signatures.len(), 21);
}

#[test]
fn a_list_of_which_nothing_was_tried_is_not_called_unsigned() {
    let key = Key::new("acme");
    for one in [good(&key), by_bzip2(&key)] {
        assert_eq!(Scenario { tries: 0, ..by(&key) }.code(&[one]), Some(Code::TooManySignatures));
    }
    assert_eq!(Scenario { tries: 0, ..by(&key) }.code(&[]), Some(Code::Unsigned));
    let after = |scenario: &Scenario, allowance, signatures: &[Vec<u8>]| {
        examine_with(scenario, &Purse::with(allowance), signatures).result.unwrap_err().code()
    };
    assert_eq!(after(&by(&key), 0, &[]), Code::Unsigned);
    assert_eq!(after(&by(&key), 0, &[good(&key)]), Code::TooManySignatures);
    // What holds whatever the signatures are is said.
    let expired = Key::with("acme", |choice| choice.expires(at("2026-05-15T00:00:00Z")));
    assert_eq!(after(&by(&expired), 0, &[good(&expired)]), Code::ExpiredKey);
}

#[test]
fn ten_thousand_entries_of_junk_stay_in_the_budget_and_hide_no_good_signature() {
    let (key, other) = (Key::new("acme"), Key::new("other"));
    let mut signatures = zip_bombs(&other, 10_000);
    signatures.push(good(&key));
    assert!(examine_with(&by(&key), &Purse::with(500_000), &signatures).result.is_ok());
}

static KEYS: LazyLock<(Key, Key)> = LazyLock::new(|| (Key::new("a"), Key::new("b")));

/// Some of each kind of entry but a good one.
static JUNK: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let (ours, other) = &*KEYS;
    let kinds = [
        bzip2_bombs(20),
        zip_bombs(ours, 20),
        zip_bombs(other, 20),
        forgeries(ours, 40),
        forgeries(other, 20),
        vec![vec![0xa3; 300], good(other)],
    ];
    kinds.concat()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_list_costs_more_than_the_allowance_and_none_becomes_a_yes_by_its_end(
        junk in proptest::sample::subsequence(JUNK.clone(), 0..=JUNK.len()).prop_shuffle(),
        allowance in prop_oneof![Just(0_u64), 0..2_000_u64, 0..50_000_u64],
        place: proptest::sample::Index,
    ) {
        let (ours, _) = &*KEYS;
        let purse = Purse::with(allowance);
        let examination = examine_with(&by(ours), &purse, &junk);
        prop_assert!(examination.result.is_err());
        prop_assert!(purse.taken() <= allowance);
        prop_assert!(purse.refused() <= 1, "after the end nothing more is done: {}", purse.refused());
        // With a good one in it, it is proof unless the allowance is over before.
        let mut with_good = junk;
        with_good.insert(place.index(with_good.len() + 1), good(ours));
        let purse = Purse::with(allowance);
        match examine_with(&by(ours), &purse, &with_good).result {
            Ok(proof) => prop_assert_eq!(proof.digest(), Digest::parse(DIGEST).unwrap()),
            Err(refusal) => {
                prop_assert_eq!(refusal.code(), Code::TooManySignatures);
                prop_assert_eq!(purse.refused(), 1, "only the allowance keeps it from being found");
            }
        }
    }
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
    let scenario = Scenario { tries: 1, ..by(&key) };
    let rule = RuleId::new("production", "acme");
    let question = Question {
        image: &scenario.image,
        digest: scenario.digest,
        rule: &rule,
        requirements: &scenario.requirements,
        now: scenario.now,
        tries: scenario.tries,
    };
    let mut budget = VerificationBudget::new(scenario.tries);
    let checked = check_all(
        &question,
        &trusted_certificates(&scenario.requirements),
        &signatures,
        &mut budget,
        Extent::UntilProven,
    );
    assert!(prove(&question, &checked).is_some());
    assert!(budget.inflated <= envelope::USUAL_RATIO * received + 20_001, "{}", budget.inflated);
}

#[test]
fn a_slow_signature_takes_one_try_among_bombs_that_name_no_key_of_the_rule() {
    let (key, other) = (Key::new("acme"), Key::new("other"));
    let spaced = [payload(IMAGE, DIGEST), vec![b' '; 12 << 10]].concat();
    let zip = key.sign(&spaced, at(SIGNED));
    assert!(zip.len() * envelope::USUAL_RATIO < spaced.len());
    let bzip2 = Some(CompressionAlgorithm::BZip2);
    let bzip2 = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA512, bzip2, |builder| builder);
    for good in [zip, bzip2] {
        let question = Scenario { tries: 1, ..by(&key) };
        question.proof(&[bomb(b""), bomb(&start_of(&other)), good]);
        let named = question.with(&[bomb(&start_of(&other))]).result.unwrap_err();
        let Refusal::UntrustedKey { signed_by, .. } = named else { panic!("{named}") };
        assert!(other.fingerprint().0.ends_with(&*signed_by[0].0), "{signed_by:?}");
    }
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
    let question = Scenario { tries: 1, ..by(&key) };
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
    let question = Scenario { tries: 10, ..by(&key) };
    let examination = question.with(&signatures);
    assert_eq!(examination.result.unwrap_err().code(), Code::InvalidSignature);
    assert_eq!(examination.signatures.len(), 10);
    Scenario { tries: 11, ..by(&key) }.proof(&signatures);
    assert_eq!(Scenario { tries: 0, ..by(&key) }.code(&[good(&key)]), Some(Code::TooManySignatures));
    let copies = vec![forged(1); 50];
    Scenario { tries: 2, ..by(&key) }.proof(&[copies, vec![good(&key)]].concat());
}
