//! One case of the matrix: an image, a policy, and the signatures that lie there. Everything in it is plain data, so that a
//! disagreement prints as what has to be looked at.

use crate::support::Random;

/// What the policy is asked about, and what it is asked with.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) image: Image,
    /// Scopes of the docker transport, with `{host}` and `{digest}` (of the image) in them.
    pub(super) scopes: Vec<(&'static str, Vec<Requirement>)>,
    pub(super) default: Vec<Requirement>,
    pub(super) signatures: Vec<Signature>,
    /// Whether an index's manifest for another platform has the same signatures.
    pub(super) each_signed: bool,
}

/// An image by its name in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Image {
    /// `acme/web:1`.
    Web1,
    /// `acme/web:2`, another image.
    Web2,
    /// `acme/web@` the digest of `acme/web:1`.
    Web1ByDigest,
    /// `acme/web/admin:1`: a repository below a repository.
    Admin,
    /// `other/web:1`, the same bytes as `acme/web:1`.
    Other,
    /// `acme/index:1`: for this machine's platform the image of `acme/web:1`, and one for another platform.
    Index,
}

#[derive(Clone, Debug)]
pub(super) enum Requirement {
    AcceptAnything,
    Reject,
    SignedBaseLayer,
    SignedBy(Keyring, Identity),
}

