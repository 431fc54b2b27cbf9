//! Making a signature: the payload, and the OpenPGP message around it.

use std::io::Write as _;

use jiff::Timestamp;
use sequoia_openpgp::{
    crypto,
    packet::signature::SignatureBuilder,
    serialize::stream::{LiteralWriter, Message, Signer},
    types::{HashAlgorithm, SignatureType},
};

use super::{Malformed, Payload, certificate::system_time, claim::claimed_payload};

/// Says in each payload what made it.
const CREATOR: &str = concat!("sealgate ", env!("CARGO_PKG_VERSION"));

/// Why no signature was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComposeError {
    /// The holder of the key did not sign: the agent's own words, with their causes.
    #[error("{0}")]
    Signer(String),
    /// The message is none that a verifier takes. It is not handed out.
    #[error("the key makes signatures that no verifier accepts (a user ID or notation of more than 60 KB, say): {0}")]
    Unreadable(Malformed),
}

/// Signs a payload: one binary OpenPGP message, not compressed, by one key, as containers-signature(5) wants it and
/// [`super::verify`] reads it. `at` is the signing time that it states.
///
/// # Errors
/// The signer fails (no passphrase, a card that is not there), or makes what can't be read again.
pub fn compose<S>(payload: &Payload, signer: S, at: Timestamp) -> Result<Vec<u8>, ComposeError>
where
    S: crypto::Signer + Send + Sync,
{
    let mut message = Vec::new();
    write(&mut message, &text(payload, at), signer, at).map_err(|error| ComposeError::Signer(format!("{error:#}")))?;
    // A message that no verifier can read must not be stored.
    match claimed_payload(&message) {
        Ok(read) if read == *payload => Ok(message),
        Ok(_) => Err(ComposeError::Unreadable(Malformed::Envelope)),
        Err(error) => Err(ComposeError::Unreadable(error)),
    }
}

/// Returns the text that is signed for a payload at that time.
pub fn text(payload: &Payload, at: Timestamp) -> Vec<u8> {
    payload.to_json(CREATOR, at.as_second())
}

fn write<S>(sink: &mut Vec<u8>, payload: &[u8], signer: S, at: Timestamp) -> sequoia_openpgp::Result<()>
where
    S: crypto::Signer + Send + Sync,
{
    let template = SignatureBuilder::new(SignatureType::Binary);
    let signer = Signer::with_template(Message::new(sink), signer, template)?
        .creation_time(system_time(at))
        .hash_algo(HashAlgorithm::SHA512)?
        .build()?;
    let mut literal = LiteralWriter::new(signer).build()?;
    literal.write_all(payload)?;
    literal.finalize()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Digest, Reference};
    use crate::signature::testing::{Key, at};

    #[test]
    fn what_is_composed_is_read_again() {
        let key = Key::new("release");
        let payload = Payload {
            digest: Digest::sha256(b"manifest"),
            identity: Reference::parse("registry.example.com/acme/web:1").unwrap(),
        };
        let pair = key.cert.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
        let message = compose(&payload, pair, at("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(claimed_payload(&message).unwrap(), payload);
    }
}
