//! The framing of OpenPGP packets (RFC 9580, section 4.2): old and new headers, and bodies that come in parts.
//!
//! sequoia refuses a first part below 512 bytes, as the specification has it. Go's openpgp library writes such parts, and
//! GnuPG reads them. So headers are read here, and sequoia gets each packet as one part. What is verified is therefore the
//! body that is returned here, and nothing else.

use std::borrow::Cow;

use sequoia_openpgp::{
    Packet,
    packet::Tag,
    parse::{Dearmor, PacketParser, PacketParserBuilder, PacketParserResult, Parse as _},
};

/// The largest packet that sequoia is given, in bytes.
const MAX_PACKET_BYTES: u32 = 64 << 10;

/// A packet, with its parts put together.
pub(crate) struct RawPacket<'a> {
    pub(crate) tag: Tag,
    pub(crate) body: Cow<'a, [u8]>,
}

impl RawPacket<'_> {
    /// Parses the packet alone. Returns `None` if it is not one packet of that length.
    pub(crate) fn parsed(&self) -> Option<Packet> {
        let bytes = self.reframed()?;
        let PacketParserResult::Some(parser) = parser(&bytes).ok()? else { return None };
        match PacketParser::next(parser) {
            Ok((packet, PacketParserResult::EOF(_))) => Some(packet),
            _ => None,
        }
    }

    /// Returns the packet with a new header and one length of four octets.
    pub(crate) fn reframed(&self) -> Option<Vec<u8>> {
        let length = u32::try_from(self.body.len()).ok()?;
        let mut bytes = Vec::with_capacity(self.body.len() + 6);
        bytes.extend([0xc0 | u8::from(self.tag), 0xff]);
        bytes.extend(length.to_be_bytes());
        bytes.extend_from_slice(&self.body);
        Some(bytes)
    }
}

/// Parses without looking for armor, into packets that contain others, or beyond [`MAX_PACKET_BYTES`].
pub(crate) fn parser(bytes: &[u8]) -> sequoia_openpgp::Result<PacketParserResult<'_>> {
    PacketParserBuilder::from_bytes(bytes)?
        .dearmor(Dearmor::Disabled)
        .max_recursion_depth(0)
        .max_packet_size(MAX_PACKET_BYTES)
        .automatic_hashing(false)
        .buffer_unread_content()
        .build()
}

/// Reads the first packet, and returns it with the bytes behind it. Returns `None` if there is no packet, or not all of it.
pub(crate) fn first_packet(bytes: &[u8]) -> Option<(RawPacket<'_>, &[u8])> {
    // Every packet has the first bit set. Armor and text begin with a letter or dash.
    let (&first, rest) = bytes.split_first().filter(|(first, _)| *first & 0x80 != 0)?;
    let is_old = first & 0x40 == 0;
    let tag = Tag::from(if is_old { (first >> 2) & 0xf } else { first & 0x3f });
    // Only these may come in parts, or have no length (RFC 9580, section 4.2.1.4).
    let is_data = matches!(tag, Tag::Literal | Tag::CompressedData);
    let (body, rest) = if is_old { old_body(first & 3, rest, is_data)? } else { new_body(rest, is_data)? };
    Some((RawPacket { tag, body }, rest))
}

/// Reads the body behind an old header, whose length has 1, 2 or 4 octets, or goes to the end.
fn old_body(kind: u8, rest: &[u8], is_data: bool) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let size = match kind {
        0 => 1,
        1 => 2,
        2 => 4,
        _ => return is_data.then_some((rest.into(), &[])),
    };
    let (length, rest) = rest.split_at_checked(size)?;
    let (body, rest) = rest.split_at_checked(number(length)?)?;
    Some((body.into(), rest))
}

/// Reads the body behind a new header. It may come in parts, each with its length.
fn new_body(mut rest: &[u8], is_data: bool) -> Option<(Cow<'_, [u8]>, &[u8])> {
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
        if !is_last && !is_data {
            return None;
        }
        let (part, after) = after.split_at_checked(length)?;
        match (&mut parts, is_last) {
            (None, true) => return Some((part.into(), after)),
            (None, false) => parts = Some(part.to_vec()),
            (Some(parts), _) => parts.extend_from_slice(part),
        }
        if is_last {
            return parts.map(|parts| (parts.into(), after));
        }
        rest = after;
    }
}

