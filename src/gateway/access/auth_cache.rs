//! Answers that are remembered for seconds.

use std::{fmt, future::Future, time::Duration};

use aws_lc_rs::{hmac, rand::SystemRandom};
use moka::sync::Cache;
use tokio::time::Instant;

use super::{AccessError, fair_queue::Class};
use crate::single_flight::{SingleFlight, Unwanted};

/// Answers that are kept at the most.
const MOST: u64 = 10_000;
/// No answer is kept for longer.
const LONGEST: Duration = Duration::from_mins(1);
/// How long credentials that were good have turns of their own.
const PROVEN_FOR: Duration = Duration::from_hours(1);

/// What was asked, under a key of this process: no password or token can be read or guessed from what is kept.
pub(super) type Question = [u8; 32];

/// Answers by question. Errors are never kept, and one question is asked once at a time.
pub(super) struct Remembered<V> {
    key: hmac::Key,
    kept: Cache<Question, Kept<V>>,
    flights: SingleFlight<Question, Result<V, AccessError>>,
}

#[derive(Clone, Copy)]
struct Kept<V> {
    answer: V,
    until: Instant,
}

impl<V: Clone + Send + Sync + 'static> Remembered<V> {
    /// Nothing: the system has no randomness.
    pub(super) fn new() -> Option<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        let kept = Cache::builder().max_capacity(MOST).time_to_live(LONGEST).build();
        Some(Self { key, kept, flights: SingleFlight::new(Unwanted::Finishes) })
    }

    /// The question with these parts.
    pub(super) fn question(&self, parts: &[&[u8]]) -> Question {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            // With its length, so that "ab" + "c" is another question than "a" + "bc".
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let tag = context.sign();
        let mut question = Question::default();
        question.copy_from_slice(tag.as_ref());
        question
    }

    /// The answer that is remembered, or else what `ask` gives, kept for as long as `keep` says.
    pub(super) async fn get<F>(
        &self,
        question: Question,
        keep: impl FnOnce(&V) -> Duration + Send + 'static,
        ask: impl FnOnce() -> F,
    ) -> Result<V, AccessError>
    where
        F: Future<Output = Result<V, AccessError>> + Send + 'static,
    {
        if let Some(kept) = self.kept.get(&question)
            && Instant::now() < kept.until
        {
            return Ok(kept.answer);
        }
        // From when it was asked, not from when the answer came: it may have been old by then.
        let asked = Instant::now();
        let start = || {
            let (kept, answer) = (self.kept.clone(), ask());
            async move {
                let answer = answer.await?;
                let time = keep(&answer).min(LONGEST);
                if !time.is_zero() {
                    kept.insert(question, Kept { answer: answer.clone(), until: asked + time });
                }
                Ok(answer)
            }
        };
        let landed = self.flights.join(&question, start).await;
        landed.answer.unwrap_or_else(|| Err(AccessError::unavailable()))
    }
}

/// Questions that had a good answer not long ago: whoever asks one is no guesser, however many guess.
pub(super) struct Proven(Cache<Question, ()>);

impl Proven {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(MOST).time_to_live(PROVEN_FOR).build())
    }

    /// It had one now.
    pub(super) fn add(&self, question: Question) {
        self.0.insert(question, ());
    }

    /// In whose turn the answer is found again.
    pub(super) fn class(&self, question: &Question) -> Class {
        if self.0.contains_key(question) { Class::Proven } else { Class::Unproven }
    }
}

impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proven").finish_non_exhaustive()
    }
}

impl<V> fmt::Debug for Remembered<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    #[derive(Clone, Default)]
    struct Counted(Arc<AtomicU32>);

    impl Counted {
        async fn get(&self, remembered: &Remembered<bool>, text: &str, answer: Result<bool, AccessError>) -> bool {
            let question = remembered.question(&[text.as_bytes()]);
            let count = self.0.clone();
            let asked = remembered.get(
                question,
                |yes| if *yes { TEN } else { Duration::from_secs(2) },
                || async move {
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    answer
                },
            );
            asked.await.unwrap_or(false)
        }

        fn asked(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_yes_is_kept_longer_than_a_no_and_an_error_not_at_all() {
        let (remembered, counted) = (Remembered::new().unwrap(), Counted::default());
        assert!(counted.get(&remembered, "a", Ok(true)).await);
        assert!(!counted.get(&remembered, "b", Ok(false)).await);
        assert!(!counted.get(&remembered, "c", Err(AccessError::unavailable())).await);
        assert_eq!(counted.asked(), 3);
        assert!(counted.get(&remembered, "a", Ok(false)).await);
        assert!(!counted.get(&remembered, "b", Ok(true)).await);
        assert_eq!(counted.asked(), 3);
        assert!(counted.get(&remembered, "c", Ok(true)).await);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(counted.get(&remembered, "b", Ok(true)).await);
        assert!(counted.get(&remembered, "a", Ok(false)).await);
        assert_eq!(counted.asked(), 5);
        tokio::time::advance(Duration::from_secs(8)).await;
        assert!(!counted.get(&remembered, "a", Ok(false)).await);
    }

    #[tokio::test]
    async fn who_asks_the_same_at_once_shares_one_answer() {
        let (remembered, counted) = (Remembered::new().unwrap(), Counted::default());
        let all = (0..20).map(|_| counted.get(&remembered, "a", Ok(true)));
        assert!(futures_util::future::join_all(all).await.into_iter().all(|yes| yes));
        assert_eq!(counted.asked(), 1);
    }

    #[tokio::test]
    async fn a_question_s_parts_have_borders() {
        let remembered = Remembered::<bool>::new().unwrap();
        assert_ne!(remembered.question(&[b"ab", b"c"]), remembered.question(&[b"a", b"bc"]));
        assert_ne!(
            remembered.question(&[b"a"]),
            Remembered::<bool>::new().unwrap().question(&[b"a"]),
            "each process has a key of its own"
        );
    }
}
