//! A cache of signature lists, valid until they change.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use moka::sync::Cache;

use super::{image_id::ImageId, quota::ImageLimits, signature_list::SignatureList};

/// The maximum memory of the lists, in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// The approximate memory of a list, and of each signature in it, beside the content and its encoded form, in bytes.
const ENTRY_BYTES: usize = 256;
/// The number of groups of images. A change of an image keeps lists of its group that are being read out of the cache.
const GROUPS: usize = 256;

/// The lists of one engine.
pub(super) struct ListCache {
    lists: Cache<ImageId, SignatureList>,
    hasher: RandomState,
    /// The number of changes in each group. Locked while lists are added and removed.
    changes: Mutex<[u64; GROUPS]>,
}

/// The version of an image's list. It tells whether the image has changed since a list was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Version {
    group: usize,
    changes: u64,
}

impl ListCache {
    pub(super) fn new() -> Self {
        let weight = |image: &ImageId, list: &SignatureList| {
            let signatures = list.iter().map(|signature| signature.content.len());
            let bytes: usize = signatures.map(|length| length + ImageLimits::listed_bytes(length) + ENTRY_BYTES).sum();
            u32::try_from(image.repository.as_str().len() + ENTRY_BYTES + bytes).unwrap_or(u32::MAX)
        };
        Self {
            lists: Cache::builder().max_capacity(MAX_BYTES).weigher(weight).build(),
            hasher: RandomState::new(),
            changes: Mutex::new([0; GROUPS]),
        }
    }

    pub(super) fn get(&self, image: &ImageId) -> Option<SignatureList> {
        self.lists.get(image)
    }

    /// Returns the version of an image's list. Take it before a list is read that should be cached.
    pub(super) fn version(&self, image: &ImageId) -> Version {
        let group = usize::try_from(self.hasher.hash_one(image) % GROUPS as u64).unwrap_or(0);
        Version { group, changes: self.changes()[group] }
    }

    /// Caches a list, unless the image may have changed since it was read.
    pub(super) fn keep(&self, image: &ImageId, version: Version, list: SignatureList) {
        let changes = self.changes();
        if changes[version.group] == version.changes {
            self.lists.insert(image.clone(), list);
        }
    }

    /// Forgets the list of an image that changed.
    pub(super) fn forget(&self, image: &ImageId) {
        let group = self.version(image).group;
        let mut changes = self.changes();
        changes[group] += 1;
        self.lists.invalidate(image);
    }

    /// Forgets all lists, because every image may have changed.
    pub(super) fn forget_all(&self) {
        let mut changes = self.changes();
        changes.iter_mut().for_each(|changes| *changes += 1);
        self.lists.invalidate_all();
    }

    fn changes(&self) -> MutexGuard<'_, [u64; GROUPS]> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::store::StoredSignature;
    use crate::{
        gateway::store::{RepositoryName, SignatureName},
        image::{Digest, digest::Algorithm},
    };

    fn image(repository: &str) -> ImageId {
        ImageId { repository: RepositoryName::parse(repository).unwrap(), digest: Digest::sha256(b"") }
    }

    fn signature(number: usize, length: usize) -> StoredSignature {
        let name = SignatureName::parse(&format!("{number:032}")).unwrap();
        StoredSignature { name, content: vec![0; length].into() }
    }

    fn list(number: usize) -> SignatureList {
        SignatureList::new(&image("web"), vec![signature(number, 1)])
    }

    #[test]
    fn what_changes_is_forgotten_even_while_it_is_read() {
        let (lists, web) = (ListCache::new(), image("web"));
        let is_kept = || lists.get(&web).is_some();
        lists.keep(&web, lists.version(&web), list(1));
        assert_eq!(lists.get(&web).unwrap(), [signature(1, 1)]);
        lists.forget(&web);
        assert!(!is_kept());
        let version = lists.version(&web);
        lists.forget(&web);
        lists.keep(&web, version, list(1));
        assert!(!is_kept(), "it was read before the change");
        lists.keep(&web, lists.version(&web), list(1));
        let version = lists.version(&web);
        lists.forget_all();
        assert!(!is_kept());
        lists.keep(&web, version, list(1));
        assert!(!is_kept(), "it was read before all was forgotten");
        lists.keep(&web, lists.version(&web), list(2));
        assert!(is_kept());
    }

    #[test]
    fn lists_take_no_more_memory_than_they_may() {
        let lists = ListCache::new();
        let megabyte = SignatureList::new(&image("web"), vec![signature(1, 1 << 20)]);
        for number in 0..100 {
            let image = image(&format!("web{number}"));
            lists.keep(&image, lists.version(&image), megabyte.clone());
        }
        lists.lists.run_pending_tasks();
        // What is sent of each is kept, too.
        assert!((1..28).contains(&lists.lists.entry_count()), "{}", lists.lists.entry_count());
    }

    #[test]
    fn a_list_is_what_all_clients_read_and_never_longer_than_it_was_counted() {
        for digest in [Digest::sha256(b""), Digest::of(Algorithm::Sha512, b"")] {
            let image = ImageId { repository: RepositoryName::parse("acme/web").unwrap(), digest };
            assert_eq!(SignatureList::new(&image, Vec::new()).encoded(), r#"{"signatures":[]}"#);
            let name = "a".repeat(32);
            for length in [0, 1, 2, 3, 1000] {
                let content = vec![0xff; length].into();
                let signature = StoredSignature { name: SignatureName::parse(&name).unwrap(), content };
                let encoded = SignatureList::new(&image, vec![signature]).encoded();
                assert!(encoded.len() <= ImageLimits::listed_bytes(length), "{length}: {}", encoded.len());
                let read: serde_json::Value = serde_json::from_slice(&encoded).unwrap();
                let entry = &read["signatures"][0];
                assert_eq!((&entry["schemaVersion"], &entry["version"]), (&2.into(), &2.into()));
                assert_eq!((&entry["type"], &entry["name"]), (&"atomic".into(), &format!("{digest}@{name}").into()));
            }
        }
    }
}
