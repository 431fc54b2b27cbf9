use std::{fs, io, os::unix::fs::symlink, path::Path};

use tempfile::TempDir;

use super::*;
use crate::diagnostic::Diagnostic;
use crate::files::{ReadError, follower::SETTLE_INTERVAL};
use crate::image::Reference;
use crate::signature::{Fingerprint, Unsupported};

const SECOND: Duration = Duration::from_secs(1);
const MAX_STALE: Duration = Duration::from_mins(1);

/// A policy whose files are looked at when the test says so.
struct Watched<L> {
    reload: PolicyReload<L>,
    freshness: PolicyFreshness,
    start: Instant,
}

impl<L: FnMut(&mut BTreeSet<PathBuf>) -> Result<Policy, PolicyLoadError>> Watched<L> {
    fn loading(first: Policy, load: L) -> Self {
        let start = Instant::now();
        let current = Arc::new(CurrentPolicy::with_max_stale(first, Some(MAX_STALE), start));
        let (metrics, status) = (Arc::new(Metrics::new()), Arc::new(ReadStatus::new(start)));
        let freshness =
            PolicyFreshness::new(Arc::clone(&status), Arc::clone(&current), Arc::clone(&metrics), POLL_INTERVAL);
        Self { reload: PolicyReload::new(load, current, metrics, status), freshness, start }
    }

    /// Looks at the files, so long after the start.
    fn check(&mut self, after: Duration) -> NextCheck {
        self.reload.check(self.start + after)
    }

    fn generation(&self) -> u64 {
        self.reload.current.generation()
    }

    fn metric(&self, name: &str) -> String {
        let text = String::from_utf8(self.reload.metrics.text().unwrap()).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.rsplit(' ').next().unwrap_or_default().to_owned()
    }

    /// Returns whether the files count as readable, and the policy as available, this long after the start.
    fn state(&mut self, after: Duration) -> (bool, bool) {
        self.freshness.check(self.start + after);
        (self.metric("sealgate_policy_readable") == "1", self.metric("sealgate_policy_unavailable") == "0")
    }
}

fn files(path: &Path) -> PolicyFiles {
    PolicyFiles { path: path.to_owned(), accept_anything_by_default: false, pin_required: true }
}

/// Watches real files.
fn watched(path: &Path) -> Watched<impl FnMut(&mut BTreeSet<PathBuf>) -> Result<Policy, PolicyLoadError>> {
    let files = files(path);
    Watched::loading(files.load().unwrap(), move |folders: &mut _| files.load_noting_folders(folders))
}

fn with_digest(content: &str) -> Policy {
    Policy { digest: Some(Digest::sha256(content.as_bytes())), ..Policy::default() }
}

fn policy(rules: &[String]) -> String {
    let head = "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {name: p}\nspec:\n  rules:\n";
    format!("{head}{}", rules.concat())
}

fn rule(name: &str, image: &str, action: &str) -> String {
    format!("  - {{name: {name}, images: [{image}], {action}: {{reason: tests}}}}\n")
}

fn denies(policy: &Policy, image: &str) -> bool {
    let rule = policy.cluster.rules.get(&Reference::for_image(image).unwrap());
    matches!(rule.map(|rule| &rule.action), Some(Action::Deny { .. }))
}

#[test]
fn a_panic_is_a_refused_policy_and_the_next_one_is_loaded() {
    let mut looks = 0;
    let mut watched = Watched::loading(Policy::default(), |folders: &mut BTreeSet<PathBuf>| {
        looks += 1;
        match looks {
            1 => folders.extend([PathBuf::from("policies"), PathBuf::from("keys")]),
            2..=4 => {
                folders.insert(PathBuf::from("policies"));
                panic!("of the test");
            }
            _ => return Ok(with_digest("next")),
        }
        Ok(Policy::default())
    });
    let both = BTreeSet::from([PathBuf::from("policies"), PathBuf::from("keys")]);
    for look in 0..4 {
        assert_eq!(watched.check(SETTLE_INTERVAL * look).folders, both, "all that was watched still is");
    }
    assert_eq!(watched.generation(), 1);
    assert_eq!(watched.metric("sealgate_policy_reloads_total{result=\"failure\"}"), "1");
    assert_eq!(watched.metric("sealgate_policy_last_reload_successful"), "0");
    watched.check(SETTLE_INTERVAL * 4);
    watched.check(SETTLE_INTERVAL * 5);
    assert_eq!(watched.generation(), 2);
    assert_eq!(watched.metric("sealgate_policy_last_reload_successful"), "1");
}

