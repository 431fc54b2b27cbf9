//! A store that knows who signs: anonymous pulling and authenticated signing at one address.

use std::{path::Path, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Client, RequestBuilder, StatusCode};
use sealgate::configuration::{Access, Gateway, Limits, Network, Users};
use sealgate::image::Digest;
use serde_json::{Value, json};

use super::fake::Fake;
use crate::support::{
    Asked, DockerRegistry, Gpg, Issuer, Liar, Pushed, Reply, Scratch, Store, accept_anything, run, skopeo,
};

const ROLES: &str = "apiVersion: sealgate.dev/v1\nkind: StoreRoles\nroles:\n\
    - {role: 'system:image-signer', users: [robot], repositories: [acme]}\n\
    - {role: image-auditor, users: [jane]}\n\
    - {role: store-admin, users: [ops]}\n";

/// Users robot (signs below acme), jane (audits), ops (moves stores) and joe (nothing), each with their name as password.
fn users(folder: &Scratch) -> Access {
    let file = folder.path().join("htpasswd");
    for (number, user) in ["robot", "jane", "ops", "joe"].into_iter().enumerate() {
        htpasswd(&file, if number == 0 { &["-c"] } else { &[] }, user);
    }
    let roles = folder.write("roles.yaml", ROLES);
    Access { users: Users::Htpasswd { file, roles }, token_key: None }
}

fn htpasswd(file: &Path, options: &[&str], user: &str) {
    let file = file.display().to_string();
    let mut arguments = vec!["-b", "-B", "-C", "4"];
    arguments.extend(options);
    arguments.extend([file.as_str(), user, user]);
    run("htpasswd", arguments);
}

/// An open registry with a store in front of it that has roles, and a signed message for its image.
struct Setting {
    registry: DockerRegistry,
    store: Store,
    pushed: Pushed,
    gpg: Gpg,
    key: String,
    folder: Scratch,
}

impl Setting {
    async fn new() -> Self {
        Self::behind("").await
    }

    /// `configuration` is the registry's.
    async fn behind(configuration: &str) -> Self {
        Self::with(configuration, |_| {}).await
    }

    /// With further settings of the store's.
    async fn with(configuration: &str, set: impl FnOnce(&mut Gateway)) -> Self {
        let mut registry = DockerRegistry::start();
        let pushed = registry.push("acme/web", "1", "one").await;
        if !configuration.is_empty() {
            registry.stop();
            registry.restart_with(configuration);
        }
        let folder = Scratch::new();
        let access = users(&folder);
        let store = Store::start_set(&registry.url(), &Limits::default(), |settings| {
            settings.access = Some(access);
            set(settings);
        });
        let gpg = Gpg::new();
        let key = gpg.generate("Release <release@example.com>");
        Self { registry, store, pushed, gpg, key, folder }
    }

    fn message(&self, number: usize) -> (String, Value) {
        let name = format!("{number:032}");
        let reference = format!("registry.example.com/acme/web:{number}");
        let content = BASE64_STANDARD.encode(self.gpg.sign_image(&self.key, &self.pushed.digest, &reference));
        let name_of = format!("{}@{name}", self.pushed.digest);
        (name, json!({"schemaVersion": 2, "type": "atomic", "name": name_of, "content": content}))
    }

    fn signatures(&self) -> String {
        self.store.signatures_url("acme/web", self.pushed.digest)
    }

    fn own(&self, rest: &str) -> String {
        format!("{}/sealgate/v1/acme/web/signatures/{}{rest}", self.store.url(), self.pushed.digest)
    }

    fn put(&self, message: &Value) -> RequestBuilder {
        Client::new().put(self.signatures()).body(message.to_string())
    }

    async fn inspect(&self) -> Value {
        json_of(Client::new().get(self.own(""))).await
    }
}

async fn json_of(request: RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    let body = answer.bytes().await.unwrap();
    serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&body)))
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

