//! The extension endpoint: what is taken, what is not, and what stays.

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::join_all;
use reqwest::{Client, Response};
use sealgate::{
    configuration::Limits,
    image::{Digest, digest::Algorithm},
};
use serde_json::{Value, json};

use super::fake::Fake;
use crate::support::{DockerRegistry, Gpg, Pushed, Store};

/// A store in front of a registry with one image, and someone who signs.
struct Scenario {
    registry: DockerRegistry,
    store: Store,
    image: Pushed,
    gpg: Gpg,
    key: String,
}

const REPOSITORY: &str = "acme/team/web";
const REFERENCE: &str = "registry.example.com/acme/team/web:1";

impl Scenario {
    async fn new() -> Self {
        let registry = DockerRegistry::start();
        let image = registry.push(REPOSITORY, "1", "one").await;
        let store = Store::start(&registry.url());
        let gpg = Gpg::new();
        let key = gpg.generate("Release <release@example.com>");
        Self { registry, store, image, gpg, key }
    }

    fn sign(&self, digest: &Digest) -> Vec<u8> {
        self.gpg.sign_image(&self.key, digest, REFERENCE)
    }

    /// Signatures that differ, although they are made within one second.
    fn sign_often(&self, digest: &Digest, count: usize) -> Vec<Vec<u8>> {
        let reference = |number| format!("{REFERENCE}.{number}");
        (0..count).map(|number| self.gpg.sign_image(&self.key, digest, &reference(number))).collect()
    }

    async fn put(&self, body: &Value) -> (u16, String) {
        answer(Client::new().put(self.store.signatures_url(REPOSITORY, self.image.digest)).body(body.to_string())).await
    }

    async fn list(&self) -> Vec<Value> {
        list(&self.store, &self.image.digest).await
    }
}

async fn list(store: &Store, digest: &Digest) -> Vec<Value> {
    let answer = reqwest::get(store.signatures_url(REPOSITORY, digest)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let list: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    list["signatures"].as_array().unwrap().clone()
}

/// The status, and the error's code, or the body where it is none.
async fn answer(request: reqwest::RequestBuilder) -> (u16, String) {
    code_of(request.send().await.unwrap()).await
}

async fn code_of(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body = answer.text().await.unwrap();
    match serde_json::from_str::<Value>(&body) {
        Ok(body) => (status, body["errors"][0]["code"].as_str().unwrap().to_owned()),
        Err(_) => (status, body),
    }
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn created() -> (u16, String) {
    (201, String::new())
}

fn document(digest: &Digest, number: usize, content: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "type": "atomic",
        "name": format!("{digest}@{number:032}"),
        "content": BASE64_STANDARD.encode(content),
    })
}

#[tokio::test]
async fn what_was_put_is_what_everyone_reads() {
    let scenario = Scenario::new().await;
    let digest = scenario.image.digest;
    assert_eq!(scenario.list().await, [] as [Value; 0]);
    let [first, second] = scenario.sign_often(&digest, 2).try_into().unwrap();
    assert_eq!(scenario.put(&document(&digest, 2, &second)).await, created());
    // As it was first documented: version, no type; members that nobody knows do no harm.
    let other = json!({
        "version": 2,
        "name": format!("{digest}@{:032}", 1),
        "content": BASE64_STANDARD.encode(&first),
        "comment": {"x": 1},
    });
    assert_eq!(scenario.put(&other).await, created());
    let expected = [(1, &first), (2, &second)].map(|(number, content)| {
        let mut entry = document(&digest, number, content);
        entry["version"] = 2.into();
        entry
    });
    assert_eq!(scenario.list().await, expected);
    let elsewhere = list(&scenario.store, &Digest::of(Algorithm::Sha512, b"other")).await;
    assert_eq!(elsewhere, [] as [Value; 0]);
}

#[tokio::test]
async fn the_registry_is_not_asked_for_each_get_of_an_image_that_everyone_may_pull() {
    let digest = Digest::sha256(b"public");
    let fake = Fake::says(&format!("HTTP/1.1 200 OK\r\nDocker-Content-Digest: {digest}\r\nContent-Length: 0\r\n\r\n"));
    let store = Store::start(&fake.url());
    for _ in 0..3 {
        assert_eq!(list(&store, &digest).await, [] as [Value; 0]);
    }
    assert_eq!(fake.heads().len(), 1);
}

