//! What the command line says of itself, word for word.

use std::process::Command;

use crate::support::{Answer, SEALGATE, assert_reads};

/// Runs `sealgate` for a terminal that is 100 characters wide.
fn run(arguments: &[&str]) -> Answer {
    Answer::of(Command::new(SEALGATE).args(arguments).env("COLUMNS", "100"))
}

/// Returns the names of a command's subcommands, by its help.
fn subcommands(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").collect()
}

/// Asserts that the help of a command and that of each command below it are those of the snapshots. Returns their number.
fn assert_helps(command: &[&str]) -> usize {
    let help = run(&[command, &["--help"]].concat());
    assert_eq!((help.status, help.stderr.as_str()), (0, ""));
    assert_reads!(["help", command.join("-").as_str()].join("-").trim_end_matches('-'), &help.stdout);
    1 + subcommands(&help.stdout).iter().map(|name| assert_helps(&[command, &[*name]].concat())).sum::<usize>()
}

#[test]
fn help_of_every_command_reads_as_its_snapshot() {
    let pages = assert_helps(&[]);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/snapshots");
    let files = std::fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it can be read").file_name());
    let snapshots =
        files.filter(|name| name.to_string_lossy().starts_with("help") && name.as_encoded_bytes().ends_with(b".snap"));
    assert_eq!(snapshots.count(), pages, "a snapshot is of a command that is gone");
}

#[test]
fn usage_errors_read_as_the_snapshot() {
    let wrong: [&[&str]; 6] = [
        &["serve"],
        &["verify"],
        &["verify", "a", "--output", "xml"],
        &["verify", "a", "--public-key", "f"],
        &["verify", "registry.example.com/UPPER", "--policy", "policy.yaml"],
        &["signatures", "remove", "registry.example.com/acme/web", "short"],
    ];
    let text = wrong.map(|arguments| {
        let answer = run(arguments);
        format!("$ sealgate {}\n{}exit status {}\n", arguments.join(" "), answer.text, answer.status)
    });
    assert_reads!("usage-errors", text.join("\n"));
}
