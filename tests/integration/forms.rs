//! Forms of signatures that other programs write, or that users store by mistake: version 3, text signatures, armor.

use std::path::Path;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Client;
use sealgate::image::Digest;
use sequoia_openpgp::{
    Cert, Packet,
    crypto::Signer as _,
    packet::{OnePassSig, Signature, one_pass_sig::OnePassSig3, signature::Signature3},
    parse::Parse as _,
    serialize::SerializeInto as _,
    types::{HashAlgorithm, SignatureType, Timestamp},
};
use serde_json::{Value, json};

use crate::support::{Answer, DockerRegistry, Gpg, Liar, Pushed, Reply, Scratch, Store, payload, sealgate, skopeo};

const IDENTITY: &str = "registry.example.com/acme/web:1";

/// A registry, a key, and a lookaside tree.
struct Scenario {
    registry: DockerRegistry,
    gpg: Gpg,
    key: String,
    folder: Scratch,
}

impl Scenario {
    fn new(algorithm: &str) -> Self {
        let gpg = Gpg::new();
        let key = gpg.generate_with("Release <release@example.com>", algorithm, &[]);
        let folder = Scratch::new();
        gpg.export_to(&key, folder.path().join("release.asc"));
        Self { registry: DockerRegistry::start(), gpg, key, folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Signs as gpg does with these options.
    fn gpg(&self, options: &[&str], content: &[u8]) -> Vec<u8> {
        let all = ["--pinentry-mode", "loopback", "--passphrase", "", "--local-user", &self.key];
        self.gpg.run(&[&all, options].concat(), content)
    }

    /// Has these and no other signatures of the image lie in the tree.
    fn lay(&self, pushed: &Pushed, signatures: &[Vec<u8>]) {
        let folder = format!("tree/acme/web@sha256={}", pushed.digest.hex());
        let _ = std::fs::remove_dir_all(self.folder.path().join(&folder));
        for (index, signature) in signatures.iter().enumerate() {
            self.folder.write(&format!("{folder}/signature-{}", index + 1), signature);
        }
    }

    /// `sealgate verify` of an image by this name, with a lookaside at this URL, against a policy and against an identity.
    fn verify(&self, image: &str, lookaside: &str) -> [Answer; 2] {
        self.folder.write("registries.d/default.yaml", format!("default-docker: {{lookaside: '{lookaside}'}}\n"));
        let policy = format!(
            "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {{name: production}}\nspec:\n  keys:\n    \
             release: {{file: release.asc}}\n  rules:\n  - name: all\n    images: ['*']\n    require: [{{signedBy: \
             [release], identity: {{exactReference: '{IDENTITY}'}}}}]\n"
        );
        let policy = self.folder.write("policy.yaml", policy).display().to_string();
        let (registries, key) = (self.path("registries.d"), self.path("release.asc"));
        let common = ["verify", "--tls-verify=false", "--registries-d", &registries, image];
        [
            sealgate(&[&common[..], &["--policy", &policy]].concat()),
            sealgate(&[&common[..], &["--expected-identity", IDENTITY, "--public-key", &key]].concat()),
        ]
    }

    fn verify_in_tree(&self) -> [Answer; 2] {
        let tree = format!("file://{}", self.path("tree"));
        self.verify(&format!("{}/acme/web:1", self.registry.host()), &tree)
    }

    /// Signatures that no signer meant, each with what is said of it.
    fn mistakes(&self, digest: &Digest) -> Vec<(Vec<u8>, &'static str)> {
        let content = payload(digest, IDENTITY);
        let armored = self.gpg(&["--armor", "--sign"], content.as_bytes());
        let with_cr = String::from_utf8(armored.clone()).expect("ASCII").replace('\n', "\r\n");
        let utf16 = with_cr.encode_utf16().flat_map(u16::to_le_bytes);
        let utf16 = [0xff, 0xfe].into_iter().chain(utf16).collect();
        let marked = format!("\u{feff}\n{with_cr}").into_bytes();
        let detached = self.gpg(&["--detach-sign"], content.as_bytes());
        let base64 = BASE64_STANDARD.encode(self.gpg(&["--sign"], content.as_bytes()));
        vec![
            (armored, "it is armored"),
            (with_cr.into_bytes(), "it is armored"),
            (marked, "it is armored"),
            (self.gpg(&["--armor", "--detach-sign"], content.as_bytes()), "it is armored"),
            (self.gpg(&["--clear-sign"], content.as_bytes()), "it is clear-signed text"),
            (Vec::new(), "it is empty"),
            (b"\n".to_vec(), "it is empty"),
            (utf16, "it is in UTF-16"),
            (detached, "it is a detached signature"),
            (base64.into_bytes(), "it does not begin as a binary OpenPGP message does"),
        ]
    }

    fn good(&self, digest: &Digest) -> Vec<u8> {
        self.gpg(&["--sign"], payload(digest, IDENTITY).as_bytes())
    }
}

#[track_caller]
fn verified(answers: [Answer; 2]) {
    for Answer { status, text, .. } in answers {
        assert_eq!(status, 0, "{text}");
    }
}

#[track_caller]
fn refused(answers: [Answer; 2], code: &str, said: &[&str]) {
    for Answer { status, text, .. } in answers {
        assert_eq!(status, 1, "{text}");
        for said in [&format!("[{code}]")].into_iter().map(String::as_str).chain(said.iter().copied()) {
            assert!(text.contains(said), "{said}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_file_that_is_not_binary_is_refused_by_its_name_with_what_to_do() {
    let scenario = Scenario::new("ed25519");
    let pushed = scenario.registry.push("acme/web", "1", "one").await;
    let good = scenario.good(&pushed.digest);
    for (bad, said) in scenario.mistakes(&pushed.digest) {
        scenario.lay(&pushed, std::slice::from_ref(&bad));
        refused(scenario.verify_in_tree(), "malformed-signature", &[said, "/signature-1"]);
        for both in [[bad.clone(), good.clone()], [good.clone(), bad.clone()]] {
            scenario.lay(&pushed, &both);
            verified(scenario.verify_in_tree());
        }
    }
    let empty = vec![Vec::new(); 4];
    scenario.lay(&pushed, &[empty, vec![good]].concat());
    verified(scenario.verify_in_tree());
}

/// A registry and web server that have these signatures of an image: in the list of its extension, or as files.
fn server(mistakes: Vec<Vec<u8>>, is_list: bool) -> Liar {
    Liar::start(move |asked| {
        let signature = |content: &Vec<u8>| json!({"schemaVersion": 2, "type": "atomic", "name": "sha256:00@named", "content": BASE64_STANDARD.encode(content)});
        match asked.path.as_str() {
            "/v2/" if is_list => Reply::new(200, &[("x-registry-supports-signatures", "1")], ""),
            "/v2/" => Reply::new(200, &[], ""),
            path if path.contains("/manifests/") => {
                Reply::new(200, &[("content-type", "application/vnd.oci.image.manifest.v1+json")], MANIFEST)
            }
            path if path.starts_with("/extensions/v2/") => {
                let list = json!({"signatures": mistakes.iter().map(signature).collect::<Vec<_>>()});
                Reply::new(200, &[("content-type", "application/json")], list.to_string())
            }
            path if !is_list => {
                let number = path.rsplit_once("/signature-").and_then(|(_, number)| number.parse::<usize>().ok());
                let entry = number.and_then(|number| mistakes.get(number - 1));
                entry.map_or_else(|| Reply::empty(404), |entry| Reply::new(200, &[], entry))
            }
            _ => Reply::empty(404),
        }
    })
}

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]}"#;

#[test]
fn the_same_holds_of_a_web_server_and_of_a_stores_list() {
    let scenario = Scenario::new("ed25519");
    let digest = Digest::sha256(MANIFEST.as_bytes());
    let good = scenario.good(&digest);
    let at = |server: &Liar, is_list: bool| {
        let lookaside =
            if is_list { "file:///no/such/folder".to_owned() } else { format!("http://{}/sig", server.host()) };
        scenario.verify(&format!("{}/acme/web:1", server.host()), &lookaside)
    };
    for (bad, said) in scenario.mistakes(&digest) {
        for is_list in [true, false] {
            let [policy, identity] = at(&server(vec![bad.clone()], is_list), is_list);
            assert!(!policy.text.lines().nth(1).unwrap().contains("named"), "what a list says: {}", policy.text);
            let place = if is_list { ", entry 1 is malformed" } else { "/signature-1 is malformed" };
            assert!(policy.text.contains(place), "{}", policy.text);
            refused([policy, identity], "malformed-signature", &[said]);
            for both in [[bad.clone(), good.clone()], [good.clone(), bad.clone()]] {
                verified(at(&server(both.to_vec(), is_list), is_list));
            }
        }
    }
    for is_list in [true, false] {
        let empty = [vec![Vec::new(); 4], vec![good.clone()]].concat();
        verified(at(&server(empty, is_list), is_list));
    }
    // What answers in the place of the server says nothing of signatures.
    for page in ["<html>log in</html>", r#"{"error": "busy"}"#] {
        for Answer { status, text, .. } in at(&server(vec![page.into()], false), false) {
            assert_eq!(status, 3, "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_signatures_and_uncompressed_ones_of_gnupg_are_verified() {
    let scenario = Scenario::new("rsa2048");
    let pushed = scenario.registry.push("acme/web", "1", "one").await;
    let content = payload(&pushed.digest, IDENTITY);
    for content in [content.clone(), content.replace(',', ",\n"), content.replace(',', ",\r\n") + "\r\n"] {
        for options in [&["--textmode", "--sign"][..], &["--textmode", "-z", "0", "--sign"], &["-z", "0", "--sign"]] {
            scenario.lay(&pushed, &[scenario.gpg(options, content.as_bytes())]);
            verified(scenario.verify_in_tree());
        }
    }
    let other = payload(&Digest::sha256(b"other"), IDENTITY);
    scenario.lay(&pushed, &[scenario.gpg(&["--textmode", "--sign"], other.as_bytes())]);
    refused(scenario.verify_in_tree(), "wrong-digest", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_pass_packet_that_disagrees_is_malformed_also_where_gnupg_ignores_it() {
    let scenario = Scenario::new("ed25519");
    let pushed = scenario.registry.push("acme/web", "1", "one").await;
    let image = format!("{}/acme/web:1", scenario.registry.host());
    let message = scenario.gpg(&["-z", "0", "--sign"], payload(&pushed.digest, IDENTITY).as_bytes());
    assert_eq!(message[..3], [0x90, 13, 3], "a one-pass packet");
    // Version, type, hash, algorithm, and the key's ID.
    for (place, said, is_good_for_gpg) in [
        (3, "another type of signature than its signature packet", true),
        (4, "another hash algorithm", false),
        (5, "another public-key algorithm", true),
        (6, "another key (0x", true),
        (13, "another key (0x", true),
    ] {
        let mut changed = message.clone();
        changed[place] ^= 1;
        assert_eq!(scenario.gpg.try_run(&["--decrypt"], &changed).status.success(), is_good_for_gpg, "{said}");
        scenario.lay(&pushed, std::slice::from_ref(&changed));
        refused(scenario.verify_in_tree(), "malformed-signature", &["its one-pass packet names", said]);
        assert_eq!(by_policy_json(&scenario, &image, true), [false, is_good_for_gpg], "{said}");
        scenario.lay(&pushed, &[changed, message.clone()]);
        verified(scenario.verify_in_tree());
    }
}

/// A message with a signature of version 3 by GnuPG's key, with old headers, as Red Hat's signing server makes it.
fn version_3(gpg: &Gpg, key: &str, content: &[u8]) -> Vec<u8> {
    let secret = gpg.run(&["--pinentry-mode", "loopback", "--passphrase", "", "--export-secret-keys", key], b"");
    let secret = Cert::from_bytes(&secret).expect("a key");
    let secret = secret.primary_key().key().clone().parts_into_secret().expect("a secret key");
    let mut pair = secret.into_keypair().expect("without a passphrase");
    let (hash, typ, time) = (HashAlgorithm::SHA256, SignatureType::Binary, Timestamp::now());
    let mut hasher = hash.context().expect("SHA-256").for_signature(3);
    hasher.update(content);
    hasher.update(&[u8::from(typ)]);
    hasher.update(&u32::from(time).to_be_bytes());
    let digest = hasher.into_digest().expect("a digest");
    let mpis = pair.sign(hash, &digest).expect("it signs");
    let (issuer, algorithm) = (pair.public().keyid(), pair.public().pk_algo());
    let signature = Signature3::new(typ, time, issuer.clone(), algorithm, hash, [digest[0], digest[1]], mpis);
    let mut one_pass = OnePassSig3::new(typ);
    one_pass.set_pk_algo(algorithm);
    one_pass.set_hash_algo(hash);
    one_pass.set_issuer(issuer);
    one_pass.set_last(true);
    let literal = [&b"b\x00\0\0\0\0"[..], content].concat();
    let length = u16::try_from(literal.len()).expect("a short payload").to_be_bytes();
    let (one_pass, signature): (Packet, Packet) =
        (OnePassSig::from(one_pass).into(), Signature::from(signature).into());
    let [one_pass, signature] = [one_pass, signature].map(|packet| packet.to_vec().expect("a packet"));
    [&one_pass[..], &[0xad], &length, &literal, &signature].concat()
}

/// `sealgate` and skopeo with a policy.json that wants the key's signatures for the identity: those in the tree, or at the host.
fn by_policy_json(scenario: &Scenario, image: &str, is_in_tree: bool) -> [bool; 2] {
    let policy = json!({"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": scenario.path("release.asc"),
        "signedIdentity": {"type": "exactReference", "dockerReference": IDENTITY}}]});
    let policy = scenario.folder.write("policy.json", policy.to_string()).display().to_string();
    let folder = scenario.path("registries.d");
    let [ours, theirs] =
        ["--registries-d", "--registries.d"].map(|option| if is_in_tree { vec![option, &folder] } else { vec![] });
    let ours = sealgate(&[&["verify", "--tls-verify=false", "--policy", &policy, image], &ours[..]].concat());
    let (from, to) = (format!("docker://{image}"), format!("dir:{}", scenario.path("copy")));
    let copy = [&["--policy", &policy, "copy", "--src-tls-verify=false", &from, &to], &theirs[..]].concat();
    let copy = skopeo(scenario.gpg.home(), &copy);
    [ours.status == 0, copy.status.success()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_3_signature_is_stored_listed_imported_and_verified_as_by_skopeo() {
    let scenario = Scenario::new("rsa2048");
    let pushed = scenario.registry.push("acme/web", "1", "one").await;
    let message = version_3(&scenario.gpg, &scenario.key, payload(&pushed.digest, IDENTITY).as_bytes());
    scenario.lay(&pushed, std::slice::from_ref(&message));
    verified(scenario.verify_in_tree());
    let mut changed = message.clone();
    *changed.last_mut().unwrap() ^= 1;
    scenario.lay(&pushed, &[changed.clone()]);
    refused(scenario.verify_in_tree(), "invalid-signature", &[]);
    scenario.lay(&pushed, &[changed, message.clone()]);
    verified(scenario.verify_in_tree());

    let store = Store::start(&scenario.registry.url());
    let image = format!("{}/acme/web:1", store.host());
    let put = async |digest: &Digest, number: usize, content: &[u8]| {
        let name = format!("{digest}@{number:032}");
        let body =
            json!({"schemaVersion": 2, "type": "atomic", "name": name, "content": BASE64_STANDARD.encode(content)});
        let url = store.signatures_url("acme/web", digest);
        Client::new().put(url).body(body.to_string()).send().await.expect("the store answers").status().as_u16()
    };
    let other = version_3(&scenario.gpg, &scenario.key, payload(&Digest::sha256(b"other"), IDENTITY).as_bytes());
    assert_eq!(put(&pushed.digest, 1, &other).await, 400, "about another image");
    assert_eq!(by_policy_json(&scenario, &image, false), [false, false]);
    assert_eq!(put(&pushed.digest, 2, &message).await, 201);
    let answer = reqwest::get(store.signatures_url("acme/web", pushed.digest)).await.expect("it answers");
    let listed: Value = serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
    assert_eq!(listed["signatures"][0]["content"], BASE64_STANDARD.encode(&message));
    assert_eq!(by_policy_json(&scenario, &image, false), [true, true]);
    let list = sealgate(&["signatures", "list", "--tls-verify=false", &image]);
    let key_id = &scenario.key[scenario.key.len() - 16..];
    assert!(list.status == 0 && list.text.contains(&format!(" 0x{key_id} ")), "{}", list.text);

    // Into another store, from a tree; and by skopeo, with the image.
    let (empty, copied) = (Store::start(&scenario.registry.url()), Store::start(&scenario.registry.url()));
    scenario.lay(&pushed, &[message]);
    let imported = sealgate(&["store", "import", "--tls-verify=false", &empty.url(), &scenario.path("tree")]);
    assert_eq!(imported.status, 0, "{}", imported.text);
    let (from, to) = (format!("docker://{image}"), format!("docker://{}/acme/web:2", copied.host()));
    let any = crate::support::accept_anything(&scenario.folder).display().to_string();
    let copy = ["--policy", &any, "copy", "--src-tls-verify=false", "--dest-tls-verify=false", &from, &to];
    let output = skopeo(scenario.gpg.home(), &copy);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for image in [format!("{}/acme/web:1", empty.host()), format!("{}/acme/web:2", copied.host())] {
        assert_eq!(by_policy_json(&scenario, &image, false), [true, true], "{image}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn red_hats_signature_at_another_image_is_of_another_image_and_not_malformed() {
    let scenario = Scenario::new("ed25519");
    let pushed = scenario.registry.push("acme/web", "1", "one").await;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let signature = std::fs::read(fixtures.join("redhat-rhel7-7.6.signature")).expect("a fixture");
    std::fs::copy(fixtures.join("redhat-release.asc"), scenario.folder.path().join("release.asc")).expect("a fixture");
    scenario.lay(&pushed, &[signature]);
    refused(scenario.verify_in_tree(), "wrong-digest", &["sha256:e3f12513"]);
}
