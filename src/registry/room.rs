//! The memory that answers may take while they are under way, all together.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Bytes that every answer may have without asking: most manifests and lists are far smaller.
pub(super) const FREE: usize = 64 << 10;
/// Bytes of all answers together, where no single one may need more than a quarter of it.
const ALL: usize = 96 << 20;

/// Room for the bodies of answers that are larger than [`FREE`].
///
/// Whoever may create pods chooses which registries are asked, and a registry how long its answer takes. So a host gets a
/// quarter of the room, and all hosts together that nobody named get half of it: what they hold back, others don't miss.
///
/// Room is taken in one step, and nothing is held while it is waited for; so those who wait can't block each other.
pub(super) struct Room {
    all: usize,
    taken: Mutex<Taken>,
    given_back: Notify,
}

#[derive(Default)]
struct Taken {
    all: usize,
    unnamed: usize,
    hosts: HashMap<Box<str>, usize>,
}

/// Some of the room, until it is dropped.
pub(crate) struct Reserved {
    room: Arc<Room>,
    bytes: usize,
    host: Box<str>,
    named: bool,
}

impl Room {
    /// `largest` is what a single answer may need.
    pub(super) fn new(largest: usize) -> Arc<Self> {
        let all = ALL.max(largest.saturating_mul(4));
        Arc::new(Self { all, taken: Mutex::default(), given_back: Notify::new() })
    }

    /// Waits for room for so many bytes of a host's. It waits for ever where they are more than a quarter of the room.
    pub(super) async fn take(self: &Arc<Self>, bytes: usize, host: &str, named: bool) -> Reserved {
        loop {
            let mut given_back = pin!(self.given_back.notified());
            // From here on nothing that is given back is missed.
            given_back.as_mut().enable();
            if let Some(reserved) = self.try_take(bytes, host, named) {
                return reserved;
            }
            given_back.await;
        }
    }

    fn try_take(self: &Arc<Self>, bytes: usize, host: &str, named: bool) -> Option<Reserved> {
        let mut taken = self.taken();
        let of_host = taken.hosts.get(host).copied().unwrap_or(0);
        let fits = |taken: usize, part: usize| taken.checked_add(bytes).is_some_and(|bytes| bytes <= part);
        if !fits(taken.all, self.all) || !fits(of_host, self.all / 4) || !(named || fits(taken.unnamed, self.all / 2)) {
            return None;
        }
        taken.all += bytes;
        *taken.hosts.entry(host.into()).or_default() += bytes;
        if !named {
            taken.unnamed += bytes;
        }
        Some(Reserved { room: Arc::clone(self), bytes, host: host.into(), named })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let Self { room, bytes, host, named } = self;
        let mut taken = room.taken();
        taken.all -= *bytes;
        if !*named {
            taken.unnamed -= *bytes;
        }
        if let Some(of_host) = taken.hosts.get_mut(&**host) {
            *of_host -= *bytes;
            if *of_host == 0 {
                taken.hosts.remove(&**host);
            }
        }
        drop(taken);
        room.given_back.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const LARGEST: usize = 4 << 20;

    fn fits(room: &Arc<Room>, host: &str, named: bool) -> Option<Reserved> {
        room.take(LARGEST, host, named).now_or_never()
    }

    /// Takes the largest answers for as long as there is room.
    fn fill(room: &Arc<Room>, mut host: impl FnMut(usize) -> String, named: bool) -> Vec<Reserved> {
        (0..).map_while(|number| fits(room, &host(number), named)).collect()
    }

    #[test]
    fn a_host_gets_a_quarter_and_hosts_that_nobody_named_get_half() {
        let room = Room::new(LARGEST);
        let greedy = fill(&room, |_| "r.example.com".into(), true);
        assert_eq!(greedy.len() * LARGEST, ALL / 4);
        let many = fill(&room, |number| format!("{number}.example.org"), false);
        assert_eq!(many.len() * LARGEST, ALL / 2);
        assert!(fits(&room, "s.example.com", true).is_some());
        let rest = fill(&room, |number| format!("{number}.example.com"), true);
        assert_eq!(room.taken().all, ALL);
        drop((greedy, many, rest));
        let taken = room.taken();
        assert!(taken.all == 0 && taken.unnamed == 0 && taken.hosts.is_empty());
    }

    #[test]
    fn a_limit_that_was_raised_leaves_room_for_four_such_answers() {
        let room = Room::new(ALL);
        assert!(room.try_take(ALL, "r.example.com", false).is_some());
    }

    #[tokio::test]
    async fn all_who_wait_have_their_turn() {
        let room = Room::new(LARGEST);
        let mut all = tokio::task::JoinSet::new();
        for number in 0..200 {
            let room = Arc::clone(&room);
            all.spawn(async move {
                let reserved = room.take(LARGEST, &format!("{}.example.com", number % 7), number % 2 == 0).await;
                tokio::task::yield_now().await;
                drop(reserved);
            });
        }
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
        assert_eq!(room.taken().all, 0);
    }

    #[test]
    fn who_stops_waiting_has_taken_nothing() {
        let room = Room::new(LARGEST);
        let full = fill(&room, |_| "r.example.com".into(), true);
        assert!(fits(&room, "r.example.com", true).is_none());
        drop(full);
        assert_eq!(room.taken().all, 0);
    }
}
