//! Plans the effect of a change on the state of an image. This module does no I/O.

use std::collections::BTreeMap;

use etcd_client::{DeleteOptions, GetOptions, KeyValue, TxnOp};

use super::{
    history::History,
    keys::{Keys, Table, get_all_below},
};
use crate::gateway::store::{
    Change, Changed, ImageId, ImageLimits, Origin, Put, Record, SignatureName, quota::QuotaCheck,
};

/// The state of an image that a change needs.
#[derive(Default)]
pub(super) struct ImageState {
    pub(super) history: History,
    /// The etcd revision in which the history was written; 0: never.
    pub(super) revision: i64,
    signatures: BTreeMap<SignatureName, KeyValue>,
    origins: BTreeMap<SignatureName, KeyValue>,
    statuses: BTreeMap<SignatureName, KeyValue>,
}

impl ImageState {
    pub(super) fn add(&mut self, table: Table, name: SignatureName, pair: KeyValue) {
        let table = match table {
            Table::Signatures => &mut self.signatures,
            Table::Origins => &mut self.origins,
            Table::Statuses => &mut self.statuses,
        };
        table.insert(name, pair);
    }
}

/// The operations of a change (none if it changes nothing), and the outcome once they are committed.
pub(super) struct Plan {
    pub(super) outcome: Changed,
    pub(super) operations: Vec<TxnOp>,
}

/// Returns the ranges that a change has to read.
pub(super) fn needs(keys: &Keys, change: &Change) -> Vec<TxnOp> {
    let image = change.image();
    let there = |key| TxnOp::get(key, Some(GetOptions::new().with_keys_only()));
    let mut ranges = vec![TxnOp::get(keys.history(image), None)];
    match change {
        Change::Put(..) | Change::Import(..) => {
            let all = |table| get_all_below(keys.image(table, image), GetOptions::new());
            ranges.extend([all(Table::Signatures), all(Table::Origins)]);
            if let Change::Import(_, record) = change {
                ranges.push(there(keys.record(Table::Statuses, image, &record.signature.name)));
            }
        }
        Change::SetStatus(_, name, Some(_), _) => {
            ranges.push(TxnOp::get(keys.record(Table::Signatures, image, name), None));
        }
        Change::Remove(_, name) | Change::SetStatus(_, name, None, _) => {
            ranges.push(there(keys.record(Table::Signatures, image, name)));
        }
        Change::ClearStatuses(_) => {
            ranges.push(get_all_below(keys.image(Table::Statuses, image), GetOptions::new().with_keys_only()));
        }
    }
    ranges
}

pub(super) fn plan(keys: &Keys, change: &Change, found: &ImageState, limits: &ImageLimits) -> Plan {
    let image = change.image();
    let delete = |table, name: &SignatureName| TxnOp::delete(keys.record(table, image, name), None);
    let nothing = Plan { outcome: Changed::Signatures(0), operations: Vec::new() };
    match change {
        Change::Put(_, record) => {
            let put = check_quota(record, found, limits);
            let operations = if put == Put::Created { write(keys, image, record) } else { Vec::new() };
            Plan { outcome: Changed::Put(put), operations }
        }
        Change::Import(_, record) => match check_quota(record, found, limits) {
            Put::Created => Plan { outcome: Changed::Put(Put::Created), operations: write(keys, image, record) },
            exists @ (Put::NameExists | Put::ContentExists) => complete(keys, image, record, found)
                .unwrap_or(Plan { outcome: Changed::Put(exists), operations: Vec::new() }),
            put => Plan { outcome: Changed::Put(put), operations: Vec::new() },
        },
        Change::Remove(_, name) if found.signatures.contains_key(name) => {
            Plan { outcome: Changed::Signatures(1), operations: Table::ALL.map(|table| delete(table, name)).into() }
        }
        Change::SetStatus(_, name, content, status) => match found.signatures.get(name) {
            None => nothing,
            Some(there) if !content.is_none_or(|content| content.matches(there.value())) => {
                Plan { outcome: Changed::Another, operations: Vec::new() }
            }
            Some(_) => {
                let operation = match status {
                    Some(status) => TxnOp::put(keys.record(Table::Statuses, image, name), json(status), None),
                    None => delete(Table::Statuses, name),
                };
                Plan { outcome: Changed::Signatures(1), operations: vec![operation] }
            }
        },
        Change::Remove(..) => nothing,
        Change::ClearStatuses(_) if found.statuses.is_empty() => nothing,
        Change::ClearStatuses(_) => {
            let all = DeleteOptions::new().with_prefix();
            Plan {
                outcome: Changed::Signatures(found.statuses.len()),
                operations: vec![TxnOp::delete(keys.image(Table::Statuses, image), Some(all))],
            }
        }
    }
}

fn check_quota(record: &Record, found: &ImageState, limits: &ImageLimits) -> Put {
    let mut quota = QuotaCheck::new(limits, record);
    for (name, pair) in &found.signatures {
        let origin: Option<Origin> =
            found.origins.get(name).and_then(|origin| serde_json::from_slice(origin.value()).ok());
        quota.count(name.as_str(), pair.value(), origin.as_ref().and_then(Origin::signer));
    }
    quota.decide()
}

/// Adds a missing origin and status to a signature that is there. Returns `None` if the signature there is another one.
fn complete(keys: &Keys, image: &ImageId, record: &Record, found: &ImageState) -> Option<Plan> {
    let name = &record.signature.name;
    found.signatures.get(name).filter(|there| *there.value() == *record.signature.content)?;
    let origin = record.origin.as_ref().filter(|_| !found.origins.contains_key(name)).map(json);
    let status = record.status.as_ref().filter(|_| !found.statuses.contains_key(name)).map(json);
    let put =
        |table, json: Option<_>| json.map(|json: Vec<u8>| TxnOp::put(keys.record(table, image, name), json, None));
    let operations: Vec<_> =
        [put(Table::Origins, origin), put(Table::Statuses, status)].into_iter().flatten().collect();
    let put = if operations.is_empty() { Put::Present } else { Put::Completed };
    Some(Plan { outcome: Changed::Put(put), operations })
}

fn write(keys: &Keys, image: &ImageId, record: &Record) -> Vec<TxnOp> {
    let Record { signature, origin, status } = record;
    let put = |table, value: Vec<u8>| TxnOp::put(keys.record(table, image, &signature.name), value, None);
    let mut operations = vec![put(Table::Signatures, signature.content.to_vec())];
    operations.extend(origin.as_ref().map(|origin| put(Table::Origins, json(origin))));
    operations.extend(status.as_ref().map(|status| put(Table::Statuses, json(status))));
    operations
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    // Strings and times always serialize to JSON.
    serde_json::to_vec(value).expect("strings are JSON")
}