#[tokio::test]
async fn each_thing_that_is_wrong_with_a_signature_is_said() {
    let scenario = Scenario::new().await;
    let digest = scenario.image.digest;
    let other = Digest::sha256(b"other");
    let good = scenario.sign(&digest);
    let changed = |member: &str, value: Value| {
        let mut document = document(&digest, 1, &good);
        match value {
            Value::Null => {
                document.as_object_mut().unwrap().remove(member);
            }
            value => document[member] = value,
        }
        document
    };
    let content = |content: &[u8]| changed("content", BASE64_STANDARD.encode(content).into());
    let name = |name: &str| changed("name", format!("{digest}@{name}").into());
    let armored = scenario.gpg.run(&["--armor", "--local-user", &scenario.key, "--sign"], b"{}");
    let detached = scenario.gpg.run(&["--local-user", &scenario.key, "--detach-sign"], b"{}");
    for (number, body) in [
        json!([]),
        json!("text"),
        json!({}),
        changed("schemaVersion", Value::Null),
        changed("schemaVersion", 1.into()),
        changed("version", 1.into()),
        changed("schemaVersion", "2".into()),
        changed("type", "manifest".into()),
        changed("name", Value::Null),
        changed("name", "0".repeat(32).into()),
        changed("name", format!("{other}@{}", "0".repeat(32)).into()),
        name(&"0".repeat(31)),
        name(&"/".repeat(32)),
        changed("content", Value::Null),
        changed("content", "%%%".into()),
        content(b""),
        content(b"not OpenPGP"),
        content(&armored),
        content(&detached),
        content(&good[..good.len() - 3]),
        content(&scenario.gpg.sign(&scenario.key, b"{}")),
        content(&scenario.sign(&other)),
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(scenario.put(body).await, refused(400, "SIGNATURE_INVALID"), "{number}: {body}");
    }
    let url = scenario.store.signatures_url(REPOSITORY, digest);
    let put = |body: &str| Client::new().put(&url).body(body.to_owned());
    assert_eq!(answer(put("{")).await, refused(400, "SIGNATURE_INVALID"));
    let twice = r#"{"name":"a","name":"b","schemaVersion":2,"content":""}"#;
    assert_eq!(answer(put(twice)).await, refused(400, "SIGNATURE_INVALID"));
    // The members in their order, which serde would take for them.
    let entry = document(&digest, 1, &good);
    let array = json!([2, 2, "atomic", entry["name"], entry["content"]]).to_string();
    assert_eq!(answer(put(&array)).await, refused(400, "SIGNATURE_INVALID"));
    assert_eq!(scenario.list().await, [] as [Value; 0]);
    assert_eq!(scenario.put(&document(&digest, 1, &good)).await, created());
}

#[tokio::test]
async fn a_name_and_a_signature_are_taken_once() {
    let scenario = Scenario::new().await;
    let digest = scenario.image.digest;
    let [first, second] = scenario.sign_often(&digest, 2).try_into().unwrap();
    assert_eq!(scenario.put(&document(&digest, 1, &first)).await, created());
    assert_eq!(scenario.put(&document(&digest, 1, &second)).await, refused(409, "SIGNATURE_EXISTS"));
    assert_eq!(scenario.put(&document(&digest, 2, &first)).await, refused(409, "SIGNATURE_EXISTS"));
    assert_eq!(scenario.list().await.len(), 1);
}

#[tokio::test]
async fn only_images_of_the_registry_have_signatures() {
    let scenario = Scenario::new().await;
    let digest = Digest::sha256(b"never pushed");
    let body = document(&digest, 1, &scenario.sign(&digest));
    let put = |url: String, body: &Value| Client::new().put(url).body(body.to_string());
    let unknown = refused(404, "MANIFEST_UNKNOWN");
    assert_eq!(answer(put(scenario.store.signatures_url(REPOSITORY, digest), &body)).await, unknown);
    let here = scenario.image.digest;
    let body = document(&here, 1, &scenario.sign(&here));
    assert_eq!(answer(put(scenario.store.signatures_url("acme/other", here), &body)).await, unknown);
    for (url, code) in [
        (scenario.store.signatures_url("Acme/web", here), "NAME_INVALID"),
        (scenario.store.signatures_url(REPOSITORY, "sha256:00"), "DIGEST_INVALID"),
    ] {
        assert_eq!(answer(put(url, &body)).await, refused(400, code));
    }
    let url = scenario.store.signatures_url(REPOSITORY, here);
    assert_eq!(answer(Client::new().delete(url)).await, refused(405, "UNSUPPORTED"));
}