/// Where the keys of a requirement are.
#[derive(Clone, Debug)]
pub(super) enum Keyring {
    /// `keyPath`: one file with these certificates.
    Path(&'static [Key]),
    /// `keyPaths`: a file each.
    Paths(&'static [Key]),
    /// `keyData`.
    Data(&'static [Key]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    Release,
    Security,
    Stranger,
    Rsa2048,
    Rsa1024,
    Expired,
    Revoked,
    /// The same certificate as it was before; only in keyrings.
    BeforeRevocation,
    /// A certificate with a subkey that signs, signing with it.
    Subkey,
    /// The same certificate, signing with its primary key.
    SubkeyPrimary,
}

/// `signedIdentity`, with `{host}` and `{digest}` in texts.
#[derive(Clone, Debug)]
pub(super) enum Identity {
    LeftOut,
    Exact,
    RepoDigestOrExact,
    Repository,
    ExactReference(&'static str),
    ExactRepository(&'static str),
    Remap(&'static str, &'static str),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Signature {
    pub(super) key: Key,
    pub(super) envelope: Envelope,
    pub(super) payload: Payload,
    /// The signed reference, with `{host}` and `{digest}` in it.
    pub(super) reference: &'static str,
    /// Whether it names the digest of the image, or another one.
    pub(super) right_digest: bool,
}

/// How a payload is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Envelope {
    Compressed,
    Uncompressed,
    /// With the prefix that newer tools write in front of simple signatures.
    Prefixed,
    Armored,
    ClearSigned,
    Detached,
    TwoSigners,
    Sha1,
    Sha512,
    /// Made in the future.
    Future,
    /// Made before the key.
    OlderThanItsKey,
    /// A signature that has expired.
    OutOfDate,
    Tampered,
    Truncated,
    TrailingAfterCompressed,
    TrailingAfterUncompressed,
    Unsigned,
    Empty,
    NoOpenPgp,
}

/// What the payload looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Payload {
    Good,
    Spaced,
    MembersInAnotherOrder,
    NoOptional,
    EmptyOptional,
    OptionalNull,
    MoreInOptional,
    CreatorNotText,
    TimestampNotWhole,
    TimestampText,
    MoreInCritical,
    MoreAtTheTop,
    MoreInIdentity,
    MoreInImage,
    TwiceAtTheTop,
    TwiceInCritical,
    TwiceInOptional,
    OtherCase,
    OtherType,
    NoType,
    DigestNotOne,
    DigestUpperCase,
    ReferenceNotOne,
    ReferenceEmpty,
    InvalidUtf8,
    NotJson,
    TrailingText,
    Null,
}

const IMAGES: &[Image] = &[
    Image::Web1,
    Image::Web1,
    Image::Web1,
    Image::Web2,
    Image::Web1ByDigest,
    Image::Web1ByDigest,
    Image::Admin,
    Image::Other,
    Image::Index,
];
const KEYS: &[Key] = &[
    Key::Release,
    Key::Release,
    Key::Security,
    Key::Stranger,
    Key::Rsa2048,
    Key::Rsa1024,
    Key::Expired,
    Key::Revoked,
    Key::Subkey,
    Key::SubkeyPrimary,
];
const KEYRINGS: &[Keyring] = &[
    Keyring::Path(&[Key::Release]),
    Keyring::Path(&[Key::Security]),
    Keyring::Path(&[Key::Release, Key::Security]),
    Keyring::Path(&[Key::Expired, Key::Revoked, Key::Release, Key::Subkey]),
    Keyring::Paths(&[Key::Release, Key::Security]),
    Keyring::Paths(&[Key::Rsa2048]),
    Keyring::Path(&[Key::Rsa2048, Key::Rsa1024]),
    Keyring::Data(&[Key::Release]),
    Keyring::Data(&[Key::Security, Key::Release, Key::Rsa2048]),
    Keyring::Path(&[Key::Subkey]),
    Keyring::Path(&[Key::Expired]),
    Keyring::Path(&[Key::Revoked]),
    Keyring::Paths(&[Key::Subkey, Key::Rsa1024, Key::Release, Key::Rsa2048, Key::Expired, Key::Revoked]),
];
const IDENTITIES: &[Identity] = &[
    Identity::LeftOut,
    Identity::Exact,
    Identity::RepoDigestOrExact,
    Identity::Repository,
    Identity::ExactReference("{host}/acme/web:1"),
    Identity::ExactReference("{host}/acme/web@{digest}"),
    Identity::ExactReference("registry.example.com/acme/web:1"),
    Identity::ExactReference("busybox:1"),
    Identity::ExactRepository("{host}/acme/web"),
    Identity::ExactRepository("{host}/acme/web:9"),
    Identity::ExactRepository("registry.example.com/acme/web"),
    Identity::ExactRepository("busybox"),
    Identity::Remap("{host}/acme", "registry.example.com/acme"),
    Identity::Remap("{host}", "registry.example.com"),
    Identity::Remap("{host}/acme/web", "registry.example.com/acme/web"),
    Identity::Remap("{host}/acme/we", "registry.example.com/acme/we"),
    Identity::Remap("{host}", "docker.io/library"),
    Identity::Remap("{host}/acme", "docker.io"),
    Identity::Remap("{host}/other", "{host}/acme"),
    Identity::Remap("registry.example.com", "{host}"),
];
const REFERENCES: &[&str] = &[
    "{host}/acme/web:1",
    "{host}/acme/web:1",
    "{host}/acme/web:2",
    "{host}/acme/web",
    "{host}/acme/web@{digest}",
    "{host}/acme/web:1@{digest}",
    "{host}/acme/web/admin:1",
    "{host}/acme/index:1",
    "{host}/other/web:1",
    "{host}/acme",
    "registry.example.com/acme/web:1",
    "registry.example.com/acme/web:2",
    "registry.example.com/acme/web",
    "registry.example.com/acme/web@{digest}",
    "docker.io/library/acme/web:1",
    "docker.io/web:1",
    "docker.io/library/web:1",
    "docker.io/library/busybox:1",
    "busybox:1",
    "acme/web:1",
    "{host}/Acme/web:1",
    "{host}/acme/web:1 ",
    "docker://{host}/acme/web:1",
    "{host}/acme//web:1",
    "{host}/acme/web:",
];
/// Those of them that no reader takes for a reference.
const NO_REFERENCES: &[&str] = &[
    "{host}/Acme/web:1",
    "{host}/acme/web:1 ",
    "docker://{host}/acme/web:1",
    "{host}/acme//web:1",
    "{host}/acme/web:",
];
const SCOPES: &[&str] = &[
    "",
    "{host}",
    "{host}/acme",
    "{host}/acme/web",
    "{host}/acme/web:1",
    "{host}/acme/web@{digest}",
    "{host}/other",
    "{host}/acm",
    "127.0.0.1",
    "*.0.0.1",
    "*.1",
    "registry.example.com",
    "docker.io/library/web",
];
const ENVELOPES: &[Envelope] = &[
    Envelope::Uncompressed,
    Envelope::Prefixed,
    Envelope::Armored,
    Envelope::ClearSigned,
    Envelope::Detached,
    Envelope::TwoSigners,
    Envelope::Sha1,
    Envelope::Sha512,
    Envelope::Future,
    Envelope::OlderThanItsKey,
    Envelope::OutOfDate,
    Envelope::Tampered,
    Envelope::Truncated,
    Envelope::TrailingAfterCompressed,
    Envelope::TrailingAfterUncompressed,
    Envelope::Unsigned,
    Envelope::Empty,
    Envelope::NoOpenPgp,
];
const PAYLOADS: &[Payload] = &[
    Payload::Spaced,
    Payload::MembersInAnotherOrder,
    Payload::NoOptional,
    Payload::EmptyOptional,
    Payload::OptionalNull,
    Payload::MoreInOptional,
    Payload::CreatorNotText,
    Payload::TimestampNotWhole,
    Payload::TimestampText,
    Payload::MoreInCritical,
    Payload::MoreAtTheTop,
    Payload::MoreInIdentity,
    Payload::MoreInImage,
    Payload::TwiceAtTheTop,
    Payload::TwiceInCritical,
    Payload::TwiceInOptional,
    Payload::OtherCase,
    Payload::OtherType,
    Payload::NoType,
    Payload::DigestNotOne,
    Payload::DigestUpperCase,
    Payload::ReferenceNotOne,
    Payload::ReferenceEmpty,
    Payload::InvalidUtf8,
    Payload::NotJson,
    Payload::TrailingText,
    Payload::Null,
];

impl Image {
    /// The reference that a signer would give it.
    fn own_reference(self) -> &'static str {
        match self {
            Self::Web1 | Self::Web1ByDigest => "{host}/acme/web:1",
            Self::Web2 => "{host}/acme/web:2",
            Self::Admin => "{host}/acme/web/admin:1",
            Self::Other => "{host}/other/web:1",
            Self::Index => "{host}/acme/index:1",
        }
    }
}

impl Signature {
    /// Whether what it names is a reference.
    pub(super) fn names_a_reference(&self) -> bool {
        !NO_REFERENCES.contains(&self.reference)
    }

    fn good(reference: &'static str) -> Self {
        Self {
            key: Key::Release,
            envelope: Envelope::Compressed,
            payload: Payload::Good,
            reference,
            right_digest: true,
        }
    }
}

/// Every case of the matrix: each kind of thing once by itself, then cases that differ from a good one in several ways.
pub(super) fn all(seed: u64, mixed: usize) -> Vec<Case> {
    let mut cases = one_by_one();
    let mut random = Random::new(seed);
    cases.extend((0..mixed).map(|_| mixed_case(&mut random)));
    cases
}

fn good(image: Image) -> Case {
    Case {
        image,
        scopes: vec![("", vec![Requirement::SignedBy(Keyring::Path(&[Key::Release]), Identity::LeftOut)])],
        default: vec![Requirement::Reject],
        signatures: vec![Signature::good(image.own_reference())],
        each_signed: true,
    }
}

fn one_by_one() -> Vec<Case> {
    let mut cases = Vec::new();
    for image in [Image::Web1, Image::Web1ByDigest, Image::Admin, Image::Index] {
        cases.push(good(image));
    }
    for identity in IDENTITIES.iter().step_by(3) {
        for each_signed in [true, false] {
            let mut case = Case { each_signed, ..good(Image::Index) };
            case.scopes[0].1 = vec![Requirement::SignedBy(Keyring::Path(&[Key::Release]), identity.clone())];
            cases.push(case);
        }
    }
    for envelope in ENVELOPES {
        let mut case = good(Image::Web1);
        case.signatures[0].envelope = *envelope;
        if *envelope == Envelope::Sha1 {
            case.signatures[0].key = Key::Rsa2048;
            case.scopes[0].1 = vec![Requirement::SignedBy(Keyring::Path(&[Key::Rsa2048]), Identity::LeftOut)];
        }
        cases.push(case.clone());
        // Beside a good one.
        case.signatures.push(Signature::good("{host}/acme/web:1"));
        case.scopes[0].1 = vec![Requirement::SignedBy(Keyring::Path(&[Key::Release, Key::Rsa2048]), Identity::LeftOut)];
        cases.push(case);
    }
    for payload in PAYLOADS {
        let mut case = good(Image::Web1);
        case.signatures[0].payload = *payload;
        cases.push(case);
    }
    for key in &KEYS[1..] {
        let mut case = good(Image::Web1);
        case.signatures[0].key = *key;
        case.scopes[0].1 = vec![Requirement::SignedBy(KEYRINGS[KEYRINGS.len() - 1].clone(), Identity::LeftOut)];
        cases.push(case);
    }
    for keyring in [
        Keyring::Paths(&[Key::BeforeRevocation, Key::Revoked]),
        Keyring::Paths(&[Key::Revoked, Key::BeforeRevocation]),
        Keyring::Path(&[Key::BeforeRevocation, Key::Revoked]),
        Keyring::Paths(&[Key::BeforeRevocation]),
    ] {
        let mut case = good(Image::Web1);
        case.signatures[0].key = Key::Revoked;
        case.scopes[0].1 = vec![Requirement::SignedBy(keyring, Identity::LeftOut)];
        cases.push(case);
    }
    for identity in IDENTITIES {
        for reference in ["{host}/acme/web:1", "registry.example.com/acme/web:1"] {
            let mut case = good(Image::Web1);
            case.signatures[0].reference = reference;
            case.scopes[0].1 = vec![Requirement::SignedBy(Keyring::Path(&[Key::Release]), identity.clone())];
            cases.push(case);
        }
    }
    for reference in REFERENCES {
        for image in [Image::Web1, Image::Web1ByDigest] {
            let mut case = good(image);
            case.signatures[0].reference = reference;
            cases.push(case);
        }
    }
    for scope in SCOPES {
        for image in [Image::Web1, Image::Web1ByDigest] {
            let mut case = good(image);
            case.scopes = vec![(scope, vec![Requirement::AcceptAnything])];
            cases.push(case);
        }
    }
    cases
}

fn mixed_case(random: &mut Random) -> Case {
    let mut case = good(*random.pick(IMAGES));
    for _ in 0..=random.below(4) {
        change(&mut case, random);
    }
    case.each_signed = random.below(2) == 0;
    case
}

fn signature(random: &mut Random, image: Image) -> Signature {
    let mut signature = Signature::good(image.own_reference());
    match random.below(6) {
        0 => {}
        1 => signature.key = *random.pick(KEYS),
        2 => signature.envelope = *random.pick(ENVELOPES),
        3 => signature.payload = *random.pick(PAYLOADS),
        4 => signature.reference = REFERENCES[random.below(REFERENCES.len())],
        _ => signature.right_digest = false,
    }
    signature
}

fn requirement(random: &mut Random) -> Requirement {
    match random.below(12) {
        0 => Requirement::AcceptAnything,
        1 => Requirement::Reject,
        2 => Requirement::SignedBaseLayer,
        _ => Requirement::SignedBy(random.pick(KEYRINGS).clone(), random.pick(IDENTITIES).clone()),
    }
}

fn change(case: &mut Case, random: &mut Random) {
    let place = random.below(case.scopes.len());
    match random.below(10) {
        0 => case.image = *random.pick(IMAGES),
        1 => {
            // Another scope that may or may not go before.
            let scope = *random.pick(SCOPES);
            if case.scopes.iter().all(|(known, _)| *known != scope) {
                case.scopes.push((scope, vec![requirement(random)]));
            }
        }
        2 => {
            let scope = *random.pick(SCOPES);
            if case.scopes.iter().all(|(known, _)| *known != scope) {
                case.scopes[place].0 = scope;
            }
        }
        3 => case.scopes[place].1.push(requirement(random)),
        4 => {
            for requirement in &mut case.scopes[place].1 {
                if let Requirement::SignedBy(_, identity) = requirement {
                    *identity = random.pick(IDENTITIES).clone();
                }
            }
        }
        5 => {
            for requirement in &mut case.scopes[place].1 {
                if let Requirement::SignedBy(keyring, _) = requirement {
                    *keyring = random.pick(KEYRINGS).clone();
                }
            }
        }
        6 => case.default = vec![requirement(random)],
        7 if !case.signatures.is_empty() => {
            let place = random.below(case.signatures.len());
            case.signatures[place] = signature(random, case.image);
        }
        8 if random.below(3) == 0 => case.signatures.clear(),
        _ => {
            let place = random.below(case.signatures.len() + 1);
            let signature = signature(random, case.image);
            case.signatures.insert(place, signature);
        }
    }
}
