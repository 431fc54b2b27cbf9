//! OpenPGP keys and messages for tests, good and bad.

use std::{
    io::Write as _,
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use jiff::Timestamp;
use sequoia_openpgp::{
    Cert, Packet,
    armor::{Kind, Writer},
    cert::prelude::*,
    crypto::{KeyPair, Signer as _},
    packet::{
        OnePassSig, Signature, UserID,
        key::{Key4, PrimaryRole, SecretParts},
        one_pass_sig::OnePassSig3,
        signature::{
            Signature3, SignatureBuilder,
            subpacket::{Subpacket, SubpacketValue},
        },
    },
    serialize::{
        SerializeInto as _,
        stream::{Compressor, LiteralWriter, Message, Signer},
    },
    types::{CompressionAlgorithm, HashAlgorithm, KeyFlags, ReasonForRevocation, SignatureType},
};

use super::{
    Certificate, Fingerprint, UntrustedSignature,
    framing::{first_packet, tests::in_parts},
};
use crate::policy;

/// The time at which keys are made, unless a test says otherwise.
pub(crate) const BORN: &str = "2025-01-01T00:00:00Z";

/// A time.
pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn system(time: Timestamp) -> SystemTime {
    SystemTime::try_from(time).unwrap()
}

/// An OpenPGP key pair with its certificate.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) cert: Cert,
}

/// The properties of a key that a test can choose.
pub(crate) struct Choice {
    suite: CipherSuite,
    born: Timestamp,
    expires: Option<Timestamp>,
    subkey: Option<KeyFlags>,
    primary: KeyFlags,
}

impl Choice {
    pub(crate) fn suite(mut self, suite: CipherSuite) -> Self {
        self.suite = suite;
        self
    }

    pub(crate) fn born(mut self, at: Timestamp) -> Self {
        self.born = at;
        self
    }

    pub(crate) fn expires(mut self, at: Timestamp) -> Self {
        self.expires = Some(at);
        self
    }

    /// A subkey signs, and the primary key only certifies.
    pub(crate) fn signing_subkey(mut self) -> Self {
        self.primary = KeyFlags::empty().set_certification();
        self.subkey = Some(KeyFlags::empty().set_signing());
        self
    }

    /// No key signs.
    pub(crate) fn no_signing(mut self) -> Self {
        self.primary = KeyFlags::empty().set_certification();
        self
    }
}

