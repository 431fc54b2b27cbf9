//! Key files: certificates, armored or binary, and what GnuPG puts beside them.

mod raw_key;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    io::Read as _,
};

use sequoia_openpgp::{
    Cert, KeyHandle, Packet,
    armor::{Reader, ReaderMode},
    cert::CertParser,
    packet::{Signature, Tag},
    parse::Parse as _,
    types::SignatureType,
};

use self::raw_key::RawKey;
use super::{
    certificate::{Certificate, Fingerprint},
    certificate_error::{CertificateError, MAX_NOTICES, UnusableKey},
    framing::{RawPacket, first_packet},
};
use crate::text::is_utf16;

/// The largest keyring that is read, in bytes. Debian's, with all its developers, has about half of that.
pub const MAX_KEYRING_BYTES: usize = 16 << 20;

const ARMOR_BEGIN: &[u8] = b"-----BEGIN PGP ";

/// Something in key files that is passed over, and that those who keep the policy should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyNotice {
    /// A key beside good ones.
    Unusable(UnusableKey),
    /// A revocation certificate that revokes none of the keys, with the key that it names.
    Revocation(Option<Fingerprint>),
}

/// The certificates of key files, as if they had been imported into one keyring, one after the other: of one key, all that
/// every file says holds, a revocation above all.
#[derive(Debug, Default)]
pub struct Keyring {
    certificates: Vec<Cert>,
    /// By fingerprint.
    places: HashMap<Vec<u8>, usize>,
    /// Certificates that have, in some file, subkeys whose signatures can't be checked.
    doubtful: HashSet<usize>,
    revocations: Vec<StrayRevocation>,
    unusable: Vec<UnusableKey>,
}

/// A revocation of a key that may stand elsewhere, in front of it or behind.
#[derive(Debug)]
struct StrayRevocation {
    signature: Signature,
    /// True if it stands by itself. Else it is a part of another certificate, and may be that of an appointed revoker.
    is_alone: bool,
}

/// The certificates of key files, and notices about the keys in them that are ignored.
#[derive(Clone, Debug)]
pub struct Keys {
    /// At least one.
    pub certificates: Vec<Certificate>,
    /// Notices about the keys that are ignored.
    pub notices: Vec<KeyNotice>,
}

impl Certificate {
    /// Reads every certificate of a key file, and passes over what [`Keyring`] gives notice of.
    ///
    /// # Errors
    /// Those of [`Keyring::read`].
    pub fn parse_keyring(bytes: &[u8]) -> Result<Vec<Self>, CertificateError> {
        Ok(Keyring::read(bytes)?.certificates)
    }
}

impl Keyring {
    /// Reads one file.
    ///
    /// # Errors
    /// Those of [`Keyring::add`] and [`Keyring::finish`].
    pub fn read(bytes: &[u8]) -> Result<Keys, CertificateError> {
        let mut keyring = Self::default();
        keyring.add(bytes)?;
        keyring.finish()
    }

