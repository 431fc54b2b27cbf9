//! A cache of signature lists, valid while it is certain that they are up to date.
//!
//! The [watch](super::watch) reports which images change, and proves repeatedly that it has reported every change up to
//! a moment. A list is returned only if that moment is recent.

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use tokio::time::Instant;

use crate::gateway::store::{
    ImageId, SignatureList,
    list_cache::{ListCache, Version},
};

/// The maximum staleness of a list.
const MAX_STALENESS: Duration = Duration::from_secs(3);

pub(super) struct WatchedLists {
    cache: ListCache,
    /// Every change committed before this moment is known; `None` if there is no watch.
    complete_until: RwLock<Option<Instant>>,
}

impl WatchedLists {
    pub(super) fn new() -> Self {
        Self { cache: ListCache::new(), complete_until: RwLock::new(None) }
    }

    /// Returns a list that is recent enough.
    pub(super) fn get(&self, image: &ImageId, now: Instant) -> Option<SignatureList> {
        let complete_until = (*self.complete_until.read().unwrap_or_else(PoisonError::into_inner))?;
        if now.saturating_duration_since(complete_until) > MAX_STALENESS {
            return None;
        }
        self.cache.get(image)
    }

    /// Returns the version of an image's list. Take it before a list is read that should be cached.
    pub(super) fn version(&self, image: &ImageId) -> Version {
        self.cache.version(image)
    }

    /// Caches a list, unless the image may have changed since it was read.
    pub(super) fn keep(&self, image: &ImageId, version: Version, list: SignatureList) {
        self.cache.keep(image, version, list);
    }

    /// Forgets the list of an image that changed.
    pub(super) fn forget(&self, image: &ImageId) {
        self.cache.forget(image);
    }

    /// Forgets all lists, and returns none until a new watch has proved that it works.
    pub(super) fn forget_all(&self) {
        self.is_complete_until(None);
        self.cache.forget_all();
    }

    /// Sets the moment up to which all changes are known; `None` if the watch has ended.
    pub(super) fn is_complete_until(&self, moment: Option<Instant>) {
        *self.complete_until.write().unwrap_or_else(PoisonError::into_inner) = moment;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gateway::store::RepositoryName, image::Digest};

    #[test]
    fn nothing_is_given_out_without_a_watch_that_proves_itself_all_the_time() {
        let image = ImageId { repository: RepositoryName::parse("web").unwrap(), digest: Digest::sha256(b"") };
        let (lists, now) = (WatchedLists::new(), Instant::now());
        let is_given_out = |now| lists.get(&image, now).is_some();
        lists.keep(&image, lists.version(&image), SignatureList::new(&image, Vec::new()));
        assert!(!is_given_out(now), "there is no watch yet");
        lists.is_complete_until(Some(now));
        assert!(is_given_out(now + MAX_STALENESS));
        assert!(!is_given_out(now + MAX_STALENESS + Duration::from_millis(1)), "the proof is old");
        lists.is_complete_until(None);
        assert!(!is_given_out(now), "the watch is lost");
        lists.forget_all();
        lists.is_complete_until(Some(now));
        assert!(!is_given_out(now), "what was missed meanwhile is not known");
    }
}
