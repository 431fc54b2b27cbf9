//! Answers that are encoded, asked for or not.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use sealgate::{
    configuration::{Registry, SignatureSource},
    image::{Digest, Repository},
    registry::Client,
    signature_sources::Finder,
};
use url::Url;

use super::{LONG, MANIFEST_TYPE, client, manifest, misbehaved, plain, resolve, robot};
use crate::support::{Asked, Liar, Reply};

/// Looks like an OpenPGP message to those who don't look into it.
const MESSAGE: &[u8] = b"\xa3\x01message";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// The same answer, with its body in gzip.
fn packed(reply: Reply) -> Reply {
    match reply {
        Reply::Http(status, mut headers, body) => {
            headers.push(("content-encoding".to_owned(), "gzip".to_owned()));
            Reply::Http(status, headers, gzip(&body))
        }
        reply => reply,
    }
}

/// A server that packs all that it answers; `always`: also for those who ask it not to.
fn server(always: bool, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Liar {
    Liar::start(move |asked| match asked.header("accept-encoding") {
        Some("identity") if !always => answer(asked),
        _ => packed(answer(asked)),
    })
}

/// A registry that wants a token from itself, and has the extension and a lookaside tree.
fn registry(asked: &Asked) -> Reply {
    let host = asked.header("host").unwrap_or_default().to_owned();
    let unknown = || Reply::new(404, &[], r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#);
    match (asked.path.split('?').next().unwrap_or_default(), asked.header("authorization")) {
        ("/token", _) => Reply::new(200, &[], r#"{"token": "right"}"#),
        (path, _) if path.starts_with("/lookaside/") => {
            if path.ends_with("/signature-1") {
                Reply::new(200, &[], MESSAGE)
            } else {
                Reply::empty(404)
            }
        }
        (path, Some("Bearer right")) if path.contains("/manifests/") => {
            Reply::new(200, &[("content-type", MANIFEST_TYPE)], manifest("one"))
        }
        (path, Some("Bearer right")) if path.contains("/signatures/") => {
            if path.contains("/none/") {
                return unknown();
            }
            let content = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, MESSAGE);
            Reply::new(
                200,
                &[("content-type", "application/json")],
                format!(r#"{{"signatures":[{{"schemaVersion":2,"type":"atomic","content":"{content}"}}]}}"#),
            )
        }
        (_, Some("Bearer right")) => unknown(),
        _ => {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            let headers = [("www-authenticate", challenge.as_str()), ("x-registry-supports-signatures", "1")];
            Reply::new(401, &headers, r#"{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}"#)
        }
    }
}

async fn found(client: Client, repository: &str) -> Vec<Result<usize, String>> {
    let repository = Repository::parse(repository).expect("a repository");
    let deadline = (std::time::Instant::now() + LONG).into();
    let found = Finder::new(client.into()).find_complete(&repository, Digest::sha256(b"image"), deadline).await;
    assert!(found.signatures.iter().all(|signature| *signature.content == *MESSAGE));
    found.asked.iter().map(|asked| asked.outcome.clone().map_err(|error| error.to_string())).collect()
}

#[tokio::test]
async fn gzip_is_not_asked_for_and_decoded_where_it_comes_all_the_same() {
    for always in [false, true] {
        let server = server(always, registry);
        let entry = || Registry { credentials: Some(robot()), ..plain(&server.host()) };
        let image = format!("{}/acme/web", server.host());
        let digest = Digest::sha256(&manifest("one"));
        for reference in [format!("{image}:1"), format!("{image}@{digest}")] {
            let resolved = resolve(&client(vec![entry()]), &reference).await.unwrap();
            assert_eq!(resolved.digest(), digest, "that of the decoded bytes");
        }
        assert_eq!(found(client(vec![entry()]), &image).await, [Ok(1)]);
        // That there is none stands in the body, too.
        assert_eq!(found(client(vec![entry()]), &format!("{}/acme/none/x", server.host())).await, [Ok(0)]);
        let url = Url::parse(&format!("http://{}/lookaside", server.host())).unwrap();
        let lookaside = Registry { signatures: Some(vec![SignatureSource::Lookaside(url)]), ..entry() };
        assert_eq!(found(client(vec![lookaside]), &image).await, [Ok(1)]);
        let encodings: Vec<_> =
            server.asked().iter().map(|asked| asked.header("accept-encoding").map(str::to_owned)).collect();
        assert!(encodings.iter().all(|encoding| encoding.as_deref() == Some("identity")), "{encodings:?}");
    }
}

/// What a registry's manifest comes to that is sent with this encoding.
async fn sent_as(encoding: &'static str, body: Vec<u8>) -> String {
    let server = Liar::start(move |asked| {
        if asked.path == "/v2/" {
            return Reply::empty(200);
        }
        Reply::new(200, &[("content-type", MANIFEST_TYPE), ("content-encoding", encoding)], &body)
    });
    misbehaved(resolve(&client(vec![plain(&server.host())]), &format!("{}/acme/web:1", server.host())).await)
}

#[tokio::test]
async fn another_encoding_is_named() {
    for encoding in ["br", "zstd", "deflate"] {
        let what = sent_as(encoding, manifest("one")).await;
        assert!(what.contains(&format!("Content-Encoding: {encoding}")), "{what}");
    }
    let what = sent_as("gzip, br", manifest("one")).await;
    assert!(what.contains("Content-Encoding: br"), "{what}");
    let what = sent_as("<script>", manifest("one")).await;
    assert!(what.contains("not known here") && !what.contains("script"), "{what}");
}

#[tokio::test]
async fn what_inflates_without_end_or_is_damaged_is_refused() {
    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 100_000);
    let what = sent_as("gzip", bomb).await;
    assert!(what.contains("inflates to more than 4.0 MiB"), "{what}");
    let good = gzip(&manifest("one"));
    for bad in [good[..good.len() - 1].to_vec(), good[..1].to_vec(), [&*good, b"x"].concat()] {
        let what = sent_as("gzip", bad).await;
        assert!(what.contains("it is not gzip"), "{what}");
    }
    // Of what is larger than it may be, the rest is not even waited for.
    let server = Liar::start(|asked| {
        if asked.path == "/v2/" {
            return Reply::empty(200);
        }
        let head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n".to_vec();
        Reply::Forever([head, gzip(&manifest("one"))].concat(), gzip(b""))
    });
    let outcome = resolve(&client(vec![plain(&server.host())]), &format!("{}/acme/web:1", server.host())).await;
    assert!(misbehaved(outcome).contains("sends more than 4.0 MiB"));
}

#[tokio::test]
async fn a_header_that_is_not_true_does_no_harm() {
    let headers = [("content-type", MANIFEST_TYPE), ("content-encoding", "gzip")];
    let server =
        Liar::start(
            move |asked| {
                if asked.path == "/v2/" { Reply::empty(200) } else { Reply::new(200, &headers, manifest("one")) }
            },
        );
    let found = resolve(&client(vec![plain(&server.host())]), &format!("{}/acme/web:1", server.host())).await;
    assert_eq!(found.unwrap().digest(), Digest::sha256(&manifest("one")));
}
