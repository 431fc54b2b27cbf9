//! Mistakes: each refused at its place, with what to do.

use super::*;

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
            &with_rules("  - name: r\n    images: [a.example.com/x/]\n    deny: {reason: x}\n"),
            "p.yaml:10:14: \"a.example.com/x/\" is not a scope: a scope does not end in a slash; it covers everything below it anyway\n  help: write a.example.com/x",
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
            &with_requirement(&format!("signedBy: [{}]", "k".repeat(61))),
            &format!(
                "p.yaml:12:18: this policy has no key called {}\n  help: name keys of this document's keys; the keys themselves stand there",
                quoted(&"k".repeat(61))
            ),
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
fn only_a_star_below_everything_is_said_to_be_needless() {
    let message = refused(&with_rules("  - name: r\n    images: [\"a.*.example.com\"]\n    deny: {reason: x}\n"));
    assert!(!message.contains("help: "), "{message}");
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
        ("a: {file: private.asc}", "p.yaml:6:15: key file \"private.asc\" of \"a\": this is a private key"),
        ("a: {file: utf16.asc}", "p.yaml:6:15: key file \"utf16.asc\" of \"a\": the file is in UTF-16"),
        (
            "a: {file: \"-----BEGIN PGP PUBLIC KEY BLOCK-----\"}",
            "p.yaml:6:15: \"a\" has a key in the place of a file's path\n  help: write inline: in the place of file:",
        ),
        (
            "a: {file: \"two\\nlines\"}",
            "p.yaml:6:15: \"a\" has a key in the place of a file's path\n  help: write inline: in the place of file:",
        ),
        ("a: {file: curve.asc}", "p.yaml:6:15: key file \"curve.asc\" of \"a\": no key in it can be used here: "),
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
        let helps = [
            ("private.asc", "help: a policy needs public keys only; take the private one away from here"),
            ("utf16.asc", "help: export it anew: gpg --armor --output FILE --export FINGERPRINT"),
            ("curve.asc", "help: let the signer make a key of another kind"),
            ("text.asc", "help: export the signer's public key with: gpg --armor --export FINGERPRINT"),
        ];
        let help = helps.iter().find(|(file, _)| keys.contains(file)).map_or("", |(_, help)| help);
        assert!(message.contains(help), "expected {help}\nfound {message}");
        assert!(!message.contains("no key called \"a\""), "a broken key is not an unknown one: {message}");
    }
}

#[test]
fn of_a_key_that_is_not_declared_it_says_which_are_as_long_as_they_are_few() {
    let inline = |number: u8| {
        let key = Key::new(&format!("key {number}"));
        format!("    k{number}: {{inline: {:?}}}\n", crate::signature::testing::armored(&key.public()))
    };
    for (declared, help) in [
        (0, "help: add it: keys: {zzzzzz: {file: ...}}"),
        (10, "help: its keys: k0, k1, k2, k3, k4, k5, k6, k7, k8, k9"),
        (11, "help: keys are declared in the same document"),
    ] {
        let keys: String = (0..declared).map(inline).collect();
        let keys = if keys.is_empty() { String::new() } else { format!("  keys:\n{keys}") };
        let message = refused(&format!(
            "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {{name: p}}\nspec:\n{keys}  rules:\n  - name: r\n    \
             images: [\"*\"]\n    require:\n    - signedBy: [zzzzzz]\n"
        ));
        assert!(message.contains(help), "{declared}: {message}");
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

proptest! {
    /// Whatever an editor's slip does to a policy, it is loaded or refused with a place, and nothing panics.
    #[test]
    fn any_slip_is_loaded_or_refused_with_a_place(start in 0..1_000usize, length in 0..40usize, inserted in "[ \t\n:\\-\\[\\]{}\"'#&*a-z0-9]{0,6}") {
        let text = include_str!("../../../../policies/production/cluster.yaml");
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
