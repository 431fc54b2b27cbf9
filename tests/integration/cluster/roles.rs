//! A running store in front of a real registry, whose roles a real API server knows.

#![allow(clippy::unwrap_used)] // All of this is tests.

use std::path::Path;

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use super::{
    Cluster,
    access::{account, install, token_of, until},
    line::Line,
};
use crate::{
    gateway::{program, skopeo::signed_by},
    support::{DockerRegistry, Gpg, Process, Pushed, Scratch, accept_anything, skopeo},
};

/// Two namespaces, an image below each, and a service account in the first.
struct Scenario {
    cluster: &'static Cluster,
    /// The first namespace, and another one.
    own: String,
    other: String,
    /// The account's token.
    token: String,
    registry: DockerRegistry,
    pushed: Pushed,
    gpg: Gpg,
    key: String,
    host: String,
    line: Line,
    folder: Scratch,
    _store: Process,
}

impl Scenario {
    async fn new() -> Self {
        let cluster = Cluster::get();
        install(cluster);
        let [own, other] = ["roles", "others"].map(|purpose| cluster.namespace(purpose));
        let token = account(cluster, &own, "robot");
        let registry = DockerRegistry::start();
        let pushed = registry.push(&format!("{own}/web"), "1", "one").await;
        registry.push(&format!("{other}/web"), "1", "one").await;
        let (folder, line) = (Scratch::new(), Line::to(cluster.address()).await);
        let store = token_of(cluster, "sealgate", "sealgate-store", &[]);
        folder.write("kubeconfig", cluster.kubeconfig(&store, Some(line.address())));
        let configuration = folder.write(
            "sealgate.yaml",
            format!(
                "apiVersion: sealgate.dev/v1\nkind: Configuration\ngateway:\n  listen: 127.0.0.1:0\n  registry: {{url: \
                 '{}'}}\n  store: {{redb: {{file: signatures.redb}}}}\n  access: {{kubernetes: {{kubeconfig: \
                 kubeconfig}}}}\n",
                registry.url()
            ),
        );
        let mut store = Process::start(&mut program::command(&configuration));
        let host = program::address(&mut store);
        let gpg = Gpg::new();
        let key = gpg.generate("Release <release@example.com>");
        Self { cluster, own, other, token, registry, pushed, gpg, key, host, line, folder, _store: store }
    }

    /// `kubectl create rolebinding` in a namespace, to an account of the first one.
    fn bind(&self, name: &str, role: &str, account: &str, namespace: &str) {
        let (role, account) = (format!("--clusterrole={role}"), format!("--serviceaccount={}:{account}", self.own));
        self.cluster.kubectl(["-n", namespace, "create", "rolebinding", name, &role, &account]);
    }

    fn unbind(&self, name: &str, namespace: &str) {
        self.cluster.kubectl(["-n", namespace, "delete", "rolebinding", name]);
    }

    fn signatures(&self, namespace: &str) -> String {
        format!("http://{}/extensions/v2/{namespace}/web/signatures/{}", self.host, self.pushed.digest)
    }

    fn own(&self, namespace: &str, rest: &str) -> String {
        format!("http://{}/sealgate/v1/{namespace}/web/signatures/{}/{rest}", self.host, self.pushed.digest)
    }

    /// Adds a signature that is another one for each number.
    fn put(&self, namespace: &str, number: usize) -> RequestBuilder {
        let digest = self.pushed.digest;
        let content = self.gpg.sign_image(&self.key, &digest, &format!("registry.example.com/web:{number}"));
        let body = json!({
            "schemaVersion": 2, "type": "atomic", "name": format!("{digest}@{number:032}"),
            "content": BASE64_STANDARD.encode(content),
        });
        Client::new().put(self.signatures(namespace)).body(body.to_string())
    }

    fn set_status(&self, namespace: &str, number: usize) -> RequestBuilder {
        let finding = json!({"key": self.key, "identity": "x", "digest": self.pushed.digest.to_string()});
        Client::new().put(self.own(namespace, &format!("{number:032}/status"))).body(finding.to_string())
    }

    /// How many signatures anybody sees, without credentials.
    async fn seen(&self, namespace: &str) -> usize {
        let (status, list) = ask(Client::new().get(self.signatures(namespace))).await;
        assert_eq!(status, 200, "{list}");
        list["signatures"].as_array().unwrap().len()
    }

    /// Asks for a token of the store's, in exchange for one of the cluster's.
    fn exchange(&self, token: &str, namespace: &str) -> RequestBuilder {
        let host = &self.host;
        let scope = format!("repository:{namespace}/web:pull,push");
        let url = format!("http://{host}/sealgate/v1/token?service={host}&scope={scope}");
        Client::new().get(url).basic_auth("unused", Some(token))
    }

