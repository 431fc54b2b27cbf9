//! `sealgate gateway` as a program: what it says when it can't serve, how it ends, how much memory it takes.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::join_all;
use reqwest::Client;
use sealgate::{
    gateway::store::{
        Change, Changed, ImageId, ImageLimits, Put, Record, RepositoryName, SignatureName, SignatureStore,
        StoredSignature, redb::RedbStore,
    },
    image::Digest,
};
use serde_json::json;

use super::{fake::Fake, layers::noise};
use crate::support::{DockerRegistry, Gpg, Process, SEALGATE, Scratch, accept_anything, skopeo};

/// Writes a configuration; `fields` are those of `gateway` but `listen`.
pub(super) fn configuration(folder: &Scratch, listen: &str, fields: &str) -> PathBuf {
    let text = format!(
        "apiVersion: sealgate.dev/v1\nkind: Configuration\ngateway:\n  listen: {listen}\n  store: {{redb: {{file: \
         data/signatures.redb}}}}\n  {fields}\n"
    );
    folder.write("sealgate.yaml", text)
}

pub(super) fn registry_at(url: &str) -> String {
    format!("registry: {{url: \"{url}\"}}")
}

/// Starts the program and waits until it listens; gives its address, too.
fn start(configuration: &Path) -> (Process, String) {
    let mut process = Process::start(&mut command(configuration));
    let address = address(&mut process);
    (process, address)
}

pub(crate) fn command(configuration: &Path) -> Command {
    let mut command = Command::new(SEALGATE);
    command.args(["gateway", "--config"]).arg(configuration);
    command
}

/// Waits until it listens.
pub(crate) fn address(process: &mut Process) -> String {
    process.wait_for("its address", |printed| {
        let line = printed.lines().find(|line| line.contains("listening"))?;
        let rest = line.split_once("address=")?.1;
        Some(rest.split_whitespace().next()?.to_owned())
    })
}

/// Runs it to its end, which has to come by itself.
fn run(configuration: &Path, further: &[&str]) -> Output {
    command(configuration).args(further).stdin(Stdio::null()).output().unwrap()
}

/// A certificate for 127.0.0.1 and its key, which vouches for itself.
fn certificate(folder: &Scratch, name: &str) -> (PathBuf, PathBuf) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = ["127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    (folder.write(&format!("{name}.crt"), certificate.pem()), folder.write(&format!("{name}.key"), key.serialize_pem()))
}

#[test]
fn no_query_of_a_request_gets_into_the_log() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let breaks_off = Fake::says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx");
    let no_http = Fake::says("what?\r\n\r\n");
    for (registry, words) in [
        (format!("http://{gone}"), "the registry can't be asked"),
        (no_http.url(), "the registry can't be asked"),
        (breaks_off.url(), "the registry broke off an answer"),
    ] {
        let folder = Scratch::new();
        let file = configuration(&folder, "127.0.0.1:0", &registry_at(&registry));
        let (mut process, address) = start(&file);
        let path = "/v2/acme/web/blobs/uploads/1?_state=SECRET&sig=SECRET";
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let _ = super::fake::send(&address, &request);
        let printed = process.wait_for(words, |printed| printed.contains(words).then(|| printed.to_owned()));
        assert!(!printed.contains("SECRET"), "{printed}");
    }
}

#[test]
fn what_keeps_it_from_serving_is_said_in_one_line_before_it_serves() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let url = "https://127.0.0.1:1";
    let registry = registry_at(url);
    let ca = |file: &str| format!("registry: {{url: \"{url}\", caFile: {file}}}");
    let pair = format!("{registry}\n  certificate: {{file: one.crt, key: other.key}}");
    // The listener aside, --validate finds it, too.
    for (listen, fields, store, said, validate) in [
        (taken.as_str(), &registry, None, taken.as_str(), false),
        ("127.0.0.1:0", &pair, None, "one.crt", true),
        ("127.0.0.1:0", &registry, Some(b"apiVersion: v1\n".as_slice()), "signatures.redb: this is not a store", true),
        ("127.0.0.1:0", &registry, Some(b"".as_slice()), "signatures.redb: this store's file is empty", true),
        ("127.0.0.1:0", &ca("none.crt"), None, "gateway.registry.caFile: ", true),
        ("127.0.0.1:0", &ca("one.key"), None, "one.key must have PEM certificates", true),
        ("127.0.0.1:0", &ca("long.crt"), None, "long.crt can't be read: it has more than 4 MiB", true),
    ] {
        let folder = Scratch::new();
        certificate(&folder, "one");
        certificate(&folder, "other");
        folder.write("long.crt", vec![b'\n'; (4 << 20) + 1]);
        if let Some(content) = store {
            folder.write("data/signatures.redb", content);
        }
        let file = configuration(&folder, listen, fields);
        for further in [&[][..], &["--validate"]] {
            if !further.is_empty() && !validate {
                continue;
            }
            let output = run(&file, further);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said}: {stderr}");
            let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
            assert_eq!(lines.len(), 1, "{said}: {stderr}");
            assert!(lines[0].contains(said) && stderr.ends_with(&format!("{}\n", lines[0])), "{said}: {stderr}");
        }
    }
}

