//! What the cases are made of: a real registry with images, real keys, real signatures, and both programs.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Output,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sealgate::image::Digest;
use serde_json::{Value, json};

use super::case::{Case, Envelope, Identity, Image, Key, Keyring, Payload, Requirement, Signature};
use crate::support::{self, DockerRegistry, Gpg, Scratch, skopeo};

/// When the keys were made, and when the signatures of the key that has expired since. The mark stops the clock: a key that takes a
/// second to make would be one of the future to its first signature.
const THEN: &str = "20250101T000000!";
const A_DAY: &str = "86400";

pub(super) struct Scenario {
    registry: Arc<DockerRegistry>,
    /// Where the images are asked for: the registry, or a store in front of it.
    host: String,
    /// Whether a case's signatures lie in a lookaside tree.
    lookaside: bool,
    gpg: Arc<Gpg>,
    folder: Arc<Scratch>,
    keys: Arc<HashMap<Key, String>>,
    certificates: Arc<HashMap<Key, Vec<u8>>>,
    web1: Digest,
    web2: Digest,
    admin: Digest,
    /// The manifest of the index that is for another platform.
    there: Digest,
    made: Mutex<HashMap<(Signature, Image, Digest), Vec<u8>>>,
}

/// What a program made of a case.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) allowed: bool,
    pub(super) status: Option<i32>,
    pub(super) said: String,
}

/// A digest, and the signatures that are stored for it.
pub(super) type Stored = (Digest, Vec<Vec<u8>>);

/// A case in files.
struct Files {
    folder: PathBuf,
    policy: String,
    registries: String,
}

impl Scenario {
    pub(super) async fn new() -> Self {
        let registry = DockerRegistry::start();
        let web1 = registry.push("acme/web", "1", "one").await;
        let web2 = registry.push("acme/web", "2", "two").await;
        let admin = registry.push("acme/web/admin", "1", "admin").await;
        let other = registry.push("other/web", "1", "one").await;
        assert_eq!(web1.digest, other.digest);
        let here = registry.push("acme/index", "here", "one").await;
        let there = registry.push("acme/index", "there", "far away").await;
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        registry.push_index("acme/index", "1", &[(&here, architecture), (&there, "s390x")]).await;
        let gpg = Gpg::new();
        let keys = keys(&gpg);
        let certificates = certificates(&gpg, &keys);
        Self {
            host: registry.host().to_owned(),
            lookaside: true,
            registry: Arc::new(registry),
            gpg: Arc::new(gpg),
            folder: Arc::new(Scratch::new()),
            keys: Arc::new(keys),
            certificates: Arc::new(certificates),
            web1: web1.digest,
            web2: web2.digest,
            admin: admin.digest,
            there: there.digest,
            made: Mutex::default(),
        }
    }

    /// The same images and keys behind another address; what is signed names that one. No signature lies in a lookaside tree.
    pub(super) fn behind(&self, host: &str) -> Self {
        Self {
            host: host.to_owned(),
            lookaside: false,
            registry: Arc::clone(&self.registry),
            gpg: Arc::clone(&self.gpg),
            folder: Arc::clone(&self.folder),
            keys: Arc::clone(&self.keys),
            certificates: Arc::clone(&self.certificates),
            made: Mutex::default(),
            ..*self
        }
    }

    pub(super) fn registry_url(&self) -> String {
        self.registry.url()
    }

    /// The repository of a case's image, and each digest with the signatures that are stored for it, in their order.
    pub(super) fn signatures(&self, case: &Case) -> (&'static str, Vec<Stored>) {
        let mut digests = vec![self.digest(case.image)];
        if case.image == Image::Index && case.each_signed {
            digests.push(self.there);
        }
        let made = |digest| case.signatures.iter().map(|signature| self.make(signature, case.image, digest)).collect();
        (Self::path(case.image), digests.into_iter().map(|digest| (digest, made(digest))).collect())
    }

    pub(super) fn folder(&self) -> &Scratch {
        &self.folder
    }

    /// The reference of an image, as it stands on the command line.
    fn reference(&self, image: Image) -> String {
        let host = &self.host;
        match image {
            Image::Web1 => format!("docker://{host}/acme/web:1"),
            Image::Web2 => format!("docker://{host}/acme/web:2"),
            Image::Web1ByDigest => format!("docker://{host}/acme/web@{}", self.web1),
            Image::Admin => format!("docker://{host}/acme/web/admin:1"),
            Image::Other => format!("docker://{host}/other/web:1"),
            Image::Index => format!("docker://{host}/acme/index:1"),
        }
    }

