//! The list of an image's signatures, as clients get it.

use std::{fmt, ops::Deref, sync::Arc};

use bytes::Bytes;
use serde::Serialize;

use super::{image_id::ImageId, signature::StoredSignature};
use crate::signature_sources::WireSignature;

/// All signatures of an image, ordered by name, with their encoded form.
#[derive(Clone)]
pub struct SignatureList(Arc<EncodedList>);

struct EncodedList {
    signatures: Box<[StoredSignature]>,
    encoded: Bytes,
}

/// The encoded form.
#[derive(Serialize)]
struct ListDocument<'a> {
    signatures: Vec<WireSignature<'a>>,
}

impl SignatureList {
    /// Makes and encodes a list. Takes a while for many signatures.
    pub fn new(image: &ImageId, signatures: Vec<StoredSignature>) -> Self {
        let name = |signature: &StoredSignature| format!("{}@{}", image.digest, signature.name.as_str());
        let entries =
            signatures.iter().map(|signature| WireSignature::new(name(signature), &signature.content)).collect();
        // Strings and numbers always serialize to JSON.
        let encoded = serde_json::to_vec(&ListDocument { signatures: entries }).expect("a list of strings is JSON");
        Self(Arc::new(EncodedList { signatures: signatures.into(), encoded: encoded.into() }))
    }

    /// Returns the encoded form.
    pub fn encoded(&self) -> Bytes {
        self.0.encoded.clone()
    }
}

impl Deref for SignatureList {
    type Target = [StoredSignature];

    fn deref(&self) -> &Self::Target {
        &self.0.signatures
    }
}

impl fmt::Debug for SignatureList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.signatures.fmt(f)
    }
}

impl<const N: usize> PartialEq<[StoredSignature; N]> for SignatureList {
    fn eq(&self, other: &[StoredSignature; N]) -> bool {
        **self == *other
    }
}
