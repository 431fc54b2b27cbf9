//! The keys below the store's prefix.

use etcd_client::{GetOptions, TxnOp};

use crate::gateway::store::{ImageId, Position, RepositoryName, SignatureName};
use crate::image::Digest;

/// The parts of a signature's record, each below a prefix of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Signatures,
    Origins,
    Statuses,
}

impl Table {
    /// All tables, signatures first.
    pub(super) const ALL: [Self; 3] = [Self::Signatures, Self::Origins, Self::Statuses];

    fn name(self) -> &'static str {
        match self {
            Self::Signatures => "signatures",
            Self::Origins => "origins",
            Self::Statuses => "statuses",
        }
    }
}

/// Makes and parses keys.
pub(super) struct Keys {
    prefix: Box<str>,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Returns the prefix of all keys.
    pub(super) fn everything(&self) -> Vec<u8> {
        format!("{}/", self.prefix).into_bytes()
    }

    pub(super) fn format(&self) -> Vec<u8> {
        format!("{}/format", self.prefix).into_bytes()
    }

    /// Returns the prefix of the keys of all histories.
    pub(super) fn histories(&self) -> Vec<u8> {
        format!("{}/images/", self.prefix).into_bytes()
    }

    pub(super) fn history(&self, image: &ImageId) -> Vec<u8> {
        format!("{}/images/{}@{}", self.prefix, image.repository.as_str(), image.digest).into_bytes()
    }

    /// Returns the prefix of a table's keys of this image. No repository contains an `@`, and no digest or name a `/`.
    pub(super) fn image(&self, table: Table, image: &ImageId) -> Vec<u8> {
        let (repository, digest) = (image.repository.as_str(), &image.digest);
        format!("{}{repository}@{digest}/", self.table(table)).into_bytes()
    }

    pub(super) fn record(&self, table: Table, image: &ImageId, name: &SignatureName) -> Vec<u8> {
        [&self.image(table, image), name.as_str().as_bytes()].concat()
    }

    pub(super) fn position(&self, table: Table, position: &Position) -> Vec<u8> {
        format!("{}{}", self.table(table), position.as_str()).into_bytes()
    }

    /// Returns the range of all keys of a table.
    pub(super) fn all(&self, table: Table) -> [Vec<u8>; 2] {
        let from = self.table(table);
        // '0' is the character after '/'.
        let end = format!("{}0", &from[..from.len() - 1]);
        [from, end].map(String::into_bytes)
    }

    /// Converts a key, or the end of a range, between the table of signatures and another table.
    pub(super) fn same(&self, table: Table, key: &[u8]) -> Vec<u8> {
        let rest = Table::ALL.iter().find_map(|&of| key.strip_prefix(self.table(of).as_bytes()));
        [self.table(table).as_bytes(), rest.unwrap_or_default()].concat()
    }

    /// Parses a key of a table.
    pub(super) fn parse(&self, key: &[u8]) -> Option<(Table, ImageId, SignatureName)> {
        let key = std::str::from_utf8(key).ok()?;
        let (table, rest) =
            Table::ALL.iter().find_map(|&table| Some((table, key.strip_prefix(&self.table(table))?)))?;
        let (image, name) = rest.rsplit_once('/')?;
        Some((table, parse_image(image)?, SignatureName::parse(name)?))
    }

    /// Parses the key of a history.
    pub(super) fn parse_history(&self, key: &[u8]) -> Option<ImageId> {
        parse_image(std::str::from_utf8(key.strip_prefix(&*self.histories())?).ok()?)
    }

    fn table(&self, table: Table) -> String {
        format!("{}/{}/", self.prefix, table.name())
    }
}

fn parse_image(text: &str) -> Option<ImageId> {
    let (repository, digest) = text.split_once('@')?;
    Some(ImageId { repository: RepositoryName::parse(repository).ok()?, digest: Digest::parse(digest).ok()? })
}

/// Makes the operation that reads all keys with a prefix.
pub(super) fn get_all_below(key: Vec<u8>, options: GetOptions) -> TxnOp {
    TxnOp::get(key, Some(options.with_prefix()))
}

/// Returns the first key behind this one.
pub(super) fn just_behind(key: &[u8]) -> Vec<u8> {
    [key, b"\0"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_were_made_and_no_image_is_in_the_range_of_another() {
        let keys = Keys::new("/sealgate");
        let image = |repository| ImageId {
            repository: RepositoryName::parse(repository).unwrap(),
            digest: Digest::sha256(b"1"),
        };
        let name = SignatureName::parse(&"a.".repeat(16)).unwrap();
        for repository in ["web", "acme/web", "acme/web/signatures/images"] {
            let image = image(repository);
            for table in Table::ALL {
                let key = keys.record(table, &image, &name);
                assert_eq!(keys.parse(&key), Some((table, image.clone(), name.clone())));
                assert!(key.starts_with(&keys.image(table, &image)));
                let [from, end] = keys.all(table);
                assert!(from <= key && key < end);
                assert_eq!(keys.same(Table::Signatures, &key), keys.record(Table::Signatures, &image, &name));
                assert_eq!(keys.position(table, &Position::behind(&image, &name)), key);
            }
            assert_eq!(keys.parse_history(&keys.history(&image)), Some(image.clone()));
        }
        let web = keys.image(Table::Signatures, &image("acme/web"));
        for other in ["acme/web2", "acme/web/x", "acme"] {
            assert!(!keys.record(Table::Signatures, &image(other), &name).starts_with(&web), "{other}");
        }
        for foreign in ["", "/sealgate/format", "/sealgate/signatures/x", "/sealgate2/signatures/web@sha256:00/x"] {
            assert_eq!(keys.parse(foreign.as_bytes()), None, "{foreign}");
        }
    }
}