impl Key {
    /// An Ed25519 key that never expires.
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |choice| choice)
    }

    pub(crate) fn with(name: &str, choose: impl FnOnce(Choice) -> Choice) -> Self {
        let choice = choose(Choice {
            suite: CipherSuite::Cv25519,
            born: at(BORN),
            expires: None,
            subkey: None,
            primary: KeyFlags::empty().set_certification().set_signing(),
        });
        let born = system(choice.born);
        let validity = choice.expires.map(|expiry| system(expiry).duration_since(born).unwrap());
        let mut builder = CertBuilder::new()
            .set_creation_time(born)
            .set_cipher_suite(choice.suite)
            .add_userid(format!("{name} <{name}@example.com>"))
            .set_primary_key_flags(choice.primary)
            .set_validity_period(validity);
        if let Some(flags) = choice.subkey {
            builder = builder.add_subkey(flags, validity, None);
        }
        Self { cert: builder.generate().unwrap().0 }
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.cert.fingerprint().to_hex().into())
    }

    pub(crate) fn public(&self) -> Vec<u8> {
        self.cert.to_vec().unwrap()
    }

    pub(crate) fn private(&self) -> Vec<u8> {
        self.cert.as_tsk().to_vec().unwrap()
    }

    pub(crate) fn certificate(&self) -> Certificate {
        Certificate::parse_keyring(&self.public()).unwrap().remove(0)
    }

    /// A signer of the policy with this one certificate.
    pub(crate) fn signer(&self, name: &str) -> Arc<policy::Signer> {
        signer(name, &[self.public()])
    }

    /// The certificate, revoked as superseded.
    pub(crate) fn revoked(&self, when: Timestamp) -> Vec<u8> {
        let revocation = self.revocation_by(self, when);
        self.cert.clone().insert_packets(vec![revocation]).unwrap().0.to_vec().unwrap()
    }

    /// A revocation certificate, as `gpg --gen-revoke` makes it: one packet.
    pub(crate) fn revocation(&self, when: Timestamp) -> Vec<u8> {
        Packet::from(self.revocation_by(self, when)).to_vec().unwrap()
    }

    /// A revocation of this key that names it as its issuer, and is made by another.
    pub(crate) fn forged_revocation(&self, forger: &Self, when: Timestamp) -> Vec<u8> {
        let mut revocation = self.revocation_by(forger, when);
        let issuer = SubpacketValue::Issuer(self.cert.keyid());
        revocation.unhashed_area_mut().clear();
        revocation.unhashed_area_mut().add(Subpacket::new(issuer, false).unwrap()).unwrap();
        Packet::from(revocation).to_vec().unwrap()
    }

    fn revocation_by(&self, signer: &Self, when: Timestamp) -> Signature {
        let issuer = if signer.cert == self.cert { None } else { Some(self.cert.fingerprint()) };
        let builder = CertRevocationBuilder::new()
            .set_signature_creation_time(system(when))
            .unwrap()
            .set_reason_for_revocation(ReasonForRevocation::KeySuperseded, b"")
            .unwrap();
        match issuer {
            None => builder.build(&mut signer.primary_pair(), &self.cert, None).unwrap(),
            // What a builder would not write: another key as the issuer.
            Some(issuer) => SignatureBuilder::new(SignatureType::KeyRevocation)
                .set_signature_creation_time(system(when))
                .unwrap()
                .set_issuer_fingerprint(issuer)
                .unwrap()
                .sign_direct_key(&mut signer.primary_pair(), Some(self.cert.primary_key().key()))
                .unwrap(),
        }
    }

    /// The certificate, its signing subkey revoked as superseded.
    pub(crate) fn subkey_revoked(&self, when: Timestamp) -> Vec<u8> {
        let subkey = self.cert.keys().subkeys().next().unwrap();
        let revocation = SubkeyRevocationBuilder::new()
            .set_signature_creation_time(system(when))
            .unwrap()
            .set_reason_for_revocation(ReasonForRevocation::KeySuperseded, b"")
            .unwrap()
            .build(&mut self.primary_pair(), &self.cert, subkey.key(), None)
            .unwrap();
        self.cert.clone().insert_packets(vec![revocation]).unwrap().0.to_vec().unwrap()
    }

    /// The certificate with another expiry and, as GnuPG does it, without the old self-signatures.
    pub(crate) fn expiry_moved(&self, when: Timestamp, expiry: Option<Timestamp>) -> Vec<u8> {
        self.bound_by(vec![self.rebound(when, expiry)])
    }

    /// The certificate with another expiry, the old self-signature beside the new one.
    pub(crate) fn expiry_added(&self, when: Timestamp, expiry: Option<Timestamp>) -> Vec<u8> {
        let old = self.cert.userids().next().unwrap().self_signatures().next().unwrap().clone();
        self.bound_by(vec![old.into(), self.rebound(when, expiry)])
    }

    fn bound_by(&self, signatures: Vec<Packet>) -> Vec<u8> {
        let key: Packet = self.cert.primary_key().key().clone().parts_into_public().into();
        let userid = self.cert.userids().next().unwrap().userid().clone();
        let packets = [vec![key, userid.into()], signatures].concat();
        Cert::from_packets(packets.into_iter()).unwrap().to_vec().unwrap()
    }

    fn rebound(&self, when: Timestamp, expiry: Option<Timestamp>) -> Packet {
        let userid = self.cert.userids().next().unwrap();
        let born = self.cert.primary_key().key().creation_time();
        let template = userid.self_signatures().next().unwrap().clone();
        let signature = SignatureBuilder::from(template)
            .set_signature_creation_time(system(when))
            .unwrap()
            .set_key_validity_period(expiry.map(|expiry| system(expiry).duration_since(born).unwrap()))
            .unwrap()
            .sign_userid_binding(&mut self.primary_pair(), None, userid.userid())
            .unwrap();
        signature.into()
    }

    fn primary_pair(&self) -> KeyPair {
        self.cert.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap()
    }

    /// The key pair of the signing subkey if there is one, else of the primary key.
    pub(crate) fn pair(&self) -> KeyPair {
        match self.cert.keys().subkeys().next() {
            Some(subkey) => subkey.key().clone().parts_into_secret().unwrap().into_keypair().unwrap(),
            None => self.primary_pair(),
        }
    }

    /// A signed message.
    pub(crate) fn sign(&self, payload: &[u8], when: Timestamp) -> Vec<u8> {
        self.sign_with(payload, when, HashAlgorithm::SHA512, Some(CompressionAlgorithm::Zip), |builder| builder)
    }

    pub(crate) fn sign_with(
        &self,
        payload: &[u8],
        when: Timestamp,
        hash: HashAlgorithm,
        compression: Option<CompressionAlgorithm>,
        change: impl FnOnce(SignatureBuilder) -> SignatureBuilder,
    ) -> Vec<u8> {
        let mut sink = Vec::new();
        let mut message = Message::new(&mut sink);
        if let Some(algorithm) = compression {
            message = Compressor::new(message).algo(algorithm).build().unwrap();
        }
        let template = change(SignatureBuilder::new(SignatureType::Binary));
        let message = Signer::with_template(message, self.pair(), template)
            .unwrap()
            .hash_algo(hash)
            .unwrap()
            .creation_time(system(when))
            .build()
            .unwrap();
        let mut message = LiteralWriter::new(message).build().unwrap();
        message.write_all(payload).unwrap();
        message.finalize().unwrap();
        sink
    }
}

