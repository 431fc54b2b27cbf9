//! JSON from outside, read one level at a time: bounded, and borrowed from the text where possible.
//!
//! Formats differ in which members may be duplicated and which names are equal; each format decides that over
//! [`Members`].

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Deserializes a structure from an object. (serde would accept an array as well.)
pub(crate) fn from_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> serde_json::Result<T> {
    if json.trim_ascii_start().starts_with(b"{") {
        serde_json::from_slice(json)
    } else {
        Err(serde::de::Error::custom("an object is expected"))
    }
}

/// An array with unparsed values. Parsed, all of them could take far more memory than their text.
pub(crate) struct Array<'a, const MAX: usize> {
    /// The first `MAX` values.
    pub(crate) first: Vec<&'a RawValue>,
    /// The number of all values.
    pub(crate) found: usize,
}

impl<'de: 'a, 'a, const MAX: usize> Deserialize<'de> for Array<'a, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<const MAX: usize>;
        impl<'de, const MAX: usize> Visitor<'de> for Elements<MAX> {
            type Value = Array<'de, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut first = Vec::new();
                while first.len() < MAX {
                    let Some(element) = seq.next_element()? else { break };
                    first.push(element);
                }
                let mut found = first.len();
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    found += 1;
                }
                Ok(Array { first, found })
            }
        }
        deserializer.deserialize_seq(Elements::<MAX>)
    }
}

/// A string, borrowed if it has no escapes. Inside an `Option`, serde borrows a `Cow` only through a type like this.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// The members of an object in their order, duplicates included, with unparsed values. The first member beyond `MAX` is
/// an error at once: a body may have hundreds of thousands.
pub(crate) struct Members<'a, N, const MAX: usize>(pub(crate) Vec<(N, &'a RawValue)>);

impl<'de: 'a, 'a, N: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Members<'a, N, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor<N, const MAX: usize>(PhantomData<N>);
        impl<'de, N: Deserialize<'de>, const MAX: usize> Visitor<'de> for MembersVisitor<N, MAX> {
            type Value = Members<'de, N, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key()? {
                    if members.len() == MAX {
                        return Err(A::Error::custom("too many members"));
                    }
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_their_order_and_unread_and_one_too_many_ends_the_reading() {
        let text = r#"{"b": [1, 2], "\u0061": {"c": null}, "b": 3}"#;
        let Members(members) = serde_json::from_str::<Members<'_, Text<'_>, 3>>(text).unwrap();
        let members: Vec<_> = members.iter().map(|(Text(name), value)| (&**name, value.get())).collect();
        assert_eq!(members, [("b", "[1, 2]"), ("a", r#"{"c": null}"#), ("b", "3")]);
        assert!(serde_json::from_str::<Members<'_, Text<'_>, 2>>(text).is_err());
        // The text behind the bound is not read.
        let error = serde_json::from_str::<Members<'_, Text<'_>, 1>>(r#"{"a": 1, "b": broken"#).err().unwrap();
        assert!(error.to_string().contains("too many members"), "{error}");
        for other in ["[]", "null", "1", "\"a\""] {
            assert!(serde_json::from_str::<Members<'_, Text<'_>, 9>>(other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_text_is_borrowed_where_it_has_no_escapes() {
        let read = |text| serde_json::from_str::<Text<'_>>(text).unwrap().0;
        assert!(matches!(read(r#""plain""#), Cow::Borrowed("plain")));
        assert_eq!(read(r#""\u0061""#), "a");
        assert!(matches!(read(r#""\u0061""#), Cow::Owned(_)));
    }
}
