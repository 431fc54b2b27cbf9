//! Lists of signatures that were read before, for as long as it is known that they are what etcd has.
//!
//! The [watch](super::watch) says which images change, and proves again and again that it has said all of it up to a
//! moment. A list is given out only if that moment lies not far back.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use moka::sync::Cache;
use tokio::time::Instant;

use super::{ImageId, StoredSignature};

/// The most that a list may be behind what etcd has.
const LONGEST_BEHIND: Duration = Duration::from_secs(3);
/// Memory for lists.
const BYTES: u64 = 64 << 20;
/// What a list, and each signature in it, takes beside its content.
const ENTRY_BYTES: usize = 512;
/// Into how many groups images are put. One that changes keeps those from being kept that are read at the moment.
const GROUPS: usize = 256;

type List = Arc<[StoredSignature]>;

pub(super) struct Lists {
    kept: Cache<ImageId, List>,
    hasher: RandomState,
    /// How often an image of the group has changed. Held while lists are kept and forgotten.
    changes: Mutex<[u64; GROUPS]>,
    /// All that was committed before is known. Nothing: there is no watch.
    complete_until: RwLock<Option<Instant>>,
}

/// Taken before a list is read; says whether its image has changed since.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    group: usize,
    changes: u64,
}

impl Lists {
    pub(super) fn new() -> Self {
        let weight = |image: &ImageId, list: &List| {
            let contents: usize = list.iter().map(|signature| signature.content.len() + ENTRY_BYTES).sum();
            u32::try_from(image.repository.as_str().len() + ENTRY_BYTES + contents).unwrap_or(u32::MAX)
        };
        Self {
            kept: Cache::builder().max_capacity(BYTES).weigher(weight).build(),
            hasher: RandomState::new(),
            changes: Mutex::new([0; GROUPS]),
            complete_until: RwLock::new(None),
        }
    }

    /// A list that lies not too far behind.
    pub(super) fn get(&self, image: &ImageId, now: Instant) -> Option<List> {
        let complete_until = (*self.complete_until.read().unwrap_or_else(PoisonError::into_inner))?;
        if now.saturating_duration_since(complete_until) > LONGEST_BEHIND {
            return None;
        }
        self.kept.get(image)
    }

    /// To be taken before a list is read that is to be kept.
    pub(super) fn ticket(&self, image: &ImageId) -> Ticket {
        let group = usize::try_from(self.hasher.hash_one(image) % GROUPS as u64).unwrap_or(0);
        Ticket { group, changes: self.changes()[group] }
    }

    /// Keeps a list, unless the image may have changed since it was read.
    pub(super) fn keep(&self, image: &ImageId, ticket: Ticket, list: List) {
        let changes = self.changes();
        if changes[ticket.group] == ticket.changes {
            self.kept.insert(image.clone(), list);
        }
    }

    /// The image has changed.
    pub(super) fn forget(&self, image: &ImageId) {
        let group = self.ticket(image).group;
        let mut changes = self.changes();
        changes[group] += 1;
        self.kept.invalidate(image);
    }

    /// All may have changed, and there is no telling until a new watch has proved that it is there.
    pub(super) fn forget_all(&self) {
        self.is_complete_until(None);
        let mut changes = self.changes();
        changes.iter_mut().for_each(|changes| *changes += 1);
        self.kept.invalidate_all();
    }

    /// What was committed before this moment was told; nothing: it is not told any more.
    pub(super) fn is_complete_until(&self, moment: Option<Instant>) {
        *self.complete_until.write().unwrap_or_else(PoisonError::into_inner) = moment;
    }

    fn changes(&self) -> MutexGuard<'_, [u64; GROUPS]> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gateway::store::{RepositoryName, SignatureName},
        image::Digest,
    };

    fn image(repository: &str) -> ImageId {
        ImageId { repository: RepositoryName::parse(repository).unwrap(), digest: Digest::sha256(b"") }
    }

    fn list(number: usize) -> List {
        let name = SignatureName::parse(&format!("{number:032}")).unwrap();
        [StoredSignature { name, content: b"content".as_slice().into() }].into()
    }

    fn kept(lists: &Lists, image: &ImageId, list: List) {
        lists.keep(image, lists.ticket(image), list);
    }

    #[test]
    fn nothing_is_given_out_without_a_watch_that_proves_itself_all_the_time() {
        let (lists, web, now) = (Lists::new(), image("web"), Instant::now());
        kept(&lists, &web, list(1));
        assert_eq!(lists.get(&web, now), None, "there is no watch yet");
        lists.is_complete_until(Some(now));
        assert_eq!(lists.get(&web, now + LONGEST_BEHIND), Some(list(1)));
        assert_eq!(lists.get(&web, now + LONGEST_BEHIND + Duration::from_millis(1)), None, "the proof is old");
        lists.is_complete_until(None);
        assert_eq!(lists.get(&web, now), None, "the watch is lost");
        lists.forget_all();
        lists.is_complete_until(Some(now));
        assert_eq!(lists.get(&web, now), None, "what was missed meanwhile is not known");
    }

    #[test]
    fn what_changes_is_forgotten_even_while_it_is_read() {
        let (lists, web, now) = (Lists::new(), image("web"), Instant::now());
        lists.is_complete_until(Some(now));
        kept(&lists, &web, list(1));
        lists.forget(&web);
        assert_eq!(lists.get(&web, now), None);
        let ticket = lists.ticket(&web);
        lists.forget(&web);
        lists.keep(&web, ticket, list(1));
        assert_eq!(lists.get(&web, now), None, "it was read before the change");
        let ticket = lists.ticket(&web);
        lists.forget_all();
        lists.is_complete_until(Some(now));
        lists.keep(&web, ticket, list(1));
        assert_eq!(lists.get(&web, now), None, "it was read before the watch began");
        kept(&lists, &web, list(2));
        assert_eq!(lists.get(&web, now), Some(list(2)));
    }

    #[test]
    fn lists_take_no_more_memory_than_they_may() {
        let (lists, now) = (Lists::new(), Instant::now());
        lists.is_complete_until(Some(now));
        let name = SignatureName::parse(&"a".repeat(32)).unwrap();
        let megabyte: List = [StoredSignature { name, content: vec![0; 1 << 20].into() }].into();
        for number in 0..100 {
            kept(&lists, &image(&format!("web{number}")), Arc::clone(&megabyte));
        }
        lists.kept.run_pending_tasks();
        assert!((1..64).contains(&lists.kept.entry_count()), "{}", lists.kept.entry_count());
    }
}
