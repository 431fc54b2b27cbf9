//! The claim of a signature, read without trust in any key: the store checks that it belongs where it is put.

use super::{Fingerprint, Malformed, Payload, envelope};

/// The claim of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The payload: the image that it is about.
    pub payload: Payload,
    /// The keys that it names, each once.
    pub issuers: Vec<Fingerprint>,
}

/// Reads the payload of a signed OpenPGP message (binary, one signature), as verification does, but without any check of
/// the signature.
///
/// **It proves nothing.** What is decided on it may be refused because of it, never allowed.
///
/// # Errors
/// It is not one OpenPGP message with one signature; it inflates to more than a message ever has; its payload is not
/// strict.
pub fn claimed_payload(message: &[u8]) -> Result<Payload, Malformed> {
    Ok(claim(message)?.payload)
}

/// The most keys that an honest message names.
pub const MAX_ISSUERS: usize = 4;

/// Reads the payload as [`claimed_payload`] does, with the keys that are named as the message's issuers. Of more than
/// [`MAX_ISSUERS`] it has one more, so that a message that names thousands takes no longer than others, and can be told apart.
///
/// # Errors
/// Those of [`claimed_payload`].
pub fn claim(message: &[u8]) -> Result<Claim, Malformed> {
    let opened = envelope::open(message, &mut 0)?;
    let mut issuers: Vec<Fingerprint> = Vec::new();
    for issuer in opened.issuers.iter().map(Fingerprint::of) {
        // The key ID is the end of a fingerprint that is there.
        if issuers.len() <= MAX_ISSUERS && !issuers.iter().any(|known| known.0.ends_with(&*issuer.0)) {
            issuers.push(issuer);
        }
    }
    Ok(Claim { payload: Payload::parse(&opened.body)?, issuers })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use sequoia_openpgp::{
        Cert,
        cert::CertBuilder,
        crypto::KeyPair,
        serialize::stream::{Armorer, Compressor, LiteralWriter, Message, Signer},
        types::CompressionAlgorithm,
    };

    use super::*;
    use crate::{image::Digest, signature::envelope::MAX_MESSAGE_BYTES};

    fn key() -> Cert {
        CertBuilder::new().add_userid("Release <release@example.com>").add_signing_subkey().generate().unwrap().0
    }

    fn pair(key: &Cert) -> KeyPair {
        let mut keys = key.keys().secret();
        keys.next().unwrap().key().clone().into_keypair().unwrap()
    }

    fn payload(digest: &Digest) -> String {
        format!(
            r#"{{"critical":{{"type":"atomic container signature","image":{{"docker-manifest-digest":"{digest}"}},"identity":{{"docker-reference":"registry.example.com/acme/web:1"}}}},"optional":{{}}}}"#
        )
    }

    #[derive(Clone, Copy)]
    struct Form {
        signers: usize,
        compressions: usize,
        armored: bool,
    }

    const GPG: Form = Form { signers: 1, compressions: 1, armored: false };

    fn message(form: Form, payload: &[u8]) -> Vec<u8> {
        let key = key();
        let mut sink = Vec::new();
        let mut stack = Message::new(&mut sink);
        if form.armored {
            stack = Armorer::new(stack).build().unwrap();
        }
        for _ in 0..form.compressions {
            stack = Compressor::new(stack).algo(CompressionAlgorithm::Zip).build().unwrap();
        }
        if form.signers > 0 {
            let mut signer = Signer::new(stack, pair(&key)).unwrap();
            for _ in 1..form.signers {
                signer = signer.add_signer(pair(&key)).unwrap();
            }
            stack = signer.build().unwrap();
        }
        let mut literal = LiteralWriter::new(stack).build().unwrap();
        literal.write_all(payload).unwrap();
        literal.finalize().unwrap();
        sink
    }

    #[test]
    fn a_signed_message_says_which_digest_it_is_for() {
        let digest = Digest::sha256(b"manifest");
        for form in [GPG, Form { compressions: 0, ..GPG }] {
            let message = message(form, payload(&digest).as_bytes());
            assert_eq!(claimed_payload(&message).unwrap().digest, digest);
        }
    }

    #[test]
    fn what_is_not_one_binary_message_with_one_signature_claims_nothing() {
        let payload = payload(&Digest::sha256(b"manifest"));
        let of = |form| message(form, payload.as_bytes());
        let good = of(GPG);
        let armored = String::from_utf8(of(Form { armored: true, ..GPG })).unwrap();
        let utf16 = |bytes: fn(u16) -> [u8; 2]| armored.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let bad = [
            (of(Form { signers: 0, ..GPG }), Malformed::Envelope),
            (of(Form { signers: 2, ..GPG }), Malformed::Envelope),
            (of(Form { compressions: 2, ..GPG }), Malformed::Envelope),
            ([of(Form { compressions: 0, ..GPG }), good.clone()].concat(), Malformed::Envelope),
            (good[..good.len() / 2].to_vec(), Malformed::Envelope),
            (vec![0xff; 1000], Malformed::Envelope),
            (armored.clone().into_bytes(), Malformed::Armored),
            (format!("\u{feff}\r\n{}", armored.replace('\n', "\r\n")).into_bytes(), Malformed::Armored),
            (utf16(u16::to_le_bytes), Malformed::Utf16),
            (utf16(u16::to_be_bytes), Malformed::Utf16),
            ([vec![0xff, 0xfe], utf16(u16::to_le_bytes)].concat(), Malformed::Utf16),
            (b"-----BEGIN PGP SIGNED MESSAGE-----\n".to_vec(), Malformed::ClearSigned),
            (Vec::new(), Malformed::Empty),
            (b" \r\n".to_vec(), Malformed::Empty),
            (payload.clone().into_bytes(), Malformed::NoPacket),
            (b"not OpenPGP".to_vec(), Malformed::NoPacket),
        ];
        for (message, why) in bad {
            assert_eq!(claimed_payload(&message).unwrap_err(), why);
        }
    }

    #[test]
    fn a_message_that_inflates_without_end_is_given_up_early() {
        let message = message(GPG, &vec![b' '; 32 << 20]);
        assert!(message.len() < MAX_MESSAGE_BYTES);
        assert_eq!(claimed_payload(&message).unwrap_err(), Malformed::TooLarge { limit: MAX_MESSAGE_BYTES });
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), place: usize) {
            let _ = claimed_payload(&bytes);
            let mut message = message(Form { compressions: 0, ..GPG }, b"{}");
            let place = place % message.len();
            message.truncate(place);
            message.extend(bytes);
            let _ = claimed_payload(&message);
        }
    }
}
