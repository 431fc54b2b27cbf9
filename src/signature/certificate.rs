//! OpenPGP certificates ("public keys") that a policy trusts.

use std::{fmt, time::SystemTime};

use jiff::Timestamp;
use sequoia_openpgp::{
    Cert, KeyHandle,
    cert::{amalgamation::key::ErasedKeyAmalgamation, prelude::*},
    packet::{Key, key::PublicParts, key::UnspecifiedRole},
    policy::{AsymmetricAlgorithm, HashAlgoSecurity, Policy, StandardPolicy},
    types::{HashAlgorithm, PublicKeyAlgorithm},
};

/// A fingerprint, upper-case hexadecimal digits. Where a signature names only a key ID, these are the 16 digits of it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub Box<str>);

/// A certificate that was read. Whether its keys may sign depends on the time: see [`Certificate::usable`].
#[derive(Clone)]
pub struct Certificate {
    inner: Cert,
}

/// Why a key's signatures don't count, whatever they sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// The certificate or the key is revoked. When and why does not matter: a revoked key's signatures are none.
    #[error("key {key} is revoked")]
    Revoked {
        /// The revoked one.
        key: Fingerprint,
    },
    /// The certificate or the key expired: now, or already when the signature was made.
    #[error("key {key} expired at {at}")]
    Expired {
        /// The expired one.
        key: Fingerprint,
        /// The time of expiry.
        at: Timestamp,
    },
    /// The key is too small, or what binds it to its certificate uses a broken hash.
    #[error("key {key} uses a weak algorithm: {algorithm}")]
    Weak {
        /// The weak one.
        key: Fingerprint,
        /// The weak algorithm.
        algorithm: Box<str>,
    },
    /// Its owner made it for something else than signatures.
    #[error("key {key} is not made for signing")]
    NotForSigning {
        /// That key.
        key: Fingerprint,
    },
    /// No valid self-signature binds it.
    #[error("key {key} has no valid self-signature")]
    Unbound {
        /// That key.
        key: Fingerprint,
    },
    /// The signature is older than the key, or the key is not valid yet.
    #[error("key {key} was made at {created}, after the signature")]
    Younger {
        /// That key.
        key: Fingerprint,
        /// The time at which the key was made.
        created: Timestamp,
    },
}

impl KeyFault {
    /// The key at fault.
    pub fn key(&self) -> &Fingerprint {
        match self {
            Self::Revoked { key }
            | Self::Expired { key, .. }
            | Self::Weak { key, .. }
            | Self::NotForSigning { key }
            | Self::Unbound { key }
            | Self::Younger { key, .. } => key,
        }
    }
}

