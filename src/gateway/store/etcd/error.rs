//! Checks the values in etcd, and makes errors of the store from those that are malformed.

use etcd_client::KeyValue;

use crate::gateway::store::StoreError;

/// The format that this version writes, and the only one that it reads.
pub(super) const FORMAT: u64 = 1;

pub(super) fn check_format(pair: &KeyValue) -> Result<(), StoreError> {
    let found = pair.value_str().ok().and_then(|text| text.parse().ok());
    match found {
        Some(FORMAT) => Ok(()),
        Some(found) => Err(StoreError::Format { path: lossy(pair.key()).into_string().into(), found, known: FORMAT }),
        None => Err(malformed(pair, "it is not a format's number")),
    }
}

pub(super) fn malformed(pair: &KeyValue, what: &str) -> StoreError {
    StoreError::Malformed { key: lossy(pair.key()), what: what.into() }
}

pub(super) fn lossy(key: &[u8]) -> Box<str> {
    String::from_utf8_lossy(key).into()
}
