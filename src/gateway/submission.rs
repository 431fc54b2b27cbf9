//! Parses and checks a signature that a client submits.

use std::sync::Arc;

use serde::Deserialize;

use super::{
    error::ApiError,
    store::{SignatureName, StoredSignature},
};
use crate::{
    base64_text,
    image::Digest,
    json,
    signature::{self, Claim, MAX_ISSUERS},
};

/// The maximum size of the message, in bytes. Real ones have less than 4 KiB, whatever the key.
pub(super) const MAX_CONTENT_BYTES: usize = 64 << 10;
/// The maximum size of the body, in bytes: the message in base64, in lines of 64 characters with a line break of four
/// (`\r\n` in JSON), and the rest.
pub(super) const MAX_BODY_BYTES: usize = MAX_CONTENT_BYTES / 3 * 4 / 64 * 68 + (4 << 10);
/// The only version.
const VERSION: u64 = 2;
/// The accepted names of the only type: the listed one, OpenShift's own, and an empty one, which the original registry
/// accepted, too.
const TYPES: [&str; 3] = ["atomic", "AtomicImageV1", ""];

/// The body of a PUT. Unknown members are ignored.
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

/// A checked signature to store.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) signature: StoredSignature,
    /// The keys that the signature names.
    pub(super) issuers: Vec<Box<str>>,
}

/// Checks the body of a PUT, without any request. It does not check whether the keys are trusted: the store has no
/// policy, and readers of signatures verify them.
pub(super) fn parse(body: &[u8], digest: &Digest) -> Result<Submission, ApiError> {
    let document: Document = json::from_object(body)
        .map_err(|error| ApiError::signature(format!("the body is not the JSON of a signature: {error}")))?;
    let versions = [document.schema_version, document.version];
    if versions == [None, None] || versions.iter().flatten().any(|&version| version != VERSION) {
        return Err(ApiError::signature("schemaVersion (or version) must be 2"));
    }
    if document.kind.as_deref().is_some_and(|kind| !TYPES.contains(&kind)) {
        return Err(ApiError::signature("type must be \"atomic\""));
    }
    let name = document
        .name
        .rsplit_once('@')
        .filter(|(of, _)| *of == digest.to_string())
        .and_then(|(_, name)| SignatureName::parse(name))
        .ok_or_else(|| {
            ApiError::signature("name must be <digest>@<32 characters of A-Z a-z 0-9 _ . ->, with this image's digest")
        })?;
    let content = base64_text::decode(&document.content)
        .map_err(|error| ApiError::signature(format!("content is not base64: {error}")))?;
    if content.len() > MAX_CONTENT_BYTES {
        return Err(ApiError::too_large(format!("a signature has at most {MAX_CONTENT_BYTES} bytes")));
    }
    let issuers = issuers_of(&content, digest).map_err(ApiError::signature)?;
    Ok(Submission { signature: StoredSignature { name, content: Arc::from(content) }, issuers })
}

/// Returns the keys that a signature names, if it is a message whose payload has the image's digest.
pub(super) fn issuers_of(content: &[u8], digest: &Digest) -> Result<Vec<Box<str>>, String> {
    let Claim { payload, issuers } =
        signature::claim(content).map_err(|error| format!("content is not a signature: {error}"))?;
    if payload.digest != *digest {
        return Err("the signed payload names another digest".to_owned());
    }
    if issuers.len() > MAX_ISSUERS {
        return Err(format!("a signature names at most {MAX_ISSUERS} keys as its issuers"));
    }
    Ok(issuers.into_iter().map(|issuer| issuer.0).collect())
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use serde_json::{Value, json};

    use super::*;
    use crate::signature::testing::{self, Key};

    const NAME: &str = "0123456789abcdef0123456789abcdef";

    fn signed(digest: &Digest) -> Vec<u8> {
        let payload = testing::payload("registry.example.com/acme/web:1", &digest.to_string());
        Key::new("release").sign(&payload, testing::at(testing::BORN))
    }

    /// The body of a PUT, with these members in place of the usual ones.
    fn body(digest: &Digest, content: &str, changes: &[(&str, Value)]) -> Vec<u8> {
        let mut body =
            json!({"schemaVersion": 2, "type": "atomic", "name": format!("{digest}@{NAME}"), "content": content});
        for (name, value) in changes {
            body[*name] = value.clone();
        }
        body.to_string().into_bytes()
    }

    #[test]
    fn content_may_be_wrapped_and_nothing_else() {
        let digest = Digest::sha256(b"image");
        let message = signed(&digest);
        let text = BASE64_STANDARD.encode(&message);
        let lines = |columns: usize, end: &str| {
            let lines = text.as_bytes().chunks(columns).map(|line| std::str::from_utf8(line).unwrap());
            lines.collect::<Vec<_>>().join(end)
        };
        for good in [text.clone(), lines(76, "\n"), lines(64, "\r\n"), format!("{text}\n"), format!("{text}\r\n")] {
            let submission = parse(&body(&digest, &good, &[]), &digest).unwrap();
            assert_eq!(*submission.signature.content, *message, "{good:?}");
        }
        for bad in
            [lines(76, " "), lines(76, "\t"), format!("{text}!"), text[..text.len() - 1].to_owned(), String::new()]
        {
            let refused = parse(&body(&digest, &bad, &[]), &digest).unwrap_err();
            assert!(refused.to_string().starts_with("400 "), "{bad:?}: {refused}");
        }
    }

    #[test]
    fn the_largest_content_fits_into_a_body_however_it_is_wrapped() {
        let text = BASE64_STANDARD.encode(vec![0x80; MAX_CONTENT_BYTES]);
        let lines = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap());
        let wrapped = lines.collect::<Vec<_>>().join("\r\n");
        assert!(body(&Digest::sha256(b""), &wrapped, &[]).len() <= MAX_BODY_BYTES);
    }

    #[test]
    fn a_type_is_one_that_the_original_registry_took() {
        let digest = Digest::sha256(b"image");
        let content = BASE64_STANDARD.encode(signed(&digest));
        for kind in ["atomic", "AtomicImageV1", ""].map(Value::from).into_iter().chain([Value::Null]) {
            assert!(parse(&body(&digest, &content, &[("type", kind.clone())]), &digest).is_ok(), "{kind}");
        }
        for kind in ["atomicimagev1", "AtomicImageV2", "Atomic", " ", "atomic\n", "sigstore"] {
            let refused = parse(&body(&digest, &content, &[("type", kind.into())]), &digest).unwrap_err();
            assert!(refused.to_string().starts_with("400 "), "{kind}: {refused}");
        }
        for kind in [json!(2), json!([]), json!({}), json!(false)] {
            assert!(parse(&body(&digest, &content, &[("type", kind.clone())]), &digest).is_err(), "{kind}");
        }
    }
}
