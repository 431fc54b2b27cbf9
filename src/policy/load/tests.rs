use std::num::NonZeroUsize;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::image::Reference;
use crate::policy::{Action, Identity, Mode, Platforms};
use crate::signature::testing::Key;

const RELEASE: &[u8] = include_bytes!("../../../policies/production/keys/acme-release.asc");
const SECURITY: &[u8] = include_bytes!("../../../policies/production/keys/acme-security.asc");
const DIGEST: &str = "sha256:4028782c08eae4a8c9a28bf661c0a8d1c2fc8e19dbaae2b018b21011197e1484";

fn read_key(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    match path.to_str().expect("paths of tests are texts") {
        "policies/release.asc" | "policies/again.asc" => Ok(RELEASE.to_vec()),
        "policies/security.asc" => Ok(SECURITY.to_vec()),
        "policies/both.asc" => Ok([RELEASE, SECURITY, RELEASE].concat()),
        "policies/empty.asc" => Ok(Vec::new()),
        "policies/text.asc" => Ok(b"not a key\n".to_vec()),
        "policies/folder" => Err(KeyFileError::NotAFile),
        _ => Err(KeyFileError::Missing),
    }
}

fn file(name: &str, text: &str) -> SourceFile {
    SourceFile { name: name.into(), folder: "policies".into(), bytes: text.into() }
}

fn load_texts(files: &[(&str, &str)]) -> Result<Policy, Vec<Diagnostic>> {
    let files: Vec<SourceFile> = files.iter().map(|(name, text)| file(name, text)).collect();
    load(&files, &mut read_key)
}

fn loaded(text: &str) -> Policy {
    load_texts(&[("p.yaml", text)]).unwrap_or_else(|mistakes| panic!("{}", shown(&mistakes)))
}

/// Each diagnostic in one line, without snippets.
fn shown(mistakes: &[Diagnostic]) -> String {
    let one_line = |mistake: &Diagnostic| {
        let text = mistake.to_string();
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains(" |") && !line.contains("| ")).collect();
        lines.join("\n")
    };
    mistakes.iter().map(one_line).collect::<Vec<_>>().join("\n")
}

#[test]
fn warnings_about_key_files_are_bounded_in_all() {
    // Of two signers: a good key each, and many of a version that is not known.
    let keys = ["release", "security"].map(|name| [Key::new(name).public(), [0xc6, 1, 9].repeat(600)].concat());
    let mut read_key = |path: &Path| Ok(keys[usize::from(path.ends_with("security.asc"))].clone());
    let rules = "  - name: r\n    images: [r.example.com]\n    require: [{signedBy: [release, security]}]\n";
    let policy = load(&[file("p.yaml", &with_rules(rules))], &mut read_key).unwrap();
    assert_eq!(policy.key_warnings.len(), MAX_KEY_WARNINGS);
    assert!(policy.key_warnings.iter().any(|warning| &*warning.signer == "security"));
}

fn refused(text: &str) -> String {
    match load_texts(&[("p.yaml", text)]) {
        Ok(_) => panic!("this was loaded:\n{text}"),
        Err(mistakes) => shown(&mistakes),
    }
}

/// A document whose `rules` begin in line 9.
fn with_rules(rules: &str) -> String {
    format!(
        "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {{name: p}}\nspec:\n  keys:\n    release: {{file: release.asc}}\n    security: {{file: security.asc}}\n  rules:\n{rules}"
    )
}

/// A document with one rule whose requirement is in line 12.
fn with_requirement(requirement: &str) -> String {
    with_rules(&format!("  - name: r\n    images: [r.example.com]\n    require:\n    - {requirement}\n"))
}

fn rule<'a>(policy: &'a Policy, image: &str) -> &'a Rule {
    policy.cluster.rules.get(&Reference::for_image(image).unwrap()).unwrap()
}

#[test]
fn everything_that_the_format_has_is_read() {
    let policy = loaded(&with_rules(&format!(
        r#"  - name: plain
    images: [R.example.com:443/acme, "*.example.org"]
    require:
    - signedBy: [release]
  - name: strict
    images: [r.example.com/acme/strict]
    mode: warn
    platforms: each
    require:
    - signedBy: [release, security]
      threshold: 2
      identity: {{match: exact}}
      maxAge: 90d
    - signedBy: [security]
      identity: repository
  - name: fixed
    images: [r.example.com/fixed]
    platforms: index
    require:
    - signedBy: [release]
      identity: {{exactReference: r.example.com/other:1}}
    - signedBy: [release]
      identity: {{exactRepository: r.example.com/other}}
    - signedBy: [release]
      identity: {{remap: {{from: Mirror.example.com/acme, to: r.example.com}}}}
  - name: free
    images: ["r.example.com/free@{DIGEST}"]
    allow: {{reason: " because "}}
  - name: rest
    images: ["*"]
    deny: {{reason: no}}
  exemptions:
  - name: e
    images: [r.example.com/acme/strict/legacy]
    namespaces: [billing]
    until: 2027-01-31T00:00:00+01:00
    approvedBy: jane@example.com
    reason: INC-1
"#
    )));
    let Action::Require(plain) = &rule(&policy, "r.example.com/acme/x").action else { panic!() };
    assert_eq!(plain.platforms, Platforms::IndexOrEach);
    assert_eq!(plain.all[0].identity, Identity::RepoDigestOrExact);
    assert_eq!(plain.all[0].threshold, NonZeroUsize::MIN);
    assert_eq!(plain.all[0].signed_by[0].certificates.len(), 1);
    assert_eq!(rule(&policy, "a.example.org/x").id.as_str(), "p/plain");
    let strict = rule(&policy, "r.example.com/acme/strict");
    assert_eq!(strict.mode, Some(Mode::Warn));
    let Action::Require(strict) = &strict.action else { panic!() };
    assert_eq!(strict.platforms, Platforms::Each);
    assert_eq!(strict.all.len(), 2);
    assert_eq!(strict.all[0].threshold.get(), 2);
    assert_eq!(strict.all[0].identity, Identity::Exact);
    assert_eq!(strict.all[0].max_age, Some(std::time::Duration::from_hours(90 * 24)));
    assert_eq!(strict.all[1].identity, Identity::Repository);
    let Action::Require(fixed) = &rule(&policy, "r.example.com/fixed").action else { panic!() };
    assert_eq!(fixed.platforms, Platforms::Index);
    assert_eq!(fixed.all[0].identity, Identity::ExactReference(Reference::parse("r.example.com/other:1").unwrap()));
    assert_eq!(
        fixed.all[2].identity,
        Identity::Remap { from: "mirror.example.com/acme".into(), to: "r.example.com".into() }
    );
    let Action::Allow { reason } = &rule(&policy, &format!("r.example.com/free@{DIGEST}")).action else { panic!() };
    assert_eq!(&**reason, "because");
    assert!(matches!(rule(&policy, "nginx").action, Action::Deny { .. }));
    let exemption = &policy.cluster.exemptions[0];
    assert_eq!(exemption.id.as_str(), "p/e");
    assert_eq!(exemption.until, "2027-01-30T23:00:00Z".parse::<Timestamp>().unwrap());
    let image = Reference::for_image("r.example.com/acme/strict/legacy").unwrap();
    assert!(exemption.covers(&image, Some("billing"), Timestamp::UNIX_EPOCH));
    assert!(!exemption.covers(&image, Some("other"), Timestamp::UNIX_EPOCH));
}

