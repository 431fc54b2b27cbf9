//! Auditing as its users see it: `sealgate verify --expected-identity`, and `sealgate signatures`.

use std::path::{Path, PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Client;
use sealgate::{
    configuration::{Access, Limits, Users},
    image::Digest,
};
use serde_json::{Value, json};

use crate::support::{
    Answer, DockerRegistry, Gpg, Liar, Pushed, Reply, Scratch, Store, payload, run, sealgate_with_keys,
};

const ROLES: &str = "apiVersion: sealgate.dev/v1\nkind: StoreRoles\nroles:\n\
    - {role: 'system:image-signer', users: [robot]}\n\
    - {role: image-auditor, users: [jane]}\n";
const SIGNER: &str = "Release <release@example.com>";

/// An image in a registry behind a store with roles, a signer, and an auditor who has the signer's public key.
pub(super) struct Scenario {
    registry: DockerRegistry,
    pub(super) store: Store,
    pub(super) pushed: Pushed,
    pub(super) signer: Gpg,
    pub(super) key: String,
    pub(super) auditor: Gpg,
    folder: Scratch,
}

impl Scenario {
    pub(super) async fn new() -> Self {
        let registry = DockerRegistry::start();
        let pushed = registry.push("acme/web", "1", "one").await;
        let folder = Scratch::new();
        let file = folder.path().join("htpasswd");
        for (number, user) in ["robot", "jane"].into_iter().enumerate() {
            let path = file.display().to_string();
            let options = if number == 0 { "-bBc" } else { "-bB" };
            run("htpasswd", [options, "-C", "4", &path, user, user]);
        }
        let roles = folder.write("roles.yaml", ROLES);
        let access = Access { users: Users::Htpasswd { file, roles }, token_key: None };
        let store = Store::start_set(&registry.url(), &Limits::default(), |settings| settings.access = Some(access));
        let (signer, auditor) = (Gpg::new(), Gpg::new());
        let key = signer.generate(SIGNER);
        auditor.run(&["--import"], &signer.export(&key));
        Self { registry, store, pushed, signer, key, auditor, folder }
    }

    pub(super) fn image(&self) -> String {
        format!("{}/acme/web:1", self.store.host())
    }

    /// Puts a signature for this name into the store; gives the 32 characters of its name.
    pub(super) async fn sign(&self, number: usize, key: &str, digest: &Digest, reference: &str) -> String {
        let content = self.signer.sign_image(key, digest, reference);
        self.put(number, digest, &content).await
    }

    async fn put(&self, number: usize, digest: &Digest, content: &[u8]) -> String {
        let name = format!("{number:032}");
        let content = BASE64_STANDARD.encode(content);
        let entry =
            json!({"schemaVersion": 2, "type": "atomic", "name": format!("{digest}@{name}"), "content": content});
        let put = Client::new().put(self.store.signatures_url("acme/web", digest)).body(entry.to_string());
        let answer = put.basic_auth("robot", Some("robot")).send().await.expect("it answers");
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap_or_default());
        name
    }

    /// What anyone reads of the image's signatures in the store.
    async fn raw(&self) -> Value {
        let answer = reqwest::get(self.store.signatures_url("acme/web", self.pushed.digest)).await.expect("it answers");
        serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
    }

    /// `sealgate verify` of the image by the auditor, as JSON.
    fn audit(&self, identity: &str, more: &[&str]) -> Answer {
        let image = self.image();
        let verify = ["verify", "--insecure", "-o", "json", &image, "--expected-identity", identity];
        sealgate_with_keys(self.auditor.home(), &[&verify, more].concat())
    }

    pub(super) fn list(&self) -> Vec<Value> {
        let image = self.image();
        let list = sealgate_with_keys(
            self.auditor.home(),
            &["signatures", "list", "--tls-verify=false", "-o", "json", &image],
        );
        list.json(0)["signatures"].as_array().expect("a list").clone()
    }

    fn remove(&self, name: &str, more: &[&str]) -> Answer {
        let image = self.image();
        let remove = ["signatures", "remove", "--tls-verify=false", "-o", "json", &image, name];
        sealgate_with_keys(self.auditor.home(), &[&remove, more].concat())
    }
}