    fn path(image: Image) -> &'static str {
        match image {
            Image::Web1 | Image::Web2 | Image::Web1ByDigest => "acme/web",
            Image::Admin => "acme/web/admin",
            Image::Other => "other/web",
            Image::Index => "acme/index",
        }
    }

    /// The digest that signatures of this image have to name: of an index, the image for this machine's platform.
    fn digest(&self, image: Image) -> Digest {
        match image {
            Image::Web1 | Image::Web1ByDigest | Image::Other | Image::Index => self.web1,
            Image::Web2 => self.web2,
            Image::Admin => self.admin,
        }
    }

    fn fill(&self, text: &str, image: Image) -> String {
        text.replace("{host}", &self.host).replace("{digest}", &self.digest(image).to_string())
    }

    /// What skopeo makes of it.
    pub(super) fn skopeo(&self, case: &Case, name: &str) -> Answer {
        let files = self.write(case, name);
        let target = format!("dir:{}", files.folder.join("copy").display());
        let reference = self.reference(case.image);
        let output = skopeo(
            self.gpg.home(),
            &[
                "--policy",
                &files.policy,
                "--registries.d",
                &files.registries,
                "copy",
                "--src-tls-verify=false",
                &reference,
                &target,
            ],
        );
        let answer = answer(&output);
        assert!(
            answer.allowed || !answer.said.contains("pinging container registry"),
            "skopeo can't reach the registry: {}",
            answer.said
        );
        answer
    }

    /// What `sealgate verify` makes of it.
    pub(super) fn sealgate(&self, case: &Case, name: &str) -> Answer {
        let files = self.write(case, name);
        let reference = self.reference(case.image);
        sealgate(&[
            "verify",
            "--tls-verify=false",
            "--policy",
            &files.policy,
            "--registries-d",
            &files.registries,
            &reference,
        ])
    }

    /// Writes a case's policy, its registries.d, and its signatures into a folder.
    fn write(&self, case: &Case, name: &str) -> Files {
        let folder = self.folder.path().join(name);
        let lookaside = folder.join("lookaside");
        let registries = folder.join("registries.d");
        fs::create_dir_all(&registries).expect("a folder can be made");
        let place = format!("default-docker: {{lookaside: 'file://{}'}}\n", lookaside.display());
        fs::write(registries.join("default.yaml"), place).expect("a file can be written");
        fs::create_dir_all(&lookaside).expect("a folder can be made");
        if self.lookaside {
            let (path, digests) = self.signatures(case);
            for (digest, signatures) in digests {
                let tree = lookaside.join(format!("{path}@sha256={}", digest.hex()));
                fs::create_dir_all(&tree).expect("a folder can be made");
                for (index, bytes) in signatures.into_iter().enumerate() {
                    fs::write(tree.join(format!("signature-{}", index + 1)), bytes).expect("a file can be written");
                }
            }
        }
        let policy = folder.join("policy.json");
        let text = serde_json::to_string_pretty(&self.policy(case)).expect("JSON can be written");
        fs::write(&policy, text).expect("a file can be written");
        Files { policy: policy.display().to_string(), registries: registries.display().to_string(), folder }
    }

    fn policy(&self, case: &Case) -> Value {
        let list = |requirements: &[Requirement]| -> Vec<Value> {
            requirements.iter().map(|requirement| self.requirement(requirement, case.image)).collect()
        };
        let scopes: serde_json::Map<String, Value> = case
            .scopes
            .iter()
            .map(|(scope, requirements)| (self.fill(scope, case.image), list(requirements).into()))
            .collect();
        json!({"default": list(&case.default), "transports": {"docker": scopes, "dir": {"": [{"type": "reject"}]}}})
    }

    fn requirement(&self, requirement: &Requirement, image: Image) -> Value {
        let (keyring, identity) = match requirement {
            Requirement::AcceptAnything => return json!({"type": "insecureAcceptAnything"}),
            Requirement::Reject => return json!({"type": "reject"}),
            Requirement::SignedBaseLayer => {
                return json!({"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}});
            }
            Requirement::SignedBy(keyring, identity) => (keyring, identity),
        };
        let mut value = json!({"type": "signedBy", "keyType": "GPGKeys"});
        match keyring {
            Keyring::Path(keys) => value["keyPath"] = self.key_file(keys).into(),
            Keyring::Paths(keys) => {
                value["keyPaths"] = keys.iter().map(|key| self.key_file(&[*key])).collect::<Vec<_>>().into();
            }
            Keyring::Data(keys) => value["keyData"] = STANDARD.encode(self.keyring(keys)).into(),
        }
        let fill = |text: &str| self.fill(text, image);
        let identity = match identity {
            Identity::LeftOut => return value,
            Identity::Exact => json!({"type": "matchExact"}),
            Identity::RepoDigestOrExact => json!({"type": "matchRepoDigestOrExact"}),
            Identity::Repository => json!({"type": "matchRepository"}),
            Identity::ExactReference(text) => json!({"type": "exactReference", "dockerReference": fill(text)}),
            Identity::ExactRepository(text) => json!({"type": "exactRepository", "dockerRepository": fill(text)}),
            Identity::Remap(from, to) => {
                json!({"type": "remapIdentity", "prefix": fill(from), "signedPrefix": fill(to)})
            }
        };
        value["signedIdentity"] = identity;
        value
    }

    fn keyring(&self, keys: &[Key]) -> Vec<u8> {
        keys.iter().flat_map(|key| self.certificates[key].clone()).collect()
    }

    pub(super) fn key_file(&self, keys: &[Key]) -> String {
        let name = keys.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>().join("-");
        let path = self.folder.path().join("keys").join(name);
        if !path.exists() {
            fs::create_dir_all(path.parent().expect("it has one")).expect("a folder can be made");
            // Two threads may write it at once: each writes another file and renames it.
            let own = path.with_extension(format!("{:?}", std::thread::current().id()));
            fs::write(&own, self.keyring(keys)).expect("a file can be written");
            fs::rename(own, &path).expect("a file can be renamed");
        }
        path.display().to_string()
    }

    /// Makes a signature of this digest for this image, or takes it where it was made already.
    fn make(&self, signature: &Signature, image: Image, digest: Digest) -> Vec<u8> {
        let key = (signature.clone(), image, digest);
        // gpg is asked by one thread at a time; its agent would let the others wait anyway.
        let mut made = self.made.lock().expect("nothing panics while it holds this");
        made.entry(key).or_insert_with(|| self.sign(signature, image, digest)).clone()
    }

    fn sign(&self, signature: &Signature, image: Image, digest: Digest) -> Vec<u8> {
        let reference = self.fill(signature.reference, image);
        let digest = if signature.right_digest { digest } else { Digest::sha256(b"something else") };
        let payload = payload(signature.payload, &digest.to_string(), &reference);
        let user = match signature.key {
            // The exclamation mark keeps gpg from choosing another key of the certificate.
            Key::SubkeyPrimary => format!("{}!", self.keys[&Key::Subkey]),
            key => self.keys[&key].clone(),
        };
        let at = |time: &str, more: &[&str]| {
            let mut arguments = vec!["--faked-system-time", time];
            arguments.extend(more);
            self.run(&user, &arguments, &payload)
        };
        if signature.key == Key::Expired {
            return at(THEN, &["--sign"]);
        }
        let plain = |more: &[&str]| self.run(&user, more, &payload);
        match signature.envelope {
            Envelope::Compressed => plain(&["--sign"]),
            Envelope::Uncompressed => plain(&["-z", "0", "--sign"]),
            Envelope::Prefixed => [b"\0simple-signing\n".to_vec(), plain(&["--sign"])].concat(),
            Envelope::Armored => plain(&["--armor", "--sign"]),
            Envelope::ClearSigned => plain(&["--clear-sign"]),
            Envelope::Detached => plain(&["--detach-sign"]),
            Envelope::TwoSigners => {
                let second = if signature.key == Key::Security { Key::Release } else { Key::Security };
                plain(&["--local-user", &self.keys[&second], "--sign"])
            }
            Envelope::Sha1 => plain(&["--digest-algo", "SHA1", "--sign"]),
            Envelope::Sha512 => plain(&["--digest-algo", "SHA512", "--sign"]),
            Envelope::Future => at("20400101T000000", &["--sign"]),
            Envelope::OlderThanItsKey => {
                at("20240601T000000", &["--ignore-time-conflict", "--ignore-valid-from", "--sign"])
            }
            Envelope::OutOfDate => at("20250601T000000!", &["--default-sig-expire", "1d", "--sign"]),
            Envelope::Tampered => {
                let mut bytes = plain(&["-z", "0", "--sign"]);
                let text = b"atomic";
                let at = bytes.windows(text.len()).position(|window| window == text);
                bytes[at.unwrap_or(20)] ^= 0x20;
                bytes
            }
            Envelope::Truncated => {
                let bytes = plain(&["--sign"]);
                bytes[..bytes.len() / 2].to_vec()
            }
            Envelope::TrailingAfterCompressed => [plain(&["--sign"]), b"more".to_vec()].concat(),
            Envelope::TrailingAfterUncompressed => [plain(&["-z", "0", "--sign"]), b"more".to_vec()].concat(),
            Envelope::Unsigned => self.gpg.run(&["--store"], &payload),
            Envelope::Empty => Vec::new(),
            Envelope::NoOpenPgp => b"this is no signature".to_vec(),
        }
    }

    fn run(&self, user: &str, arguments: &[&str], payload: &[u8]) -> Vec<u8> {
        let mut all = vec!["--pinentry-mode", "loopback", "--passphrase", "", "--local-user", user];
        all.extend(arguments);
        self.gpg.run(&all, payload)
    }

    /// What skopeo says to a policy document alone: whether it reads it.
    pub(super) fn skopeo_reads(&self, policy: &Path) -> Answer {
        let reference = self.reference(Image::Web1);
        let target = format!("dir:{}", policy.with_extension("copy").display());
        let policy = policy.display().to_string();
        let output =
            skopeo(self.gpg.home(), &["--policy", &policy, "copy", "--src-tls-verify=false", &reference, &target]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Answer { allowed: !said.contains("Error loading trust policy"), status: output.status.code(), said }
    }

    /// The same of `sealgate verify`.
    pub(super) fn sealgate_reads(&self, policy: &Path) -> Answer {
        let reference = self.reference(Image::Web1);
        let answer = sealgate(&["verify", "--tls-verify=false", "--policy", &policy.display().to_string(), &reference]);
        Answer { allowed: answer.status != Some(2), ..answer }
    }
}

fn sealgate(arguments: &[&str]) -> Answer {
    let support::Answer { status, text, .. } = support::sealgate(arguments);
    Answer { allowed: status == 0, status: Some(status), said: text }
}

fn answer(output: &Output) -> Answer {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    Answer {
        allowed: output.status.success(),
        status: output.status.code(),
        said: String::from_utf8_lossy(&said).into_owned(),
    }
}

fn keys(gpg: &Gpg) -> HashMap<Key, String> {
    let make = |user: &str, algorithm: &str, end: &str| {
        let address = format!("{user} <{user}@example.com>");
        let arguments =
            ["--faked-system-time", THEN, "--pinentry-mode", "loopback", "--passphrase", "", "--status-fd", "1"];
        let all = [&arguments[..], &["--quick-generate-key", &address, algorithm, "sign,cert", end]].concat();
        let text = String::from_utf8_lossy(&gpg.run(&all, b"")).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("[GNUPG:] KEY_CREATED P "));
        line.expect("gpg made a key").trim().to_owned()
    };
    let keys = HashMap::from([
        (Key::Release, make("release", "ed25519", "never")),
        (Key::Security, make("security", "ed25519", "never")),
        (Key::Stranger, make("stranger", "ed25519", "never")),
        (Key::Rsa2048, make("rsa2048", "rsa2048", "never")),
        (Key::Rsa1024, make("rsa1024", "rsa1024", "never")),
        (Key::Expired, make("expired", "ed25519", &format!("seconds={A_DAY}"))),
        (Key::Revoked, make("revoked", "ed25519", "never")),
        (Key::Subkey, make("subkey", "ed25519", "never")),
    ]);
    let arguments = ["--faked-system-time", THEN, "--pinentry-mode", "loopback", "--passphrase", ""];
    gpg.run(&[&arguments[..], &["--quick-add-key", &keys[&Key::Subkey], "ed25519", "sign", "never"]].concat(), b"");
    keys
}

fn certificates(gpg: &Gpg, keys: &HashMap<Key, String>) -> HashMap<Key, Vec<u8>> {
    let mut certificates: HashMap<Key, Vec<u8>> =
        keys.iter().map(|(key, fingerprint)| (*key, gpg.run(&["--export", fingerprint], b""))).collect();
    // The key goes on signing in its own home; only what is published of it is revoked.
    let elsewhere = Gpg::new();
    elsewhere.run(&["--trust-model", "pgp", "--import"], &certificates[&Key::Revoked]);
    let fingerprint = &keys[&Key::Revoked];
    let revocation = fs::read_to_string(gpg.home().join(format!("openpgp-revocs.d/{fingerprint}.rev")));
    // gpg puts a colon in front, against accidents.
    let revocation = revocation.expect("gpg made a revocation").replace(":-----BEGIN", "-----BEGIN");
    // The trust database, which the other tests do without, is where gpg notes a revocation.
    elsewhere.run(&["--trust-model", "pgp", "--import"], revocation.as_bytes());
    let revoked = elsewhere.run(&["--export", fingerprint], b"");
    let before = certificates.insert(Key::Revoked, revoked).expect("it was there");
    certificates.insert(Key::BeforeRevocation, before);
    certificates.insert(Key::SubkeyPrimary, certificates[&Key::Subkey].clone());
    certificates
}

fn payload(payload: Payload, digest: &str, reference: &str) -> Vec<u8> {
    let image = json!({"docker-manifest-digest": digest});
    let identity = json!({"docker-reference": reference});
    let critical = json!({"type": "atomic container signature", "image": image, "identity": identity});
    let optional = json!({"creator": "tests", "timestamp": 1_790_000_000});
    let whole = |critical: &Value, optional: &Value| json!({"critical": critical, "optional": optional});
    let with = |value: &Value, name: &str, member: Value| {
        let mut value = value.clone();
        value[name] = member;
        value
    };
    let good = whole(&critical, &optional);
    let text = good.to_string();
    let value = match payload {
        Payload::Good => good,
        Payload::Spaced => return serde_json::to_vec_pretty(&good).expect("JSON can be written"),
        Payload::MembersInAnotherOrder => return format!(r#"{{"optional":{optional},"critical":{critical}}}"#).into(),
        Payload::NoOptional => json!({"critical": critical}),
        Payload::EmptyOptional => whole(&critical, &json!({})),
        Payload::OptionalNull => whole(&critical, &Value::Null),
        Payload::MoreInOptional => whole(&critical, &with(&optional, "more", json!({"a": [1, 2], "b": null}))),
        Payload::CreatorNotText => whole(&critical, &with(&optional, "creator", 1.into())),
        Payload::TimestampNotWhole => whole(&critical, &with(&optional, "timestamp", 1.5.into())),
        Payload::TimestampText => whole(&critical, &with(&optional, "timestamp", "now".into())),
        Payload::MoreInCritical => whole(&with(&critical, "more", 1.into()), &optional),
        Payload::MoreAtTheTop => with(&good, "more", 1.into()),
        Payload::MoreInIdentity => whole(&with(&critical, "identity", with(&identity, "more", 1.into())), &optional),
        Payload::MoreInImage => whole(&with(&critical, "image", with(&image, "more", 1.into())), &optional),
        Payload::TwiceAtTheTop => return format!(r#"{{"critical":{critical},{}"#, &text[1..]).into(),
        Payload::TwiceInCritical => return text.replace(r#""type":"#, r#""type":"x","type":"#).into(),
        Payload::TwiceInOptional => return text.replace(r#""creator":"#, r#""creator":"x","creator":"#).into(),
        Payload::OtherCase => return text.replace("critical", "Critical").into(),
        Payload::OtherType => whole(&with(&critical, "type", "cosign container image signature".into()), &optional),
        Payload::NoType => whole(&json!({"image": image, "identity": identity}), &optional),
        Payload::DigestNotOne => return text.replace(digest, "sha256:zz").into(),
        Payload::DigestUpperCase => return text.replace(digest, &digest.to_uppercase().replace("SHA", "sha")).into(),
        Payload::ReferenceNotOne => return text.replace(reference, "no reference").into(),
        Payload::ReferenceEmpty => return text.replace(reference, "").into(),
        Payload::InvalidUtf8 => {
            return text
                .replace("tests", "te\u{1}")
                .into_bytes()
                .into_iter()
                .map(|byte| if byte == 1 { 0xff } else { byte })
                .collect();
        }
        Payload::NotJson => return b"critical: none".to_vec(),
        Payload::TrailingText => return format!("{text}{text}").into(),
        Payload::Null => Value::Null,
    };
    value.to_string().into()
}
