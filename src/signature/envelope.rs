//! The OpenPGP message around a payload: opened, bounded, and held to the shapes that signers make.
//!
//! `one-pass signature, literal data, signature`, or `signature, literal data`, which PGP made, or either in one compressed
//! packet, which is what GnuPG makes. As with containers/image: one signer, nothing armored, detached or clear-signed; what
//! follows the compressed packet is no part of the message, and what follows an uncompressed message spoils it.
//!
//! Headers are read by [`super::framing`]; sequoia gets one-pass signatures and signatures alone. The payload is cut out of
//! its packet here, so that what is verified and what is read are one slice.

use std::{borrow::Cow, io::Read};

use flate2::bufread::{DeflateDecoder, ZlibDecoder};
use sequoia_openpgp::{
    KeyHandle, Packet,
    packet::{OnePassSig, Signature, Tag},
    parse::PacketParserResult,
    types::{CompressionAlgorithm, SignatureType},
};

use super::{
    Disagreement, Fingerprint, Malformed,
    framing::{RawPacket, first_packet, parser},
    payload::MAX_PAYLOAD_BYTES,
};
use crate::text;

/// The largest message, in bytes, before and after it is inflated: a payload, a signature by the largest key, and notations.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// The multiple of its own size to which a message may inflate at a first look. Real ones have less than three times: a
/// signature and a digest are random bytes.
pub(crate) const USUAL_RATIO: usize = 8;

/// A message of the one shape. Nothing in it is verified.
pub(crate) struct Message {
    /// The signature.
    pub(crate) signature: Signature,
    /// The payload: the very bytes that were signed, with CR LF at each end of a line where it is a text
    /// signature.
    pub(crate) body: Vec<u8>,
    /// The keys that it names. Verification wants them to be one.
    pub(crate) issuers: Vec<KeyHandle>,
}

/// The result of a first look, whose cost is in proportion to the bytes received.
pub(crate) enum Peek {
    /// All of it.
    Message(Box<Message>),
    /// Opening it takes longer. Where that much could be seen, with the key that it begins with: a message that is of
    /// another key is of no use.
    Slow(Option<KeyHandle>),
}

/// Opens a message, if that costs little. `inflated` counts the bytes that came out of compressed ones.
pub(crate) fn peek(content: &[u8], inflated: &mut usize) -> Result<Peek, Malformed> {
    let (algorithm, compressed) = match unpack(content)? {
        Packed::Not => return open_packets(content).map(Box::new).map(Peek::Message),
        Packed::Compressed(algorithm, compressed) => (algorithm, compressed),
    };
    // One block of bzip2 is a megabyte, however small its packet.
    if algorithm == CompressionAlgorithm::BZip2 {
        return Ok(Peek::Slow(None));
    }
    let limit = USUAL_RATIO.saturating_mul(content.len()).min(MAX_MESSAGE_BYTES);
    let bytes = inflate(algorithm, &compressed, limit, inflated)?;
    if bytes.len() <= limit {
        return open_packets(&bytes).map(Box::new).map(Peek::Message);
    }
    if limit == MAX_MESSAGE_BYTES {
        return Err(Malformed::TooLarge { limit });
    }
    // Both kinds of message begin with the key that they are of.
    let (first, _) = first_packet(&bytes).ok_or(Malformed::Envelope)?;
    let issuer = match first.parsed().ok_or(Malformed::Envelope)? {
        Packet::OnePassSig(first) => Some(first.issuer().clone()),
        Packet::Signature(first) => first.get_issuers().into_iter().next(),
        _ => None,
    };
    issuer.map(|issuer| Peek::Slow(Some(issuer))).ok_or(Malformed::Envelope)
}

/// Opens a message, whatever that costs within its bounds.
pub(crate) fn open(content: &[u8], inflated: &mut usize) -> Result<Message, Malformed> {
    match unpack(content)? {
        Packed::Not => open_packets(content),
        Packed::Compressed(algorithm, compressed) => {
            let bytes = inflate(algorithm, &compressed, MAX_MESSAGE_BYTES, inflated)?;
            bounded(bytes.len())?;
            open_packets(&bytes)
        }
    }
}

/// The outermost packet.
enum Packed<'a> {
    /// It is not compressed.
    Not,
    /// The algorithm, and the compressed content.
    Compressed(CompressionAlgorithm, Cow<'a, [u8]>),
}

/// Takes the outermost packet apart (RFC 9580, section 5.6), without inflating it: sequoia's reader inflates at least 64 KiB at
/// once, however little is asked for.
fn unpack(content: &[u8]) -> Result<Packed<'_>, Malformed> {
    bounded(content.len())?;
    if let Some(why) = not_binary(content) {
        return Err(why);
    }
    let (packet, _) = first_packet(content).ok_or(Malformed::Envelope)?;
    if packet.tag != Tag::CompressedData {
        return Ok(Packed::Not);
    }
    let &algorithm = packet.body.first().ok_or(Malformed::Envelope)?;
    let compressed = match packet.body {
        Cow::Borrowed(body) => Cow::Borrowed(&body[1..]),
        Cow::Owned(mut body) => {
            body.remove(0);
            Cow::Owned(body)
        }
    };
    Ok(Packed::Compressed(algorithm.into(), compressed))
}