/// A rule that denies stands at the end, so that every part that ends before it allows what the whole denies.
#[test]
fn a_file_that_is_written_in_place_takes_effect_whole_however_long_that_takes() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("p.yaml");
    fs::write(&path, policy(&[rule("deny", "a.example.com", "deny")])).unwrap();
    let mut watched = watched(folder.path());
    let mut rules = vec![rule("all", "\"*\"", "allow")];
    rules.extend((0..40).map(|number| rule(&format!("r{number}"), &format!("r{number}.example.com"), "allow")));
    rules.push(rule("deny", "a.example.com", "deny"));
    let whole = policy(&rules);
    let mut at = Duration::ZERO;
    // As an editor or `cp` does it: truncated, then written on. Parts end within lines and between them.
    for written in (0..whole.len()).step_by(97).chain(whole.match_indices('\n').map(|(end, _)| end + 1)) {
        fs::write(&path, &whole[..written]).unwrap();
        for _ in 0..3 {
            // Several looks at what does not change for nearly an interval.
            watched.check(at);
            at += SETTLE_INTERVAL / 4;
            let in_force = watched.reload.current.get();
            assert!(denies(&in_force.policy, "a.example.com/x"), "{written} of {} bytes count", whole.len());
            if written < whole.len() {
                assert_eq!(in_force.generation, 1, "{written} of {} bytes count", whole.len());
            }
        }
    }
    watched.check(at + SETTLE_INTERVAL);
    assert_eq!(watched.generation(), 2);
    assert!(denies(&watched.reload.current.get().policy, "a.example.com/x"));
}

/// All that a policy is made of belongs to the read.
#[test]
fn a_change_counts_when_keys_and_every_other_file_have_settled_too() {
    let folder = TempDir::new().unwrap();
    let production = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/production/keys");
    let key = |name: &str| fs::read_to_string(production.join(name)).unwrap();
    let (release, security) = (key("acme-release.asc"), key("acme-security.asc"));
    let text = "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {name: p}\nspec:\n  keys:\n    release: {file: \
                keys/release.asc}\n  rules:\n  - {name: r, images: [\"*\"], require: [{signedBy: [release]}]}\n";
    fs::create_dir(folder.path().join("keys")).unwrap();
    let keys = folder.path().join("keys/release.asc");
    fs::write(&keys, &release).unwrap();
    fs::write(folder.path().join("p.yaml"), text).unwrap();
    let mut watched = watched(folder.path());
    watched.check(Duration::ZERO);
    // One policy file settles while the keys go on changing.
    fs::write(folder.path().join("p.yaml"), text.replace("name: r,", "name: s,")).unwrap();
    let mut at = SECOND;
    for content in [&release[..release.len() / 2], &security, &release[..10], &security] {
        fs::write(&keys, content).unwrap();
        watched.check(at);
        at += SETTLE_INTERVAL.mul_f64(0.95);
        watched.check(at);
        assert_eq!(watched.generation(), 1);
    }
    watched.check(at + SECOND);
    assert_eq!(watched.generation(), 2);
    let current = watched.reload.current.get();
    let (_, rule) = current.policy.cluster.rules.iter().next().unwrap();
    assert_eq!(rule.id.as_str(), "p/s");
}

