//! Lists of signatures through the endpoint, against a bare handler that answers the same bytes.

use std::{net::TcpListener, sync::atomic::Ordering};

use actix_web::{App, HttpResponse, HttpServer, web};
use sealgate::gateway::store::{Change, ImageLimits, SignatureStore as _, redb::RedbStore};
use tokio::sync::oneshot;

use crate::{
    ROUND, ROUNDS, WARM_UP,
    client::{Connection, get_each, gets},
    folder,
    program::{configuration, gateway, registry_of_all},
    signed,
    support::{Server, Turns},
};

const IMAGES: u64 = 1000;
/// Signatures of each.
const EACH: u64 = 2;

pub(crate) fn measure() -> bool {
    let (folder, (registry, asked)) = (folder(), registry_of_all());
    fill(&folder.path().join("signatures.redb"));
    let gateway = gateway(&configuration(folder.path(), registry.address));
    let path = |number: u64| signed::path(&signed::image(number % IMAGES));
    // The registry is asked for each image once; what it said is remembered for a minute.
    get_each(gateway.address, IMAGES, path);
    let list = web::Bytes::copy_from_slice(Connection::to(gateway.address).get(&path(0)).1);
    let length = list.len();
    println!("{IMAGES} images, {EACH} signatures each, lists of {length} bytes, {} connections", crate::CONNECTIONS);
    let bare = Server::start(|listener, stopped| bare(listener, stopped, list));
    let load = |server: &Server, time| gets(server.address, time, path);
    load(&gateway, WARM_UP);
    load(&bare, WARM_UP);
    let before = asked.load(Ordering::Relaxed);
    let turns = Turns { sides: ["bare", "GET"], unit: "/s", rounds: ROUNDS, target: 0.7 };
    let met = turns.take(|| load(&bare, ROUND), || load(&gateway, ROUND));
    assert_eq!(asked.load(Ordering::Relaxed), before, "what the registry said is remembered");
    met
}

fn fill(file: &std::path::Path) {
    let signatures = signed::signatures(0..IMAGES * EACH);
    let store = RedbStore::open(file, ImageLimits::default()).unwrap();
    let puts = (0..).zip(&signatures).map(|(number, content)| {
        store.change(Change::Import(signed::image(number % IMAGES), signed::record(number, content)))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(futures_util::future::try_join_all(puts)).unwrap();
}

/// The least that a server can do: the same bytes for whatever is asked.
async fn bare(listener: TcpListener, stopped: oneshot::Receiver<()>, list: web::Bytes) {
    let server = HttpServer::new(move || {
        let list = list.clone();
        App::new().default_service(web::to(move || {
            let list = list.clone();
            async { HttpResponse::Ok().content_type("application/json").body(list) }
        }))
    });
    let server = server.tcp_nodelay(true).shutdown_timeout(1);
    let server = server.shutdown_signal(async move { stopped.await.unwrap_or(()) });
    server.listen(listener).unwrap().run().await.unwrap();
}
