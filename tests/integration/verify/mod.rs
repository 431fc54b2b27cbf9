//! `sealgate verify` as its users see it: exit status, standard output, standard error.

mod identity;
mod reports;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sealgate::image::Digest;
use serde_json::Value;

use crate::support::{Answer, DockerRegistry, Gpg, Liar, Pushed, Reply, SEALGATE, Scratch, sealgate};

/// A registry, a key, and a lookaside tree that a folder of registries.d leads to.
struct Scenario {
    registry: DockerRegistry,
    gpg: Gpg,
    key: String,
    folder: Scratch,
}

impl Scenario {
    fn new() -> Self {
        let registry = DockerRegistry::start();
        let gpg = Gpg::new();
        let key = gpg.generate("Release <release@example.com>");
        let folder = Scratch::new();
        gpg.export_to(&key, folder.path().join("release.asc"));
        let tree = folder.path().join("signatures").display().to_string();
        folder.write("registries.d/default.yaml", format!("default-docker: {{lookaside: 'file://{tree}'}}\n"));
        Self { registry, gpg, key, folder }
    }

    fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.host())
    }

    /// Puts a signature into the lookaside tree.
    fn sign(&self, key: &str, repository: &str, digest: &Digest, reference: &str) {
        let folder = format!("signatures/{repository}@sha256={}", digest.hex());
        let next = fs::read_dir(self.folder.path().join(&folder)).map_or(0, Iterator::count) + 1;
        let signature = self.gpg.sign_image(key, digest, &self.image(reference));
        self.folder.write(&format!("{folder}/signature-{next}"), signature);
    }

    async fn signed(&self, name: &str) -> Pushed {
        let pushed = self.registry.push(name, "1", name).await;
        self.sign(&self.key, name, &pushed.digest, &format!("{name}:1"));
        pushed
    }

    /// A policy file with one rule about everything on the registry.
    fn policy(&self, name: &str, more: &str, rule: &str) -> PathBuf {
        let text = format!(
            "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {{name: production}}\nspec:\n  keys:\n    \
             release: {{file: {}/release.asc}}\n{more}  rules:\n  - name: all\n    images: ['{}']\n    {rule}\n",
            self.folder.path().display(),
            self.registry.host()
        );
        self.folder.write(name, text)
    }

    fn requiring(&self) -> PathBuf {
        self.policy("policy.yaml", "", "require: [{signedBy: [release]}]")
    }

    fn verify(&self, policy: &Path, image: &str, more: &[&str]) -> Answer {
        let registries = self.folder.path().join("registries.d").display().to_string();
        let policy = policy.display().to_string();
        let mut all = vec!["--tls-verify=false", "--policy", &policy, "--registries-d", &registries, image];
        all.extend(more);
        verify(&all)
    }

    fn json(&self, policy: &Path, image: &str, more: &[&str]) -> (i32, Value) {
        let answer = self.verify(policy, image, &[&["-o", "json"], more].concat());
        let value =
            serde_json::from_str(&answer.stdout).unwrap_or_else(|_| panic!("{} {}", answer.stdout, answer.stderr));
        (answer.status, value)
    }
}

fn verify(arguments: &[&str]) -> Answer {
    sealgate(&[&["verify"], arguments].concat())
}

#[tokio::test]
async fn a_signed_image_is_verified_and_the_answer_says_on_what_it_stands() {
    let scenario = Scenario::new();
    let pushed = scenario.signed("acme/web").await;
    let policy = scenario.requiring();
    let image = scenario.image("acme/web:1");
    let answer = scenario.verify(&policy, &format!("docker://{image}"), &[]);
    assert_eq!((answer.status, answer.stderr.as_str()), (0, ""), "{}", answer.stdout);
    assert_eq!(answer.stdout.lines().next(), Some(format!("verified {image}").as_str()));
    let fingerprint = format!("release 0x{}", scenario.key);
    for said in ["production/all", &pushed.digest.to_string(), &fingerprint] {
        assert!(answer.stdout.contains(said), "{said}: {}", answer.stdout);
    }
    assert!(!answer.stdout.contains('\u{1b}'), "colours in a pipe: {}", answer.stdout);

    let (status, report) = scenario.json(&policy, &image, &[]);
    assert_eq!(status, 0);
    assert_eq!(report["image"], image);
    assert_eq!(report["allowed"], true);
    assert_eq!(report["verdict"], "verified");
    assert_eq!(report["mode"], "enforce");
    assert_eq!(report["rule"], "production/all");
    assert_eq!(report["digest"], pushed.digest.to_string());
    assert_eq!(report["pinned"], format!("{image}@{}", pushed.digest));
    assert_eq!(report["keys"][0]["signer"], "release");
    assert_eq!(report["keys"][0]["fingerprint"], scenario.key);
    assert_eq!(report["signatures"][0]["counts"], true);
    assert_eq!(report["signatures"][0]["identity"], image);
    assert_eq!(report.get("code"), None);
}

