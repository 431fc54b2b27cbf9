//! Sessions in a shell, as documentation shows them.

use std::{fmt::Write as _, path::Path, process::Command};

use super::{Process, code_blocks};

/// What is typed, and what is answered to it.
struct Exchange {
    typed: String,
    answer: String,
}

/// Between two answers in what the shell prints: no program prints this byte.
const MARK: char = '\u{1e}';

/// Types everything that the ```` ```console ```` blocks of a text have behind `$` (and in further lines behind `>`) into one
/// bash, in this folder, and holds what is printed against the lines below: `...` is any text within a line, and alone any
/// number of lines.
pub(crate) fn follow(text: &str, folder: &Path, environment: &[(&str, &str)]) {
    let exchanges = exchanges(text);
    assert!(!exchanges.is_empty(), "there is nothing to type");
    // Programs that it leaves running end with it.
    let mut script = String::from("trap 'kill $(jobs -p) 2>/dev/null' EXIT\n");
    for Exchange { typed, .. } in &exchanges {
        let _ = writeln!(script, "{typed}\nprintf '{MARK}'");
    }
    std::fs::write(folder.join(".session"), script).expect("a script can be written");
    // One that hangs takes nothing along.
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", "170", "bash", "-c", "exec bash .session 2>&1"]);
    command.current_dir(folder).envs(environment.iter().copied());
    let mut shell = Process::start(&mut command);
    let status = shell.wait();
    let printed = shell.wait_for("its end", |printed| {
        (printed.matches(MARK).count() == exchanges.len() || !status.success()).then(|| printed.to_owned())
    });
    let mut answers = printed.split(MARK);
    for Exchange { typed, answer } in &exchanges {
        let printed = answers.next().unwrap_or_default();
        let lines: Vec<&str> = printed.lines().collect();
        let expected: Vec<&str> = answer.lines().collect();
        assert!(
            lines_match(&expected, &lines),
            "$ {typed}\n--- expected:\n{answer}--- printed:\n{printed}\n--- all that was printed:\n{}",
            shell.printed()
        );
    }
    assert!(status.success(), "the shell ended with {status}");
}

fn exchanges(text: &str) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = Vec::new();
    for block in code_blocks(text, "console") {
        for line in block.lines() {
            if let Some(typed) = line.strip_prefix("$ ") {
                exchanges.push(Exchange { typed: typed.to_owned(), answer: String::new() });
                continue;
            }
            let last = exchanges.last_mut().expect("a session begins with what is typed");
            match line.strip_prefix("> ") {
                Some(more) if last.answer.is_empty() => {
                    let _ = write!(last.typed, "\n{more}");
                }
                _ => {
                    let _ = writeln!(last.answer, "{line}");
                }
            }
        }
    }
    exchanges
}

fn lines_match(expected: &[&str], lines: &[&str]) -> bool {
    match expected.split_first() {
        None => lines.is_empty(),
        Some((&"...", rest)) => (0..=lines.len()).any(|skipped| lines_match(rest, &lines[skipped..])),
        Some((first, rest)) => {
            lines.split_first().is_some_and(|(line, lines)| line_matches(first, line) && lines_match(rest, lines))
        }
    }
}

fn line_matches(expected: &str, line: &str) -> bool {
    match expected.split_once("...") {
        None => expected == line,
        Some((start, rest)) => line.strip_prefix(start).is_some_and(|line| {
            line.char_indices()
                .map(|(place, _)| place)
                .chain([line.len()])
                .any(|place| line_matches(rest, &line[place..]))
        }),
    }
}