impl Certificate {
    /// The primary key's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.inner.key_handle())
    }

    /// Checks that any of its keys may sign at `now`. An error says why not.
    pub fn usable(&self, now: Timestamp) -> Result<(), KeyFault> {
        let mut first = None;
        for key in self.inner.keys() {
            match self.check(&key, now, now) {
                Ok(_) => return Ok(()),
                // That an encryption subkey does not sign is no news.
                Err(fault @ (KeyFault::NotForSigning { .. } | KeyFault::Unbound { .. })) if first.is_none() => {
                    first = Some(fault);
                }
                Err(KeyFault::NotForSigning { .. } | KeyFault::Unbound { .. }) => {}
                Err(fault) => match first {
                    None | Some(KeyFault::NotForSigning { .. } | KeyFault::Unbound { .. }) => first = Some(fault),
                    Some(_) => {}
                },
            }
        }
        Err(first.unwrap_or_else(|| KeyFault::Unbound { key: self.fingerprint() }))
    }

    /// Returns the time at which the last of its keys that may sign expires; `None`: never. It may be over already; of a
    /// certificate that can't be used at all (revoked, weak, no signing key), this is `now`.
    pub fn expires_at(&self, now: Timestamp) -> Option<Timestamp> {
        let mut last = None;
        for key in self.inner.keys() {
            let expiry = match self.check(&key, now, now) {
                Ok(None) => return None,
                Ok(Some(expiry)) => expiry,
                Err(KeyFault::Expired { at, .. }) => at,
                Err(_) => continue,
            };
            last = last.max(Some(expiry));
        }
        Some(last.unwrap_or(now))
    }

    /// From a certificate that was read elsewhere: a keyring of GnuPG's, a key file. Secret parts don't get in.
    pub(crate) fn of(certificate: Cert) -> Self {
        Self { inner: certificate.strip_secret_key_material() }
    }

    /// All that it is.
    pub(crate) fn cert(&self) -> &Cert {
        &self.inner
    }

    /// Its keys that may sign at `now`, as a verifier sees it, in the order in which GnuPG prefers them: the newest subkey
    /// first, the primary key last. None: [`Certificate::usable`] says why.
    pub(crate) fn signing_keys(&self, now: Timestamp) -> Vec<Key<PublicParts, UnspecifiedRole>> {
        let mut keys: Vec<_> = self.inner.keys().filter(|key| self.check(key, now, now).is_ok()).collect();
        keys.sort_by_key(|key| (key.primary(), std::cmp::Reverse(key.key().creation_time())));
        keys.into_iter().map(|key| key.key().clone()).collect()
    }

    /// Why the key of this name does not sign at `now`, if it is one of this certificate's.
    pub(crate) fn fault_of(&self, name: &KeyHandle, now: Timestamp) -> Option<KeyFault> {
        let mut keys = self.inner.keys().filter(|key| key.key().key_handle().aliases(name));
        keys.find_map(|key| self.check(&key, now, now).err())
    }

    /// Its keys that a signature with these issuers may be of.
    pub(crate) fn keys_of<'a>(
        &'a self,
        issuers: &'a [KeyHandle],
    ) -> impl Iterator<Item = ErasedKeyAmalgamation<'a, PublicParts>> + 'a {
        self.inner.keys().filter(move |key| {
            let handle = key.key().key_handle();
            // Every issuer must fit: what names two keys is a lie about one of them.
            !issuers.is_empty() && issuers.iter().all(|issuer| issuer.aliases(&handle))
        })
    }

    /// This certificate, with all that another version of it says, revocations above all.
    pub(crate) fn merged(&self, other: &Self) -> Option<Self> {
        self.inner.clone().merge_public(other.inner.clone()).ok().map(|inner| Self { inner })
    }

    /// Checks that signatures made at `signed_at` by this key of the certificate count at `now`. Returns the time until
    /// which they do.
    ///
    /// As containers/image has it (through GnuPG), what counts is the certificate as it is now: revoked is revoked and
    /// expired is expired, whatever time the signature claims, for its maker is free to claim any. Beyond that, where a
    /// self-signature of the signing time is there to tell, the key must have been valid then too. Often none is: GnuPG
    /// replaces the self-signature when an expiry is put off, and then the current one speaks for the key's whole life.
    pub(crate) fn check(
        &self,
        key: &ErasedKeyAmalgamation<'_, PublicParts>,
        signed_at: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, KeyFault> {
        let primary = self.inner.primary_key();
        let fingerprint = Fingerprint::of(&key.key().key_handle());
        let policy = acceptable(now);
        if primary.self_revocations().next().is_some() || self.revoked_by_another(&policy) {
            return Err(KeyFault::Revoked { key: self.fingerprint() });
        }
        if key.self_revocations().next().is_some() {
            return Err(KeyFault::Revoked { key: fingerprint });
        }
        for (key, name) in [(primary.key().role_as_unspecified(), self.fingerprint()), (key.key(), fingerprint.clone())]
        {
            if let Some(algorithm) = weak_key(key) {
                return Err(KeyFault::Weak { key: name, algorithm });
            }
        }
        let Ok(valid) = key.with_policy(&policy, system_time(now)) else {
            let created = timestamp(key.key().creation_time());
            if created > now {
                return Err(KeyFault::Younger { key: fingerprint, created });
            }
            let mut lenient = acceptable(now);
            lenient.accept_hash(HashAlgorithm::SHA1);
            return Err(if key.with_policy(&lenient, system_time(now)).is_ok() {
                KeyFault::Weak { key: fingerprint, algorithm: "SHA-1, in its self-signature".into() }
            } else {
                KeyFault::Unbound { key: fingerprint }
            });
        };
        let whole = valid.valid_cert().primary_key();
        let expiries =
            [(self.fingerprint(), whole.key_expiration_time()), (fingerprint.clone(), valid.key_expiration_time())];
        let last = signed_at.max(now);
        for (name, expiry) in &expiries {
            if let Some(at) = expiry.map(timestamp)
                && at <= last
            {
                return Err(KeyFault::Expired { key: name.clone(), at });
            }
        }
        if !valid.for_signing() {
            return Err(KeyFault::NotForSigning { key: fingerprint });
        }
        for created in [key.key().creation_time(), primary.key().creation_time()].map(timestamp) {
            if created > signed_at {
                return Err(KeyFault::Younger { key: fingerprint, created });
            }
        }
        if let Ok(then) = key.with_policy(&policy, system_time(signed_at)) {
            let whole = then.valid_cert().primary_key();
            for (name, expiry) in
                [(self.fingerprint(), whole.key_expiration_time()), (fingerprint.clone(), then.key_expiration_time())]
            {
                if let Some(at) = expiry.map(timestamp)
                    && at <= signed_at
                {
                    return Err(KeyFault::Expired { key: name, at });
                }
            }
            if !then.for_signing() {
                return Err(KeyFault::NotForSigning { key: fingerprint });
            }
        }
        let bindings = [whole.binding_signature(), valid.binding_signature()];
        let expiries = expiries.into_iter().map(|(_, expiry)| expiry);
        Ok(expiries.chain(bindings.map(|binding| binding.signature_expiration_time())).flatten().map(timestamp).min())
    }

    /// Returns whether one of the revokers that the certificate appoints says that it is revoked. The author of the
    /// keyring put that there, so it is believed without the revoker's own certificate, which need not be at hand.
    fn revoked_by_another(&self, policy: &dyn Policy) -> bool {
        let mut revocations = self.inner.primary_key().other_revocations().peekable();
        if revocations.peek().is_none() {
            return false;
        }
        let revokers: Vec<KeyHandle> =
            self.inner.revocation_keys(policy).map(|revoker| KeyHandle::from(revoker.revoker().1)).collect();
        revocations.any(|revocation| {
            revocation.get_issuers().iter().any(|issuer| revokers.iter().any(|revoker| revoker.aliases(issuer)))
        })
    }
}

