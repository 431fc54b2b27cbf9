//! Policy folders on a real file system: read, watched, and put in force.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sealgate::{
    files::{ChangeWatcher, PolicyFiles, PolicyLoadError, SETTLE_INTERVAL},
    gate::CurrentPolicy,
    image::Reference,
    policy::Action,
    startup::PolicyWatcher,
    telemetry::Metrics,
};

use crate::support::{Gpg, Scratch, code_blocks, wait_until};

/// So slow that a test which depends on it would be noticed.
const NEVER: Duration = Duration::from_hours(1);
const OFTEN: Duration = Duration::from_millis(50);

fn policy(name: &str, rules: &str) -> String {
    format!(
        "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {{name: {name}}}\nspec:\n  rules:\n{rules}"
    )
}

/// A policy with one rule whose reason can be recognized.
fn denying(reason: &str) -> String {
    policy("p", &format!("  - {{name: r, images: [\"*\"], deny: {{reason: {reason}}}}}\n"))
}

fn files(path: impl Into<PathBuf>) -> PolicyFiles {
    PolicyFiles { path: path.into(), accept_anything_by_default: false, pin_required: true }
}

fn refused(path: &Path) -> String {
    files(path).load().expect_err("this is refused").to_string()
}

/// A policy that is watched.
struct Watched {
    current: Arc<CurrentPolicy>,
    metrics: Arc<Metrics>,
    watcher: Option<PolicyWatcher>,
}

impl Watched {
    fn start(path: &Path, poll: Duration) -> Self {
        let files = files(path);
        let current = Arc::new(CurrentPolicy::new(files.load().expect("a good policy")));
        let metrics = Arc::new(Metrics::new());
        let watcher = PolicyWatcher::start_polling(files, Arc::clone(&current), Arc::clone(&metrics), poll);
        Self { current, metrics, watcher: Some(watcher.expect("a thread")) }
    }

    fn reason(&self) -> String {
        let loaded = self.current.get();
        let rule = loaded.policy.cluster.rules.get(&Reference::for_image("nginx").expect("an image")).expect("a rule");
        match &rule.action {
            Action::Deny { reason } => reason.to_string(),
            action => panic!("{action:?}"),
        }
    }

    fn metric(&self, name: &str) -> String {
        let text = String::from_utf8(self.metrics.text().expect("metrics")).expect("text");
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.rsplit(' ').next().unwrap_or_default().to_owned()
    }

    fn wait_for_reason(&self, reason: &str) {
        wait_until(&format!("the policy says {reason}"), || (self.reason() == reason).then_some(()));
    }

    fn wait_for_metric(&self, name: &str, value: &str) {
        wait_until(&format!("{name} is {value}"), || (self.metric(name) == value).then_some(()));
    }
}

