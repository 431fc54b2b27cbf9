//! Gateways over one etcd, and its members, are killed at any moment, while clients write.

use std::sync::Arc;

use tokio::{runtime::Handle, sync::Mutex, task::spawn_blocking, time::sleep};

use super::members::Members;
use crate::{
    gateway::{
        kills::{Victim, kills, registry},
        ledger::{Ledger, LedgerClient, Sum, Writers},
    },
    support::{Random, Scratch},
};

/// So that a dead leader is replaced sooner, and more fits into a minute.
const QUICK_ELECTIONS: &[&str] = &["--heartbeat-interval", "50", "--election-timeout", "500"];

/// What became of members.
#[derive(Debug, Default)]
struct Deaths {
    /// Of one, while the others had a majority; of the one that led among them.
    alone: usize,
    leading: usize,
    /// Of all of them at once, and how often.
    together: usize,
    cycles: usize,
}

impl Deaths {
    fn all(&self) -> usize {
        self.alone + self.together
    }
}

impl Members {
    /// Kills one and then another, with a majority left, now and then the one that leads, and now and then all three at once.
    /// No gateway is killed by who has to take its turn first.
    async fn die(&mut self, goal: usize, gateways: &Mutex<()>, ledger: &Ledger, random: &mut Random) -> Deaths {
        let mut deaths = Deaths::default();
        for round in 0.. {
            if deaths.all() >= goal && deaths.leading >= goal / 6 && deaths.cycles >= goal / 12 {
                break;
            }
            sleep(random.millis(300)).await;
            let first = if round % 3 == 0 { self.leader().await } else { random.below(3) };
            if round % 6 == 5 {
                // Now and then until a gateway, which lives, has given up: what it is at is not acknowledged.
                let long = deaths.cycles % 3 == 0;
                let _spared = if long { Some(gateways.lock().await) } else { None };
                for number in 0..3 {
                    self.kill((first + number) % 3);
                }
                if long {
                    ledger.miss_an_answer().await;
                } else {
                    sleep(random.millis(500)).await;
                }
                for number in 0..3 {
                    self.start_one((first + number) % 3);
                }
                (deaths.together, deaths.cycles) = (deaths.together + 3, deaths.cycles + 1);
            } else {
                self.kill(first);
                sleep(random.millis(300)).await;
                self.start_one(first);
                if random.below(4) == 0 {
                    // While it starts, too.
                    sleep(random.millis(300)).await;
                    self.kill(first);
                    self.start_one(first);
                    deaths.alone += 1;
                }
                deaths.leading += usize::from(round % 3 == 0);
                deaths.alone += 1;
            }
            for number in 0..3 {
                self.healthy(number).await;
            }
        }
        deaths
    }
}

/// One serves while the other is killed.
async fn die_in_turn(
    gateways: &mut [Victim; 2],
    goal: usize,
    turn: &Mutex<()>,
    writers: &Writers,
    random: &mut Random,
) {
    for number in (0..2).cycle() {
        if gateways.iter().map(|gateway| gateway.kills).sum::<usize>() >= goal {
            return;
        }
        let _turn = turn.lock().await;
        gateways[number].die(writers, random).await;
    }
}

fn gateway(folder: &Scratch, number: usize, members: &Members, registry: &str) -> Victim {
    let endpoints = [0, 1, 2].map(|number| members.endpoint(number)).join(", ");
    let text = format!(
        "apiVersion: sealgate.dev/v1\nkind: Configuration\ngateway:\n  listen: 127.0.0.1:0\n  registry: {{url: \
         '{registry}'}}\n  store: {{etcd: {{endpoints: [{endpoints}], prefix: /sealgate}}}}\n"
    );
    Victim::new(number, folder.write(&format!("{number}.yaml"), text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_gateways_and_etcd_members_lose_no_acknowledged_write() {
    let (registry, folder, mut random) = (registry("127.0.0.1:0"), Scratch::new(), Random::seeded());
    let mut members = Members::start_with(QUICK_ELECTIONS).await;
    let mut gateways = [0, 1].map(|number| gateway(&folder, number, &members, &registry.url()));
    gateways.iter_mut().for_each(Victim::serve);
    let places = gateways.each_ref().map(|gateway| Arc::clone(&gateway.place));
    let writers = Writers::start(&places, LedgerClient::anonymous(), &mut random);
    let (mut other, turn) = (random.fork(), Arc::new(Mutex::new(())));
    let (spared, ledger) = (Arc::clone(&turn), Arc::clone(&writers.ledger));
    // Beside, so that gateways start while members are gone, too.
    let dying = spawn_blocking(move || {
        let deaths = Handle::current().block_on(members.die(kills(60), &spared, &ledger, &mut other));
        (members, deaths)
    });
    die_in_turn(&mut gateways, kills(80), &turn, &writers, &mut random).await;
    let (_members, deaths) = dying.await.unwrap();
    let sum = writers.end().await;
    let [killed, busy] = [|gateway: &Victim| gateway.kills, |gateway: &Victim| gateway.busy]
        .map(|count| gateways.iter().map(count).sum::<usize>());
    eprintln!("{killed} kills of gateways, {busy} of them under way; of members {deaths:?}; {sum:?}");
    assert!(killed >= 80 && busy > 0, "{busy} of {killed}");
    assert!(deaths.all() >= 60 && deaths.leading >= 10 && deaths.cycles >= 5, "{deaths:?}");
    assert!(sum.refused >= Sum::fewest_refused(sum.acknowledged) && sum.unanswered > 0, "{sum:?}");
}
