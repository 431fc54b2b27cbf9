//! A store of a million signatures against one of a thousand.

use std::{
    fs,
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sealgate::gateway::store::{Change, ImageLimits, SignatureStore as _, redb::RedbStore};

use crate::{
    ROUND, ROUNDS, WARM_UP,
    client::{get_each, gets},
    folder,
    program::{configuration, gateway, registry_of_all},
    signed,
    support::Turns,
};

const FEW: u64 = 1000;
const MANY: u64 = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
/// Images of the many that are asked for in the worst case: more than the store keeps of in memory, lists or pages, and few
/// enough for it to remember that everyone may pull them.
const TOO_MANY: u64 = if cfg!(debug_assertions) { 2_000 } else { 60_000 };
/// What is signed does not matter to a store; it is real, and varies.
const SIGNATURES: u64 = 1024;
/// Changes that wait for the writer.
const AT_ONCE: usize = 1024;

pub(crate) fn measure() -> bool {
    let (few_folder, many_folder, (registry, asked)) = (folder(), folder(), registry_of_all());
    let signatures = signed::signatures(0..SIGNATURES);
    for (folder, number) in [(&few_folder, FEW), (&many_folder, MANY)] {
        let file = folder.path().join("signatures.redb");
        let written = fill(&file, number, &signatures);
        let started = Instant::now();
        drop(RedbStore::open(&file, ImageLimits::default()).unwrap());
        let opened = started.elapsed();
        let mib = fs::metadata(&file).unwrap().len() >> 20;
        println!("{number} signatures: written in {written:.1?}; {mib} MiB; checked and opened in {opened:.2?}");
    }
    let few = gateway(&configuration(few_folder.path(), registry.address));
    let many = gateway(&configuration(many_folder.path(), registry.address));
    // Evenly out of all that there are.
    let path_of = |number: u64, of: u64, there: u64| signed::path(&signed::image(number % of * (there / of)));
    let of_few = |number| path_of(number, FEW, FEW);
    let of_as_many = |number| path_of(number, FEW, MANY);
    let of_too_many = |number| path_of(number, TOO_MANY, MANY);
    get_each(few.address, FEW, of_few);
    get_each(many.address, FEW, of_as_many);
    gets(few.address, WARM_UP, of_few);
    gets(many.address, WARM_UP, of_as_many);
    let before = asked.load(Ordering::Relaxed);
    let turns = Turns { sides: ["a thousand", "a million"], unit: "/s", rounds: ROUNDS, target: 0.8 };
    let met = turns.take(|| gets(few.address, ROUND, of_few), || gets(many.address, ROUND, of_as_many));
    assert_eq!(asked.load(Ordering::Relaxed), before, "what the registry said is remembered");

    println!("the worst case: {TOO_MANY} images of the million at random, more than is kept in memory");
    get_each(many.address, TOO_MANY, of_too_many);
    let turns = Turns { rounds: ROUNDS / 2, target: 0.5, ..turns };
    turns.take(|| gets(few.address, ROUND, of_few), || gets(many.address, ROUND, of_too_many)) && met
}

/// Makes a store; how long it took.
fn fill(file: &Path, number: u64, signatures: &[Vec<u8>]) -> Duration {
    let started = Instant::now();
    let store = RedbStore::open(file, ImageLimits::default()).unwrap();
    let content = |number: u64| &signatures[usize::try_from(number % SIGNATURES).unwrap()];
    let imports = stream::iter(0..number)
        .map(|number| store.change(Change::Import(signed::image(number), signed::record(number, content(number)))));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(imports.buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) })).unwrap();
    started.elapsed()
}
