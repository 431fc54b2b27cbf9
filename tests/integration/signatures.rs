//! Signature sources.

use std::{
    os::unix::fs::symlink,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::StreamExt as _;
use sealgate::{
    configuration::{Credentials, Registry, SignatureSource},
    gate::{FindSignatures as _, SignatureSnapshot},
    image::{Digest, Repository},
    refusal::LookupError,
    registry::Client,
    signature_sources::Finder,
    verification::FoundSignatures,
};
use url::Url;

use crate::{
    registry::{LONG, MANIFEST_TYPE, client, entry, manifest, plain, resolve},
    support::{Asked, Liar, Reply, Scratch, run},
};

const ANNOUNCED: (&str, &str) = ("x-registry-supports-signatures", "1");
/// Looks like an OpenPGP message to those who don't look into it.
const MESSAGE: &[u8] = b"\xa3\x01message";

fn digest() -> Digest {
    Digest::sha256(b"image")
}

fn list(entries: &[String]) -> Reply {
    Reply::new(200, &[("content-type", "application/json")], format!(r#"{{"signatures":[{}]}}"#, entries.join(",")))
}

fn signature(name: &str) -> String {
    let content = STANDARD.encode(MESSAGE);
    format!(r#"{{"schemaVersion":2,"version":2,"name":"{name}","type":"atomic","content":"{content}"}}"#)
}

/// A registry with the extension.
fn store(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Liar {
    Liar::start(move |asked| if asked.path == "/v2/" { Reply::new(200, &[ANNOUNCED], "") } else { answer(asked) })
}

async fn find(client: Client, repository: &str) -> Arc<FoundSignatures> {
    find_within(client, repository, LONG).await
}

async fn find_within(client: Client, repository: &str, time: Duration) -> Arc<FoundSignatures> {
    let repository = Repository::parse(repository).expect("a repository");
    Finder::new(Arc::new(client)).find_complete(&repository, digest(), (Instant::now() + time).into()).await
}

async fn find_at(liar: &Liar) -> Arc<FoundSignatures> {
    find(client(vec![plain(&liar.host())]), &format!("{}/acme/web", liar.host())).await
}

fn from(scope: &str, sources: Vec<SignatureSource>) -> Registry {
    Registry { signatures: Some(sources), ..plain(scope) }
}

fn lookaside(url: &str) -> Registry {
    from("r.example.com", vec![SignatureSource::Lookaside(Url::parse(url).expect("a URL"))])
}

fn counts(found: &Arc<FoundSignatures>) -> Vec<Result<usize, String>> {
    let words = |error: &LookupError| match error {
        LookupError::Misbehaved { what, .. } => what.to_string(),
        LookupError::Unavailable { cause, .. } => cause.to_string(),
        other => other.to_string(),
    };
    found.asked.iter().map(|asked| asked.outcome.as_ref().map(|&count| count).map_err(words)).collect()
}

#[tokio::test]
async fn a_registrys_own_extension_is_asked_where_it_is_announced() {
    let liar = store(|_| list(&[signature("sha256:00@a"), signature("sha256:00@b")]));
    let found = find_at(&liar).await;
    assert_eq!(counts(&found), [Ok(2)]);
    assert_eq!(liar.paths(), [format!("/extensions/v2/acme/web/signatures/{}", digest())]);
    assert_eq!(&*found.signatures[0].content, MESSAGE);
    let url = format!("http://{}/extensions/v2/acme/web/signatures/{}", liar.host(), digest());
    assert_eq!(&*found.asked[0].url, url);
    assert_eq!(&*found.signatures[1].source, format!("{url}#sha256:00@b"));
}

#[tokio::test]
async fn a_registry_that_announces_nothing_has_no_signatures_and_is_not_asked_for_any() {
    for headers in [vec![], vec![("x-registry-supports-signatures", "0")]] {
        let liar = Liar::start(move |_| Reply::new(200, &headers, ""));
        let found = find_at(&liar).await;
        assert_eq!(counts(&found), [Ok(0)]);
        assert_eq!(&*found.asked[0].url, format!("http://{}/v2/", liar.host()));
        assert!(liar.paths().is_empty());
    }
}

#[tokio::test]
async fn an_announcement_beside_a_challenge_counts_and_the_list_comes_with_the_token() {
    let realm = Liar::start(|_| Reply::new(200, &[], r#"{"token": "right", "expires_in": 300}"#));
    let challenge = format!("Bearer realm=\"http://{}/\",service=\"s\"", realm.host());
    let liar = Liar::start(move |asked| match asked.header("authorization") {
        None => Reply::new(401, &[ANNOUNCED, ("www-authenticate", &challenge)], ""),
        Some("Bearer right") if asked.path.starts_with("/v2/") => {
            Reply::new(200, &[("content-type", MANIFEST_TYPE)], manifest("one"))
        }
        Some("Bearer right") => list(&[signature("a")]),
        Some(_) => Reply::empty(403),
    });
    let client = Arc::new(client(vec![plain(&liar.host()), entry(&realm.host())]));
    let finder = Finder::new(Arc::clone(&client));
    let repository = Repository::parse(&format!("{}/acme/web", liar.host())).unwrap();
    for tag in ["1", "2"] {
        let image = resolve(&client, &format!("{repository}:{tag}")).await.unwrap();
        let found = finder.find_complete(&repository, image.digest(), (Instant::now() + LONG).into()).await;
        assert_eq!(counts(&found), [Ok(1)]);
    }
    // Two requests for each new image; one ping and one token aside.
    assert_eq!(liar.paths().len(), 4);
    assert_eq!(liar.asked().len(), 5);
    assert_eq!(realm.asked().len(), 1);
}

#[tokio::test]
async fn a_store_elsewhere_is_asked_with_its_own_ca_and_credentials_and_not_the_registrys() {
    let store = Liar::start_tls(|asked| match asked.header("authorization") {
        None => Reply::new(401, &[("www-authenticate", "Basic realm=x")], ""),
        Some(_) => list(&[signature("a")]),
    });
    let folder = Scratch::new();
    let ca_file = Some(folder.write("ca.pem", store.ca()));
    let login = |name: &str| Some(Credentials::Given { username: name.into(), password: "p".into() });
    let url = Url::parse(&format!("https://{}/base", store.host())).unwrap();
    let registry = Registry {
        credentials: login("registry"),
        ..from("r.example.com", vec![SignatureSource::Extension(url.clone())])
    };
    let its_own = Registry { ca_file: ca_file.clone(), credentials: login("store"), ..entry(&store.host()) };
    let found = find(client(vec![registry.clone(), its_own]), "r.example.com/acme/web").await;
    assert_eq!(counts(&found), [Ok(1)]);
    let asked = store.asked();
    assert_eq!(asked.last().unwrap().path, format!("/base/extensions/v2/acme/web/signatures/{}", digest()));
    let expected = format!("Basic {}", STANDARD.encode("store:p"));
    assert_eq!(asked.last().unwrap().header("authorization"), Some(expected.as_str()));
    assert_eq!(asked[0].header("authorization"), None);

    let without_credentials = Registry { ca_file, ..entry(&store.host()) };
    let found = find(client(vec![registry.clone(), without_credentials]), "r.example.com/acme/web").await;
    assert!(matches!(found.failure(), Some(LookupError::Unauthorized { with_credentials: false, .. })), "{found:?}");
    // The registry's `insecure` is not the store's.
    let found = find(client(vec![registry]), "r.example.com/acme/web").await;
    assert!(counts(&found)[0].as_ref().unwrap_err().contains("TLS certificate"), "{found:?}");
}

#[tokio::test]
async fn lists_that_are_too_long_or_no_lists_are_refused() {
    let long = format!(r#"{{"signatures":[],"x":"{}"}}"#, "a".repeat(4 << 20));
    for (body, words) in [(long.as_str(), "more than 4.0 MiB"), ("<html>", "no list"), ("[]", "no list")] {
        let body = body.to_owned();
        let liar = store(move |_| Reply::new(200, &[], &body));
        let found = find_at(&liar).await;
        let [Err(what)] = &counts(&found)[..] else { panic!("{found:?}") };
        assert!(what.contains(words), "{what}");
    }
}

#[tokio::test]
async fn ten_thousand_entries_are_all_found() {
    let entries = vec![signature("a"); 10_000];
    let liar = store(move |_| list(&entries));
    assert_eq!(counts(&find_at(&liar).await), [Ok(10_000)]);
}

#[tokio::test]
async fn entries_that_are_bad_or_of_other_versions_take_nothing_from_the_good_one() {
    let liar = store(|_| {
        let other = |from: &str, to: &str| signature("a").replace(from, to);
        list(&[
            other("\"schemaVersion\":2", "\"schemaVersion\":3"),
            other("atomic", "other"),
            r#"{"schemaVersion":2,"type":"atomic","content":"%%%"}"#.to_owned(),
            signature("good"),
        ])
    });
    let found = find_at(&liar).await;
    assert_eq!(found.signatures.len(), 1);
    let [Ok(1), Err(what)] = &counts(&found)[..] else { panic!("{found:?}") };
    assert!(what.starts_with("1 of the entries"), "{what}");
}

#[tokio::test]
async fn a_404_means_none_only_in_the_registrys_own_words() {
    let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"x"}]}"#;
    let liar = store(move |_| Reply::new(404, &[], unknown));
    assert_eq!(counts(&find_at(&liar).await), [Ok(0)]);
    let liar = store(|_| Reply::new(404, &[], "404 page not found"));
    let found = find_at(&liar).await;
    assert!(matches!(found.failure(), Some(LookupError::Misbehaved { .. })), "{found:?}");
}

#[tokio::test]
async fn a_source_that_fails_does_not_hide_what_another_has() {
    let folder = Scratch::new();
    let name = format!("acme/web@sha256={}/signature-1", digest().hex());
    folder.write(&name, MESSAGE);
    let hanging = Liar::start(|_| Reply::Drip(Vec::from("HTTP/1.1 200 OK\r\nx: ")));
    let broken = Liar::start(|_| Reply::HangUp);
    let url = |liar: &Liar| Url::parse(&format!("http://{}", liar.host())).unwrap();
    let sources = vec![
        SignatureSource::Extension(url(&hanging)),
        SignatureSource::Extension(url(&broken)),
        SignatureSource::Lookaside(Url::from_directory_path(folder.path()).unwrap()),
    ];
    let client = client(vec![from("r.example.com", sources)]);
    let found = find_within(client, "r.example.com/acme/web", Duration::from_secs(5)).await;
    assert_eq!(found.signatures.len(), 1);
    let outcomes: Vec<_> = found.asked.iter().map(|asked| &asked.outcome).collect();
    let [Err(LookupError::TimedOut { .. }), Err(LookupError::Unavailable { .. }), Ok(1)] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
}

#[tokio::test]
async fn a_snapshot_has_the_signatures_of_one_source_while_another_hangs() {
    let folder = Scratch::new();
    folder.write(&format!("acme/web@sha256={}/signature-1", digest().hex()), MESSAGE);
    let hanging = Liar::start(|_| Reply::Drip(Vec::from("HTTP/1.1 200 OK\r\nx: ")));
    let url = format!("http://{}/", hanging.host());
    let sources = vec![
        SignatureSource::Extension(Url::parse(&url).unwrap()),
        SignatureSource::Lookaside(Url::from_directory_path(folder.path()).unwrap()),
    ];
    let finder = Finder::new(Arc::new(client(vec![from("r.example.com", sources)])));
    let repository = Repository::parse("r.example.com/acme/web").unwrap();
    let mut snapshots = finder.find(&repository, digest(), (Instant::now() + LONG).into());
    let SignatureSnapshot { found, is_complete, .. } = snapshots.next().await.unwrap();
    assert!(!is_complete, "it waits for both: {found:?}");
    assert_eq!(found.signatures.len(), 1);
    let [hanging, folder] = &found.asked[..] else { panic!("{found:?}") };
    assert_eq!(&*hanging.url, url);
    assert!(matches!(hanging.outcome, Err(LookupError::TimedOut { .. })), "{hanging:?}");
    assert!(matches!(folder.outcome, Ok(1)), "{folder:?}");
}

#[tokio::test]
async fn a_partial_snapshot_has_signatures() {
    let folder = Scratch::new();
    let hanging = Liar::start(|_| Reply::Drip(Vec::from("HTTP/1.1 200 OK\r\nx: ")));
    let sources = vec![
        SignatureSource::Extension(Url::parse(&format!("http://{}/", hanging.host())).unwrap()),
        SignatureSource::Lookaside(Url::from_directory_path(folder.path()).unwrap()),
    ];
    let finder = Finder::new(Arc::new(client(vec![from("r.example.com", sources)])));
    let repository = Repository::parse("r.example.com/acme/web").unwrap();
    let mut snapshots = finder.find(&repository, digest(), (Instant::now() + Duration::from_secs(1)).into());
    let SignatureSnapshot { found, is_complete, .. } = snapshots.next().await.unwrap();
    assert!(is_complete && found.signatures.is_empty(), "{found:?}");
    assert!(snapshots.next().await.is_none());
}

/// A web server with a lookaside tree; what is asked for is found by its number.
fn tree(answer: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Liar {
    Liar::start(move |asked| {
        let prefix = format!("/sig/acme/web@sha256={}/signature-", digest().hex());
        let number = asked.path.strip_prefix(&prefix).unwrap_or_else(|| panic!("{}", asked.path));
        answer(number.parse().expect("a number"))
    })
}

async fn find_in(tree: &Liar) -> Arc<FoundSignatures> {
    let registry = Registry {
        credentials: Some(Credentials::Given { username: "robot".into(), password: "secret".into() }),
        ..lookaside(&format!("http://{}/sig", tree.host()))
    };
    let found = find(client(vec![registry]), "r.example.com/acme/web").await;
    assert!(tree.asked().iter().all(|asked| asked.header("authorization").is_none()));
    found
}

#[tokio::test]
async fn a_lookaside_tree_is_read_until_the_first_404() {
    let prefixed = [b"\0simple-signing\n", MESSAGE].concat();
    let tree = tree(move |number| match number {
        1 | 5 => Reply::new(200, &[], MESSAGE),
        2 => Reply::new(200, &[], &prefixed),
        3 => Reply::new(200, &[], "\0sigstore-json\n{}"),
        _ => Reply::empty(404),
    });
    let found = find_in(&tree).await;
    assert_eq!(counts(&found), [Ok(2)]);
    assert!(found.signatures.iter().all(|signature| &*signature.content == MESSAGE));
    let folder = format!("http://{}/sig/acme/web@sha256={}", tree.host(), digest().hex());
    assert_eq!(&*found.asked[0].url, folder);
    assert_eq!(&*found.signatures[1].source, format!("{folder}/signature-2"));
}

#[tokio::test]
async fn an_unsigned_image_has_an_empty_lookaside_tree() {
    let tree = tree(|_| Reply::empty(404));
    assert_eq!(counts(&find_in(&tree).await), [Ok(0)]);
}

#[tokio::test]
async fn a_bad_lookaside_entry_does_not_hide_the_good_ones_around_it() {
    let tree = tree(|number| match number {
        1 => Reply::new(200, &[], ""),
        2 => Reply::new(200, &[], "-----BEGIN PGP MESSAGE-----"),
        3 => Reply::new(200, &[], MESSAGE),
        _ => Reply::empty(404),
    });
    let found = find_in(&tree).await;
    assert_eq!(counts(&found), [Ok(3)], "which of them are signatures, verification says");
    assert_eq!(found.signatures.iter().map(|signature| signature.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(&*found.signatures[2].content, MESSAGE);
}

#[tokio::test]
async fn a_lookaside_tree_without_an_end_is_given_up() {
    let forever = tree(|_| Reply::new(200, &[], MESSAGE));
    let found = find_in(&forever).await;
    assert_eq!(found.signatures.len(), 128);
    assert!(found.failure().is_some());

    let failing = tree(|_| Reply::empty(403));
    let found = find_in(&failing).await;
    assert_eq!(found.asked.len(), 3, "{found:?}");
    assert!(found.asked.iter().all(|asked| asked.outcome.is_err()));

    let large = tree(|_| Reply::new(200, &[], [MESSAGE, &vec![0; 1 << 20]].concat()));
    let found = find_in(&large).await;
    assert_eq!(found.signatures.len(), 3);
    let [Ok(3), Err(what)] = &counts(&found)[..] else { panic!("{found:?}") };
    assert!(what.contains("more than 4.0 MiB"), "{what}");
}

#[tokio::test]
async fn a_query_of_a_lookasides_url_stands_behind_each_signature_and_in_no_message() {
    let tree = Liar::start(|asked| match asked.path.split_once('?') {
        Some((path, "sv=2024-11-04&sig=SECRET%2Fx%3D")) if path.ends_with("/signature-1") => {
            Reply::new(200, &[], MESSAGE)
        }
        Some((path, "sv=2024-11-04&sig=SECRET%2Fx%3D")) if path.ends_with("/signature-2") => Reply::empty(500),
        Some((_, "sv=2024-11-04&sig=SECRET%2Fx%3D")) => Reply::empty(404),
        _ => Reply::empty(403),
    });
    let registry = lookaside(&format!("http://{}/s?sv=2024-11-04&sig=SECRET%2Fx%3D", tree.host()));
    assert!(!format!("{registry:?}").contains("SECRET"));
    let found = find(client(vec![registry]), "r.example.com/acme/web").await;
    let [Ok(1), Err(why)] = &counts(&found)[..] else { panic!("{found:?}") };
    assert!(why.contains("500"), "{why}");
    assert!(!format!("{found:?}").contains("SECRET"), "{found:?}");
    let folder = format!("http://{}/s/acme/web@sha256={}", tree.host(), digest().hex());
    assert_eq!(&*found.signatures[0].source, format!("{folder}/signature-1"));
}

#[tokio::test]
async fn a_lookaside_that_denies_is_said_to_and_nobody_is_told_to_give_it_credentials() {
    for status in [401, 403] {
        let tree = tree(move |number| if number == 1 { Reply::new(200, &[], MESSAGE) } else { Reply::empty(status) });
        let found = find_in(&tree).await;
        assert_eq!(found.signatures.len(), 1, "what was there before counts");
        assert_eq!(found.asked[0].outcome, Ok(1));
        let denied = Liar::start(move |_| Reply::new(status, &[("www-authenticate", "Basic realm=x")], ""));
        let found = find_in(&denied).await;
        let Some(error) = found.failure() else { panic!("{found:?}") };
        let refusal = sealgate::refusal::Refusal::from(error.clone());
        let text = format!("{refusal}. {}", refusal.next_step("r.example.com/acme/web:1"));
        assert!(text.contains(&format!("answers {status}")), "{text}");
        assert!(!text.to_lowercase().contains("credential"), "{text}");
        assert_eq!(refusal.code().as_str(), "registry-unauthorized");
    }
    // Of a registry, that is what is missing.
    let registry = store(|_| Reply::empty(403));
    let refusal = sealgate::refusal::Refusal::from(find_at(&registry).await.failure().unwrap().clone());
    assert!(refusal.next_step("r.example.com/acme/web:1").contains("give the gate credentials"), "{refusal}");
}

#[tokio::test]
async fn a_lookaside_redirect_inside_is_not_followed() {
    let inside = Liar::start(|_| Reply::new(200, &[], MESSAGE));
    let to = format!("http://{}/", inside.host());
    let tree = tree(move |_| Reply::new(302, &[("location", &to)], ""));
    let found = find_in(&tree).await;
    assert!(found.signatures.is_empty());
    assert!(matches!(found.failure(), Some(LookupError::Unavailable { .. })), "{found:?}");
    assert!(inside.asked().is_empty());
}

#[tokio::test]
async fn a_folder_of_signatures_is_read_like_a_tree() {
    let folder = Scratch::new();
    let image = format!("sig/acme/web@sha256={}", digest().hex());
    let elsewhere = folder.write("elsewhere", MESSAGE);
    folder.write(&format!("{image}/signature-1"), [b"\0simple-signing\n", MESSAGE].concat());
    symlink(elsewhere, folder.path().join(format!("{image}/signature-2"))).unwrap();
    let base = Url::from_directory_path(folder.path().join("sig")).unwrap();
    let found = find(client(vec![lookaside(base.as_str())]), "r.example.com/acme/web").await;
    assert_eq!(counts(&found), [Ok(2)]);
    assert!(found.signatures.iter().all(|signature| &*signature.content == MESSAGE));
    let found = find(client(vec![lookaside(base.as_str())]), "r.example.com/acme/other").await;
    assert_eq!(counts(&found), [Ok(0)]);
    let found = find(client(vec![lookaside("file:///no/such/folder")]), "r.example.com/acme/web").await;
    assert_eq!(counts(&found), [Ok(0)]);

    // To open a pipe would block for as long as nobody writes to it.
    run("mkfifo", [folder.path().join(format!("{image}/signature-3"))]);
    folder.write(&format!("{image}/signature-4"), vec![0xa3; (4 << 20) + 1]);
    let found = find(client(vec![lookaside(base.as_str())]), "r.example.com/acme/web").await;
    let [Ok(2), Err(_), Err(what)] = &counts(&found)[..] else { panic!("{found:?}") };
    assert!(what.contains("more than 4.0 MiB"), "{what}");
}

#[tokio::test]
async fn a_registry_that_is_down_is_a_failure_and_not_an_absence() {
    let gone = {
        let liar = Liar::start(|_| Reply::empty(200));
        liar.host()
    };
    let empty = store(|_| list(&[]));
    let full = store(|_| list(&[signature("a")]));
    let repository = format!("{gone}/acme/web");
    let found = find(client(vec![plain(&gone)]), &repository).await;
    assert!(matches!(found.failure(), Some(LookupError::Unavailable { .. })), "{found:?}");
    // A mirror that has none proves nothing about the registry; one that has some helps.
    let mirrored = |mirror: &Liar| {
        client(vec![Registry { mirrors: vec![mirror.host().into()], ..plain(&gone) }, plain(&mirror.host())])
    };
    let found = find(mirrored(&empty), &repository).await;
    assert!(matches!(found.failure(), Some(LookupError::Unavailable { .. })), "{found:?}");
    assert_eq!(counts(&find(mirrored(&full), &repository).await), [Ok(1)]);
}

#[tokio::test]
async fn other_sources_can_be_given_for_each_repository() {
    let store = Liar::start(|_| list(&[signature("a")]));
    let url = Url::parse(&format!("http://{}", store.host())).unwrap();
    let sources = move |repository: &Repository| {
        let signed = repository.path() == "acme/web";
        if signed { vec![SignatureSource::Extension(url.clone())] } else { Vec::new() }
    };
    let finder = Finder::with_sources(Arc::new(client(Vec::new())), Arc::new(sources));
    let deadline = (Instant::now() + LONG).into();
    let of = |name: &str| Repository::parse(name).unwrap();
    assert_eq!(counts(&finder.find_complete(&of("r.example.com/acme/web"), digest(), deadline).await), [Ok(1)]);
    assert!(finder.find_complete(&of("r.example.com/acme/api"), digest(), deadline).await.asked.is_empty());
}

#[tokio::test]
async fn a_registry_whose_ping_says_nothing_is_not_taken_for_one_without_signatures() {
    for status in [403, 404, 204] {
        let ready = Arc::new(AtomicBool::new(false));
        let is_ready = Arc::clone(&ready);
        let liar = Liar::start(move |asked| match asked.path.as_str() {
            "/v2/" if is_ready.load(Ordering::SeqCst) => Reply::new(200, &[ANNOUNCED], ""),
            "/v2/" => Reply::empty(status),
            path if path.contains("/manifests/") => {
                Reply::new(200, &[("content-type", MANIFEST_TYPE)], manifest("one"))
            }
            _ => list(&[signature("a")]),
        });
        let client = Arc::new(client(vec![plain(&liar.host())]));
        let repository = Repository::parse(&format!("{}/acme/web", liar.host())).unwrap();
        let finder = Finder::new(Arc::clone(&client));
        let found = finder.find_complete(&repository, digest(), (Instant::now() + LONG).into()).await;
        let Some(LookupError::Misbehaved { what, .. }) = found.failure() else { panic!("{found:?}") };
        assert!(what.contains(&format!("{status} at /v2/")), "{what}");
        // Manifests are there all the same, and so is what other sources have.
        resolve(&client, &format!("{repository}:1")).await.unwrap();
        let elsewhere = SignatureSource::Extension(Url::parse(&format!("http://{}", liar.host())).unwrap());
        let with_source = crate::registry::client(vec![from(&liar.host(), vec![elsewhere])]);
        assert_eq!(counts(&find(with_source, repository.as_str()).await), [Ok(1)]);
        // It is asked again soon.
        ready.store(true, Ordering::SeqCst);
        let found = loop {
            let found = finder.find_complete(&repository, digest(), (Instant::now() + LONG).into()).await;
            if found.failure().is_none() {
                break found;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(counts(&found), [Ok(1)]);
    }
}