pub(super) const AS_JANE: [&str; 2] = ["--creds", "jane:jane"];
pub(super) const AS_ROBOT: [&str; 2] = ["--creds", "robot:robot"];

#[tokio::test]
async fn an_outcome_is_saved_shown_unset_and_cleared_and_the_signature_stays() {
    let scenario = Scenario::new().await;
    let image = scenario.image();
    let name = scenario.sign(1, &scenario.key, &scenario.pushed.digest, &image).await;
    let stored = scenario.raw().await;
    let before = scenario.list();
    let [entry] = before.as_slice() else { panic!("{before:?}") };
    assert_eq!(entry["name"], format!("{}@{name}", scenario.pushed.digest));
    assert_eq!((&entry["addedBy"], &entry["issuers"]), (&json!("robot"), &json!([scenario.key])));
    assert!(entry["addedAt"].is_string() && entry.get("status").is_none(), "{entry}");

    // A check that does not save changes nothing.
    let report = scenario.audit(&image, &[]).json(0);
    assert_eq!((&report["verdict"], &report["allowed"]), (&json!("verified"), &json!(true)));
    let signature = &report["signatures"][0];
    assert_eq!((&signature["counts"], &signature["proven"]), (&json!(true), &json!(true)));
    assert_eq!(signature["signer"], SIGNER);
    assert_eq!((&signature["key"], &signature["certificate"]), (&json!(scenario.key), &json!(scenario.key)));
    assert_eq!((&signature["identity"], &signature["digest"]), (&json!(image), &report["digest"]));
    assert!(signature["signedAt"].is_string() && signature.get("saved").is_none());
    assert_eq!(scenario.list(), before);

    let report = scenario.audit(&image, &[&["--save"], &AS_JANE[..]].concat()).json(0);
    assert_eq!(report["signatures"][0]["saved"], "set");
    let saved = scenario.list();
    let status = &saved[0]["status"];
    assert_eq!((&status["verifiedBy"], &status["key"]), (&json!("jane"), &json!(scenario.key)));
    assert_eq!((&status["signer"], &status["identity"]), (&json!(SIGNER), &json!(image)));
    assert_eq!(status["digest"], scenario.pushed.digest.to_string());
    assert!(status["verifiedAt"].is_string());
    let text = sealgate_with_keys(scenario.auditor.home(), &["signatures", "list", "--tls-verify=false", &image]);
    let row = text.stdout.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{}", text.stdout));
    for shown in [&format!("0x{}", scenario.key), "by robot", "by jane", SIGNER, &image] {
        assert!(row.contains(shown), "{shown}: {row}");
    }

    // Another identity is expected: the check fails, and says so in the store.
    let report = scenario.audit("registry.example.com/acme/web:1", &[&["--save"], &AS_JANE[..]].concat()).json(1);
    assert_eq!((&report["code"], &report["signatures"][0]["saved"]), (&json!("wrong-identity"), &json!("unset")));
    assert_eq!(scenario.list(), before, "the status is gone, and all else is as it was");
    assert_eq!(scenario.raw().await, stored);

    scenario.audit(&image, &[&["--save"], &AS_JANE[..]].concat()).json(0);
    let by_its_name = ["signatures", "status", "clear", "--tls-verify=false", "-o", "json", &image];
    let by_its_alias = ["verify", "--insecure", "-o", "json", &image, "--remove-all"];
    for clear in [&by_its_name[..], &by_its_alias] {
        scenario.audit(&image, &[&["--save"], &AS_JANE[..]].concat()).json(0);
        assert_ne!(scenario.list(), before);
        let report = sealgate_with_keys(scenario.auditor.home(), &[clear, &AS_JANE].concat()).json(0);
        assert_eq!(report["places"].as_array().map(Vec::len), Some(1), "{report}");
        assert_eq!(scenario.list(), before);
    }
    assert_eq!(scenario.raw().await, stored);
}