#[test]
fn the_document_s_mode_holds_where_a_rule_has_none() {
    let text = with_rules(
        "  - {name: a, images: [a.example.com], deny: {reason: x}}\n  - {name: b, mode: audit, images: [b.example.com], deny: {reason: x}}\n",
    );
    let policy = loaded(&text.replace("spec:\n", "spec:\n  mode: warn\n"));
    assert_eq!(rule(&policy, "a.example.com/x").mode, Some(Mode::Warn));
    assert_eq!(rule(&policy, "b.example.com/x").mode, Some(Mode::Audit));
}

#[test]
fn a_signer_s_file_may_hold_several_certificates_and_each_counts_once() {
    let text = with_requirement("signedBy: [both]");
    let text = text
        .replace("security: {file: security.asc}", "both: {file: both.asc}")
        .replace("    release: {file: release.asc}\n", "");
    let policy = loaded(&text);
    let Action::Require(require) = &rule(&policy, "r.example.com/x").action else { panic!() };
    assert_eq!(require.all[0].signed_by[0].certificates.len(), 2);
}

#[test]
fn a_namespace_has_a_layer_of_its_own() {
    let cluster = with_requirement("signedBy: [release]");
    let namespace =
        cluster.replace("ClusterSealPolicy", "SealPolicy").replace("{name: p}", "{name: p, namespace: billing}");
    let policy =
        loaded(&format!("{cluster}---\n{namespace}---\napiVersion: sealgate.dev/v1\nkind: PolicyTest\nwhatever: 1\n"));
    assert_eq!(policy.cluster.rules.iter().count(), 1);
    let layer = &policy.namespaces["billing"];
    let (_, rule) = layer.rules.iter().next().unwrap();
    assert_eq!(rule.id.as_str(), "billing/p/r");
}

#[test]
fn a_policy_can_be_written_in_json() {
    let text = r#"{"apiVersion": "sealgate.dev/v1", "kind": "ClusterSealPolicy", "metadata": {"name": "j"},
        "spec": {"rules": [{"name": "r", "images": ["*"], "deny": {"reason": "all"}}]}}"#;
    let policy = load_texts(&[("p.json", text)]).unwrap_or_else(|mistakes| panic!("{}", shown(&mistakes)));
    assert_eq!(policy.cluster.dialect, Dialect::Sealgate);
    assert_eq!(rule(&policy, "nginx").id.as_str(), "j/r");
}

