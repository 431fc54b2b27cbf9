//! Key files as GnuPG writes them: with revocation certificates, and with keys that can't be checked here.

use std::{fs, path::PathBuf, process::Command};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;

use crate::support::{Answer, DockerRegistry, Gpg, Pushed, SEALGATE, Scratch};

struct Scenario {
    registry: DockerRegistry,
    pushed: Pushed,
    gpg: Gpg,
    folder: Scratch,
}

impl Scenario {
    async fn new() -> Self {
        let registry = DockerRegistry::start();
        let pushed = registry.push("acme/web", "1", "one").await;
        Self { registry, pushed, gpg: Gpg::new(), folder: Scratch::new() }
    }

    fn image(&self) -> String {
        format!("{}/acme/web:1", self.registry.host())
    }

    /// Has the image be signed by this key, and no other.
    fn sign(&self, key: &str) {
        let signature = self.gpg.sign_image(key, &self.pushed.digest, &self.image());
        self.folder.write(&format!("tree/acme/web@sha256={}/signature-1", self.pushed.digest.hex()), signature);
        let tree = self.folder.path().join("tree").display().to_string();
        self.folder.write("registries.d/default.yaml", format!("default-docker: {{lookaside: 'file://{tree}'}}\n"));
    }

    /// What `gpg --gen-revoke` prints.
    fn revocation(&self, key: &str) -> Vec<u8> {
        let arguments =
            ["--no-batch", "--command-fd", "0", "--pinentry-mode", "loopback", "--passphrase", "", "--gen-revoke", key];
        self.gpg.run(&arguments, b"y\n0\n\ny\n")
    }

    fn verify(&self, arguments: &[&str]) -> Answer {
        let registries = self.folder.path().join("registries.d").display().to_string();
        let image = self.image();
        Answer::of(
            Command::new(SEALGATE)
                .args(["verify", "--tls-verify=false", "--registries-d", &registries, &image])
                .args(arguments),
        )
    }

    /// Verifies with these key files by every way that takes some: a policy, a policy.json, and an identity. What takes one file
    /// gets all of them in one.
    fn by_every_way(&self, files: &[Vec<u8>]) -> Vec<Answer> {
        let whole = files.concat();
        let write = |name: &str, text: String| self.folder.write(name, text).display().to_string();
        self.folder.write("whole.asc", &whole);
        let rule = "rules:\n  - {name: all, images: ['*'], require: [{signedBy: [release]}]}\n";
        let head = "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {name: production}\nspec:\n  ";
        let mut answers = vec![self.verify(&[
            "--policy",
            &write("policy.yaml", format!("{head}keys: {{release: {{file: whole.asc}}}}\n  {rule}")),
        ])];
        let inline = json!(String::from_utf8_lossy(&whole));
        if whole.is_ascii() {
            let policy = write("inline.yaml", format!("{head}keys: {{release: {{inline: {inline}}}}}\n  {rule}"));
            answers.push(self.verify(&["--policy", &policy]));
        }
        let paths: Vec<PathBuf> =
            files.iter().enumerate().map(|(number, file)| self.folder.write(&format!("key-{number}"), file)).collect();
        for keys in [json!({"keyPaths": paths}), json!({"keyData": BASE64_STANDARD.encode(&whole)})] {
            let mut requirement = json!({"type": "signedBy", "keyType": "GPGKeys"});
            requirement.as_object_mut().expect("an object").extend(keys.as_object().expect("an object").clone());
            let policy = write("policy.json", json!({"default": [requirement]}).to_string());
            answers.push(self.verify(&["--policy", &policy]));
        }
        let image = self.image();
        let one = ["--expected-identity", &image, "--public-key", "whole.asc"].map(str::to_owned);
        let mut one = one.to_vec();
        one[3] = self.folder.path().join("whole.asc").display().to_string();
        let mut each = vec!["--expected-identity".to_owned(), image];
        each.extend(paths.iter().flat_map(|path| ["--public-key".to_owned(), path.display().to_string()]));
        for arguments in [one, each] {
            answers.push(self.verify(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        answers
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_certificate_of_gnupg_revokes_the_key_that_it_stands_beside() {
    let scenario = Scenario::new().await;
    let key = scenario.gpg.generate("Release <release@example.com>");
    let other = scenario.gpg.generate("Security <security@example.com>");
    let [public, others] = [&key, &other].map(|key| scenario.gpg.export(key));
    let revocation = scenario.revocation(&key);
    assert!(revocation.starts_with(b"-----BEGIN PGP PUBLIC KEY BLOCK-----"));
    let kept = fs::read(scenario.gpg.home().join(format!("openpgp-revocs.d/{key}.rev"))).expect("gpg keeps it");
    for files in [
        vec![public.clone(), revocation.clone()],
        vec![revocation.clone(), public.clone()],
        vec![public.clone(), others.clone(), revocation.clone()],
        vec![revocation.clone(), others.clone(), public.clone()],
    ] {
        scenario.sign(&key);
        for Answer { status, text, .. } in scenario.by_every_way(&files) {
            assert_eq!(status, 1, "{text}");
            assert!(text.contains("[revoked-key]"), "{text}");
        }
        if files.len() == 3 {
            scenario.sign(&other);
            for Answer { status, text, .. } in scenario.by_every_way(&files) {
                assert_eq!(status, 0, "{text}");
            }
        }
    }
    // As gpg keeps it, it is none; and another's revokes nothing here, which is told.
    scenario.sign(&key);
    for files in [[public.clone(), kept.clone()].concat(), [kept, public.clone()].concat()] {
        for Answer { status, text, .. } in scenario.by_every_way(&[files]) {
            assert_eq!(status, 0, "{text}");
        }
    }
    for Answer { status, text, .. } in scenario.by_every_way(&[public, scenario.revocation(&other)]) {
        assert_eq!(status, 0, "{text}");
        assert!(text.contains(&format!("by key 0x{other} revokes no key")), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_on_an_unsupported_curve_is_refused_alone_and_named_beside_others() {
    let scenario = Scenario::new().await;
    let key = scenario.gpg.generate("Release <release@example.com>");
    let strange = scenario.gpg.generate_with("Coin <coin@example.com>", "secp256k1", &[]);
    let reason = format!("key 0x{strange} is of a kind that is not supported (curve secp256k1)");
    scenario.sign(&key);
    for armor in [&["--armor"][..], &[]] {
        let export = |key: &str| scenario.gpg.run(&[armor, &["--export", key]].concat(), b"");
        for Answer { status, text, .. } in scenario.by_every_way(&[export(&strange)]) {
            assert_eq!(status, 2, "{text}");
            assert!(text.contains(&reason), "{text}");
        }
        for files in [[export(&strange), export(&key)], [export(&key), export(&strange)]] {
            for Answer { status, text, .. } in scenario.by_every_way(&files) {
                assert_eq!(status, 0, "{text}");
                assert!(text.contains(&reason), "{text}");
            }
        }
    }
    // Its own signatures are those of a key that is not there.
    scenario.sign(&strange);
    for Answer { status, text, .. } in
        scenario.by_every_way(&[scenario.gpg.export(&key), scenario.gpg.export(&strange)])
    {
        assert_eq!(status, 1, "{text}");
        assert!(text.contains("[untrusted-key]"), "{text}");
    }
}
