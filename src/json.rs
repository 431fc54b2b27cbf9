//! JSON that others wrote.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Reads an object into a structure. serde would take an array for one, too.
pub(crate) fn from_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> serde_json::Result<T> {
    if json.trim_ascii_start().starts_with(b"{") {
        serde_json::from_slice(json)
    } else {
        Err(serde::de::Error::custom("an object is expected"))
    }
}

/// An array, values unread: all of them could take far more memory than their text does.
pub(crate) struct Array<'a, const MAX: usize> {
    /// The first `MAX`.
    pub(crate) first: Vec<&'a RawValue>,
    /// How many there are.
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
