//! Programs under test: started, watched, ended.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::Left;

/// A program that runs beside the test and is killed with it. What it prints to stderr and stdout is kept.
pub(crate) struct Process {
    child: Child,
    printed: Arc<Mutex<String>>,
    /// Those that read what it prints, until its pipes end.
    readers: [JoinHandle<()>; 2],
    name: String,
}

impl Process {
    /// Starts it, without standard input.
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} can't be started: {error}"));
        Left::Process(child.id()).note();
        let printed = Arc::new(Mutex::new(String::new()));
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let readers = [keep(stdout, &printed), keep(stderr, &printed)];
        Self { child, printed, readers, name }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it has printed so far.
    pub(crate) fn printed(&self) -> String {
        self.printed.lock().expect("nothing panics while it prints").clone()
    }

    /// Waits until `find` sees what it looks for in what was printed.
    pub(crate) fn wait_for<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = find(&self.printed()) {
                return found;
            }
            if let Ok(Some(status)) = self.child.try_wait()
                // What it printed last may still be on its way through the pipe.
                && self.readers.iter().all(JoinHandle::is_finished)
            {
                if let Some(found) = find(&self.printed()) {
                    return found;
                }
                panic!("{} ended ({status}) before it printed {what}:\n{}", self.name, self.printed());
            }
            assert!(started.elapsed() < LONGEST, "{} did not print {what}:\n{}", self.name, self.printed());
            std::thread::sleep(POLL);
        }
    }

    /// Sends a signal by name: `TERM`, `KILL`, `HUP`.
    pub(crate) fn signal(&self, signal: &str) {
        run("kill", [format!("-{signal}"), self.child.id().to_string()]);
    }

    /// Ends it at once, wherever it is.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_until(&format!("the end of {}", self.name), || self.child.try_wait().expect("a child can be waited for"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
        Left::Process(self.child.id()).forget();
        if std::thread::panicking() {
            eprintln!("--- {} printed:\n{}", self.name, self.printed());
        }
    }
}

/// The longest that any condition is waited for; far above what it takes, for busy machines.
const LONGEST: Duration = Duration::from_mins(3);
const POLL: Duration = Duration::from_millis(10);

/// Waits until a condition gives something.
pub(crate) fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < LONGEST, "waited {LONGEST:?} for {what}");
        std::thread::sleep(POLL);
    }
}

/// Runs a program to its end; it has to succeed.
pub(crate) fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(program: &str, arguments: I) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn keep(pipe: impl std::io::Read + Send + 'static, printed: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let printed = Arc::clone(printed);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut printed = printed.lock().expect("nothing panics while it prints");
            printed.push_str(&line);
            printed.push('\n');
        }
    })
}
