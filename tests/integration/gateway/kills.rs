//! What is left when a gateway is killed, at whatever moment.

use std::{path::PathBuf, sync::Arc};

use tokio::{
    task::{block_in_place, yield_now},
    time::sleep,
};

use super::{
    fake::Fake,
    ledger::{LedgerClient, Place, Sum, Writers, image},
    program::{address, command, configuration, registry_at},
};
use crate::support::{Process, Random, Scratch};

/// How often something is killed: so often, or as many times that as `SEALGATE_TEST_KILLS` says.
pub(crate) fn kills(usual: usize) -> usize {
    let times = std::env::var("SEALGATE_TEST_KILLS").ok();
    usual * times.map_or(1, |times| times.parse().expect("SEALGATE_TEST_KILLS is a number"))
}

/// How many changes are acknowledged, of whichever gateway, between two kills of one.
const ACKNOWLEDGED_EACH: usize = 5;

/// A registry whose every repository has the image that [`Writers`] write about.
pub(crate) fn registry(address: &str) -> Fake {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close";
    Fake::says_at(address, &format!("{head}\r\nDocker-Content-Digest: {}\r\n\r\n", image()))
}

/// A gateway that is killed again and again.
pub(crate) struct Victim {
    configuration: PathBuf,
    pub(crate) place: Arc<Place>,
    process: Option<Process>,
    /// Its place in the ledger, and how much of that it has been asked about.
    number: usize,
    looked: usize,
    pub(crate) kills: usize,
    /// How often it had to [die](Self::die), and how often a client waited for its answer then.
    turns: usize,
    pub(crate) busy: usize,
}

impl Victim {
    pub(crate) fn new(number: usize, configuration: PathBuf) -> Self {
        Self { configuration, place: Arc::default(), process: None, number, looked: 0, kills: 0, turns: 0, busy: 0 }
    }

    /// Starts it; it serves a moment later.
    fn start(&mut self) -> &mut Process {
        self.process.insert(Process::start(&mut command(&self.configuration)))
    }

    /// Starts it, and has it serve.
    pub(crate) fn serve(&mut self) {
        let place = Arc::clone(&self.place);
        let process = self.start();
        place.opens(format!("http://{}", block_in_place(|| address(process))));
    }

    /// Kills it while it serves, three times of four while a client waits for its answer, now and then once more while it
    /// starts, and has it serve again; then it has all that was acknowledged.
    pub(crate) async fn die(&mut self, writers: &Writers, random: &mut Random) {
        writers.write(ACKNOWLEDGED_EACH).await;
        sleep(random.millis(100)).await;
        self.turns += 1;
        if !self.turns.is_multiple_of(4) {
            while !self.place.is_busy() {
                writers.are_well();
                yield_now().await;
            }
            self.busy += 1;
        }
        self.kill();
        while random.below(4) == 0 {
            self.start();
            sleep(random.millis(150)).await;
            self.kill();
        }
        self.serve();
        writers.ledger.check(self.number, &mut self.looked).await;
        writers.are_well();
    }

    fn kill(&mut self) {
        self.kills += 1;
        self.process.take().expect("it was started").kill();
        self.place.closes();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_eighty_times_at_any_moment_has_all_that_it_acknowledged() {
    let (registry, folder, mut random) = (registry("127.0.0.1:0"), Scratch::new(), Random::seeded());
    let mut gateway = Victim::new(0, configuration(&folder, "127.0.0.1:0", &registry_at(&registry.url())));
    let writers = Writers::start(&[Arc::clone(&gateway.place)], LedgerClient::anonymous(), &mut random);
    gateway.serve();
    while gateway.kills < kills(80) {
        gateway.die(&writers, &mut random).await;
    }
    let sum = writers.end().await;
    eprintln!("{} kills, {} of them under way: {sum:?}", gateway.kills, gateway.busy);
    assert!(gateway.kills >= 80 && gateway.busy > 0, "{} of {}", gateway.busy, gateway.kills);
    assert!(sum.refused >= Sum::fewest_refused(sum.acknowledged), "{sum:?}");
}
