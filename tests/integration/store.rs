//! Whole stores on their way, as their operators move them: `sealgate store export` and `sealgate store import`.

#![allow(clippy::unwrap_used)] // All of this is tests.

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
fn an_export_that_was_interrupted_goes_on_behind_the_last_line_that_is_whole() {
    let scenario = Scenario::new();
    let lines = scenario.lines(5);
    let all: Vec<String> = lines.split_inclusive('\n').map(str::to_owned).collect();
    let hangs = Arc::new(AtomicBool::new(true));
    let store = {
        let (all, hangs) = (all.clone(), Arc::clone(&hangs));
        Liar::start(move |asked| {
            let behind = |line: &String| {
                let name = &line.split("\"name\":\"").nth(1).unwrap()[..32];
                asked.path.contains(&format!("%2F{name}"))
            };
            let next = all.iter().position(behind).map_or(0, |last| last + 1);
            match all.get(next..(next + 2).min(all.len())) {
                _ if next == 2 && hangs.load(Ordering::SeqCst) => Reply::Drip(
                    b"HTTP/1.1 200 X\r\ncontent-type: application/x-ndjson\r\ncontent-length: 99999\r\n\r\n".to_vec(),
                ),
                page => Reply::new(200, &[NDJSON], page.unwrap_or_default().concat()),
            }
        })
    };
    let (url, backup) = (format!("http://{}", store.host()), scenario.path("backup.ndjson"));
    let export = ["store", "export", INSECURE, &url, &backup];
    let mut interrupted = Process::start(Command::new(SEALGATE).args(export));
    let partial = wait_until("two lines", || {
        let mut there = fs::read_dir(scenario.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        there.find(|path| {
            let is_partial = path.extension().is_some_and(|extension| extension == "partial");
            is_partial && fs::read_to_string(path).unwrap() == all[..2].concat()
        })
    });
    // One at a time.
    sealgate_store(&export[1..]).fails(3, "another export writes this file");
    interrupted.signal("INT");
    assert_eq!(interrupted.wait().code(), Some(3));
    interrupted
        .wait_for("how far it came", |printed| printed.contains("interrupted (2 signatures are in").then_some(()));
    assert!(!Path::new(&backup).exists(), "half of a store does not look like all of it");
    // A part of a line, as a crash leaves it.
    fs::OpenOptions::new().append(true).open(&partial).unwrap().write_all(&all[2].as_bytes()[..99]).unwrap();
    hangs.store(false, Ordering::SeqCst);
    // Another store does not go on with it.
    let other = scenario.stopped("other.redb", "");
    assert_eq!(sealgate_store(&["export", &other.display().to_string(), &backup]).json(0)["signatures"], 0);
    fs::remove_file(&backup).unwrap();
    let exported = sealgate_store(&export[1..]).json(0);
    assert_eq!((&exported["signatures"], &exported["resumed"]), (&json!(5), &json!(2)));
    assert_eq!(fs::read_to_string(&backup).unwrap(), lines);
    assert!(!partial.exists());
    // What is there is not replaced.
    sealgate_store(&export[1..]).fails(1, "backup.ndjson: this is there already");
}

#[test]
fn an_export_that_was_begun_long_ago_is_not_taken_up_unasked() {
    let scenario = Scenario::new();
    let lines = scenario.lines(3);
    let stopped = scenario.stopped("stopped.redb", &lines);
    let (store, backup) = (stopped.display().to_string(), scenario.path("backup.ndjson"));
    // One signature that was removed since, and one before which others were added.
    let left = lines_of([(image(1), record(0, &scenario.content())), (image(1), record(1, &scenario.content()))]);
    let partial_of_store = &Digest::sha256(stopped.canonicalize().unwrap().display().to_string().as_bytes()).hex()[..8];
    let partial = |begun: &str| scenario.path(&format!("backup.ndjson.{partial_of_store}.{begun}.partial"));
    let old = partial("20260101T000000Z");
    fs::write(&old, &left).unwrap();
    let answer = sealgate_store(&["export", &store, &backup]);
    assert_eq!(answer.json(0)["resumed"], 0);
    assert!(
        answer.stderr.contains("begins anew: an earlier export, begun at 2026-01-01T00:00:00Z"),
        "{}",
        answer.stderr
    );
    assert_eq!(fs::read_to_string(&backup).unwrap(), lines);
    assert!(!Path::new(&old).exists());
    fs::remove_file(&backup).unwrap();
    fs::write(&old, &left).unwrap();
    let resumed = sealgate_store(&["export", &store, &backup, "--resume"]).json(0);
    assert_eq!((&resumed["resumed"], &resumed["begun"]), (&json!(2), &json!("2026-01-01T00:00:00Z")));
    assert_eq!(fs::read_to_string(&backup).unwrap(), left + lines.split_inclusive('\n').next_back().unwrap());
    for to in ["-", scenario.folder.path().to_str().unwrap()] {
        sealgate_store(&["export", &store, to, "--resume"]).fails(2, "--resume goes on with a file");
    }
    // What somebody else has put there stays as it is.
    fs::remove_file(&backup).unwrap();
    let theirs = scenario.folder.write("theirs", "theirs");
    std::os::unix::fs::symlink(&theirs, partial("20260101T000000Z")).unwrap();
    sealgate_store(&["export", &store, &backup]).fails(1, "this is no unfinished export; move it away");
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
}

#[test]
fn a_store_that_another_process_has_leaves_no_file() {
    let scenario = Scenario::new();
    let stopped = scenario.stopped("stopped.redb", "");
    let _running = RedbStore::open(&stopped, ImageLimits::default()).unwrap();
    let folder = scenario.folder.path().join("backups");
    fs::create_dir(&folder).unwrap();
    let backup = folder.join("backup.ndjson").display().to_string();
    sealgate_store(&["export", &stopped.display().to_string(), &backup]).fails(3, "give the store's URL");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn an_export_bears_connections_that_break_as_long_as_it_moves_and_no_longer() {
    let scenario = Scenario::new();
    let lines = scenario.lines(2);
    let broken = Arc::new(AtomicUsize::new(0));
    let store = {
        let (lines, broken) = (lines.clone(), Arc::clone(&broken));
        Liar::start(move |asked| {
            let (first, second) = lines.split_at(lines.find('\n').unwrap() + 1);
            let behind = |number: usize| asked.path.contains(&format!("%2F{number:032}"));
            let page = if behind(1) {
                ""
            } else if behind(0) {
                second
            } else {
                first
            };
            // Each page comes whole at the seventh try only.
            if broken.fetch_add(1, Ordering::SeqCst) % 7 < 6 {
                let head =
                    format!("HTTP/1.1 200 X\r\ncontent-type: {}\r\ncontent-length: 5000\r\n\r\n{page}", NDJSON.1);
                return Reply::Raw(head.into_bytes());
            }
            Reply::new(200, &[NDJSON], page)
        })
    };
    let exported = with_input(&["export", INSECURE, &format!("http://{}", store.host()), "-"], b"");
    assert_eq!((exported.status, exported.stdout), (0, lines.clone()), "{}", exported.stderr);
    assert!(exported.stderr.contains("\"signatures\": 2"), "{}", exported.stderr);
    let store = Liar::start(|_| Reply::HangUp);
    let backup = scenario.path("backup.ndjson");
    sealgate_store(&["export", INSECURE, &format!("http://{}", store.host()), &backup])
        .fails(3, "the connection ended");
    assert!(store.asked().len() < 30, "{}", store.asked().len());
    assert!(!Path::new(&backup).exists());
}

#[test]
fn an_import_bears_connections_that_break_and_can_be_repeated_at_any_time() {
    let scenario = Scenario::new();
    let lines = scenario.lines(3000);
    let file = scenario.folder.write("backup.ndjson", &lines).display().to_string();
    let running = open_store();
    let proxy = Proxy::start(running.host(), &[200_000, 900_000, 1_500_000]);
    let imported = sealgate_store(&["import", INSECURE, &format!("http://{}", proxy.host()), &file]).json(0);
    assert_eq!(proxy.cuts(), 3);
    // Of a batch whose answer was lost, it is not known whether it was new.
    let all = imported["created"].as_u64().unwrap() + imported["present"].as_u64().unwrap();
    assert_eq!((all, &imported["refused"]), (3000, &json!(0)));
    let exported = with_input(&["export", INSECURE, &running.url(), "-"], b"");
    assert!(exported.stdout == lines);
    // One that is killed has left what it had brought.
    let other = open_store();
    let proxy = Proxy::start(other.host(), &[700_000, 700_000, 700_000, 700_000, 700_000, 700_000, 700_000, 700_000]);
    let url = format!("http://{}", proxy.host());
    let mut import = Process::start(Command::new(SEALGATE).args(["store", "import", INSECURE, &url, &file]));
    wait_until("some batches", || (proxy.cuts() > 0).then_some(()));
    import.signal("INT");
    let ended = import.wait();
    assert!(matches!(ended.code(), Some(0 | 3)), "{ended}");
    let imported = sealgate_store(&["import", INSECURE, &other.url(), &file]).json(0);
    assert!(imported["present"].as_u64().unwrap() >= 256, "{imported}");
    assert!(with_input(&["export", INSECURE, &other.url(), "-"], b"").stdout == lines);
}

#[test]
fn a_stream_that_stands_still_can_be_left() {
    let scenario = Scenario::new();
    // More than a batch, and than any pipe holds.
    let lines = scenario.lines(1500);
    let stopped = scenario.stopped("stopped.redb", &lines).display().to_string();
    let left = |mut child: Child| {
        run("kill", ["-INT", &child.id().to_string()]);
        let ended = wait_until("its end", || child.try_wait().unwrap());
        let mut printed = String::new();
        child.stderr.take().unwrap().read_to_string(&mut printed).unwrap();
        assert_eq!(ended.code(), Some(3), "{printed}");
        assert!(printed.contains("interrupted"), "{printed}");
    };
    let start = |arguments: &[&str]| {
        let mut command = Command::new(SEALGATE);
        command.arg("store").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut export = start(&["export", &stopped, "-"]);
    // The rest nobody reads.
    export.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    left(export);

    let store = Liar::start(|asked| {
        let count = asked.body.lines().count();
        let answer = json!({"created": count, "present": 0, "refused": 0, "reasons": []});
        Reply::new(200, &[("content-type", "application/json")], answer.to_string())
    });
    let mut import = start(&["import", INSECURE, &format!("http://{}", store.host()), "-"]);
    // Behind these, nothing comes.
    let first: String = lines.split_inclusive('\n').take(300).collect();
    import.stdin.as_mut().unwrap().write_all(first.as_bytes()).unwrap();
    wait_until("a batch", || store.paths().contains(&"/sealgate/v1/import".to_owned()).then_some(()));
    left(import);
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
fn what_is_no_line_is_named_by_its_number_and_the_rest_is_in() {
    let scenario = Scenario::new();
    let lines = scenario.lines(3);
    let of = |number: usize| lines.lines().nth(number).unwrap();
    let other = Digest::sha256(b"other").to_string();
    let bad = [
        of(0).to_owned(),
        "{\"repository\": 1}".to_owned(),
        String::new(),
        of(1).replace(&digest().to_string(), &other),
        "x".repeat(export_format::MAX_LINE_BYTES + 1),
        of(1).replacen("\"content\":\"", "\"content\":\"!", 1),
        of(1).to_owned(),
        of(2)[..200].to_owned(),
    ]
    .join("\n");
    let file = scenario.folder.write("bad.ndjson", &bad).display().to_string();
    let check = |imported: &Value| {
        let lines: Vec<u64> =
            imported["reasons"].as_array().unwrap().iter().map(|reason| reason["line"].as_u64().unwrap()).collect();
        assert_eq!(lines, [2, 4, 5, 6, 8], "{imported}");
        let reason = |number: usize| imported["reasons"][number]["reason"].as_str().unwrap();
        assert!(reason(1).contains("another digest") && reason(2).contains("more than"), "{imported}");
        assert!(reason(3).contains("base64") && reason(4).contains("cut off"), "{imported}");
        assert_eq!(imported["refused"], 5);
    };
    let running = open_store();
    let stopped = format!("redb:{}", scenario.path("stopped.redb"));
    let dry = sealgate_store(&["import", &stopped, &file, "--dry-run"]).json(1);
    assert_eq!(dry["good"], 2);
    check(&dry);
    assert!(!Path::new(&scenario.path("stopped.redb")).exists(), "nothing is made");
    for store in [&[running.url().as_str(), INSECURE][..], &[stopped.as_str()]] {
        let imported = sealgate_store(&[&["import"][..], store, &[&file]].concat()).json(1);
        assert_eq!(imported["created"], 2);
        check(&imported);
    }
    // What a store refuses is named by its line, too.
    let content =
        BASE64_STANDARD.encode(scenario.gpg.sign_image(&scenario.key, &digest(), "registry.example.com/other:1"));
    let mut changed: Value = serde_json::from_str(of(0)).unwrap();
    changed["content"] = content.into();
    let text = format!("{}\n\n{changed}\n", of(1));
    for store in [&[running.url().as_str(), INSECURE][..], &[stopped.as_str()]] {
        let imported = with_input(&[&["import"][..], store, &["-"]].concat(), text.as_bytes()).json(1);
        assert_eq!((&imported["present"], &imported["reasons"][0]["line"]), (&json!(1), &json!(3)), "{imported}");
        assert!(imported["reasons"][0]["reason"].as_str().unwrap().contains("of this name"), "{imported}");
    }
}

#[test]
fn a_tree_with_a_name_that_is_no_utf_8_is_reported_as_any_other() {
    use std::os::unix::ffi::OsStringExt as _;
    let folder = Scratch::new();
    let odd = std::ffi::OsString::from_vec(b"tree/web\xff".to_vec());
    fs::create_dir_all(folder.path().join(odd)).unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let import = ["import", &format!("redb:{}", at("new.redb")), &at("tree")];
    let report = sealgate_store(&import).json(1);
    assert_eq!(report["refused"], 1, "{report}");
    assert!(report["reasons"][0].to_string().contains("tree/web"), "{report}");
}

#[test]
fn what_is_no_export_is_refused_whole_and_makes_no_store() {
    let scenario = Scenario::new();
    let stopped = scenario.stopped("other.redb", "");
    let redb = fs::read(stopped).unwrap();
    for (content, why) in [
        (&b"\x1f\x8b\x08\x00rest"[..], "gunzip"),
        (&redb, "a store's own file"),
        (b"apiVersion: v1\n", "no JSON object"),
        (b"", "it has no bytes"),
        (b"{\n\"signatures\": []\n}\n", "no JSON object"),
        (&vec![0; 300_000], "no JSON object"),
    ] {
        let file = scenario.folder.write("something", content).display().to_string();
        let store = format!("redb:{}", scenario.path("store.redb"));
        sealgate_store(&["import", &store, &file]).fails(1, why);
        assert!(!Path::new(&scenario.path("store.redb")).exists());
    }
    let store = format!("redb:{}", scenario.path("store.redb"));
    sealgate_store(&["import", &store, &scenario.path("none")]).fails(1, "none: No such file");
    sealgate_store(&["import", &store, "/dev/null"]).fails(1, "not a regular file");
    sealgate_store(&["import", &store, &scenario.path("none"), "--dry-run"]).fails(1, "none: No such file");
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

#[tokio::test]
async fn signatures_go_into_a_lookaside_tree_where_skopeo_finds_them_and_come_back() {
    let scenario = Scenario::new();
    let registry = DockerRegistry::start();
    let pushed = registry.push("acme/web", "1", "one").await;
    let image = ImageId { repository: RepositoryName::parse("acme/web").unwrap(), digest: pushed.digest };
    let reference = format!("{}/acme/web:1", registry.host());
    let sign = |reference: &str| scenario.gpg.sign_image(&scenario.key, &pushed.digest, reference);
    let contents = [sign("registry.example.com/acme/web:1"), sign(&reference)];
    let file = scenario.folder.path().join("store.redb");
    let store = RedbStore::open(&file, ImageLimits::default()).unwrap();
    for (number, content) in contents.iter().enumerate() {
        let record = Record { status: None, ..record(number + 1, content) };
        store.change(Change::Import(image.clone(), record)).await.unwrap();
    }
    drop(store);
    let (file, tree) = (file.display().to_string(), scenario.path("a/new/tree"));
    for (created, present) in [(2, 0), (0, 2)] {
        let exported = sealgate_store(&["export", &file, &format!("lookaside:{tree}")]).json(0);
        assert_eq!((&exported["created"], &exported["present"]), (&json!(created), &json!(present)), "{exported}");
        assert_eq!((&exported["origins"], &exported["statuses"]), (&json!(2), &json!(0)), "{exported}");
    }
    let place =
        |number: usize| Path::new(&tree).join(format!("acme/web@sha256={}/signature-{number}", pushed.digest.hex()));
    assert_eq!([1, 2].map(|number| fs::read(place(number)).unwrap()), contents);

    let key = scenario.gpg.export_to(&scenario.key, scenario.folder.path().join("release.asc"));
    let policy = format!(r#"{{"default":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{}"}}]}}"#, key.display());
    let policy = scenario.folder.write("policy.json", policy).display().to_string();
    scenario.folder.write("registries.d/default.yaml", format!("default-docker: {{lookaside: 'file://{tree}'}}\n"));
    let registries = scenario.path("registries.d");
    let (from, to) = (format!("docker://{reference}"), format!("dir:{}", scenario.path("copy")));
    let copy = ["--policy", &policy, "copy", "--src-tls-verify=false", "--registries.d", &registries, &from, &to];
    let output = skopeo(scenario.gpg.home(), &copy);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Into a store that has one of them, under its old name.
    let running = open_store();
    let one = Record { origin: None, status: None, ..record(7, &contents[0]) };
    let one = lines_of([(image.clone(), one)]);
    assert_eq!(with_input(&["import", INSECURE, &running.url(), "-"], one.as_bytes()).json(0)["created"], 1);
    for (created, present) in [(1, 1), (0, 2)] {
        let imported = sealgate_store(&["import", INSECURE, &running.url(), &tree]).json(0);
        assert_eq!((&imported["created"], &imported["present"]), (&json!(created), &json!(present)), "{imported}");
    }
    let known = lines_of([(image.clone(), Record { status: None, ..record(7, &contents[0]) })]);
    let imported = with_input(&["import", INSECURE, &running.url(), "-"], known.as_bytes()).json(0);
    assert_eq!((&imported["completed"], &imported["present"]), (&json!(1), &json!(0)), "{imported}");
    let back = with_input(&["export", INSECURE, &running.url(), "-"], b"").stdout;
    let back: Vec<Value> = back.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let derived = &Digest::sha256(&contents[1]).hex()[..32];
    let found = back.iter().find(|line| line["name"] == *derived).unwrap();
    assert_eq!(found["origin"]["issuers"], json!([scenario.key]), "{found}");

    // A gap, junk, and what would never end.
    fs::rename(place(2), place(3)).unwrap();
    fs::write(place(4), "junk").unwrap();
    std::os::unix::fs::symlink("/dev/zero", place(5)).unwrap();
    let imported = sealgate_store(&["import", INSECURE, &running.url(), &tree]).json(1);
    assert_eq!((&imported["present"], &imported["refused"]), (&json!(2), &json!(2)), "{imported}");
    assert_eq!(imported["gaps"], json!([place(2)]));
    assert_eq!(imported["reasons"][0]["path"], json!(place(5)));
    assert_eq!(
        imported["reasons"][1],
        json!({"path": place(4), "reason": "content is not a signature: it does not begin as a binary OpenPGP message does"})
    );
}

#[tokio::test]
async fn a_tree_takes_no_more_signatures_of_an_image_than_its_readers_do() {
    let scenario = Scenario::new();
    let file = scenario.folder.path().join("store.redb");
    let store = RedbStore::open(&file, ImageLimits::default()).unwrap();
    let puts = (0..130).map(|number| {
        let record = Record { origin: None, status: None, ..record(number, format!("content {number}").as_bytes()) };
        store.change(Change::Import(image(0), record))
    });
    futures_util::future::try_join_all(puts).await.unwrap();
    drop(store);
    let tree = scenario.path("tree");
    fs::create_dir(&tree).unwrap();
    let exported = sealgate_store(&["export", &file.display().to_string(), &tree]).json(1);
    assert_eq!((&exported["created"], &exported["refused"]), (&json!(127), &json!(3)), "{exported}");
    assert!(exported["reasons"][0]["reason"].as_str().unwrap().contains("127 signatures already"), "{exported}");
}