#[tokio::test]
async fn every_signature_is_printed_with_who_when_for_what_and_why_it_does_not_count() {
    let scenario = Scenario::new().await;
    let (image, digest) = (scenario.image(), scenario.pushed.digest);
    let stranger = scenario.signer.generate("Stranger <stranger@example.com>");
    scenario.sign(1, &scenario.key, &digest, &image).await;
    scenario.sign(2, &scenario.key, &digest, "registry.example.com/acme/db:1").await;
    scenario.sign(3, &stranger, &digest, &image).await;
    let again = scenario.signer.sign(&scenario.key, payload(&digest, &image).replace("tests", "x").as_bytes());
    scenario.put(4, &digest, &again).await;
    let report = scenario.audit(&image, &[&["--save"], &AS_JANE[..]].concat()).json(0);
    let of = |member: &str| -> Vec<Value> {
        report["signatures"].as_array().unwrap().iter().map(|signature| signature[member].clone()).collect()
    };
    assert_eq!(of("code"), [Value::Null, json!("wrong-identity"), json!("untrusted-key"), Value::Null]);
    assert_eq!(of("saved"), ["set", "unset", "unset", "set"]);
    assert_eq!(of("proven"), [true, true, false, true]);
    assert_eq!(of("signer"), [json!(SIGNER), json!(SIGNER), Value::Null, json!(SIGNER)]);
    assert_eq!(of("key")[2], stranger, "claimed");
    assert_eq!(of("identity"), [image.as_str(), "registry.example.com/acme/db:1", &image, &image]);
    assert!(of("signedAt").iter().all(Value::is_string));
    assert_eq!(scenario.list().iter().filter(|entry| entry["status"].is_object()).count(), 2);

    let text =
        sealgate_with_keys(scenario.auditor.home(), &["verify", "--insecure", &image, "--expected-identity", &image]);
    assert_eq!(text.status, 0, "{}", text.stderr);
    assert_eq!(text.stdout.matches("\n  signature  ").count(), 4, "{}", text.stdout);
    assert_eq!(text.stdout.matches("  counts\n").count(), 2, "{}", text.stdout);
    for said in [
        "does not count [wrong-identity]: it is for registry.example.com/acme/db:1 instead of ",
        "does not count [untrusted-key]: its key is not in the keyring in ",
        &format!("claims: key 0x{stranger}"),
        &format!("by {SIGNER}\n"),
    ] {
        assert!(text.stdout.contains(said), "{said}: {}", text.stdout);
    }
}

#[tokio::test]
async fn keys_are_those_of_the_files_or_of_the_keyring_and_never_none() {
    let scenario = Scenario::new().await;
    let image = scenario.image();
    scenario.sign(1, &scenario.key, &scenario.pushed.digest, &image).await;
    let export =
        |name: &str, key: &str| scenario.signer.export_to(key, scenario.folder.path().join(name)).display().to_string();
    let good = export("release.asc", &scenario.key);
    let other = export("other.asc", &scenario.signer.generate("Other <other@example.com>"));
    scenario.audit(&image, &["--public-key", &good]).json(0);
    scenario.audit(&image, &["--public-key", &other, "--public-key", &good]).json(0);
    let report = scenario.audit(&image, &["--public-key", &other]).json(1);
    assert_eq!(
        (&report["code"], report["message"].as_str().unwrap().contains(&other)),
        (&json!("untrusted-key"), true)
    );
    scenario.audit(&image, &["--public-key", "/not/there.asc"]).fails(2, "--public-key /not/there.asc: ");
    let junk = scenario.folder.write("junk.asc", "junk").display().to_string();
    scenario.audit(&image, &["--public-key", &junk]).fails(2, "this is not an OpenPGP certificate");
    let verify = ["verify", "--insecure", &image, "--expected-identity", &image];
    sealgate_with_keys(Gpg::new().home(), &verify)
        .fails(2, "has no key: name the signers' public keys with --public-key");
    sealgate_with_keys(Path::new("/not/there"), &verify).fails(2, "there is no GnuPG folder /not/there");
    // A revoked key's signatures are none, and it says which key.
    let revocation = scenario.signer.home().join(format!("openpgp-revocs.d/{}.rev", scenario.key));
    let revocation = std::fs::read_to_string(revocation).unwrap().replace(":-----BEGIN", "-----BEGIN");
    // gpg complains of a trust database that it has not made yet, and has imported it all the same.
    scenario.auditor.try_run(&["--import"], revocation.as_bytes());
    assert_eq!(scenario.audit(&image, &[]).json(1)["code"], "revoked-key");
}