/// Returns the policy for sequoia: its standard policy, at our time and not its own, less what broke since.
pub(crate) fn acceptable(now: Timestamp) -> StandardPolicy<'static> {
    let mut policy = StandardPolicy::at(system_time(now));
    for hash in [HashAlgorithm::MD5, HashAlgorithm::SHA1, HashAlgorithm::RipeMD] {
        policy.reject_hash(hash);
    }
    // Whatever the time: by default it would believe them before 2014.
    policy.reject_asymmetric_algo(AsymmetricAlgorithm::RSA1024);
    policy.reject_asymmetric_algo(AsymmetricAlgorithm::DSA1024);
    policy
}

/// Returns the name of a signature's hash if it must not stand in one over a payload, where collisions matter.
pub(crate) fn weak_hash(signature: &sequoia_openpgp::packet::Signature) -> Option<Box<str>> {
    match signature.hash_algo() {
        HashAlgorithm::SHA224
        | HashAlgorithm::SHA256
        | HashAlgorithm::SHA384
        | HashAlgorithm::SHA512
        | HashAlgorithm::SHA3_256
        | HashAlgorithm::SHA3_512 => None,
        HashAlgorithm::MD5 => Some("MD5".into()),
        HashAlgorithm::SHA1 => Some("SHA-1".into()),
        HashAlgorithm::RipeMD => Some("RIPEMD-160".into()),
        other => Some(format!("hash {}", u8::from(other)).into()),
    }
}

/// Returns whether a signature over a payload has no critical part that is not understood.
pub(crate) fn is_understood(signature: &sequoia_openpgp::packet::Signature, now: Timestamp) -> bool {
    acceptable(now).signature(signature, HashAlgoSecurity::CollisionResistance).is_ok()
}

/// RSA and DSA need 2048 bits (NIST SP 800-131A).
fn weak_key(key: &Key<PublicParts, UnspecifiedRole>) -> Option<Box<str>> {
    let bits = key.mpis().bits()?;
    #[allow(deprecated)] // Keys of these kinds still sign.
    let family = match key.pk_algo() {
        PublicKeyAlgorithm::RSAEncryptSign | PublicKeyAlgorithm::RSASign | PublicKeyAlgorithm::RSAEncrypt => "RSA",
        PublicKeyAlgorithm::DSA => "DSA",
        _ => return None,
    };
    (bits < 2048).then(|| format!("{family} with {bits} bits").into())
}

