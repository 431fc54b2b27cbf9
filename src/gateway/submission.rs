//! A signature that someone wants stored, and what it must be.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

use super::{
    answer::Refused,
    store::{SignatureName, StoredSignature},
};
use crate::{
    image::Digest,
    json,
    signature::{self, Claim, MOST_ISSUERS},
};

/// The longest message that is taken. Real ones have less than 4 KiB, whatever the key.
pub(super) const LARGEST_CONTENT: usize = 64 << 10;
/// The longest body: that message in base64, and room for the rest.
pub(super) const LARGEST_BODY: usize = LARGEST_CONTENT / 3 * 4 + (4 << 10);
/// The only version and type that there are.
const VERSION: u64 = 2;
const TYPE: &str = "atomic";

/// The body of a PUT. Members that are not known do no harm.
#[derive(Deserialize)]
struct Document {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u64>,
    version: Option<u64>,
    #[serde(rename = "type")]
    kind: Option<String>,
    name: String,
    content: String,
}

/// What someone wants stored, checked.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) signature: StoredSignature,
    /// The keys that it names.
    pub(super) issuers: Vec<Box<str>>,
}

/// Checks a PUT's body: all that can be said without asking anyone. That its keys are trusted is not among it, for the
/// store has no policy; who reads signatures verifies them.
pub(super) fn parse(body: &[u8], digest: &Digest) -> Result<Submission, Refused> {
    let document: Document = json::from_object(body)
        .map_err(|error| Refused::signature(format!("the body is not the JSON of a signature: {error}")))?;
    let versions = [document.schema_version, document.version];
    if versions == [None, None] || versions.iter().flatten().any(|&version| version != VERSION) {
        return Err(Refused::signature("schemaVersion (or version) must be 2"));
    }
    if document.kind.as_deref().is_some_and(|kind| kind != TYPE) {
        return Err(Refused::signature("type must be \"atomic\""));
    }
    let name = document
        .name
        .rsplit_once('@')
        .filter(|(of, _)| *of == digest.to_string())
        .and_then(|(_, name)| SignatureName::parse(name))
        .ok_or_else(|| {
            Refused::signature("name must be <digest>@<32 characters of A-Z a-z 0-9 _ . ->, with this image's digest")
        })?;
    let content = BASE64_STANDARD
        .decode(&document.content)
        .map_err(|error| Refused::signature(format!("content is not base64: {error}")))?;
    if content.len() > LARGEST_CONTENT {
        return Err(Refused::too_large(format!("a signature has at most {LARGEST_CONTENT} bytes")));
    }
    let issuers = issuers_of(&content, digest).map_err(Refused::signature)?;
    Ok(Submission { signature: StoredSignature { name, content: Arc::from(content) }, issuers })
}

/// The keys that a signature of this image names, if it is one: a message whose payload is of the digest.
pub(super) fn issuers_of(content: &[u8], digest: &Digest) -> Result<Vec<Box<str>>, String> {
    let Claim { payload, issuers } =
        signature::claim(content).map_err(|error| format!("content is not a signature: {error}"))?;
    if payload.digest != *digest {
        return Err("the signed payload names another digest".to_owned());
    }
    if issuers.len() > MOST_ISSUERS {
        return Err(format!("a signature names at most {MOST_ISSUERS} keys as its issuers"));
    }
    Ok(issuers.into_iter().map(|issuer| issuer.0).collect())
}
