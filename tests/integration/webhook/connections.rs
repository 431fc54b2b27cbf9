//! Connections: protocols, client certificates, certificates exchanged under them, and their end.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use sealgate::{configuration::Certificate, files::SETTLE_INTERVAL, tls::ServerTls, webhook::Settings};
use tempfile::TempDir;
use tokio::time::Instant;

use super::fixture::Server;
use crate::support::review;

/// Refreshes until what the files say has settled. Says whether anything changed.
fn refresh(server: &Server) -> bool {
    let at = Instant::now();
    server.tls.refresh(Timestamp::now(), at);
    server.tls.refresh(Timestamp::now(), at + SETTLE_INTERVAL).changed
}

/// One TLS connection, kept alive.
struct Connection(StreamOwned<ClientConnection, TcpStream>);

impl Connection {
    fn open(server: &Server, alpn: &[&[u8]]) -> Result<Self, std::io::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(server.ca()).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut tcp = TcpStream::connect(server.address).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok(Self(StreamOwned::new(tls, tcp)))
    }

    fn certificate(&self) -> Vec<u8> {
        self.0.conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// Sends a review, and gives back the answer's status line and body.
    fn ask(&mut self, image: &str) -> (String, String) {
        let body = review(&[("web", image)]).to_string();
        write!(
            self.0,
            "POST /validate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        (head.lines().next().unwrap().to_owned(), String::from_utf8(body).unwrap())
    }
}

#[tokio::test]
async fn reviews_come_over_http_2_where_the_client_knows_it_and_over_http_1_where_not() {
    let server = Server::start();
    for (client, version) in [
        (server.client(), reqwest::Version::HTTP_2),
        (server.client_builder().http1_only().build().unwrap(), reqwest::Version::HTTP_11),
    ] {
        let response = server.send(&client, "/validate", review(&[("web", "example.com/good:1")]).to_string()).await;
        assert_eq!((response.status().as_u16(), response.version()), (200, version));
        assert!(response.text().await.unwrap().contains("\"allowed\":true"));
    }
    for (offered, chosen) in
        [(vec!["h2", "http/1.1"], "h2"), (vec!["http/1.1", "h2"], "h2"), (vec!["http/1.1"], "http/1.1")]
    {
        let offered: Vec<_> = offered.into_iter().map(str::as_bytes).collect();
        let connection = Connection::open(&server, &offered).unwrap();
        assert_eq!(connection.0.conn.alpn_protocol(), Some(chosen.as_bytes()));
    }
}

#[tokio::test]
async fn reviews_on_one_connection_are_all_answered_though_one_hangs_and_one_panics() {
    let server = Server::start();
    let client = server.client();
    let asked = async |image: String| {
        let answer = server.ask(&client, "/validate?timeout=2s", &review(&[("web", &image)])).await;
        answer["allowed"] == true
    };
    let images = (0..100).map(|number| format!("example.com/{}:1", ["good", "bad", "hang", "panic"][number % 4]));
    let answers = futures_util::future::join_all(images.map(asked)).await;
    for (number, allowed) in answers.into_iter().enumerate() {
        assert_eq!(allowed, number % 4 == 0, "{number}");
    }
}

#[tokio::test]
async fn the_body_of_each_review_has_its_time_on_one_connection_of_either_protocol() {
    let settings = Settings { receive_within: Duration::from_millis(300), workers: 1, ..Settings::default() };
    let server = Server::start_with(settings, None);
    for client in [server.client(), server.client_builder().http1_only().build().unwrap()] {
        for _ in 0..3 {
            let whole = review(&[("web", "example.com/good:1")]).to_string();
            assert_eq!(server.send(&client, "/validate", whole.clone()).await.status(), 200);
            let first = Ok::<_, std::io::Error>(whole.as_bytes()[..100].to_vec());
            let stalls = futures_util::stream::StreamExt::chain(
                futures_util::stream::iter([first]),
                futures_util::stream::pending(),
            );
            let request = client.post(server.url("/validate")).header("content-type", "application/json");
            // The client may hear of the end before it has read the answer.
            if let Ok(response) = request.body(reqwest::Body::wrap_stream(stalls)).send().await {
                assert_eq!(response.status(), 408);
            }
        }
    }
    assert!(server.metrics().contains("sealgate_reviews_total{operation=\"none\",verdict=\"malformed\"} 6"));
}

#[tokio::test]
async fn an_answer_closes_the_connection_unless_it_is_to_a_review() {
    let server = Server::start();
    let whole = review(&[("web", "example.com/good:1")]).to_string();
    for (path, content_type, body) in [
        ("/validate", "application/json", "{}"),
        ("/validate", "text/plain", "{}"),
        ("/mutate", "application/json", "garbage"),
        ("/nowhere", "application/json", "{}"),
    ] {
        let mut open = Connection::open(&server, &[b"http/1.1"]).unwrap();
        for _ in 0..2 {
            assert!(open.ask("example.com/good:1").1.contains("\"allowed\":true"), "it stays open");
        }
        write!(
            open.0,
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = Vec::new();
        // Ends with the connection; the test would hang if that stayed open.
        let _ = open.0.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap().to_lowercase();
        assert!(answer.starts_with("http/1.1 4") && answer.contains("connection: close"), "{answer}");
    }
    // Over HTTP/2 the client opens another connection, and notices nothing.
    let client = server.client();
    for body in ["{}".to_owned(), whole.clone(), "{}".to_owned(), whole] {
        let status = if body.len() < 10 { 400 } else { 200 };
        assert_eq!(server.send(&client, "/validate", body).await.status(), status);
    }
}

#[tokio::test]
async fn callers_with_a_client_certificate_keep_their_share_whatever_others_open() {
    let (ca, known) = client_certificate();
    let server = Server::start_with(Settings { connections: 64, ..Settings::default() }, Some(&ca));
    let identity = reqwest::Identity::from_pem(known.as_bytes()).unwrap();
    let client = server.client_builder().identity(identity).http1_only().build().unwrap();
    let ask = async || {
        let waiting = review(&[("web", "example.com/wait:1")]).to_string();
        server.send(&client, "/validate", waiting).await.status()
    };
    // As many reviews in flight as there is room for callers with a certificate, each on a connection of its own.
    let in_flight = futures_util::future::join_all((0..12).map(|_| ask()));
    let others = async {
        while server.gate.asked.lock().unwrap().len() < 12 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let crowd: Vec<_> = (0..300).map(|_| TcpStream::connect(server.address).unwrap()).collect();
        server.gate.open.add_permits(12);
        crowd
    };
    let (answers, crowd) = tokio::join!(in_flight, others);
    assert!(answers.into_iter().all(|status| status == 200));
    server.gate.open.add_permits(1);
    assert_eq!(ask().await, 200, "and a new one comes through beside {} silent connections", crowd.len());
}

#[test]
fn an_exchanged_certificate_drops_no_connection() {
    let server = Server::start();
    let mut open = Connection::open(&server, &[]).unwrap();
    assert!(open.ask("example.com/good:1").1.contains("\"allowed\":true"));

    let other = TempDir::new().unwrap();
    ServerTls::load(&Certificate::Made { folder: other.path().to_owned() }, None, &[], Timestamp::now()).unwrap();
    for file in ["tls.crt", "tls.key"] {
        fs::copy(other.path().join(file), server.folder.path().join(file)).unwrap();
    }
    let cas = [fs::read(server.ca()).unwrap(), fs::read(other.path().join("ca.crt")).unwrap()].concat();
    fs::write(server.ca(), cas).unwrap();
    assert!(refresh(&server));

    assert!(open.ask("example.com/good:1").1.contains("\"allowed\":true"), "the open connection goes on");
    let new = Connection::open(&server, &[]).unwrap();
    assert_ne!(new.certificate(), open.certificate());
}

#[test]
fn a_broken_exchange_leaves_the_certificate_in_force() {
    let server = Server::start();
    let before = Connection::open(&server, &[]).unwrap().certificate();
    fs::write(server.folder.path().join("tls.key"), "not a key").unwrap();
    assert!(!refresh(&server));
    assert_eq!(Connection::open(&server, &[]).unwrap().certificate(), before);
}

/// A CA and a client certificate of it, both PEM; the second with its key.
fn client_certificate() -> (String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let mut client = CertificateParams::default();
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = client.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
    (ca_pem, certificate.pem() + &key.serialize_pem())
}

#[tokio::test]
async fn with_a_client_ca_only_its_clients_are_served_and_a_new_ca_holds_at_once() {
    let (ca, known) = client_certificate();
    let (other_ca, unknown) = client_certificate();
    let server = Server::start_with(Settings::default(), Some(&ca));
    let works = async |identity: Option<&str>| {
        let mut builder = server.client_builder();
        if let Some(identity) = identity {
            builder = builder.identity(reqwest::Identity::from_pem(identity.as_bytes()).unwrap());
        }
        let body = review(&[("web", "example.com/good:1")]).to_string();
        let request = builder.build().unwrap().post(server.url("/validate")).header("content-type", "application/json");
        request.body(body).send().await.is_ok_and(|response| response.status() == 200)
    };
    assert!(works(Some(&known)).await);
    assert!(!works(Some(&unknown)).await);
    assert!(!works(None).await);
    fs::write(server.folder.path().join("client-ca.crt"), other_ca).unwrap();
    assert!(refresh(&server));
    assert!(!works(Some(&known)).await);
    assert!(works(Some(&unknown)).await);
}

#[test]
fn a_server_that_is_about_to_stop_closes_each_connection_behind_its_answer() {
    let server = Server::start();
    let mut open = Connection::open(&server, &[]).unwrap();
    assert!(open.ask("example.com/good:1").1.contains("\"allowed\":true"));
    server.readiness.set(false);
    for mut connection in [open, Connection::open(&server, &[]).unwrap()] {
        assert!(connection.ask("example.com/good:1").1.contains("\"allowed\":true"), "it is still served");
        assert_eq!(connection.0.read(&mut [0]).unwrap_or(0), 0, "nobody sends another review into it");
    }
}

#[tokio::test]
async fn a_graceful_stop_lets_a_running_review_end_and_closes_idle_connections() {
    let mut server = Server::start();
    let client = server.client();
    let mut idle = Connection::open(&server, &[]).unwrap();
    assert!(idle.ask("example.com/good:1").0.contains("200"));
    let body = review(&[("web", "example.com/wait:1")]).to_string();
    let running = tokio::spawn({
        let request = client.post(server.url("/validate")).header("content-type", "application/json").body(body);
        async move { request.send().await.unwrap().text().await.unwrap() }
    });
    server.gate.begun.notified().await;
    server.stop();
    // Idle connections end once it stops; the read says when.
    let rest = tokio::task::spawn_blocking(move || idle.0.read(&mut [0]).unwrap_or(0)).await.unwrap();
    assert_eq!(rest, 0);
    assert!(!running.is_finished());
    server.gate.open.add_permits(1);
    assert!(running.await.unwrap().contains("\"allowed\":false"));
    tokio::task::spawn_blocking(move || server.wait()).await.unwrap();
}

#[tokio::test]
async fn a_review_that_does_not_end_holds_a_stop_up_only_so_long() {
    let mut server = Server::start_with(Settings { stop_within: Duration::from_secs(1), ..Settings::default() }, None);
    let client = server.client();
    let body = review(&[("web", "example.com/wait:1")]).to_string();
    let request = client.post(server.url("/validate")).header("content-type", "application/json").body(body);
    let running = tokio::spawn(async move { request.send().await.is_ok_and(|response| response.status() == 200) });
    server.gate.begun.notified().await;
    server.stop();
    let mut server = tokio::task::spawn_blocking(move || {
        server.wait();
        server
    })
    .await
    .unwrap();
    assert!(!running.await.unwrap(), "a connection that is cut off says nothing");
    server.stop();
}
