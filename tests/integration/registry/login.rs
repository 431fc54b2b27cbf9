//! Token authentication, with a real registry and with realms that lie.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use sealgate::{
    configuration::{Credentials, Registry},
    refusal::LookupError,
};
use url::Url;

use super::{
    MANIFEST_TYPE, client, client_with_rules, entry, manifest, misbehaved, plain, real::logged, resolve, robot,
    unavailable,
};
use crate::support::{Asked, DockerRegistry, Issuer, Liar, Reply, Scratch, run};

/// What the password of `robot` looks like in a request.
fn robots_header() -> String {
    format!("Basic {}", STANDARD.encode("robot:secret"))
}

#[tokio::test]
async fn a_real_registry_costs_one_token_a_repository_and_one_request_a_new_image() {
    let issuer = Arc::new(Issuer::new());
    let (folder, signing) = (Scratch::new(), Arc::clone(&issuer));
    let realm = Liar::start(move |asked| {
        if asked.header("authorization") != Some(&robots_header()) {
            return Reply::empty(401);
        }
        Reply::new(200, &[], format!(r#"{{"token": "{}", "expires_in": 300}}"#, signing.token(asked)))
    });
    let mut registry = DockerRegistry::start();
    for (tag, content) in [("1", "one"), ("2", "two"), ("3", "three")] {
        registry.push("acme/web", tag, content).await;
    }
    registry.stop();
    registry.restart_with(&issuer.configuration(&folder, &format!("http://{}/token", realm.host())));
    let image = |tag: &str| format!("{}/acme/web:{tag}", registry.host());

    let with = client(vec![Registry {
        credentials: Some(robot()),
        token_realms: vec![Url::parse(&format!("http://{}", realm.host())).unwrap()],
        ..plain(registry.host())
    }]);
    for tag in ["1", "2", "3"] {
        resolve(&with, &image(tag)).await.unwrap();
    }
    assert_eq!(realm.asked().len(), 1);
    assert_eq!(logged(&registry, "/manifests/", 3), 3);
    assert!(matches!(resolve(&with, &image("4")).await, Err(LookupError::ManifestUnknown { .. })));

    // Its own host, on another port: named by nobody, so not dialled.
    let unnamed = client(vec![plain(registry.host())]);
    let cause = unavailable(resolve(&unnamed, &image("1")).await);
    assert!(cause.contains("no public address of its token realm"), "{cause}");
    let anonymous = client(vec![plain(registry.host()), entry(&realm.host())]);
    let outcome = resolve(&anonymous, &image("1")).await;
    assert!(matches!(outcome, Err(LookupError::Unauthorized { with_credentials: false, .. })), "{outcome:?}");
}

/// A registry that wants the token `right` from a realm.
fn guarded(realm: String) -> Liar {
    Liar::start(move |asked| match asked.header("authorization") {
        Some("Bearer right") if asked.path == "/v2/" => Reply::empty(200),
        Some("Bearer right") => Reply::new(200, &[("content-type", MANIFEST_TYPE)], manifest("one")),
        _ => Reply::new(401, &[("www-authenticate", &format!("Bearer realm=\"{realm}\",service=\"s\""))], ""),
    })
}

fn right(_: &Asked) -> Reply {
    Reply::new(200, &[], r#"{"token": "right", "expires_in": 300}"#)
}

#[tokio::test]
async fn many_look_ups_at_once_share_one_token() {
    let realm = Liar::start(right);
    let registry = guarded(format!("http://{}/token?x=y", realm.host()));
    let client = Arc::new(client(vec![plain(&registry.host()), entry(&realm.host())]));
    let mut all = tokio::task::JoinSet::new();
    for number in 0..50 {
        let (client, image) = (Arc::clone(&client), format!("{}/acme/web:{number}", registry.host()));
        all.spawn(async move { resolve(&client, &image).await });
    }
    while let Some(outcome) = all.join_next().await {
        outcome.unwrap().unwrap();
    }
    assert_eq!(realm.paths(), ["/token?x=y&service=s&scope=repository%3Aacme%2Fweb%3Apull"]);
    assert_eq!(registry.paths().len(), 50);
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let given = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&given);
    let realm = Liar::start(move |asked| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(200, &[], r#"{"token": "old", "expires_in": 300}"#),
        _ => right(asked),
    });
    let registry = guarded(format!("http://{}/", realm.host()));
    let client = client(vec![plain(&registry.host()), entry(&realm.host())]);
    resolve(&client, &format!("{}/acme/web:1", registry.host())).await.unwrap();
    assert_eq!(given.load(Ordering::SeqCst), 2);

    let wrong = Liar::start(|_| Reply::new(200, &[], r#"{"token": "wrong", "expires_in": 300}"#));
    let registry = guarded(format!("http://{}/", wrong.host()));
    let client = super::client(vec![plain(&registry.host()), entry(&wrong.host())]);
    let outcome = resolve(&client, &format!("{}/acme/web:1", registry.host())).await;
    assert!(matches!(outcome, Err(LookupError::Unauthorized { status: 401, .. })), "{outcome:?}");
    assert!(registry.asked().len() <= 3);
}

#[tokio::test]
async fn credentials_do_not_go_to_a_realm_on_a_foreign_host() {
    let foreign = Liar::start(|asked| match asked.header("authorization") {
        None => Reply::empty(401),
        Some(_) => right(asked),
    });
    let registry = guarded(format!("http://{}/token", foreign.other_host()));
    let image = format!("{}/acme/web:1", registry.host());
    let with =
        client(vec![Registry { credentials: Some(robot()), ..plain(&registry.host()) }, entry(&foreign.other_host())]);
    let what = misbehaved(resolve(&with, &image).await);
    assert!(what.contains("tokenRealms"), "{what}");
    assert!(!what.contains("localhost"), "{what}");
    assert!(foreign.asked().iter().all(|asked| asked.header("authorization").is_none()));
    assert!(!foreign.asked().is_empty());

    let realms = vec![Url::parse(&format!("http://{}", foreign.other_host())).unwrap()];
    let trusting = Registry { credentials: Some(robot()), token_realms: realms, ..plain(&registry.host()) };
    resolve(&client(vec![trusting]), &image).await.unwrap();
    assert!(foreign.asked().iter().any(|asked| asked.header("authorization") == Some(&robots_header())));
}

#[tokio::test]
async fn an_anonymous_token_may_come_from_anywhere_public_but_over_https() {
    let realm = Liar::start(right);
    let to = format!("Bearer realm=\"http://{}/\"", realm.host());
    let secure = Liar::start_tls(move |_| Reply::new(401, &[("www-authenticate", &to)], ""));
    let folder = Scratch::new();
    let ca_file = Some(folder.write("ca.pem", secure.ca()));
    let client = client(vec![Registry { ca_file, ..entry(&secure.host()) }, entry(&realm.host())]);
    let what = misbehaved(resolve(&client, &format!("{}/acme/web:1", secure.host())).await);
    assert!(what.contains("not https"), "{what}");
    assert!(realm.asked().is_empty());
}

#[tokio::test]
async fn a_realm_inside_that_only_a_rule_names_is_not_dialled() {
    let realm = Liar::start(right);
    let registry = guarded(format!("http://{}/", realm.host()));
    let image = format!("{}/acme/web:1", registry.host());
    let cause = unavailable(resolve(&client_with_rules(vec![plain("*")]), &image).await);
    assert!(cause.contains("no public address of its token realm"), "{cause}");
    assert!(realm.asked().is_empty());
    assert!(resolve(&client_with_rules(vec![plain("*"), entry(&realm.host())]), &image).await.is_ok());
}

#[tokio::test]
async fn a_realm_inside_that_nobody_named_is_not_dialled() {
    let inside = Liar::start(right);
    for host in [inside.host(), inside.other_host()] {
        let registry = guarded(format!("http://{host}/latest/meta-data"));
        let client = client(vec![plain(&registry.host())]);
        let cause = unavailable(resolve(&client, &format!("{}/acme/web:1", registry.host())).await);
        assert!(cause.contains("no public address"), "{cause}");
    }
    assert!(inside.asked().is_empty());
}

#[tokio::test]
async fn malformed_challenges_are_refused() {
    for challenge in ["", "Bearer", "Bearer realm=\"", "Negotiate", "Bearer realm=\"x\"", "Bearer realm=\"ldap://x/\""]
    {
        let liar = Liar::start(move |_| Reply::new(401, &[("www-authenticate", challenge)], ""));
        let what =
            misbehaved(resolve(&client(vec![plain(&liar.host())]), &format!("{}/acme/web:1", liar.host())).await);
        assert!(what.contains("401"), "{challenge}: {what}");
    }
    let liar = Liar::start(|_| Reply::empty(401));
    misbehaved(resolve(&client(vec![plain(&liar.host())]), &format!("{}/acme/web:1", liar.host())).await);
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let too_long = format!(r#"{{"token": "{}"}}"#, "a".repeat(100_000));
    for body in ["", "{}", r#"{"token": "a\r\nx: y"}"#, "[]", too_long.as_str()] {
        let body = body.to_owned();
        let realm = Liar::start(move |_| Reply::new(200, &[], &body));
        let registry = guarded(format!("http://{}/", realm.host()));
        let client = client(vec![plain(&registry.host()), entry(&realm.host())]);
        let what = misbehaved(resolve(&client, &format!("{}/acme/web:1", registry.host())).await);
        assert!(what.contains("token"), "{what}");
        assert!(registry.paths().is_empty());
    }
}

#[tokio::test]
async fn a_realm_in_trouble_makes_the_registry_unavailable() {
    let realm = Liar::start(|_| Reply::new(503, &[("retry-after", "120")], ""));
    let registry = guarded(format!("http://{}/", realm.host()));
    let client = client(vec![plain(&registry.host()), entry(&realm.host())]);
    let cause = unavailable(resolve(&client, &format!("{}/acme/web:1", registry.host())).await);
    assert!(cause.contains("token realm answers 503"), "{cause}");
}

#[tokio::test]
async fn an_identity_token_is_posted_and_never_stands_in_a_url() {
    let realm = Liar::start(right);
    let registry = guarded(format!("http://{}/token", realm.host()));
    let folder = Scratch::new();
    let config = folder
        .write("config.json", format!(r#"{{"auths": {{"{}": {{"identitytoken": "refresh-me"}}}}}}"#, registry.host()));
    let client = client(vec![Registry {
        credentials: Some(Credentials::DockerConfig(config)),
        token_realms: vec![Url::parse(&format!("http://{}", realm.host())).unwrap()],
        ..plain(&registry.host())
    }]);
    resolve(&client, &format!("{}/acme/web:1", registry.host())).await.unwrap();
    let [asked] = &realm.asked()[..] else { panic!("{:?}", realm.asked()) };
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/token"));
    assert!(asked.body.contains("refresh_token=refresh-me") && asked.body.contains("grant_type=refresh_token"));
}

#[tokio::test]
async fn a_registry_that_is_open_but_for_one_repository_is_asked_with_a_token_there() {
    let realm = Liar::start(right);
    let to = format!("Bearer realm=\"http://{}/\"", realm.host());
    let registry = Liar::start(move |asked| match asked.header("authorization") {
        _ if asked.path == "/v2/" => Reply::empty(200),
        Some("Bearer right") => Reply::new(200, &[("content-type", MANIFEST_TYPE)], manifest("one")),
        _ if asked.path.contains("/private/") => Reply::new(401, &[("www-authenticate", &to)], ""),
        _ => Reply::new(200, &[("content-type", MANIFEST_TYPE)], manifest("one")),
    });
    let client = client(vec![plain(&registry.host()), entry(&realm.host())]);
    for image in ["public/web:1", "private/web:1", "private/web:2", "public/web:2"] {
        resolve(&client, &format!("{}/{image}", registry.host())).await.unwrap();
    }
    assert_eq!(realm.asked().len(), 1);
    // The first private image costs one refusal; after that it is known.
    assert_eq!(registry.paths().len(), 5);
}

#[tokio::test]
async fn a_password_file_that_would_block_is_said_at_once() {
    let registry = Liar::start(|_| Reply::new(401, &[("www-authenticate", "Basic realm=x")], ""));
    let folder = Scratch::new();
    let password_file = folder.path().join("password");
    run("mkfifo", [&password_file]);
    let credentials = Some(Credentials::Password { username: "robot".into(), password_file });
    let client = client(vec![Registry { credentials, ..plain(&registry.host()) }]);
    let cause = unavailable(resolve(&client, &format!("{}/acme/web:1", registry.host())).await);
    assert!(cause.contains("the credentials for it can't be used"), "{cause}");
}

#[tokio::test]
async fn a_ping_or_token_that_has_to_wait_for_long_is_said_at_once_and_a_mirror_asked() {
    let busy = || Reply::new(429, &[("retry-after", "10")], "");
    let realm = Liar::start(move |_| busy());
    let mirror = Liar::start(|_| Reply::new(200, &[("content-type", MANIFEST_TYPE)], manifest("one")));
    let without_ping = Liar::start(move |_| busy());
    for registry in [without_ping, guarded(format!("http://{}/", realm.host()))] {
        let image = format!("{}/acme/web:1", registry.host());
        // Waiting for so long would fit into this time.
        let outcome = resolve(&client(vec![plain(&registry.host()), entry(&realm.host())]), &image).await;
        let Err(LookupError::Unavailable { cause, retry_after, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(cause.contains("429"), "{cause}");
        assert_eq!(retry_after, Some(Duration::from_secs(10)));
        assert!(registry.asked().len() <= 1);
        let mirrored = Registry { mirrors: vec![mirror.host().into()], ..plain(&registry.host()) };
        let with_mirror = client(vec![mirrored, entry(&realm.host()), plain(&mirror.host())]);
        assert!(resolve(&with_mirror, &image).await.is_ok());
    }
    assert_eq!(realm.asked().len(), 2);
}

#[tokio::test]
async fn a_short_wait_for_a_ping_is_waited() {
    let registry = Liar::start(|asked| match asked.path.as_str() {
        "/v2/" if asked.before == 0 => Reply::new(503, &[("retry-after", "0")], ""),
        "/v2/" => Reply::empty(200),
        _ => Reply::new(200, &[("content-type", MANIFEST_TYPE)], manifest("one")),
    });
    resolve(&client(vec![plain(&registry.host())]), &format!("{}/acme/web:1", registry.host())).await.unwrap();
    assert_eq!(registry.asked().len(), 3);
}
