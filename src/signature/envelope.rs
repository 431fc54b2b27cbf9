//! The OpenPGP message around a payload: opened, bounded, and held to the one shape that signers make.
//!
//! `one-pass signature, literal data, signature`, or the same in one compressed packet, which is what GnuPG makes. As with
//! containers/image: one signer, nothing armored, detached or clear-signed; what follows the compressed packet is no part of
//! the message, and what follows an uncompressed message spoils it.

use std::{borrow::Cow, io::Read};

use flate2::bufread::{DeflateDecoder, ZlibDecoder};
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
/// How many times its own size a message may inflate to at a first look. Real ones have less than three times: a signature
/// and a digest are random bytes.
pub(super) const USUAL_RATIO: usize = 8;

/// A message of the one shape. Nothing in it is verified.
pub(super) struct Message {
    /// The signature.
    pub(super) signature: Signature,
    /// What it is about, the payload.
    pub(super) body: Vec<u8>,
    /// The keys that it names. Verification wants them to be one.
    pub(super) issuers: Vec<KeyHandle>,
}

/// What a first look tells, which costs no more than in proportion to what was received.
pub(super) enum Glance {
    /// All of it.
    Message(Box<Message>),
    /// Opening it takes longer. Where that much could be seen, with the key that it begins with: a message that is of
    /// another key is of no use.
    Slow(Option<KeyHandle>),
}

/// Opens a message, if that costs little. `inflated` counts the bytes that came out of compressed ones.
pub(super) fn glance(content: &[u8], inflated: &mut usize) -> Result<Glance, Malformed> {
    let (algorithm, compressed) = match unpack(content)? {
        Packed::Not => return open_packets(content).map(Box::new).map(Glance::Message),
        Packed::Compressed(algorithm, compressed) => (algorithm, compressed),
    };
    // One block of bzip2 is a megabyte, however small its packet.
    if algorithm == CompressionAlgorithm::BZip2 {
        return Ok(Glance::Slow(None));
    }
    let limit = USUAL_RATIO.saturating_mul(content.len()).min(LARGEST_MESSAGE);
    let bytes = inflate(algorithm, content, &compressed, limit, inflated)?;
    if bytes.len() <= limit {
        return open_packets(&bytes).map(Box::new).map(Glance::Message);
    }
    if limit == LARGEST_MESSAGE {
        return Err(Malformed::TooLarge { limit });
    }
    match parser(&bytes) {
        Ok(PacketParserResult::Some(parser)) => match &parser.packet {
            Packet::OnePassSig(first) => Ok(Glance::Slow(Some(first.issuer().clone()))),
            _ => Err(Malformed::Envelope),
        },
        _ => Err(Malformed::Envelope),
    }
}

/// Opens a message, whatever that costs within its bounds.
pub(super) fn open(content: &[u8], inflated: &mut usize) -> Result<Message, Malformed> {
    match unpack(content)? {
        Packed::Not => open_packets(content),
        Packed::Compressed(algorithm, compressed) => {
            let bytes = inflate(algorithm, content, &compressed, LARGEST_MESSAGE, inflated)?;
            bounded(bytes.len())?;
            open_packets(&bytes)
        }
    }
}

/// The outermost packet.
enum Packed<'a> {
    /// It is not compressed.
    Not,
    /// What it contains.
    Compressed(CompressionAlgorithm, Cow<'a, [u8]>),
}

/// Takes the outermost packet apart (RFC 9580, sections 4.2 and 5.6), without inflating it: sequoia's reader inflates at least
/// 64 KiB at once, however little is asked for.
fn unpack(content: &[u8]) -> Result<Packed<'_>, Malformed> {
    bounded(content.len())?;
    // Armor and clear-signed text begin with a letter or dash; every packet has the first bit set.
    let (&first, rest) = content.split_first().filter(|(first, _)| *first & 0x80 != 0).ok_or(Malformed::Envelope)?;
    let is_old = first & 0x40 == 0;
    let tag = if is_old { (first >> 2) & 0xf } else { first & 0x3f };
    if Tag::from(tag) != Tag::CompressedData {
        return Ok(Packed::Not);
    }
    let body = if is_old { old_body(first & 3, rest) } else { new_body(rest) };
    let body = body.ok_or(Malformed::Envelope)?;
    let &algorithm = body.first().ok_or(Malformed::Envelope)?;
    let compressed = match body {
        Cow::Borrowed(body) => Cow::Borrowed(&body[1..]),
        Cow::Owned(mut body) => {
            body.remove(0);
            Cow::Owned(body)
        }
    };
    Ok(Packed::Compressed(algorithm.into(), compressed))
}

/// The body behind an old header, whose length has 1, 2 or 4 bytes, or goes to the end.
fn old_body(kind: u8, rest: &[u8]) -> Option<Cow<'_, [u8]>> {
    let size = match kind {
        0 => 1,
        1 => 2,
        2 => 4,
        _ => return Some(rest.into()),
    };
    let (length, rest) = rest.split_at_checked(size)?;
    rest.get(..number(length)?).map(Cow::from)
}

/// The body behind a new header. It may come in parts, each with its length.
fn new_body(mut rest: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut parts: Option<Vec<u8>> = None;
    loop {
        let (&first, after) = rest.split_first()?;
        let (length, after, is_last) = match first {
            0..192 => (usize::from(first), after, true),
            192..224 => {
                let (&second, after) = after.split_first()?;
                ((usize::from(first) - 192) * 256 + usize::from(second) + 192, after, true)
            }
            224..255 => (1 << (first & 0x1f), after, false),
            255 => {
                let (length, after) = after.split_at_checked(4)?;
                (number(length)?, after, true)
            }
        };
        let (part, after) = after.split_at_checked(length)?;
        match (&mut parts, is_last) {
            (None, true) => return Some(part.into()),
            (None, false) => parts = Some(part.to_vec()),
            (Some(parts), _) => parts.extend_from_slice(part),
        }
        if is_last {
            return parts.map(Cow::from);
        }
        rest = after;
    }
}

fn number(bytes: &[u8]) -> Option<usize> {
    bytes.iter().try_fold(0_usize, |number, &byte| number.checked_mul(256)?.checked_add(byte.into()))
}

/// Inflates at most one byte more than `limit`.
fn inflate(
    algorithm: CompressionAlgorithm,
    content: &[u8],
    compressed: &[u8],
    limit: usize,
    inflated: &mut usize,
) -> Result<Vec<u8>, Malformed> {
    let bytes = match algorithm {
        CompressionAlgorithm::Uncompressed => Ok(compressed.to_vec()),
        CompressionAlgorithm::Zip => read(DeflateDecoder::new(compressed), limit),
        CompressionAlgorithm::Zlib => read(ZlibDecoder::new(compressed), limit),
        CompressionAlgorithm::BZip2 => match parser(content) {
            Ok(PacketParserResult::Some(mut parser)) => read(&mut parser, limit),
            _ => return Err(Malformed::Envelope),
        },
        _ => return Err(Malformed::Envelope),
    };
    let bytes = bytes.map_err(|_| Malformed::Envelope)?;
    *inflated = inflated.saturating_add(bytes.len());
    Ok(bytes)
}

fn read(from: impl Read, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
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
