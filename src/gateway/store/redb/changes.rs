//! Applies changes to the file.

use redb::{Database, ReadableTable, StorageError};

use super::tables::{ORIGINS, SIGNATURES, STATUSES, begin_write, end, key, prefix};
use crate::gateway::store::{Change, Changed, ImageId, ImageLimits, Origin, Put, Record, quota::QuotaCheck};

/// Writes a batch of changes in one transaction.
pub(super) fn write(database: &Database, limits: &ImageLimits, batch: &[Change]) -> Result<Vec<Changed>, redb::Error> {
    let transaction = begin_write(database)?;
    let (outcomes, changed) = {
        let mut tables = Tables {
            signatures: transaction.open_table(SIGNATURES)?,
            origins: transaction.open_table(ORIGINS)?,
            statuses: transaction.open_table(STATUSES)?,
            changed: false,
        };
        let outcomes: Vec<Changed> =
            batch.iter().map(|change| tables.make(change, limits)).collect::<Result<_, StorageError>>()?;
        (outcomes, tables.changed)
    };
    if changed {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(outcomes)
}

type WriteTable<'a> = redb::Table<'a, &'static str, &'static [u8]>;

/// The open tables of a transaction.
struct Tables<'a> {
    signatures: WriteTable<'a>,
    origins: WriteTable<'a>,
    statuses: WriteTable<'a>,
    changed: bool,
}

impl Tables<'_> {
    fn make(&mut self, change: &Change, limits: &ImageLimits) -> Result<Changed, StorageError> {
        Ok(match change {
            Change::Put(image, record) => Changed::Put(self.put(image, record, limits)?),
            Change::Import(image, record) => Changed::Put(match self.put(image, record, limits)? {
                exists @ (Put::NameExists | Put::ContentExists) => self.complete(image, record)?.unwrap_or(exists),
                put => put,
            }),
            Change::Remove(image, name) => {
                let key = key(image, name);
                let removed = self.signatures.remove(key.as_str())?.is_some();
                self.origins.remove(key.as_str())?;
                self.statuses.remove(key.as_str())?;
                self.signatures(usize::from(removed))
            }
            Change::SetStatus(image, name, content, status) => {
                let key = key(image, name);
                match self.signatures.get(key.as_str())? {
                    None => return Ok(Changed::Signatures(0)),
                    Some(there) if !content.is_none_or(|content| content.matches(there.value())) => {
                        return Ok(Changed::Another);
                    }
                    Some(_) => {}
                }
                match status {
                    Some(status) => drop(self.statuses.insert(key.as_str(), &*json(status))?),
                    None => drop(self.statuses.remove(key.as_str())?),
                }
                self.signatures(1)
            }
            Change::ClearStatuses(image) => {
                let prefix = prefix(image);
                let mut cleared = 0;
                self.statuses.retain_in::<&str, _>(prefix.as_str()..end(&prefix).as_str(), |_, _| {
                    cleared += 1;
                    false
                })?;
                self.signatures(cleared)
            }
        })
    }

    fn signatures(&mut self, number: usize) -> Changed {
        self.changed |= number > 0;
        Changed::Signatures(number)
    }

    fn put(&mut self, image: &ImageId, record: &Record, limits: &ImageLimits) -> Result<Put, StorageError> {
        let put = self.check_quota(image, record, limits)?;
        if put == Put::Created {
            let key = key(image, &record.signature.name);
            self.signatures.insert(key.as_str(), &*record.signature.content)?;
            self.write_details(&key, record)?;
            self.changed = true;
        }
        Ok(put)
    }

    /// Checks whether the image may have another signature. Takes one range read, which the limits bound.
    fn check_quota(&self, image: &ImageId, record: &Record, limits: &ImageLimits) -> Result<Put, StorageError> {
        let prefix = prefix(image);
        let mut quota = QuotaCheck::new(limits, record);
        for entry in self.signatures.range::<&str>(prefix.as_str()..end(&prefix).as_str())? {
            let (key, content) = entry?;
            let key = key.value();
            let origin: Option<Origin> =
                self.origins.get(key)?.and_then(|json| serde_json::from_slice(json.value()).ok());
            let signer = origin.as_ref().and_then(Origin::signer);
            quota.count(&key[prefix.len()..], content.value(), signer);
        }
        Ok(quota.decide())
    }

    /// Adds a missing origin and status to a signature that is there. Returns `None` if the signature there is another
    /// one.
    fn complete(&mut self, image: &ImageId, record: &Record) -> Result<Option<Put>, StorageError> {
        let key = key(image, &record.signature.name);
        match self.signatures.get(key.as_str())? {
            Some(content) if *content.value() == *record.signature.content => {}
            _ => return Ok(None),
        }
        let missing = |table: &WriteTable<'_>| Ok::<_, StorageError>(table.get(key.as_str())?.is_none());
        let record = Record {
            signature: record.signature.clone(),
            origin: if missing(&self.origins)? { record.origin.clone() } else { None },
            status: if missing(&self.statuses)? { record.status.clone() } else { None },
        };
        self.write_details(&key, &record)?;
        let completed = record.origin.is_some() || record.status.is_some();
        self.changed |= completed;
        Ok(Some(if completed { Put::Completed } else { Put::Present }))
    }

    fn write_details(&mut self, key: &str, record: &Record) -> Result<(), StorageError> {
        if let Some(origin) = &record.origin {
            self.origins.insert(key, &*json(origin))?;
        }
        if let Some(status) = &record.status {
            self.statuses.insert(key, &*json(status))?;
        }
        Ok(())
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    // Strings and times always serialize to JSON.
    serde_json::to_vec(value).expect("strings are JSON")
}
