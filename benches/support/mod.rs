//! What benchmarks share: servers beside the clients, and two sides that take turns.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A server in a thread of its own, stopped when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start<F>(serve: impl FnOnce(TcpListener, tokio::sync::oneshot::Receiver<()>) -> F + Send) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let server = serve(listener, stopped);
        let thread = std::thread::spawn(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap()
                .block_on(server);
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How often a second `threads` threads did their work, each for itself, within a time. `worker` makes a thread's work, which
/// begins once all have theirs.
pub(crate) fn per_second<W: FnMut()>(threads: usize, time: Duration, worker: impl Fn() -> W + Sync) -> f64 {
    let (over, done, ready) = (AtomicBool::new(false), AtomicU64::new(0), Barrier::new(threads + 1));
    let started = std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut work = worker();
                ready.wait();
                while !over.load(Ordering::Relaxed) {
                    work();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        ready.wait();
        let started = Instant::now();
        std::thread::sleep(time);
        over.store(true, Ordering::Relaxed);
        started
    });
    #[allow(clippy::cast_precision_loss)] // Far below 2^52.
    let done = done.into_inner() as f64;
    done / started.elapsed().as_secs_f64()
}

/// Two sides that are measured in turn, in short rounds, so that what else the machine does hits both. The median of the
/// rounds' ratios counts.
pub(crate) struct Turns {
    /// What is compared with, and what is measured.
    pub(crate) sides: [&'static str; 2],
    pub(crate) unit: &'static str,
    pub(crate) rounds: usize,
    /// The ratio to meet.
    pub(crate) target: f64,
}

impl Turns {
    /// Measures; whether the ratio is met.
    pub(crate) fn take(&self, mut of_first: impl FnMut() -> f64, mut of_second: impl FnMut() -> f64) -> bool {
        let Self { sides: [first, second], unit, rounds, target } = self;
        let (mut firsts, mut seconds, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=*rounds {
            // Who begins changes too.
            let (a, b) = if round % 2 == 0 {
                let b = of_second();
                (of_first(), b)
            } else {
                (of_first(), of_second())
            };
            println!("round {round:>2}: {first} {a:>7.0}{unit}, {second} {b:>7.0}{unit}, ratio {:.2}", b / a);
            firsts.push(a);
            seconds.push(b);
            ratios.push(b / a);
        }
        let (a, b, ratio) = (median(&mut firsts), median(&mut seconds), median(&mut ratios));
        println!("median:   {first} {a:>7.0}{unit}, {second} {b:>7.0}{unit}, ratio {ratio:.2} (to meet: {target})");
        ratio >= *target
    }
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of[of.len() / 2]
}
