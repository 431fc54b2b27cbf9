//! The wire format of a signature, in lists of a store and in requests to it.

use base64::{display::Base64Display, prelude::BASE64_STANDARD};
use serde::{Serialize, Serializer};

/// An entry of a list, and the body of a PUT. It has the version twice: containers/image reads `schemaVersion`, the
/// original documentation says `version`.
#[derive(Serialize)]
pub(crate) struct WireSignature<'a> {
    #[serde(rename = "schemaVersion")]
    schema_version: u8,
    version: u8,
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    #[serde(serialize_with = "base64")]
    content: &'a [u8],
}

impl<'a> WireSignature<'a> {
    /// Makes the entry of an OpenPGP message; `name` is `<digest>@<32 characters>`.
    pub(crate) fn new(name: String, content: &'a [u8]) -> Self {
        Self { schema_version: 2, version: 2, kind: "atomic", name, content }
    }
}

fn base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Base64Display::new(bytes, &BASE64_STANDARD))
}
