//! Bounds: of names, numbers and ages, and of how much is read and told.

use super::*;

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
