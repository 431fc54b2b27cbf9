//! The tables of the file, their keys, and reads of them.

use std::{ops::Bound, sync::Arc};

use redb::{Database, ReadableDatabase, TableDefinition, TableError, WriteTransaction};

use crate::gateway::store::{ImageId, Position, RepositoryName, SignatureName};
use crate::image::Digest;

/// The table of signatures; see the module `redb`.
pub(super) const SIGNATURES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("signatures");
pub(super) const ORIGINS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("origins");
pub(super) const STATUSES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("statuses");
pub(super) const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
pub(super) const FORMAT_KEY: &str = "format";
/// The format that this version writes, and the only one that it reads.
pub(super) const FORMAT: u64 = 1;

/// Returns the prefix of an image's keys: `repository NUL digest NUL`.
pub(super) fn prefix(image: &ImageId) -> String {
    format!("{}\0{}\0", image.repository.as_str(), image.digest)
}

/// Returns the first key after all that begin with this prefix.
pub(super) fn end(prefix: &str) -> String {
    format!("{}\u{1}", &prefix[..prefix.len() - 1])
}

pub(super) fn key(image: &ImageId, name: &SignatureName) -> String {
    format!("{}{}", prefix(image), name.as_str())
}

pub(super) fn parse_key(key: &str) -> Option<(ImageId, SignatureName)> {
    let (repository, rest) = key.split_once('\0')?;
    let (digest, name) = rest.split_once('\0')?;
    let image = ImageId { repository: RepositoryName::parse(repository).ok()?, digest: Digest::parse(digest).ok()? };
    Some((image, SignatureName::parse(name)?))
}

/// Returns the key of the signature before a position. A position is unambiguous, since `@` and `/` can't occur where
/// they would be confused.
pub(super) fn key_of(position: &Position) -> String {
    let (image, name) = position.as_str().rsplit_once('/').unwrap_or((position.as_str(), ""));
    let (repository, digest) = image.split_once('@').unwrap_or((image, ""));
    format!("{repository}\0{digest}\0{name}")
}

/// The record of a signature, as the file has it.
pub(super) struct RawRecord {
    pub(super) key: Box<str>,
    pub(super) content: Arc<[u8]>,
    pub(super) origin: Option<Box<[u8]>>,
    pub(super) status: Option<Box<[u8]>>,
}

pub(super) fn read_records(
    database: &Database,
    range: &(Bound<String>, Bound<String>),
    limit: usize,
) -> Result<Vec<RawRecord>, redb::Error> {
    let transaction = database.begin_read()?;
    let signatures = transaction.open_table(SIGNATURES)?;
    // A file of an earlier version has these tables only once something is in them.
    let [origins, statuses] = [ORIGINS, STATUSES].map(|table| match transaction.open_table(table) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error),
    });
    let (origins, statuses) = (origins?, statuses?);
    let range = (range.0.as_ref().map(String::as_str), range.1.as_ref().map(String::as_str));
    let mut records = Vec::new();
    for entry in signatures.range::<&str>(range)?.take(limit) {
        let (key, content) = entry?;
        let key = key.value();
        let known = |table: &Option<redb::ReadOnlyTable<&'static str, &'static [u8]>>| match table {
            Some(table) => Ok::<_, redb::Error>(table.get(key)?.map(|json| Box::from(json.value()))),
            None => Ok(None),
        };
        let (origin, status) = (known(&origins)?, known(&statuses)?);
        records.push(RawRecord { key: key.into(), content: content.value().into(), origin, status });
    }
    Ok(records)
}

/// A signature, as the file has it.
pub(super) type NameAndContent = (Box<str>, Arc<[u8]>);

/// Reads all signatures of an image.
pub(super) fn read(database: &Database, image: &ImageId) -> Result<Vec<NameAndContent>, redb::Error> {
    let table = database.begin_read()?.open_table(SIGNATURES)?;
    let prefix = prefix(image);
    let mut signatures = Vec::new();
    for entry in table.range::<&str>(prefix.as_str()..end(&prefix).as_str())? {
        let (key, content) = entry?;
        signatures.push((key.value()[prefix.len()..].into(), content.value().into()));
    }
    Ok(signatures)
}

/// Begins a transaction whose commit is durable and final. With the default one-phase commit, redb mistakes a damaged
/// last commit for one that a crash cut off, and silently returns to the previous one.
pub(super) fn begin_write(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}