    /// Adds a file: binary, or any number of armored blocks with other text around them.
    ///
    /// # Errors
    /// Anything in it is unreadable, or private, or nothing is there: half a keyring is none.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), CertificateError> {
        if bytes.len() > MAX_KEYRING_BYTES {
            return Err(CertificateError::TooLarge { found: bytes.len(), limit: MAX_KEYRING_BYTES });
        }
        if is_utf16(bytes) {
            return Err(CertificateError::Utf16);
        }
        for block in blocks(bytes)? {
            match block {
                Block::Binary(bytes) => self.add_packets(bytes)?,
                Block::Armored(text) => {
                    let mut bytes = Vec::new();
                    let mut reader = Reader::from_bytes(text, ReaderMode::Tolerant(None));
                    reader.read_to_end(&mut bytes).map_err(|error| malformed(&error))?;
                    self.add_packets(&bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Ends the import.
    ///
    /// # Errors
    /// There is no certificate, or none that can be used.
    pub fn finish(self) -> Result<Keys, CertificateError> {
        let Self { certificates, places: _, doubtful, revocations, unusable } = self;
        // Only now: what one file says of a key, a revocation above all, holds for that key in all others, too.
        let usable = certificates.into_iter().enumerate();
        let usable = usable.filter(|(place, certificate)| !doubtful.contains(place) || may_sign(certificate));
        let mut certificates: Vec<Cert> = usable.map(|(_, certificate)| certificate).collect();
        if certificates.is_empty() {
            return Err(match (unusable.is_empty(), revocations.is_empty()) {
                (false, _) => CertificateError::Unusable(unusable),
                (true, false) => CertificateError::OnlyRevocations,
                (true, true) => CertificateError::Empty,
            });
        }
        let mut by_key_id: HashMap<_, Vec<usize>> = HashMap::new();
        for (place, certificate) in certificates.iter().enumerate() {
            by_key_id.entry(certificate.keyid()).or_default().push(place);
        }
        let mut notices: Vec<KeyNotice> = unusable.into_iter().map(KeyNotice::Unusable).collect();
        for StrayRevocation { signature: revocation, is_alone } in revocations {
            let mut issuers = revocation.get_issuers();
            issuers.dedup_by_key(|issuer| sequoia_openpgp::KeyID::from(issuer.clone()));
            let mut has_revoked = false;
            for issuer in issuers {
                for &place in by_key_id.get(&issuer.into()).into_iter().flatten() {
                    let key = certificates[place].primary_key().key().clone();
                    // The word of another key is not believed.
                    if revocation.verify_primary_key_revocation(&key, &key).is_err() {
                        continue;
                    }
                    has_revoked = true;
                    // One is enough; each more would cost a copy of all before it.
                    if certificates[place].primary_key().self_revocations().next().is_none() {
                        let revoked = certificates[place].clone().insert_packets(Packet::from(revocation.clone()));
                        certificates[place] = revoked.map_err(|error| malformed(&error))?.0;
                    }
                }
            }
            if is_alone && !has_revoked {
                notices.push(KeyNotice::Revocation(revocation.get_issuers().first().map(Fingerprint::of)));
            }
        }
        Ok(Keys { certificates: certificates.into_iter().map(Certificate::of).collect(), notices })
    }

    /// Adds what is in a binary block: certificates, and revocations that stand by themselves.
    fn add_packets(&mut self, bytes: &[u8]) -> Result<(), CertificateError> {
        let malformed = |why: &str| CertificateError::Malformed(why.to_owned());
        let broken = || malformed("a packet is cut off, or has no valid header");
        let alone = || malformed("a packet stands in front of the first key that is no revocation certificate");
        let mut current: Option<RawCertificate> = None;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (packet, behind) = first_packet(rest).ok_or_else(broken)?;
            let raw = &rest[..rest.len() - behind.len()];
            rest = behind;
            match packet.tag {
                Tag::PublicKey | Tag::SecretKey => {
                    if let Some(whole) = current.replace(RawCertificate::new(&packet, raw)?) {
                        self.add_certificate(whole)?;
                    }
                }
                // They say nothing (RFC 9580, sections 5.8 and 5.14).
                Tag::Marker | Tag::Padding => {}
                _ => {
                    let Some(certificate) = &mut current else {
                        let signature = key_revocation(&packet).ok_or_else(alone)?;
                        self.revocations.push(StrayRevocation { signature, is_alone: true });
                        continue;
                    };
                    let stray = certificate.add(&packet, raw)?;
                    self.revocations.extend(stray.map(|signature| StrayRevocation { signature, is_alone: false }));
                }
            }
            let in_certificate = current.as_ref().map_or(0, |certificate| certificate.unsupported_subkeys.len());
            if self.unusable.len() + in_certificate > MAX_NOTICES || self.revocations.len() > MAX_NOTICES {
                return Err(CertificateError::TooManyNotices);
            }
        }
        match current {
            Some(whole) => self.add_certificate(whole),
            None => Ok(()),
        }
    }

    fn add_certificate(&mut self, raw: RawCertificate) -> Result<(), CertificateError> {
        let RawCertificate { is_secret, key, bytes, unsupported_subkeys } = raw;
        if let Some(why) = key.unsupported {
            if is_secret {
                return Err(CertificateError::PrivateUnusable(why));
            }
            self.unusable.push(UnusableKey { key: key.key, why });
            return Ok(());
        }
        for certificate in CertParser::from_bytes(&bytes).map_err(|error| malformed(&error))? {
            let certificate = certificate.map_err(|error| malformed(&error))?;
            if certificate.is_tsk() || is_secret {
                return Err(CertificateError::Private(Fingerprint::of(&certificate.key_handle())));
            }
            let fingerprint = certificate.fingerprint().as_bytes().to_vec();
            let place = if let Some(&place) = self.places.get(&fingerprint) {
                let merged = self.certificates[place].clone().merge_public(certificate);
                self.certificates[place] = merged.map_err(|error| malformed(&error))?;
                place
            } else {
                let place = self.certificates.len();
                self.places.insert(fingerprint, place);
                self.certificates.push(certificate);
                place
            };
            if !unsupported_subkeys.is_empty() {
                self.doubtful.insert(place);
                self.unusable.extend(unsupported_subkeys.iter().cloned());
            }
        }
        Ok(())
    }
}

/// A certificate's packets.
struct RawCertificate {
    is_secret: bool,
    key: RawKey,
    bytes: Vec<u8>,
    /// Those of its subkeys that sign, and whose signatures can't be checked.
    unsupported_subkeys: Vec<UnusableKey>,
}

impl RawCertificate {
    fn new(primary: &RawPacket<'_>, raw: &[u8]) -> Result<Self, CertificateError> {
        let (is_secret, key) = (primary.tag == Tag::SecretKey, RawKey::of(&primary.body)?);
        Ok(Self { is_secret, key, bytes: raw.to_vec(), unsupported_subkeys: Vec::new() })
    }

    /// Adds a packet behind the primary key. Returns it if it is a revocation of a key in another place, as where two files were
    /// put together.
    fn add(&mut self, packet: &RawPacket<'_>, raw: &[u8]) -> Result<Option<Signature>, CertificateError> {
        if packet.tag == Tag::PublicSubkey {
            self.unsupported_subkeys.extend(RawKey::of(&packet.body)?.unusable_signer());
        }
        self.bytes.extend_from_slice(raw);
        let own = self.key.key.as_ref().filter(|_| self.key.unsupported.is_none());
        let is_own = |issuer: &KeyHandle| own.is_some_and(|own| is_named(own, issuer));
        Ok(key_revocation(packet).filter(|revocation| !revocation.get_issuers().iter().any(is_own)))
    }
}

/// Returns whether this key's fingerprint, or the key ID that is a part of it, is the name (RFC 9580, section 5.5.4).
fn is_named(key: &Fingerprint, name: &KeyHandle) -> bool {
    let name = name.to_hex();
    key.0.ends_with(&name) || key.0.starts_with(&name)
}

/// The signature, if it is a revocation of a whole key.
fn key_revocation(packet: &RawPacket<'_>) -> Option<Signature> {
    match packet.parsed().filter(|_| packet.tag == Tag::Signature)? {
        Packet::Signature(signature) if signature.typ() == SignatureType::KeyRevocation => Some(signature),
        _ => None,
    }
}

/// Returns whether any key of it that can be checked was ever made for signatures.
fn may_sign(certificate: &Cert) -> bool {
    let signs = |signature: &Signature| signature.key_flags().is_none_or(|flags| flags.for_signing());
    let primary = certificate.primary_key().self_signatures().any(signs)
        || certificate.userids().any(|userid| userid.self_signatures().any(signs));
    let subkey = certificate.keys().subkeys().any(|key| {
        key.key().pk_algo().is_supported()
            && key.self_signatures().any(|signature| signature.key_flags().is_some_and(|flags| flags.for_signing()))
    });
    primary || subkey
}

enum Block<'a> {
    Binary(&'a [u8]),
    Armored(&'a [u8]),
}

/// Splits a keyring into binary data or armored blocks, each from its own first line.
fn blocks(bytes: &[u8]) -> Result<Vec<Block<'_>>, CertificateError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(CertificateError::Empty);
    }
    if bytes[0] & 0x80 != 0 && !bytes.starts_with(b"\xef\xbb\xbf") {
        return Ok(vec![Block::Binary(bytes)]);
    }
    let at_line_start = |&start: &usize| {
        let before = bytes[..start].iter().rev().copied().find(|byte| !matches!(byte, b' ' | b'\t'));
        before.is_none_or(|byte| byte == b'\n' || byte == b'\r' || byte == 0xbf)
    };
    let begins = bytes.windows(ARMOR_BEGIN.len()).enumerate().filter(|(_, window)| *window == ARMOR_BEGIN);
    let begins: Vec<usize> = begins.map(|(start, _)| start).collect();
    // What `cat` makes of two files, the first without a line break at its end. No reader sees the second block, be it a
    // revocation.
    if begins.iter().any(|&start| start > 0 && bytes[start - 1] == b'-') {
        let why = "a block begins on the line on which another one ends: a line break is missing between them";
        return Err(CertificateError::Malformed(why.into()));
    }
    let starts: Vec<usize> = begins.into_iter().filter(at_line_start).collect();
    if starts.is_empty() {
        return Err(CertificateError::Malformed("there is no line -----BEGIN PGP PUBLIC KEY BLOCK-----".into()));
    }
    // Text around blocks is passed over; another key or a revocation must not be.
    if bytes.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace()) {
        return Err(CertificateError::Malformed("there is binary data beside an armored block".into()));
    }
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    Ok(starts.iter().zip(ends).map(|(&start, end)| Block::Armored(&bytes[start..end])).collect())
}

fn malformed(error: &impl fmt::Display) -> CertificateError {
    CertificateError::Malformed(format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" "))
}

impl fmt::Display for KeyNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(key) => write!(f, "{key}; it is passed over"),
            Self::Revocation(Some(key)) => {
                write!(f, "a revocation certificate by key {key} revokes no key that stands here; it is passed over")
            }
            Self::Revocation(None) => {
                f.write_str("a revocation certificate that names no key revokes none; it is passed over")
            }
        }
    }
}

#[cfg(test)]
mod tests;