#[test]
fn a_folder_is_read_flat_with_links_followed_and_hidden_names_left_out() {
    let folder = Scratch::new();
    folder.write("a.yaml", policy("a", "  - {name: r, images: [a.example.com], deny: {reason: x}}\n"));
    folder.write("b.yml", policy("b", "  - {name: r, images: [b.example.com], deny: {reason: x}}\n"));
    folder.write("c.json", r#"{"apiVersion": "sealgate.dev/v1", "kind": "ClusterSealPolicy", "metadata": {"name": "c"}, "spec": {"rules": [{"name": "r", "images": ["c.example.com"], "deny": {"reason": "x"}}]}}"#);
    folder.write("sub/d.yaml", "not read");
    folder.write(".e.yaml", "not read");
    folder.write("notes.txt", "not read");
    let elsewhere = Scratch::new();
    let target = elsewhere.write("f", policy("f", "  - {name: r, images: [f.example.com], deny: {reason: x}}\n"));
    symlink(target, folder.path().join("f.yaml")).expect("a link");
    let policy = files(folder.path()).load().expect("a good policy");
    let scopes: Vec<String> = policy.cluster.rules.iter().map(|(scope, _)| scope.to_string()).collect();
    assert_eq!(scopes, ["a.example.com", "b.example.com", "c.example.com", "f.example.com"]);
    let one = files(folder.path().join("a.yaml")).load().expect("a good policy");
    assert_eq!(one.cluster.rules.iter().count(), 1);
}

#[test]
fn the_same_folder_elsewhere_is_the_same_policy() {
    let load = |text: &str| {
        let folder = Scratch::new();
        folder.write("a.yaml", text);
        files(folder.path()).load().expect("a good policy").digest
    };
    assert_eq!(load(&denying("one")), load(&denying("one")));
    assert_ne!(load(&denying("one")), load(&denying("two")));
}

#[test]
fn what_can_not_be_read_says_so_in_one_line() {
    let folder = Scratch::new();
    let missing = folder.path().join("missing");
    assert_eq!(refused(&missing), format!("policies {}: there is no such file", missing.display()));
    assert!(refused(folder.path()).contains("the folder has no policy file"));
    fs::create_dir(folder.path().join("a.yaml")).expect("a folder");
    assert!(refused(folder.path()).ends_with("a.yaml: this is not a file"));
    let other = Scratch::new();
    other.write("a.yaml", vec![b'#'; (4 << 20) + 1]);
    assert!(refused(other.path()).contains("more than 4194304 bytes"));
    let many = Scratch::new();
    for number in 0..=1_000 {
        many.write(&format!("{number}.yaml"), "");
    }
    assert!(matches!(files(many.path()).load(), Err(PolicyLoadError::TooManyFiles { .. })));
}

#[test]
fn a_private_key_and_an_empty_one_are_refused_at_their_place() {
    let gpg = Gpg::new();
    let fingerprint = gpg.generate("Jane <jane@example.com>");
    let folder = Scratch::new();
    let private = gpg.run(
        &["--pinentry-mode", "loopback", "--passphrase", "", "--armor", "--export-secret-keys", &fingerprint],
        b"",
    );
    folder.write("private.asc", private);
    folder.write("empty.asc", "");
    let text =
        denying("x").replace("  rules:", "  keys:\n    a: {file: private.asc}\n    b: {file: empty.asc}\n  rules:");
    let path = folder.write("p.yaml", text);
    let message = refused(folder.path());
    assert!(
        message.contains(&format!("{}:6:15: key file \"private.asc\" of \"a\": this is a private key", path.display())),
        "{message}"
    );
    assert!(
        message.contains(&format!("{}:7:15: key file \"empty.asc\" of \"b\": no OpenPGP certificate", path.display())),
        "{message}"
    );
    assert!(!message.contains("BEGIN PGP"), "{message}");
}

#[test]
fn a_policy_json_that_accepts_anything_is_served_only_when_told_so() {
    let folder = Scratch::new();
    let path = folder.write("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
    assert!(refused(&path).contains("acceptAnythingByDefault: true"));
    let told = PolicyFiles { path, accept_anything_by_default: true, pin_required: true };
    assert!(told.load().is_ok());
}

#[test]
fn a_tag_scope_that_requires_signatures_is_not_served_where_pods_name_digests() {
    let folder = Scratch::new();
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/production/keys/acme-release.asc");
    let signed = serde_json::json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": key}]);
    let reject = serde_json::json!([{"type": "reject"}]);
    let with = |tag: &serde_json::Value, repository: &serde_json::Value| {
        let scopes = serde_json::json!({"r.example.com/web:1": tag, "r.example.com/web": repository});
        let policy = serde_json::json!({"default": reject, "transports": {"docker": scopes}});
        folder.write("policy.json", policy.to_string())
    };
    let path = with(&signed, &reject);
    let message = refused(&path);
    assert!(message.contains("the scope r.example.com/web:1 of this policy.json can let no pod run"), "{message}");
    assert!(message.contains("help: write the scope r.example.com/web;"), "{message}");
    let unpinned = PolicyFiles { path, accept_anything_by_default: false, pin_required: false };
    assert!(unpinned.load().is_ok());
    // What a tag scope says without signatures, both passes of the webhook see.
    assert!(files(with(&reject, &signed)).load().is_ok());
}

#[test]
fn an_edit_takes_effect_without_a_restart() {
    let folder = Scratch::new();
    folder.write("p.yaml", denying("one"));
    let watched = Watched::start(folder.path(), NEVER);
    assert_eq!(watched.reason(), "one");
    assert_eq!(watched.metric("sealgate_policy_last_reload_successful"), "1");
    folder.write("p.yaml", denying("two"));
    watched.wait_for_reason("two");
    // As editors do it: a new file in place of the old one.
    folder.replace("p.yaml", denying("three"));
    watched.wait_for_reason("three");
    assert_eq!(watched.current.get().generation, 3);
    watched.wait_for_metric("sealgate_policy_reloads_total{result=\"success\"}", "3");
}

/// As the kubelet mounts a ConfigMap: files are links through `..data`, which is replaced as a whole.
#[test]
fn a_config_map_that_is_swapped_takes_effect() {
    let folder = Scratch::new();
    let swap = |version: &str, reason: &str| {
        folder.write(&format!("..{version}/p.yaml"), denying(reason));
        let new = folder.path().join("..data_tmp");
        symlink(format!("..{version}"), &new).expect("a link");
        fs::rename(new, folder.path().join("..data")).expect("a rename");
    };
    swap("1", "one");
    symlink("..data/p.yaml", folder.path().join("p.yaml")).expect("a link");
    let watched = Watched::start(folder.path(), NEVER);
    swap("2", "two");
    fs::remove_dir_all(folder.path().join("..1")).expect("the old version is removed");
    watched.wait_for_reason("two");
    swap("3", "three");
    watched.wait_for_reason("three");
}

/// The rule that denies stands at the end, after a wider one that allows: every part of the file allows what the whole denies.
#[test]
fn a_file_that_a_slow_writer_writes_in_place_takes_effect_whole() {
    let folder = Scratch::new();
    let deny = "  - {name: deny, images: [acme.example.com], deny: {reason: whole}}\n";
    let path = folder.write("p.yaml", policy("p", deny));
    let watched = Watched::start(folder.path(), OFTEN);
    let denied = || {
        let image = Reference::for_image("acme.example.com/web").expect("an image");
        let loaded = watched.current.get();
        matches!(loaded.policy.cluster.rules.get(&image).map(|rule| &rule.action), Some(Action::Deny { .. }))
    };
    let attempt = |name: &str| {
        // Longer than files are waited for: many looks fall into the writing.
        let begun = Instant::now();
        let mut longest_pause = Duration::ZERO;
        let mut file = fs::File::create(&path).expect("it can be written");
        let head = policy("p", &format!("  - {{name: {name}, images: [\"*\"], allow: {{reason: part}}}}\n"));
        file.write_all(head.as_bytes()).expect("it can be written");
        let mut last = Instant::now();
        let mut line = 0;
        while begun.elapsed() < SETTLE_INTERVAL * 2 {
            std::thread::sleep(Duration::from_millis(10));
            line += 1;
            let rule = format!("  - {{name: r{line}, images: [r{line}.example.com], allow: {{reason: part}}}}\n");
            file.write_all(rule.as_bytes()).expect("it can be written");
            longest_pause = longest_pause.max(last.elapsed());
            last = Instant::now();
            // A writer that the machine let stand still for an interval is taken for one that is done.
            if longest_pause >= SETTLE_INTERVAL / 2 {
                return false;
            }
            assert!(denied(), "a part of the file is in force after {line} lines");
        }
        file.write_all(deny.as_bytes()).expect("it can be written");
        drop(file);
        wait_until("the whole file is in force", || {
            let loaded = watched.current.get();
            loaded.policy.cluster.rules.iter().any(|(_, rule)| rule.id.as_str() == format!("p/{name}")).then_some(())
        });
        assert!(denied());
        true
    };
    let mut number = 0;
    loop {
        fs::write(&path, policy("p", deny)).expect("it can be written");
        wait_until("the file before is in force", || denied().then_some(()));
        if attempt(&format!("all-{number}")) {
            break;
        }
        number += 1;
    }
}

#[test]
fn a_broken_edit_changes_nothing_until_it_is_mended() {
    let folder = Scratch::new();
    folder.write("p.yaml", denying("one"));
    let watched = Watched::start(folder.path(), OFTEN);
    // Whole: half an edit that is looked at is another failure.
    folder.replace("p.yaml", denying("one").replace("deny", "dney"));
    watched.wait_for_metric("sealgate_policy_last_reload_successful", "0");
    assert_eq!(watched.reason(), "one");
    // Told once, and not at every look.
    let failures = watched.metric("sealgate_policy_reloads_total{result=\"failure\"}");
    folder.write("notes.txt", "something else");
    folder.replace("p.yaml", denying("one"));
    watched.wait_for_metric("sealgate_policy_last_reload_successful", "1");
    assert_eq!(watched.metric("sealgate_policy_reloads_total{result=\"failure\"}"), failures);
    assert_eq!(watched.current.get().generation, 1, "the same policy is the same generation");
    folder.replace("p.yaml", denying("two"));
    watched.wait_for_reason("two");
}

#[test]
fn a_policy_that_is_deleted_stays_in_force_and_its_return_is_seen() {
    let folder = Scratch::new();
    folder.write("policies/p.yaml", denying("one"));
    let watched = Watched::start(&folder.path().join("policies"), OFTEN);
    fs::remove_dir_all(folder.path().join("policies")).expect("the folder is removed");
    watched.wait_for_metric("sealgate_policy_last_reload_successful", "0");
    assert_eq!(watched.reason(), "one");
    folder.write("policies/p.yaml", denying("two"));
    watched.wait_for_reason("two");
}

#[test]
fn a_key_file_in_another_folder_counts_and_its_removal_refuses_the_policy() {
    let gpg = Gpg::new();
    let (jane, joe) = (gpg.generate("Jane <jane@example.com>"), gpg.generate("Joe <joe@example.com>"));
    let folder = Scratch::new();
    folder.write("keys/release.asc", gpg.export(&jane));
    let text = policy("p", "  - {name: r, images: [\"*\"], require: [{signedBy: [release]}]}\n")
        .replace("  rules:", "  keys:\n    release: {file: ../keys/release.asc}\n  rules:");
    folder.write("policies/p.yaml", text);
    let watched = Watched::start(&folder.path().join("policies"), NEVER);
    let expiry = |fingerprint: &str| {
        format!("sealgate_key_expiry_timestamp_seconds{{fingerprint=\"{fingerprint}\",key=\"release\"}}")
    };
    assert_eq!(watched.metric(&expiry(&jane)), "inf");
    folder.write("keys/release.asc", gpg.export(&joe));
    watched.wait_for_metric(&expiry(&joe), "inf");
    assert_eq!(watched.metric(&expiry(&jane)), "", "the key before is gone");
    fs::remove_file(folder.path().join("keys/release.asc")).expect("the key is removed");
    watched.wait_for_metric("sealgate_policy_last_reload_successful", "0");
    assert_eq!(watched.current.get().generation, 2);
}

#[test]
fn a_watcher_looks_when_something_changed_and_is_quiet_otherwise() {
    let folder = Scratch::new();
    let other = Scratch::new();
    let file = folder.write("a", "1");
    let looks = Arc::new(AtomicUsize::new(0));
    let watcher = {
        let (looks, folder, other) = (Arc::clone(&looks), folder.path().to_owned(), other.path().to_owned());
        ChangeWatcher::start("test", NEVER, move || {
            // Looking is no change, or it would go on for ever.
            assert!(fs::read(&file).is_ok());
            looks.fetch_add(1, Ordering::SeqCst);
            BTreeSet::from([folder.clone(), other.clone(), folder.join("missing")])
        })
        .expect("a thread")
    };
    wait_until("it has looked at the start", || (looks.load(Ordering::SeqCst) >= 2).then_some(()));
    folder.write("b", "1");
    wait_until("it has looked at the change", || (looks.load(Ordering::SeqCst) >= 3).then_some(()));
    other.write("c", "1");
    wait_until("it has looked at the other change", || (looks.load(Ordering::SeqCst) >= 4).then_some(()));
    drop(watcher);
    let at_the_end = looks.load(Ordering::SeqCst);
    assert!(at_the_end < 10, "{at_the_end} looks for two changes");
}

#[test]
fn a_watcher_that_is_dropped_ends() {
    let folder = Scratch::new();
    folder.write("p.yaml", denying("one"));
    let mut watched = Watched::start(folder.path(), OFTEN);
    drop(watched.watcher.take());
    assert_eq!(Arc::strong_count(&watched.current), 1);
}

#[test]
fn the_shipped_policies_load() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for entry in fs::read_dir(root.join("policies")).expect("policies") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path).load().unwrap_or_else(|error| panic!("{error}"));
            seen += 1;
        }
    }
    assert!(seen >= 2);
    files(root.join("manifests/base/policies")).load().unwrap_or_else(|error| panic!("{error}"));
    let production = files(root.join("policies/production")).load().expect("loaded above");
    assert!(production.namespaces.contains_key("payments"));
}

