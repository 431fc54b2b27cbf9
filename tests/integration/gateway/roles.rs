//! A store that knows who signs: anonymous pulling and authenticated signing at one address.

use std::path::Path;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Client, RequestBuilder, StatusCode};
use sealgate::configuration::{Access, Limits, Users};
use sealgate::image::Digest;
use serde_json::{Value, json};

use super::fake::Fake;
use crate::support::{DockerRegistry, Gpg, Pushed, Scratch, Store, accept_anything, run, skopeo};

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
        let mut registry = DockerRegistry::start();
        let pushed = registry.push("acme/web", "1", "one").await;
        if !configuration.is_empty() {
            registry.stop();
            registry.restart_with(configuration);
        }
        let folder = Scratch::new();
        let access = users(&folder);
        let store = Store::start_set(&registry.url(), &Limits::default(), |settings| settings.access = Some(access));
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
    assert_eq!(status(export("?after=x", "ops")).await, 400);
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
        (with("/origin/issuers", json!(["A", "B", "C", "D", "E"])), "at most 4"),
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
