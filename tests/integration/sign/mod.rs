//! `sealgate sign` as its users see it, and what skopeo, gpg and the gate's own engine make of its signatures.

mod images;
mod keys;
mod signatures;

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sealgate::{image::Digest, signing::Gnupg};
use serde_json::Value;

use crate::support::{
    Answer, DockerRegistry, Gpg, Liar, Masks, Reply, SEALGATE, Scratch, Store, assert_reads, error_of,
    sealgate_with_keys, skopeo,
};

/// A registry with a store in front of it, and someone who signs.
pub(crate) struct Scenario {
    pub(crate) registry: DockerRegistry,
    pub(crate) store: Store,
    pub(crate) gpg: Gpg,
    pub(crate) key: String,
    pub(crate) folder: Scratch,
}

impl Scenario {
    pub(crate) fn new() -> Self {
        let registry = DockerRegistry::start();
        let store = Store::start(&registry.url());
        let gpg = Gpg::new();
        let key = gpg.generate("Release <release@example.com>");
        let folder = Scratch::new();
        gpg.export_to(&key, folder.path().join("release.asc"));
        Self { registry, store, gpg, key, folder }
    }

    /// `name:tag`, as it is reached through the store.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.store.host())
    }

    /// What the store has of an image.
    pub(crate) async fn list(&self, repository: &str, digest: &Digest) -> Value {
        let answer = reqwest::get(self.store.signatures_url(repository, digest)).await.expect("it answers");
        serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
    }

    pub(crate) fn sign(&self, image: &str, more: &[&str]) -> Answer {
        sealgate_with_keys(self.gpg.home(), &[&["sign", "--tls-verify=false", image], more].concat())
    }

    pub(crate) fn signed(&self, image: &str, more: &[&str]) -> Value {
        self.sign(image, &[&["-o", "json"], more].concat()).json(0)
    }

    /// Whether skopeo, with a policy that wants this key, pulls the image.
    pub(crate) fn skopeo_takes(&self, image: &str, options: &[&str]) -> Result<(), String> {
        let key = self.folder.path().join("release.asc");
        let policy =
            format!(r#"{{"default":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{}"}}]}}"#, key.display());
        let policy = self.folder.write("policy.json", policy).display().to_string();
        let target = Scratch::new();
        let (from, to) = (format!("docker://{image}"), format!("dir:{}", target.path().display()));
        let copy = ["--policy", &policy, "copy", "--src-tls-verify=false"];
        let output = skopeo(self.gpg.home(), &[&copy, options, &[from.as_str(), to.as_str()]].concat());
        if output.status.success() { Ok(()) } else { Err(error_of(&output)) }
    }

    /// What `sealgate verify` says of an image whose rule wants this key, with more about the rule.
    pub(crate) fn verify(&self, image: &str, rule: &str, more: &[&str]) -> Value {
        let text = format!(
            "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {{name: production}}\nspec:\n  keys:\n    \
             release: {{file: {}/release.asc}}\n  rules:\n  - name: all\n    images: ['*']\n    \
             require: [{{signedBy: [release]{rule}}}]\n",
            self.folder.path().display(),
        );
        let policy = self.folder.write("policy.yaml", text).display().to_string();
        let verify = ["verify", "--tls-verify=false", "-o", "json", "--policy", &policy, image];
        let output = sealgate_with_keys(self.gpg.home(), &[&verify, more].concat());
        serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr))
    }
}