#[tokio::test]
async fn what_is_over_a_limit_is_refused() {
    let registry = DockerRegistry::start();
    let image = registry.push(REPOSITORY, "1", "one").await;
    // Room for two entries of a signature.
    let store = Store::start_with(&registry.url(), &Limits { signature_list_bytes: 2200, ..Limits::default() });
    let gpg = Gpg::new();
    let url = store.signatures_url(REPOSITORY, image.digest);
    let put = async |number, content: &[u8]| {
        answer(Client::new().put(&url).body(document(&image.digest, number, content).to_string())).await
    };
    let too_large = refused(413, "SIZE_INVALID");
    assert_eq!(put(0, &vec![0; 1 << 20]).await, too_large);
    assert_eq!(put(0, &vec![0; (64 << 10) + 1]).await, too_large);
    // Without a length in front.
    let chunks = (0..64).map(|_| Ok::<_, std::io::Error>(vec![b' '; 16 << 10]));
    let endless = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    let endless = Client::new().put(&url).body(endless).send().await;
    // The connection may be closed before the client has sent all of it.
    assert!(endless.is_err() || code_of(endless.unwrap()).await == too_large);
    for (number, expected) in [created(), created(), too_large].into_iter().enumerate() {
        // Each of another signer, or else it would be a signer's part that is over.
        let key = gpg.generate(&format!("Release {number} <release@example.com>"));
        let outcome = put(number, &gpg.sign_image(&key, &image.digest, REFERENCE)).await;
        assert_eq!(outcome, expected, "{number}");
    }
}

#[tokio::test]
async fn of_32_who_race_for_a_name_one_wins_and_32_names_are_all_kept() {
    let scenario = Scenario::new().await;
    let digest = scenario.image.digest;
    let contents = scenario.sign_often(&digest, 32);
    let race = join_all(contents.iter().map(async |content| scenario.put(&document(&digest, 99, content)).await)).await;
    assert_eq!(race.iter().filter(|outcome| **outcome == created()).count(), 1);
    assert_eq!(race.iter().filter(|outcome| **outcome == refused(409, "SIGNATURE_EXISTS")).count(), 31);
    let digest = scenario.registry.push(REPOSITORY, "2", "two").await.digest;
    let scenario = Scenario { image: Pushed { digest, ..scenario.image.clone() }, ..scenario };
    let contents = scenario.sign_often(&digest, 32);
    let puts = contents.iter().enumerate();
    let puts =
        join_all(puts.map(async |(number, content)| scenario.put(&document(&digest, number, content)).await)).await;
    assert!(puts.iter().all(|outcome| *outcome == created()), "{puts:?}");
    assert_eq!(scenario.list().await.len(), 32);
}

