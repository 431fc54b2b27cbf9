//! `sealgate sign` as its users see it, and what skopeo, gpg and the gate's own engine make of its signatures.

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

#[tokio::test]
async fn of_an_index_everything_that_a_node_may_verify_is_signed() {
    let scenario = Scenario::new();
    let images = [
        scenario.registry.push("acme/web", "amd64", "one").await,
        scenario.registry.push("acme/web", "arm64", "two").await,
    ];
    scenario.registry.push_index("acme/web", "1", &[(&images[0], "amd64"), (&images[1], "arm64")]).await;
    let image = scenario.image("acme/web:1");
    let output = scenario.sign(&image, &["--sign-by", &scenario.key, "--index-only"]);
    assert!(output.status == 0 && output.stderr.contains("only the index is signed"), "{}", output.stderr);
    assert!(scenario.skopeo_takes(&image, &["--override-os=linux", "--override-arch=arm64"]).is_err());
    let report = scenario.signed(&image, &["--sign-by", &scenario.key]);
    let outcomes: Vec<_> = report["signatures"].as_array().unwrap().iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!(outcomes, ["present", "signed", "signed"]);
    assert_eq!(report["signatures"][2]["platform"], "linux/arm64");
    scenario.skopeo_takes(&image, &[]).unwrap();
    assert_eq!(scenario.verify(&image, "", &[])["verdict"], "verified");
}

#[tokio::test]
async fn variables_of_a_terminal_or_display_that_are_empty_keep_nobody_from_signing() {
    let scenario = Scenario::new();
    scenario.registry.push("acme/web", "1", "one").await;
    let names = ["GPG_TTY", "DISPLAY", "TERM", "XAUTHORITY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "LC_ALL"];
    let one_by_one = names.iter().map(|name| vec![*name]);
    for empty in one_by_one.chain([names.to_vec()]) {
        let mut command = Command::new(SEALGATE);
        command.args([
            "sign",
            "--tls-verify=false",
            "--renew",
            &scenario.image("acme/web:1"),
            "--sign-by",
            &scenario.key,
        ]);
        command.env("GNUPGHOME", scenario.gpg.home());
        for name in &empty {
            command.env(name, "");
        }
        let output = Answer::of(&mut command);
        assert_eq!(output.status, 0, "{empty:?}: {}", output.stderr);
    }
    scenario.skopeo_takes(&scenario.image("acme/web:1"), &[]).unwrap();
}

#[test]
fn an_index_whose_entries_are_missing_is_signed_alone_or_not_at_all() {
    let gpg = Gpg::new();
    let key = gpg.generate("Release <release@example.com>");
    let kind = |kind: &str| format!("application/vnd.oci.image.{kind}.v1+json");
    let config = Digest::sha256(b"{}");
    let image = |number: usize| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{config}","size":{number}}},"layers":[]}}"#,
            kind("manifest"),
            kind("config")
        )
    };
    let images = [image(1), image(2)];
    let digests = images.each_ref().map(|image| Digest::sha256(image.as_bytes()).to_string());
    let entries: Vec<String> = [(0, "amd64"), (1, "arm64")]
        .map(|(number, architecture): (usize, &str)| {
            format!(
                r#"{{"mediaType":"{}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
                kind("manifest"),
                digests[number],
                images[number].len()
            )
        })
        .to_vec();
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#, kind("index"), entries.join(","));
    for missing in [&[1][..], &[0], &[0, 1]] {
        let mut has = vec![("1".to_owned(), index.clone(), kind("index"))];
        has.push((Digest::sha256(index.as_bytes()).to_string(), index.clone(), kind("index")));
        let there = (0..2).filter(|number| !missing.contains(number));
        has.extend(there.map(|number| (digests[number].clone(), images[number].clone(), kind("manifest"))));
        let registry = Liar::start(move |asked| {
            let name = asked.path.rsplit('/').next().unwrap_or_default();
            match has.iter().find(|(known, ..)| known == name) {
                _ if asked.path == "/v2/" => Reply::empty(200),
                Some((_, body, kind)) => Reply::new(200, &[("content-type", kind)], body),
                None => Reply::empty(404),
            }
        });
        let folder = Scratch::new();
        let to = folder.path().join("signatures").display().to_string();
        let sign = |image: &str, more: &[&str]| {
            let image = format!("{}/acme/web:{image}", registry.host());
            let arguments = ["sign", "--tls-verify=false", &image, "--sign-by", &key, "--to", &to];
            sealgate_with_keys(gpg.home(), &[&arguments, more].concat())
        };
        let output = sign("1", &[]);
        output.fails_with(1, "--index-only");
        let error = &output.stderr;
        for (number, platform) in [(0, "(linux/amd64)"), (1, "(linux/arm64)")] {
            let named = format!("{} {platform}", digests[number]);
            assert_eq!(error.contains(&named), missing.contains(&number), "{error}");
        }
        assert!(!Path::new(&to).exists(), "{error}");
        let alone = sign("1", &["--index-only"]);
        assert_eq!(alone.status, 0, "{}", alone.stderr);
        let nothing = sign("2", &[]);
        nothing.fails_with(1, "has no such image");
        assert!(!nothing.stderr.contains("--index-only"), "{}", nothing.stderr);
    }
}

