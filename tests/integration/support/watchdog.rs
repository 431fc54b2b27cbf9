//! Cleaning up after tests that can't do so themselves.
//!
//! Statics are never dropped, destructors don't run on signals, and `PR_SET_PDEATHSIG` is about threads. What is left, and
//! certain, is the end of a pipe: a shell reads from one whose other end is only in this process, and cleans up once that
//! is closed. It has a process group of its own, so that Ctrl-C does not reach it.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock},
};

/// A script that runs beside this process. When this process has ended, or this was dropped, its standard input ends.
pub(crate) struct Watchdog(Child);

impl Watchdog {
    /// Starts a script; what it prints is thrown away.
    pub(crate) fn start(script: &str, arguments: &[&str]) -> Self {
        Self(spawn(script, arguments))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn spawn(script: &str, arguments: &[&str]) -> Child {
    Command::new("sh")
        .args(["-c", script, "watchdog"])
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("there is a shell")
}

/// What must not outlive the tests.
#[derive(Clone, Debug)]
pub(crate) enum Left {
    /// A program, by its id.
    Process(u32),
    /// A GnuPG home folder, whose agent runs by itself.
    Gnupg(String),
    /// A temporary folder.
    Folder(String),
}

/// Keeps the list of what is there; at the end it ends programs first (their names sort last) and folders last.
const CLEAN_UP: &str = r#"
left=''
while read -r sign entry; do
    case $sign in
    +) left="$left
$entry" ;;
    -) left=$(printf '%s\n' "$left" | grep -vxF -e "$entry") ;;
    esac
done
printf '%s\n' "$left" | sort -r | while read -r kind name; do
    case $kind in
    process) kill -KILL "$name" ;;
    gnupg) gpgconf --homedir "$name" --kill all ;;
    folder) rm -rf "$name" ;;
    esac
done
"#;

impl Left {
    /// It is there from now on.
    pub(crate) fn note(&self) {
        self.tell('+');
    }

    /// It is gone.
    pub(crate) fn forget(&self) {
        self.tell('-');
    }

    fn tell(&self, sign: char) {
        static LIST: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
        let list = LIST.get_or_init(|| {
            let stdin = spawn(CLEAN_UP, &[]).stdin.take();
            Mutex::new(stdin.expect("its standard input is a pipe"))
        });
        let line = match self {
            Self::Process(id) => format!("{sign} process {id}\n"),
            Self::Gnupg(home) => format!("{sign} gnupg {home}\n"),
            Self::Folder(path) => format!("{sign} folder {path}\n"),
        };
        let mut list = list.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Without a watchdog the tests still clean up after themselves when they end as they should.
        let _ = list.write_all(line.as_bytes());
    }
}
