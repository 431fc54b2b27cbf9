//! The store over a real etcd of three members, which are killed, paused, cut off, and cut down to one.

#![allow(clippy::unwrap_used)] // All of this is tests.

mod gateways;
mod hosts;
mod kills;
mod majority;
mod members;
mod network;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use etcd_client::{AlarmAction, AlarmType, Client, ConnectOptions, Permission, PermissionType, TlsOptions};
use futures_util::future::join_all;
use sealgate::{
    configuration::{self, ClientCertificate, Etcd, EtcdUser, Limits},
    gateway::store::{
        Change, Changed, ImageId, ImageLimits, Put, Record, RepositoryName, SignatureName, SignatureStore, StoreError,
        StoredSignature, etcd::EtcdStore, redb::RedbStore,
    },
    image::Digest,
};

use self::members::{Members, certificates};
use super::apiserver::binaries;
use crate::{
    gateway::engines,
    support::{DockerRegistry, Gpg, Process, Scratch, Store, free_ports},
};

/// The longest that anything is waited for; far above what it takes.
const LONGEST: Duration = Duration::from_mins(1);

/// Waits until a condition gives something.
async fn wait_for<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONGEST, wait).await.unwrap_or_else(|_| panic!("waited {LONGEST:?} for {what}"))
}

fn image(repository: &str) -> ImageId {
    ImageId { repository: RepositoryName::parse(repository).unwrap(), digest: Digest::sha256(b"1") }
}

fn signature(number: usize) -> StoredSignature {
    let name = SignatureName::parse(&format!("{number:032}")).unwrap();
    StoredSignature { name, content: format!("content {number}").into_bytes().into() }
}

fn put(image: &ImageId, number: usize) -> Change {
    Change::Put(image.clone(), Record { signature: signature(number), origin: None, status: None })
}

fn remove(image: &ImageId, number: usize) -> Change {
    Change::Remove(image.clone(), signature(number).name)
}

const CREATED: Changed = Changed::Put(Put::Created);

/// Adds signatures to many images, as eight clients do side by side, until it is told to end.
struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    running: Vec<tokio::task::JoinHandle<Written>>,
}

#[derive(Default)]
struct Written {
    acknowledged: Vec<(ImageId, usize)>,
    refused: usize,
}

impl Writers {
    fn start(store: &Arc<EtcdStore>) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let write = |writer: usize| {
            let (store, stop, count) = (Arc::clone(store), Arc::clone(&stop), Arc::clone(&acknowledged));
            async move {
                let mut written = Written::default();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let image = image(&format!("writer{writer}/image{}", number / 20));
                    match store.change(put(&image, number)).await {
                        Ok(outcome) => {
                            assert_eq!(outcome, CREATED, "nobody else writes this one");
                            count.fetch_add(1, Ordering::Relaxed);
                            written.acknowledged.push((image, number));
                        }
                        Err(StoreError::Unavailable { .. }) => written.refused += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                written
            }
        };
        let running = (0..8).map(|writer| tokio::spawn(write(writer))).collect();
        Self { stop, acknowledged, running }
    }

