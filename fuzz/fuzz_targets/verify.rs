#![no_main]
//! Envelopes and verification: no panic, and never a proof, for nobody has this key's secret part.

use std::{
    num::NonZeroUsize,
    sync::{Arc, LazyLock},
};

use libfuzzer_sys::fuzz_target;
use sealgate::{
    image::{Digest, Reference},
    policy::{Identity, Platforms, Requirement, Requirements, RuleId, Signer},
    signature::{Certificate, UntrustedSignature},
    verification::{FoundSignatures, Question, verify},
};

static REQUIREMENTS: LazyLock<Requirements> = LazyLock::new(|| {
    let keyring = Certificate::parse_keyring(include_bytes!("../key.asc")).expect("a keyring");
    let signer = Signer { name: "acme".into(), certificates: keyring.into_iter().map(Arc::new).collect() };
    let requirement = Requirement {
        signed_by: vec![Arc::new(signer)],
        threshold: NonZeroUsize::MIN,
        identity: Identity::Repository,
        max_age: None,
    };
    Requirements { all: vec![requirement], platforms: Platforms::Index }
});

fuzz_target!(|contents: Vec<Vec<u8>>| {
    let image = Reference::parse("registry.example.com/acme/web:1").expect("a reference");
    let rule = RuleId::new("fuzz", "rule");
    let question = Question {
        image: &image,
        digest: Digest::sha256(b""),
        rule: &rule,
        requirements: &REQUIREMENTS,
        now: "2026-06-01T00:00:00Z".parse().expect("a time"),
        tries: 8,
    };
    let signatures = contents.into_iter().map(|content| UntrustedSignature {
        content: content.into(),
        source: "".into(),
        number: 1,
    });
    let found = FoundSignatures { signatures: signatures.collect(), asked: vec![] };
    assert!(verify(&question, &found).result.is_err());
});