    async fn exchanged(&self, token: &str, namespace: &str) -> String {
        let (status, given) = ask(self.exchange(token, namespace)).await;
        assert_eq!(status, 200, "{given}");
        given["token"].as_str().unwrap().to_owned()
    }
}

/// Status and body, which is JSON where there is one.
async fn ask(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(text.into()))
}

async fn status(request: RequestBuilder) -> u16 {
    ask(request).await.0
}

#[tokio::test]
async fn who_is_bound_to_the_role_in_a_namespace_signs_there_until_the_binding_ends() {
    let scenario = Scenario::new().await;
    let Scenario { own, other, token, .. } = &scenario;
    let tokens = || async { [token.clone(), scenario.exchanged(token, own).await] };
    assert_eq!(scenario.seen(own).await, 0, "anybody reads");
    assert_eq!(status(scenario.put(own, 1)).await, 401, "and not anybody signs");
    for (number, token) in tokens().await.iter().enumerate() {
        let (status, refusal) = ask(scenario.put(own, number).bearer_auth(token)).await;
        let error = &refusal["errors"][0];
        assert_eq!((status, error["code"].as_str()), (403, Some("DENIED")), "{refusal}");
        let who = format!(
            "system:serviceaccount:{own}:robot may not add signatures to {own}/web: that takes the role system:image-signer"
        );
        assert!(error["message"].as_str().unwrap().contains(&who), "{refusal}");
    }

    scenario.bind("signers", "system:image-signer", "robot", own);
    until("the role", async || status(scenario.put(own, 1).bearer_auth(token)).await == 201).await;
    // As docker login sends it, and as a token of the store's.
    assert_eq!(status(scenario.put(own, 2).basic_auth("unused", Some(token))).await, 201);
    assert_eq!(status(scenario.put(own, 3).bearer_auth(scenario.exchanged(token, own).await)).await, 201);
    assert_eq!(scenario.seen(own).await, 3);

    // Elsewhere it is no role, and it is not the auditor's.
    let elsewhere = scenario.exchanged(token, other).await;
    for token in [token, &elsewhere] {
        assert_eq!(status(scenario.put(other, 1).bearer_auth(token)).await, 403);
    }
    assert_eq!(scenario.seen(other).await, 0);
    assert_eq!(status(scenario.set_status(own, 1).bearer_auth(token)).await, 403);
    // What it takes away, it may.
    let remove = Client::new().delete(scenario.own(own, &format!("{:032}", 3)));
    assert_eq!(status(remove.bearer_auth(token)).await, 204);

    let exchanged = scenario.exchanged(token, own).await;
    scenario.unbind("signers", own);
    for (number, token) in [(4, token), (5, &exchanged)] {
        until("the end of the role", async || {
            let status = status(scenario.put(own, number).bearer_auth(token)).await;
            assert!([201, 409, 403].contains(&status), "{status}");
            status == 403
        })
        .await;
    }
    let remove = Client::new().delete(scenario.own(own, &format!("{:032}", 2)));
    until("the end of the role", async || status(remove.try_clone().unwrap().bearer_auth(token)).await == 403).await;
}

#[tokio::test]
async fn an_auditor_says_what_was_verified_and_signs_nothing() {
    let scenario = Scenario::new().await;
    let (own, signer) = (&scenario.own, &scenario.token);
    let auditor = account(scenario.cluster, own, "jane");
    scenario.bind("signers", "system:image-signer", "robot", own);
    scenario.bind("auditors", "image-auditor", "jane", own);
    until("the signer's role", async || status(scenario.put(own, 1).bearer_auth(signer)).await == 201).await;
    until("the auditor's role", async || status(scenario.set_status(own, 1).bearer_auth(&auditor)).await == 204).await;
    let (_, about) = ask(Client::new().get(scenario.own(own, "").trim_end_matches('/'))).await;
    let about = &about["signatures"][0];
    assert_eq!(about["addedBy"], format!("system:serviceaccount:{own}:robot"));
    assert_eq!(about["status"]["verifiedBy"], format!("system:serviceaccount:{own}:jane"));
    assert_eq!(status(scenario.put(own, 2).bearer_auth(&auditor)).await, 403);
    assert_eq!(status(scenario.set_status(own, 1).bearer_auth(signer)).await, 403);
    let remove = || Client::new().delete(scenario.own(own, &format!("{:032}", 1)));
    assert_eq!(status(remove().bearer_auth(&auditor)).await, 403);
    for nobody in ["nonsense", "a.b.c", &format!("{signer}x")] {
        for request in [scenario.put(own, 2), scenario.set_status(own, 1), remove()] {
            assert_eq!(status(request.try_clone().unwrap().bearer_auth(nobody)).await, 401, "{nobody}");
            assert_eq!(status(request.basic_auth("robot", Some(nobody))).await, 401, "{nobody}");
        }
        assert_eq!(status(scenario.exchange(nobody, own)).await, 401, "{nobody}");
    }
    assert_eq!(scenario.seen(own).await, 1);
}