/// Every `yaml` block of docs/policy.md that is a whole document is a policy that loads; every other one is a part of
/// one, and is told apart by a first line that says so.
#[test]
fn the_examples_of_the_documentation_load() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/policy.md")).expect("docs/policy.md");
    let mut documents = 0;
    let mut rules = 0;
    for block in code_blocks(&text, "yaml") {
        let folder = Scratch::new();
        for key in ["acme-release", "acme-security"] {
            let bytes = fs::read(root.join(format!("policies/production/keys/{key}.asc"))).expect("a key");
            folder.write(&format!("keys/{key}.asc"), bytes);
        }
        let block = if block.starts_with("apiVersion:") {
            documents += 1;
            block.replace("        ...\n", "")
        } else {
            rules += 1;
            let keys = "  keys:\n    acme-release: {file: keys/acme-release.asc}\n    acme-security: {file: keys/acme-security.asc}\n";
            let rest = if block.contains("rules:") {
                ""
            } else {
                "  rules:\n  - {name: r, images: [\"*\"], deny: {reason: x}}\n"
            };
            let indented = format!("  {}\n", block.trim_end().replace('\n', "\n  "));
            let keys = if indented.contains("\n  keys:") || indented.starts_with("  keys:") { "" } else { keys };
            format!(
                "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {{name: example}}\nspec:\n{keys}{indented}{rest}"
            )
        };
        // A namespace's policy stands on a cluster's.
        if !block.contains("kind: ClusterSealPolicy") {
            folder.write("cluster.yaml", denying("x"));
        }
        folder.write("example.yaml", &block);
        files(folder.path()).load().unwrap_or_else(|error| panic!("{block}\n{error}"));
    }
    assert!(documents >= 2 && rules >= 5, "{documents} documents and {rules} parts");
}

#[test]
fn the_schemas_in_docs_are_those_of_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    for (name, schema) in [
        ("policy.schema.json", sealgate::policy::schema()),
        ("configuration.schema.json", sealgate::configuration::schema()),
    ] {
        let expected = format!("{:#}\n", schema.as_value());
        let path = root.join(name);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &expected).expect("docs can be written");
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == expected,
            "docs/{name} is not what the code says; make it anew with: UPDATE=1 cargo test --test integration schemas"
        );
    }
}