#[tokio::test]
async fn an_unsigned_image_is_refused_with_every_place_that_was_asked() {
    let scenario = Scenario::new();
    scenario.registry.push("acme/web", "1", "one").await;
    let image = scenario.image("acme/web:1");
    let (status, report) = scenario.json(&scenario.requiring(), &image, &[]);
    assert_eq!(status, 1);
    assert_eq!((&report["verdict"], &report["code"]), (&"refused".into(), &"unsigned".into()));
    let urls: Vec<_> =
        report["sources"].as_array().unwrap().iter().map(|source| source["url"].as_str().unwrap()).collect();
    assert!(urls.iter().any(|url| url.starts_with("file://")), "{urls:?}");
    assert!(urls.iter().any(|url| url.contains(scenario.registry.host())), "{urls:?}");
    assert!(report["nextStep"].as_str().unwrap().contains("sealgate sign"), "{report}");
    let answer = scenario.verify(&scenario.requiring(), &image, &[]);
    assert_eq!(answer.stdout.lines().next(), Some(format!("refused {image} [unsigned]").as_str()));
    assert!(answer.stdout.contains("asked"), "{}", answer.stdout);
}

#[tokio::test]
async fn a_refusal_names_each_signature_and_why_it_does_not_count() {
    let scenario = Scenario::new();
    let pushed = scenario.registry.push("acme/web", "1", "one").await;
    let stranger = scenario.gpg.generate("Stranger <stranger@example.org>");
    scenario.sign(&stranger, "acme/web", &pushed.digest, "acme/web:1");
    scenario.sign(&scenario.key, "acme/web", &pushed.digest, "acme/web:2");
    let (status, report) = scenario.json(&scenario.requiring(), &scenario.image("acme/web:1"), &[]);
    assert_eq!(status, 1);
    let seen = report["signatures"].as_array().unwrap();
    let code = |key: &str| {
        let short = &key[key.len() - 16..];
        let signature = seen.iter().find(|signature| signature["key"].as_str().unwrap_or_default().ends_with(short));
        signature.unwrap_or_else(|| panic!("{key}: {report:#}"))["code"].clone()
    };
    assert_eq!(code(&stranger), "untrusted-key");
    assert_eq!(code(&scenario.key), "wrong-identity");
    let answer = scenario.verify(&scenario.requiring(), &scenario.image("acme/web:1"), &[]);
    assert!(answer.stdout.contains("does not count [untrusted-key]"), "{}", answer.stdout);
    assert!(answer.stdout.contains("does not count [wrong-identity]"), "{}", answer.stdout);
}

#[tokio::test]
async fn what_can_not_be_asked_is_undecided_and_what_is_not_there_is_not_found() {
    let mut scenario = Scenario::new();
    scenario.signed("acme/web").await;
    let image = scenario.image("acme/web:1");
    let (status, report) = scenario.json(&scenario.requiring(), &scenario.image("acme/web:gone"), &[]);
    assert_eq!((status, &report["code"]), (1, &"manifest-unknown".into()));
    scenario.registry.stop();
    let (status, report) = scenario.json(&scenario.requiring(), &image, &[]);
    assert_eq!(status, 3, "{report}");
    assert_eq!((&report["verdict"], &report["allowed"]), (&"undecided".into(), &false.into()));
    assert_eq!(report["code"], "registry-unavailable");
    let answer = scenario.verify(&scenario.requiring(), &image, &[]);
    assert!(answer.stdout.starts_with("undecided "), "{}", answer.stdout);
}