/// The time as sequoia takes it. Where there is none, one at which no key was valid.
pub(crate) fn system_time(time: Timestamp) -> SystemTime {
    SystemTime::try_from(time).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// OpenPGP times, which end in 2242, fit.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

impl Fingerprint {
    pub(crate) fn of(handle: &KeyHandle) -> Self {
        Self(handle.to_hex().into())
    }

    /// Returns its first and last digits, for denials. Whole ones are in logs and in `sealgate verify`.
    pub fn short(&self) -> String {
        let digits = &*self.0;
        match (digits.get(..8), digits.get(digits.len().saturating_sub(8)..)) {
            (Some(first), Some(last)) if digits.len() > 16 => format!("0x{first}…{last}"),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signature::{
        CertificateError,
        keyring::MAX_KEYRING_BYTES,
        testing::{self, Key, armored, at},
    };

    const NOW: &str = "2026-06-01T00:00:00Z";

    #[test]
    fn armored_and_binary_keyrings_are_read_whole() {
        let (one, two) = (Key::new("one"), Key::new("two"));
        let both = [one.fingerprint(), two.fingerprint()];
        let binary = [one.public(), two.public()].concat();
        let blocks = format!("Ours:\n\n{}\r\nand theirs:\n{}\n", armored(&one.public()), armored(&two.public()));
        let byte_order_mark = format!("\u{feff}{blocks}");
        for keyring in
            [binary.clone(), armored(&binary).into_bytes(), blocks.into_bytes(), byte_order_mark.into_bytes()]
        {
            let read = Certificate::parse_keyring(&keyring).unwrap();
            assert_eq!(read.iter().map(Certificate::fingerprint).collect::<Vec<_>>(), both);
        }
    }

    #[test]
    fn a_private_key_is_refused_by_its_fingerprint() {
        let key = Key::new("ours");
        for keyring in [key.private(), [Key::new("other").public(), key.private()].concat()] {
            assert_eq!(Certificate::parse_keyring(&keyring).unwrap_err(), CertificateError::Private(key.fingerprint()));
        }
    }

    #[test]
    fn what_is_no_keyring_says_why() {
        assert_eq!(Certificate::parse_keyring(b"").unwrap_err(), CertificateError::Empty);
        assert_eq!(Certificate::parse_keyring(b" \n").unwrap_err(), CertificateError::Empty);
        let text = armored(&Key::new("ours").public());
        let cut = &text[..text.len() / 2];
        let message = "-----BEGIN PGP MESSAGE-----\n\nowGbwMvMwMH4\n-----END PGP MESSAGE-----\n";
        for keyring in
            ["hello", "{}", "\u{feff}", cut, message, &format!("{text}{cut}"), "-----BEGIN PGP PUBLIC KEY BLOCK-----"]
        {
            let error = Certificate::parse_keyring(keyring.as_bytes()).unwrap_err();
            assert!(matches!(error, CertificateError::Malformed(_)), "{keyring:?}: {error}");
        }
        let binary = Key::new("ours").public();
        assert!(Certificate::parse_keyring(&binary[..binary.len() - 3]).is_err());
        let error = Certificate::parse_keyring(&vec![0x99; MAX_KEYRING_BYTES + 1]).unwrap_err();
        assert!(matches!(error, CertificateError::TooLarge { .. }));
    }

    #[test]
    fn versions_of_one_certificate_are_merged() {
        let key = Key::new("ours");
        let revoked = key.revoked(at("2026-01-01T00:00:00Z"));
        let keyring = Certificate::parse_keyring(&[key.public(), revoked].concat()).unwrap();
        assert_eq!(keyring.len(), 1);
        assert_eq!(keyring[0].usable(at(NOW)), Err(KeyFault::Revoked { key: key.fingerprint() }));
    }

    #[test]
    fn a_usable_key_says_until_when() {
        let for_ever = Key::new("ours").certificate();
        assert_eq!(for_ever.usable(at(NOW)), Ok(()));
        assert_eq!(for_ever.expires_at(at(NOW)), None);
        let expiring = Key::with("ours", |key| key.expires(at("2026-07-01T00:00:00Z"))).certificate();
        assert_eq!(expiring.usable(at(NOW)), Ok(()));
        assert_eq!(expiring.expires_at(at(NOW)), Some(at("2026-07-01T00:00:00Z")));
        let later = at("2026-08-01T00:00:00Z");
        assert!(matches!(expiring.usable(later), Err(KeyFault::Expired { .. })));
        assert_eq!(expiring.expires_at(later), Some(at("2026-07-01T00:00:00Z")));
        assert!(matches!(for_ever.usable(at("2020-01-01T00:00:00Z")), Err(KeyFault::Younger { .. })));
    }

    #[test]
    fn a_key_of_the_last_century_is_refused_with_its_reason() {
        let sha1 = Certificate::parse_keyring(&testing::sha1_self_signature()).unwrap().remove(0);
        let fault = sha1.usable(at(NOW)).unwrap_err();
        assert!(fault.to_string().contains("SHA-1, in its self-signature"), "{fault}");
        assert_eq!(sha1.expires_at(at(NOW)), Some(at(NOW)), "can't be used: over");
        let small = Certificate::parse_keyring(&testing::rsa_1024().public()).unwrap().remove(0);
        let fault = small.usable(at(NOW)).unwrap_err();
        assert!(fault.to_string().contains("RSA with 1024 bits"), "{fault}");
    }

    #[test]
    fn a_fingerprint_is_shortened_for_denials_only() {
        let whole = Fingerprint("81A2B3C4D5E6F708192A3B4C5D6E7F8091A2B302".into());
        assert_eq!(whole.short(), "0x81A2B3C4…91A2B302");
        assert_eq!(whole.to_string(), "0x81A2B3C4D5E6F708192A3B4C5D6E7F8091A2B302");
        assert_eq!(Fingerprint("D5E6F708192A3B4C".into()).short(), "0xD5E6F708192A3B4C");
    }

    proptest! {
        #[test]
        fn junk_is_no_keyring(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Certificate::parse_keyring(&bytes).is_err());
        }
    }
}
