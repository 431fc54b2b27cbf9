//! Completions and manual pages as a package installs them.

use std::{fs, process::Command};

use crate::support::{Answer, SEALGATE, Scratch, run};

#[test]
fn bash_completes_commands_and_options() {
    for (words, expected) in [
        ("sealgate si", "sign signatures"),
        ("sealgate signatures status ''", "clear"),
        ("sealgate verify --expected-", "--expected-identity"),
        ("sealgate completions z", "zsh"),
    ] {
        let script = format!(
            "source <({SEALGATE} completions bash); COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _sealgate sealgate \"${{COMP_WORDS[COMP_CWORD]}}\"; echo \"${{COMPREPLY[@]}}\""
        );
        let answer = run("bash", ["-c", &script]);
        let answer = String::from_utf8(answer.stdout).expect("UTF-8");
        assert!(expected.split(' ').all(|word| answer.split_whitespace().any(|one| one == word)), "{words}: {answer}");
    }
}

#[test]
fn every_shell_has_completions_of_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(SEALGATE, ["completions", shell]).stdout;
        let script = String::from_utf8(script).expect("UTF-8");
        for word in ["serve", "gateway", "verify", "sign", "push", "signatures", "store", "completions", "man"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn a_manual_page_is_written_for_every_command() {
    let folder = Scratch::new();
    let pages = folder.path().join("share/man1");
    run(SEALGATE, ["man".as_ref(), pages.as_os_str()]);
    for (page, text) in [
        ("sealgate", "sealgate\\-verify(1)"),
        ("sealgate-verify", "\\-\\-expected\\-identity"),
        ("sealgate-signatures-status-clear", "verification status"),
        ("sealgate-store-export", "\\-\\-resume"),
        ("sealgate-completions", "SHELL"),
    ] {
        let written = fs::read_to_string(pages.join(format!("{page}.1"))).expect(page);
        assert!(written.contains(text), "{page}: {written}");
    }
    let file = folder.write("file", "");
    Answer::of(Command::new(SEALGATE).arg("man").arg(&file)).fails(3, "no manual pages");
}