#[tokio::test]
async fn what_the_user_has_to_mend_ends_with_2_and_says_where() {
    let scenario = Scenario::new();
    let image = scenario.image("acme/web:1");
    let usage = |answer: Answer, said: &str| {
        assert_eq!((answer.status, answer.stdout.as_str()), (2, ""), "{}", answer.stderr);
        assert!(answer.stderr.contains(said), "{said}: {}", answer.stderr);
    };
    let broken = scenario.policy("broken.yaml", "", "requre: [{signedBy: [release]}]");
    usage(scenario.verify(&broken, &image, &[]), "broken.yaml:10:5");
    let broken = scenario.folder.write("broken.json", "{\n  \"defualt\": []\n}");
    usage(scenario.verify(&broken, &image, &[]), "broken.json:2:3");
    usage(scenario.verify(&scenario.folder.path().join("gone"), &image, &[]), "gone");
    usage(scenario.verify(&scenario.requiring(), "registry.example.com/UPPER", &[]), "lower case");
    usage(verify(&[&image]), "--policy");
    usage(scenario.verify(&scenario.requiring(), &image, &["--config", "/not/there.yaml"]), "/not/there.yaml");
    usage(scenario.verify(&scenario.requiring(), &image, &["--cert-dir", "/not/there"]), "--cert-dir");
    scenario.folder.write("certs/a.crt", "no certificate");
    let certificates = scenario.folder.path().join("certs").display().to_string();
    usage(
        scenario.verify(&scenario.requiring(), &image, &["--cert-dir", &certificates]),
        &format!("error: --cert-dir {certificates}: {certificates}/a.crt must have PEM certificates"),
    );
    for (name, content, said) in [
        ("auth.json", "password", "is not a Docker configuration file"),
        ("auth.json", r#"{"auths": {"HOST": {"auth": "!"}}}"#, "the entry for this registry is not base64"),
    ] {
        let file = scenario.folder.write(name, content.replace("HOST", scenario.registry.host())).display().to_string();
        let answer = scenario.verify(&scenario.requiring(), &image, &["--authfile", &file]);
        assert!(answer.stderr.contains("--authfile: ") && answer.stderr.contains(&file), "{}", answer.stderr);
        usage(answer, said);
    }
    usage(
        scenario.verify(&scenario.requiring(), &image, &["--authfile", "gone.json"]),
        "error: --authfile: gone.json: there is no such file",
    );
    let registries = format!("registries: [{{scope: '{}', caFile: gone.crt}}]", scenario.registry.host());
    let head = "apiVersion: sealgate.dev/v1\nkind: Configuration\n";
    let broken = scenario.folder.write("ca.yaml", format!("{head}{registries}\n")).display().to_string();
    usage(
        scenario.verify(&scenario.requiring(), &image, &["--config", &broken]),
        "gone.crt can't be read: No such file or directory",
    );
    let broken = scenario.folder.write("broken.d/a.yaml", "docker: {'r.example.com/a:1': {lookaside: 'file:///x'}}");
    let broken = broken.parent().unwrap().display().to_string();
    let policy = scenario.requiring().display().to_string();
    usage(verify(&["--policy", &policy, "--registries-d", &broken, &image]), "a.yaml:1:10");
}

#[tokio::test]
async fn a_namespace_can_only_tighten() {
    let scenario = Scenario::new();
    scenario.signed("acme/web").await;
    scenario.policy("policies/cluster.yaml", "", "require: [{signedBy: [release]}]");
    scenario.folder.write(
        "policies/billing.yaml",
        format!(
            "apiVersion: sealgate.dev/v1\nkind: SealPolicy\nmetadata: {{name: local, namespace: billing}}\nspec:\n  rules:\n  - name: none\n    \
             images: ['{}']\n    deny: {{reason: not here}}\n",
            scenario.registry.host()
        ),
    );
    let policies = scenario.folder.path().join("policies");
    let image = scenario.image("acme/web:1");
    assert_eq!(scenario.json(&policies, &image, &[]).0, 0);
    assert_eq!(scenario.json(&policies, &image, &["--namespace", "other"]).0, 0);
    let (status, report) = scenario.json(&policies, &image, &["-n", "billing"]);
    assert_eq!((status, &report["code"]), (1, &"denied-by-policy".into()), "{report}");
}

#[tokio::test]
async fn what_a_mode_does_not_enforce_is_refused_and_what_is_exempted_is_allowed() {
    let scenario = Scenario::new();
    scenario.registry.push("acme/web", "1", "one").await;
    let image = scenario.image("acme/web:1");
    let warn = scenario.policy("warn.yaml", "  mode: warn\n", "require: [{signedBy: [release]}]");
    let (status, report) = scenario.json(&warn, &image, &[]);
    assert_eq!((status, &report["verdict"], &report["mode"]), (1, &"not_enforced".into(), &"warn".into()));
    assert_eq!((&report["code"], &report["allowed"]), (&"unsigned".into(), &false.into()));
    let answer = scenario.verify(&warn, &image, &[]);
    assert!(answer.stdout.contains("warn: the gate would let it run all the same"), "{}", answer.stdout);

    let exemption = format!(
        "  exemptions:\n  - {{name: legacy, images: ['{}/acme/web'], until: 2099-01-01T00:00:00Z, approvedBy: jane@example.com, reason: INC-1234}}\n",
        scenario.registry.host()
    );
    let exempted = scenario.policy("exempted.yaml", &exemption, "require: [{signedBy: [release]}]");
    let (status, report) = scenario.json(&exempted, &image, &[]);
    assert_eq!((status, &report["verdict"], &report["code"]), (0, &"exempted".into(), &"unsigned".into()));
    assert_eq!(report["exemption"]["approvedBy"], "jane@example.com");
    let allowed = scenario.policy("allowed.yaml", "", "allow: {reason: checked elsewhere}");
    let (status, report) = scenario.json(&allowed, &image, &[]);
    assert_eq!((status, &report["verdict"]), (0, &"allowed_by_rule".into()));
    assert_eq!(report["message"], "checked elsewhere");
}

#[tokio::test]
async fn policy_json_wants_every_manifest_of_an_index_signed() {
    let scenario = Scenario::new();
    let one = scenario.registry.push("acme/index", "one", "one").await;
    let two = scenario.registry.push("acme/index", "two", "two").await;
    scenario.registry.push_index("acme/index", "1", &[(&one, "amd64"), (&two, "s390x")]).await;
    let key = scenario.folder.path().join("release.asc").display().to_string();
    let policy = scenario.folder.write(
        "policy.json",
        format!(r#"{{"default":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}"}}]}}"#),
    );
    let image = scenario.image("acme/index:1");
    scenario.sign(&scenario.key, "acme/index", &one.digest, "acme/index:1");
    let (status, report) = scenario.json(&policy, &image, &[]);
    assert_eq!((status, &report["code"]), (1, &"unsigned".into()), "{report:#}");
    scenario.sign(&scenario.key, "acme/index", &two.digest, "acme/index:1");
    let (status, report) = scenario.json(&policy, &image, &[]);
    assert_eq!((status, &report["rule"]), (0, &"policy.json/default".into()), "{report:#}");
}

#[tokio::test]
async fn a_reader_that_has_gone_changes_no_status() {
    let scenario = Scenario::new();
    scenario.signed("acme/web").await;
    scenario.registry.push("acme/cron", "1", "cron").await;
    let policy = scenario.requiring().display().to_string();
    let registries = scenario.folder.path().join("registries.d").display().to_string();
    let status = |arguments: &[&str]| {
        let mut command = Command::new(SEALGATE);
        command.args(["verify", "--tls-verify=false", "--policy", &policy, "--registries-d", &registries]);
        let closed = || {
            let (reader, writer) = std::io::pipe().expect("a pipe can be made");
            drop(reader);
            writer
        };
        command.args(arguments).stdin(Stdio::null()).stdout(closed()).stderr(closed());
        // The log goes to standard error too.
        command.env("SEALGATE_LOG", "debug").status().expect("sealgate can be started").code()
    };
    for output in ["text", "json"] {
        assert_eq!(status(&["--output", output, &scenario.image("acme/web:1")]), Some(0), "{output}");
        assert_eq!(status(&["--output", output, &scenario.image("acme/cron:1")]), Some(1), "{output}");
    }
    assert_eq!(status(&["registry.example.com/UPPER"]), Some(2));
}

#[tokio::test]
async fn an_answer_that_can_not_be_written_is_none() {
    let scenario = Scenario::new();
    scenario.signed("acme/web").await;
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let output = Command::new(SEALGATE)
        .args(["verify", "--tls-verify=false", "--policy", &scenario.requiring().display().to_string()])
        .args(["--registries-d", &scenario.folder.path().join("registries.d").display().to_string()])
        .arg(scenario.image("acme/web:1"))
        .stdin(Stdio::null())
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .expect("sealgate can be started");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("can't be written to standard output: No space left"), "{stderr}");
}

#[test]
fn the_version_is_printed_and_help_is_no_error() {
    let run = |argument: &str| {
        let output = Command::new(SEALGATE).arg(argument).output().expect("it can be started");
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
    };
    let (status, version) = run("--version");
    assert_eq!(status, Some(0));
    assert!(version.starts_with(concat!("sealgate ", env!("CARGO_PKG_VERSION"))), "{version}");
    let (status, help) = run("--help");
    assert_eq!(status, Some(0));
    for command in ["serve", "gateway", "verify", "store"] {
        assert!(help.contains(command), "{help}");
    }
}

#[tokio::test]
async fn a_lookaside_of_registries_d_is_asked_with_its_query_which_is_printed_nowhere() {
    let scenario = Scenario::new();
    let pushed = scenario.signed("acme/web").await;
    let signature =
        scenario.folder.path().join(format!("signatures/acme/web@sha256={}/signature-1", pushed.digest.hex()));
    let signature = fs::read(signature).unwrap();
    let asked = format!("/s/acme/web@sha256={}/signature-1?sv=1&sig=SECRET", pushed.digest.hex());
    let server = Liar::start(move |request| match &*request.path {
        path if path == asked => Reply::new(200, &[], &signature),
        path if path.ends_with("?sv=1&sig=SECRET") => Reply::empty(404),
        _ => Reply::empty(403),
    });
    let policy = scenario.requiring();
    let place = format!("http://{}/s?sv=1&sig=SECRET", server.host());
    let place_of = |members: &str| {
        scenario.folder.write("registries.d/default.yaml", members);
        scenario.verify(&policy, &scenario.image("acme/web:1"), &["-o", "json"])
    };
    for members in [
        format!("default-docker: {{lookaside: '{place}'}}\n"),
        format!("docker: {{'{}': {{lookaside: '{place}'}}}}\n", scenario.registry.host()),
        format!(
            "docker: {{'{}': {{sigstore: '{place}', later: {{x: 1}}}}}}\nrekor: '{place}'\n",
            scenario.registry.host()
        ),
    ] {
        let answer = place_of(&members);
        assert_eq!(answer.status, 0, "{members}: {} {}", answer.stdout, answer.stderr);
        assert!(
            !format!("{}{}", answer.stdout, answer.stderr).contains("SECRET"),
            "{} {}",
            answer.stdout,
            answer.stderr
        );
        // What means nothing here is left out, and said.
        let unknown = members.contains("later");
        assert_eq!(answer.stderr.contains("default.yaml:1:"), unknown, "{}", answer.stderr);
        assert_eq!(
            answer.stderr.contains("default.yaml:2:1: the unknown member \"rekor\""),
            unknown,
            "{}",
            answer.stderr
        );
    }
    let expired = place_of(&format!("default-docker: {{lookaside: '{place}_EXPIRED'}}\n"));
    assert_eq!(expired.status, 3, "{}", expired.stdout);
    assert!(expired.stdout.contains("answers 403") && !expired.stdout.contains("SECRET"), "{}", expired.stdout);
    assert!(!expired.stdout.to_lowercase().contains("credential"), "{}", expired.stdout);
}

#[test]
fn what_is_typed_wrongly_is_repeated_without_the_secrets_of_its_urls() {
    for arguments in [
        &[
            "verify",
            "web",
            "--registry-url",
            "https://user:SECRET@r.example.com/x?sig=SECRET",
            "--expected-identity",
            "web",
        ][..],
        &["store", "export", "https://user:SECRET@r.example.com/?sig=SECRET", "file"],
        &["sign", "r.example.com/web:1", "--sign-by", "x@example.com", "--to", "https://s.example.com/?sig=SECRET"],
        &["sign", "r.example.com/web:1", "--sign-by", "x@example.com", "--to", "https://u:SECRET@s.example.com/"],
    ] {
        let Answer { status, stderr, .. } = sealgate(arguments);
        assert_eq!(status, 2, "{arguments:?}: {stderr}");
        assert!(stderr.contains("example.com/") && !stderr.contains("SECRET"), "{arguments:?}: {stderr}");
    }
}