fn number(bytes: &[u8]) -> Option<usize> {
    bytes.iter().try_fold(0_usize, |number, &byte| number.checked_mul(256)?.checked_add(byte.into()))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    const LITERAL: u8 = 11;
    const SIGNATURE: u8 = 2;

    /// A packet with a new header, its body in parts of these powers of two for as long as they fit, and the rest.
    pub(crate) fn in_parts(tag: u8, mut body: &[u8], powers: impl IntoIterator<Item = u8>) -> Vec<u8> {
        let mut packet = vec![0xc0 | tag];
        for power in powers {
            let Some((part, rest)) = body.split_at_checked(1 << power) else { break };
            packet.push(224 + power);
            packet.extend_from_slice(part);
            body = rest;
        }
        packet.push(0xff);
        packet.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        packet.extend_from_slice(body);
        packet
    }

    /// The body under every kind of header that has a length.
    pub(crate) fn under_every_header(tag: u8, body: &[u8]) -> Vec<Vec<u8>> {
        let length = body.len();
        let mut packets = vec![
            [&[0xc0 | tag, 0xff][..], &u32::try_from(length).unwrap().to_be_bytes(), body].concat(),
            [&[0x80 | tag << 2 | 2][..], &u32::try_from(length).unwrap().to_be_bytes(), body].concat(),
        ];
        if let Ok(length) = u16::try_from(length) {
            packets.push([&[0x80 | tag << 2 | 1][..], &length.to_be_bytes(), body].concat());
        }
        if let Ok(length) = u8::try_from(length) {
            packets.push([&[0x80 | tag << 2, length][..], body].concat());
        }
        match u16::try_from(length) {
            Ok(length @ 0..192) => packets.push([&[0xc0 | tag, length.to_be_bytes()[1]][..], body].concat()),
            Ok(length @ 192..8384) => {
                let [high, low] = (length - 192).to_be_bytes();
                packets.push([&[0xc0 | tag, high + 192, low][..], body].concat());
            }
            _ => {}
        }
        packets
    }

    fn read(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
        first_packet(bytes).map(|(packet, rest)| (packet.tag.into(), packet.body.into_owned(), rest.len()))
    }

    #[test]
    fn every_kind_of_header_is_read() {
        for length in [0, 1, 191, 192, 255, 256, 8383, 8384, 20_000] {
            let body = vec![7; length];
            for packet in under_every_header(SIGNATURE, &body) {
                let followed = [&packet[..], b"behind"].concat();
                assert_eq!(read(&followed), Some((SIGNATURE, body.clone(), 6)), "{length}");
                assert!(read(&packet[..packet.len() - 1]).is_none(), "{length}");
            }
        }
    }

    #[test]
    fn only_data_comes_in_parts_or_without_a_length() {
        for (tag, is_data) in [(8, true), (LITERAL, true), (SIGNATURE, false), (4, false), (6, false)] {
            assert_eq!(read(&in_parts(tag, b"body", [1])).is_some(), is_data, "{tag}");
            assert_eq!(read(&[&[0x83 | tag << 2][..], b"body"].concat()).is_some(), is_data, "{tag}");
        }
    }

    #[test]
    fn what_has_no_first_bit_is_no_packet() {
        for bytes in [&b""[..], b"-----BEGIN PGP MESSAGE-----", &[0x23, 1], &[0]] {
            assert!(read(bytes).is_none());
        }
    }

    proptest! {
        #[test]
        fn a_body_in_parts_is_the_same_body(
            body in proptest::collection::vec(any::<u8>(), 0..2000),
            powers in proptest::collection::vec(0_u8..9, 0..40),
        ) {
            let packet = in_parts(LITERAL, &body, powers);
            prop_assert_eq!(read(&packet), Some((LITERAL, body.clone(), 0)));
            let (raw, _) = first_packet(&packet).unwrap();
            prop_assert_eq!(read(&raw.reframed().unwrap()), Some((LITERAL, body, 0)));
            for end in 0..packet.len() {
                prop_assert!(read(&packet[..end]).is_none());
            }
        }
    }
}