#[tokio::test]
async fn a_renewed_signature_is_another_one_and_an_old_one_stays() {
    let scenario = Scenario::new();
    let pushed = scenario.registry.push("acme/web", "1", "one").await;
    let image = scenario.image("acme/web:1");
    for _ in 0..2 {
        assert_eq!(
            scenario.signed(&image, &["--sign-by", &scenario.key, "--renew"])["signatures"][0]["outcome"],
            "signed"
        );
    }
    let list = scenario.list("acme/web", &pushed.digest).await;
    assert_eq!(list["signatures"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn another_identity_is_signed_when_it_is_asked_for() {
    let scenario = Scenario::new();
    scenario.registry.push("copies/web", "1", "one").await;
    let image = scenario.image("copies/web:1");
    let identity = "registry.example.com/acme/web:1";
    let dry = scenario.sign(&image, &["--sign-by", &scenario.key, "--sign-identity", identity, "--dry-run"]);
    let payload: Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!(payload["critical"]["identity"]["docker-reference"], identity);
    assert_eq!(scenario.verify(&image, "", &[])["code"], "unsigned", "a dry run signs nothing");
    scenario.signed(&image, &["--sign-by", &scenario.key, "--sign-identity", identity]);
    assert_eq!(scenario.verify(&image, "", &[])["code"], "wrong-identity");
    let rule = format!(", identity: {{exactReference: '{identity}'}}");
    assert_eq!(scenario.verify(&image, &rule, &[])["verdict"], "verified");
}

#[tokio::test]
async fn signatures_go_into_a_lookaside_folder_or_another_store() {
    let scenario = Scenario::new();
    let pushed = scenario.registry.push("acme/web", "1", "one").await;
    let image = format!("{}/acme/web:1", scenario.registry.host());
    let tree = scenario.folder.path().join("tree").display().to_string();
    // The registry itself has no extension.
    scenario.sign(&image, &["--sign-by", &scenario.key]).fails_with(1, "does not announce a signature extension");
    scenario.signed(&image, &["--sign-by", &scenario.key, "--to", &tree]);
    let place = format!("{tree}/acme/web@sha256={}/signature-1", pushed.digest.hex());
    assert!(fs::metadata(&place).is_ok(), "{place}");
    let registries = format!("default-docker: {{lookaside: 'file://{tree}'}}\n");
    scenario.folder.write("registries.d/default.yaml", registries);
    let registries = scenario.folder.path().join("registries.d").display().to_string();
    scenario.skopeo_takes(&image, &["--registries.d", &registries]).unwrap();
    let report = scenario.signed(&image, &["--sign-by", &scenario.key, "--to", &scenario.store.url()]);
    assert!(report["signatures"][0]["place"].as_str().unwrap().starts_with(&scenario.store.url()), "{report}");
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
async fn keys_that_can_not_sign_are_refused_before_anything_is_written() {
    let scenario = Scenario::new();
    let pushed = scenario.registry.push("acme/web", "1", "one").await;
    let image = scenario.image("acme/web:1");
    scenario.sign(&image, &["--sign-by", expired_key(&scenario.gpg)]).fails_with(1, "expired at 2020-12-31");
    let revoked = revoked_key(&scenario.gpg);
    scenario.sign(&image, &["--sign-by", &revoked]).fails_with(1, &format!("key 0x{revoked} is revoked"));
    scenario.sign(&image, &["--sign-by", "nobody@example.com"]).fails_with(1, "no key of nobody@example.com");
    scenario.sign(&image, &["--sign-by", "DEADBEEF"]).fails_with(2, "short key ID");
    scenario.sign(&image, &["--sign-by", "release"]).fails_with(2, "expected a fingerprint");
    scenario.gpg.generate("Other <release@example.com>");
    scenario.sign(&image, &["--sign-by", "release@example.com"]).fails_with(2, "names several keys");
    // A public key alone: the agent has nothing to sign with.
    let stranger = Gpg::new();
    let theirs = stranger.generate("Stranger <stranger@example.com>");
    scenario.gpg.run(&["--import"], &stranger.export(&theirs));
    scenario.sign(&image, &["--sign-by", &theirs]).fails_with(1, "is not here");
    let missing = sealgate_with_keys(
        Path::new("/nonexistent"),
        &["sign", "--tls-verify=false", &image, "--sign-by", &scenario.key],
    );
    missing.fails_with(2, "there is no GnuPG folder /nonexistent");
    let list = scenario.list("acme/web", &pushed.digest).await;
    assert_eq!(list["signatures"].as_array().unwrap().len(), 0);
}

/// A key with the passphrase `secret`, and an agent that asks for it with this pinentry, whose answer to GETPIN is given.
fn lock(scenario: &Scenario, answer: &str) -> &'static str {
    let script = format!(
        "#!/bin/sh\necho OK\nwhile read -r line; do case $line in GETPIN*) printf '{answer}';; BYE*) echo OK; exit;; *) \
         echo OK;; esac; done\n"
    );
    let pinentry = scenario.folder.write("pinentry", script).display().to_string();
    crate::support::run("chmod", ["755", &pinentry]);
    let configuration = format!("pinentry-program {pinentry}\nallow-loopback-pinentry\nmax-cache-ttl 0\n");
    fs::write(scenario.gpg.home().join("gpg-agent.conf"), configuration).expect("a file can be written");
    let home = scenario.gpg.home().display().to_string();
    let restart = || crate::support::run("gpgconf", ["--homedir", &home, "--kill", "gpg-agent"]);
    restart();
    let passphrase = ["--pinentry-mode", "loopback", "--passphrase", "secret"];
    let make = ["--quick-generate-key", "Locked <locked@example.com>", "ed25519", "sign", "never"];
    scenario.gpg.run(&[&passphrase[..], &make].concat(), b"");
    restart();
    "locked@example.com"
}

#[tokio::test]
async fn a_locked_key_that_nobody_unlocks_does_not_sign() {
    // The pinentry is cancelled, or gets a wrong passphrase as often as it asks.
    let answers = [("ERR 83886179 cancelled\\n", "Operation cancelled"), ("D Secret\\nOK\\n", "Bad passphrase")];
    for (answer, text) in answers {
        let scenario = Scenario::new();
        let pushed = scenario.registry.push("acme/web", "1", "one").await;
        let key = lock(&scenario, answer);
        let output = scenario.sign(&scenario.image("acme/web:1"), &["--sign-by", key]);
        output.fails_with(3, "did not sign: ");
        output.fails_with(3, text);
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
        assert!(output.stderr.contains("nothing is written"), "{}", output.stderr);
        let list = scenario.list("acme/web", &pushed.digest).await;
        assert_eq!(list["signatures"], serde_json::json!([]));
    }
}

#[tokio::test]
async fn without_gnupg_there_is_one_clear_message() {
    let scenario = Scenario::new();
    scenario.registry.push("acme/web", "1", "one").await;
    let output = Answer::of(
        Command::new(SEALGATE)
            .args(["sign", "--tls-verify=false", &scenario.image("acme/web:1"), "--sign-by", &scenario.key])
            .env("GNUPGHOME", scenario.gpg.home())
            .env("PATH", scenario.folder.path()),
    );
    output.fails_with(3, "gpg-agent can't be asked: ");
    assert!(output.stderr.contains("is GnuPG installed"), "{}", output.stderr);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
}

/// Adds a subkey, and gives its fingerprint.
fn add_subkey(scenario: &Scenario, algorithm: &str, usage: &str) -> String {
    let subkeys = || -> Vec<String> {
        let listed = scenario.gpg.run(&["--with-colons", "--list-keys", &scenario.key], b"");
        let listed = String::from_utf8(listed).expect("text");
        let lines = listed.lines().filter(|line| line.starts_with("fpr:"));
        lines.map(|line| line.split(':').nth(9).expect("ten fields").to_owned()).collect()
    };
    let before = subkeys();
    let loopback = ["--pinentry-mode", "loopback", "--passphrase", ""];
    scenario.gpg.run(&[&loopback[..], &["--quick-add-key", &scenario.key, algorithm, usage, "never"]].concat(), b"");
    subkeys().into_iter().find(|subkey| !before.contains(subkey)).expect("there is one more")
}

#[tokio::test]
async fn a_subkey_signs_where_it_is_named_and_none_that_can_not() {
    let scenario = Scenario::new();
    let subkeys = [add_subkey(&scenario, "ed25519", "sign"), add_subkey(&scenario, "ed25519", "sign")];
    let encryption = add_subkey(&scenario, "cv25519", "encr");
    scenario.gpg.export_to(&scenario.key, scenario.folder.path().join("release.asc"));
    for (number, subkey) in subkeys.iter().enumerate() {
        for (form, by) in [subkey.as_str(), &subkey[24..]].into_iter().enumerate() {
            let pushed = scenario.registry.push("acme/web", "1", &format!("{number} {form}")).await;
            let image = scenario.image("acme/web:1");
            let report = scenario.signed(&image, &["--sign-by", by]);
            assert_eq!(report["key"], scenario.key, "a policy names the certificate");
            let list = scenario.list("acme/web", &pushed.digest).await;
            let message = BASE64_STANDARD.decode(list["signatures"][0]["content"].as_str().unwrap()).unwrap();
            let status = scenario.gpg.run(&["--status-fd", "1", "--decrypt"], &message);
            let status = String::from_utf8_lossy(&status).into_owned();
            assert!(status.contains(&format!("[GNUPG:] VALIDSIG {subkey} ")), "{by}: {status}");
            assert_eq!(scenario.verify(&image, "", &[])["verdict"], "verified");
        }
    }
    let image = scenario.image("acme/web:1");
    for by in [encryption.as_str(), &encryption[24..]] {
        let output = scenario.sign(&image, &["--sign-by", by]);
        output.fails_with(1, &format!("key 0x{encryption} is not made for signing"));
    }
}

/// A manifest in a registry that is none.
fn manifest(content: &str) -> (Digest, String) {
    let config = Digest::sha256(content.as_bytes());
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"x","digest":"{config}","size":1}},"layers":[]}}"#
    );
    (Digest::sha256(text.as_bytes()), text)
}