#[tokio::test]
async fn what_we_sign_skopeo_gpg_and_our_own_engine_accept() {
    let scenario = Scenario::new();
    let pushed = scenario.registry.push("acme/web", "1", "one").await;
    let image = scenario.image("acme/web:1");
    assert!(scenario.skopeo_takes(&image, &[]).is_err());
    // By fingerprint, key ID and address; each time it is the same key, and the signature is there from the first time on.
    let id = &scenario.key[24..];
    let report = scenario.signed(&image, &["--sign-by", &scenario.key]);
    assert_eq!(report["digest"], pushed.digest.to_string());
    assert_eq!(report["identity"], image);
    assert_eq!(report["key"], scenario.key);
    assert_eq!(report["signatures"][0]["outcome"], "signed");
    for again in [id, "release@example.com"] {
        let report = scenario.signed(&image, &["--sign-by", again]);
        assert_eq!(report["signatures"][0]["outcome"], "present", "{again}");
    }
    scenario.skopeo_takes(&image, &[]).unwrap();
    assert_eq!(scenario.verify(&image, "", &[])["verdict"], "verified");

    let list = scenario.list("acme/web", &pushed.digest).await;
    let [entry] = list["signatures"].as_array().unwrap().as_slice() else { panic!("{list}") };
    let message = BASE64_STANDARD.decode(entry["content"].as_str().unwrap()).unwrap();
    let output = scenario.gpg.try_run(&["--decrypt"], &message);
    assert!(
        error_of(&output).contains("Good signature from \"Release <release@example.com>\""),
        "{}",
        error_of(&output)
    );
    let payload: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(payload["critical"]["identity"]["docker-reference"], image);
}

/// A key that expired years ago.
pub(crate) fn expired_key(gpg: &Gpg) -> &'static str {
    let mut arguments = vec!["--faked-system-time", "20200101T000000!"];
    arguments.extend(["--pinentry-mode", "loopback", "--passphrase", "", "--quick-generate-key"]);
    arguments.extend(["Old <old@example.com>", "ed25519", "sign,cert", "1y"]);
    gpg.run(&arguments, b"");
    "old@example.com"
}

/// A key that was revoked, with the certificate that GnuPG makes for that beforehand.
pub(crate) fn revoked_key(gpg: &Gpg) -> String {
    let key = gpg.generate("Lost <lost@example.com>");
    let path = gpg.home().join(format!("openpgp-revocs.d/{key}.rev"));
    // A colon in front of it keeps it from being imported by mistake.
    let certificate = fs::read_to_string(path).expect("GnuPG makes it").replace(":-----BEGIN", "-----BEGIN");
    gpg.run(&["--import"], certificate.as_bytes());
    key
}

#[tokio::test]
async fn what_sign_prints_reads_as_the_snapshot() {
    let scenario = Scenario::new();
    let images = [
        scenario.registry.push("acme/web", "amd64", "amd64").await,
        scenario.registry.push("acme/web", "arm64", "arm64").await,
    ];
    let index = scenario.registry.push_index("acme/web", "1", &[(&images[0], "amd64"), (&images[1], "arm64")]).await;
    let image = scenario.image("acme/web:1");
    let mut masks = Masks::default()
        .value(scenario.store.host(), "store.example.com")
        .value(&index.digest.hex(), "[index]")
        .value(&images[0].digest.hex(), "[amd64]")
        .value(&images[1].digest.hex(), "[arm64]")
        .key(&scenario.key, "81A2B3C4D5E6F708192A3B4C5D6E7F8091A2B302");
    let shown = |title: &str, more: &[&str]| {
        let output = scenario.sign(&image, &[&["--sign-by", &scenario.key], more].concat());
        format!("# {title}\n{}", output.text)
    };
    let reports = [
        shown("signed", &[]),
        shown("signed already", &[]),
        shown("signed already, for programs", &["-o", "json"]),
        shown("signed once more, for programs", &["-o", "json", "--renew"]),
    ];
    for digest in [&index.digest, &images[0].digest, &images[1].digest] {
        for entry in scenario.list("acme/web", digest).await["signatures"].as_array().expect("a list") {
            let (_, name) = entry["name"].as_str().and_then(|name| name.split_once('@')).expect("a name");
            masks = masks.value(name, "[name]");
        }
    }
    assert_reads!("sign", masks.apply(&reports.join("\n")));
}
