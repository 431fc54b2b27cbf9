//! Key packets, read as far as it takes to say whether signatures by the key can be checked. What sequoia does not parse has a
//! name here, too.

use sequoia_openpgp::{
    crypto::hash::Context,
    types::{Curve, HashAlgorithm, PublicKeyAlgorithm},
};

use crate::signature::{
    certificate::Fingerprint,
    certificate_error::{CertificateError, Unsupported, UnusableKey},
};

/// The fields of a key packet (RFC 9580, section 5.5.2; of version 3, RFC 4880).
pub(super) struct RawKey {
    /// Its fingerprint; of version 3, its key ID. `None` if its version is not known.
    pub(super) key: Option<Fingerprint>,
    /// Why its signatures can't be checked.
    pub(super) unsupported: Option<Unsupported>,
    is_for_signing: bool,
}

impl RawKey {
    /// Reads a public key packet. Of a secret one, the name is wrong.
    pub(super) fn of(body: &[u8]) -> Result<Self, CertificateError> {
        Self::parse(body).ok_or_else(|| CertificateError::Malformed("a key is cut off".into()))
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let version = *body.first()?;
        let (algorithm, material) = match version {
            2 | 3 => (*body.get(7)?, body.get(8..)?),
            4 => (*body.get(5)?, body.get(6..)?),
            5 | 6 => (*body.get(5)?, body.get(10..)?),
            _ => {
                let unsupported = Some(Unsupported::Version(version));
                return Some(Self { key: None, unsupported, is_for_signing: true });
            }
        };
        let length = u32::try_from(body.len()).ok()?.to_be_bytes();
        let key = match version {
            2 | 3 => version_3_key_id(material),
            4 => hashed(HashAlgorithm::SHA1, &[&[0x99], &length[2..], body]),
            5 => hashed(HashAlgorithm::SHA256, &[&[0x9a], &length, body]),
            _ => hashed(HashAlgorithm::SHA256, &[&[0x9b], &length, body]),
        };
        let unsupported = match version {
            4 | 6 => unsupported(algorithm, material),
            _ => Some(Unsupported::Version(version)),
        };
        // Those that encrypt, and only that.
        let is_for_signing = !matches!(algorithm, 2 | 16 | 18 | 20 | 21 | 25 | 26 | 29 | 35 | 36);
        Some(Self { key, unsupported, is_for_signing })
    }

    /// The key, if it is made for signatures and they can't be checked.
    pub(super) fn unusable_signer(self) -> Option<UnusableKey> {
        let Self { key, unsupported, is_for_signing } = self;
        unsupported.filter(|_| is_for_signing).map(|why| UnusableKey { key, why })
    }
}

fn unsupported(algorithm: u8, material: &[u8]) -> Option<Unsupported> {
    const SECP256K1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x0a];
    const ED448: &[u8] = &[0x2b, 0x65, 0x71];
    const X448: &[u8] = &[0x2b, 0x65, 0x6f];
    if !PublicKeyAlgorithm::from(algorithm).is_supported() {
        return Some(Unsupported::Algorithm(algorithm_name(algorithm)));
    }
    // ECDH, ECDSA and EdDSA name a curve (RFC 9580, section 9.2).
    if !matches!(algorithm, 18 | 19 | 22) {
        return None;
    }
    let (&length, rest) = material.split_first()?;
    let oid = rest.get(..usize::from(length))?;
    let curve = Curve::from_oid(oid);
    if curve.is_supported() {
        return None;
    }
    Some(Unsupported::Curve(match oid {
        SECP256K1 => "secp256k1".into(),
        ED448 => "Ed448".into(),
        X448 => "X448".into(),
        _ => match curve {
            Curve::Unknown(oid) => oid.iter().fold("OID ".to_owned(), |text, byte| format!("{text}{byte:02x}")).into(),
            known => known.to_string().into(),
        },
    }))
}

/// The name of an algorithm (RFC 9580, section 9.1, and draft-ietf-openpgp-pqc), with its number.
fn algorithm_name(number: u8) -> Box<str> {
    let name = match number {
        1..=3 => "RSA",
        17 => "DSA",
        19 => "ECDSA",
        22 => "EdDSA",
        27 => "Ed25519",
        28 => "Ed448",
        30 => "ML-DSA-65+Ed25519",
        31 => "ML-DSA-87+Ed448",
        32 => "SLH-DSA-SHAKE-128s",
        33 => "SLH-DSA-SHAKE-128f",
        34 => "SLH-DSA-SHAKE-256s",
        _ => return format!("{number}").into(),
    };
    format!("{name} ({number})").into()
}

/// The low 64 bits of the RSA modulus, which has its length in bits in front.
fn version_3_key_id(material: &[u8]) -> Option<Fingerprint> {
    let (length, rest) = material.split_first_chunk::<2>()?;
    let modulus = rest.get(..usize::from(u16::from_be_bytes(*length)).div_ceil(8))?;
    let id = modulus.last_chunk::<8>()?;
    Some(hex(id))
}

pub(super) fn hashed(algorithm: HashAlgorithm, parts: &[&[u8]]) -> Option<Fingerprint> {
    let mut hash: Context = algorithm.context().ok()?.for_digest();
    for part in parts {
        hash.update(part);
    }
    hash.into_digest().ok().map(|digest| hex(&digest))
}

fn hex(bytes: &[u8]) -> Fingerprint {
    Fingerprint(bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02X}")).into())
}