/// The bodies of a message's packets: to be put under headers of any kind.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) one_pass: Vec<u8>,
    /// Without format, file name and time.
    pub(crate) data: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl Parts {
    /// A signature of version 4.
    pub(crate) fn v4(key: &Key, data: &[u8], when: Timestamp, hash: HashAlgorithm, typ: SignatureType) -> Self {
        let message = key.sign_with(data, when, hash, None, |builder| builder.set_type(typ));
        let mut rest = &*message;
        let [one_pass, _, signature] = [(); 3].map(|()| {
            let (packet, behind) = first_packet(rest).unwrap();
            rest = behind;
            packet.body.into_owned()
        });
        Self { one_pass, data: data.to_vec(), signature }
    }

    /// A signature of version 3 (RFC 4880, section 5.2.2). `data` is hashed as it is, also for a text signature.
    pub(crate) fn v3(key: &Key, data: &[u8], when: Timestamp, hash: HashAlgorithm, typ: SignatureType) -> Self {
        let mut pair = key.pair();
        let time = sequoia_openpgp::types::Timestamp::try_from(system(when)).unwrap();
        let mut context = hash.context().unwrap().for_signature(3);
        context.update(data);
        context.update(&[u8::from(typ)]);
        context.update(&u32::from(time).to_be_bytes());
        let digest = context.into_digest().unwrap();
        let mpis = pair.sign(hash, &digest).unwrap();
        let (issuer, algorithm) = (pair.public().keyid(), pair.public().pk_algo());
        let signature = Signature3::new(typ, time, issuer.clone(), algorithm, hash, [digest[0], digest[1]], mpis);
        let mut one_pass = OnePassSig3::new(typ);
        one_pass.set_pk_algo(algorithm);
        one_pass.set_hash_algo(hash);
        one_pass.set_issuer(issuer);
        one_pass.set_last(true);
        let body = |packet: Packet| first_packet(&packet.to_vec().unwrap()).unwrap().0.body.into_owned();
        let (one_pass, signature) = (OnePassSig::from(one_pass), Signature::from(signature));
        Self { one_pass: body(one_pass.into()), data: data.to_vec(), signature: body(signature.into()) }
    }

    /// The literal packet's body: with a format, a file name and a time.
    pub(crate) fn literal(&self, format: u8, name: &str) -> Vec<u8> {
        let head = [format, u8::try_from(name.len()).unwrap()];
        [&head[..], name.as_bytes(), &1_554_833_664_u32.to_be_bytes(), &self.data].concat()
    }

    /// The message as Go's openpgp library frames it: the literal in parts of these powers of two and the rest.
    pub(crate) fn in_parts(&self, powers: impl IntoIterator<Item = u8>) -> Vec<u8> {
        let literal = in_parts(11, &self.literal(b'b', ""), powers);
        [in_parts(4, &self.one_pass, []), literal, in_parts(2, &self.signature, [])].concat()
    }

    /// The message, the literal in one part.
    pub(crate) fn message(&self) -> Vec<u8> {
        self.in_parts([])
    }

    /// Signature and literal, without a one-pass packet.
    pub(crate) fn signature_first(&self) -> Vec<u8> {
        [in_parts(2, &self.signature, []), in_parts(11, &self.literal(b'b', ""), [])].concat()
    }
}

