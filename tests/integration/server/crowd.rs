//! One client that opens 1,200 connections to a listener of the whole program, and does as little as it can on them: others are
//! answered, probes too, and memory stays below the limit of the manifests.

use std::process::Command;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::support::{Process, Scratch, review};

const CROWD: usize = 1_200;
/// The memory limit in manifests/base/deployment.yaml, in bytes.
const MEMORY_LIMIT: u64 = 512 << 20;
/// The address that the crowd comes from.
const HOST: u8 = 9;

/// What is sent on one connection of a crowd, after which nothing comes.
const PLAIN: [&[u8]; 4] = [
    b"",
    b"G",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nG",
];
const TLS: [&[u8]; 3] = [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"];

/// Opens connections, keeps those that the server keeps, and gives them.
async fn crowd(address: SocketAddr, sent: &[&'static [u8]]) -> Vec<TcpStream> {
    let connections = (0..CROWD).map(|number| {
        let bytes = sent[number % sent.len()];
        async move {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from(([127, 0, 0, HOST], 0))).unwrap();
            let mut connection = socket.connect(address).await.unwrap();
            // The server may have closed it already.
            let _ = connection.write_all(bytes).await;
            connection
        }
    });
    join_all(connections).await
}

fn address(process: &mut Process, role: &str) -> SocketAddr {
    process.wait_for(role, |printed| {
        let role = format!("role=\"{role}\"");
        let line = printed.lines().find(|line| line.contains("listening") && line.contains(&role))?;
        line.split_once("address=")?.1.split_whitespace().next()?.parse().ok()
    })
}

fn resident_bytes(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

/// The status of a page, asked for from this address of the machine.
async fn status(host: u8, url: String) -> u16 {
    let client = reqwest::Client::builder().no_proxy().timeout(LONGEST);
    let client = client.local_address(std::net::IpAddr::from([127, 0, 0, host])).build().unwrap();
    client.get(url).send().await.unwrap().status().as_u16()
}

/// A gate, the folder of its configuration, and what makes clients that trust it.
fn gate() -> (Process, Scratch, impl Fn() -> reqwest::Client) {
    let folder = Scratch::new();
    folder.write(
        "policies/cluster.yaml",
        "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {name: cluster}\nspec:\n  rules:\n  \
         - {name: all, images: [registry.example.com], allow: {reason: tests}}\n",
    );
    let any = "{listen: '127.0.0.1:0'}";
    let configuration = folder.write(
        "sealgate.yaml",
        format!(
            "apiVersion: sealgate.dev/v1\nkind: Configuration\npolicies: policies\nwebhook: {any}\nmetrics: {any}\n\
             health: {any}\n"
        ),
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealgate"));
    let mut gate = Process::start(command.args(["serve", "--config"]).arg(configuration));
    address(&mut gate, "gate");
    let ca = reqwest::Certificate::from_pem(&std::fs::read(folder.path().join("certs/ca.crt")).unwrap()).unwrap();
    let client =
        move || reqwest::Client::builder().tls_certs_only([ca.clone()]).no_proxy().timeout(LONGEST).build().unwrap();
    (gate, folder, client)
}

#[tokio::test]
async fn the_gate_answers_others_and_its_probes_whichever_listener_one_client_fills() {
    sealgate::telemetry::raise_descriptor_limit();
    let (mut gate, _folder, client) = gate();
    let (webhook, metrics) = (address(&mut gate, "gate"), address(&mut gate, "metrics"));
    let health = address(&mut gate, "health");
    let review = review(&[("web", "registry.example.com/web:1")]);
    let asked = async || {
        let request = client().post(format!("https://{webhook}/validate")).header("content-type", "application/json");
        let answer = request.body(review.to_string()).send().await.unwrap().text().await.unwrap();
        assert!(answer.contains("\"allowed\":true"), "{answer}");
    };
    let mut held = Vec::new();
    for (listener, sent) in [(webhook, TLS.as_slice()), (metrics, &PLAIN), (health, &PLAIN)] {
        held.push(crowd(listener, sent).await);
        for host in [1, HOST] {
            for path in ["healthz", "readyz"] {
                assert_eq!(status(host, format!("http://{health}/{path}")).await, 200, "{path} of {host}");
            }
            assert_eq!(status(host, format!("http://{metrics}/metrics")).await, 200);
        }
        asked().await;
        let resident = resident_bytes(&gate);
        assert!(resident < MEMORY_LIMIT, "{resident} bytes");
    }
    drop(held);
}

/// The first message of a client that connects to `localhost`, as if it took 127.0.0.1 for a name.
fn hello_with_an_address_for_a_name() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let at = hello.windows(9).position(|window| window == b"localhost").unwrap();
    hello[at..at + 9].copy_from_slice(b"127.0.0.1");
    hello
}

#[tokio::test]
async fn clients_that_connect_by_address_or_send_no_reviews_fill_no_log() {
    let (mut gate, _folder, client) = gate();
    let webhook = address(&mut gate, "gate");
    let hello = hello_with_an_address_for_a_name();
    for _ in 0..100 {
        let mut connection = TcpStream::connect(webhook).await.unwrap();
        connection.write_all(&hello).await.unwrap();
        // Its own part of the handshake: the message was read.
        connection.read_u8().await.unwrap();
    }
    for _ in 0..100 {
        let answer = client().post(format!("https://{webhook}/validate")).body("{}").send().await.unwrap();
        assert_eq!(answer.status(), 415);
    }
    let lines = |text| gate.printed().lines().filter(|line| line.contains(text)).count();
    for text in ["Illegal SNI", "TLS handshake failed", "not a review"] {
        assert!((1..=20).contains(&lines(text)), "{text}: {}", lines(text));
    }
}

#[tokio::test]
async fn the_gateway_answers_others_whatever_one_client_leaves_undone() {
    sealgate::telemetry::raise_descriptor_limit();
    let folder = Scratch::new();
    let configuration = folder.write(
        "sealgate.yaml",
        "apiVersion: sealgate.dev/v1\nkind: Configuration\ngateway:\n  listen: 127.0.0.1:0\n  registry: {url: \
         \"http://127.0.0.1:1\"}\n  store: {redb: {file: data/signatures.redb}}\n",
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealgate"));
    let mut gateway = Process::start(command.args(["gateway", "--config"]).arg(configuration));
    let address = address(&mut gateway, "gateway");
    let slow_body = b"PUT /extensions/v2/acme/web/signatures/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 \
        HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{";
    for sent in [PLAIN.as_slice(), &[slow_body]] {
        let held = crowd(address, sent).await;
        assert_eq!(status(1, format!("http://{address}/healthz")).await, 200);
        let resident = resident_bytes(&gateway);
        assert!(resident < MEMORY_LIMIT, "{resident} bytes");
        drop(held);
    }
}