#[tokio::test]
async fn who_may_not_pull_an_image_neither_reads_nor_adds_its_signatures() {
    let challenge =
        r#"Bearer realm="https://auth.example.com/token",service="r",scope="repository:acme/team/web:pull""#;
    let (says_no, denies) = ("HTTP/1.1 401 Unauthorized", "HTTP/1.1 403 Forbidden");
    let digest = Digest::sha256(b"private");
    let answers =
        format!("www-authenticate: {challenge}\r\nDocker-Content-Digest: {digest}\r\nContent-Length: 0\r\n\r\n");
    let fake = Fake::start(move |head, stream| {
        use std::io::Write;
        let status = match head {
            head if head.contains("authorization: Bearer good\r\n") => "HTTP/1.1 200 OK",
            head if head.contains("authorization: Bearer other\r\n") => denies,
            _ => says_no,
        };
        write!(stream, "{status}\r\n{answers}")
    });
    let store = Store::start(&fake.url());
    let gpg = Gpg::new();
    let key = gpg.generate("Release <release@example.com>");
    let url = store.signatures_url(REPOSITORY, digest);
    let body = document(&digest, 1, &gpg.sign_image(&key, &digest, REFERENCE));
    let put = || Client::new().put(&url).body(body.to_string());
    let get = || Client::new().get(&url);
    for request in [put(), get()] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["www-authenticate"], challenge);
        assert_eq!(code_of(answer).await, refused(401, "UNAUTHORIZED"));
    }
    assert_eq!(answer(put().bearer_auth("other")).await, refused(403, "DENIED"));
    // Nor do they learn what is wrong with what they send.
    let nonsense = || Client::new().put(&url).body("nonsense");
    assert_eq!(answer(nonsense()).await, refused(401, "UNAUTHORIZED"));
    assert_eq!(answer(nonsense().bearer_auth("good")).await, refused(400, "SIGNATURE_INVALID"));
    assert_eq!(answer(put().bearer_auth("good")).await, created());
    assert_eq!(get().bearer_auth("good").send().await.unwrap().status(), 200);
    // That one may is nothing that another one could use.
    assert_eq!(answer(get().bearer_auth("other")).await, refused(403, "DENIED"));
    assert_eq!(answer(get()).await, refused(401, "UNAUTHORIZED"));
}

#[tokio::test]
async fn a_registry_in_trouble_is_passed_on_with_the_time_to_wait() {
    for (said, status, code) in
        [("503 Service Unavailable", 503, "UNAVAILABLE"), ("429 Too Many Requests", 429, "TOOMANYREQUESTS")]
    {
        let fake = Fake::says(&format!("HTTP/1.1 {said}\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n"));
        let store = Store::start(&fake.url());
        let answer = reqwest::get(store.signatures_url(REPOSITORY, Digest::sha256(b""))).await.unwrap();
        assert_eq!(answer.headers()["retry-after"], "17");
        assert_eq!(code_of(answer).await, refused(status, code));
    }
}

/// A registry for two names, one of whose images are for `Bearer good` and for a cookie alone.
fn private(digest: Digest) -> Fake {
    use std::io::Write;
    Fake::start(move |head, stream| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let manifest = path == format!("/v2/{REPOSITORY}/manifests/{digest}");
        // What a registry makes of it: a blob of the repository acme/team/web/manifests/x.
        let blob = path == format!("/v2/{REPOSITORY}/manifests/x/blobs/{digest}");
        let known = head.contains("authorization: Bearer good\r\n") || head.contains("cookie: session=good\r\n");
        let status = if blob || (manifest && known) { "200 OK" } else { "401 Unauthorized" };
        write!(stream, "HTTP/1.1 {status}\r\nDocker-Content-Digest: {digest}\r\nContent-Length: 0\r\n\r\n")
    })
}

