//! Bytes, requirements and a time in; a proof or a refusal out.

mod cost;
mod each;
mod forms;
mod keys;
mod messages;
mod mutations;
mod proofs;
mod refusals;
mod requirements;
mod times;

use std::{io::Write as _, num::NonZeroUsize, sync::Arc, time::Duration};

use jiff::Timestamp;
use proptest::prelude::*;
use sequoia_openpgp::{
    Packet, PacketPile,
    cert::CipherSuite,
    packet::signature::{SignatureBuilder, subpacket::SubpacketTag},
    parse::Parse as _,
    serialize::{
        SerializeInto as _,
        stream::{Compressor, LiteralWriter, Message as Writer, Signer as MessageSigner},
    },
    types::{CompressionAlgorithm, HashAlgorithm, SignatureType},
};

use super::{check::MAX_LISTED, *};
use crate::image::{Descriptor, Digest, Manifest, Reference};
use crate::policy::{Identity, Platforms, Requirement, Requirements, RuleId, Signer};
use crate::refusal::{Code, Invalid, LookupError};
use crate::signature::testing::{self, Key, at, payload, signer, untrusted};
use crate::signature::{Disagreement, Fingerprint, KeyFault, Malformed, UntrustedSignature, envelope};

const IMAGE: &str = "registry.example.com/acme/web:1.2";
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const OTHER: &str = "sha256:4028782c08eae4a8c9a28bf661c0a8d1c2fc8e19dbaae2b018b21011197e1484";
const SIGNED: &str = "2026-05-01T00:00:00Z";
const NOW: &str = "2026-06-01T00:00:00Z";

/// In seconds.
const DAY: u64 = 24 * 3600;

fn requirement(signed_by: &[Arc<Signer>]) -> Requirement {
    Requirement {
        signed_by: signed_by.to_vec(),
        threshold: NonZeroUsize::MIN,
        identity: Identity::RepoDigestOrExact,
        max_age: None,
    }
}

fn of(threshold: usize, signed_by: &[Arc<Signer>]) -> Requirement {
    Requirement { threshold: NonZeroUsize::new(threshold).unwrap(), ..requirement(signed_by) }
}

/// A question that tests change a little.
#[derive(Clone)]
struct Scenario {
    requirements: Requirements,
    image: Reference,
    digest: Digest,
    now: Timestamp,
    tries: usize,
    failure: Option<LookupError>,
}

fn scenario(requirements: Vec<Requirement>) -> Scenario {
    Scenario {
        requirements: Requirements { all: requirements, platforms: Platforms::Index },
        image: Reference::parse(IMAGE).unwrap(),
        digest: Digest::parse(DIGEST).unwrap(),
        now: at(NOW),
        tries: 64,
        failure: None,
    }
}

/// One requirement: signed by this key.
fn by(key: &Key) -> Scenario {
    scenario(vec![requirement(&[key.signer("acme-release")])])
}

impl Scenario {
    fn at(mut self, now: &str) -> Self {
        self.now = at(now);
        self
    }

    fn with(&self, signatures: &[Vec<u8>]) -> Examination {
        self.by(verify, signatures)
    }

    fn all(&self, signatures: &[Vec<u8>]) -> Examination {
        self.by(examine_all, signatures)
    }

    fn by(&self, verify: fn(&Question<'_>, &FoundSignatures) -> Examination, signatures: &[Vec<u8>]) -> Examination {
        let rule = RuleId::new("production", "acme");
        let question = Question {
            image: &self.image,
            digest: self.digest,
            rule: &rule,
            requirements: &self.requirements,
            now: self.now,
            tries: self.tries,
        };
        let asked = AskedSource {
            url: "https://registry.example.com/".into(),
            outcome: self.failure.clone().map_or(Ok(signatures.len()), Err),
        };
        let signatures = signatures.iter().cloned().map(untrusted).collect();
        verify(&question, &FoundSignatures { signatures, asked: vec![asked] })
    }

    fn code(&self, signatures: &[Vec<u8>]) -> Option<Code> {
        self.with(signatures).result.err().map(|refusal| refusal.code())
    }

    fn proof(&self, signatures: &[Vec<u8>]) -> VerifiedImage {
        self.with(signatures).result.unwrap()
    }
}

fn good(key: &Key) -> Vec<u8> {
    key.sign(&payload(IMAGE, DIGEST), at(SIGNED))
}

fn down() -> LookupError {
    LookupError::Unavailable {
        registry: "registry.example.com".into(),
        url: "https://registry.example.com/".into(),
        cause: "connection refused".into(),
        retry_after: None,
    }
}
