//! The OpenPGP message around a payload: opened, bounded, and held to the one shape that signers make.
//!
//! `one-pass signature, literal data, signature`, or the same in one compressed packet, which is what GnuPG makes. As with
//! containers/image: one signer, nothing armored, detached or clear-signed; what follows the compressed packet is no part of
//! the message, and what follows an uncompressed message spoils it.

use std::io::Read as _;

use sequoia_openpgp::{
    KeyHandle, Packet,
    packet::{Signature, Tag},
    parse::{Dearmor, PacketParserBuilder, PacketParserResult, Parse},
    types::{CompressionAlgorithm, SignatureType},
};

use super::payload::LARGEST_PAYLOAD;
use crate::verdict::refusal::Malformed;

/// The largest message, in bytes, before and after it is inflated: a payload, a signature by the largest key, and notations.
pub(super) const LARGEST_MESSAGE: usize = 64 << 10;

/// A message of the one shape. Nothing in it is verified.
pub(super) struct Message {
    /// The signature.
    pub(super) signature: Signature,
    /// What it is about, the payload.
    pub(super) body: Vec<u8>,
    /// The keys that it names. Verification wants them to be one.
    pub(super) issuers: Vec<KeyHandle>,
}

/// Whether opening takes so long that it counts as a try: one block of bzip2 is a megabyte, however small its packet.
pub(super) fn is_slow(content: &[u8]) -> bool {
    match parser(content) {
        Ok(PacketParserResult::Some(parser)) => {
            matches!(&parser.packet, Packet::CompressedData(data) if data.algo() == CompressionAlgorithm::BZip2)
        }
        _ => false,
    }
}

/// Opens a message.
pub(super) fn open(content: &[u8]) -> Result<Message, Malformed> {
    bounded(content.len())?;
    // Armor and clear-signed text begin with a letter or dash; every packet has the first bit set.
    if content.first().is_none_or(|byte| byte & 0x80 == 0) {
        return Err(Malformed::Envelope);
    }
    let Ok(PacketParserResult::Some(mut first)) = parser(content) else { return Err(Malformed::Envelope) };
    let Packet::CompressedData(_) = first.packet else { return open_packets(content) };
    let mut inflated = Vec::new();
    let limit = u64::try_from(LARGEST_MESSAGE).unwrap_or(u64::MAX);
    match (&mut first).take(limit + 1).read_to_end(&mut inflated) {
        Ok(_) => bounded(inflated.len())?,
        Err(_) => return Err(Malformed::Envelope),
    }
    open_packets(&inflated)
}

fn open_packets(bytes: &[u8]) -> Result<Message, Malformed> {
    let next = parser(bytes).map_err(|_| Malformed::Envelope)?;
    let (Packet::OnePassSig(first), next) = step(next, Tag::OnePassSig)? else { return Err(Malformed::Envelope) };
    let (Packet::Literal(literal), next) = step(next, Tag::Literal)? else { return Err(Malformed::Envelope) };
    let (Packet::Signature(signature), next) = step(next, Tag::Signature)? else { return Err(Malformed::Envelope) };
    let PacketParserResult::EOF(_) = next else { return Err(Malformed::Envelope) };
    let agree = first.last()
        && first.typ() == signature.typ()
        && first.hash_algo() == signature.hash_algo()
        && first.pk_algo() == signature.pk_algo();
    if !agree || signature.typ() != SignatureType::Binary || !matches!(signature.version(), 4 | 6) {
        return Err(Malformed::Envelope);
    }
    let body = literal.body().to_vec();
    if body.len() > LARGEST_PAYLOAD {
        return Err(Malformed::TooLarge { limit: LARGEST_PAYLOAD });
    }
    let mut issuers = signature.get_issuers();
    // GnuPG does not look at the first packet's issuer; where it names another key than the signature, one of them lies.
    // A signature without any names no key, whatever the first packet says.
    if !issuers.is_empty() {
        issuers.push(first.issuer());
    }
    Ok(Message { signature, body, issuers })
}

/// Reads one packet, which must be of this kind. Another one is not even read to its end: it could be a bomb.
fn step(next: PacketParserResult<'_>, expected: Tag) -> Result<(Packet, PacketParserResult<'_>), Malformed> {
    match next {
        PacketParserResult::Some(packet) if packet.packet.tag() == expected => {
            packet.next().map_err(|_| Malformed::Envelope)
        }
        _ => Err(Malformed::Envelope),
    }
}

fn bounded(length: usize) -> Result<(), Malformed> {
    if length > LARGEST_MESSAGE { Err(Malformed::TooLarge { limit: LARGEST_MESSAGE }) } else { Ok(()) }
}

fn parser(bytes: &[u8]) -> sequoia_openpgp::Result<PacketParserResult<'_>> {
    PacketParserBuilder::from_bytes(bytes)?
        .dearmor(Dearmor::Disabled)
        .max_recursion_depth(0)
        .max_packet_size(u32::try_from(LARGEST_MESSAGE).unwrap_or(u32::MAX))
        .automatic_hashing(false)
        .buffer_unread_content()
        .build()
}