#[tokio::test]
async fn the_old_keyring_of_gnupg_is_read_too() {
    let scenario = Scenario::new().await;
    let image = scenario.image();
    scenario.sign(1, &scenario.key, &scenario.pushed.digest, &image).await;
    let old = Scratch::new();
    old.write("pubring.gpg", scenario.signer.run(&["--export", &scenario.key], b""));
    let verify = ["verify", "--insecure", "-o", "json", &image, "--expected-identity", &image];
    assert_eq!(sealgate_with_keys(old.path(), &verify).json(0)["signatures"][0]["signer"], SIGNER);
}

#[tokio::test]
async fn the_registry_is_asked_where_it_really_is() {
    let scenario = Scenario::new().await;
    let name = "registry.example.com/acme/web:1";
    scenario.sign(1, &scenario.key, &scenario.pushed.digest, name).await;
    let verify = |url: &str, more: &[&str]| {
        let verify = ["verify", "-o", "json", name, "--expected-identity", name, "--registry-url", url];
        sealgate_with_keys(scenario.auditor.home(), &[&verify, more].concat())
    };
    let url = scenario.store.url();
    let report = verify(&url, &["--insecure"]).json(0);
    assert_eq!((&report["image"], &report["verdict"]), (&json!(name), &json!("verified")));
    verify(scenario.store.host(), &["--insecure", "--save", "--creds", "jane:jane"]).json(0);
    assert_eq!(scenario.list()[0]["status"]["identity"], name);
    verify(&url, &[]).fails(2, "plain HTTP needs --insecure");
    // Who writes https sends no password without TLS, whatever certificate would do.
    let https = url.replace("http://", "https://");
    let refused = verify(&https, &["--insecure", "--save", "--creds", "jane:jane"]);
    assert_eq!(refused.status, 3, "{}{}", refused.stdout, refused.stderr);
    assert!(refused.stderr.contains("does not speak TLS"), "{}", refused.stderr);
    verify(&format!("{url}/v2"), &["--insecure"]).fails(2, "expected https://HOST[:PORT]");
}

#[tokio::test]
async fn who_is_no_auditor_saves_nothing_and_is_told_what_was_found_all_the_same() {
    let scenario = Scenario::new().await;
    let image = scenario.image();
    scenario.sign(1, &scenario.key, &scenario.pushed.digest, &image).await;
    let before = scenario.list();
    for (credentials, said) in [
        (&AS_ROBOT[..], "robot may not"),
        (&[], "credentials are needed (--creds, --authfile;"),
        (&["--creds", "jane:wrong"], "do not suffice"),
    ] {
        let answer = scenario.audit(&image, &[&["--save"], credentials].concat());
        assert!(answer.stderr.contains(said), "{said}: {}{}", answer.stdout, answer.stderr);
        assert_ne!(answer.status, 0);
    }
    let answer = scenario.audit(&image, &[&["--save"], &AS_ROBOT[..]].concat());
    assert_eq!(answer.json(1)["verdict"], "verified");
    assert!(answer.stderr.contains("--save: ") && answer.stderr.contains("the outcome of 0 of 1"), "{}", answer.stderr);
    for clear in
        [&["verify", "--insecure", "--remove-all"][..], &["signatures", "status", "clear", "--tls-verify=false"]]
    {
        sealgate_with_keys(scenario.auditor.home(), &[clear, &[&image], &AS_ROBOT].concat()).fails(1, "robot may not");
    }
    assert_eq!(scenario.list(), before);
}

