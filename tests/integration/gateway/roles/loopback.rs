//! This machine, proxies and pages of other sites: who is trusted without a role, and told where to log in.

use super::*;

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
async fn a_store_without_roles_takes_signatures_beyond_loopback_and_permits_nothing_else() {
    let scenario = Scenario::new().await;
    let (name, message) = scenario.message(1);
    let finding =
        json!({"key": scenario.key, "identity": "x", "digest": scenario.pushed.digest.to_string()}).to_string();
    for (listen, allowed) in [("0.0.0.0:0", false), ("127.0.0.1:0", true)] {
        let listen = listen.parse().unwrap();
        let store = Store::start_set(&scenario.registry.url(), &Limits::default(), |settings| settings.listen = listen);
        let client = Client::new();
        let put = client.put(store.signatures_url("acme/web", scenario.pushed.digest)).body(message.to_string());
        assert_eq!(status(put).await, 201);
        let own = |rest: &str| format!("{}/sealgate/v1/{rest}", store.url());
        let of_it = |rest: &str| own(&format!("acme/web/signatures/{}{rest}", scenario.pushed.digest));
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
    let scenario = Scenario::new().await;
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
        let store = Store::start_set(&scenario.registry.url(), &Limits::default(), |settings| {
            settings.anyone_may_sign = true;
            settings.external_url = external_url;
            settings.trusted_proxies = trusted_proxies;
        });
        let sent = |request: RequestBuilder| {
            fields.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send()
        };
        let client = Client::new();
        let own = |rest: &str| format!("{}/sealgate/v1/{rest}", store.url());
        let of_it = own(&format!("acme/web/signatures/{}/{:032}", scenario.pushed.digest, 1));
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
    let scenario = Scenario::new().await;
    let (_, message) = scenario.message(1);
    let store = Store::start(&scenario.registry.url());
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
        for (request, expected) in changes(&store, &scenario.pushed.digest, &message) {
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
    let scenario = Scenario::new().await;
    let (_, message) = scenario.message(1);
    let open = Store::start(&scenario.registry.url());
    for (store, user) in [(&open, None), (&scenario.store, Some("ops"))] {
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
            for (request, _) in changes(store, &scenario.pushed.digest, &message) {
                let request = user.iter().fold(request, |request, user| request.basic_auth(user, Some(user)));
                let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
                let answer = request.send().await.unwrap();
                let (got, text) = (answer.status().as_u16(), answer.text().await.unwrap());
                let says_why = got == 403 && text.contains("page of another site");
                assert_eq!(says_why, is_refused, "{fields:?} {user:?}: {got} {text}");
            }
        }
        // To read is another matter: a browser keeps the answer from the page.
        let list = Client::new().get(store.signatures_url("acme/web", scenario.pushed.digest));
        assert_eq!(status(list.header("sec-fetch-site", "cross-site")).await, 200);
    }
}

#[tokio::test]
async fn a_proxy_that_says_nothing_of_tls_leads_no_client_to_send_passwords() {
    let scenario = Scenario::new().await;
    let (_, message) = scenario.message(1);
    let ping = Client::new().get(format!("{}/v2/", scenario.store.url()));
    for request in [ping, scenario.put(&message), scenario.put(&message).basic_auth("robot", Some("wrong"))] {
        let answer = request.header("host", "store.example.com").send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert!(answer.headers().get("www-authenticate").is_none(), "{answer:?}");
        let text = answer.text().await.unwrap();
        assert!(text.contains("gateway.externalUrl"), "{text}");
    }
}
