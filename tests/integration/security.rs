//! SECURITY.md promises what tests hold, and nothing else.

use std::{collections::BTreeSet, fs, path::Path};

use crate::layering::source_files;

/// The names of all tests, as `cargo test` gives them, without modules that are called `tests`.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    for base in [root.join("src"), root.join("tests/integration")] {
        for file in source_files(&base) {
            let path = file.strip_prefix(&base).expect("it is below").with_extension("");
            let modules: Vec<&str> = path
                .components()
                .map(|part| part.as_os_str().to_str().expect("names of modules are ASCII"))
                .filter(|part| !["mod", "tests", "main", "lib"].contains(part))
                .collect();
            let text = fs::read_to_string(&file).expect("a source file can be read");
            let mut is_test = false;
            for line in text.lines().map(str::trim_start) {
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    is_test = true;
                } else if let Some((_, name)) = line.split_once("fn ").filter(|_| is_test && !line.starts_with("//")) {
                    is_test = false;
                    let name = name.split(['(', '<']).next().unwrap_or(name);
                    names.insert([&modules[..], &[name]].concat().join("::"));
                }
            }
        }
    }
    names
}

/// What stands between backticks, if it looks like the name of a test.
fn named(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).filter(|word| word.contains("::") && word.contains('_')).collect()
}

#[test]
fn each_promise_of_security_md_is_held_by_tests_that_exist() {
    let (text, tests) = (include_str!("../../SECURITY.md"), tests());
    let missing: Vec<&str> = named(text).into_iter().filter(|name| !tests.contains(*name)).collect();
    assert!(missing.is_empty(), "SECURITY.md names tests that there are not: {missing:#?}");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    let promises: Vec<(&str, &str)> = rows.filter(|(promise, _)| *promise != "promise").collect();
    assert!(promises.len() > 20, "{promises:#?}");
    for (promise, held_by) in promises {
        assert!(!named(held_by).is_empty(), "no test holds: {promise}");
    }
}
