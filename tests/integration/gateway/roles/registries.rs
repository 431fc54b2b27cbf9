//! Registries behind the store: open ones, those with passwords, those with token realms.

use super::*;

#[tokio::test]
async fn skopeo_pulls_as_nobody_and_signs_as_somebody_at_the_same_address() {
    let scenario = Scenario::new().await;
    let any = accept_anything(&scenario.folder).display().to_string();
    let key = scenario.gpg.export_to(&scenario.key, scenario.folder.path().join("release.asc")).display().to_string();
    let source = format!("docker://{}/acme/web:1", scenario.registry.host());
    let target = format!("docker://{}/acme/web:2", scenario.store.host());
    let skopeo = |arguments: &[&str]| {
        let output = skopeo(scenario.gpg.home(), arguments);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    };
    let sign = |creds: &[&str]| {
        let copy = ["--policy", &any, "copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
        skopeo(&[&copy, creds, &["--sign-by", &scenario.key, &source, &target]].concat())
    };
    assert!(sign(&[]).is_err(), "nobody may not sign");
    assert!(sign(&["--dest-creds", "joe:joe"]).is_err(), "joe has not got the role");
    sign(&["--dest-creds", "robot:robot"]).unwrap();
    let policy = format!(r#"{{"default":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}"}}]}}"#);
    let policy = scenario.folder.write("policy.json", policy).display().to_string();
    let to = format!("dir:{}", scenario.folder.path().join("pulled").display());
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
    let scenario = Scenario::behind(&configuration).await;
    let ping = Client::new().get(format!("{}/v2/", scenario.store.url())).send().await.unwrap();
    assert_eq!(ping.status(), 401);
    assert_eq!(ping.headers()["x-registry-supports-signatures"], "1");
    assert!(ping.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
    let list = |user: Option<&str>| {
        let request = Client::new().get(scenario.signatures());
        status(match user {
            Some(user) => request.basic_auth(user, Some(user)),
            None => request,
        })
    };
    assert_eq!(list(None).await, 401, "who may not pull may not read signatures");
    assert_eq!(list(Some("reader")).await, 200, "who is nobody here may be somebody there");
    assert_eq!(list(Some("joe")).await, 401, "and the other way round");
    let (_, message) = scenario.message(1);
    assert_eq!(status(scenario.put(&message).basic_auth("reader", Some("reader"))).await, 401);
    assert_eq!(status(scenario.put(&message).basic_auth("robot", Some("robot"))).await, 201);
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
async fn a_registrys_own_token_realm_gives_its_tokens_inside_those_of_the_store() {
    let (issuer, folder) = (Arc::new(Issuer::new()), Scratch::new());
    let realm = realm_of(&issuer);
    let realm_url = format!("http://{}", realm.host());
    let configuration = issuer.configuration(&folder, &format!("{realm_url}/token"));
    let scenario =
        Scenario::with(&configuration, |settings| settings.registry.token_realms = vec![realm_url.parse().unwrap()]);
    let scenario = scenario.await;
    let (_, message) = scenario.message(1);
    let host = scenario.store.host();
    let ours = format!(r#"Bearer realm="http://{host}/sealgate/v1/token",service="{host}""#);
    for (request, scope) in [
        (Client::new().get(format!("{}/v2/", scenario.store.url())), ""),
        (Client::new().get(scenario.signatures()), r#",scope="repository:acme/web:pull""#),
        (scenario.put(&message), r#",scope="repository:acme/web:pull,push""#),
        // Name and password count for the store; the registry wants a token.
        (scenario.put(&message).basic_auth("robot", Some("robot")), r#",scope="repository:acme/web:pull,push""#),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()["www-authenticate"].to_str().unwrap(), format!("{ours}{scope}"));
    }
    assert_eq!(realm.asked().len(), 0);
    let nobody = token(&scenario.store, None, "repository:acme/web:pull,push").await;
    let manifest = format!("{}/v2/acme/web/manifests/1", scenario.store.url());
    for url in [manifest, scenario.signatures()] {
        let request = Client::new().get(url).header("accept", scenario.pushed.media_type);
        assert_eq!(status(request.bearer_auth(&nobody)).await, 200);
    }
    assert_eq!(status(scenario.put(&message).bearer_auth(&nobody)).await, 401);
    let robot = token(&scenario.store, Some("robot"), "repository:acme/web:pull,push").await;
    assert_eq!(status(scenario.put(&message).bearer_auth(&robot)).await, 201);
    // Known here, and not there.
    let joe = Client::new().get(format!("{}/sealgate/v1/token", scenario.store.url())).basic_auth("joe", Some("joe"));
    assert_eq!(status(joe).await, 401);
    let asked: Vec<String> = realm.asked().iter().map(|asked| asked.path.clone()).collect();
    let scoped = "/token?service=test&scope=repository%3Aacme%2Fweb%3Apull%2Cpush";
    assert_eq!(asked, [scoped, scoped, "/token?service=test"]);

    let any = accept_anything(&scenario.folder).display().to_string();
    let image = format!("docker://{host}/acme/web");
    let copy = |further: &[&str]| {
        let common = ["--policy", &any, "copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
        let output = skopeo(scenario.gpg.home(), &[&common, further].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let pulled = format!("dir:{}", scenario.folder.path().join("pulled").display());
    copy(&[&format!("{image}:1"), &pulled]);
    copy(&["--dest-creds", "robot:robot", "--sign-by", &scenario.key, &pulled, &format!("{image}:2")]);
    let list = json_of(Client::new().get(scenario.signatures()).bearer_auth(&nobody)).await;
    assert_eq!(list["signatures"].as_array().unwrap().len(), 2, "{list}");
}

#[tokio::test]
async fn an_unnamed_private_token_realm_is_not_asked_even_on_the_registrys_own_host() {
    let (issuer, folder) = (Arc::new(Issuer::new()), Scratch::new());
    let realm = realm_of(&issuer);
    let scenario = Scenario::behind(&issuer.configuration(&folder, &format!("http://{}/token", realm.host()))).await;
    for user in [None, Some("robot")] {
        let request = Client::new().get(format!("{}/sealgate/v1/token", scenario.store.url()));
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
async fn a_registry_that_is_down_keeps_nobody_from_what_is_the_stores_alone() {
    let mut scenario = Scenario::new().await;
    let (name, message) = scenario.message(1);
    assert_eq!(status(scenario.put(&message).basic_auth("robot", Some("robot"))).await, 201);
    let folder = Scratch::new();
    let access = users(&folder);
    scenario.registry.stop();
    // It has never learned what the registry wants.
    let store =
        Store::start_set(&scenario.registry.url(), &Limits::default(), |settings| settings.access = Some(access));
    let client = Client::new();
    let digest = scenario.pushed.digest;
    let one = format!("{}/sealgate/v1/acme/web/signatures/{digest}/{name}", store.url());
    let finding = json!({"key": scenario.key, "identity": "x", "digest": digest.to_string()}).to_string();
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
