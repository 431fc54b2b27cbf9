//! With Debian's docker-registry.

use std::{sync::Arc, time::Duration};

use sealgate::{
    configuration::{Credentials, Registry},
    image::{Digest, Manifest},
    refusal::LookupError,
    telemetry::Metrics,
};

use super::{client, client_with, entry, plain, resolve, unavailable};
use crate::support::{DockerRegistry, Scratch, run, wait_until};

/// How many GET requests there were, once at least `least` are in the log, which is a little behind.
pub(crate) fn logged(registry: &DockerRegistry, path: &str, least: usize) -> usize {
    wait_until("the registry's log", || (registry.requests("GET", path) >= least).then_some(()));
    registry.requests("GET", path)
}

#[tokio::test]
async fn a_tag_and_its_digest_resolve_to_what_was_pushed() {
    let registry = DockerRegistry::start();
    let pushed = registry.push("acme/web", "1", "one").await;
    let index = registry.push_index("acme/web", "all", &[(&pushed, "amd64")]).await;
    let client = client(vec![plain(registry.host())]);
    let web = format!("{}/acme/web", registry.host());
    let by_tag = resolve(&client, &format!("{web}:1")).await.unwrap();
    assert_eq!(by_tag.digest(), pushed.digest);
    assert_eq!(by_tag.manifest(), &Manifest::Image);
    let by_digest = resolve(&client, &format!("{web}:other@{}", pushed.digest)).await.unwrap();
    assert_eq!(by_digest, by_tag);
    let all = resolve(&client, &format!("{web}:all")).await.unwrap();
    assert_eq!(all.digest(), index.digest);
    let Manifest::Index(entries) = all.manifest() else { panic!("{all:?}") };
    assert_eq!(entries[0].digest, pushed.digest);
}

#[tokio::test]
async fn what_is_not_there_is_unknown_and_not_unavailable() {
    let registry = DockerRegistry::start();
    let pushed = registry.push("acme/web", "1", "one").await;
    let client = client(vec![plain(registry.host())]);
    let other = Digest::sha256(b"other");
    for image in ["acme/web:2".to_owned(), "acme/none:1".to_owned(), format!("acme/web@{other}")] {
        let outcome = resolve(&client, &format!("{}/{image}", registry.host())).await;
        assert!(matches!(outcome, Err(LookupError::ManifestUnknown { .. })), "{outcome:?}");
    }
    assert!(resolve(&client, &format!("{}/acme/web@{}", registry.host(), pushed.digest)).await.is_ok());
}

#[tokio::test]
async fn a_new_image_costs_one_manifest_request_and_no_head() {
    let registry = DockerRegistry::start();
    registry.push("acme/web", "1", "one").await;
    registry.push("acme/api", "1", "two").await;
    let metrics = Arc::new(Metrics::new());
    let client = client_with(vec![plain(registry.host())], Arc::clone(&metrics));
    for image in ["acme/web:1", "acme/api:1"] {
        resolve(&client, &format!("{}/{image}", registry.host())).await.unwrap();
    }
    assert_eq!(logged(&registry, "/manifests/", 2), 2);
    assert_eq!(registry.requests("HEAD", "/"), 0);
    let text = String::from_utf8(metrics.text().unwrap()).unwrap();
    let line = format!(
        "sealgate_registry_requests_total{{kind=\"manifest\",registry=\"{}\",status=\"200\"}} 2",
        registry.host()
    );
    assert!(text.contains(&line), "{text}");
}

#[tokio::test]
async fn a_registry_on_loopback_is_not_insecure_by_itself() {
    let registry = DockerRegistry::start();
    registry.push("acme/web", "1", "one").await;
    let client = client(vec![entry(registry.host())]);
    let cause = unavailable(resolve(&client, &format!("{}/acme/web:1", registry.host())).await);
    assert!(cause.contains("TLS"), "{cause}");
    assert_eq!(registry.requests("GET", "/manifests/"), 0);
}

#[tokio::test]
async fn a_cas_own_certificate_as_a_servers_is_called_that() {
    let folder = Scratch::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    // As `openssl req -x509` makes it.
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let file = folder.write("tls.crt", params.self_signed(&key).unwrap().pem());
    let mut registry = DockerRegistry::start();
    registry.push("acme/web", "1", "one").await;
    registry.stop();
    registry.restart_with_tls(&file, &folder.write("tls.key", key.serialize_pem()));
    let trusting = Registry { ca_file: Some(file), ..entry(registry.host()) };
    let cause = unavailable(resolve(&client(vec![trusting]), &format!("{}/acme/web:1", registry.host())).await);
    assert!(cause.contains("is a CA's own, which is not taken for a server's"), "{cause}");
}