#[test]
fn of_a_tag_that_moves_while_it_is_signed_nothing_is_written() {
    let gpg = Gpg::new();
    let key = gpg.generate("Release <release@example.com>");
    let (one, two) = (manifest("one"), manifest("two"));
    let (first, texts) = (one.0, [one.1, two.1]);
    let asked_for = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked_for);
    let server = Liar::start(move |asked| match asked.path.as_str() {
        "/v2/" => Reply::empty(200),
        "/v2/acme/web/manifests/1" => {
            let text = &texts[count.fetch_add(1, Ordering::SeqCst).min(1)];
            Reply::new(200, &[("content-type", "application/vnd.oci.image.manifest.v1+json")], text)
        }
        path if path.starts_with("/extensions/") && asked.method == "GET" => {
            Reply::new(200, &[], r#"{"signatures":[]}"#)
        }
        _ => Reply::empty(404),
    });
    let folder = Scratch::new();
    let image = format!("{}/acme/web:1", server.host());
    let store = format!("http://{}", server.host());
    let tree = folder.path().join("tree").display().to_string();
    let text = format!("{image} names {} now, not {first}, which was to be signed: nothing is written", two.0);
    for to in [&tree, &store] {
        asked_for.store(0, Ordering::SeqCst);
        let output =
            sealgate_with_keys(gpg.home(), &["sign", "--tls-verify=false", &image, "--sign-by", &key, "--to", to]);
        output.fails_with(1, &text);
    }
    assert!(!Path::new(&tree).exists());
    assert!(server.asked().iter().all(|asked| matches!(asked.method.as_str(), "GET" | "HEAD")));
}

