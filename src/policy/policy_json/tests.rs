//! Forms of policy.json, good and bad, without keys: the integration tests read those, as real gpg writes them.

use super::*;
use crate::image::Reference;
use crate::policy::KeyFileError;
use crate::signature::{
    Certificate, KeyFault,
    testing::{Key, at},
};

fn read(text: &str) -> Result<Layer, Vec<Diagnostic>> {
    let file = SourceFile { name: "policy.json".into(), folder: "/etc".into(), bytes: text.into() };
    load(&file, &mut |_| Err(KeyFileError::Missing)).map(|(layer, _)| layer)
}

/// Returns the message about the first mistake.
fn wrong(text: &str) -> String {
    let diagnostics = read(text).map(|_| ()).expect_err(text);
    diagnostics[0].message.clone()
}

/// A policy with one requirement for everything.
fn requiring(requirement: &str) -> String {
    format!(r#"{{"default":[{requirement}]}}"#)
}

fn action(layer: &Layer, image: &str) -> String {
    let rule = layer.rules.get(&Reference::for_image(image).unwrap()).unwrap();
    let kind = match &rule.action {
        Action::Require(_) => "require",
        Action::Allow { .. } => "allow",
        Action::Deny { .. } => "deny",
    };
    format!("{} {kind}", rule.id)
}

#[test]
fn a_docker_scope_goes_before_the_transports_default_and_that_before_the_global_one() {
    let text = r#"{
        "default": [{"type": "reject"}],
        "transports": {
            "docker": {
                "registry.example.com/acme": [{"type": "insecureAcceptAnything"}],
                "registry.example.com/acme/web:1": [{"type": "reject"}],
                "*.example.org": [{"type": "insecureAcceptAnything"}, {"type": "reject"}],
                "": [{"type": "insecureAcceptAnything"}]
            },
            "docker-daemon": {"": [{"type": "reject"}]}
        }
    }"#;
    let layer = read(text).unwrap();
    assert_eq!(layer.dialect, Dialect::PolicyJson);
    assert_eq!(action(&layer, "registry.example.com/acme/web:2"), "policy.json/registry.example.com/acme allow");
    assert_eq!(action(&layer, "registry.example.com/acme/web:1"), "policy.json/registry.example.com/acme/web:1 deny");
    assert_eq!(action(&layer, "registry.example.org/acme/web:1"), "policy.json/*.example.org deny");
    assert_eq!(action(&layer, "nginx"), "policy.json/default allow");
    assert!(accepts_anything_by_default(&layer));

    let layer = read(r#"{"default":[{"type":"reject"}],"transports":{"docker":{}}}"#).unwrap();
    assert_eq!(action(&layer, "nginx"), "policy.json/default deny");
    assert!(!accepts_anything_by_default(&layer));
}

#[test]
fn the_default_of_all_transports_says_nothing_where_docker_has_its_own() {
    let text = r#"{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"":[{"type":"reject"}]}}}"#;
    let layer = read(text).unwrap();
    assert_eq!(action(&layer, "nginx"), "policy.json/default deny");
    assert!(!accepts_anything_by_default(&layer));
    assert!(accepts_anything_by_default(&read(&requiring(r#"{"type":"insecureAcceptAnything"}"#)).unwrap()));
    assert!(!accepts_anything_by_default(&Layer::default()));
}

#[test]
fn signed_base_layer_refuses_every_image_as_it_does_everywhere() {
    let layer = read(&requiring(
        r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}},{"type":"insecureAcceptAnything"}"#,
    ));
    assert_eq!(action(&layer.unwrap(), "nginx"), "policy.json/default deny");
    assert!(wrong(&requiring(r#"{"type":"signedBaseLayer"}"#)).contains("must have \"baseLayerIdentity\""));
}

#[test]
fn a_mistake_is_shown_where_it_stands_with_what_may_be_meant() {
    let text = "{\n  \"default\": [{\"type\": \"reject\"}],\n  \"transport\": {}\n}\n";
    let diagnostics = read(text).unwrap_err();
    assert_eq!(
        diagnostics[0].to_string(),
        "policy.json:3:3: the policy has no member \"transport\"\n  |\n3 |   \"transport\": {}\n  |   ^^^^^^^^^^^\n  help: did you mean \"transports\"?"
    );
}

#[test]
fn every_mistake_is_named_at_once() {
    let text = r#"{"default":[],"transports":{"docker":{"*":[{"type":"reject"}],"r.example.com":[{"type":"rejct"}]}}}"#;
    let messages: Vec<_> = read(text).unwrap_err().into_iter().map(|diagnostic| diagnostic.message).collect();
    assert_eq!(
        messages,
        ["a list of requirements must not be empty", "the scope \"*\" would never match", "unknown type \"rejct\""]
    );
}

#[test]
fn a_scope_in_another_spelling_of_an_address_is_refused_rather_than_dead() {
    for (scope, expected) in [
        ("[::ffff:10.0.0.5]:5000", "write \"10.0.0.5:5000\""),
        ("[2001:DB8::1]/x", "write \"[2001:db8::1]/x\""),
        ("10.0.5:5000", "four decimal numbers"),
        ("0xa.0.0.5/x", "four decimal numbers"),
        ("*.0.0.05", "four decimal numbers"),
        ("r.example.com.", "DNS name"),
    ] {
        let text = format!(
            "{{\"default\":[{{\"type\":\"reject\"}}],\n\"transports\":{{\"docker\":{{\"{scope}\":[{{\"type\":\"reject\"}}]}}}}}}"
        );
        let diagnostics = read(&text).unwrap_err();
        let message = diagnostics[0].to_string();
        assert!(message.starts_with("policy.json:2:25: ") && message.contains(expected), "{scope}: {message}");
    }
}

#[test]
fn a_default_must_be_there_and_say_something() {
    assert_eq!(wrong("{}"), "the policy has no \"default\"");
    assert_eq!(wrong(r#"{"default":null}"#), "a list of requirements must be a list, found null");
    assert_eq!(wrong("[]"), "the policy must be an object, found a list");
    assert!(wrong(r#"{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}"#).contains("twice"));
    assert!(wrong(r#"{"default":[{"type":"reject"}],"Default":[{"type":"reject"}]}"#).contains("no member"));
    assert!(wrong(r#"{"default":[{"type":"reject","keyType":"GPGKeys"}]}"#).contains("no member"));
    assert!(wrong(r#"{"default":[{"Type":"reject"}]}"#).contains("must have \"type\""));
}

#[test]
fn text_that_is_not_utf_8_is_refused_where_it_begins() {
    let file = SourceFile { name: "p".into(), folder: "/".into(), bytes: b"{\n \"\xff\":1}".into() };
    let diagnostics = load(&file, &mut |_| Err(KeyFileError::Missing)).unwrap_err();
    assert_eq!(diagnostics[0].to_string().lines().next(), Some("p:2:3: the file is not UTF-8 here"));
}

#[test]
fn what_we_can_not_check_is_refused_by_name() {
    let message = wrong(&requiring(r#"{"type":"sigstoreSigned","keyPath":"/k.pub"}"#));
    assert!(message.contains("sigstoreSigned"), "{message}");
    let message = wrong(&requiring(r#"{"type":"signedBy","keyType":"X509Certificates","keyPath":"/k"}"#));
    assert!(message.contains("X509Certificates"), "{message}");
}

#[test]
fn a_signed_by_has_exactly_one_source_of_keys() {
    let with = |members: &str| wrong(&requiring(&format!(r#"{{"type":"signedBy","keyType":"GPGKeys"{members}}}"#)));
    assert!(with("").contains("found none"));
    assert!(with(r#","keyPath":"/a","keyPaths":["/b"]"#).contains("found several"));
    assert_eq!(with(r#","keyPath":"""#), "\"keyPath\" is empty");
    assert_eq!(with(r#","keyPaths":[]"#), "\"keyPaths\" is empty");
    assert_eq!(with(r#","keyData":"""#), "\"keyData\" is empty");
    assert_eq!(with(r#","keyData":"no base64!""#), "\"keyData\" must be base64");
    assert_eq!(with(r#","keyPath":null"#), "\"keyPath\" must be a string, found null");
    assert_eq!(with(r#","keyPath":"/a""#), "/a: there is no such file");
    assert_eq!(with(r#","keyPath":"/a","signedIdentity":null"#), "an identity must be an object, found null");
    assert!(wrong(&requiring(r#"{"type":"signedBy","keyPath":"/a"}"#)).contains("must have \"keyType\""));
}

/// The one certificate of a policy with these key files.
fn certificate(files: [&[u8]; 2]) -> Arc<Certificate> {
    let text = requiring(r#"{"type":"signedBy","keyType":"GPGKeys","keyPaths":["0","1"]}"#);
    let file = SourceFile { name: "policy.json".into(), folder: "".into(), bytes: text.into() };
    let (layer, _) = load(&file, &mut |path| Ok(files[usize::from(path == Path::new("1"))].to_vec())).unwrap();
    let Action::Require(Requirements { all, .. }) = &layer.rules.get_exact(&Scope::Everything).unwrap().action else {
        panic!("it requires a signature")
    };
    let certificates = &all[0].signed_by[0].certificates;
    assert_eq!(certificates.len(), 1);
    Arc::clone(&certificates[0])
}

#[test]
fn what_one_key_file_says_of_another_s_certificate_holds_whichever_comes_first() {
    let now = at("2026-06-01T00:00:00Z");
    let key = Key::new("acme");
    let revoked = key.revoked(at("2026-01-01T00:00:00Z"));
    for files in [[&*key.public(), &*revoked], [&*revoked, &*key.public()]] {
        assert_eq!(certificate(files).usable(now), Err(KeyFault::Revoked { key: key.fingerprint() }));
    }
    let key = Key::with("acme", |choice| choice.expires(at("2026-01-01T00:00:00Z")));
    let extended = key.expiry_moved(at("2025-12-01T00:00:00Z"), Some(at("2027-01-01T00:00:00Z")));
    for files in [[&*key.public(), &*extended], [&*extended, &*key.public()]] {
        assert_eq!(certificate(files).usable(now), Ok(()));
    }
}

#[test]
fn a_short_name_of_docker_hub_covers_only_the_namespace_as_in_containers_image() {
    let text = r#"{"default":[{"type":"reject"}],"transports":{"docker":{"docker.io/nginx":[{"type":"insecureAcceptAnything"}]}}}"#;
    let layer = read(text).unwrap();
    assert_eq!(action(&layer, "nginx"), "policy.json/default deny");
    assert_eq!(action(&layer, "nginx/unit"), "policy.json/docker.io/nginx allow");
}

#[test]
fn keys_of_transports_that_are_never_used_are_not_read() {
    let signed = r#"[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/gone"}]"#;
    let text = format!(
        r#"{{"default":{signed},"transports":{{"dir":{{"/x":{signed}}},"docker":{{"":[{{"type":"reject"}}]}}}}}}"#
    );
    assert!(read(&text).is_ok());
    let text = format!(r#"{{"default":{signed}}}"#);
    assert_eq!(wrong(&text), "/gone: there is no such file");
}

#[test]
fn identities_are_read_strictly() {
    let parse = |identity: &str| {
        let document = Value::of_document(identity).unwrap();
        super::identity(&document).map_err(|problem| problem.message)
    };
    assert_eq!(parse(r#"{"type":"matchExact"}"#), Ok(Identity::Exact));
    assert_eq!(parse(r#"{"type":"matchRepository"}"#), Ok(Identity::Repository));
    assert_eq!(
        parse(r#"{"type":"exactReference","dockerReference":"busybox:1"}"#),
        Ok(Identity::ExactReference(Reference::parse("docker.io/library/busybox:1").unwrap()))
    );
    assert_eq!(
        parse(r#"{"type":"exactRepository","dockerRepository":"r.example.com/a:tags-are-ignored"}"#),
        Ok(Identity::ExactRepository(Reference::parse("r.example.com/a").unwrap().repository().clone()))
    );
    assert_eq!(
        parse(r#"{"type":"remapIdentity","prefix":"mirror.internal:5000","signedPrefix":"r.example.com/acme"}"#),
        Ok(Identity::Remap { from: "mirror.internal:5000".into(), to: "r.example.com/acme".into() })
    );
    for wrong in [
        r#"{"type":"matchExact","dockerReference":"a"}"#,
        r#"{"type":"exactReference","dockerReference":"busybox"}"#,
        r#"{"type":"exactReference","dockerReference":"busybox:1","dockerReference":"busybox:1"}"#,
        r#"{"type":"exactReference"}"#,
        r#"{"type":"exactRepository","dockerRepository":"A"}"#,
        r#"{"type":"remapIdentity","prefix":"r.example.com"}"#,
        r#"{"type":"remapIdentity","prefix":"r.example.com/","signedPrefix":"s.example.com"}"#,
        r#"{"type":"remapIdentity","prefix":"r.example.com/a:1","signedPrefix":"s.example.com"}"#,
        r#"{"type":"remapIdentity","prefix":"*.example.com","signedPrefix":"s.example.com"}"#,
        r#"{"type":"remapIdentity","prefix":"R.example.com","signedPrefix":"s.example.com"}"#,
        r#"{"type":"matchexact"}"#,
        "{}",
        r#""matchExact""#,
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_scope_that_would_never_match_is_refused() {
    for (scope, help) in [
        ("*", Some("\"\" covers every image")),
        ("Registry.Example.com", Some("write \"registry.example.com\"")),
        ("registry.example.com:443/acme", Some("write \"registry.example.com/acme\"")),
        ("docker.io/busybox:1", Some("write \"docker.io/library/busybox:1\"")),
        ("index.docker.io/library", Some("write \"docker.io/library\"")),
        ("busybox", None),
        ("registry.example.com/", None),
        ("registry.example.com/a:1@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", None),
    ] {
        let text = format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"{scope}":[{{"type":"reject"}}]}}}}}}"#
        );
        let diagnostics = read(&text).map(|_| ()).expect_err(scope);
        assert!(diagnostics[0].message.contains("scope"), "{scope}: {}", diagnostics[0].message);
        assert_eq!(diagnostics[0].suggestion.as_deref(), help, "{scope}");
    }
}

#[test]
fn a_long_path_is_named_and_what_may_be_a_key_is_not() {
    let keyring =
        |path: &str| wrong(&requiring(&format!(r#"{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{path}"}}"#)));
    let long = format!("/etc/{}", "k".repeat(100));
    assert!(keyring(&long).contains(&long));
    assert!(keyring("/etc/k").contains("/etc/k"));
    assert!(keyring("key\\nkey").starts_with("this text: "));
}

proptest::proptest! {
    #[test]
    fn whatever_stands_there_is_read_or_refused_without_a_panic(
        pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"default\"", "\"transports\"", "\"docker\"", "\"\"", "\"type\"", "\"reject\"",
                "\"signedBy\"", "\"keyType\"", "\"GPGKeys\"", "\"keyPath\"", "\"/k\"", "null", "1", "\"\\ud800\"", "é", "\n",
            ]),
            0..40,
        )
    ) {
        let _ = read(&pieces.concat());
    }
}
