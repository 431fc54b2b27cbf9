//! Runs verifications: on a bounded number of threads, fairly by repository host and by namespace, and no longer than a caller
//! waits.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;

use crate::verification::Allowance;

/// A bounded number of permits to verify, each for a thread. They are handed out to one host after the other; no host has the
/// last one, so that what is dear for one does not keep the next one waiting. Within a host they are handed out to one namespace
/// after the other: many clusters have all images at one host, where each team can attach signatures to its own.
#[derive(Clone, Debug)]
pub(super) struct Workers(Arc<Mutex<WorkerQueue>>);

#[derive(Debug)]
struct WorkerQueue {
    threads: usize,
    running: usize,
    by_host: HashMap<Box<str>, Host>,
    /// The hosts for which a caller waits, in the order of their turns.
    turns: VecDeque<Box<str>>,
}

#[derive(Debug, Default)]
struct Host {
    running: usize,
    /// Of each namespace that waits, in the order in which they came.
    waiting: HashMap<Arc<str>, VecDeque<oneshot::Sender<Permit>>>,
    /// The namespaces that wait, in the order of their turns.
    turns: VecDeque<Arc<str>>,
}

impl Host {
    fn push(&mut self, namespace: &Arc<str>, sender: oneshot::Sender<Permit>) {
        let waiting = self.waiting.entry(Arc::clone(namespace)).or_default();
        waiting.push_back(sender);
        if waiting.len() == 1 {
            self.turns.push_back(Arc::clone(namespace));
        }
    }

    fn pop(&mut self) -> Option<oneshot::Sender<Permit>> {
        let namespace = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&namespace)?;
        let sender = waiting.pop_front()?;
        if waiting.is_empty() {
            self.waiting.remove(&namespace);
        } else {
            self.turns.push_back(namespace);
        }
        Some(sender)
    }

    fn is_waiting(&self) -> bool {
        !self.turns.is_empty()
    }
}

/// Lets one verification run, for a host.
#[derive(Debug)]
struct Permit {
    /// `None` once it has been given back.
    queue: Option<Arc<Mutex<WorkerQueue>>>,
    host: Box<str>,
}

impl Workers {
    /// As many threads as there are processors; two at least, since no host gets the last one.
    pub(super) fn new() -> Self {
        Self::with_threads(std::thread::available_parallelism().map_or(2, NonZeroUsize::get))
    }

    fn with_threads(threads: usize) -> Self {
        let (by_host, turns) = (HashMap::new(), VecDeque::new());
        Self(Arc::new(Mutex::new(WorkerQueue { threads: threads.max(2), running: 0, by_host, turns })))
    }

    /// Runs `work` on a thread of its own once it is the turn of this host and of the namespace that asks. Where the future is
    /// dropped, `work` is not begun any more, or told by [`Abandoned`]. Returns `None` if it panicked or the program ends.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        host: &str,
        namespace: &Arc<str>,
        work: impl FnOnce(&Abandoned) -> T + Send + 'static,
    ) -> Option<T> {
        let permit = self.permit(host, namespace).await?;
        let abandoned = Abandoned::default();
        let _tell = AbandonOnDrop(abandoned.clone());
        let working = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&abandoned)
        });
        working.await.ok()
    }

    async fn permit(&self, host: &str, namespace: &Arc<str>) -> Option<Permit> {
        let waiting = {
            let mut queue = lock(&self.0);
            if queue.may_run(host) {
                return Some(self.start(&mut queue, host.into()));
            }
            let (sender, receiver) = oneshot::channel();
            let lane = queue.by_host.entry(host.into()).or_default();
            let is_first = !lane.is_waiting();
            lane.push(namespace, sender);
            if is_first {
                queue.turns.push_back(host.into());
            }
            receiver
        };
        waiting.await.ok()
    }

    fn start(&self, queue: &mut WorkerQueue, host: Box<str>) -> Permit {
        queue.running += 1;
        queue.by_host.entry(host.clone()).or_default().running += 1;
        Permit { queue: Some(Arc::clone(&self.0)), host }
    }

    /// Hands out what is free.
    fn hand_out(&self) {
        loop {
            let (sender, permit) = {
                let mut queue = lock(&self.0);
                let Some((host, sender)) = queue.next() else { return };
                (sender, self.start(&mut queue, host))
            };
            // Sent with the queue free: where no caller waits any more, the permit comes back, and the next one has it.
            if let Err(unwanted) = sender.send(permit) {
                unwanted.give_back();
            }
        }
    }
}

impl WorkerQueue {
    fn may_run(&self, host: &str) -> bool {
        let of_host = self.by_host.get(host).map_or(0, |lane| lane.running);
        self.running < self.threads && of_host + 1 < self.threads
    }