#[tokio::test]
async fn without_the_api_server_everybody_reads_and_nobody_signs() {
    let mut scenario = Scenario::new().await;
    let (own, token) = (scenario.own.clone(), scenario.token.clone());
    let second = account(scenario.cluster, &own, "second");
    scenario.bind("signers", "system:image-signer", "robot", &own);
    scenario.bind("seconds", "system:image-signer", "second", &own);
    until("the role", async || status(scenario.put(&own, 1).bearer_auth(&token)).await == 201).await;
    let exchanged = scenario.exchanged(&token, &own).await;

    scenario.line.cut().await;
    let unknown = |answer: &reqwest::Response| answer.status() == 503 && answer.headers().contains_key("retry-after");
    for request in [
        scenario.put(&own, 2).bearer_auth(&second),
        scenario.put(&own, 2).basic_auth("unused", Some(&second)),
        scenario.exchange(&second, &own),
    ] {
        let answer = request.send().await.unwrap();
        assert!(unknown(&answer), "{answer:?}");
    }
    // What was said before is believed for seconds.
    for token in [&token, &exchanged] {
        until("the end of what is remembered", async || {
            let answer = scenario.put(&own, 1).bearer_auth(token).send().await.unwrap();
            assert!(answer.status() == 409 || unknown(&answer), "{answer:?}");
            unknown(&answer)
        })
        .await;
    }
    let before = scenario.seen(&own).await;
    for token in [&token, &second, &exchanged] {
        assert!(unknown(&scenario.put(&own, 3).bearer_auth(token).send().await.unwrap()));
    }
    assert_eq!(scenario.seen(&own).await, before, "and what is there is read all along");

    scenario.line.mend().await;
    until("the API server", async || status(scenario.put(&own, 4).bearer_auth(&second)).await == 201).await;
}

// The way to the API server has a thread of its own while skopeo runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_signs_with_a_token_of_the_cluster_and_anybody_verifies() {
    let scenario = Scenario::new().await;
    let Scenario { own, other, token, gpg, key, .. } = &scenario;
    let any = accept_anything(&scenario.folder).display().to_string();
    let source = format!("docker://{}/{own}/web:1", scenario.registry.host());
    let target = |namespace: &str| format!("docker://{}/{namespace}/signed:1", scenario.host);
    let skopeo = |home: &Path, arguments: &[&str]| {
        let output = skopeo(home, arguments);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    };
    let sign = |namespace: &str, token: &str| {
        let credentials = format!("unused:{token}");
        let copy = ["--policy", &any, "copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
        let sign = ["--dest-creds", &credentials, "--sign-by", key, &source, &target(namespace)];
        skopeo(gpg.home(), &[copy.as_slice(), &sign].concat())
    };
    let ping = Client::new().get(format!("http://{}/v2/", scenario.host)).send().await.unwrap();
    assert!(ping.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer "), "by a token of the store's");
    let refusal = sign(own, token).unwrap_err();
    let why = format!("denied: system:serviceaccount:{own}:robot may not ");
    assert!(refusal.contains("uploading signature") && refusal.contains(&why), "{refusal}");
    let refusal = sign(own, "nonsense").unwrap_err();
    assert!(refusal.contains("unauthorized"), "{refusal}");

    scenario.bind("signers", "system:image-signer", "robot", own);
    until("the role", async || sign(own, token).is_ok()).await;
    let refusal = sign(other, token).unwrap_err();
    assert!(refusal.contains(&why), "the role is for one namespace: {refusal}");

    let key = gpg.export_to(key, scenario.folder.path().join("release.asc")).display().to_string();
    let policy = signed_by(&scenario.folder, &scenario.host, &key);
    let verify = |namespace: &str| {
        let to = format!("dir:{}", scenario.folder.path().join(namespace).display());
        skopeo(
            scenario.folder.path(),
            &["--policy", &policy, "copy", "--src-tls-verify=false", &target(namespace), &to],
        )
    };
    verify(own).unwrap();
    let refusal = verify(other).unwrap_err();
    assert!(refusal.contains("no signature exists"), "{refusal}");
}