/// The body of a compressed packet.
pub(crate) fn deflated(message: &[u8]) -> Vec<u8> {
    let mut compressed = flate2::write::DeflateEncoder::new(vec![1], flate2::Compression::best());
    compressed.write_all(message).unwrap();
    compressed.finish().unwrap()
}

/// A signer of the policy.
pub(crate) fn signer(name: &str, keyrings: &[Vec<u8>]) -> Arc<policy::Signer> {
    let certificates = keyrings.iter().flat_map(|keyring| Certificate::parse_keyring(keyring).unwrap()).map(Arc::new);
    Arc::new(policy::Signer { name: name.into(), certificates: certificates.collect() })
}

/// The payload of a signature.
pub(crate) fn payload(reference: &str, digest: &str) -> Vec<u8> {
    serde_json::json!({
        "critical": {
            "type": "atomic container signature",
            "image": {"docker-manifest-digest": digest},
            "identity": {"docker-reference": reference},
        },
        "optional": {"creator": "test", "timestamp": 1_764_000_000},
    })
    .to_string()
    .into_bytes()
}

/// As a source hands it out.
pub(crate) fn untrusted(content: Vec<u8>) -> UntrustedSignature {
    let source = "https://registry.example.com/signature-1".into();
    UntrustedSignature { content: content.into(), source, number: 1 }
}

pub(crate) fn armored(bytes: &[u8]) -> String {
    let mut writer = Writer::new(Vec::new(), Kind::PublicKey).unwrap();
    writer.write_all(bytes).unwrap();
    String::from_utf8(writer.finalize().unwrap()).unwrap()
}

/// A key as it was usual in the last century: RSA with 1024 bits. Made once, for it takes a while.
pub(crate) fn rsa_1024() -> Key {
    static KEY: LazyLock<Cert> = LazyLock::new(|| by_hand(1024, HashAlgorithm::SHA256));
    Key { cert: KEY.clone() }
}

/// A certificate with a SHA-1 self-signature.
pub(crate) fn sha1_self_signature() -> Vec<u8> {
    sha1_key().public()
}

/// Its key.
pub(crate) fn sha1_key() -> Key {
    static KEY: LazyLock<Cert> = LazyLock::new(|| by_hand(2048, HashAlgorithm::SHA1));
    Key { cert: KEY.clone() }
}

fn by_hand(bits: usize, hash: HashAlgorithm) -> Cert {
    let mut key: sequoia_openpgp::packet::Key<SecretParts, PrimaryRole> = Key4::generate_rsa(bits).unwrap().into();
    key.set_creation_time(system(at(BORN))).unwrap();
    let mut pair = key.clone().into_keypair().unwrap();
    let userid = UserID::from("old <old@example.com>");
    let signature = SignatureBuilder::new(SignatureType::PositiveCertification)
        .set_hash_algo(hash)
        .set_signature_creation_time(system(at(BORN)))
        .unwrap()
        .set_key_flags(KeyFlags::empty().set_certification().set_signing())
        .unwrap()
        .sign_userid_binding(&mut pair, key.parts_as_public(), &userid)
        .unwrap();
    let packets: Vec<Packet> = vec![key.into(), userid.into(), signature.into()];
    Cert::from_packets(packets.into_iter()).unwrap()
}
