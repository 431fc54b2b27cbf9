//! A store that knows who signs: anonymous pulling and authenticated signing at one address.

mod findings;
mod loopback;
mod permissions;
mod registries;

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
struct Scenario {
    registry: DockerRegistry,
    store: Store,
    pushed: Pushed,
    gpg: Gpg,
    key: String,
    folder: Scratch,
}

impl Scenario {
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
