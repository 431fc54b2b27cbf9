//! What each role may do, with a password or a token.

use super::*;

#[tokio::test]
async fn everyone_reads_a_signer_signs_and_nobody_else_does() {
    let scenario = Scenario::new().await;
    let (_, message) = scenario.message(1);
    let challenge = scenario.put(&message).send().await.unwrap();
    assert_eq!(challenge.status(), StatusCode::UNAUTHORIZED);
    let challenge = challenge.headers()["www-authenticate"].to_str().unwrap();
    let host = scenario.store.host();
    let expected = format!(
        r#"Bearer realm="http://{host}/sealgate/v1/token",service="{host}",scope="repository:acme/web:pull,push""#
    );
    assert_eq!(challenge, expected);
    for (user, password, expected) in
        [("joe", "joe", 403), ("jane", "jane", 403), ("robot", "wrong", 401), ("nobody", "x", 401)]
    {
        assert_eq!(status(scenario.put(&message).basic_auth(user, Some(password))).await, expected, "{user}");
    }
    assert_eq!(scenario.inspect().await, json!({"signatures": []}));
    // As the original documentation has it: curl with a name and a password.
    assert_eq!(status(scenario.put(&message).basic_auth("robot", Some("robot"))).await, 201);
    let list = json_of(Client::new().get(scenario.signatures())).await;
    assert_eq!(list["signatures"].as_array().unwrap().len(), 1);
    let about = &scenario.inspect().await["signatures"][0];
    assert_eq!(about["addedBy"], "robot");
    assert_eq!(about["issuers"][0], scenario.key);
    assert!(about.get("status").is_none());
    // The role is for repositories below acme.
    let elsewhere = scenario.registry.push("other/web", "1", "one").await;
    let url = scenario.store.signatures_url("other/web", elsewhere.digest);
    let put = Client::new().put(url).basic_auth("robot", Some("robot")).body(message.to_string());
    assert_eq!(status(put).await, 403);
}

#[tokio::test]
async fn who_asks_before_pushing_hears_what_a_signature_would() {
    let scenario = Scenario::new().await;
    // Of an image that is not there yet.
    let digest = Digest::sha256(b"to be pushed");
    let ask = |repository: &str, user: Option<&str>| {
        let url = scenario.store.signatures_url(repository, digest);
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
    let scenario = Scenario::new().await;
    let (_, message) = scenario.message(1);
    let put = |token: &str| status(scenario.put(&message).bearer_auth(token));
    assert_eq!(put("nonsense").await, 401);
    let anonymous = token(&scenario.store, None, "repository:acme/web:pull,push").await;
    assert_eq!(put(&anonymous).await, 401, "anyone may have a token, and it is nobody's");
    assert_eq!(put(&token(&scenario.store, Some("joe"), "repository:acme/web:pull,push").await).await, 403);
    assert_eq!(put(&token(&scenario.store, Some("robot"), "repository:acme/web:pull").await).await, 401);
    assert_eq!(put(&token(&scenario.store, Some("robot"), "repository:acme/db:pull,push").await).await, 401);
    assert_eq!(put(&token(&scenario.store, Some("robot"), "repository:acme/web:pull,push").await).await, 201);
    let wrong = Client::new().get(format!("{}/sealgate/v1/token", scenario.store.url())).basic_auth("robot", Some("x"));
    assert_eq!(status(wrong).await, 401);
    // OAuth 2, as containerd asks for tokens.
    let form = "grant_type=password&service=x&client_id=containerd&username=robot&password=robot&scope=repository%3Aacme%2Fweb%3Apull";
    let post = Client::new()
        .post(format!("{}/sealgate/v1/token", scenario.store.url()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    assert!(json_of(post).await["access_token"].is_string());
    let without_grant = Client::new().post(format!("{}/sealgate/v1/token", scenario.store.url()));
    assert_eq!(status(without_grant.body("username=robot&password=robot")).await, 400);
}

#[tokio::test]
async fn a_signer_takes_signatures_away_again() {
    let scenario = Scenario::new().await;
    let (name, message) = scenario.message(1);
    assert_eq!(status(scenario.put(&message).basic_auth("robot", Some("robot"))).await, 201);
    let url = scenario.own(&format!("/{name}"));
    let remove = |user: &str| status(Client::new().delete(&url).basic_auth(user, Some(user)));
    assert_eq!(status(Client::new().delete(&url)).await, 401);
    assert_eq!(remove("jane").await, 403);
    assert_eq!(remove("robot").await, 204);
    assert_eq!(remove("robot").await, 404);
    assert_eq!(scenario.inspect().await, json!({"signatures": []}));
}

#[tokio::test]
async fn all_of_a_store_is_moved_into_another() {
    let (from, to) = (Scenario::new().await, Scenario::new().await);
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