#[tokio::test]
async fn a_registry_with_tls_and_http_2_is_verified_with_its_ca_file() {
    let folder = Scratch::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let names = ["127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let file = folder.write("tls.crt", certificate.pem());
    let mut registry = DockerRegistry::start();
    let pushed = registry.push("acme/web", "1", "one").await;
    registry.stop();
    registry.restart_with_tls(&file, &folder.write("tls.key", key.serialize_pem()));
    let image = format!("{}/acme/web:1", registry.host());
    let trusting = Registry { ca_file: Some(file), ..entry(registry.host()) };
    assert_eq!(resolve(&client(vec![trusting]), &image).await.unwrap().digest(), pushed.digest);
    assert_eq!(resolve(&client(vec![plain(registry.host())]), &image).await.unwrap().digest(), pushed.digest);
    let cause = unavailable(resolve(&client(vec![entry(registry.host())]), &image).await);
    assert!(cause.contains("of no CA that is trusted"), "{cause}");
}

#[tokio::test]
async fn a_stopped_registry_is_unavailable_and_a_mirror_helps() {
    let mut registry = DockerRegistry::start();
    let mirror = DockerRegistry::start();
    let pushed = registry.push("acme/web", "1", "one").await;
    mirror.push("copies/web", "1", "one").await;
    let scope = format!("{}/acme", registry.host());
    let image = format!("{}/acme/web:1", registry.host());
    let mirrored = Registry { mirrors: vec![format!("{}/copies", mirror.host()).into()], ..plain(&scope) };
    let with = client(vec![mirrored, plain(mirror.host())]);
    let without = client(vec![plain(&scope)]);

    // A 404 is an answer: no mirror is asked.
    let unknown = resolve(&with, &format!("{}/acme/web:2", registry.host())).await;
    assert!(matches!(unknown, Err(LookupError::ManifestUnknown { .. })), "{unknown:?}");
    assert_eq!(mirror.requests("GET", "/"), 0);

    registry.stop();
    assert_eq!(resolve(&with, &image).await.unwrap().digest(), pushed.digest);
    assert_eq!(logged(&mirror, "/manifests/1", 1), 1);
    unavailable(resolve(&without, &image).await);
    // What a mirror lacks, the registry may have.
    unavailable(resolve(&with, &format!("{}/acme/web:2", registry.host())).await);
}

#[tokio::test]
async fn basic_authentication_takes_the_password_that_the_file_has_now() {
    let folder = Scratch::new();
    let hashed = run("htpasswd", ["-nbB", "robot", "right"]);
    let htpasswd = folder.write("htpasswd", &hashed.stdout);
    let mut registry = DockerRegistry::start();
    let pushed = registry.push("acme/web", "1", "one").await;
    registry.stop();
    registry.restart_with(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}", htpasswd.display()));
    let image = format!("{}/acme/web:1", registry.host());

    let anonymous = resolve(&client(vec![plain(registry.host())]), &image).await;
    let Err(LookupError::Unauthorized { status: 401, with_credentials: false, .. }) = anonymous else {
        panic!("{anonymous:?}")
    };

    let password_file = folder.write("password", "wrong\n");
    let credentials = Credentials::Password { username: "robot".into(), password_file };
    let with = client(vec![Registry { credentials: Some(credentials), ..plain(registry.host()) }]);
    let wrong = resolve(&with, &image).await;
    let Err(LookupError::Unauthorized { status: 401, with_credentials: true, .. }) = wrong else { panic!("{wrong:?}") };
    folder.write("password", "right\n");
    assert_eq!(resolve(&with, &image).await.unwrap().digest(), pushed.digest);

    let config = folder.write(
        "config.json",
        format!(r#"{{"auths": {{"{}": {{"username": "robot", "password": "right"}}}}}}"#, registry.host()),
    );
    let docker = Registry { credentials: Some(Credentials::DockerConfig(config)), ..plain(registry.host()) };
    assert_eq!(resolve(&client(vec![docker]), &image).await.unwrap().digest(), pushed.digest);
}

#[tokio::test]
async fn credentials_that_cannot_be_read_are_said_to_be_the_gates_trouble() {
    let folder = Scratch::new();
    let htpasswd = folder.write("htpasswd", run("htpasswd", ["-nbB", "robot", "right"]).stdout);
    let registry =
        DockerRegistry::start_with(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}", htpasswd.display()));
    let password_file = folder.path().join("missing");
    let credentials = Some(Credentials::Password { username: "robot".into(), password_file });
    let client = client(vec![Registry { credentials, ..plain(registry.host()) }]);
    let cause = unavailable(resolve(&client, &format!("{}/acme/web:1", registry.host())).await);
    assert!(cause.contains("credentials"), "{cause}");
}

#[tokio::test]
async fn a_hundred_look_ups_at_once_share_one_ping() {
    let registry = DockerRegistry::start();
    registry.push("acme/web", "1", "one").await;
    let client = Arc::new(client(vec![plain(registry.host())]));
    let image = format!("{}/acme/web:1", registry.host());
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (client, image) = (Arc::clone(&client), image.clone());
        all.spawn(async move { super::resolve_within(&client, &image, Duration::from_mins(1)).await });
    }
    while let Some(outcome) = all.join_next().await {
        outcome.unwrap().unwrap();
    }
    assert_eq!(logged(&registry, "/v2/", 101), 101);
}