#[test]
fn validate_changes_nothing_and_may_be_asked_while_a_store_runs() {
    let folder = Scratch::new();
    let file = configuration(&folder, "127.0.0.1:0", &registry_at("http://127.0.0.1:1"));
    assert_eq!(run(&file, &["--validate"]).status.code(), Some(0));
    assert!(!folder.path().join("data").exists());
    let (_store, _) = start(&file);
    let output = run(&file, &["--validate"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let second = run(&file, &[]);
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another process has this store open"));
}

#[test]
fn validate_makes_no_key_for_tokens() {
    let folder = Scratch::new();
    folder.write("htpasswd", "");
    folder.write("roles.yaml", "apiVersion: sealgate.dev/v1\nkind: StoreRoles\nroles: []\n");
    let access = "access: {htpasswd: {file: htpasswd, roles: roles.yaml}, tokenKey: secrets/token.key}";
    let fields = format!("{}\n  {access}", registry_at("http://127.0.0.1:1"));
    let file = configuration(&folder, "127.0.0.1:0", &fields);
    let output = run(&file, &["--validate"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!folder.path().join("secrets").exists());
    folder.write("secrets/token.key", "nonsense");
    let output = run(&file, &["--validate"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("token.key:1:1: the base64 of 32 bytes is expected"));
}

#[test]
fn sigterm_ends_it_in_good_order() {
    let folder = Scratch::new();
    let fake = Fake::says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
    let file = configuration(&folder, "127.0.0.1:0", &registry_at(&fake.url()));
    let (mut store, address) = start(&file);
    store.signal("TERM");
    store.wait_for("that it was told", |printed| printed.contains("shutdown requested").then_some(()));
    assert!(super::fake::get(&address, "/v2/").starts_with("HTTP/1.1 200"), "it still serves for a moment");
    // Whoever does not want to wait says so again.
    store.signal("TERM");
    assert_eq!(store.wait().code(), Some(0));
    RedbStore::open(&folder.path().join("data/signatures.redb"), ImageLimits::default()).unwrap();
}

#[tokio::test]
async fn layers_of_100_mib_go_through_in_little_memory_however_slow_their_reader_is() {
    const MIB: usize = 1 << 20;
    let registry = DockerRegistry::start();
    let folder = Scratch::new();
    let (store, address) = start(&configuration(&folder, "127.0.0.1:0", &registry_at(&registry.url())));
    let client = Client::new();
    let layer = bytes::Bytes::from(noise(100 * MIB));
    let digest = Digest::sha256(&layer);
    let push = async |repository: &str| {
        let begun = client.post(format!("http://{address}/v2/{repository}/blobs/uploads/")).send().await.unwrap();
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        let done = client.put(format!("{location}&digest={digest}")).body(layer.clone()).send().await.unwrap();
        assert_eq!(done.status(), 201);
    };
    push("acme/web").await;
    // This one reads nothing while the next layer is pushed.
    let mut slow = TcpStream::connect(&address).unwrap();
    let request = format!("GET /v2/acme/web/blobs/{digest} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    slow.write_all(request.as_bytes()).unwrap();
    slow.peek(&mut [0]).unwrap();
    push("acme/other").await;
    let mut answer = Vec::with_capacity(101 * MIB);
    slow.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&layer), "all of it came");
    let peak = peak_of(&store);
    assert!(peak < 96 << 10, "{peak} KiB");
}

/// The most memory that it had so far, in KiB.
fn peak_of(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_hundred_clients_that_stop_in_the_middle_of_a_layer_keep_little_memory() {
    const MIB: usize = 1 << 20;
    let layer = 64 * MIB;
    let registry = Fake::start(move |_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {layer}\r\nConnection: close\r\n\r\n")?;
        let piece = vec![0; MIB];
        (0..layer / MIB).try_for_each(|_| stream.write_all(&piece))
    });
    let folder = Scratch::new();
    let (store, address) = start(&configuration(&folder, "127.0.0.1:0", &registry_at(&registry.url())));
    let mut clients: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let request = format!("GET /v2/acme/web/blobs/layer HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    for client in &mut clients {
        client.write_all(request.as_bytes()).unwrap();
    }
    let mut some = vec![0; 4 * MIB];
    for client in &mut clients {
        client.read_exact(&mut some).unwrap();
    }
    // Of each, a piece that was read, one that is read ahead, and what is being sent.
    let peak = peak_of(&store);
    assert!(peak < 192 << 10, "{peak} KiB");
}

/// A store's file with one image in it, whose list is almost as long as one may be.
async fn with_a_long_list(folder: &Scratch) -> ImageId {
    let image = ImageId { repository: RepositoryName::parse("acme/web").unwrap(), digest: Digest::sha256(b"") };
    let store = RedbStore::open(&folder.path().join("data/signatures.redb"), ImageLimits::default()).unwrap();
    let puts = (0..48_u8).map(|number| {
        let name = SignatureName::parse(&format!("{number:032}")).unwrap();
        let signature = StoredSignature { name, content: vec![number; 64_000].into() };
        store.change(Change::Put(image.clone(), Record { signature, origin: None, status: None }))
    });
    assert!(join_all(puts).await.into_iter().all(|put| put.unwrap() == Changed::Put(Put::Created)));
    image
}

#[tokio::test]
async fn a_hundred_clients_that_stall_in_a_list_or_an_export_hold_little_memory() {
    let folder = Scratch::new();
    let digest = with_a_long_list(&folder).await.digest;
    let registry = Fake::says(&format!(
        "HTTP/1.1 200 OK\r\nDocker-Content-Digest: {digest}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    ));
    let list = format!("/extensions/v2/acme/web/signatures/{digest}");
    // Of each client, what is being sent; of an export a page, too.
    for (path, bound) in [(list.as_str(), 160 << 10), ("/sealgate/v1/export", 256 << 10)] {
        let (store, address) = start(&configuration(&folder, "127.0.0.1:0", &registry_at(&registry.url())));
        let whole = super::fake::get(&address, path);
        assert!(whole.starts_with("HTTP/1.1 200") && whole.len() > 4_000_000, "{path}: {} bytes", whole.len());
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        // One after the other: what an export reads at once is not what its client keeps.
        let mut some = vec![0; 64 << 10];
        let mut stop = || {
            let mut client = TcpStream::connect(&address).unwrap();
            client.write_all(request.as_bytes()).unwrap();
            client.read_exact(&mut some).unwrap();
            client
        };
        let _clients: Vec<TcpStream> = (0..100).map(|_| stop()).collect();
        let peak = peak_of(&store);
        assert!(peak < bound, "{path}: {peak} KiB");
    }
}

/// Clients that take a list each, of another image, and stop in the middle. The lists that are on their way are bounded, and
/// one address leaves others some room.
#[test]
fn a_client_that_stops_taking_many_lists_leaves_others_memory_for_theirs() {
    const IMAGES: usize = 80;
    const SIGNATURES: u8 = 12;
    let folder = Scratch::new();
    let digest = Digest::sha256(b"");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = RedbStore::open(&folder.path().join("data/signatures.redb"), ImageLimits::default()).unwrap();
        let store = &store;
        let puts = (0..IMAGES).flat_map(|image| (0..SIGNATURES).map(move |number| (image, number)));
        let puts = puts.map(|(image, number)| {
            let repository = RepositoryName::parse(&format!("acme/{image}")).unwrap();
            let name = SignatureName::parse(&format!("{number:032}")).unwrap();
            let signature = StoredSignature { name, content: vec![number; 64_000].into() };
            let record = Record { signature, origin: None, status: None };
            store.change(Change::Put(ImageId { repository, digest }, record))
        });
        assert!(join_all(puts).await.into_iter().all(|put| put.unwrap() == Changed::Put(Put::Created)));
    });
    let registry = Fake::says(&format!(
        "HTTP/1.1 200 OK\r\nDocker-Content-Digest: {digest}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    ));
    let (_store, address) = start(&configuration(&folder, "127.0.0.1:0", &registry_at(&registry.url())));
    let address: std::net::SocketAddr = address.parse().unwrap();
    // Reads the status, and nothing behind the head.
    let take = |host: u8, image: usize| {
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        client.set_recv_buffer_size(16 << 10).unwrap();
        client.bind(&std::net::SocketAddr::from(([127, 0, 0, host], 0)).into()).unwrap();
        client.connect(&address.into()).unwrap();
        let mut client = TcpStream::from(client);
        let path = format!("/extensions/v2/acme/{image}/signatures/{digest}");
        write!(client, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
        let mut head = [0; 12];
        client.read_exact(&mut head).unwrap();
        (client, String::from_utf8_lossy(&head[9..]).into_owned())
    };
    let taken: Vec<_> = (0..IMAGES).map(|image| take(1, image)).collect();
    let statuses: Vec<&str> = taken.iter().map(|(_, status)| status.as_str()).collect();
    // A list has about a megabyte, and one address three quarters of the 64 that there is memory for.
    let answered = statuses.iter().filter(|status| **status == "200").count();
    assert!((32..=52).contains(&answered), "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == "429").count(), IMAGES - answered, "{statuses:?}");
    assert_eq!(take(2, IMAGES - 1).1, "200", "another address finds some");
    drop(taken);
    // It hears of the end of a connection when it sends something.
    while take(1, IMAGES - 1).1 != "200" {
        std::thread::yield_now();
    }
}

/// Bytes that the system keeps of what was sent on a connection between two ports of this host, and did not arrive yet.
#[cfg(target_os = "linux")]
fn on_the_way(from: u16, to: u16) -> usize {
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':').unwrap().1, 16).unwrap();
    let connection = connections.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (port(fields[1]) == from && port(fields[2]) == to).then(|| fields[4].split_once(':').unwrap().0.to_owned())
    });
    usize::from_str_radix(&connection.unwrap(), 16).unwrap()
}

/// Otherwise it would seem to stand still for as long as it takes to read that.
#[cfg(target_os = "linux")]
#[test]
fn what_is_sent_to_a_client_that_reads_slowly_does_not_pile_up_in_the_system() {
    const LAYER: usize = 16 << 20;
    let registry = Fake::start(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LAYER}\r\nConnection: close\r\n\r\n")?;
        stream.write_all(&vec![0; LAYER])
    });
    let folder = Scratch::new();
    let (_store, address) = start(&configuration(&folder, "127.0.0.1:0", &registry_at(&registry.url())));
    let address: std::net::SocketAddr = address.parse().unwrap();
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(64 << 10).unwrap();
    client.connect(&address.into()).unwrap();
    let mut client = TcpStream::from(client);
    let own = client.local_addr().unwrap().port();
    write!(client, "GET /v2/acme/web/blobs/layer HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut most = 0;
    for _ in 0..LAYER / 2 / (16 << 10) {
        client.read_exact(&mut [0; 16 << 10]).unwrap();
        most = most.max(on_the_way(address.port(), own));
    }
    assert!(most < 512 << 10, "{most} bytes");
}

#[tokio::test]
async fn with_tls_on_both_sides_skopeo_signs_and_verifies() {
    let folder = Scratch::new();
    let mut registry = DockerRegistry::start();
    registry.push("acme/source", "1", "one").await;
    let (ca, key) = certificate(&folder, "registry");
    registry.stop();
    registry.restart_with_tls(&ca, &key);
    // Where skopeo looks for CAs: a folder with *.crt.
    let (own, own_key) = certificate(&folder, "own");
    folder.write("trusted/own.crt", std::fs::read(&own).unwrap());
    let certificate = format!("certificate: {{file: {}, key: {}}}", own.display(), own_key.display());
    let fields =
        format!("registry: {{url: \"https://{}\", caFile: {}}}\n  {certificate}", registry.host(), ca.display());
    let (_store, address) = start(&configuration(&folder, "127.0.0.1:0", &fields));
    let gpg = Gpg::new();
    let signer = gpg.generate("Release <release@example.com>");
    let signer_file = gpg.export_to(&signer, folder.path().join("release.asc")).display().to_string();
    let any = accept_anything(&folder).display().to_string();
    let trusted = folder.path().join("trusted").display().to_string();
    let (source, target) = (format!("docker://{address}/acme/source:1"), format!("docker://{address}/acme/web:1"));
    let (from, to) = (["--src-cert-dir", &trusted], ["--dest-cert-dir", &trusted]);
    let sign = [["--policy", &any, "copy", "--sign-by", &signer].as_slice(), &from, &to, &[&source, &target]].concat();
    let output = skopeo(gpg.home(), &sign);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let policy = super::skopeo::signed_by(&folder, &address, &signer_file);
    let copy = format!("dir:{}", folder.path().join("copy").display());
    let output = skopeo(gpg.home(), &[["--policy", &policy, "copy"].as_slice(), &from, &[&target, &copy]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(folder.path().join("copy/signature-1").exists());
}

#[tokio::test]
async fn the_audit_log_has_what_was_done_and_who_guessed_and_not_what_was_not_done() {
    let folder = Scratch::new();
    let file = folder.path().join("htpasswd").display().to_string();
    crate::support::run("htpasswd", ["-c", "-b", "-B", "-C", "4", file.as_str(), "ops", "ops"]);
    let roles = "apiVersion: sealgate.dev/v1\nkind: StoreRoles\nroles:\n  - {role: store-admin, users: [ops]}\n  \
                 - {role: 'system:image-signer', users: [ops]}\n";
    folder.write("roles.yaml", roles);
    let mut registry = DockerRegistry::start();
    let pushed = registry.push("acme/web", "1", "one").await;
    let gpg = Gpg::new();
    let key = gpg.generate("Release <release@example.com>");
    let content = BASE64_STANDARD.encode(gpg.sign_image(&key, &pushed.digest, "registry.example.com/acme/web:1"));
    let fields =
        format!("{}\n  access: {{htpasswd: {{file: htpasswd, roles: roles.yaml}}}}", registry_at(&registry.url()));
    let (mut process, address) = start(&configuration(&folder, "127.0.0.1:0", &fields));
    let client = Client::new();
    let own = |rest: &str| format!("http://{address}/sealgate/v1/{rest}");
    let guess = client.get(own("export")).basic_auth("o\"ps", Some("hunter2")).send().await.unwrap();
    assert_eq!(guess.status(), 401);
    let missing = own(&format!("acme/web/signatures/{}/{}", pushed.digest, "e".repeat(32)));
    assert_eq!(client.delete(missing).basic_auth("ops", Some("ops")).send().await.unwrap().status(), 404);
    let name = "f".repeat(32);
    let digest = pushed.digest.to_string();
    let line = json!({"repository": "acme/web", "digest": digest, "name": name, "content": content});
    let mut verified = line.clone();
    verified["status"] = json!({
        "verifiedBy": "jane", "verifiedAt": "2026-11-26T00:00:00Z", "key": key, "signer": null,
        "identity": "registry.example.com/acme/web:1", "digest": digest,
    });
    for line in [&line, &verified, &verified] {
        let import =
            client.post(own("import")).basic_auth("ops", Some("ops")).header("content-type", "application/x-ndjson");
        assert_eq!(import.body(line.to_string()).send().await.unwrap().status(), 200);
    }
    let log = process.wait_for("the imports", |printed| {
        let is_last = |line: &str| line.contains("0 new, 0 completed, 1 there, 0 refused");
        printed.lines().any(is_last).then(|| printed.to_owned())
    });
    let audit: Vec<&str> = log.lines().filter(|line| line.contains("audit=true")).collect();
    let of = |words: &[&str]| audit.iter().filter(|line| words.iter().all(|word| line.contains(word))).count();
    assert_eq!(of(&["credentials rejected", r#"claimed="o\"ps""#, "peer=Some(127.0.0.1)"]), 1, "{log}");
    assert_eq!(of(&["done", r#"caller="ops""#, "import", &name]), 2, "{log}");
    // It counts as verified from now on.
    assert_eq!(of(&["done", r#"caller="ops""#, "import", &format!("{name} completed")]), 1, "{log}");
    for counts in ["1 new, 0 completed, 0 there, 0 refused", "0 new, 1 completed, 0 there, 0 refused"] {
        assert_eq!(of(&["done", "import", counts]), 1, "{log}");
    }
    assert_eq!(of(&["delete-signature"]), 0, "nothing was there: {log}");
    assert!(!log.contains("hunter2"), "{log}");
    registry.stop();
}
