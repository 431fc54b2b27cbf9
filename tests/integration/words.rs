//! Plain technical English: an actor has a name, and a doc comment begins with what an item is or does.

use std::{fs, path::Path};

use crate::layering::{is_test_file, source_files};

/// Words in whose place the actor belongs: client, caller, registry, API server, user, operator, attacker.
const NO_ACTORS: [&str; 5] = ["nobody", "somebody", "someone", "whoever", "whosoever"];
/// Beginnings of a doc comment that say neither what an item is nor what it does.
const NO_BEGINNINGS: [&str; 3] = ["The same", "Nothing:", "Nothing,"];
/// Question words. A doc comment that begins with one names neither the item's kind (a noun) nor what it does (a verb).
const QUESTION_WORDS: [&str; 8] = ["What ", "Whether ", "Where ", "How ", "Who ", "When ", "Whose ", "Whatever "];

/// Returns the lines of a file that are not about tests, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let until = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..until].lines().enumerate().map(|(number, line)| (number + 1, line))
}

fn has_no_actor(line: &str) -> bool {
    let words = line.split(|character: char| !character.is_alphanumeric() && character != '_');
    words.map(str::to_lowercase).any(|word| NO_ACTORS.contains(&word.as_str()))
}

/// What follows `///` or `//!`.
fn doc_comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).map(str::trim_start)
}

#[test]
fn comments_messages_and_documents_name_the_actor() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut look = |file: &Path| {
        let text = fs::read_to_string(file).expect("a file can be read");
        let name = file.strip_prefix(root).expect("it is below").display();
        found.extend(lines(&text).filter(|(_, line)| has_no_actor(line)).map(|(number, _)| format!("{name}:{number}")));
    };
    source_files(&root.join("src")).iter().filter(|file| !is_test_file(file)).for_each(|file| look(file));
    for folder in [root.join("docs"), root.to_owned()] {
        for entry in fs::read_dir(folder).expect("a folder can be read") {
            let path = entry.expect("a folder can be read").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                look(&path);
            }
        }
    }
    assert!(
        found.is_empty(),
        "the actor has a name (client, caller, registry, API server, user, operator): {found:#?}"
    );
}

#[test]
fn doc_comments_begin_with_what_an_item_is_or_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for file in source_files(&root.join("src")).into_iter().filter(|file| !is_test_file(file)) {
        let text = fs::read_to_string(&file).expect("a file can be read");
        let mut before = None;
        for (number, line) in lines(&text) {
            let comment = doc_comment(line);
            // In help texts, an option may be the same as another one.
            let beginnings = if file.starts_with(root.join("src/cli")) { &[][..] } else { &NO_BEGINNINGS };
            let mut wrong = beginnings.iter().chain(&QUESTION_WORDS);
            let begins = comment.filter(|_| before.is_none());
            if begins.is_some_and(|comment| wrong.any(|beginning| comment.starts_with(beginning))) {
                found.push(format!("{}:{number}", file.display()));
            }
            before = comment;
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The most characters of a test's name: subject, verb, condition.
const MAX_TEST_NAME_LENGTH: usize = 80;

#[test]
fn names_of_tests_are_short_enough_to_be_read_at_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for file in [root.join("src"), root.join("tests")].iter().flat_map(|folder| source_files(folder)) {
        let text = fs::read_to_string(&file).expect("a file can be read");
        for name in text.split("fn ").skip(1) {
            let end = name.find(|character: char| character != '_' && !character.is_alphanumeric());
            let name = &name[..end.unwrap_or(name.len())];
            if name.chars().count() > MAX_TEST_NAME_LENGTH {
                found.push(format!("{}: {name}", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "over {MAX_TEST_NAME_LENGTH} characters: {found:#?}");
}