#[tokio::test]
async fn of_an_index_each_manifest_is_audited() {
    let scenario = Scenario::new().await;
    let images = [
        scenario.registry.push("acme/web", "amd64", "amd64").await,
        scenario.registry.push("acme/web", "arm64", "arm64").await,
    ];
    let index = scenario.registry.push_index("acme/web", "2", &[(&images[0], "amd64"), (&images[1], "arm64")]).await;
    let image = format!("{}/acme/web:2", scenario.store.host());
    let audit = |more: &[&str]| {
        let verify = ["verify", "--insecure", "-o", "json", &image, "--expected-identity", &image];
        sealgate_with_keys(scenario.auditor.home(), &[&verify, more].concat())
    };
    scenario.sign(1, &scenario.key, &images[0].digest, &image).await;
    assert_eq!(audit(&[]).json(1)["code"], "unsigned", "one of two");
    let second = scenario.sign(2, &scenario.key, &images[1].digest, &image).await;
    let report = audit(&[&["--save"], &AS_JANE[..]].concat()).json(0);
    assert_eq!(report["digest"], index.digest.to_string());
    let signatures = report["signatures"].as_array().unwrap();
    assert_eq!(signatures.iter().map(|one| &one["platform"]).collect::<Vec<_>>(), ["linux/amd64", "linux/arm64"]);
    let list = ["signatures", "list", "--tls-verify=false", "-o", "json", &image];
    let list = sealgate_with_keys(scenario.auditor.home(), &list).json(0);
    let statuses = list["signatures"].as_array().unwrap().iter().filter(|one| one["status"].is_object()).count();
    assert_eq!(statuses, 2, "{list:#}");
    let text =
        sealgate_with_keys(scenario.auditor.home(), &["signatures", "list", "--tls-verify=false", &image]).stdout;
    assert!(text.contains(&format!("manifest   {} (linux/arm64)\n", images[1].digest)), "{text}");
    // What is signed beside its index is named with its digest.
    let remove = |name: &str| {
        let remove = ["signatures", "remove", "--tls-verify=false", &image, name];
        sealgate_with_keys(scenario.auditor.home(), &[&remove[..], &AS_ROBOT].concat())
    };
    remove(&second).fails(1, &format!("there is no signature {}@{second}", index.digest));
    assert_eq!(remove(&format!("{}@{second}", images[1].digest)).status, 0);
    assert_eq!(audit(&[]).json(1)["code"], "unsigned");
    // The index's own signature is as good.
    scenario.sign(3, &scenario.key, &index.digest, &image).await;
    assert_eq!(audit(&[]).json(0)["signatures"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_signer_removes_a_signature_by_its_name_with_the_digest_or_without() {
    let scenario = Scenario::new().await;
    let digest = scenario.pushed.digest;
    let names = [
        scenario.sign(1, &scenario.key, &digest, "registry.example.com/acme/web:1").await,
        scenario.sign(2, &scenario.key, &digest, "registry.example.com/acme/web:2").await,
    ];
    scenario.remove(&names[0], &AS_JANE).fails(1, "jane may not");
    scenario.remove(&names[0], &[]).fails(1, "credentials are needed");
    assert_eq!(scenario.list().len(), 2);
    let removed = scenario.remove(&names[0], &AS_ROBOT).json(0);
    assert_eq!(removed["name"], format!("{digest}@{}", names[0]));
    scenario.remove(&names[0], &AS_ROBOT).fails(1, "there is no signature");
    scenario.remove(&format!("{digest}@{}", names[1]), &AS_ROBOT).json(0);
    assert!(scenario.list().is_empty());
    scenario.remove("short", &AS_ROBOT).fails(2, "32 characters");
    // The tag names no image; the digest in the name needs none.
    let gone = format!("{}/acme/web:gone", scenario.store.host());
    let remove = ["signatures", "remove", "--tls-verify=false", &gone, &names[0], "--creds", "robot:robot"];
    sealgate_with_keys(scenario.auditor.home(), &remove).fails(1, "has no such image");
}

#[tokio::test]
async fn a_lookaside_is_listed_without_status_and_keeps_none() {
    let registry = DockerRegistry::start();
    let pushed = registry.push("acme/web", "1", "one").await;
    let gpg = Gpg::new();
    let key = gpg.generate(SIGNER);
    let folder = Scratch::new();
    let image = format!("{}/acme/web:1", registry.host());
    folder.write(
        &format!("tree/acme/web@sha256={}/signature-1", pushed.digest.hex()),
        gpg.sign_image(&key, &pushed.digest, &image),
    );
    let config = |sources: &str| -> PathBuf {
        let text = format!(
            "apiVersion: sealgate.dev/v1\nkind: Configuration\nregistries:\n- {{scope: '{}', insecure: true, signatures: \
             [{sources}]}}\n",
            registry.host()
        );
        folder.write("sealgate.yaml", text)
    };
    let lookaside = format!("lookaside: {{url: 'file://{}'}}", folder.path().join("tree").display());
    let config_file = config(&format!("{{{lookaside}}}")).display().to_string();
    let with = ["--config", &config_file, &image];
    let list = sealgate_with_keys(gpg.home(), &[&["signatures", "list", "-o", "json"], &with[..]].concat()).json(0);
    let entry = &list["signatures"][0];
    assert_eq!((&entry["name"], &entry["issuers"]), (&json!("signature-1"), &json!([key])));
    assert!(entry["bytes"].as_u64().is_some_and(|bytes| bytes > 0) && entry.get("status").is_none(), "{entry}");
    assert_eq!(list["sources"][0]["keepsStatus"], false);
    let text = sealgate_with_keys(gpg.home(), &[&["signatures", "list"], &with[..]].concat()).stdout;
    assert!(text.contains("not known") && text.contains("who verified them is not kept there"), "{text}");
    let verify = [&["verify", "--expected-identity", &image], &with[..]].concat();
    assert_eq!(sealgate_with_keys(gpg.home(), &verify).status, 0);
    sealgate_with_keys(gpg.home(), &[&verify[..], &["--save"]].concat())
        .fails(2, "lookasides alone, which keep no status");
    for clear in [&["verify", "--remove-all"][..], &["signatures", "status", "clear"]] {
        sealgate_with_keys(gpg.home(), &[clear, &with].concat()).fails(1, "in no store");
    }
    let name = "0".repeat(32);
    let remove = [&["signatures", "remove"], &with[..], &[name.as_str()]].concat();
    sealgate_with_keys(gpg.home(), &remove).fails(1, "in no store");
    // A source that can't be asked is told of beside what another has.
    let gone = format!("{{extension: {{url: 'http://127.0.0.1:1'}}}}, {{{lookaside}}}");
    config(&gone);
    let list = sealgate_with_keys(gpg.home(), &[&["signatures", "list", "-o", "json"], &with[..]].concat()).json(3);
    assert_eq!(list["signatures"].as_array().unwrap().len(), 1);
    assert_eq!(list["sources"][0]["code"], "registry-unavailable");
}

/// Another vendor's extension, with what it answers below `/sealgate/v1/`.
fn other_extension(gpg: &Gpg, key: &str, own: Reply) -> (Liar, Digest) {
    let manifest = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]}"#;
    let digest = Digest::sha256(manifest.as_bytes());
    let message = BASE64_STANDARD.encode(gpg.sign_image(key, &digest, "registry.example.com/acme/web:1"));
    let name = format!("{digest}@{:032}", 1);
    let list = json!({"signatures": [{"schemaVersion": 2, "type": "atomic", "name": name, "content": message}]});
    let liar = Liar::start(move |asked| {
        let json = ("content-type", "application/json");
        match asked.path.as_str() {
            "/v2/" => Reply::new(200, &[("x-registry-supports-signatures", "1")], ""),
            path if path.contains("/manifests/") => {
                Reply::new(200, &[("content-type", "application/vnd.oci.image.manifest.v1+json")], manifest)
            }
            path if path.starts_with("/extensions/v2/") => Reply::new(200, &[json], list.to_string()),
            path if path.starts_with("/sealgate/v1/") => own.clone(),
            _ => Reply::empty(404),
        }
    });
    (liar, digest)
}

#[test]
fn where_there_is_no_store_of_ours_signatures_are_listed_and_nothing_is_saved() {
    let gpg = Gpg::new();
    let key = gpg.generate(SIGNER);
    let identity = "registry.example.com/acme/web:1";
    for own in [
        Reply::new(404, &[("content-type", "text/plain")], "404 page not found"),
        Reply::new(200, &[("content-type", "text/html")], "<html>"),
        Reply::empty(403),
        Reply::empty(405),
    ] {
        let (liar, digest) = other_extension(&gpg, &key, own.clone());
        let image = format!("{}/acme/web:1", liar.host());
        let list = ["signatures", "list", "--tls-verify=false", "-o", "json", &image];
        let list = sealgate_with_keys(gpg.home(), &list).json(0);
        assert_eq!(list["signatures"][0]["name"], format!("{digest}@{:032}", 1), "{own:?}");
        assert_eq!(list["sources"][0]["keepsStatus"], false);
    }
    let (liar, _) = other_extension(&gpg, &key, Reply::empty(404));
    let image = format!("{}/acme/web:1", liar.host());
    let verify = ["verify", "--insecure", "-o", "json", &image, "--expected-identity", identity, "--save"];
    let answer = sealgate_with_keys(gpg.home(), &verify);
    assert_eq!(answer.json(1)["verdict"], "verified");
    assert!(answer.stderr.contains("there is no store of `sealgate gateway` at this address"), "{}", answer.stderr);
    let remove = ["signatures", "remove", "--tls-verify=false", &image, &"0".repeat(32)];
    sealgate_with_keys(gpg.home(), &remove).fails(1, "there is no store of `sealgate gateway` at this address");
    // What no store answers is no list.
    let lie = Reply::new(200, &[("content-type", "application/json")], r#"{"signatures": [{"name": 7}]}"#);
    let (liar, _) = other_extension(&gpg, &key, lie);
    let image = format!("{}/acme/web:1", liar.host());
    let list = ["signatures", "list", "--tls-verify=false", "-o", "json", &image];
    assert_eq!(sealgate_with_keys(gpg.home(), &list).json(3)["sources"][0]["code"], "registry-misbehaved");
}

#[test]
fn a_store_that_breaks_in_the_middle_leaves_what_is_said_undecided() {
    let gpg = Gpg::new();
    let key = gpg.generate(SIGNER);
    let (liar, _) = other_extension(&gpg, &key, Reply::new(500, &[], ""));
    let image = format!("{}/acme/web:1", liar.host());
    let identity = "registry.example.com/acme/web:1";
    let verify = ["verify", "--insecure", "-o", "json", &image, "--expected-identity", identity, "--save"];
    let answer = sealgate_with_keys(gpg.home(), &verify);
    assert_eq!(answer.json(3)["verdict"], "verified");
    assert!(answer.stderr.contains("the outcome of 0 of 1 signatures is saved"), "{}", answer.stderr);
    assert!(liar.paths().iter().any(|path| path.starts_with("/sealgate/v1/")));
}

#[tokio::test]
async fn what_there_is_to_ask_about_is_asked_for_clearly() {
    let scenario = Scenario::new().await;
    let image = scenario.image();
    let neither = sealgate_with_keys(scenario.auditor.home(), &["verify", &image]);
    neither.fails(2, "--policy FILE (or a --config with policies), or --expected-identity REFERENCE");
    let neither = sealgate_with_keys(scenario.auditor.home(), &["verify", &image, "--insecure"]);
    neither.fails(2, "--insecure goes with --expected-identity or --remove-all");
    let config = scenario.folder.write("c.yaml", "apiVersion: sealgate.dev/v1\nkind: Configuration\n");
    let config = config.display().to_string();
    sealgate_with_keys(scenario.auditor.home(), &["verify", &image, "--insecure", "--config", &config])
        .fails(2, "--insecure goes with --expected-identity or --remove-all");
    scenario.audit("registry.example.com/UPPER", &[]).fails(2, "--expected-identity: ");
    assert_eq!(scenario.audit(&image, &[]).json(1)["code"], "unsigned");
    let none = format!("{}/acme/none:1", scenario.store.host());
    sealgate_with_keys(scenario.auditor.home(), &["verify", "--insecure", &none, "--expected-identity", &image])
        .fails(1, "has no such image");
    sealgate_with_keys(
        scenario.auditor.home(),
        &["signatures", "list", "--tls-verify=false", "127.0.0.1:1/acme/web:1"],
    )
    .fails(3, "127.0.0.1:1");
    let usage = ["verify", &image, "--expected-identity", &image, "--policy", "p"];
    sealgate_with_keys(scenario.auditor.home(), &usage).fails(2, "cannot be used with");
}

#[tokio::test]
async fn of_a_signature_that_was_replaced_while_it_was_looked_at_nothing_is_said() {
    let gpg = Gpg::new();
    let key = gpg.generate(SIGNER);
    let error = json!({"errors": [{"code": "SIGNATURE_CHANGED", "message": "another one"}]}).to_string();
    let (liar, digest) = other_extension(&gpg, &key, Reply::new(412, &[], error));
    let list = reqwest::get(format!("http://{}/extensions/v2/acme/web/signatures/{digest}", liar.host())).await;
    let list: Value = serde_json::from_slice(&list.unwrap().bytes().await.unwrap()).unwrap();
    let content = BASE64_STANDARD.decode(list["signatures"][0]["content"].as_str().unwrap()).unwrap();
    let image = format!("{}/acme/web:1", liar.host());
    for (identity, method) in
        [("registry.example.com/acme/web:1", "PUT"), ("registry.example.com/acme/web:2", "DELETE")]
    {
        let verify = ["verify", "--insecure", "-o", "json", &image, "--expected-identity", identity, "--save"];
        let answer = sealgate_with_keys(gpg.home(), &verify);
        assert_eq!(answer.json(3)["signatures"][0]["saved"], "changed");
        assert!(answer.stderr.contains("1 of the signatures were replaced"), "{}", answer.stderr);
        let asked = liar.asked().into_iter().rfind(|asked| asked.path.ends_with("/status")).unwrap();
        assert_eq!(asked.method, method);
        assert_eq!(asked.header("if-match"), Some(format!("\"{}\"", Digest::sha256(&content)).as_str()));
    }
}

#[tokio::test]
async fn credentials_of_another_store_come_from_its_registries_entry_or_are_asked_for() {
    let scenario = Scenario::new().await;
    let image = format!("{}/acme/web:1", scenario.registry.host());
    let store = scenario.store.url();
    let config = |credentials: &str| {
        let entry = format!("registries:\n- {{scope: '{}', insecure: true{credentials}}}\n", scenario.store.host());
        let text = format!("apiVersion: sealgate.dev/v1\nkind: Configuration\n{entry}");
        scenario.folder.write("sealgate.yaml", text).display().to_string()
    };
    let sign = |config: &str| {
        let to = ["--sign-by", &scenario.key, "--to", &store, "--config", config];
        let sign = ["sign", "--tls-verify=false", &image, "--creds", "robot:robot"];
        sealgate_with_keys(scenario.signer.home(), &[&sign[..], &to].concat())
    };
    // They are the registry's, and don't go to another host.
    let answer = sign(&config(""));
    answer
        .fails(1, "credentials are needed (--creds, --authfile; for another host than the image's, in its registries");
    assert!(answer.stderr.contains("--config"), "{}", answer.stderr);
    scenario.folder.write("robot", "robot");
    let answer = sign(&config(", credentials: {username: robot, passwordFile: robot}"));
    assert_eq!(answer.status, 0, "{}", answer.stderr);
    assert_eq!(scenario.raw().await["signatures"].as_array().unwrap().len(), 1);
}
