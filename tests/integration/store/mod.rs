//! Whole stores on their way, as their operators move them: `sealgate store export` and `sealgate store import`.

#![allow(clippy::unwrap_used)] // All of this is tests.

mod export;
mod import;
mod lookaside;

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sealgate::{
    configuration::{Access, Limits, Users},
    gateway::{
        export_format,
        store::{
            Change, Finding, ImageId, ImageLimits, Origin, Record, RepositoryName, SignatureName, SignatureStore,
            Status, StoredSignature, redb::RedbStore,
        },
    },
    image::Digest,
};
use serde_json::{Value, json};

use crate::support::{
    Answer, DockerRegistry, Gpg, Liar, Process, Proxy, Reply, SEALGATE, Scratch, Store, run, skopeo, wait_until,
};

const INSECURE: &str = "--tls-verify=false";
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
/// Nobody is there, and nobody has to be.
const NO_REGISTRY: &str = "http://127.0.0.1:1";

/// Signatures of one key, and a folder for what is made of them.
struct Scenario {
    gpg: Gpg,
    key: String,
    folder: Scratch,
}

/// `sealgate store ...`, with the result as JSON.
pub(crate) fn sealgate_store(arguments: &[&str]) -> Answer {
    with_input(arguments, b"")
}

fn with_input(arguments: &[&str], input: &[u8]) -> Answer {
    Answer::with_input(Command::new(SEALGATE).arg("store").args(arguments).args(["-o", "json"]), input)
}

pub(crate) fn image(number: usize) -> ImageId {
    ImageId { repository: RepositoryName::parse(&format!("acme/web{number:06}")).unwrap(), digest: digest() }
}

fn digest() -> Digest {
    Digest::sha256(b"image")
}

fn name(number: usize) -> SignatureName {
    SignatureName::parse(&format!("{number:032}")).unwrap()
}

/// A signature with as much as is known of one, or as little.
pub(crate) fn record(number: usize, content: &[u8]) -> Record {
    let at = "2026-11-26T00:00:00.123456789Z".parse().unwrap();
    let origin =
        Origin { added_by: Some("jürgen \"j\"".into()), added_at: at, issuers: vec!["0123456789ABCDEF".into()] };
    let finding = Finding {
        key: "0123456789ABCDEF".into(),
        signer: Some("Release <release@example.com>".into()),
        identity: "registry.example.com/acme/web:1".into(),
        digest: digest().to_string().into(),
    };
    let status = Status { verified_by: Some("jane".into()), verified_at: at, finding };
    Record {
        signature: StoredSignature { name: name(number), content: content.into() },
        origin: (!number.is_multiple_of(3)).then_some(origin),
        status: (!number.is_multiple_of(2)).then_some(status),
    }
}

fn lines_of(records: impl IntoIterator<Item = (ImageId, Record)>) -> String {
    let mut text = Vec::new();
    for (image, record) in records {
        export_format::write(&mut text, &image, &record);
    }
    String::from_utf8(text).unwrap()
}

/// A running store that asks nobody who they are.
fn open_store() -> Store {
    Store::start(NO_REGISTRY)
}

impl Scenario {
    fn new() -> Self {
        let (gpg, folder) = (Gpg::new(), Scratch::new());
        let key = gpg.generate("Release <release@example.com>");
        Self { gpg, key, folder }
    }