/// Returns what the bytes are, if they don't begin with a packet.
fn not_binary(content: &[u8]) -> Option<Malformed> {
    const ARMOR: &[u8] = b"-----BEGIN PGP ";
    const CLEAR: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";
    if content.is_empty() {
        return Some(Malformed::Empty);
    }
    if text::is_utf16(content) {
        return Some(Malformed::Utf16);
    }
    let (is_marked, text) = match content.strip_prefix(text::BYTE_ORDER_MARK) {
        Some(text) => (true, text),
        None => (false, content),
    };
    if !is_marked && content[0] & 0x80 != 0 {
        return None;
    }
    let text = text.trim_ascii_start();
    Some(match text {
        [] => Malformed::Empty,
        text if text.starts_with(CLEAR) => Malformed::ClearSigned,
        text if text.starts_with(ARMOR) => Malformed::Armored,
        _ => Malformed::NoPacket,
    })
}

/// Inflates at most one byte more than `limit`.
fn inflate(
    algorithm: CompressionAlgorithm,
    compressed: &[u8],
    limit: usize,
    inflated: &mut usize,
) -> Result<Vec<u8>, Malformed> {
    let bytes = match algorithm {
        CompressionAlgorithm::Uncompressed => read(compressed, limit),
        CompressionAlgorithm::Zip => read(DeflateDecoder::new(compressed), limit),
        CompressionAlgorithm::Zlib => read(ZlibDecoder::new(compressed), limit),
        CompressionAlgorithm::BZip2 => {
            let body = [&[algorithm.into()], compressed].concat();
            let packet = RawPacket { tag: Tag::CompressedData, body: body.into() };
            let packet = packet.reframed().ok_or(Malformed::Envelope)?;
            match parser(&packet) {
                Ok(PacketParserResult::Some(mut parser)) => read(&mut parser, limit),
                _ => return Err(Malformed::Envelope),
            }
        }
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
    let next = |rest| first_packet(rest).ok_or(Malformed::Envelope);
    let (first, rest) = next(bytes)?;
    // A packet of another kind is not looked into: it could be a bomb.
    let (one_pass, literal, signature, rest) = match first.tag {
        Tag::OnePassSig => {
            let (literal, rest) = next(rest)?;
            let (signature, rest) = next(rest)?;
            (Some(first), literal, signature, rest)
        }
        Tag::Signature if rest.is_empty() => return Err(Malformed::Detached),
        Tag::Signature => {
            let (literal, rest) = next(rest)?;
            (None, literal, first, rest)
        }
        _ => return Err(Malformed::Envelope),
    };
    if literal.tag != Tag::Literal || signature.tag != Tag::Signature || !rest.is_empty() {
        return Err(Malformed::Envelope);
    }
    let Some(Packet::Signature(signature)) = signature.parsed() else { return Err(Malformed::Envelope) };
    if !matches!(signature.version(), 3 | 4 | 6) {
        return Err(Malformed::Envelope);
    }
    let mut issuers = signature.get_issuers();
    if let Some(one_pass) = one_pass {
        let Some(Packet::OnePassSig(first)) = one_pass.parsed() else { return Err(Malformed::Envelope) };
        if !first.last() {
            return Err(Malformed::Envelope);
        }
        if let Some(what) = disagreement(&first, &signature, &issuers) {
            return Err(Malformed::Disagreement(what));
        }
        // A signature without any names no key, whatever the first packet says.
        if !issuers.is_empty() {
            issuers.push(first.issuer());
        }
    }
    let data = literal_data(&literal.body).ok_or(Malformed::Envelope)?;
    match signature.typ() {
        SignatureType::Binary => {}
        SignatureType::Text if is_canonical_text(data) => {}
        SignatureType::Text => return Err(Malformed::LineEnd),
        _ => return Err(Malformed::Envelope),
    }
    let body = data.to_vec();
    if body.len() > MAX_PAYLOAD_BYTES {
        return Err(Malformed::TooLarge { limit: MAX_PAYLOAD_BYTES });
    }
    Ok(Message { signature, body, issuers })
}

/// Returns in what the packets around a payload disagree. GnuPG looks at the hash algorithm alone; where they name different
/// keys, one of them lies.
fn disagreement(first: &OnePassSig, signature: &Signature, issuers: &[KeyHandle]) -> Option<Disagreement> {
    if first.typ() != signature.typ() {
        return Some(Disagreement::Type);
    }
    if first.hash_algo() != signature.hash_algo() {
        return Some(Disagreement::Hash);
    }
    if first.pk_algo() != signature.pk_algo() {
        return Some(Disagreement::PublicKey);
    }
    let key = first.issuer();
    let is_another = issuers.iter().any(|issuer| !issuer.aliases(&key));
    is_another.then(|| Disagreement::Key(Fingerprint::of(&key)))
}

/// Returns what a literal packet holds, behind its format, file name and time, which nothing signs (RFC 9580, section 5.9).
fn literal_data(body: &[u8]) -> Option<&[u8]> {
    let (&[_format, name], rest) = body.split_first_chunk::<2>()?;
    rest.get(usize::from(name) + 4..)
}

/// Returns whether each line of a text ends in CR LF, as a text signature requires (RFC 9580, section 5.9). GnuPG hashes
/// a text as it stands, the library with CR LF in place of a single LF: over any other text the two disagree.
fn is_canonical_text(text: &[u8]) -> bool {
    let mut before = None;
    for &byte in text {
        if (before == Some(b'\r')) != (byte == b'\n') {
            return false;
        }
        before = Some(byte);
    }
    before != Some(b'\r')
}

fn bounded(length: usize) -> Result<(), Malformed> {
    if length > MAX_MESSAGE_BYTES { Err(Malformed::TooLarge { limit: MAX_MESSAGE_BYTES }) } else { Ok(()) }
}
