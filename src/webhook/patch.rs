//! JSON patches (RFC 6902): a `replace` for each image whose text changes, and nothing else.

use serde::Serialize;

use super::review::Images;
use crate::gate::Decision;

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplaceOperation {
    op: &'static str,
    /// The JSON pointer to the value.
    pub path: String,
    /// The new value.
    pub value: String,
}

/// Returns the operations for a pod: each image that may run gets its canonical name, pinned to the digest that was
/// verified, if there is one. Refused images, and objects that are no pods, stay as they are. The decisions are those
/// about [`Images::to_decide`].
pub fn operations(images: &Images<'_>, decisions: &[Decision]) -> Vec<ReplaceOperation> {
    if !images.workload.is_pod {
        return Vec::new();
    }
    let mut operations = Vec::new();
    for (place, decision) in images.to_decide.iter().zip(decisions) {
        if let (Ok(_), Some(pinned)) = (&decision.verdict, &decision.pinned) {
            let value = pinned.to_string();
            if value != place.image {
                operations.push(ReplaceOperation {
                    op: "replace",
                    path: images.workload.pointer(place.list, place.index),
                    value,
                });
            }
        }
    }
    operations
}