#[tokio::test]
async fn nothing_that_passes_through_makes_a_private_image_public() {
    let digest = Digest::sha256(b"private");
    let registry = private(digest);
    let store = Store::start(&registry.url());
    let get = |path: String| Client::new().get(format!("{}{path}", store.url()));
    for pulled in [
        get(format!("/v2/{REPOSITORY}/manifests/x/blobs/{digest}")),
        get(format!("/v2/{REPOSITORY}/manifests/{digest}")).header("cookie", "session=good"),
        get(format!("/v2/{REPOSITORY}/manifests/{digest}")).bearer_auth("good"),
    ] {
        assert_eq!(pulled.send().await.unwrap().status(), 200);
        let url = store.signatures_url(REPOSITORY, digest);
        assert_eq!(answer(Client::new().get(&url)).await, refused(401, "UNAUTHORIZED"));
        let with_cookie = Client::new().get(&url).header("cookie", "session=good");
        assert_eq!(answer(with_cookie).await, refused(401, "UNAUTHORIZED"), "only Authorization is the caller's");
        assert_eq!(Client::new().get(&url).bearer_auth("good").send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn an_image_that_was_deleted_gets_no_signature_even_if_it_was_public_just_now() {
    let scenario = Scenario::new().await;
    let digest = scenario.image.digest;
    assert_eq!(scenario.put(&document(&digest, 1, &scenario.sign(&digest))).await, created());
    assert_eq!(scenario.list().await.len(), 1);
    let manifest = format!("{}/v2/{REPOSITORY}/manifests/{digest}", scenario.registry.url());
    assert_eq!(Client::new().delete(manifest).send().await.unwrap().status(), 202);
    let [_, second] = scenario.sign_often(&digest, 2).try_into().unwrap();
    assert_eq!(scenario.put(&document(&digest, 2, &second)).await, refused(404, "MANIFEST_UNKNOWN"));
}

#[tokio::test]
async fn a_redirect_of_a_manifest_request_is_followed_but_not_to_a_private_address() {
    use std::io::Write;
    let inside = Fake::says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let elsewhere = inside.url();
    let registry = Fake::start(move |head, stream| {
        let location = match head.split(' ').nth(1).unwrap_or_default() {
            path if path.contains("/moved/") => path.replace("/moved/", "/here/"),
            path if path.contains("/away/") => format!("{elsewhere}{path}"),
            path if path.contains("/round/") => path.to_owned(),
            _ => {
                let good = head.contains("authorization: Bearer good\r\n");
                let status = if good { "200 OK" } else { "401 Unauthorized" };
                return write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        };
        // It closes each connection, and says so: else a client would ask the next one on it, and lose that.
        let redirect = "HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\nConnection: close";
        write!(stream, "{redirect}\r\nLocation: {location}\r\n\r\n")
    });
    let store = Store::start(&registry.url());
    let get = |repository| {
        let url = store.signatures_url(repository, Digest::sha256(b""));
        Client::new().get(url).bearer_auth("good")
    };
    assert_eq!(get("acme/moved/web").send().await.unwrap().status(), 200);
    // As if that host did not exist: whoever asks must not learn which do.
    assert_eq!(answer(get("acme/away/web")).await, refused(503, "UNAVAILABLE"));
    assert_eq!(answer(get("acme/round/web")).await, refused(502, "UNAVAILABLE"));
    assert_eq!(inside.heads(), [] as [String; 0]);
}

#[tokio::test]
async fn only_the_manifest_itself_or_its_digest_says_that_it_may_be_pulled() {
    use std::io::Write;
    let manifest = "the manifest";
    let digest = Digest::sha256(manifest.as_bytes());
    let other = Digest::sha256(b"other");
    let longer = Digest::of(Algorithm::Sha512, manifest.as_bytes());
    let huge = "x".repeat(5 << 20);
    // What stands there in place of a manifest: a login page, for one, to which everybody is redirected.
    for (headers, body, status) in [
        (format!("Docker-Content-Digest: {digest}\r\n"), "", 200),
        ("Content-Type: application/vnd.oci.image.manifest.v1+json\r\n".to_owned(), manifest, 200),
        (format!("Docker-Content-Digest: {longer}\r\n"), manifest, 200),
        (String::new(), manifest, 200),
        ("Content-Type: text/html\r\n".to_owned(), "<html>Log in, please</html>", 502),
        ("Content-Type: application/vnd.oci.image.manifest.v1+json\r\n".to_owned(), "another manifest", 502),
        (format!("Docker-Content-Digest: {longer}\r\n"), "another manifest", 502),
        (format!("Docker-Content-Digest: {other}\r\n"), manifest, 502),
        ("Docker-Content-Digest: sha256:x\r\n".to_owned(), manifest, 502),
        (String::new(), "", 502),
        (String::new(), huge.as_str(), 502),
    ] {
        for redirected in [false, true] {
            let (said, body) = (headers.clone(), body.to_owned());
            let registry = Fake::start(move |head, stream| {
                let path = head.split(' ').nth(1).unwrap_or_default();
                if redirected && path.starts_with("/v2/") {
                    let redirect = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nConnection: close";
                    return write!(stream, "{redirect}\r\nLocation: /login\r\n\r\n");
                }
                let length = body.len();
                write!(stream, "HTTP/1.1 200 OK\r\n{said}Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
                if head.starts_with("GET ") { stream.write_all(body.as_bytes()) } else { Ok(()) }
            });
            let store = Store::start(&registry.url());
            let answer = reqwest::get(store.signatures_url(REPOSITORY, digest)).await.unwrap();
            let asked: Vec<String> =
                registry.heads().iter().filter_map(|head| head.lines().next().map(str::to_owned)).collect();
            assert_eq!(answer.status().as_u16(), status, "{headers}, redirected: {redirected}, asked: {asked:?}");
        }
    }
}