#[test]
fn a_swap_takes_effect_one_interval_after_it_was_seen() {
    let folder = TempDir::new().unwrap();
    let swap = |version: &str, action: &str| {
        let data = folder.path().join(format!("..{version}"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join("p.yaml"), policy(&[rule("r", "\"*\"", action)])).unwrap();
        symlink(format!("..{version}"), folder.path().join("..data_tmp")).unwrap();
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    };
    swap("1", "allow");
    symlink("..data/p.yaml", folder.path().join("p.yaml")).unwrap();
    let mut watched = watched(folder.path());
    swap("2", "deny");
    assert_eq!(watched.check(SECOND).again, Some(SETTLE_INTERVAL));
    assert_eq!(watched.check(SECOND + SETTLE_INTERVAL).again, None);
    assert_eq!(watched.generation(), 2);
    // As does a file that is renamed over another.
    fs::remove_file(folder.path().join("p.yaml")).unwrap();
    fs::write(folder.path().join(".new"), policy(&[rule("r", "\"*\"", "allow")])).unwrap();
    fs::rename(folder.path().join(".new"), folder.path().join("p.yaml")).unwrap();
    watched.check(SECOND * 10);
    watched.check(SECOND * 10 + SETTLE_INTERVAL);
    assert_eq!(watched.generation(), 3);
}

/// Every reason for which there is no policy, with whether the files were read.
#[test]
fn a_policy_that_is_not_loaded_stays_in_force_and_is_told_of_by_what_is_wrong() {
    let path = || PathBuf::from("policies");
    let unreadable = |why| PolicyLoadError::Unreadable { path: path(), why };
    let io = move |code| unreadable(ReadError::Io(io::Error::from_raw_os_error(code)));
    let diagnostics = || vec![Diagnostic::of_file("p.yaml", "wrong")];
    let [input_output, no_permission, too_many_open_files] = [5, 13, 24];
    let cases: [(Box<dyn Fn() -> PolicyLoadError>, bool); 9] = [
        (Box::new(move || io(too_many_open_files)), false),
        (Box::new(move || io(input_output)), false),
        (Box::new(move || io(no_permission)), false),
        (Box::new(move || unreadable(ReadError::Missing)), false),
        (Box::new(move || PolicyLoadError::Empty { path: path() }), false),
        (Box::new(move || PolicyLoadError::KeysUnreadable(diagnostics())), false),
        (Box::new(move || PolicyLoadError::Refused(diagnostics())), true),
        (Box::new(move || PolicyLoadError::AcceptsAnything { path: path() }), true),
        (Box::new(move || PolicyLoadError::TooManyFiles { path: path(), limit: 1 }), true),
    ];
    for (error, is_read) in cases {
        let failing = std::cell::Cell::new(false);
        let load = |_: &mut BTreeSet<PathBuf>| if failing.get() { Err(error()) } else { Ok(with_digest("one")) };
        let mut watched = Watched::loading(with_digest("one"), load);
        let what = error().to_string();
        watched.check(SECOND);
        failing.set(true);
        for second in 2..=70 {
            watched.check(SECOND * second);
        }
        assert_eq!(watched.state(SECOND * 60), (is_read, true), "{what}");
        assert_eq!(watched.state(SECOND * 61), (is_read, true), "{what}");
        assert_eq!(
            watched.state(SECOND * 62),
            (is_read, false),
            "{what}: whatever the reason, the files may say otherwise"
        );
        assert_eq!(watched.generation(), 1, "{what}");
        assert_eq!(watched.metric("sealgate_policy_last_reload_successful"), "0", "{what}");
        assert_eq!(watched.metric("sealgate_policy_reloads_total{result=\"failure\"}"), "1", "{what}");
        failing.set(false);
        watched.check(SECOND * 71);
        assert_eq!(watched.state(SECOND * 72), (true, true), "{what}");
        assert_eq!(watched.metric("sealgate_policy_last_reload_successful"), "1", "{what}");
    }
}

#[test]
fn an_unreadable_key_file_is_not_taken_for_a_mistake_in_the_policy() {
    let folder = TempDir::new().unwrap();
    for (file, is_unread) in [("p.yaml/key.asc", true), ("missing.asc", false), (".", false)] {
        let text = format!(
            "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {{name: p}}\nspec:\n  keys:\n    k: {{file: \
             {file}}}\n  rules:\n  - {{name: r, images: [\"*\"], require: [{{signedBy: [k]}}]}}\n"
        );
        fs::write(folder.path().join("p.yaml"), text).unwrap();
        let error = files(folder.path()).load().unwrap_err();
        assert_eq!(error.is_unread(), is_unread, "{error:?}");
        assert!(error.to_string().contains("p.yaml:6:"), "{error}");
    }
}

#[test]
fn files_that_never_settle_are_told_of_like_files_that_can_not_be_read() {
    let mut looks = 0;
    let mut watched = Watched::loading(with_digest("one"), |_: &mut BTreeSet<PathBuf>| {
        looks += 1;
        Ok(with_digest(&looks.to_string()))
    });
    for second in 1..=70 {
        watched.check(SECOND * second);
        if second == 10 {
            assert_eq!(watched.state(SECOND * 10), (true, true));
        }
    }
    assert_eq!(watched.state(SECOND * 70), (false, false));
    assert_eq!(watched.generation(), 1);
    assert_eq!(watched.metric("sealgate_policy_last_reload_successful"), "0");
}

#[test]
fn a_changed_policy_that_has_settled_is_a_fresh_one() {
    let content = std::cell::Cell::new("one");
    let mut watched = Watched::loading(with_digest("one"), |_: &mut BTreeSet<PathBuf>| Ok(with_digest(content.get())));
    watched.check(SECOND * 40);
    content.set("two");
    watched.check(SECOND * 50);
    watched.check(SECOND * 52);
    assert_eq!(watched.generation(), 2);
    assert_eq!(watched.reload.current.stale_for(watched.start + SECOND * 53), SECOND);
}

#[test]
fn keys_that_are_passed_over_are_in_the_metrics_while_their_policy_is_in_force() {
    let key = Some(Fingerprint("AB".into()));
    let unusable = KeyNotice::Unusable(UnusableKey { key, why: Unsupported::Curve("secp256k1".into()) });
    let warning = |notice| KeyWarning { signer: "acme-release".into(), notice };
    let warnings = vec![warning(unusable), warning(KeyNotice::Revocation(None))];
    let policy = Policy { key_warnings: warnings, ..Policy::default() };
    let metrics = Metrics::new();
    let lines = |metrics: &Metrics| {
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        text.lines()
            .filter(|line| line.starts_with("sealgate_unusable_key_info{"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    announce(&metrics, 1, &policy);
    let expected = r#"sealgate_unusable_key_info{fingerprint="AB",key="acme-release",reason="curve secp256k1"} 1"#;
    assert_eq!(lines(&metrics), [expected]);
    announce(&metrics, 2, &Policy::default());
    assert_eq!(lines(&metrics), [] as [&str; 0]);
}
