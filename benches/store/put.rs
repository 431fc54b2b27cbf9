//! Durable PUTs through the endpoint, against what redb allows to as many writers, each of whom commits its own.

use std::sync::atomic::{AtomicU64, Ordering};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use redb::{Database, TableDefinition};

use crate::{
    CONNECTIONS, ROUND, ROUNDS, WARM_UP,
    client::Connection,
    folder,
    program::{configuration, gateway, registry_of_all},
    signed,
    support::{Turns, per_second},
};

const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("signatures");
/// Different signatures. Each is put into many repositories, once into each.
const SIGNATURES: u64 = 4096;

pub(crate) fn measure() -> bool {
    let signatures = signed::signatures(0..SIGNATURES);
    let bytes = signatures.iter().map(Vec::len).sum::<usize>() / signatures.len();
    println!("{SIGNATURES} signatures of {bytes} bytes, {CONNECTIONS} writers at once");
    let (folder, (registry, _)) = (folder(), registry_of_all());
    let gateway = gateway(&configuration(folder.path(), registry.address));
    let database = Database::builder();
    let raw = Raw::new(database_at(&folder, "raw.redb", database), &signatures);
    let grouped = Raw::new(database_at(&folder, "grouped.redb", Database::builder()), &signatures);

    let bodies: Vec<String> = (0..).zip(&signatures).map(|(number, content)| body(number, content)).collect();
    let next = AtomicU64::new(0);
    let puts = |time| {
        per_second(CONNECTIONS, time, || {
            let mut connection = Connection::to(gateway.address);
            let (next, bodies) = (&next, &bodies);
            move || {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let (path, body) = (path(number), &bodies[index(number)]);
                let length = body.len();
                let request =
                    format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
                let (status, body) = connection.exchange(request.as_bytes());
                assert_eq!(status, 201, "{}", String::from_utf8_lossy(body));
            }
        })
    };
    puts(WARM_UP);
    raw.each_its_own(WARM_UP);
    let turns = Turns { sides: ["raw redb", "PUT"], unit: "/s", rounds: ROUNDS, target: 0.5 };
    let met = turns.take(|| raw.each_its_own(ROUND), || puts(ROUND));
    println!("for information: raw redb where one writer commits {CONNECTIONS} at a time, as the store does");
    let turns = Turns { sides: ["grouped", "PUT"], unit: "/s", rounds: 5, target: 0.0 };
    turns.take(|| grouped.in_groups(ROUND), || puts(ROUND));
    met
}

fn index(number: u64) -> usize {
    usize::try_from(number % SIGNATURES).unwrap()
}

fn repository(number: u64) -> String {
    format!("acme/team-{}/web", number / SIGNATURES)
}

fn path(number: u64) -> String {
    format!("/extensions/v2/{}/signatures/{}", repository(number), signed::digest(number % SIGNATURES))
}

fn body(number: u64, content: &[u8]) -> String {
    let (digest, name, content) = (signed::digest(number), signed::name(number), BASE64_STANDARD.encode(content));
    format!(r#"{{"schemaVersion":2,"type":"atomic","name":"{digest}@{name}","content":"{content}"}}"#)
}

fn database_at(folder: &tempfile::TempDir, name: &str, mut builder: redb::Builder) -> Database {
    builder.set_cache_size(64 << 20).create(folder.path().join(name)).unwrap()
}

/// redb alone, with the keys and values that the store has.
struct Raw<'a> {
    database: Database,
    signatures: &'a [Vec<u8>],
    next: AtomicU64,
}

impl<'a> Raw<'a> {
    fn new(database: Database, signatures: &'a [Vec<u8>]) -> Self {
        Self { database, signatures, next: AtomicU64::new(0) }
    }

    fn insert(&self, table: &mut redb::Table<'_, &'static str, &'static [u8]>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (digest, name) = (signed::digest(number % SIGNATURES), signed::name(number % SIGNATURES));
        let key = format!("{}\0{digest}\0{name}", repository(number));
        table.insert(key.as_str(), self.signatures[index(number)].as_slice()).unwrap();
    }

    /// [`CONNECTIONS`] writers; commits are durable, which is redb's default.
    fn each_its_own(&self, time: std::time::Duration) -> f64 {
        per_second(CONNECTIONS, time, || {
            || {
                let transaction = self.database.begin_write().unwrap();
                self.insert(&mut transaction.open_table(TABLE).unwrap());
                transaction.commit().unwrap();
            }
        })
    }

    #[allow(clippy::cast_precision_loss)] // It is small.
    fn in_groups(&self, time: std::time::Duration) -> f64 {
        let commits = per_second(1, time, || {
            || {
                let mut transaction = self.database.begin_write().unwrap();
                transaction.set_two_phase_commit(true);
                {
                    let mut table = transaction.open_table(TABLE).unwrap();
                    (0..CONNECTIONS).for_each(|_| self.insert(&mut table));
                }
                transaction.commit().unwrap();
            }
        });
        commits * CONNECTIONS as f64
    }
}