    /// Takes the next one who waits out of the queue: of the first host that may have another permit, which then waits behind
    /// the other hosts.
    fn next(&mut self) -> Option<(Box<str>, oneshot::Sender<Permit>)> {
        let place = self.turns.iter().position(|host| self.may_run(host))?;
        let host = self.turns.remove(place)?;
        let lane = self.by_host.get_mut(&host)?;
        let sender = lane.pop()?;
        if lane.is_waiting() {
            self.turns.push_back(host.clone());
        }
        Some((host, sender))
    }

    fn stop(&mut self, host: &str) {
        self.running -= 1;
        if let Some(lane) = self.by_host.get_mut(host) {
            lane.running -= 1;
            if lane.running == 0 && !lane.is_waiting() {
                self.by_host.remove(host);
            }
        }
    }
}

impl Permit {
    fn give_back(mut self) {
        if let Some(queue) = self.queue.take() {
            lock(&queue).stop(&self.host);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            lock(&queue).stop(&self.host);
            Workers(queue).hand_out();
        }
    }
}

fn lock(queue: &Mutex<WorkerQueue>) -> MutexGuard<'_, WorkerQueue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A flag that is set once no caller waits for a piece of work any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct AbandonOnDrop(Abandoned);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// CPU time that is left for verifications that belong together.
#[derive(Debug)]
pub(super) struct CpuBudget(AtomicU64);

impl CpuBudget {
    pub(super) fn new(microseconds: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(microseconds)))
    }

    /// Takes a price. Where that is not left, nothing is left from here on.
    fn take(&self, price: u64) -> bool {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(price));
        if taken.is_err() {
            self.0.store(0, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    /// Returns what is left, in microseconds.
    pub(super) fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn is_over(&self) -> bool {
        self.left() == 0
    }
}

/// The allowance of one verification: what it takes from the budgets of its question and its review.
pub(super) struct CpuAllowance<'a> {
    pub(super) question: &'a CpuBudget,
    pub(super) review: &'a CpuBudget,
    pub(super) abandoned: &'a Abandoned,
}

