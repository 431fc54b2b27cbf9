//! `sealgate sign` as its users see it, and what skopeo, gpg and the gate's own engine make of its signatures.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sealgate::{image::Digest, signing::Gnupg};
use serde_json::Value;

use crate::support::{DockerRegistry, Gpg, Scratch, Store, skopeo};

/// A registry with a store in front of it, and someone who signs.
pub(crate) struct Setting {
    pub(crate) registry: DockerRegistry,
    pub(crate) store: Store,
    pub(crate) gpg: Gpg,
    pub(crate) key: String,
    pub(crate) folder: Scratch,
}

impl Setting {
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

    fn sign(&self, image: &str, more: &[&str]) -> Output {
        sealgate(self.gpg.home(), &[&["sign", "--tls-verify=false", image], more].concat())
    }

    fn signed(&self, image: &str, more: &[&str]) -> Value {
        let output = self.sign(image, &[&["-o", "json"], more].concat());
        assert!(output.status.success(), "{}", error_of(&output));
        serde_json::from_slice(&output.stdout).expect("JSON")
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
    fn verify(&self, image: &str, rule: &str, more: &[&str]) -> Value {
        let text = format!(
            "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {{name: production}}\nspec:\n  keys:\n    \
             release: {{file: {}/release.asc}}\n  rules:\n  - name: all\n    images: ['*']\n    \
             require: [{{signedBy: [release]{rule}}}]\n",
            self.folder.path().display(),
        );
        let policy = self.folder.write("policy.yaml", text).display().to_string();
        let verify = ["verify", "--tls-verify=false", "-o", "json", "--policy", &policy, image];
        let output = sealgate(self.gpg.home(), &[&verify, more].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", error_of(&output)))
    }
}

pub(crate) fn sealgate(gnupg: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sealgate"))
        .args(arguments)
        .env("GNUPGHOME", gnupg)
        .stdin(Stdio::null())
        .output()
        .expect("sealgate can be started")
}

pub(crate) fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ends with this status, nothing on standard output, and this in its one message.
#[track_caller]
pub(crate) fn assert_fails(output: &Output, status: i32, text: &str) {
    let error = error_of(output);
    assert_eq!(output.status.code(), Some(status), "{error}");
    assert_eq!(output.stdout, b"", "{error}");
    assert!(error.starts_with("error: ") && error.contains(text), "{error}");
}

#[tokio::test]
async fn what_we_sign_skopeo_gpg_and_our_own_engine_accept() {
    let setting = Setting::new();
    let pushed = setting.registry.push("acme/web", "1", "one").await;
    let image = setting.image("acme/web:1");
    assert!(setting.skopeo_takes(&image, &[]).is_err());
    // By fingerprint, key ID and address; each time it is the same key, and the signature is there from the first time on.
    let id = &setting.key[24..];
    let report = setting.signed(&image, &["--sign-by", &setting.key]);
    assert_eq!(report["digest"], pushed.digest.to_string());
    assert_eq!(report["identity"], image);
    assert_eq!(report["key"], setting.key);
    assert_eq!(report["signatures"][0]["outcome"], "signed");
    for again in [id, "release@example.com"] {
        let report = setting.signed(&image, &["--sign-by", again]);
        assert_eq!(report["signatures"][0]["outcome"], "present", "{again}");
    }
    setting.skopeo_takes(&image, &[]).unwrap();
    assert_eq!(setting.verify(&image, "", &[])["verdict"], "verified");

    let list = setting.list("acme/web", &pushed.digest).await;
    let [entry] = list["signatures"].as_array().unwrap().as_slice() else { panic!("{list}") };
    let message = BASE64_STANDARD.decode(entry["content"].as_str().unwrap()).unwrap();
    let output = setting.gpg.try_run(&["--decrypt"], &message);
    assert!(
        error_of(&output).contains("Good signature from \"Release <release@example.com>\""),
        "{}",
        error_of(&output)
    );
    let payload: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(payload["critical"]["identity"]["docker-reference"], image);
}

#[tokio::test]
async fn of_an_index_everything_that_a_node_may_verify_is_signed() {
    let setting = Setting::new();
    let images = [
        setting.registry.push("acme/web", "amd64", "one").await,
        setting.registry.push("acme/web", "arm64", "two").await,
    ];
    setting.registry.push_index("acme/web", "1", &[(&images[0], "amd64"), (&images[1], "arm64")]).await;
    let image = setting.image("acme/web:1");
    let output = setting.sign(&image, &["--sign-by", &setting.key, "--index-only"]);
    assert!(output.status.success() && error_of(&output).contains("only the index is signed"), "{}", error_of(&output));
    assert!(setting.skopeo_takes(&image, &["--override-os=linux", "--override-arch=arm64"]).is_err());
    let report = setting.signed(&image, &["--sign-by", &setting.key]);
    let outcomes: Vec<_> = report["signatures"].as_array().unwrap().iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!(outcomes, ["present", "signed", "signed"]);
    assert_eq!(report["signatures"][2]["platform"], "linux/arm64");
    setting.skopeo_takes(&image, &[]).unwrap();
    assert_eq!(setting.verify(&image, "", &[])["verdict"], "verified");
}

#[tokio::test]
async fn a_renewed_signature_is_another_one_and_an_old_one_stays() {
    let setting = Setting::new();
    let pushed = setting.registry.push("acme/web", "1", "one").await;
    let image = setting.image("acme/web:1");
    for _ in 0..2 {
        assert_eq!(
            setting.signed(&image, &["--sign-by", &setting.key, "--renew"])["signatures"][0]["outcome"],
            "signed"
        );
    }
    let list = setting.list("acme/web", &pushed.digest).await;
    assert_eq!(list["signatures"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn another_identity_is_signed_when_it_is_asked_for() {
    let setting = Setting::new();
    setting.registry.push("copies/web", "1", "one").await;
    let image = setting.image("copies/web:1");
    let identity = "registry.example.com/acme/web:1";
    let dry = setting.sign(&image, &["--sign-by", &setting.key, "--sign-identity", identity, "--dry-run"]);
    let payload: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!(payload["critical"]["identity"]["docker-reference"], identity);
    assert_eq!(setting.verify(&image, "", &[])["code"], "unsigned", "a dry run signs nothing");
    setting.signed(&image, &["--sign-by", &setting.key, "--sign-identity", identity]);
    assert_eq!(setting.verify(&image, "", &[])["code"], "wrong-identity");
    let rule = format!(", identity: {{exactReference: '{identity}'}}");
    assert_eq!(setting.verify(&image, &rule, &[])["verdict"], "verified");
}

#[tokio::test]
async fn signatures_go_into_a_lookaside_folder_or_another_store() {
    let setting = Setting::new();
    let pushed = setting.registry.push("acme/web", "1", "one").await;
    let image = format!("{}/acme/web:1", setting.registry.host());
    let tree = setting.folder.path().join("tree").display().to_string();
    // The registry itself has no extension.
    assert_fails(&setting.sign(&image, &["--sign-by", &setting.key]), 1, "does not announce a signature extension");
    setting.signed(&image, &["--sign-by", &setting.key, "--to", &tree]);
    let place = format!("{tree}/acme/web@sha256={}/signature-1", pushed.digest.hex());
    assert!(fs::metadata(&place).is_ok(), "{place}");
    let registries = format!("default-docker: {{lookaside: 'file://{tree}'}}\n");
    setting.folder.write("registries.d/default.yaml", registries);
    let registries = setting.folder.path().join("registries.d").display().to_string();
    setting.skopeo_takes(&image, &["--registries.d", &registries]).unwrap();
    let report = setting.signed(&image, &["--sign-by", &setting.key, "--to", &setting.store.url()]);
    assert!(report["signatures"][0]["place"].as_str().unwrap().starts_with(&setting.store.url()), "{report}");
}

#[tokio::test]
async fn keys_that_can_not_sign_are_refused_before_anything_is_written() {
    let setting = Setting::new();
    let pushed = setting.registry.push("acme/web", "1", "one").await;
    let image = setting.image("acme/web:1");
    let expired = {
        let options = ["--faked-system-time", "20200101T000000"];
        let mut arguments = options.to_vec();
        arguments.extend(["--pinentry-mode", "loopback", "--passphrase", "", "--quick-generate-key"]);
        arguments.extend(["Old <old@example.com>", "ed25519", "sign,cert", "1y"]);
        setting.gpg.run(&arguments, b"");
        "old@example.com"
    };
    assert_fails(&setting.sign(&image, &["--sign-by", expired]), 1, "expired at 2020-12-31");
    assert_fails(&setting.sign(&image, &["--sign-by", "nobody@example.com"]), 1, "no key of nobody@example.com");
    assert_fails(&setting.sign(&image, &["--sign-by", "DEADBEEF"]), 2, "short key ID");
    assert_fails(&setting.sign(&image, &["--sign-by", "release"]), 2, "expected a fingerprint");
    setting.gpg.generate("Other <release@example.com>");
    assert_fails(&setting.sign(&image, &["--sign-by", "release@example.com"]), 2, "names several keys");
    // A public key alone: the agent has nothing to sign with.
    let stranger = Gpg::new();
    let theirs = stranger.generate("Stranger <stranger@example.com>");
    setting.gpg.run(&["--import"], &stranger.export(&theirs));
    assert_fails(&setting.sign(&image, &["--sign-by", &theirs]), 1, "is not here");
    let missing =
        sealgate(Path::new("/nonexistent"), &["sign", "--tls-verify=false", &image, "--sign-by", &setting.key]);
    assert_fails(&missing, 2, "there is no GnuPG folder /nonexistent");
    let list = setting.list("acme/web", &pushed.digest).await;
    assert_eq!(list["signatures"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_locked_key_that_nobody_unlocks_does_not_sign() {
    let setting = Setting::new();
    setting.registry.push("acme/web", "1", "one").await;
    let image = setting.image("acme/web:1");
    // A pinentry that is cancelled, as by whoever does not know the passphrase.
    let pinentry = setting.folder.write("pinentry", "#!/bin/sh\necho OK\nwhile read -r line; do case $line in GETPIN*) echo 'ERR 83886179 cancelled';; BYE*) echo OK; exit;; *) echo OK;; esac; done\n");
    crate::support::run("chmod", ["755", &pinentry.display().to_string()]);
    fs::write(
        setting.gpg.home().join("gpg-agent.conf"),
        format!("pinentry-program {}\nallow-loopback-pinentry\nmax-cache-ttl 0\n", pinentry.display()),
    )
    .unwrap();
    let home = setting.gpg.home().display().to_string();
    crate::support::run("gpgconf", ["--homedir", &home, "--kill", "gpg-agent"]);
    setting.gpg.run(
        &[
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "secret",
            "--quick-generate-key",
            "Locked <locked@example.com>",
            "ed25519",
            "sign",
            "never",
        ],
        b"",
    );
    crate::support::run("gpgconf", ["--homedir", &home, "--kill", "gpg-agent"]);
    assert_fails(&setting.sign(&image, &["--sign-by", "locked@example.com"]), 3, "did not sign");
}

#[tokio::test]
async fn a_key_file_signs_without_an_agent() {
    let setting = Setting::new();
    setting.registry.push("acme/web", "1", "one").await;
    let image = setting.image("acme/web:1");
    let owner = Gpg::new();
    owner.run(
        &[
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "secret",
            "--quick-generate-key",
            "CI <ci@example.com>",
            "rsa3072",
            "sign",
            "never",
        ],
        b"",
    );
    let secret =
        owner.run(&["--pinentry-mode", "loopback", "--passphrase", "secret", "--armor", "--export-secret-keys"], b"");
    let key = setting.folder.write("ci.key", secret).display().to_string();
    let good = setting.folder.write("passphrase", "secret\n").display().to_string();
    let bad = setting.folder.write("wrong", "Secret\n").display().to_string();
    assert_fails(&setting.sign(&image, &["--key-file", &key]), 2, "--passphrase-file");
    assert_fails(&setting.sign(&image, &["--key-file", &key, "--passphrase-file", &bad]), 1, "is wrong");
    assert_eq!(
        setting.signed(&image, &["--key-file", &key, "--passphrase-file", &good])["signatures"][0]["outcome"],
        "signed"
    );
    fs::write(setting.folder.path().join("release.asc"), owner.export("ci@example.com")).unwrap();
    setting.skopeo_takes(&image, &[]).unwrap();
}

#[tokio::test]
async fn what_is_not_there_can_not_be_signed() {
    let setting = Setting::new();
    let image = setting.image("acme/none:1");
    assert_fails(&setting.sign(&image, &["--sign-by", &setting.key]), 1, "acme/none");
    let gone = "127.0.0.1:1/acme/web:1";
    assert_fails(&setting.sign(gone, &["--sign-by", &setting.key]), 3, "127.0.0.1:1");
}

#[tokio::test]
async fn a_mirror_does_not_say_what_is_signed() {
    let setting = Setting::new();
    setting.registry.push("acme/web", "1", "one").await;
    let tree = setting.folder.path().join("tree").display().to_string();
    let configuration = format!(
        "apiVersion: sealgate.dev/v1\nkind: Configuration\nregistries:\n- scope: 127.0.0.1:1\n  insecure: true\n  \
         signatures: [{{lookaside: {{url: 'file://{tree}'}}}}]\n  mirrors: ['{host}']\n- scope: '{host}'\n  \
         insecure: true\n",
        host = setting.registry.host()
    );
    let configuration = setting.folder.write("sealgate.yaml", configuration).display().to_string();
    let image = "127.0.0.1:1/acme/web:1";
    let config = ["--config", configuration.as_str()];
    assert_eq!(setting.verify(image, "", &config)["code"], "unsigned", "the mirror answers");
    let sign = [&config[..], &["--sign-by", &setting.key]].concat();
    assert_fails(&setting.sign(image, &sign), 3, "127.0.0.1:1");
    assert!(!Path::new(&tree).exists(), "nothing is written");
}

#[test]
fn a_keybox_that_is_cut_off_anywhere_ends_with_a_result() {
    let gpg = Gpg::new();
    let key = gpg.generate("Release <release@example.com>");
    let keybox = fs::read(gpg.home().join("pubring.kbx")).unwrap();
    let folder = Scratch::new();
    let read = |bytes: &[u8]| {
        folder.write("pubring.kbx", bytes);
        Gnupg::at(folder.path().to_owned()).unwrap().certificates()
    };
    let found = read(&keybox).unwrap();
    assert_eq!(found.iter().map(|found| found.fingerprint().0.to_string()).collect::<Vec<_>>(), [key]);
    for length in 0..keybox.len() {
        match read(&keybox[..length]) {
            Ok(certificates) => assert!(certificates.is_empty(), "{length}"),
            Err(error) => assert!(error.to_string().contains("keybox of GnuPG"), "{length}: {error}"),
        }
    }
}

#[tokio::test]
async fn an_agent_that_keeps_silent_is_not_waited_for_for_ever() {
    let setting = Setting::new();
    setting.registry.push("acme/web", "1", "one").await;
    let home = setting.gpg.home().display().to_string();
    crate::support::run("gpgconf", ["--homedir", &home, "--kill", "gpg-agent"]);
    let listed = Command::new("gpgconf").args(["--homedir", &home, "--list-dirs", "agent-socket"]).output().unwrap();
    let socket = String::from_utf8(listed.stdout).unwrap().trim().to_owned();
    let _ = fs::remove_file(&socket);
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let output = setting.sign(&setting.image("acme/web:1"), &["--sign-by", &setting.key]);
    assert_fails(&output, 3, "gpg-agent can't be asked: it has not answered within 15 s");
}

#[tokio::test]
async fn a_digest_is_signed_under_a_tag_that_names_another_only_where_that_is_said() {
    let setting = Setting::new();
    let old = setting.registry.push("acme/web", "1", "one").await.digest;
    let new = setting.registry.push("acme/web", "1", "two").await.digest;
    let image = setting.image("acme/web:1");
    let by = ["--sign-by", setting.key.as_str()];
    setting.signed(&format!("{image}@{new}"), &by);
    let moved = format!("{image}@{old}");
    let advice = format!("or sign {}@{old} (with --sign-identity {image} only if", setting.image("acme/web"));
    for more in [&by[..], &[&by[..], &["--dry-run"]].concat()] {
        assert_fails(&setting.sign(&moved, more), 1, &advice);
    }
    let report = setting.signed(&moved, &[&by[..], &["--sign-identity", &image]].concat());
    assert_eq!(report["signatures"][0]["outcome"], "signed");
}
