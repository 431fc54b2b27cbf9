//! The signed payload, "simple signing" (containers-signature(5)): JSON, read strictly.
//!
//! It says no to whatever containers/image says no to (`ParanoidUnmarshalJSONObject`), and to text that is not UTF-8, which
//! that repairs.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

use crate::image::{Digest, Reference, ReferenceError, digest::DigestError};

/// The longest payload, in bytes. A reference and a digest have less than a thousand.
pub const MAX_PAYLOAD_BYTES: usize = 16 << 10;
/// The value of `critical.type`.
pub const TYPE: &str = "atomic container signature";

/// The claim of a signature about an image: its digest and its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// `critical.image.docker-manifest-digest`.
    pub digest: Digest,
    /// `critical.identity.docker-reference`, canonical; without tag and digest where the signer gave none.
    pub identity: Reference,
}

/// Why a payload is malformed. None of its text is repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// It is longer than any payload.
    #[error("the signed payload has more than {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// Not JSON, or not UTF-8, or nested too deeply.
    #[error("the signed payload is not JSON (line {line}, column {column})")]
    Json {
        /// Counts from 1.
        line: usize,
        /// Counts from 1.
        column: usize,
    },
    /// A value has another type.
    #[error("{place} is not {expected}")]
    Expected {
        /// The member.
        place: &'static str,
        /// The kind of value that is expected.
        expected: &'static str,
    },
    /// A member that must be there is not.
    #[error("{place} has no member {member}")]
    Missing {
        /// The object.
        place: &'static str,
        /// The member.
        member: &'static str,
    },
    /// A member that must not be there is.
    #[error("{place} has a member that is not known")]
    Unknown {
        /// The object.
        place: &'static str,
    },
    /// A member is there twice: two readers could see two things.
    #[error("{place} has a member twice")]
    Twice {
        /// The object.
        place: &'static str,
    },
    /// The digest is none.
    #[error("the signed digest: {0}")]
    Digest(#[from] DigestError),
    /// The reference is none.
    #[error("the signed docker reference: {0}")]
    Reference(#[from] ReferenceError),
}

impl Payload {
    /// Parses a payload: the members `critical` and `optional` only; inside `critical` exactly `type`,
    /// `image.docker-manifest-digest` and `identity.docker-reference`; inside `optional` anything, but `creator` is a string and
    /// `timestamp` an integer; no member twice in any of these.
    pub fn parse(bytes: &[u8]) -> Result<Self, PayloadError> {
        const ALL: &str = "the payload";
        const IMAGE: &str = "critical.image";
        const IDENTITY: &str = "critical.identity";
        if bytes.len() > MAX_PAYLOAD_BYTES {
            return Err(PayloadError::TooLarge { limit: MAX_PAYLOAD_BYTES });
        }
        let all: Value = serde_json::from_slice(bytes)
            .map_err(|error| PayloadError::Json { line: error.line(), column: error.column() })?;
        let [critical, optional] = all.exactly(ALL, ["critical", "optional"])?;

        let [kind, image, identity] = critical.exactly("critical", ["type", "image", "identity"])?;
        if kind.string("critical.type")? != TYPE {
            return Err(PayloadError::Expected { place: "critical.type", expected: "\"atomic container signature\"" });
        }
        let [digest] = image.exactly(IMAGE, ["docker-manifest-digest"])?;
        let [reference] = identity.exactly(IDENTITY, ["docker-reference"])?;
        let digest = Digest::parse(digest.string("critical.image.docker-manifest-digest")?)?;
        let identity = Reference::parse(reference.string("critical.identity.docker-reference")?)?;

        // Nothing is decided on these, but what they are: the OpenPGP signature says who and when.
        for (name, value) in optional.members("optional")? {
            match (name.as_str(), value) {
                // As in Go, null is no value.
                ("creator" | "timestamp", Value::Null) => {}
                ("creator", value) => drop(value.string("optional.creator")?),
                ("timestamp", value) => value.integer("optional.timestamp")?,
                _ => {}
            }
        }
        Ok(Self { digest, identity })
    }

    /// The payload as its signer writes it (containers-signature(5)). [`Payload::parse`] reads it again. Nothing is decided on
    /// `creator` and `timestamp` (seconds since 1970): the OpenPGP signature has a time of its own.
    pub fn to_json(&self, creator: &str, timestamp: i64) -> Vec<u8> {
        let payload = serde_json::json!({
            "critical": {
                "type": TYPE,
                "image": { "docker-manifest-digest": self.digest.to_string() },
                "identity": { "docker-reference": self.identity.to_string() },
            },
            "optional": { "creator": creator, "timestamp": timestamp },
        });
        payload.to_string().into_bytes()
    }
}

/// JSON, with members as they stand there.
enum Value {
    Null,
    Text(String),
    Integer,
    Fraction(f64),
    Object(Vec<(String, Value)>),
    Other,
}

impl Value {
    fn members(&self, place: &'static str) -> Result<&[(String, Self)], PayloadError> {
        let Self::Object(members) = self else {
            return Err(PayloadError::Expected { place, expected: "an object" });
        };
        let mut seen = HashSet::new();
        if members.iter().all(|(name, _)| seen.insert(name)) { Ok(members) } else { Err(PayloadError::Twice { place }) }
    }

    /// The values of exactly these members.
    fn exactly<const N: usize>(
        &self,
        place: &'static str,
        names: [&'static str; N],
    ) -> Result<[&Self; N], PayloadError> {
        let members = self.members(place)?;
        if members.iter().any(|(name, _)| !names.contains(&name.as_str())) {
            return Err(PayloadError::Unknown { place });
        }
        let mut values = [self; N];
        for (slot, member) in values.iter_mut().zip(names) {
            let found = members.iter().find(|(name, _)| name == member);
            *slot = found.map(|(_, value)| value).ok_or(PayloadError::Missing { place, member })?;
        }
        Ok(values)
    }

    fn string(&self, place: &'static str) -> Result<&str, PayloadError> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(PayloadError::Expected { place, expected: "a string" }),
        }
    }

    /// An integer, also as `1e9` or `1.0`, as Go has it.
    fn integer(&self, place: &'static str) -> Result<(), PayloadError> {
        match self {
            Self::Integer => Ok(()),
            Self::Fraction(number) if number.fract() == 0.0 && number.abs() < 9.2e18 => Ok(()),
            _ => Err(PayloadError::Expected { place, expected: "an integer" }),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
                Ok(Value::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
                Ok(Value::Integer)
            }

            fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
                Ok(i64::try_from(number).map_or(Value::Other, |_| Value::Integer))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
                Ok(Value::Fraction(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                while seq.next_element::<Value>()?.is_some() {}
                Ok(Value::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Value::Object(members))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn good() -> String {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"registry.example.com/acme/web:1.2"}},"image":{{"docker-manifest-digest":"{DIGEST}"}},"type":"atomic container signature"}},"optional":{{"creator":"atomic 5.0","timestamp":1764000000}}}}"#
        )
    }

    fn with(from: &str, to: &str) -> Result<Payload, PayloadError> {
        let changed = good().replacen(from, to, 1);
        assert_ne!(changed, good(), "{from} is not there");
        Payload::parse(changed.as_bytes())
    }

    #[test]
    fn a_payload_says_what_is_signed() {
        let payload = Payload::parse(good().as_bytes()).unwrap();
        assert_eq!(payload.digest.to_string(), DIGEST);
        assert_eq!(payload.identity.to_string(), "registry.example.com/acme/web:1.2");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let identity = Reference::parse("registry.example.com/acme/web:1.2").unwrap();
        let payload = Payload { digest: Digest::sha256(b""), identity };
        for creator in ["", "sealgate \"1\"\n"] {
            assert_eq!(Payload::parse(&payload.to_json(creator, -5)).unwrap(), payload);
        }
    }

    #[test]
    fn white_space_escapes_and_unknown_optional_members_do_no_harm() {
        assert!(Payload::parse(format!(" \n{}\n", good()).as_bytes()).is_ok());
        assert!(with("\"critical\"", "\"crit\\u0069cal\"").is_ok());
        assert!(with("\"creator\"", "\"x\":{\"a\":1,\"a\":[2]},\"creator\"").is_ok(), "as containers/image");
        assert!(with("\"atomic 5.0\"", "null").is_ok(), "as containers/image");
        assert!(with("{\"creator\":\"atomic 5.0\",\"timestamp\":1764000000}", "{}").is_ok());
        assert!(with("1764000000", "1.764e9").is_ok());
        assert!(with("1764000000", "-1").is_ok());
    }

    #[test]
    fn a_member_too_many_too_few_or_twice_is_refused() {
        assert!(matches!(with("\"critical\":", "\"x\":1,\"critical\":"), Err(PayloadError::Unknown { .. })));
        assert!(matches!(with("\"type\"", "\"x\":1,\"type\""), Err(PayloadError::Unknown { place: "critical" })));
        assert!(matches!(with("\"docker-manifest", "\"x\":1,\"docker-manifest"), Err(PayloadError::Unknown { .. })));
        assert!(matches!(with("\"docker-reference", "\"x\":1,\"docker-reference"), Err(PayloadError::Unknown { .. })));
        assert!(matches!(with("\"critical\"", "\"Critical\""), Err(PayloadError::Unknown { .. })));
        let optional = r#","optional":{"creator":"atomic 5.0","timestamp":1764000000}"#;
        assert!(matches!(with(optional, ""), Err(PayloadError::Missing { member: "optional", .. })));
        let kind = r#","type":"atomic container signature""#;
        assert!(matches!(with(kind, ""), Err(PayloadError::Missing { member: "type", .. })));
        assert!(matches!(with(kind, &kind.repeat(2)), Err(PayloadError::Twice { place: "critical" })));
        assert!(matches!(with(optional, &optional.repeat(2)), Err(PayloadError::Twice { .. })));
        let escaped = r#""docker-reference":"x.example.com/x:1","docker-\u0072eference""#;
        assert!(matches!(with("\"docker-reference\"", escaped), Err(PayloadError::Twice { .. })));
        assert!(matches!(with("\"creator\"", "\"creator\":\"x\",\"creator\""), Err(PayloadError::Twice { .. })));
        assert!(matches!(with("\"creator\"", "\"x\":1,\"x\":1,\"creator\""), Err(PayloadError::Twice { .. })));
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        for (from, to) in [
            ("\"atomic container signature\"", "\"cosign container image signature\""),
            ("\"atomic container signature\"", "null"),
            ("\"registry.example.com/acme/web:1.2\"", "null"),
            ("\"registry.example.com/acme/web:1.2\"", "[\"registry.example.com/acme/web:1.2\"]"),
            ("\"atomic 5.0\"", "5"),
            ("1764000000", "\"1764000000\""),
            ("1764000000", "1764000000.5"),
            ("1764000000", "1e19"),
            ("1764000000", "18446744073709551615"),
            ("1764000000", "1e400"),
            ("{\"creator\":\"atomic 5.0\",\"timestamp\":1764000000}", "null"),
            ("{\"creator\":\"atomic 5.0\",\"timestamp\":1764000000}", "[]"),
        ] {
            assert!(with(from, to).is_err(), "{to}");
        }
        assert!(matches!(with("sha256:", "sha384:"), Err(PayloadError::Digest(_))));
        assert!(matches!(with("acme/web", "Acme/web"), Err(PayloadError::Reference(_))));
    }

    #[test]
    fn what_is_not_one_json_object_in_utf8_is_refused() {
        for text in
            ["", "null", "[]", "{}", "1", "\u{feff}{}", &format!("{}x", good()), &format!("{}{}", good(), good())]
        {
            assert!(Payload::parse(text.as_bytes()).is_err(), "{text}");
        }
        for junk in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80"] {
            let mut bytes = good().into_bytes();
            let place = good().find("atomic 5.0").unwrap();
            bytes.splice(place..place, junk.iter().copied());
            assert!(Payload::parse(&bytes).is_err());
        }
        assert!(with("atomic 5.0", "\\ud800").is_err(), "half a surrogate pair is no character");
        assert!(with("\"creator\"", &format!("\"x\":{},\"creator\"", "[".repeat(10_000))).is_err());
        let deep = format!("\"x\":{}{},\"creator\"", "[".repeat(1_000), "]".repeat(1_000));
        assert!(with("\"creator\"", &deep).is_err());
        // The payload and its `optional` are two of the 127 levels.
        let nested = |levels: usize| format!("\"x\":{}{},\"creator\"", "[".repeat(levels), "]".repeat(levels));
        assert!(with("\"creator\"", &nested(125)).is_ok());
        assert!(with("\"creator\"", &nested(126)).is_err());
        let long = format!("{}{}", good(), " ".repeat(MAX_PAYLOAD_BYTES));
        assert_eq!(Payload::parse(long.as_bytes()), Err(PayloadError::TooLarge { limit: MAX_PAYLOAD_BYTES }));
    }

    proptest! {
        #[test]
        fn a_changed_byte_changes_what_is_read_or_nothing_that_counts(at in 0_usize..10_000, byte: u8) {
            let mut bytes = good().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(payload) = Payload::parse(&bytes) {
                // Whatever is read is what serde_json, which is not strict, reads as well.
                let loose: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                prop_assert_eq!(&loose["critical"]["image"]["docker-manifest-digest"], &payload.digest.to_string());
            }
        }

        #[test]
        fn junk_is_no_payload(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Payload::parse(&bytes).is_err());
        }
    }
}