/// A token of the store's for these scopes.
async fn token(store: &Store, user: Option<&str>, scope: &str) -> String {
    let mut request = Client::new().get(format!("{}/sealgate/v1/token?service=x&scope={scope}", store.url()));
    if let Some(user) = user {
        request = request.basic_auth(user, Some(user));
    }
    let given = json_of(request).await;
    assert_eq!(given["token"], given["access_token"], "{given}");
    assert!(given["expires_in"].as_i64().is_some_and(|seconds| (1..=300).contains(&seconds)), "{given}");
    given["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn everyone_reads_a_signer_signs_and_nobody_else_does() {
    let setting = Setting::new().await;
    let (_, message) = setting.message(1);
    let challenge = setting.put(&message).send().await.unwrap();
    assert_eq!(challenge.status(), StatusCode::UNAUTHORIZED);
    let challenge = challenge.headers()["www-authenticate"].to_str().unwrap();
    let host = setting.store.host();
    let expected = format!(
        r#"Bearer realm="http://{host}/sealgate/v1/token",service="{host}",scope="repository:acme/web:pull,push""#
    );
    assert_eq!(challenge, expected);
    for (user, password, expected) in
        [("joe", "joe", 403), ("jane", "jane", 403), ("robot", "wrong", 401), ("nobody", "x", 401)]
    {
        assert_eq!(status(setting.put(&message).basic_auth(user, Some(password))).await, expected, "{user}");
    }
    assert_eq!(setting.inspect().await, json!({"signatures": []}));
    // As the original documentation has it: curl with a name and a password.
    assert_eq!(status(setting.put(&message).basic_auth("robot", Some("robot"))).await, 201);
    let list = json_of(Client::new().get(setting.signatures())).await;
    assert_eq!(list["signatures"].as_array().unwrap().len(), 1);
    let about = &setting.inspect().await["signatures"][0];
    assert_eq!(about["addedBy"], "robot");
    assert_eq!(about["issuers"][0], setting.key);
    assert!(about.get("status").is_none());
    // The role is for repositories below acme.
    let elsewhere = setting.registry.push("other/web", "1", "one").await;
    let url = setting.store.signatures_url("other/web", elsewhere.digest);
    let put = Client::new().put(url).basic_auth("robot", Some("robot")).body(message.to_string());
    assert_eq!(status(put).await, 403);
}

#[tokio::test]
async fn who_asks_before_pushing_hears_what_a_signature_would() {
    let setting = Setting::new().await;
    // Of an image that is not there yet.
    let digest = Digest::sha256(b"to be pushed");
    let ask = |repository: &str, user: Option<&str>| {
        let url = setting.store.signatures_url(repository, digest);
        let request = Client::new().request(reqwest::Method::OPTIONS, url);
        match user {
            Some(user) => request.basic_auth(user, Some(user)),
            None => request,
        }
    };
    for (repository, user, expected) in [
        ("acme/web", None, 401),
        ("acme/web", Some("joe"), 403),
        ("acme/web", Some("jane"), 403),
        ("acme/web", Some("robot"), 204),
        ("acme/new", Some("robot"), 204),
        ("other/web", Some("robot"), 403),
    ] {
        assert_eq!(status(ask(repository, user)).await, expected, "{repository} {user:?}");
    }
    let answer = ask("acme/web", Some("robot")).send().await.unwrap();
    assert_eq!(answer.headers()["allow"], "GET, HEAD, OPTIONS, PUT");
}

#[tokio::test]
async fn a_token_lets_do_what_its_holder_may_and_it_was_asked_for() {
    let setting = Setting::new().await;
    let (_, message) = setting.message(1);
    let put = |token: &str| status(setting.put(&message).bearer_auth(token));
    assert_eq!(put("nonsense").await, 401);
    let anonymous = token(&setting.store, None, "repository:acme/web:pull,push").await;
    assert_eq!(put(&anonymous).await, 401, "anyone may have a token, and it is nobody's");
    assert_eq!(put(&token(&setting.store, Some("joe"), "repository:acme/web:pull,push").await).await, 403);
    assert_eq!(put(&token(&setting.store, Some("robot"), "repository:acme/web:pull").await).await, 401);
    assert_eq!(put(&token(&setting.store, Some("robot"), "repository:acme/db:pull,push").await).await, 401);
    assert_eq!(put(&token(&setting.store, Some("robot"), "repository:acme/web:pull,push").await).await, 201);
    let wrong = Client::new().get(format!("{}/sealgate/v1/token", setting.store.url())).basic_auth("robot", Some("x"));
    assert_eq!(status(wrong).await, 401);
    // OAuth 2, as containerd asks for tokens.
    let form = "grant_type=password&service=x&client_id=containerd&username=robot&password=robot&scope=repository%3Aacme%2Fweb%3Apull";
    let post = Client::new()
        .post(format!("{}/sealgate/v1/token", setting.store.url()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    assert!(json_of(post).await["access_token"].is_string());
    let without_grant = Client::new().post(format!("{}/sealgate/v1/token", setting.store.url()));
    assert_eq!(status(without_grant.body("username=robot&password=robot")).await, 400);
}

#[tokio::test]
async fn skopeo_pulls_as_nobody_and_signs_as_somebody_at_the_same_address() {
    let setting = Setting::new().await;
    let any = accept_anything(&setting.folder).display().to_string();
    let key = setting.gpg.export_to(&setting.key, setting.folder.path().join("release.asc")).display().to_string();
    let source = format!("docker://{}/acme/web:1", setting.registry.host());
    let target = format!("docker://{}/acme/web:2", setting.store.host());
    let skopeo = |arguments: &[&str]| {
        let output = skopeo(setting.gpg.home(), arguments);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    };
    let sign = |creds: &[&str]| {
        let copy = ["--policy", &any, "copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
        skopeo(&[&copy, creds, &["--sign-by", &setting.key, &source, &target]].concat())
    };
    assert!(sign(&[]).is_err(), "nobody may not sign");
    assert!(sign(&["--dest-creds", "joe:joe"]).is_err(), "joe has not got the role");
    sign(&["--dest-creds", "robot:robot"]).unwrap();
    let policy = format!(r#"{{"default":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}"}}]}}"#);
    let policy = setting.folder.write("policy.json", policy).display().to_string();
    let to = format!("dir:{}", setting.folder.path().join("pulled").display());
    skopeo(&["--policy", &policy, "copy", "--src-tls-verify=false", &target, &to]).unwrap();
}

#[tokio::test]
async fn an_open_registry_hears_no_password() {
    let folder = Scratch::new();
    let access = users(&folder);
    let registry = Fake::says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let store = Store::start_set(&registry.url(), &Limits::default(), |settings| settings.access = Some(access));
    let digest = Digest::sha256(b"");
    for url in [store.signatures_url("acme/web", digest), format!("{}/v2/acme/web/tags/list", store.url())] {
        assert_eq!(status(Client::new().get(url).basic_auth("robot", Some("robot"))).await, 200);
    }
    let heads = registry.heads();
    assert!(heads.len() >= 3, "{heads:?}");
    assert!(heads.iter().all(|head| !head.to_lowercase().contains("authorization")), "{heads:?}");
}

#[tokio::test]
async fn in_front_of_a_registry_that_asks_for_passwords_they_are_good_for_both() {
    let folder = Scratch::new();
    let file = folder.path().join("registry-users");
    htpasswd(&file, &["-c"], "robot");
    htpasswd(&file, &[], "reader");
    let configuration = format!("auth: {{htpasswd: {{realm: registry, path: {}}}}}\n", file.display());
    let setting = Setting::behind(&configuration).await;
    let ping = Client::new().get(format!("{}/v2/", setting.store.url())).send().await.unwrap();
    assert_eq!(ping.status(), 401);
    assert_eq!(ping.headers()["x-registry-supports-signatures"], "1");
    assert!(ping.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
    let list = |user: Option<&str>| {
        let request = Client::new().get(setting.signatures());
        status(match user {
            Some(user) => request.basic_auth(user, Some(user)),
            None => request,
        })
    };
    assert_eq!(list(None).await, 401, "who may not pull may not read signatures");
    assert_eq!(list(Some("reader")).await, 200, "who is nobody here may be somebody there");
    assert_eq!(list(Some("joe")).await, 401, "and the other way round");
    let (_, message) = setting.message(1);
    assert_eq!(status(setting.put(&message).basic_auth("reader", Some("reader"))).await, 401);
    assert_eq!(status(setting.put(&message).basic_auth("robot", Some("robot"))).await, 201);
}

/// A realm on another port than the registry, which knows robot; whoever brings nothing may pull.
fn realm_of(issuer: &Arc<Issuer>) -> Liar {
    let issuer = Arc::clone(issuer);
    Liar::start(move |asked| {
        let mut asked = asked.clone();
        match asked.header("authorization") {
            None => asked.path = asked.path.replace("%2Cpush", ""),
            Some(robot) if robot == format!("Basic {}", BASE64_STANDARD.encode("robot:robot")) => {}
            Some(_) => return Reply::empty(401),
        }
        Reply::new(200, &[], json!({"token": issuer.token(&asked), "expires_in": 300}).to_string())
    })
}

#[tokio::test]
async fn in_front_of_a_registry_with_a_token_realm_of_its_own_callers_get_its_tokens_in_the_stores() {
    let (issuer, folder) = (Arc::new(Issuer::new()), Scratch::new());
    let realm = realm_of(&issuer);
    let realm_url = format!("http://{}", realm.host());
    let configuration = issuer.configuration(&folder, &format!("{realm_url}/token"));
    let setting =
        Setting::with(&configuration, |settings| settings.registry.token_realms = vec![realm_url.parse().unwrap()]);
    let setting = setting.await;
    let (_, message) = setting.message(1);
    let host = setting.store.host();
    let ours = format!(r#"Bearer realm="http://{host}/sealgate/v1/token",service="{host}""#);
    for (request, scope) in [
        (Client::new().get(format!("{}/v2/", setting.store.url())), ""),
        (Client::new().get(setting.signatures()), r#",scope="repository:acme/web:pull""#),
        (setting.put(&message), r#",scope="repository:acme/web:pull,push""#),
        // Name and password count for the store; the registry wants a token.
        (setting.put(&message).basic_auth("robot", Some("robot")), r#",scope="repository:acme/web:pull,push""#),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()["www-authenticate"].to_str().unwrap(), format!("{ours}{scope}"));
    }
    assert_eq!(realm.asked().len(), 0);
    let nobody = token(&setting.store, None, "repository:acme/web:pull,push").await;
    let manifest = format!("{}/v2/acme/web/manifests/1", setting.store.url());
    for url in [manifest, setting.signatures()] {
        let request = Client::new().get(url).header("accept", setting.pushed.media_type);
        assert_eq!(status(request.bearer_auth(&nobody)).await, 200);
    }
    assert_eq!(status(setting.put(&message).bearer_auth(&nobody)).await, 401);
    let robot = token(&setting.store, Some("robot"), "repository:acme/web:pull,push").await;
    assert_eq!(status(setting.put(&message).bearer_auth(&robot)).await, 201);
    // Known here, and not there.
    let joe = Client::new().get(format!("{}/sealgate/v1/token", setting.store.url())).basic_auth("joe", Some("joe"));
    assert_eq!(status(joe).await, 401);
    let asked: Vec<String> = realm.asked().iter().map(|asked| asked.path.clone()).collect();
    let scoped = "/token?service=test&scope=repository%3Aacme%2Fweb%3Apull%2Cpush";
    assert_eq!(asked, [scoped, scoped, "/token?service=test"]);

    let any = accept_anything(&setting.folder).display().to_string();
    let image = format!("docker://{host}/acme/web");
    let copy = |further: &[&str]| {
        let common = ["--policy", &any, "copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
        let output = skopeo(setting.gpg.home(), &[&common, further].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let pulled = format!("dir:{}", setting.folder.path().join("pulled").display());
    copy(&[&format!("{image}:1"), &pulled]);
    copy(&["--dest-creds", "robot:robot", "--sign-by", &setting.key, &pulled, &format!("{image}:2")]);
    let list = json_of(Client::new().get(setting.signatures()).bearer_auth(&nobody)).await;
    assert_eq!(list["signatures"].as_array().unwrap().len(), 2, "{list}");
}

#[tokio::test]
async fn a_token_realm_inside_that_nobody_named_is_not_asked_although_it_is_on_the_registrys_own_host() {
    let (issuer, folder) = (Arc::new(Issuer::new()), Scratch::new());
    let realm = realm_of(&issuer);
    let setting = Setting::behind(&issuer.configuration(&folder, &format!("http://{}/token", realm.host()))).await;
    for user in [None, Some("robot")] {
        let request = Client::new().get(format!("{}/sealgate/v1/token", setting.store.url()));
        let request = match user {
            Some(user) => request.basic_auth(user, Some(user)),
            None => request,
        };
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 503);
        let text = answer.text().await.unwrap();
        assert!(text.contains("the registry's own token can't be had"), "{text}");
    }
    assert_eq!(realm.asked().len(), 0);
}

/// A registry that hands out tokens itself, good for 20 seconds.
fn registry_with_short_tokens() -> Liar {
    let digest = Digest::sha256(b"").to_string();
    Liar::start(move |asked: &Asked| match asked.header("authorization") {
        _ if asked.path.starts_with("/token") => {
            Reply::new(200, &[], json!({"token": "inner", "expires_in": 20}).to_string())
        }
        Some("Bearer inner") => Reply::new(200, &[("docker-content-digest", &digest)], ""),
        _ => {
            let challenge =
                format!(r#"Bearer realm="http://{}/token",service="s""#, asked.header("host").unwrap_or_default());
            Reply::new(401, &[("www-authenticate", &challenge)], "")
        }
    })
}

#[tokio::test]
async fn no_token_says_that_it_is_good_for_longer_than_the_registrys_token_in_it() {
    let folder = Scratch::new();
    let access = users(&folder);
    let registry = registry_with_short_tokens();
    let url = format!("http://{}", registry.host());
    let store = Store::start_set(&url, &Limits::default(), |settings| settings.access = Some(access));
    let tokens = || Client::new().get(format!("{}/sealgate/v1/token?scope=repository:acme/web:pull", store.url()));
    // Five of the twenty are given up early, so that none expires under way.
    let first = json_of(tokens().basic_auth("robot", Some("robot"))).await;
    let good_for = |given: &Value| given["expires_in"].as_i64().unwrap();
    assert!((13..=15).contains(&good_for(&first)), "{first}");
    let again = json_of(tokens().bearer_auth(first["token"].as_str().unwrap())).await;
    assert!(good_for(&again) <= good_for(&first), "{again}");
    let read = Client::new().get(store.signatures_url("acme/web", Digest::sha256(b"")));
    assert_eq!(status(read.bearer_auth(again["token"].as_str().unwrap())).await, 200);
}

#[tokio::test]
async fn a_registrys_realm_is_asked_for_all_scopes_but_the_stores_own() {
    let folder = Scratch::new();
    let access = users(&folder);
    let registry = registry_with_short_tokens();
    let url = format!("http://{}", registry.host());
    let store = Store::start_set(&url, &Limits::default(), |settings| settings.access = Some(access));
    let scopes = |scopes: &[&str]| {
        let query = scopes.join("&scope=");
        let request = Client::new().get(format!("{}/sealgate/v1/token?scope={query}", store.url()));
        json_of(request.basic_auth("ops", Some("ops")))
    };
    scopes(&["registry:catalog:*", "registry:signatures:*", "repository:acme/web:pull"]).await;
    // Nobody but the store knows this one: some realms give out nothing at all then.
    let own = scopes(&["registry:signatures:*"]).await;
    let export = Client::new().get(format!("{}/sealgate/v1/export", store.url()));
    assert_eq!(status(export.bearer_auth(own["token"].as_str().unwrap())).await, 200);
    let asked: Vec<String> = registry.paths().into_iter().filter(|path| path.starts_with("/token")).collect();
    let expected = "/token?service=s&scope=registry%3Acatalog%3A*&scope=repository%3Aacme%2Fweb%3Apull";
    assert_eq!(asked, [expected]);
}

#[tokio::test]
async fn only_a_trusted_proxy_says_where_clients_are_to_log_in() {
    let folder = Scratch::new();
    let registry = DockerRegistry::start();
    for (trusted, realm) in [(vec![], None), (vec!["127.0.0.0/8"], Some("https://store.example.com"))] {
        let access = users(&folder);
        let store = Store::start_set(&registry.url(), &Limits::default(), |settings| {
            settings.access = Some(access);
            settings.trusted_proxies = trusted.iter().map(|network| Network::parse(network).unwrap()).collect();
        });
        let ping = Client::new().get(format!("{}/v2/", store.url()));
        let forwarded = [("x-forwarded-host", "store.example.com"), ("x-forwarded-proto", "https")];
        let ping = forwarded.iter().fold(ping, |ping, (name, value)| ping.header(*name, *value));
        let answer = ping.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap();
        let realm = realm.map_or_else(|| store.url(), str::to_owned);
        assert!(challenge.starts_with(&format!(r#"Bearer realm="{realm}/sealgate/v1/token""#)), "{challenge}");
    }
}

#[tokio::test]
async fn an_auditors_finding_is_kept_beside_a_signature_and_taken_back_without_it() {
    let setting = Setting::new().await;
    let (name, message) = setting.message(1);
    assert_eq!(status(setting.put(&message).basic_auth("robot", Some("robot"))).await, 201);
    let finding = json!({
        "key": setting.key, "signer": "Release <release@example.com>",
        "identity": "registry.example.com/acme/web:1", "digest": setting.pushed.digest.to_string(),
    });
    let url = setting.own(&format!("/{name}/status"));
    let set =
        |user: &str, body: &Value| status(Client::new().put(&url).basic_auth(user, Some(user)).body(body.to_string()));
    assert_eq!(status(Client::new().put(&url).body(finding.to_string())).await, 401);
    assert_eq!(set("robot", &finding).await, 403);
    let mut other = finding.clone();
    other["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
    assert_eq!(set("jane", &other).await, 400);
    assert_eq!(set("jane", &json!({"key": "x"})).await, 400);
    assert_eq!(set("jane", &finding).await, 204);
    let before = setting.inspect().await["signatures"][0].clone();
    assert_eq!(before["status"]["verifiedBy"], "jane");
    assert_eq!(before["status"]["key"], setting.key);
    let unset = |url: String| Client::new().delete(url).basic_auth("jane", Some("jane"));
    assert_eq!(status(unset(url.clone())).await, 204);
    let mut after = before.clone();
    after.as_object_mut().unwrap().remove("status");
    assert_eq!(setting.inspect().await["signatures"][0], after, "all else is as it was");
    assert_eq!(set("jane", &finding).await, 204);
    assert_eq!(status(unset(setting.own("/status"))).await, 204);
    assert_eq!(setting.inspect().await["signatures"][0], after);
    let missing = setting.own(&format!("/{}/status", "f".repeat(32)));
    assert_eq!(status(unset(missing)).await, 404);
}

#[tokio::test]
async fn a_finding_is_kept_of_the_very_signature_that_was_looked_at_alone() {
    let setting = Setting::new().await;
    let (name, message) = setting.message(1);
    assert_eq!(status(setting.put(&message).basic_auth("robot", Some("robot"))).await, 201);
    let content = BASE64_STANDARD.decode(message["content"].as_str().unwrap()).unwrap();
    let url = setting.own(&format!("/{name}/status"));
    let finding = json!({"key": setting.key, "identity": "x", "digest": setting.pushed.digest.to_string()}).to_string();
    let set = |tag: &str| {
        let request = Client::new().put(&url).basic_auth("jane", Some("jane"));
        request.header("if-match", tag).body(finding.clone()).send()
    };
    let unset = |tag: &str| {
        status(Client::new().delete(&url).basic_auth("jane", Some("jane")).header("if-match", tag.to_owned()))
    };
    let (looked_at, other) = (Digest::sha256(&content), Digest::sha256(b"another"));
    let refused = set(&format!("\"{other}\"")).await.unwrap();
    assert_eq!(refused.status(), 412);
    let text = refused.text().await.unwrap();
    assert!(text.contains("SIGNATURE_CHANGED") && text.contains("look again"), "{text}");
    for malformed in [looked_at.to_string(), "*".to_owned(), format!("W/\"{looked_at}\""), "\"x\"".to_owned()] {
        assert_eq!(set(&malformed).await.unwrap().status(), 400, "{malformed}");
    }
    assert!(setting.inspect().await["signatures"][0].get("status").is_none());
    assert_eq!(set(&format!("\"{looked_at}\"")).await.unwrap().status(), 204);
    assert_eq!(unset(&format!("\"{other}\"")).await, 412);
    assert!(setting.inspect().await["signatures"][0].get("status").is_some());
    assert_eq!(unset(&format!("\"{looked_at}\"")).await, 204);
}

#[tokio::test]
async fn a_signer_takes_signatures_away_again() {
    let setting = Setting::new().await;
    let (name, message) = setting.message(1);
    assert_eq!(status(setting.put(&message).basic_auth("robot", Some("robot"))).await, 201);
    let url = setting.own(&format!("/{name}"));
    let remove = |user: &str| status(Client::new().delete(&url).basic_auth(user, Some(user)));
    assert_eq!(status(Client::new().delete(&url)).await, 401);
    assert_eq!(remove("jane").await, 403);
    assert_eq!(remove("robot").await, 204);
    assert_eq!(remove("robot").await, 404);
    assert_eq!(setting.inspect().await, json!({"signatures": []}));
}

#[tokio::test]
async fn all_of_a_store_is_moved_into_another() {
    let (from, to) = (Setting::new().await, Setting::new().await);
    for number in 0..3 {
        let (name, message) = from.message(number);
        assert_eq!(status(from.put(&message).basic_auth("robot", Some("robot"))).await, 201);
        let finding = json!({"key": from.key, "identity": "x", "digest": from.pushed.digest.to_string()});
        let url = from.own(&format!("/{name}/status"));
        assert_eq!(
            status(Client::new().put(url).basic_auth("jane", Some("jane")).body(finding.to_string())).await,
            204
        );
    }
    let export = |rest: &str, user: &str| {
        let url = format!("{}/sealgate/v1/export{rest}", from.store.url());
        Client::new().get(url).basic_auth(user, Some(user))
    };
    assert_eq!(status(export("", "robot")).await, 403);
    let lines = export("", "ops").send().await.unwrap().text().await.unwrap();
    assert_eq!(lines.lines().count(), 3);
    let after = format!("?after=acme/web@{}/{:032}", from.pushed.digest, 1);
    assert_eq!(export(&after, "ops").send().await.unwrap().text().await.unwrap().lines().count(), 1);
    for wrong in ["?after=x", "?most=x", "?most=-1", "?least=1"] {
        assert_eq!(status(export(wrong, "ops")).await, 400, "{wrong}");
    }
    // A page has one line at least, and as many as fit; the last one has none.
    let last = format!("&after=acme/web@{}/{:032}", from.pushed.digest, 2);
    // Times have as many digits as they need.
    let two = 2 * lines.lines().next().unwrap().len() + 50;
    for (rest, count) in [("?most=0", 1), (&*format!("?most={two}"), 2), (&format!("?most=9999999{last}"), 0)] {
        let page = export(rest, "ops").send().await.unwrap().text().await.unwrap();
        assert_eq!(page.lines().count(), count, "{rest}: {page}");
    }
    let import = |lines: String| {
        let url = format!("{}/sealgate/v1/import", to.store.url());
        Client::new()
            .post(url)
            .basic_auth("ops", Some("ops"))
            .header("content-type", "application/x-ndjson")
            .body(lines)
    };
    let with_nonsense = format!("{lines}\n{{\"repository\": 1}}\n");
    let imported = json_of(import(with_nonsense)).await;
    assert_eq!((&imported["created"], &imported["present"], &imported["refused"]), (&json!(3), &json!(0), &json!(1)));
    assert_eq!(imported["reasons"][0]["line"], 5);
    assert_eq!(json_of(import(lines.clone())).await["present"], 3);
    let line: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut line = line.clone();
        *line.pointer_mut(pointer).unwrap() = value;
        line.to_string()
    };
    let renamed = json_of(import(with("/name", json!("e".repeat(32))))).await;
    assert_eq!(renamed["present"], 1, "the signature is there: {renamed}");
    for (line, reason) in [
        (with("/origin/addedBy", json!("a\u{1b}b")), "control"),
        (with("/origin/issuers/0", json!("A".repeat(513))), "512"),
        (with("/origin/issuers", json!(["A", "B", "C", "D", "E"])), "more than 4 keys"),
        (with("/status/verifiedBy", json!("a\nb")), "control"),
        (with("/status/digest", json!(format!("sha256:{}", "0".repeat(64)))), "another digest"),
        (with("/origin", Value::Null).replacen('{', "{\"x\":1,", 1), "unknown field"),
    ] {
        let imported = json_of(import(line)).await;
        assert_eq!(imported["refused"], 1, "{imported}");
        assert!(imported["reasons"][0]["reason"].as_str().unwrap().contains(reason), "{imported}");
    }
    assert_eq!(to.inspect().await, from.inspect().await);
}

#[tokio::test]
async fn without_roles_a_store_beyond_loopback_takes_signatures_and_gives_nothing_else_into_anyones_hands() {
    let setting = Setting::new().await;
    let (name, message) = setting.message(1);
    let finding = json!({"key": setting.key, "identity": "x", "digest": setting.pushed.digest.to_string()}).to_string();
    for (listen, allowed) in [("0.0.0.0:0", false), ("127.0.0.1:0", true)] {
        let listen = listen.parse().unwrap();
        let store = Store::start_set(&setting.registry.url(), &Limits::default(), |settings| settings.listen = listen);
        let client = Client::new();
        let put = client.put(store.signatures_url("acme/web", setting.pushed.digest)).body(message.to_string());
        assert_eq!(status(put).await, 201);
        let own = |rest: &str| format!("{}/sealgate/v1/{rest}", store.url());
        let of_it = |rest: &str| own(&format!("acme/web/signatures/{}{rest}", setting.pushed.digest));
        let import = || client.post(own("import")).body("");
        let one_status = of_it(&format!("/{name}/status"));
        for (request, expected) in [
            (client.put(&one_status).body(finding.clone()), 204),
            (client.delete(&one_status), 204),
            (client.delete(of_it("/status")), 204),
            (client.get(own("export")), 200),
            (import().header("content-type", "application/x-ndjson"), 200),
            (import().header("content-type", "text/plain"), 415),
            (import(), 415),
            (client.delete(of_it(&format!("/{name}"))), 204),
        ] {
            let expected = if allowed { expected } else { 403 };
            let answer = request.send().await.unwrap();
            let (got, text) = (answer.status().as_u16(), answer.text().await.unwrap());
            assert_eq!(got, expected, "{listen}: {text}");
            assert!(got != 403 || text.contains("gateway.access"), "{text}");
        }
        let left = json_of(client.get(of_it(""))).await["signatures"].as_array().unwrap().len();
        assert_eq!(left, usize::from(!allowed));
    }
}

#[tokio::test]
async fn without_roles_nobody_who_comes_through_a_proxy_is_somebody_on_this_machine() {
    let setting = Setting::new().await;
    let trusted = || vec![Network::parse("127.0.0.1").unwrap()];
    let url = || Some("https://store.example.com".parse().unwrap());
    let here = || Some("http://localhost:5000".parse().unwrap());
    let through: &[(&str, &str)] = &[("x-forwarded-for", "192.0.2.1")];
    for (external_url, trusted_proxies, fields, expected) in [
        (url(), trusted(), through, 403),
        (None, Vec::new(), through, 403),
        (None, Vec::new(), &[("x-forwarded-proto", "https")], 403),
        (None, Vec::new(), &[("forwarded", "for=192.0.2.1")], 403),
        (None, Vec::new(), &[("x-real-ip", "127.0.0.1")], 403),
        (None, Vec::new(), &[("via", "1.1 proxy")], 403),
        // A proxy that says nothing of whom it has it from.
        (url(), Vec::new(), &[], 403),
        (None, trusted(), &[], 403),
        (here(), Vec::new(), &[], 200),
    ] {
        let store = Store::start_set(&setting.registry.url(), &Limits::default(), |settings| {
            settings.anyone_may_sign = true;
            settings.external_url = external_url;
            settings.trusted_proxies = trusted_proxies;
        });
        let sent = |request: RequestBuilder| {
            fields.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send()
        };
        let client = Client::new();
        let own = |rest: &str| format!("{}/sealgate/v1/{rest}", store.url());
        let of_it = own(&format!("acme/web/signatures/{}/{:032}", setting.pushed.digest, 1));
        let there_is_none = if expected == 200 { 404 } else { expected };
        for (request, expected) in [
            (client.get(own("export")), expected),
            (client.post(own("import")).header("content-type", "application/x-ndjson"), expected),
            (client.delete(of_it), there_is_none),
        ] {
            let answer = sent(request).await.unwrap();
            let (got, text) = (answer.status().as_u16(), answer.text().await.unwrap());
            assert_eq!(got, expected, "{fields:?}: {text}");
            assert!(got != 403 || text.contains("gateway.access"), "{text}");
        }
    }
}

/// The store's requests that export or change something, each with what it is answered where it is let do that.
fn changes(store: &Store, digest: &Digest, message: &Value) -> Vec<(RequestBuilder, u16)> {
    let client = Client::new();
    let own = |rest: &str| format!("{}/sealgate/v1/{rest}", store.url());
    let of_it = |rest: &str| own(&format!("acme/web/signatures/{digest}{rest}"));
    let one = format!("/{:032}", 9);
    let finding = json!({"key": "0x1", "identity": "x", "digest": digest.to_string()}).to_string();
    vec![
        (client.get(own("export")), 200),
        (client.post(own("import")).header("content-type", "application/x-ndjson").body(""), 200),
        (client.put(of_it(&format!("{one}/status"))).body(finding), 404),
        (client.delete(of_it(&format!("{one}/status"))), 404),
        (client.delete(of_it("/status")), 204),
        (client.delete(of_it(&one)), 404),
        (client.put(store.signatures_url("acme/web", digest)).body(message.to_string()), 201),
    ]
}

#[tokio::test]
async fn a_name_that_dns_leads_to_loopback_does_not_make_a_page_somebody_on_this_machine() {
    let setting = Setting::new().await;
    let (_, message) = setting.message(1);
    let store = Store::start(&setting.registry.url());
    let port = store.host().rsplit_once(':').unwrap().1.to_owned();
    let at = |host: &str| format!("{host}:{port}");
    for (host, is_local) in [
        (at("evil.example.com"), false),
        ("evil.example.com".to_owned(), false),
        (at("127.0.0.1.example.com"), false),
        (at("localhost.example.com"), false),
        (at("0.0.0.0"), false),
        (at("10.0.0.1"), false),
        (at("localhost"), true),
        (at("LOCALHOST"), true),
        ("localhost".to_owned(), true),
        (at("127.0.0.1"), true),
        (at("127.4.5.6"), true),
        (at("[::1]"), true),
    ] {
        for (request, expected) in changes(&store, &setting.pushed.digest, &message) {
            let answer = request.header("host", &host).send().await.unwrap();
            let (got, path) = (answer.status().as_u16(), answer.url().path().to_owned());
            // To add one takes no trust in where it comes from, here as on any other host.
            let is_trusted = is_local || path.starts_with("/extensions");
            assert_eq!(got == 403, !is_trusted, "{host} {path}: {got}");
            assert!(!is_trusted || got == expected || expected == 201, "{host} {path}: {got}");
        }
    }
}

#[tokio::test]
async fn no_page_of_another_site_changes_or_exports_anything_whoever_has_logged_in() {
    let setting = Setting::new().await;
    let (_, message) = setting.message(1);
    let open = Store::start(&setting.registry.url());
    for (store, user) in [(&open, None), (&setting.store, Some("ops"))] {
        let own_origin = store.url();
        for (fields, is_refused) in [
            (vec![("sec-fetch-site", "cross-site")], true),
            (vec![("sec-fetch-site", "same-site")], true),
            (vec![("origin", "http://evil.example.com")], true),
            (vec![("origin", "null")], true),
            (vec![("origin", "http://127.0.0.1:1")], true),
            (vec![("origin", own_origin.as_str()), ("sec-fetch-site", "cross-site")], true),
            (vec![("origin", own_origin.as_str()), ("sec-fetch-site", "same-origin")], false),
            (vec![("sec-fetch-site", "none")], false),
            (vec![], false),
        ] {
            for (request, _) in changes(store, &setting.pushed.digest, &message) {
                let request = user.iter().fold(request, |request, user| request.basic_auth(user, Some(user)));
                let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
                let answer = request.send().await.unwrap();
                let (got, text) = (answer.status().as_u16(), answer.text().await.unwrap());
                let says_why = got == 403 && text.contains("page of another site");
                assert_eq!(says_why, is_refused, "{fields:?} {user:?}: {got} {text}");
            }
        }
        // To read is another matter: a browser keeps the answer from the page.
        let list = Client::new().get(store.signatures_url("acme/web", setting.pushed.digest));
        assert_eq!(status(list.header("sec-fetch-site", "cross-site")).await, 200);
    }
}

#[tokio::test]
async fn a_wrong_password_is_not_answered_with_a_token_of_nobodys() {
    let folder = Scratch::new();
    let basic = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\"\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n";
    let (asks_for_passwords, has_tokens) = (Fake::says(basic), registry_with_short_tokens());
    for registry in [asks_for_passwords.url(), format!("http://{}", has_tokens.host())] {
        let access = users(&folder);
        let store = Store::start_set(&registry, &Limits::default(), |settings| settings.access = Some(access));
        let tokens = |password: &str| {
            let url = format!("{}/sealgate/v1/token?scope=registry:signatures:*", store.url());
            status(Client::new().get(url).basic_auth("ops", Some(password.to_owned())))
        };
        assert_eq!(tokens("ops").await, 200, "{registry}");
        assert_eq!(tokens("wrong").await, 401, "{registry}");
        let export = Client::new().get(format!("{}/sealgate/v1/export", store.url()));
        let answer = export.basic_auth("ops", Some("wrong")).send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert!(answer.headers().contains_key("www-authenticate"), "{registry}");
        let text = answer.text().await.unwrap();
        assert!(text.contains("the user name or the password is wrong"), "{text}");
    }
}

#[tokio::test]
async fn a_registry_that_is_down_keeps_nobody_from_what_is_the_stores_alone() {
    let mut setting = Setting::new().await;
    let (name, message) = setting.message(1);
    assert_eq!(status(setting.put(&message).basic_auth("robot", Some("robot"))).await, 201);
    let folder = Scratch::new();
    let access = users(&folder);
    setting.registry.stop();
    // It has never learned what the registry wants.
    let store =
        Store::start_set(&setting.registry.url(), &Limits::default(), |settings| settings.access = Some(access));
    let client = Client::new();
    let digest = setting.pushed.digest;
    let one = format!("{}/sealgate/v1/acme/web/signatures/{digest}/{name}", store.url());
    let finding = json!({"key": setting.key, "identity": "x", "digest": digest.to_string()}).to_string();
    for (user, request, expected) in [
        ("ops", client.get(format!("{}/sealgate/v1/export", store.url())), 200),
        ("ops", client.get(format!("{}/sealgate/v1/token?scope=registry:signatures:*", store.url())), 200),
        ("robot", client.request(reqwest::Method::OPTIONS, store.signatures_url("acme/web", digest)), 204),
        ("robot", client.delete(&one), 404),
        ("jane", client.put(format!("{one}/status")).body(finding), 404),
        // What the registry has to say.
        ("robot", client.get(store.signatures_url("acme/web", digest)), 503),
        ("robot", client.get(format!("{}/v2/acme/web/tags/list", store.url())), 503),
    ] {
        assert_eq!(status(request.basic_auth(user, Some(user))).await, expected, "{user} {expected}");
    }
}

#[tokio::test]
async fn behind_a_proxy_that_says_nothing_of_tls_clients_are_not_told_where_to_send_passwords() {
    let setting = Setting::new().await;
    let (_, message) = setting.message(1);
    let ping = Client::new().get(format!("{}/v2/", setting.store.url()));
    for request in [ping, setting.put(&message), setting.put(&message).basic_auth("robot", Some("wrong"))] {
        let answer = request.header("host", "store.example.com").send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert!(answer.headers().get("www-authenticate").is_none(), "{answer:?}");
        let text = answer.text().await.unwrap();
        assert!(text.contains("gateway.externalUrl"), "{text}");
    }
}
