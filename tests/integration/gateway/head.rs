//! Registries that know no HEAD of manifests: the store asks them by GET, and by nothing else than the caller's credentials.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Client;
use sealgate::image::Digest;
use serde_json::{Value, json};

use crate::support::{Asked, Gpg, Liar, Reply, Store};

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;
const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Somebody who signs the image.
struct Signer {
    digest: Digest,
    content: String,
}

impl Signer {
    fn new() -> Self {
        let gpg = Gpg::new();
        let key = gpg.generate("Release <release@example.com>");
        let digest = Digest::sha256(MANIFEST.as_bytes());
        let message = gpg.sign_image(&key, &digest, "registry.example.com/acme/web:1");
        Self { digest, content: BASE64_STANDARD.encode(message) }
    }

    /// The status of a PUT of the signature.
    async fn puts(&self, store: &Store) -> u16 {
        let name = format!("{}@{:032}", self.digest, 1);
        let body = json!({"schemaVersion": 2, "type": "atomic", "name": name, "content": self.content});
        let put = Client::new().put(store.signatures_url("acme/web", self.digest)).body(body.to_string());
        put.send().await.unwrap().status().as_u16()
    }

    /// How many signatures the store has, as everyone reads them.
    async fn count(&self, store: &Store) -> usize {
        let answer = reqwest::get(store.signatures_url("acme/web", self.digest)).await.unwrap();
        let list: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        list["signatures"].as_array().map_or(0, Vec::len)
    }
}

fn is_manifest(asked: &Asked, method: &str) -> bool {
    asked.method == method && asked.path.contains("/manifests/")
}

/// The manifest, with these header fields beside its type.
fn manifest(fields: &[(&str, &str)]) -> Reply {
    Reply::new(200, &[&[("content-type", TYPE)], fields].concat(), MANIFEST)
}

/// The answers to HEAD that settle nothing.
fn heads() -> Vec<(&'static str, Reply)> {
    let raw = |text: &str| Reply::Raw(text.into());
    vec![
        ("404 (Nexus)", Reply::empty(404)),
        ("403 (registry.centos.org)", Reply::empty(403)),
        ("405 (distribution 2.2)", Reply::empty(405)),
        ("400", Reply::empty(400)),
        ("406", Reply::empty(406)),
        ("204", Reply::empty(204)),
        ("500", Reply::empty(500)),
        ("501", Reply::empty(501)),
        ("503", Reply::empty(503)),
        ("200 without a digest", Reply::empty(200)),
        ("200 with an empty digest", Reply::new(200, &[("docker-content-digest", "")], "")),
        ("no HTTP", raw("nonsense\r\n\r\n")),
        ("no answer", Reply::HangUp),
    ]
}

#[tokio::test]
async fn a_manifest_that_a_head_does_not_find_is_asked_for_by_get() {
    let signer = Signer::new();
    let digest = signer.digest.to_string();
    for (name, head) in heads() {
        for fields in [&[][..], &[("docker-content-digest", digest.as_str())], &[("docker-content-digest", "")]] {
            let (head, get) = (head.clone(), manifest(fields));
            let registry = Liar::start(move |asked| match asked.method.as_str() {
                _ if is_manifest(asked, "HEAD") => head.clone(),
                _ if is_manifest(asked, "GET") => get.clone(),
                _ => Reply::empty(200),
            });
            let store = Store::start(&format!("http://{}", registry.host()));
            assert_eq!(signer.puts(&store).await, 201, "{name} {fields:?}");
            assert_eq!(signer.count(&store).await, 1, "{name} {fields:?}");
        }
    }
}

#[tokio::test]
async fn nothing_is_stored_for_an_image_that_a_get_does_not_give_either() {
    let signer = Signer::new();
    let digest = signer.digest.to_string();
    for (get, expected) in [
        (Reply::empty(404), 404),
        (Reply::empty(403), 403),
        (Reply::empty(401), 401),
        (Reply::empty(500), 503),
        (Reply::empty(503), 503),
        (Reply::empty(429), 429),
        (Reply::empty(405), 502),
        (Reply::empty(204), 502),
        (Reply::new(200, &[("content-type", "text/html")], "<html>Log in</html>"), 502),
        (Reply::new(200, &[("content-type", TYPE), ("docker-content-digest", &digest)], "{}"), 502),
        (Reply::new(200, &[], ""), 502),
        // Its bytes, said to be another image's.
        (manifest(&[("docker-content-digest", &Digest::sha256(b"another").to_string())]), 502),
    ] {
        for head in [Reply::empty(404), Reply::empty(403), Reply::empty(405), Reply::empty(500), Reply::empty(200)] {
            let has_it = Arc::new(AtomicBool::new(false));
            let (now, get) = (Arc::clone(&has_it), get.clone());
            let named = format!("{head:?} {get:?}");
            let registry = Liar::start(move |asked| match asked.method.as_str() {
                _ if now.load(Ordering::SeqCst) => manifest(&[]),
                _ if is_manifest(asked, "HEAD") => head.clone(),
                _ if is_manifest(asked, "GET") => get.clone(),
                _ => Reply::empty(200),
            });
            let store = Store::start(&format!("http://{}", registry.host()));
            assert_eq!(signer.puts(&store).await, expected, "{named}");
            has_it.store(true, Ordering::SeqCst);
            assert_eq!(signer.count(&store).await, 0, "{named}");
        }
    }
}

#[tokio::test]
async fn the_get_has_the_callers_own_credentials_and_no_others() {
    let signer = Signer::new();
    let registry = Liar::start(|asked| {
        let is_let_in = asked.header("authorization") == Some("Basic cm9ib3Q6cmlnaHQ=");
        match asked.method.as_str() {
            _ if is_manifest(asked, "HEAD") => Reply::empty(404),
            _ if is_manifest(asked, "GET") && is_let_in => manifest(&[]),
            _ if is_manifest(asked, "GET") => Reply::new(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
            _ => Reply::empty(200),
        }
    });
    let store = Store::start(&format!("http://{}", registry.host()));
    let list = |password: Option<&str>| {
        let request = Client::new().get(store.signatures_url("acme/web", signer.digest));
        let request = password.iter().fold(request, |request, password| request.basic_auth("robot", Some(password)));
        async move { request.send().await.unwrap().status().as_u16() }
    };
    for (password, expected) in [(Some("right"), 200), (Some("wrong"), 401), (None, 401), (Some("right"), 200)] {
        assert_eq!(list(password).await, expected, "{password:?}");
    }
}