#[tokio::test]
async fn what_is_written_of_several_signatures_is_told_and_the_rest_follows() {
    let scenario = Scenario::new();
    let images = [
        scenario.registry.push("acme/web", "amd64", "one").await,
        scenario.registry.push("acme/web", "arm64", "two").await,
    ];
    let index = scenario.registry.push_index("acme/web", "1", &[(&images[0], "amd64"), (&images[1], "arm64")]).await;
    // A store that has room for one, until it has room for all.
    let stored = Arc::new(Mutex::new(Vec::<(String, String)>::new()));
    let room = Arc::new(AtomicUsize::new(1));
    let (kept, left) = (Arc::clone(&stored), Arc::clone(&room));
    let store = Liar::start(move |asked| {
        let mut kept = kept.lock().unwrap();
        if asked.method == "PUT" {
            if kept.len() >= left.load(Ordering::SeqCst) {
                let full = r#"{"errors":[{"code":"SIZE_INVALID","message":"there is no room"}]}"#;
                return Reply::new(413, &[], full);
            }
            kept.push((asked.path.clone(), asked.body.clone()));
            return Reply::empty(201);
        }
        let entries = kept.iter().filter(|(path, _)| *path == asked.path).map(|(_, body)| body.as_str());
        Reply::new(200, &[], format!(r#"{{"signatures":[{}]}}"#, entries.collect::<Vec<_>>().join(",")))
    });
    let image = format!("{}/acme/web:1", scenario.registry.host());
    let to = format!("http://{}", store.host());
    let by = ["--sign-by", &scenario.key, "--to", &to];
    let output = scenario.sign(&image, &by);
    let [amd64, arm64] = images.map(|image| image.digest);
    output.fails_with(1, "there is no room (SIZE_INVALID)");
    output.fails_with(
        1,
        &format!(
            "(of 3 signatures 1 is there: {}; not there, or not for certain: {amd64} (linux/amd64), {arm64} \
             (linux/arm64); the same command writes the rest)",
            index.digest
        ),
    );
    assert_eq!(stored.lock().unwrap().len(), 1);
    room.store(usize::MAX, Ordering::SeqCst);
    let report = scenario.signed(&image, &by);
    let outcomes: Vec<_> = report["signatures"].as_array().unwrap().iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!(outcomes, ["present", "signed", "signed"]);
    assert_eq!(stored.lock().unwrap().len(), 3);
    let verdict = scenario.verify(&image, "", &["--config", &{
        let host = scenario.registry.host();
        let configuration = format!(
            "apiVersion: sealgate.dev/v1\nkind: Configuration\npolicies: policy.yaml\nregistries:\n- scope: '{host}'\n  insecure: true\n  \
             signatures: [{{extension: {{url: '{to}'}}}}]\n- scope: '{}'\n  insecure: true\n",
            store.host()
        );
        scenario.folder.write("sealgate.yaml", configuration).display().to_string()
    }]);
    assert_eq!(verdict["verdict"], "verified", "{verdict}");
}

#[tokio::test]
async fn a_key_file_signs_without_an_agent() {
    let scenario = Scenario::new();
    scenario.registry.push("acme/web", "1", "one").await;
    let image = scenario.image("acme/web:1");
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
    let key = scenario.folder.write("ci.key", secret).display().to_string();
    let good = scenario.folder.write("passphrase", "secret\n").display().to_string();
    let bad = scenario.folder.write("wrong", "Secret\n").display().to_string();
    scenario.sign(&image, &["--key-file", &key]).fails_with(2, "--passphrase-file");
    scenario.sign(&image, &["--key-file", &key, "--passphrase-file", &bad]).fails_with(1, "is wrong");
    assert_eq!(
        scenario.signed(&image, &["--key-file", &key, "--passphrase-file", &good])["signatures"][0]["outcome"],
        "signed"
    );
    fs::write(scenario.folder.path().join("release.asc"), owner.export("ci@example.com")).unwrap();
    scenario.skopeo_takes(&image, &[]).unwrap();
}

#[tokio::test]
async fn what_is_not_there_can_not_be_signed() {
    let scenario = Scenario::new();
    let image = scenario.image("acme/none:1");
    scenario.sign(&image, &["--sign-by", &scenario.key]).fails_with(1, "acme/none");
    let gone = "127.0.0.1:1/acme/web:1";
    scenario.sign(gone, &["--sign-by", &scenario.key]).fails_with(3, "127.0.0.1:1");
}

#[tokio::test]
async fn a_mirror_does_not_say_what_is_signed() {
    let scenario = Scenario::new();
    scenario.registry.push("acme/web", "1", "one").await;
    let tree = scenario.folder.path().join("tree").display().to_string();
    let configuration = format!(
        "apiVersion: sealgate.dev/v1\nkind: Configuration\nregistries:\n- scope: 127.0.0.1:1\n  insecure: true\n  \
         signatures: [{{lookaside: {{url: 'file://{tree}'}}}}]\n  mirrors: ['{host}']\n- scope: '{host}'\n  \
         insecure: true\n",
        host = scenario.registry.host()
    );
    let configuration = scenario.folder.write("sealgate.yaml", configuration).display().to_string();
    let image = "127.0.0.1:1/acme/web:1";
    let config = ["--config", configuration.as_str()];
    assert_eq!(scenario.verify(image, "", &config)["code"], "unsigned", "the mirror answers");
    let sign = [&config[..], &["--sign-by", &scenario.key]].concat();
    scenario.sign(image, &sign).fails_with(3, "127.0.0.1:1");
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
    let scenario = Scenario::new();
    scenario.registry.push("acme/web", "1", "one").await;
    let home = scenario.gpg.home().display().to_string();
    crate::support::run("gpgconf", ["--homedir", &home, "--kill", "gpg-agent"]);
    let listed = Command::new("gpgconf").args(["--homedir", &home, "--list-dirs", "agent-socket"]).output().unwrap();
    let socket = String::from_utf8(listed.stdout).unwrap().trim().to_owned();
    let _ = fs::remove_file(&socket);
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let output = scenario.sign(&scenario.image("acme/web:1"), &["--sign-by", &scenario.key]);
    output.fails_with(3, "gpg-agent can't be asked: it has not answered within 15 s");
}

#[tokio::test]
async fn a_digest_is_signed_under_a_tag_that_names_another_only_where_that_is_said() {
    let scenario = Scenario::new();
    let old = scenario.registry.push("acme/web", "1", "one").await.digest;
    let new = scenario.registry.push("acme/web", "1", "two").await.digest;
    let image = scenario.image("acme/web:1");
    let by = ["--sign-by", scenario.key.as_str()];
    scenario.signed(&format!("{image}@{new}"), &by);
    let moved = format!("{image}@{old}");
    let advice = format!("or sign {}@{old} (with --sign-identity {image} only if", scenario.image("acme/web"));
    for more in [&by[..], &[&by[..], &["--dry-run"]].concat()] {
        scenario.sign(&moved, more).fails_with(1, &advice);
    }
    let report = scenario.signed(&moved, &[&by[..], &["--sign-identity", &image]].concat());
    assert_eq!(report["signatures"][0]["outcome"], "signed");
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