    /// Waits until so many more are acknowledged.
    async fn write(&self, more: usize) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        wait_for("writes", async || (self.acknowledged.load(Ordering::Relaxed) >= goal).then_some(())).await;
    }

    /// Ends them, and sees to it that whatever was acknowledged is there.
    async fn check(self, stores: &[&EtcdStore], at_least: usize) {
        self.stop.store(true, Ordering::Relaxed);
        let written: Vec<Written> = join_all(self.running).await.into_iter().map(Result::unwrap).collect();
        let acknowledged: Vec<&(ImageId, usize)> = written.iter().flat_map(|written| &written.acknowledged).collect();
        let refused: usize = written.iter().map(|written| written.refused).sum();
        eprintln!("{} writes acknowledged, {refused} refused", acknowledged.len());
        assert!(acknowledged.len() >= at_least, "{}", acknowledged.len());
        let images: HashSet<&ImageId> = acknowledged.iter().map(|(image, _)| image).collect();
        for store in stores {
            for image in &images {
                let there = store.list(image).await.unwrap();
                for (_, number) in acknowledged.iter().filter(|(of, _)| of == *image) {
                    assert!(there.contains(&signature(*number)), "{image:?} {number} was acknowledged and is lost");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_does_all_that_a_store_does() {
    let members = Members::start().await;
    let one = members.open_with("/one", engines::limits()).await;
    let other = members.open_with("/other", engines::limits()).await;
    engines::does_all_that_a_store_does(&one, &other).await;
}

/// How many transactions etcd has had from anyone.
async fn transactions(members: &Members) -> f64 {
    let mut count = 0.0;
    for number in 0..3 {
        let metrics =
            reqwest::get(format!("{}/metrics", members.endpoint(number))).await.unwrap().text().await.unwrap();
        let handled = |line: &&str| line.starts_with("grpc_server_started_total") && line.contains("\"Txn\"");
        let numbers = metrics.lines().filter(handled).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        count += numbers.sum::<f64>();
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_etcd_has_no_room_for_is_not_well_and_asking_changes_nothing() {
    let members = Members::start().await;
    let store = members.open("/sealgate").await;
    let web = image("acme/web");
    assert_eq!(store.change(put(&web, 1)).await.unwrap(), CREATED);
    let mut client = Client::connect([members.endpoint(0)], None).await.unwrap();
    let revision = async |client: &mut Client| client.get("/", None).await.unwrap().header().unwrap().revision();
    let before = revision(&mut client).await;
    store.health().await.unwrap();
    assert_eq!(revision(&mut client).await, before, "nothing was written");
    let alarm = async |client: &mut Client, action| {
        client.alarm(action, AlarmType::Nospace, None).await.unwrap();
    };
    alarm(&mut client, AlarmAction::Activate).await;
    let full = wait_for("that it shows", async || store.health().await.err()).await;
    assert!(matches!(full, StoreError::Refused { .. }) && full.to_string().contains("space exceeded"), "{full}");
    assert_eq!(store.list(&web).await.unwrap(), [signature(1)], "what is there can be read");
    // Two each time, a second try where etcd refuses, and the watch asks every second as well, how long it all may take.
    wait_for("that many who ask share an answer", async || {
        let begun = transactions(&members).await;
        join_all((0..50).map(|_| store.health())).await;
        (transactions(&members).await - begun < 50.0).then_some(())
    })
    .await;
    alarm(&mut client, AlarmAction::Deactivate).await;
    wait_for("that it works again", async || store.health().await.ok()).await;
    assert_eq!(store.change(put(&web, 2)).await.unwrap(), CREATED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_certificates_and_a_password_the_store_reaches_its_own_keys_and_no_others() {
    let folder = Scratch::new();
    let [ca, server, server_key, client, client_key] = certificates(&folder, &["127.0.0.1".to_owned()]);
    let [port, peer] = free_ports();
    let endpoint = format!("https://127.0.0.1:{port}");
    let path = |path: &Path| path.display().to_string();
    let mut command = Command::new(binaries(&["etcd"]).join("etcd"));
    command
        .args(["--logger", "zap", "--log-level", "error", "--data-dir", &path(&folder.path().join("data"))])
        .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
        .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer}")])
        .args(["--cert-file", &path(&server), "--key-file", &path(&server_key)])
        .args(["--client-cert-auth", "--trusted-ca-file", &path(&ca)]);
    let _etcd = Process::start(&mut command);
    let pem = |path: &PathBuf| std::fs::read(path).unwrap();
    let tls = TlsOptions::new()
        .ca_certificate(etcd_client::Certificate::from_pem(pem(&ca)))
        .identity(etcd_client::Identity::from_pem(pem(&client), pem(&client_key)));
    let mut root = Client::connect([&endpoint], Some(ConnectOptions::new().with_tls(tls))).await.unwrap();
    wait_for("etcd", async || root.get("x", None).await.ok()).await;
    // As docs/gateway.md says.
    root.role_add("sealgate").await.unwrap();
    let all = Permission::new(PermissionType::Readwrite, "/sealgate/").with_prefix();
    root.role_grant_permission("sealgate", all).await.unwrap();
    root.user_add("sealgate", "first", None).await.unwrap();
    root.user_grant_role("sealgate", "sealgate").await.unwrap();
    root.user_add("root", "root", None).await.unwrap();
    root.user_grant_role("root", "root").await.unwrap();
    root.auth_enable().await.unwrap();
    root.update_user(Some(("root".into(), "root".into()))).await.unwrap();

    let password_file = folder.write("password", "first\n");
    let settings = Etcd {
        endpoints: vec![endpoint.parse().unwrap()],
        prefix: "/sealgate".into(),
        ca_file: Some(ca),
        certificate: Some(ClientCertificate { chain: client, key: client_key.clone() }),
        user: Some(EtcdUser { name: "sealgate".into(), password_file: password_file.clone() }),
    };
    let open = async |settings: &Etcd| EtcdStore::open(settings, ImageLimits::default()).await;
    let store = open(&settings).await.unwrap_or_else(|error| panic!("{error}"));
    let web = image("acme/web");
    assert_eq!(store.change(put(&web, 1)).await.unwrap(), CREATED);
    wait_for("the watch", async || store.list(&web).await.ok()).await;

    let refused = async |settings: &Etcd| open(settings).await.err().expect("it is refused").to_string();
    let elsewhere = refused(&Etcd { prefix: "/other".into(), ..settings.clone() }).await;
    assert!(elsewhere.contains("permission denied"), "{elsewhere}");
    let wrong = folder.write("wrong", "wrong");
    let wrong = Some(EtcdUser { name: "sealgate".into(), password_file: wrong });
    let wrong = refused(&Etcd { user: wrong, ..settings.clone() }).await;
    assert!(wrong.contains("authentication failed") && !wrong.contains("first"), "{wrong}");
    // Reading alone does not make a store.
    let permit = async |root: &mut Client, kind| {
        let permission = Permission::new(kind, "/sealgate/").with_prefix();
        root.role_grant_permission("sealgate", permission).await.unwrap();
    };
    store.health().await.unwrap();
    permit(&mut root, PermissionType::Read).await;
    let read_only = wait_for("that it shows", async || store.health().await.err()).await.to_string();
    assert!(read_only.contains("permission denied"), "{read_only}");
    assert_eq!(store.inspect(&web).await.unwrap().len(), 1);
    permit(&mut root, PermissionType::Readwrite).await;
    wait_for("that it works again", async || store.health().await.ok()).await;
    // Only files are looked at here: a key that is none, a pair that is no pair, files that are not there.
    let check = |settings: &Etcd| EtcdStore::check(settings).unwrap_err().to_string();
    let missing = Etcd { ca_file: Some(folder.path().join("none")), ..settings.clone() };
    assert!(check(&missing).starts_with("gateway.store.etcd.caFile: "));
    let no_ca = Etcd { ca_file: Some(client_key.clone()), ..settings.clone() };
    assert!(check(&no_ca).ends_with("client.key must have PEM certificates"));
    let other = ClientCertificate { chain: server, key: client_key };
    assert!(
        check(&Etcd { certificate: Some(other), ..settings.clone() }).starts_with("gateway.store.etcd.certificate: ")
    );
    let empty = EtcdUser { name: "sealgate".into(), password_file: folder.write("empty", "\n") };
    assert!(check(&Etcd { user: Some(empty), ..settings.clone() }).ends_with("has no password"));
    assert!(EtcdStore::check(&settings).is_ok());

    // A password that changes: the file is read again, and nobody restarts anything.
    root.user_change_password("sealgate", "second").await.unwrap();
    folder.write("password", "second\n");
    let changed = wait_for("the new password", async || store.change(put(&web, 2)).await.ok()).await;
    assert_eq!(changed, CREATED);
    assert_eq!(store.inspect(&web).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_store_or_was_one_is_never_an_empty_one() {
    let members = Members::start().await;
    let mut client = Client::connect([members.endpoint(0)], None).await.unwrap();
    let opened = async |prefix: &str| {
        EtcdStore::open(&members.settings(prefix), ImageLimits::default()).await.err().expect(prefix)
    };
    client.put("/foreign/x", "1", None).await.unwrap();
    let error = opened("/foreign").await.to_string();
    assert!(error.starts_with("etcd key /foreign/format: it is missing, and /foreign/x is there"), "{error}");
    client.put("/later/format", "2", None).await.unwrap();
    let error = opened("/later").await;
    assert!(matches!(error, StoreError::Format { found: 2, known: 1, .. }), "{error}");
    client.put("/odd/format", "x", None).await.unwrap();
    assert!(matches!(opened("/odd").await, StoreError::Malformed { .. }));
    // Someone deletes everything below a running store, or restores an etcd that knows nothing of it.
    let (store, web) = (members.open("/sealgate").await, image("gone/web"));
    store.change(put(&web, 1)).await.unwrap();
    client.delete("/sealgate/", Some(etcd_client::DeleteOptions::new().with_prefix())).await.unwrap();
    for error in [store.inspect(&web).await.unwrap_err(), store.change(put(&web, 2)).await.unwrap_err()] {
        assert!(error.to_string().contains("/sealgate/format: it was there and is gone"), "{error}");
    }
    // A key of a table that can't be one is damage, too.
    let store = members.open("/damaged").await;
    store.change(put(&web, 1)).await.unwrap();
    let key = format!("/damaged/signatures/gone/web@{}/short", web.digest);
    client.put(key.clone(), "1", None).await.unwrap();
    let error = wait_for("the damage", async || store.inspect(&web).await.err()).await.to_string();
    assert!(error.starts_with(&format!("etcd key {key}: ")), "{error}");
}