    /// A message that names the image.
    fn content(&self) -> Vec<u8> {
        self.gpg.sign_image(&self.key, &digest(), "registry.example.com/acme/web:1")
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// So many lines of an export; of images of their own.
    fn lines(&self, count: usize) -> String {
        let content = self.content();
        lines_of((0..count).map(|number| (image(number), record(number, &content))))
    }

    /// A stopped store with these lines in it.
    fn stopped(&self, name: &str, lines: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        let imported = with_input(&["import", &format!("redb:{}", file.display()), "-"], lines.as_bytes()).json(0);
        assert_eq!(imported["created"], lines.lines().count());
        file
    }

    /// Users ops (a store-admin) and joe (nobody), each with their name as password.
    fn with_roles(&self) -> (Store, Liar) {
        let file = self.folder.path().join("htpasswd");
        for (number, user) in ["ops", "joe"].into_iter().enumerate() {
            let options = if number == 0 { "-bBc" } else { "-bB" };
            run("htpasswd", [options, "-C", "4", &self.path("htpasswd"), user, user]);
        }
        let roles = "apiVersion: sealgate.dev/v1\nkind: StoreRoles\nroles:\n- {role: store-admin, users: [ops]}\n";
        let access =
            Access { users: Users::Htpasswd { file, roles: self.folder.write("roles.yaml", roles) }, token_key: None };
        // Where nobody says what they want, a name and password go to the store alone.
        let registry = Liar::start(|_| Reply::empty(200));
        let url = format!("http://{}", registry.host());
        (Store::start_set(&url, &Limits::default(), |settings| settings.access = Some(access)), registry)
    }
}

#[test]
fn a_whole_store_is_the_same_after_moving_through_files_and_other_stores() {
    let scenario = Scenario::new();
    // More than a page or a batch.
    let lines = scenario.lines(3000);
    let stopped = scenario.stopped("first.redb", &lines);
    let before = fs::read(&stopped).unwrap();
    let (one, two, three) = (scenario.path("one.ndjson"), scenario.path("two.ndjson"), scenario.path("three.ndjson"));
    // A file, by itself, is a store; so is one that a configuration names.
    let exported = sealgate_store(&["export", &stopped.display().to_string(), &one]).json(0);
    let statuses =
        json!({"signatures": exported["signatures"], "statuses": exported["statuses"], "origins": exported["origins"]});
    assert_eq!(statuses, json!({"signatures": 3000, "statuses": 1500, "origins": 2000}));
    assert!(fs::read(&stopped).unwrap() == before, "what is exported stays as it is");
    assert!(fs::read_to_string(&one).unwrap() == lines);

    let (running, _registry) = scenario.with_roles();
    let as_ops = [INSECURE, "--creds", "ops:ops"];
    for (created, present) in [(3000, 0), (0, 3000)] {
        let imported = sealgate_store(&[&["import", &running.url(), &one][..], &as_ops].concat()).json(0);
        let counts = [&imported["created"], &imported["present"], &imported["refused"]];
        assert_eq!(counts, [&json!(created), &json!(present), &json!(0)], "{imported}");
    }
    // A host alone is asked whether it speaks TLS.
    sealgate_store(&[&["export", running.host(), &two][..], &as_ops].concat()).json(0);
    assert!(fs::read_to_string(&two).unwrap() == lines);

    let configuration = "apiVersion: sealgate.dev/v1\nkind: Configuration\ngateway:\n  registry: {url: 'http://127.0.0.1:1'}\n  \
        store: {redb: {file: a/new/place/signatures.redb}}\n";
    let configured = format!("config:{}", scenario.folder.write("sealgate.yaml", configuration).display());
    sealgate_store(&["export", &configured, &three]).fails(1, "signatures.redb");
    assert!(!Path::new(&scenario.path("a")).exists(), "what is not there is not made to be exported");
    assert_eq!(sealgate_store(&["import", &configured, &two]).json(0)["created"], 3000);
    assert_eq!(sealgate_store(&["export", &configured, &three]).json(0)["signatures"], 3000);
    assert!(fs::read_to_string(&three).unwrap() == lines);
    let leftover = fs::read_dir(scenario.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let leftover: Vec<_> = leftover.filter(|name| name.to_string_lossy().contains("partial")).collect();
    assert!(leftover.is_empty(), "{leftover:?}");
}

#[test]
fn who_may_not_move_a_store_is_told_which_role_it_takes() {
    let scenario = Scenario::new();
    let (running, _registry) = scenario.with_roles();
    let (url, backup) = (running.url(), scenario.path("backup.ndjson"));
    let file = scenario.folder.write("lines.ndjson", scenario.lines(1)).display().to_string();
    for arguments in [["export", &url, &backup], ["import", &url, &file]] {
        let with = |creds: &[&str]| sealgate_store(&[&arguments[..], &[INSECURE], creds].concat());
        with(&["--creds", "joe:joe"]).fails(1, "that takes the role store-admin");
        with(&["--creds", "joe:joe"]).fails(1, "joe may not");
        with(&["--creds", "ops:wrong"]).fails(1, "credentials that it was given do not suffice");
        with(&[]).fails(1, "credentials are needed (--creds, --authfile");
    }
    assert!(!Path::new(&backup).exists());
    // Over plain HTTP only where that is said.
    sealgate_store(&["export", &url, &backup]).fails(2, "plain HTTP needs --tls-verify=false");
    let stopped = scenario.stopped("stopped.redb", "");
    sealgate_store(&["export", &stopped.display().to_string(), &backup, "--creds", "ops:ops"]).fails(2, "by their URL");
}

#[test]
fn what_is_no_store_is_named_and_left_as_it_is() {
    let scenario = Scenario::new();
    let backup = scenario.path("backup.ndjson");
    let export = |store: &str| sealgate_store(&["export", store, &backup]);
    let open = scenario.stopped("open.redb", &scenario.lines(1));
    let keeps = RedbStore::open(&open, ImageLimits::default()).unwrap();
    export(&open.display().to_string()).fails(3, "give the store's URL in place of its file");
    let file = scenario.folder.write("lines.ndjson", scenario.lines(1)).display().to_string();
    sealgate_store(&["import", &open.display().to_string(), &file]).fails(3, "give the store's URL");
    drop(keeps);
    export(&scenario.folder.write("text", "text").display().to_string()).fails(1, "this is not a store of signatures");
    export(&scenario.folder.write("empty", "").display().to_string()).fails(1, "empty (0 bytes)");
    let mut damaged = fs::read(&open).unwrap();
    let half = damaged.len() / 2;
    damaged.truncate(half);
    export(&scenario.folder.write("damaged", &damaged).display().to_string()).fails(1, "this store is damaged");
    export("no/such/file").fails(1, "there is no such file");
    export("config:no/such/file").fails(2, "no/such/file");
    for reply in [Reply::new(200, &[("content-type", "text/html")], "<html>"), Reply::empty(404), Reply::empty(405)] {
        let page = Liar::start(move |_| reply.clone());
        let url = format!("http://{}", page.host());
        sealgate_store(&["export", INSECURE, &url, &backup]).fails(1, "there is no store of `sealgate gateway`");
        let lines = scenario.lines(1);
        let imported = with_input(&["import", INSECURE, &url, "-"], lines.as_bytes());
        assert_ne!(imported.status, 0, "{}", imported.stderr);
    }
    let lies = Liar::start(|_| Reply::new(200, &[NDJSON], "{\"repository\": 1}\n"));
    sealgate_store(&["export", INSECURE, &format!("http://{}", lies.host()), &backup]).fails(3, "no export of a store");
    let line = scenario.lines(1);
    let again = Liar::start(move |_| Reply::new(200, &[NDJSON], &line));
    sealgate_store(&["export", INSECURE, &format!("http://{}", again.host()), &backup])
        .fails(3, "goes on where it was");
    assert!(!Path::new(&backup).exists());
}