#[test]
fn policy_json_is_a_layer_by_itself() {
    let text = r#"{"default": [{"type": "reject"}]}"#;
    let policy = load_texts(&[("policy.json", text)]).unwrap_or_else(|mistakes| panic!("{}", shown(&mistakes)));
    assert_eq!(policy.cluster.dialect, Dialect::PolicyJson);
    let mixed = load_texts(&[("policy.json", text), ("a.yaml", &with_requirement("signedBy: [release]"))]);
    let message = shown(&mixed.unwrap_err());
    assert!(
        message.starts_with("policy.json:1:1: a policy.json and a ClusterSealPolicy can't be put together"),
        "{message}"
    );
    assert!(message.contains("note: a.yaml:3:12: the other one"), "{message}");
    let two = load_texts(&[("policy.json", text), ("b.json", text)]);
    assert!(shown(&two.unwrap_err()).contains("two policy.json files"));
    let broken = load_texts(&[("policy.json", r#"{"default": [{"type": "reject"}], "defualt": []}"#)]);
    assert!(shown(&broken.unwrap_err()).contains("did you mean \"default\"?"));
}

#[test]
fn the_same_bytes_have_the_same_digest_in_any_order_and_keys_count() {
    let one = with_requirement("signedBy: [release]");
    let two =
        with_rules("  - {name: x, images: [x.example.com], deny: {reason: x}}\n").replace("{name: p}", "{name: q}");
    let digest = |files: &[(&str, &str)]| load_texts(files).unwrap().digest.unwrap();
    let first = digest(&[("a.yaml", &one), ("b.yaml", &two)]);
    assert_eq!(first, digest(&[("b.yaml", &two), ("a.yaml", &one)]));
    assert_ne!(first, digest(&[("a.yaml", &one), ("c.yaml", &two)]));
    assert_ne!(first, digest(&[("a.yaml", &one)]));
    let files = [file("a.yaml", &one)];
    let other = load(&files, &mut |path| match path.to_str() {
        Some("policies/release.asc") => Ok([RELEASE, b"\n"].concat()),
        _ => read_key(path),
    });
    assert_ne!(other.unwrap().digest.unwrap(), digest(&[("a.yaml", &one)]));
}

#[test]
fn every_mistake_is_refused_at_its_place_with_what_to_do() {
    for (text, expected) in [
        // Files and documents.
        ("", "p.yaml: the file is empty\n  help: delete it, or write a policy"),
        ("# nothing\n", "p.yaml: the file is empty"),
        ("- a\n", "p.yaml:1:1: a policy is a map, found a list"),
        ("kind: ClusterSealPolicy\n", "p.yaml:1:1: the field \"apiVersion\" is missing"),
        ("apiversion: sealgate.dev/v1\n", "p.yaml:1:1: unknown field \"apiversion\"\n  help: did you mean apiVersion?"),
        (
            "apiVersion: sealgate.dev/v2\nkind: X\n",
            "p.yaml:1:13: this apiVersion is not known here: the text \"sealgate.dev/v2\"\n  help: write sealgate.dev/v1",
        ),
        (
            "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolcy\n",
            "p.yaml:2:7: this kind is not known here: the text \"ClusterSealPolcy\"\n  help: did you mean ClusterSealPolicy?",
        ),
        ("apiVersion: sealgate.dev/v1\nkind: Configuration\n", "p.yaml:2:7: this is the configuration, not a policy"),
        ("apiVersion: sealgate.dev/v1\nkind: PolicyTest\n", "p.yaml: there is no policy here"),
        (
            "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {name: p}\nspec: {}\n",
            "p.yaml:3:18: policy \"p\" has neither rules nor exemptions",
        ),
        (
            "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {name: p}\nspec:\n  rules:\n",
            "p.yaml:5:3: \"rules\" should be a list, found nothing",
        ),
        (
            "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {name: p}\nspec:\n\trules: []\n",
            "p.yaml:5:1: a tab stands in the indentation",
        ),
        (
            "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {name: p, namespace: x}\nspec: {rules: [{name: r, images: [\"*\"], deny: {reason: x}}]}\n",
            "p.yaml:3:21: a ClusterSealPolicy has no namespace",
        ),
        (
            "apiVersion: sealgate.dev/v1\nkind: SealPolicy\nmetadata: {name: p}\nspec: {rules: [{name: r, images: [\"*\"], deny: {reason: x}}]}\n",
            "p.yaml:3:12: a SealPolicy needs a namespace",
        ),
        (
            "apiVersion: sealgate.dev/v1\nkind: SealPolicy\nmetadata: {name: p, namespace: N_1}\nspec: {rules: [{name: r, images: [\"*\"], deny: {reason: x}}]}\n",
            "p.yaml:3:32: a namespace's name has",
        ),
        (
            "apiVersion: sealgate.dev/v1\nkind: SealPolicy\nmetadata: {name: p, namespace: n}\nspec: {rules: [{name: r, images: [\"*\"], deny: {reason: x}}]}\n",
            "p.yaml: there are policies of namespaces, but none of the cluster",
        ),
        // Rules.
        (
            &with_rules("    name: r\n"),
            "p.yaml:9:5: \"rules\" should be a list, found a map\n  help: a dash may be missing",
        ),
        (
            &with_rules("  - images: [a.example.com]\n    deny: {reason: x}\n"),
            "p.yaml:9:5: the field \"name\" is missing",
        ),
        (&with_rules("  - name: r\n    deny: {reason: x}\n"), "p.yaml:9:5: the field \"images\" is missing"),
        (
            &with_rules("  - name: r\n    images: []\n    deny: {reason: x}\n"),
            "p.yaml:10:5: rule \"r\" covers no image",
        ),
        (
            &with_rules("  - name: r\n    images: a.example.com\n    deny: {reason: x}\n"),
            "p.yaml:10:13: \"images\" should be a list, found the text \"a.example.com\"\n  help: write it as a list: [a.example.com]",
        ),
        (
            &with_rules("  - name: r\n    images: [nginx]\n    deny: {reason: x}\n"),
            "p.yaml:10:14: \"nginx\" is not a scope: a scope begins with a registry's host; \"docker.io/library/nginx\" may be meant\n  help: write docker.io/library/nginx",
        ),
        (
            &with_rules("  - name: r\n    images: [10.0.5:5000/x]\n    deny: {reason: x}\n"),
            "p.yaml:10:14: \"10.0.5:5000/x\" is not a scope: a host that ends in a number must be an IPv4 address",
        ),
        (
            &with_rules("  - name: r\n    images: [\"*.0.0.05\"]\n    deny: {reason: x}\n"),
            "p.yaml:10:14: \"*.0.0.05\" is not a scope: a host that ends in a number must be an IPv4 address",
        ),
        (
            &with_rules("  - name: r\n    images: [a.example.com.]\n    deny: {reason: x}\n"),
            "p.yaml:10:14: \"a.example.com.\" is not a scope: the host must be a DNS name",
        ),
        (
            &with_rules("  - name: r\n    images: [a.example.com/x/*]\n    deny: {reason: x}\n"),
            "p.yaml:10:14: \"a.example.com/x/*\" is not a scope: a star stands only alone (*) or in front of a domain (*.example.com)\n  help: write a.example.com/x: it covers everything below it",
        ),
        (
            &with_rules("  - name: r\n    images: [\"a.example.com/x:1\"]\n    deny: {reason: x}\n"),
            "p.yaml:10:14: \"a.example.com/x:1\" is not a scope: a scope has no tag, because a tag says nothing about what an image is; use the repository or a digest\n  help: write a.example.com/x",
        ),
        (
            &with_rules("  - name: r\n    images: [a.example.com]\n"),
            "p.yaml:9:11: rule \"r\" does not say what it does\n  help: add one of require, allow and deny",
        ),
        (
            &with_rules("  - name: r\n    images: [a.example.com]\n    allow: {reason: x}\n    deny: {reason: y}\n"),
            "p.yaml:12:5: rule \"r\" has both allow and deny\n  note: p.yaml:11:5: the other one",
        ),
        (
            &with_rules("  - name: r\n    images: [a.example.com]\n    deny: {}\n"),
            "p.yaml:11:11: the field \"reason\" is missing",
        ),
        (
            &with_rules("  - name: r\n    images: [a.example.com]\n    allow: {reason: \"  \"}\n"),
            "p.yaml:11:21: a reason is expected, found a blank text",
        ),
        (
            &with_rules("  - name: r\n    images: [a.example.com]\n    allow: {reason: x}\n    platforms: each\n"),
            "p.yaml:12:5: platforms says which signatures of an index count; without require there are none",
        ),
        (
            &with_rules("  - name: r\n    mode: enfroce\n    images: [a.example.com]\n    deny: {reason: x}\n"),
            "p.yaml:10:11: \"enfroce\" is not known here\n  help: did you mean enforce?",
        ),
        (
            &with_rules("  - name: a/b\n    images: [a.example.com]\n    deny: {reason: x}\n"),
            "p.yaml:9:11: the name of a rule has 1 to 63 characters",
        ),
        (
            &with_rules(
                "  - {name: r, images: [a.example.com], deny: {reason: x}}\n  - {name: r, images: [b.example.com], deny: {reason: x}}\n",
            ),
            "p.yaml:10:12: two rules of this policy are called \"r\"\n  note: p.yaml:9:12: the other one",
        ),
        (
            &with_rules(
                "  - {name: r, images: [a.example.com], deny: {reason: x}}\n  - {name: s, images: [\"A.example.com:443\"], deny: {reason: x}}\n",
            ),
            "p.yaml:10:24: the scope a.example.com stands in two rules: p/r and p/s\n  note: p.yaml:9:24: it stands here first",
        ),
        (
            &with_rules("  - {name: r, images: [a.example.com, a.example.com], deny: {reason: x}}\n"),
            "p.yaml:9:39: the scope a.example.com stands twice in rule p/r",
        ),
        // Requirements.
        (
            &with_rules("  - name: r\n    images: [a.example.com]\n    require: []\n"),
            "p.yaml:11:5: rule \"r\" requires nothing",
        ),
        (
            &with_rules("  - name: r\n    images: [a.example.com]\n    require:\n      signedBy: [release]\n"),
            "p.yaml:12:7: \"require\" should be a list, found a map\n  help: a dash may be missing",
        ),
        (
            &with_requirement("signdBy: [release]"),
            "p.yaml:12:7: the field \"signedBy\" is missing\np.yaml:12:7: unknown field \"signdBy\"\n  help: did you mean signedBy?",
        ),
        (&with_requirement("signedBy: []"), "p.yaml:12:7: signedBy names no key"),
        (
            &with_requirement("signedBy: [relaese]"),
            "p.yaml:12:18: this policy has no key called \"relaese\"\n  help: did you mean release?",
        ),
        (
            &with_requirement("signedBy: [bob]"),
            "p.yaml:12:18: this policy has no key called \"bob\"\n  help: its keys: release, security",
        ),
        (
            &with_requirement("signedBy: [release, release]"),
            "p.yaml:12:27: \"release\" stands twice in signedBy\n  note: p.yaml:12:18:",
        ),
        (&with_requirement("{signedBy: [release], threshold: 0}"), "p.yaml:12:40: a threshold is at least 1, found 0"),
        (
            &with_requirement("{signedBy: [release], threshold: -1}"),
            "p.yaml:12:40: a threshold is at least 1, found -1",
        ),
        (
            &with_requirement("{signedBy: [release], threshold: 2}"),
            "p.yaml:12:40: a threshold of 2 can't be met: signedBy has 1 different names",
        ),
        (
            &with_requirement("{signedBy: [release], threshold: two}"),
            "p.yaml:12:40: \"threshold\" should be a whole number, found the text \"two\"",
        ),
        (&with_requirement("{signedBy: [release], maxAge: 0s}"), "p.yaml:12:37: maxAge is at least 1s"),
        (&with_requirement("{signedBy: [release], maxAge: 500ms}"), "p.yaml:12:37: maxAge is at least 1s"),
        (
            &with_requirement("{signedBy: [release], maxAge: 101y}"),
            "p.yaml:12:37: maxAge is at least 1s, and at most 100y",
        ),
        (&with_requirement("{signedBy: [release], maxAge: soon}"), "p.yaml:12:37: \"soon\" is not a duration"),
        (
            &with_requirement("{signedBy: [release], maxAge: 90}"),
            "p.yaml:12:37: \"maxAge\" should be a text, found the number 90",
        ),
        (
            &with_requirement("{signedBy: [release], identity: exakt}"),
            "p.yaml:12:39: \"exakt\" is not known here\n  help: did you mean exact?",
        ),
        (
            &with_requirement("{signedBy: [release], identity: {match: exakt}}"),
            "p.yaml:12:47: \"exakt\" is not known here\n  help: did you mean exact?",
        ),
        (
            &with_requirement("{signedBy: [release], identity: {exactReference: a.example.com/x}}"),
            "p.yaml:12:56: exactReference needs a tag or a digest",
        ),
        (
            &with_requirement("{signedBy: [release], identity: {exactRepository: a.example.com/X}}"),
            "p.yaml:12:57: \"a.example.com/X\" is not a repository",
        ),
        (
            &with_requirement("{signedBy: [release], identity: {remap: {from: \"*\", to: b.example.com}}}"),
            "p.yaml:12:54: \"*\" is not a prefix",
        ),
        (
            &with_requirement("{signedBy: [release], identity: {remap: {from: 0xa.0.0.5, to: b.example.com}}}"),
            "p.yaml:12:54: \"0xa.0.0.5\" is not a prefix: a host that ends in a number must be an IPv4 address",
        ),
        (&with_requirement("{signedBy: [release], identity: remap}"), "p.yaml:12:39: the text \"remap\" needs a value"),
        (
            &with_requirement("{signedBy: [release], identity: {match: exact, remap: {from: a, to: b}}}"),
            "p.yaml:12:39: exactly one of these fields is expected",
        ),
    ] {
        let message = refused(text);
        assert!(message.starts_with(expected), "{text}\nexpected {expected}\nfound {message}");
    }
}

#[test]
fn every_mistake_with_a_key_points_at_the_key() {
    for (keys, expected) in [
        (
            "a: {file: missing.asc}",
            "p.yaml:6:15: key file \"missing.asc\" of \"a\": there is no such file\n  help: paths are relative to the folder of this file",
        ),
        ("a: {file: folder}", "p.yaml:6:15: key file \"folder\" of \"a\": this is not a file"),
        ("a: {file: empty.asc}", "p.yaml:6:15: key file \"empty.asc\" of \"a\": no OpenPGP certificate is there"),
        ("a: {file: text.asc}", "p.yaml:6:15: key file \"text.asc\" of \"a\": "),
        ("a: {file: \"\"}", "p.yaml:6:15: a key file's path is expected"),
        ("a: {inline: nothing}", "p.yaml:6:9: the inline key of \"a\": "),
        ("a: {fiel: release.asc}", "p.yaml:6:9: unknown field \"fiel\"\n  help: did you mean file?"),
        ("a: release.asc", "p.yaml:6:8: \"release.asc\" is not known here\n  help: write one of: file, inline"),
        ("\"a b\": {file: security.asc}\n    a: {file: release.asc}", "p.yaml:6:5: the name of a key has"),
        (
            "a: {file: release.asc}\n    b: {file: again.asc}",
            "p.yaml:7:5: one certificate stands under two names: 0x9968D3A107A6AA52DC7779BB3F8661825B653D47 is \"a\" and \"b\"\n  note: p.yaml:6:5: it stands here first",
        ),
        ("a: {file: release.asc}\n    a: {file: again.asc}", "p.yaml:7:5: \"a\" stands twice in this map"),
    ] {
        let text = format!(
            "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {{name: p}}\nspec:\n  keys:\n    {keys}\n  rules:\n  - name: r\n    images: [\"*\"]\n    require:\n    - signedBy: [a]\n"
        );
        let message = refused(&text);
        assert!(message.starts_with(expected), "{text}\nexpected {expected}\nfound {message}");
        assert!(!message.contains("no key called \"a\""), "a broken key is not an unknown one: {message}");
    }
}

#[test]
fn every_mistake_with_an_exemption_is_refused() {
    let fields = [
        "name: e",
        "images: [r.example.com]",
        "until: 2027-01-31T00:00:00Z",
        "approvedBy: jane@example.com",
        "reason: INC-1",
    ];
    let exemption = |fields: &[&str]| {
        let text = with_rules("  - {name: r, images: [\"*\"], deny: {reason: x}}\n");
        format!("{text}  exemptions:\n  - {}\n", fields.join("\n    "))
    };
    loaded(&exemption(&fields));
    for left_out in 0..fields.len() {
        let rest: Vec<&str> =
            fields.iter().enumerate().filter(|(index, _)| *index != left_out).map(|(_, field)| *field).collect();
        let name = fields[left_out].split(':').next().unwrap();
        assert!(refused(&exemption(&rest)).contains(&format!("p.yaml:11:5: the field \"{name}\" is missing")));
    }
    for (index, instead, expected) in [
        (
            2,
            "until: 2027-01-31",
            "p.yaml:13:12: \"2027-01-31\" is not a point in time\n  help: write 2027-01-31T00:00:00Z",
        ),
        (2, "until: never", "p.yaml:13:12: \"never\" is not a point in time"),
        (1, "images: []", "p.yaml:12:5: exemption \"e\" covers no image"),
        (
            1,
            "images: [r.example.com, r.example.com]",
            "p.yaml:12:29: the scope r.example.com stands twice in exemption \"e\"",
        ),
        (3, "approvedBy: \"\"", "p.yaml:14:17: who approved it is expected, found a blank text"),
        (4, "reason: \" \"", "p.yaml:15:13: a reason is expected"),
        (4, "reason: x\n    namespaces: []", "p.yaml:16:5: namespaces names no namespace"),
        (4, "reason: x\n    namespaces: [A]", "p.yaml:16:18: a namespace's name has"),
    ] {
        let mut fields = fields;
        fields[index] = instead;
        let message = refused(&exemption(&fields));
        assert!(message.starts_with(expected), "expected {expected}\nfound {message}");
    }
    let elsewhere =
        exemption(&fields).replace("ClusterSealPolicy", "SealPolicy").replace("{name: p}", "{name: p, namespace: own}");
    let elsewhere = elsewhere.replace("    reason: INC-1", "    reason: INC-1\n    namespaces: [other]");
    assert!(refused(&elsewhere).contains("a policy of namespace own exempts nothing in another one, \"other\""));
}

#[test]
fn what_may_be_there_once_is_found_across_files() {
    let one = with_requirement("signedBy: [release]");
    let message = shown(&load_texts(&[("a.yaml", &one), ("b.yaml", &one)]).unwrap_err());
    assert!(
        message.contains("b.yaml:3:18: two policies are called \"p\"\n  note: a.yaml:3:12: the other one"),
        "{message}"
    );
    assert!(message.contains("b.yaml:10:14: the scope r.example.com stands"), "{message}");
    assert!(message.contains("note: a.yaml:10:14: it stands here first"), "{message}");
}

#[test]
fn many_mistakes_are_told_at_once() {
    let text = with_rules(
        "  - name: a\n    images: [nginx]\n    require:\n    - signedBy: [bob]\n      threshold: 0\n  - name: b\n    image: [b.example.com]\n    deny: {reason: x}\n  - name: c\n    images: [c.example.com]\n",
    );
    let lines: Vec<String> =
        refused(&text).lines().filter(|line| line.starts_with("p.yaml")).map(str::to_owned).collect();
    let places: Vec<&str> = lines.iter().map(|line| &line[..line.find(": ").unwrap()]).collect();
    assert_eq!(places, ["p.yaml:10:14", "p.yaml:12:18", "p.yaml:13:18", "p.yaml:14:5", "p.yaml:15:5", "p.yaml:17:11"]);
}

#[test]
fn a_file_that_is_not_utf8_says_where() {
    let mut bad = file("p.yaml", "apiVersion: ");
    bad.bytes.push(0xff);
    let mistakes = load(&[bad], &mut read_key).unwrap_err();
    assert_eq!(mistakes[0].to_string().lines().next().unwrap(), "p.yaml:1:13: the file is not UTF-8 here");
}

#[test]
fn a_policy_has_a_bounded_number_of_rules() {
    let rules = |from: usize, count: usize| {
        (from..from + count).fold(String::new(), |text, number| {
            format!("{text}  - {{name: r{number}, images: [r{number}.example.com], deny: {{reason: x}}}}\n")
        })
    };
    let half = MAX_RULES / 2;
    let first = with_rules(&rules(0, half));
    let second = with_rules(&rules(half, half)).replace("{name: p}", "{name: q}");
    let third = with_rules(&rules(MAX_RULES, 1)).replace("{name: p}", "{name: s}");
    let policy = load_texts(&[("a.yaml", &first), ("b.yaml", &second)]).unwrap();
    assert_eq!(policy.cluster.rules.iter().count(), MAX_RULES);
    let message = shown(&load_texts(&[("a.yaml", &first), ("b.yaml", &second), ("c.yaml", &third)]).unwrap_err());
    assert_eq!(message, "c.yaml:3:18: a policy has at most 10000 rules");
}

#[test]
fn no_more_diagnostics_are_given_than_can_be_read() {
    let text = with_rules(&"  - {}\n".repeat(1_000));
    let mistakes = load_texts(&[("p.yaml", &text)]).unwrap_err();
    assert_eq!(mistakes.len(), MAX_DIAGNOSTICS + 1);
    assert!(mistakes[..MAX_DIAGNOSTICS].iter().all(|mistake| mistake.snippet.is_some()));
    let last = mistakes[MAX_DIAGNOSTICS].to_string();
    assert!(last.starts_with("p.yaml: ... and ") && last.ends_with(" more"), "{last}");

    let members: Vec<String> = (0..1_000).map(|number| format!(r#","a{number}":1"#)).collect();
    let members = members.concat();
    let mistakes = load_texts(&[("policy.json", &format!(r#"{{"default":[{{"type":"reject"}}]{members}}}"#))]);
    let mistakes = mistakes.unwrap_err();
    assert_eq!(mistakes.len(), MAX_DIAGNOSTICS + 1);
    assert_eq!(mistakes[MAX_DIAGNOSTICS].to_string(), "policy.json: ... and 950 more");
}

#[test]
fn a_key_in_the_wrong_place_is_never_shown() {
    const SECRET: &str = "lQWGBGX8eJ4BDADNOTtoBeShownAnywhereAtAllxyz";
    let private = format!("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{SECRET}\n-----END PGP PRIVATE KEY BLOCK-----");
    let block = private.replace('\n', "\n        ");
    let flow = private.replace('\n', "\\n");
    let keys = |keys: &str| {
        let text = with_requirement("signedBy: [release]");
        text.replace("    release: {file: release.asc}\n", &format!("    {keys}\n"))
    };
    for (text, expected) in [
        (
            keys(&format!("release: |\n        {block}")),
            "this text is not known here\n  help: write one of: file, inline",
        ),
        (
            keys(&format!("release:\n      file: |\n        {block}")),
            "\"release\" has a key in the place of a file's path\n  help: write inline: in the place of file:",
        ),
        (keys(&format!("release: {{file: \"{flow}\"}}")), "\"release\" has a key in the place of a file's path"),
        (keys(&format!("release: {{inline: \"{flow}\"}}")), "the inline key of \"release\": "),
        (keys(&format!("\"{flow}\": {{file: x}}")), "the name of a key has 1 to 63 characters"),
        (keys(&format!("release: [\"{flow}\"]")), "\"release\" should be one of: file, inline, found a list"),
        (with_requirement(&format!("signedBy: [\"{flow}\"]")), "this policy has no key called this text"),
        (with_requirement(&format!("signedBy: \"{flow}\"")), "\"signedBy\" should be a list, found a text"),
        (
            with_rules(&format!("  - {{name: r, images: [\"{flow}\"], deny: {{reason: x}}}}\n")),
            "this text is not a scope",
        ),
        (with_requirement(&format!("{{signedBy: [release], maxAge: \"{flow}\"}}")), "this text is not a duration"),
        (with_requirement(&format!("{{signedBy: [release], \"{flow}\": x}}")), "unknown field this text"),
    ] {
        let mistakes = load_texts(&[("p.yaml", &text)]).unwrap_err();
        let all = mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(shown(&mistakes).contains(expected), "expected {expected}\nfound {all}");
        assert!(!all.contains("NOTtoBeShown"), "{all}");
    }
    for member in
        [format!(r#""keyData":"{SECRET}!""#), format!(r#""keyData":"{SECRET}A==""#), format!(r#""keyPath":"{flow}""#)]
    {
        let text = format!(r#"{{"default":[{{"type":"signedBy","keyType":"GPGKeys",{member}}}]}}"#);
        let mistakes = load_texts(&[("policy.json", &text)]).unwrap_err();
        let all = mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(!all.contains("NOTtoBeShown"), "{all}");
    }
}

#[test]
fn exemptions_of_a_namespace_without_a_rule_are_refused_for_they_would_lift_nothing() {
    let cluster = with_requirement("signedBy: [release]");
    let namespace = "---\napiVersion: sealgate.dev/v1\nkind: SealPolicy\nmetadata: {name: q, namespace: billing}\nspec:\n  exemptions:\n  - name: e\n    images: [r.example.com/x]\n    until: 2027-01-31T00:00:00Z\n    approvedBy: jane@example.com\n    reason: INC-1\n";
    let message = refused(&format!("{cluster}{namespace}"));
    assert!(
        message.starts_with("p.yaml:16:12: namespace billing has exemptions and no rule")
            && message.contains("help: put them into a ClusterSealPolicy, with namespaces: [billing]"),
        "{message}"
    );
    let rule = "  rules:\n  - {name: r, images: [r.example.com], deny: {reason: x}}\n";
    loaded(&format!("{cluster}{namespace}{rule}"));
    // A rule in another document of the namespace will do.
    let other = namespace.replace("name: q", "name: s").split("  exemptions").next().unwrap().to_owned() + rule;
    loaded(&format!("{cluster}{namespace}{other}"));
    // For the cluster, an exemption also lifts that there is no rule.
    loaded(&namespace.replace("SealPolicy", "ClusterSealPolicy").replace(", namespace: billing", ""));
}

/// Ends of a range: what is still in it is loaded, the next is refused with this message.
fn ends<T: std::fmt::Debug>(text: impl Fn(&T) -> String, good: &[T], bad: &[T], message: &str) {
    for value in good {
        loaded(&text(value));
    }
    for value in bad {
        let found = refused(&text(value));
        assert!(found.contains(message), "{value:?}: {found}");
    }
}

#[test]
fn a_name_has_1_to_63_characters_of_its_own_alphabet_wherever_it_stands() {
    const RULE: &str = "  - {name: r, images: [r.example.com], require: [{signedBy: [release]}]}\n";
    let document = |name: &str| with_rules(RULE).replace("{name: p}", &format!("{{name: \"{name}\"}}"));
    let rule = |name: &str| with_rules(&RULE.replace("name: r,", &format!("name: \"{name}\",")));
    let key = |name: &str| {
        let text = with_rules(RULE).replace("    release:", &format!("    \"{name}\":"));
        text.replace("[release]", &format!("[\"{name}\"]"))
    };
    let exemption = |name: &str| {
        format!(
            "{}  exemptions:\n  - {{name: \"{name}\", images: [r.example.com], until: 2027-01-31T00:00:00Z, \
             approvedBy: jane@example.com, reason: INC-1}}\n",
            with_rules(RULE)
        )
    };
    let (one, most, more) = ("x".to_owned(), "x".repeat(63), "x".repeat(64));
    let good = [one, most, "Az09._-@+".to_owned()];
    let bad = [String::new(), more, "a/b".to_owned(), "a b".to_owned(), "a:b".to_owned(), "ä".to_owned()];
    let message = |of: &str| format!("the name of {of} has 1 to 63 characters");
    ends(|name| document(name), &good, &bad, &message("a policy"));
    ends(|name| rule(name), &good, &bad, &message("a rule"));
    ends(|name| key(name), &good, &bad, &message("a key"));
    ends(|name| exemption(name), &good, &bad, &message("an exemption"));
}

#[test]
fn a_namespace_is_a_label_of_1_to_63_characters() {
    let text = |name: &String| {
        let text = with_rules("  - {name: r, images: [r.example.com], deny: {reason: x}}\n");
        let of_a_namespace = text.replace("ClusterSealPolicy", "SealPolicy");
        let of_a_namespace = of_a_namespace.replace("{name: p}", &format!("{{name: q, namespace: \"{name}\"}}"));
        format!("{text}---\n{of_a_namespace}")
    };
    let good = ["a", "7", "a-b", "a--b", &"x".repeat(63)].map(str::to_owned);
    let bad = ["", "-", "-a", "a-", "a.b", "A", "a_b", &"x".repeat(64)].map(str::to_owned);
    ends(text, &good, &bad, "a namespace's name has 1 to 63 characters of a-z 0-9 -, and no dash at an end");
}

#[test]
fn a_threshold_reaches_from_one_to_the_number_of_names() {
    let text =
        |threshold: &i64| with_requirement(&format!("{{signedBy: [release, security], threshold: {threshold}}}"));
    ends(text, &[1, 2], &[], "");
    ends(text, &[], &[0, -1, i64::MIN], "a threshold is at least 1");
    ends(text, &[], &[3, i64::MAX], "can't be met: signedBy has 2 different names");
    let policy = loaded(&text(&2));
    let Action::Require(requirements) = &rule(&policy, "r.example.com/x").action else { panic!() };
    assert_eq!(requirements.all[0].threshold.get(), 2);
}

#[test]
fn an_age_reaches_from_a_second_to_a_hundred_years() {
    let text = |age: &&str| with_requirement(&format!("{{signedBy: [release], maxAge: {age}}}"));
    let message = "maxAge is at least 1s, and at most 100y";
    ends(text, &["1s", "1s 1ms", "876600h", "100y"], &["0s", "999ms", "100y 1ms", "876601h"], message);
    let policy = loaded(&text(&"1s"));
    let Action::Require(requirements) = &rule(&policy, "r.example.com/x").action else { panic!() };
    assert_eq!(requirements.all[0].max_age, Some(std::time::Duration::from_secs(1)));
}

#[test]
fn an_exemption_covers_its_images_in_its_namespaces_until_its_end_and_not_at_it() {
    let policy = |namespaces: &str| {
        loaded(&format!(
            "{}  exemptions:\n  - {{name: e, images: [r.example.com/a], until: 2027-01-31T00:00:00Z, \
             approvedBy: jane@example.com, reason: INC-1{namespaces}}}\n",
            with_rules("  - {name: r, images: [\"*\"], deny: {reason: x}}\n")
        ))
    };
    let covers = |policy: &Policy, image: &str, namespace: Option<&str>, now: &str| {
        let image = Reference::for_image(image).unwrap();
        policy.cluster.exemptions[0].covers(&image, namespace, now.parse().unwrap())
    };
    let (before, end) = ("2027-01-30T23:59:59.999999999Z", "2027-01-31T00:00:00Z");
    let everywhere = policy("");
    for namespace in [None, Some("billing")] {
        assert!(covers(&everywhere, "r.example.com/a/b:1", namespace, before));
        assert!(!covers(&everywhere, "r.example.com/a/b:1", namespace, end), "its end is no part of it");
        assert!(!covers(&everywhere, "r.example.com/b:1", namespace, before), "another image");
    }
    let there = policy(", namespaces: [billing, shop]");
    for (namespace, expected) in
        [(Some("billing"), true), (Some("shop"), true), (Some("shop2"), false), (Some(""), false), (None, false)]
    {
        assert_eq!(covers(&there, "r.example.com/a:1", namespace, before), expected, "{namespace:?}");
        assert!(!covers(&there, "r.example.com/a:1", namespace, end));
    }
}

proptest! {
    /// Whatever an editor's slip does to a policy, it is loaded or refused with a place, and nothing panics.
    #[test]
    fn any_slip_is_loaded_or_refused_with_a_place(start in 0..1_000usize, length in 0..40usize, inserted in "[ \t\n:\\-\\[\\]{}\"'#&*a-z0-9]{0,6}") {
        let text = include_str!("../../../policies/production/cluster.yaml");
        let rules = text.find("  rules:").unwrap();
        let (start, end) = (rules + start, (rules + start + length).min(text.len()));
        let slipped = format!("{}{inserted}{}", &text[..start], &text[end..]);
        let files = [SourceFile { name: "p.yaml".into(), folder: "policies".into(), bytes: slipped.into_bytes() }];
        let result = load(&files, &mut |_| Ok(SECURITY.to_vec()));
        if let Err(mistakes) = result {
            prop_assert!(!mistakes.is_empty());
            prop_assert!(mistakes.iter().all(|mistake| mistake.place.is_some()), "{}", shown(&mistakes));
        }
    }
}

/// A namespace's policy in which each kind of thing has this name.
fn named(policy: &str, key: &str, rule: &str, exemption: &str, namespace: &str) -> String {
    format!(
        "apiVersion: sealgate.dev/v1\nkind: SealPolicy\nmetadata: {{name: '{policy}', namespace: '{namespace}'}}\nspec:\n  \
         keys:\n    '{key}': {{file: release.asc}}\n  rules:\n  - name: '{rule}'\n    images: [registry.example.com]\n    \
         require: [{{signedBy: ['{key}']}}]\n  exemptions:\n  - name: '{exemption}'\n    images: [registry.example.com]\n    \
         until: 2027-01-31T00:00:00Z\n    approvedBy: jane\n    reason: it moves\n"
    )
}

#[test]
fn every_name_has_1_to_63_characters() {
    let cluster = with_requirement("{signedBy: [release]}");
    let load = |text: &str| load_texts(&[("a.yaml", text), ("b.yaml", &cluster)]);
    let good = "n".repeat(63);
    let all = |name: &str| named(name, name, name, name, name);
    for name in ["n", &good] {
        let policy = load(&all(name)).unwrap_or_else(|mistakes| panic!("{name}: {}", shown(&mistakes)));
        assert!(policy.namespaces.contains_key(name));
    }
    for bad in ["", &"n".repeat(64)] {
        for (place, what) in ["a policy", "a key", "a rule", "an exemption", "a namespace"].into_iter().enumerate() {
            let name = |other: usize| if place == other { bad } else { "n" };
            let text = named(name(0), name(1), name(2), name(3), name(4));
            let mistakes = shown(&load(&text).unwrap_err());
            let said = match place {
                4 => "a namespace's name has 1 to 63 characters".to_owned(),
                _ => format!("the name of {what} has 1 to 63 characters"),
            };
            assert!(mistakes.contains(&said), "{what} of {} characters: {mistakes}", bad.len());
        }
    }
}

#[test]
fn the_shortest_and_the_longest_age_of_a_signature_are_a_second_and_a_hundred_years() {
    for (text, expected) in [("1s", Some(1)), ("876600h", Some(876_600 * 3600)), ("999ms", None), ("876601h", None)] {
        let loaded = load_texts(&[("p.yaml", &with_requirement(&format!("{{signedBy: [release], maxAge: {text}}}")))]);
        let age = loaded.ok().map(|policy| {
            let rules: Vec<_> = policy.cluster.rules.iter().collect();
            let Action::Require(requirements) = &rules[0].1.action else { panic!("{rules:?}") };
            requirements.all[0].max_age
        });
        assert_eq!(age.flatten(), expected.map(std::time::Duration::from_secs), "{text}");
    }
}

#[test]
fn a_policy_in_utf_16_is_called_that_in_either_dialect() {
    let yaml = with_requirement("{signedBy: [release]}");
    for (name, text) in [("p.yaml", &*yaml), ("policy.json", r#"{"default": [{"type": "reject"}]}"#)] {
        for mark in ["", "\u{feff}"] {
            let units: Vec<u16> = format!("{mark}{text}").encode_utf16().collect();
            for bytes in [
                units.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
                units.iter().flat_map(|unit| unit.to_be_bytes()).collect::<Vec<u8>>(),
            ] {
                let file = SourceFile { bytes, ..file(name, "") };
                let mistakes = load(&[file], &mut read_key).unwrap_err();
                let mistake = mistakes[0].to_string();
                assert!(mistake.starts_with(&format!("{name}: the file is in UTF-16\n")), "{mistake}");
                assert!(mistake.contains("save it as UTF-8"), "{mistake}");
            }
        }
    }
}
