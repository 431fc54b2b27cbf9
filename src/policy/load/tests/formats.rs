//! The dialects, and what each field means.

use super::*;

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

#[test]
fn a_policy_json_is_known_by_its_beginning_or_by_its_name() {
    let reject = r#"{"default": [{"type": "reject"}]}"#;
    for name in ["policy.json", "policy"] {
        assert_eq!(load_texts(&[(name, reject)]).unwrap().cluster.dialect, Dialect::PolicyJson, "{name}");
    }
    let message = shown(&load_texts(&[("policy.json", "[]")]).unwrap_err());
    assert!(message.contains("the policy must be an object, found a list"), "{message}");
    let message = shown(&load_texts(&[("policy", "[]")]).unwrap_err());
    assert!(message.contains("the file is empty") || message.contains("a policy is a map"), "{message}");
}
