//! With registries that lie, dawdle, and lead astray.

use std::{net::TcpListener, sync::Arc, time::Duration};

use sealgate::{
    configuration::{Credentials, Registry},
    image::{Digest, ManifestError},
    refusal::LookupError,
    registry::Client,
    telemetry::Metrics,
};

use super::{
    LONG, MANIFEST_TYPE, client, client_with, client_with_rules, entry, manifest, misbehaved, plain, resolve,
    resolve_within, unavailable,
};
use crate::support::{Asked, Liar, Reply, Scratch};

/// A registry that pings well, and answers anything else with what the test says.
fn liar(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Liar {
    Liar::start(move |asked| if asked.path == "/v2/" { Reply::empty(200) } else { answer(asked) })
}

fn good(content: &str) -> Reply {
    Reply::new(200, &[("content-type", MANIFEST_TYPE)], manifest(content))
}

/// What comes of a registry's answer to a manifest request.
async fn outcome_of(
    answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> Result<Arc<sealgate::image::HashedManifest>, LookupError> {
    let liar = liar(answer);
    resolve(&client(vec![plain(&liar.host())]), &format!("{}/acme/web:1", liar.host())).await
}

#[tokio::test]
async fn a_tag_that_changes_between_requests_is_what_was_received_each_time() {
    let liar = liar(|asked| good(&asked.before.to_string()));
    let client = client(vec![plain(&liar.host())]);
    let image = format!("{}/acme/web:1", liar.host());
    let first = resolve(&client, &image).await.unwrap().digest();
    let second = resolve(&client, &image).await.unwrap().digest();
    assert_eq!(first, Digest::sha256(&manifest("1")));
    assert_eq!(second, Digest::sha256(&manifest("2")));
}

#[tokio::test]
async fn bytes_without_the_digest_that_was_asked_for_are_refused() {
    let liar = liar(|_| good("another"));
    let asked = Digest::sha256(&manifest("one"));
    let outcome = resolve(&client(vec![plain(&liar.host())]), &format!("{}/acme/web@{asked}", liar.host())).await;
    assert!(misbehaved(outcome).contains("does not have the digest"));
}

#[tokio::test]
async fn a_false_content_digest_header_is_refused_and_a_missing_one_is_not() {
    let with = |digest: String| {
        outcome_of(move |_| {
            let headers = [("content-type", MANIFEST_TYPE), ("docker-content-digest", digest.as_str())];
            Reply::new(200, &headers, manifest("one"))
        })
    };
    let right = Digest::sha256(&manifest("one"));
    assert_eq!(with(right.to_string()).await.unwrap().digest(), right);
    assert!(misbehaved(with(Digest::sha256(b"x").to_string()).await).contains("Docker-Content-Digest"));
    assert!(misbehaved(with("nonsense".to_owned()).await).contains("Docker-Content-Digest"));
    let sha512 = Digest::of(sealgate::image::digest::Algorithm::Sha512, &manifest("one"));
    assert_eq!(with(sha512.to_string()).await.unwrap().digest(), right);
    assert!(outcome_of(|_| good("one")).await.is_ok());
    // An empty one is as good as none, and takes nothing from one beside it.
    for empty in ["", " "] {
        assert_eq!(with(empty.to_owned()).await.unwrap().digest(), right);
    }
    let beside = outcome_of(|_| {
        let other = Digest::sha256(b"x").to_string();
        let digests = [("docker-content-digest", ""), ("docker-content-digest", other.as_str())];
        Reply::new(200, &[&[("content-type", MANIFEST_TYPE)], &digests[..]].concat(), manifest("one"))
    });
    assert!(misbehaved(beside.await).contains("Docker-Content-Digest"));
}

#[tokio::test]
async fn an_empty_content_digest_header_does_no_harm_where_a_digest_was_asked_for() {
    let liar =
        liar(|_| Reply::new(200, &[("content-type", MANIFEST_TYPE), ("docker-content-digest", "")], manifest("one")));
    let client = client(vec![plain(&liar.host())]);
    let digest = Digest::sha256(&manifest("one"));
    let found = resolve(&client, &format!("{}/acme/web@{digest}", liar.host())).await;
    assert_eq!(found.unwrap().digest(), digest);
    let other = resolve(&client, &format!("{}/acme/web@{}", liar.host(), Digest::sha256(b"x"))).await;
    assert!(misbehaved(other).contains("does not have the digest"));
}

#[tokio::test]
async fn a_digest_of_sha512_is_computed_with_sha512() {
    let liar = liar(|_| good("one"));
    let digest = Digest::of(sealgate::image::digest::Algorithm::Sha512, &manifest("one"));
    let found = resolve(&client(vec![plain(&liar.host())]), &format!("{}/acme/web@{digest}", liar.host())).await;
    assert_eq!(found.unwrap().digest(), digest);
}

#[tokio::test]
async fn a_wrong_content_type_is_an_unsupported_manifest() {
    for (content_type, body) in [
        ("text/html", manifest("one")),
        ("application/vnd.oci.image.index.v1+json", manifest("one")),
        (MANIFEST_TYPE, b"<html>".to_vec()),
    ] {
        let outcome = outcome_of(move |_| Reply::new(200, &[("content-type", content_type)], &body)).await;
        assert!(matches!(outcome, Err(LookupError::UnsupportedManifest { .. })), "{content_type}: {outcome:?}");
    }
    let schema_one = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let body = r#"{"schemaVersion": 1, "name": "acme/web", "tag": "1", "fsLayers": []}"#;
    let outcome = outcome_of(move |_| Reply::new(200, &[("content-type", schema_one)], body)).await;
    let Err(LookupError::UnsupportedManifest { error: ManifestError::SchemaOne, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    let twice = [("content-type", MANIFEST_TYPE), ("content-type", "text/html")];
    assert!(misbehaved(outcome_of(move |_| Reply::new(200, &twice, manifest("one"))).await).contains("Content-Type"));
}

#[tokio::test]
async fn an_endless_body_is_cut_off() {
    let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let what = misbehaved(outcome_of(move |_| Reply::Forever(head.clone(), chunk.clone())).await);
    assert!(what.contains("more than 4.0 MiB"), "{what}");
    let announced = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec();
    misbehaved(outcome_of(move |_| Reply::Forever(announced.clone(), vec![b' '; 0x10000])).await);
}

#[tokio::test]
async fn a_slow_drip_ends_at_the_deadline() {
    for head in ["HTTP/1.1 200 OK\r\nx: ", "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"] {
        let liar = liar(move |_| Reply::Drip(head.into()));
        let client = client(vec![plain(&liar.host())]);
        // The ping comes first, so that only the manifest is slow.
        let _ = resolve_within(&client, &format!("{}/acme/web:0", liar.host()), Duration::from_millis(300)).await;
        let time = Duration::from_millis(200);
        let outcome = resolve_within(&client, &format!("{}/acme/web:1", liar.host()), time).await;
        assert!(matches!(outcome, Err(LookupError::TimedOut { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_registry_that_dawdles_leaves_time_for_its_mirror() {
    let slow = liar(|_| Reply::Drip("HTTP/1.1 200 OK\r\nx: ".into()));
    let mirror = liar(|_| good("one"));
    let mirrored = Registry { mirrors: vec![mirror.host().into()], ..plain(&slow.host()) };
    let client = client(vec![mirrored, plain(&mirror.host())]);
    // Half of it is for the mirror.
    let time = Duration::from_secs(10);
    let found = resolve_within(&client, &format!("{}/acme/web:1", slow.host()), time).await.unwrap();
    assert_eq!(found.digest(), Digest::sha256(&manifest("one")));
    assert_eq!(mirror.paths(), ["/v2/acme/web/manifests/1"]);
}

#[tokio::test]
async fn a_redirect_loop_ends() {
    let liar = liar(|asked| Reply::new(307, &[("location", &asked.path)], ""));
    let what = misbehaved(resolve(&client(vec![plain(&liar.host())]), &format!("{}/acme/web:1", liar.host())).await);
    assert!(what.contains("more than 5 times"), "{what}");
    assert_eq!(liar.paths().len(), 6);
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_not_followed() {
    let plain_text = liar(|_| good("one"));
    let to = format!("http://{}/stolen", plain_text.host());
    let secure = Liar::start_tls(move |asked| match asked.path.as_str() {
        "/v2/" => Reply::empty(200),
        _ => Reply::new(302, &[("location", &to)], ""),
    });
    let folder = Scratch::new();
    let ca_file = Some(folder.write("ca.pem", secure.ca()));
    let client = client(vec![Registry { ca_file, ..entry(&secure.host()) }, entry(&plain_text.host())]);
    let what = misbehaved(resolve(&client, &format!("{}/acme/web:1", secure.host())).await);
    assert!(what.contains("from https to plain http"), "{what}");
    assert!(plain_text.asked().is_empty());
}

#[tokio::test]
async fn a_certificate_counts_only_with_its_ca() {
    let secure = Liar::start_tls(|asked| if asked.path == "/v2/" { Reply::empty(200) } else { good("one") });
    let image = format!("{}/acme/web:1", secure.host());
    let cause = unavailable(resolve(&client(vec![entry(&secure.host())]), &image).await);
    assert!(cause.contains("of no CA that is trusted"), "{cause}");
    assert!(secure.asked().is_empty());
    let folder = Scratch::new();
    let ca_file = Some(folder.write("ca.pem", secure.ca()));
    assert!(resolve(&client(vec![Registry { ca_file, ..entry(&secure.host()) }]), &image).await.is_ok());
    assert!(resolve(&client(vec![plain(&secure.host())]), &image).await.is_ok());
}

#[test]
fn a_ca_file_that_is_missing_or_none_is_said_at_once() {
    let folder = Scratch::new();
    let setup = |ca_file| {
        let mut registries = sealgate::configuration::Registries::default();
        let entry = Registry { ca_file: Some(ca_file), ..entry("r.example.com") };
        registries.entries.insert(entry.scope.clone(), Arc::new(entry)).unwrap();
        let limits = sealgate::configuration::Limits::default();
        let client = Client::new(&registries, &limits, Arc::new(|_: &str| false), Arc::new(Metrics::new()));
        client.err().map(|error| error.to_string())
    };
    let missing = setup(folder.path().join("missing.pem")).unwrap();
    assert!(missing.contains("missing.pem") && missing.contains("r.example.com"), "{missing}");
    for content in ["", "text", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let bad = setup(folder.write("bad.pem", content)).unwrap();
        assert!(bad.contains("bad.pem"), "{bad}");
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem();
    assert_eq!(setup(folder.write("good.pem", format!("# a comment\n{certificate}another\n{certificate}"))), None);
    let with_key = setup(folder.write("key.pem", certificate + &key.serialize_pem())).unwrap();
    assert!(with_key.contains("no keys"), "{with_key}");
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let other = liar(|_| good("one"));
    let to = format!("http://{}/elsewhere", other.other_host());
    let first = Liar::start(move |asked| match asked.header("authorization") {
        None => Reply::new(401, &[("www-authenticate", "Basic realm=x")], ""),
        Some(_) if asked.path == "/v2/" => Reply::empty(200),
        Some(_) => Reply::new(307, &[("location", &to)], ""),
    });
    let credentials = Some(Credentials::Given { username: "robot".into(), password: "secret".into() });
    let named = entry(&other.other_host());
    let client = client(vec![Registry { credentials, ..plain(&first.host()) }, named]);
    assert!(resolve(&client, &format!("{}/acme/web:1", first.host())).await.is_ok());
    let [asked] = &other.asked()[..] else { panic!("{:?}", other.asked()) };
    assert_eq!(asked.path, "/elsewhere");
    assert_eq!(asked.header("authorization"), None);
    assert!(first.asked().iter().any(|asked| asked.header("authorization").is_some()));
}

#[tokio::test]
async fn credentials_stay_away_when_the_way_leads_back() {
    let home = Arc::new(std::sync::Mutex::new(String::new()));
    let back = Arc::clone(&home);
    let other = liar(move |_| Reply::new(307, &[("location", &*back.lock().unwrap())], ""));
    let to = format!("http://{}/elsewhere", other.other_host());
    let first = Liar::start(move |asked| match (asked.path.as_str(), asked.header("authorization")) {
        ("/back", None) => good("one"),
        ("/back", Some(_)) => Reply::empty(500),
        (_, None) => Reply::new(401, &[("www-authenticate", "Basic realm=x")], ""),
        ("/v2/", Some(_)) => Reply::empty(200),
        (_, Some(_)) => Reply::new(307, &[("location", &to)], ""),
    });
    *home.lock().unwrap() = format!("http://{}/back", first.host());
    let credentials = Some(Credentials::Given { username: "robot".into(), password: "secret".into() });
    let client = client(vec![Registry { credentials, ..plain(&first.host()) }, entry(&other.other_host())]);
    assert!(resolve(&client, &format!("{}/acme/web:1", first.host())).await.is_ok());
}

#[tokio::test]
async fn a_redirect_inside_is_not_followed_unless_its_host_is_named() {
    for by_name in [false, true] {
        let inside = liar(|_| good("one"));
        let host = if by_name { inside.other_host() } else { inside.host() };
        let to = format!("http://{host}/probe");
        let outside = liar(move |_| Reply::new(307, &[("location", &to)], ""));
        let image = format!("{}/acme/web:1", outside.host());
        let cause = unavailable(resolve(&client(vec![plain(&outside.host())]), &image).await);
        assert!(cause.contains("no public address"), "{cause}");
        assert!(inside.asked().is_empty());
        assert!(resolve(&client(vec![plain(&outside.host()), entry(&host)]), &image).await.is_ok());
        assert_eq!(inside.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_rule_opens_its_host_to_requests_for_its_images_and_not_to_redirects() {
    let inside = liar(|_| good("one"));
    // `*` says how it is spoken with, and names nothing.
    let client = client_with_rules(vec![plain("*")]);
    let to = format!("http://{}/probe", inside.host());
    let outside = liar(move |_| Reply::new(307, &[("location", &to)], ""));
    let cause = unavailable(resolve(&client, &format!("{}/acme/web:1", outside.host())).await);
    assert!(cause.contains("redirects to a host") && cause.contains("no registries entry names"), "{cause}");
    assert!(inside.asked().is_empty());
    assert!(resolve(&client, &format!("{}/acme/web:1", inside.host())).await.is_ok());
    // To itself, a registry may redirect.
    let home = liar(|asked| match asked.path.as_str() {
        "/moved" => good("one"),
        _ => Reply::new(307, &[("location", "/moved")], ""),
    });
    assert!(resolve(&client, &format!("{}/acme/web:1", home.host())).await.is_ok());
}

#[tokio::test]
async fn a_host_that_nobody_named_is_never_dialled_inside() {
    let inside = liar(|_| good("one"));
    let client = client(vec![plain("*")]);
    let port = inside.host().rsplit_once(':').unwrap().1.to_owned();
    for host in [inside.host(), inside.other_host(), format!("[::ffff:127.0.0.1]:{port}"), format!("0.0.0.0:{port}")] {
        let cause = unavailable(resolve(&client, &format!("{host}/acme/web:1")).await);
        assert!(cause.contains("no public address"), "{host}: {cause}");
    }
    assert!(inside.asked().is_empty());
}

#[tokio::test]
async fn of_a_host_that_nobody_named_nothing_tells_whether_its_name_exists_inside() {
    let inside = liar(|_| good("one"));
    let there = inside.other_host();
    let missing = there.replace("localhost", "missing.invalid");
    let client = client(vec![plain("*"), entry("missing.invalid")]);
    let cause = async |host: &str| unavailable(resolve(&client, &format!("{host}/acme/web:1")).await);
    assert_eq!(cause(&there).await, cause(&missing).await);
    assert_eq!(cause("missing.invalid").await, "its name can't be resolved", "those who are named may know");

    let redirected = async |host: &str| {
        let to = format!("http://{host}/");
        outcome_of(move |_| Reply::new(307, &[("location", &to)], "")).await
    };
    assert_eq!(unavailable(redirected(&there).await), unavailable(redirected(&missing).await));
}

#[tokio::test]
async fn a_redirect_with_a_password_or_to_another_scheme_is_not_followed() {
    for location in ["http://user:pass@127.0.0.1/", "file:///etc/passwd", "ftp://127.0.0.1/", "http://", ""] {
        misbehaved(outcome_of(move |_| Reply::new(302, &[("location", location)], "")).await);
    }
    misbehaved(outcome_of(|_| Reply::empty(301)).await);
}

#[tokio::test]
async fn retry_after_is_honoured_within_the_deadline_only() {
    let answer = |asked: &Asked| match asked.before {
        0 | 1 => Reply::new(429, &[("retry-after", "0")], ""),
        _ => good("one"),
    };
    let liar_one = Liar::start(move |asked| if asked.path == "/v2/" { Reply::empty(200) } else { answer(asked) });
    let image = format!("{}/acme/web:1", liar_one.host());
    assert!(resolve(&client(vec![plain(&liar_one.host())]), &image).await.is_ok());
    assert_eq!(liar_one.paths().len(), 2);

    let liar_two = liar(|_| Reply::new(503, &[("retry-after", "3600")], ""));
    let image = format!("{}/acme/web:1", liar_two.host());
    let outcome = resolve(&client(vec![plain(&liar_two.host())]), &image).await;
    let Err(LookupError::Unavailable { cause, retry_after, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(&*cause, "it answers 503");
    assert_eq!(retry_after, Some(Duration::from_hours(1)));
    assert_eq!(liar_two.paths().len(), 1);
}

#[tokio::test]
async fn a_registry_in_lasting_trouble_is_asked_three_times() {
    let liar = liar(|_| Reply::empty(502));
    let outcome = resolve(&client(vec![plain(&liar.host())]), &format!("{}/acme/web:1", liar.host())).await;
    assert_eq!(unavailable(outcome), "it answers 502");
    assert_eq!(liar.paths().len(), 3);
}

#[tokio::test]
async fn a_truncated_body_is_no_manifest() {
    let body = manifest("one");
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {MANIFEST_TYPE}\r\ncontent-length: {}\r\n\r\n", body.len() + 1);
    let raw = [head.into_bytes(), body].concat();
    let cause = unavailable(outcome_of(move |_| Reply::Raw(raw.clone())).await);
    assert!(cause.contains("the connection ended"), "{cause}");
}

#[tokio::test]
async fn a_connection_that_ends_or_resets_makes_the_registry_unavailable() {
    unavailable(outcome_of(|_| Reply::HangUp).await);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    // Accepts and closes without reading: the client's request is answered with a reset.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    unavailable(resolve(&client(vec![plain(&host)]), &format!("{host}/acme/web:1")).await);
}

#[tokio::test]
async fn huge_or_countless_headers_and_what_is_not_http_are_refused() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(10_000));
    for raw in [long, many, "nonsense\r\n\r\n".to_owned(), "HTTP/1.1 banana\r\n\r\n".to_owned()] {
        let raw = raw.into_bytes();
        let what = misbehaved(outcome_of(move |_| Reply::Raw(raw.clone())).await);
        assert!(what.contains("not HTTP"), "{what}");
    }
}

#[tokio::test]
async fn statuses_that_mean_nothing_here_are_no_manifest() {
    for status in [201, 204, 206, 304, 400, 405, 418] {
        let what = misbehaved(outcome_of(move |_| Reply::empty(status)).await);
        assert!(what.contains(&status.to_string()), "{what}");
    }
    assert!(matches!(outcome_of(|_| Reply::empty(404)).await, Err(LookupError::ManifestUnknown { .. })));
    let outcome = outcome_of(|_| Reply::empty(403)).await;
    assert!(matches!(outcome, Err(LookupError::Unauthorized { status: 403, .. })), "{outcome:?}");
}

#[tokio::test]
async fn errors_repeat_nothing_that_the_registry_said() {
    let outcome = outcome_of(|_| Reply::new(500, &[("x", "EVIL")], r#"{"errors":[{"message":"EVIL"}]}"#)).await;
    assert!(!format!("{outcome:?}").contains("EVIL"));
    let outcome = outcome_of(|_| Reply::new(302, &[("location", "/EVIL?EVIL")], "EVIL")).await;
    assert!(!format!("{outcome:?}").contains("EVIL"));
}

#[tokio::test]
async fn an_unnamed_registry_is_other_in_metrics() {
    let liar = liar(|_| good("one"));
    let metrics = Arc::new(Metrics::new());
    let client = client_with(vec![plain(&liar.host())], Arc::clone(&metrics));
    assert!(resolve_within(&client, "0.0.0.0/acme/web:1", LONG).await.is_err());
    assert!(resolve(&client, &format!("{}/acme/web:1", liar.host())).await.is_ok());
    let text = String::from_utf8(metrics.text().unwrap()).unwrap();
    assert!(!text.contains("0.0.0.0"), "{text}");
    assert!(text.contains(&format!("kind=\"ping\",registry=\"{}\",status=\"200\"", liar.host())), "{text}");
}

/// A manifest that is too large to be read without asking for room.
fn large(content: &str) -> Vec<u8> {
    let mut manifest = manifest(content);
    manifest.resize(100 << 10, b' ');
    manifest
}

#[tokio::test]
async fn a_host_that_holds_large_answers_back_keeps_nobodys_room_but_its_own() {
    let mut hoard =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {MANIFEST_TYPE}\r\ncontent-length: {}\r\n\r\n", 4 << 20).into_bytes();
    // More than is free, and then nothing but a byte now and then.
    hoard.resize(hoard.len() + (200 << 10), b' ');
    let hoarder = liar(move |asked| match asked.path.as_str() {
        "/v2/acme/web/manifests/honest" => Reply::new(200, &[("content-type", MANIFEST_TYPE)], large("one")),
        _ => Reply::Drip(hoard.clone()),
    });
    let other = liar(|_| Reply::new(200, &[("content-type", MANIFEST_TYPE)], large("two")));
    let client = Arc::new(client(vec![plain(&hoarder.host()), plain(&other.host())]));
    let mut hoards = tokio::task::JoinSet::new();
    // A host has a quarter of 96 MiB.
    for number in 0..6 {
        let (client, image) = (Arc::clone(&client), format!("{}/acme/web:{number}", hoarder.host()));
        hoards.spawn(async move { resolve(&client, &image).await });
    }
    let honest = format!("{}/acme/web:honest", hoarder.host());
    loop {
        // Until all six have taken their room, this one still finds some.
        let outcome = resolve_within(&client, &honest, Duration::from_millis(300)).await;
        match &outcome {
            Err(LookupError::NotAsked { cause, .. }) if cause.contains("memory for answers for this registry") => break,
            // This machine is busy.
            Err(LookupError::TimedOut { .. }) => continue,
            _ => {}
        }
        assert_eq!(outcome.unwrap().digest(), Digest::sha256(&large("one")));
        assert!(hoards.try_join_next().is_none(), "the hoards are over");
    }
    let found = resolve(&client, &format!("{}/acme/web:1", other.host())).await.unwrap();
    assert_eq!(found.digest(), Digest::sha256(&large("two")));
    hoards.shutdown().await;
    assert!(resolve(&client, &honest).await.is_ok(), "what was held is given back");
}