impl Allowance for CpuAllowance<'_> {
    fn take(&self, price: u64) -> bool {
        !self.abandoned.get() && self.review.take(price) && self.question.take(price)
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::Pin, sync::mpsc, time::Duration};

    use futures_util::FutureExt;

    use super::*;

    const EVIL: &str = "evil.example.com";
    const GOOD: &str = "registry.example.com";
    const TEST_TIMEOUT: Duration = Duration::from_mins(1);

    type Waiting<'a> = Pin<Box<dyn Future<Output = Option<Permit>> + 'a>>;

    fn waits<'a>(workers: &'a Workers, host: &'a str) -> Waiting<'a> {
        waits_in(workers, host, "shop")
    }

    fn waits_in<'a>(workers: &'a Workers, host: &'a str, namespace: &'a str) -> Waiting<'a> {
        let mut waiting: Waiting<'a> = Box::pin(async move { workers.permit(host, &namespace.into()).await });
        assert!((&mut waiting).now_or_never().is_none(), "{host} waits");
        waiting
    }

    fn at_once(workers: &Workers, host: &str) -> Permit {
        workers.permit(host, &"shop".into()).now_or_never().expect("it does not wait").expect("there is one")
    }

    fn is_empty(workers: &Workers) -> bool {
        let queue = lock(&workers.0);
        queue.running == 0 && queue.by_host.is_empty() && queue.turns.is_empty()
    }

    #[test]
    fn however_much_one_host_has_to_verify_the_next_host_does_not_wait() {
        for threads in [0, 1, 2, 3, 8] {
            let workers = Workers::with_threads(threads);
            let running: Vec<_> = (1..threads.max(2)).map(|_| at_once(&workers, EVIL)).collect();
            let crowd: Vec<_> = (0..100).map(|_| waits(&workers, EVIL)).collect();
            let good = at_once(&workers, GOOD);
            let last = waits(&workers, "another.example.com");
            drop(good);
            drop(last.now_or_never().expect("it is the only one who may have it").unwrap());
            drop(crowd);
            drop(running);
            assert!(is_empty(&workers), "{workers:?}");
        }
    }

    #[test]
    fn hosts_take_turns_however_much_one_of_them_has_to_verify() {
        let workers = Workers::with_threads(2);
        let (one, other) = (at_once(&workers, EVIL), at_once(&workers, GOOD));
        let mut crowd: Vec<_> = (0..10).map(|_| waits(&workers, EVIL)).collect();
        let mut good = [waits(&workers, GOOD), waits(&workers, GOOD)];
        let mut third = waits(&workers, "third.example.com");
        drop(one);
        let turn = (&mut crowd[0]).now_or_never().expect("the first of the crowd").unwrap();
        assert!((&mut crowd[1]).now_or_never().is_none());
        drop(other);
        let second = (&mut good[0]).now_or_never().expect("then the next host").unwrap();
        drop(turn);
        let last = (&mut third).now_or_never().expect("then the third").unwrap();
        drop(second);
        let again = (&mut crowd[1]).now_or_never().expect("and then the first again").unwrap();
        assert!((&mut good[1]).now_or_never().is_none());
        drop((last, again));
    }

    #[test]
    fn namespaces_of_one_host_take_turns_however_much_one_of_them_has_to_verify() {
        let workers = Workers::with_threads(2);
        let running = at_once(&workers, GOOD);
        let mut crowd: Vec<_> = (0..100).map(|_| waits_in(&workers, GOOD, "greedy")).collect();
        let mut own = [waits_in(&workers, GOOD, "shop"), waits_in(&workers, GOOD, "shop")];
        let mut third = waits_in(&workers, GOOD, "payments");
        drop(running);
        let first = (&mut crowd[0]).now_or_never().expect("who came first").unwrap();
        drop(first);
        let second = (&mut own[0]).now_or_never().expect("then the next namespace").unwrap();
        drop(second);
        let last = (&mut third).now_or_never().expect("then the third").unwrap();
        drop(last);
        let again = (&mut crowd[1]).now_or_never().expect("and then the first again").unwrap();
        assert!((&mut own[1]).now_or_never().is_none());
        drop((crowd, own, third));
        drop(again);
        assert!(is_empty(&workers), "{workers:?}");
    }

    #[test]
    fn a_caller_that_left_the_queue_takes_no_turn_and_leaves_nothing_behind() {
        let workers = Workers::with_threads(2);
        let (one, other) = (at_once(&workers, EVIL), at_once(&workers, GOOD));
        let gone: Vec<_> = (0..10).map(|_| waits(&workers, EVIL)).collect();
        let mut last = waits(&workers, EVIL);
        drop(gone);
        drop(one);
        drop((&mut last).now_or_never().expect("those before it are gone").unwrap());
        drop(other);
        assert!(is_empty(&workers), "{workers:?}");
    }

    #[tokio::test]
    async fn no_more_run_at_once_than_there_are_threads_and_all_are_done() {
        const JOBS: usize = 64;
        let workers = Workers::with_threads(3);
        let (running, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let jobs = (0..JOBS).map(|number| {
            let (workers, running, most) = (workers.clone(), Arc::clone(&running), Arc::clone(&most));
            tokio::spawn(async move {
                let host = format!("{}.example.com", number % 5);
                let work = move |_: &Abandoned| {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                };
                workers.run(&host, &"shop".into(), work).await
            })
        });
        for job in jobs.collect::<Vec<_>>() {
            assert_eq!(job.await.unwrap(), Some(()));
        }
        assert!(most.load(Ordering::SeqCst) <= 3, "{most:?}");
        assert!(is_empty(&workers), "{workers:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn work_that_no_caller_waits_for_any_more_is_told_so_and_gives_its_permit_back() {
        let workers = Workers::with_threads(2);
        let ((begun, has_begun), (ended, has_ended)) = (mpsc::channel(), mpsc::channel());
        let caller = tokio::spawn({
            let workers = workers.clone();
            async move {
                let work = move |abandoned: &Abandoned| {
                    begun.send(()).unwrap();
                    while !abandoned.get() {
                        std::thread::yield_now();
                    }
                    ended.send(()).unwrap();
                };
                workers.run(EVIL, &"shop".into(), work).await
            }
        });
        tokio::task::spawn_blocking(move || has_begun.recv_timeout(TEST_TIMEOUT).unwrap()).await.unwrap();
        let next = waits(&workers, EVIL);
        caller.abort();
        tokio::task::spawn_blocking(move || has_ended.recv_timeout(TEST_TIMEOUT).unwrap()).await.unwrap();
        drop(tokio::time::timeout(TEST_TIMEOUT, next).await.expect("the permit came back").unwrap());
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_permit_back() {
        let workers = Workers::with_threads(2);
        assert_eq!(workers.run(EVIL, &"shop".into(), |_| -> u8 { panic!("a bug") }).await, None);
        assert_eq!(workers.run(EVIL, &"shop".into(), |_| 7).await, Some(7));
    }

    #[test]
    fn what_a_review_or_a_question_has_left_bounds_what_is_taken_and_is_over_for_good() {
        for (question, review, expected) in [(100, 1_000, 3), (1_000, 100, 3), (100, 99, 3), (90, 90, 3), (89, 90, 2)] {
            let (question, review) = (CpuBudget::new(question), CpuBudget::new(review));
            let abandoned = Abandoned::default();
            let spending = CpuAllowance { question: &question, review: &review, abandoned: &abandoned };
            assert_eq!((0..10).take_while(|_| spending.take(30)).count(), expected);
            assert!(question.is_over() || review.is_over());
            assert!(!spending.take(1), "a cheaper step is no way around");
        }
        let (question, review, abandoned) = (CpuBudget::new(10), CpuBudget::new(10), Abandoned::default());
        drop(AbandonOnDrop(abandoned.clone()));
        assert!(!CpuAllowance { question: &question, review: &review, abandoned: &abandoned }.take(1));
        assert!(!question.is_over() && !review.is_over());
    }
}
