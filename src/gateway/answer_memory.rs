//! Bounds the memory of answers that are on their way to clients.
//!
//! A list of signatures stays in memory until its client has taken all of it, and a client may be as slow as
//! [`STALL_TIMEOUT`](super::stall_guard::STALL_TIMEOUT) allows. The cache of lists bounds only what it keeps itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use actix_web::web::Bytes;

use super::{error::ApiError, stall_guard::MAX_PIECE_BYTES};
use crate::fair_quota::{Lease, Quota};
use crate::server::Peer;

/// Bytes of the long bodies that are on their way to all clients together...
const MAX_BYTES: usize = 64 << 20;
/// ...or so many of the longest lists, where those take more.
const LONGEST_LISTS: usize = 4;

/// The bodies on their way, of all workers. A body that several answers to one client share counts once. Each client is charged
/// for it, since any of them may be the last that keeps it.
pub(super) struct AnswerMemory {
    quota: Arc<Quota<Peer>>,
    limit: usize,
    /// By the address of their bytes, and by client.
    shared: Mutex<SharedBodies>,
}

type SharedBodies = HashMap<(usize, Peer), Weak<Lease<Peer>>>;

/// Counts a body until it is dropped. `None` for a body that is sent at once.
pub(super) type HeldBody = Option<Arc<Lease<Peer>>>;

impl AnswerMemory {
    /// Makes memory that no body has yet. A list has at most `list_bytes`.
    pub(super) fn for_lists_of(list_bytes: usize) -> Self {
        let limit = MAX_BYTES.max(list_bytes.saturating_mul(LONGEST_LISTS));
        Self { quota: Arc::default(), limit, shared: Mutex::default() }
    }

    /// Counts a body on its way to a client.
    ///
    /// # Errors
    /// Those on their way take too much memory, or too much of it for one client.
    pub(super) fn hold(&self, client: Peer, body: &Bytes) -> Result<HeldBody, ApiError> {
        if body.len() <= MAX_PIECE_BYTES {
            return Ok(None);
        }
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        // While one of them is held, its bytes are there, and no others can be where they are.
        let key = (body.as_ptr().addr(), client);
        if let Some(held) = shared.get(&key).and_then(Weak::upgrade) {
            return Ok(Some(held));
        }
        let mut lease = Lease::new(&self.quota, client);
        if !lease.take(body.len(), self.limit) {
            return Err(ApiError::too_fast(
                "too many long answers are on their way to clients that take them slowly; try again",
            ));
        }
        let held = Arc::new(lease);
        shared.retain(|_, held| held.strong_count() > 0);
        shared.insert(key, Arc::downgrade(&held));
        Ok(Some(held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> Peer {
        Peer::of([192, 0, 2, number].into())
    }

    #[test]
    fn the_longest_list_that_the_configuration_lets_there_be_finds_room() {
        for list_bytes in [4 << 20, MAX_BYTES + 1] {
            let memory = AnswerMemory::for_lists_of(list_bytes);
            assert!(memory.hold(client(1), &Bytes::from(vec![0; list_bytes])).is_ok());
        }
    }

    #[test]
    fn long_bodies_on_their_way_are_bounded_and_one_client_leaves_others_room() {
        let memory = AnswerMemory::for_lists_of(4 << 20);
        let body = || Bytes::from(vec![0; 1 << 20]);
        let mut taken = Vec::new();
        while let body = body()
            && let Ok(held) = memory.hold(client(1), &body)
        {
            taken.push((body, held));
        }
        assert_eq!(taken.len(), MAX_BYTES / (1 << 20) / 4 * 3);
        assert!(memory.hold(client(2), &body()).is_ok());
        // What is sent at once, and what is on its way already, takes no more of it.
        assert!(memory.hold(client(1), &Bytes::from(vec![0; MAX_PIECE_BYTES])).is_ok());
        let again: Vec<_> = (0..1000).map(|_| memory.hold(client(1), &taken[0].0).unwrap()).collect();
        assert!(memory.hold(client(1), &body()).is_err());
        drop((taken, again));
        assert!(memory.quota.is_unused());
        assert!(memory.hold(client(1), &body()).is_ok());
        assert!(memory.shared.lock().unwrap().len() <= 1, "those that are over are forgotten");
    }

    #[test]
    fn each_client_is_charged_for_a_body_that_it_shares_with_another() {
        let memory = AnswerMemory::for_lists_of(4 << 20);
        let body = |megabytes: usize| Bytes::from(vec![0; megabytes << 20]);
        let (list, others) = (body(4), body(44));
        // One client is at its share, and gets no more of what another one takes.
        let all_of_one = memory.hold(client(1), &others).unwrap();
        let of_two = memory.hold(client(2), &list).unwrap();
        assert!(memory.hold(client(1), &list).is_err());
        drop(all_of_one);
        // The one that stays longer is the one that is charged.
        let of_one = memory.hold(client(1), &list).unwrap();
        drop(of_two);
        assert!(memory.hold(client(1), &body(45)).is_err(), "it has 4 of the 48 MiB that it may have");
        assert!(memory.hold(client(2), &body(45)).is_ok());
        drop(of_one);
        assert!(memory.quota.is_unused() && memory.hold(client(1), &body(45)).is_ok());
    }
}
