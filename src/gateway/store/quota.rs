//! The quota of one image, for all engines.

use super::{change::Put, record::Record, signature::StoredSignature};

/// The limits of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// The maximum number of signatures.
    pub signatures: usize,
    /// The maximum number of signatures of one signer, so that one signer can't use up the quota of the others.
    pub signatures_per_signer: usize,
    /// The maximum size of the encoded list, in bytes, since clients read no more: containers/image 4 MiB.
    pub list_bytes: usize,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { signatures: 256, signatures_per_signer: 64, list_bytes: 4 << 20 }
    }
}

/// The size of one entry of the list beside its content, in bytes: member names, name, and the digest twice; rounded
/// up.
const ENTRY_BYTES: usize = 384;

impl ImageLimits {
    /// Returns the default limits, for clients that read lists of this size.
    pub fn with_lists_of(list_bytes: usize) -> Self {
        Self { list_bytes, ..Self::default() }
    }

    /// Returns the maximum size of one signer's signatures in the list: a quarter, as for their number.
    pub fn list_bytes_of_signer(&self) -> usize {
        self.list_bytes / 4
    }

    /// Returns the size of a signature in the encoded list.
    pub fn listed_bytes(content: usize) -> usize {
        content.div_ceil(3) * 4 + ENTRY_BYTES
    }
}

/// Counts the signatures of an image, and decides whether it may have another one.
pub(super) struct QuotaCheck<'a> {
    limits: &'a ImageLimits,
    new: &'a Record,
    signatures: usize,
    of_signer: usize,
    bytes: usize,
    bytes_of_signer: usize,
    exists: Option<Put>,
}

impl<'a> QuotaCheck<'a> {
    pub(super) fn new(limits: &'a ImageLimits, new: &'a Record) -> Self {
        let bytes = ImageLimits::listed_bytes(new.signature.content.len());
        Self { limits, new, signatures: 0, of_signer: 0, bytes, bytes_of_signer: bytes, exists: None }
    }

    /// Counts a signature of the image. `signer` is the signer whose share it takes.
    pub(super) fn count(&mut self, name: &str, content: &[u8], signer: Option<&str>) {
        let StoredSignature { name: new, content: new_content } = &self.new.signature;
        if name == new.as_str() {
            self.exists = Some(Put::NameExists);
        } else if *content == **new_content && self.exists.is_none() {
            self.exists = Some(Put::ContentExists);
        }
        let bytes = ImageLimits::listed_bytes(content.len());
        self.signatures += 1;
        self.bytes += bytes;
        if signer.is_some() && signer == self.new_signer() {
            self.of_signer += 1;
            self.bytes_of_signer += bytes;
        }
    }

    fn new_signer(&self) -> Option<&'a str> {
        self.new.origin.as_ref()?.signer()
    }

    pub(super) fn decide(self) -> Put {
        let ImageLimits { signatures, signatures_per_signer, list_bytes } = *self.limits;
        if let Some(exists) = self.exists {
            exists
        } else if self.signatures >= signatures {
            Put::TooMany { limit: signatures }
        } else if self.of_signer >= signatures_per_signer {
            Put::TooManyOfSigner { limit: signatures_per_signer }
        } else if self.bytes > list_bytes {
            Put::TooLong { limit: list_bytes }
        } else if self.of_signer > 0 && self.bytes_of_signer > self.limits.list_bytes_of_signer() {
            Put::TooLongOfSigner { limit: self.limits.list_bytes_of_signer() }
        } else {
            Put::Created
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gateway::store::{Origin, SignatureName};

    fn record(number: usize, signer: Option<&str>) -> Record {
        let name = SignatureName::parse(&format!("{number:032}")).unwrap();
        let content = Arc::from(format!("content {number}").into_bytes());
        let origin = Origin { added_by: signer.map(Box::from), added_at: jiff::Timestamp::UNIX_EPOCH, issuers: vec![] };
        Record { signature: StoredSignature { name, content }, origin: Some(origin), status: None }
    }

    fn admitted(limits: ImageLimits, there: &[Record], new: &Record) -> Put {
        let mut quota = QuotaCheck::new(&limits, new);
        for Record { signature, origin, .. } in there {
            quota.count(signature.name.as_str(), &signature.content, origin.as_ref().and_then(Origin::signer));
        }
        quota.decide()
    }

    #[test]
    fn one_signer_can_not_fill_an_image_for_the_others() {
        let limits = ImageLimits { signatures: 4, signatures_per_signer: 2, ..ImageLimits::default() };
        let there = [record(1, Some("jane")), record(2, Some("jane")), record(3, None)];
        assert_eq!(admitted(limits, &there, &record(4, Some("jane"))), Put::TooManyOfSigner { limit: 2 });
        assert_eq!(admitted(limits, &there, &record(4, Some("robot"))), Put::Created);
        assert_eq!(admitted(limits, &there, &record(4, None)), Put::Created, "nobody in particular is no signer");
        // The list of eight as small as these. A signer's first is taken, however large it is.
        let bytes = |records: usize| ImageLimits { list_bytes: records * 400, ..ImageLimits::default() };
        let jane = |number| record(number, Some("jane"));
        assert_eq!(admitted(bytes(8), &[jane(1)], &jane(2)), Put::Created);
        assert_eq!(admitted(bytes(8), &[jane(1), jane(2)], &jane(3)), Put::TooLongOfSigner { limit: 800 });
        assert_eq!(admitted(bytes(8), &[jane(1), jane(2)], &record(3, Some("robot"))), Put::Created);
        assert_eq!(admitted(bytes(2), &[record(1, None)], &jane(2)), Put::Created);
        assert_eq!(
            admitted(limits, &there, &record(1, Some("jane"))),
            Put::NameExists,
            "it is there: no question of room"
        );
    }
}
