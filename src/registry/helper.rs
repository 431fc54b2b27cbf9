//! Credential helpers: programs named `docker-credential-NAME` (docker-credential-helpers, "Development"). The command
//! `get` reads the server's name from standard input, and writes a JSON object or a message to standard output.
//!
//! Only commands that a user calls run helpers. The gate reads files and starts no program.

use std::{
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use secrecy::SecretString;
use serde::Deserialize;

use super::login::{Login, escaped, login};
use crate::{json, redact::shown_text};

/// The time limit of a helper, which may ask for a passphrase.
pub(super) const HELPER_TIMEOUT: Duration = Duration::from_mins(1);
/// The time between two checks whether a helper has exited after its output ended.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// The maximum size of an answer, in bytes: a name and a token.
const MAX_ANSWER: u64 = 64 << 10;
/// The maximum number of characters of a helper's message that are repeated.
const MAX_MESSAGE: usize = 300;
/// The message of a helper that does not know a server.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The reason why a helper gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("docker-credential-{name} {problem}")]
pub(crate) struct HelperError {
    name: Box<str>,
    problem: Box<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks a helper for the credentials of a server. `Ok(None)` if the helper has none. Takes at most [`HELPER_TIMEOUT`],
/// after which the helper is killed. Blocks.
pub(super) fn get(name: &str, server: &str) -> Result<Option<Login>, HelperError> {
    run(&mut Command::new(format!("docker-credential-{name}")), server, HELPER_TIMEOUT)
        .map_err(|problem| HelperError { name: name.into(), problem: problem.into() })
}

fn run(program: &mut Command, server: &str, time: Duration) -> Result<Option<Login>, String> {
    let end = Instant::now() + time;
    // Standard error is inherited: the helper's messages for the user are on it.
    program.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped());
    let child = program.spawn().map_err(|error| format!("can't be started from the PATH: {error}"))?;
    let mut child = KillOnDrop(child);
    if let Some(mut stdin) = child.0.stdin.take() {
        // The pipe's buffer holds so few bytes. A helper that does not read them may answer all the same.
        let _ = stdin.write_all(server.as_bytes());
    }
    let (tell, told) = mpsc::channel();
    if let Some(stdout) = child.0.stdout.take() {
        // If another process keeps the pipe open, this thread stays behind, and the caller does not wait for it.
        thread::spawn(move || {
            let mut answer = Vec::new();
            let read = stdout.take(MAX_ANSWER + 1).read_to_end(&mut answer);
            let _ = tell.send(read.map(|_| answer));
        });
    }
    let late = || format!("did not answer within {}", humantime::format_duration(time));
    let answer = match told.recv_timeout(end.saturating_duration_since(Instant::now())) {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(format!("can't be read: {error}")),
        Err(_) => return Err(late()),
    };
    if answer.len() as u64 > MAX_ANSWER {
        return Err(format!("answers more than {MAX_ANSWER} bytes"));
    }
    let status = loop {
        match child.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < end => thread::sleep(POLL_INTERVAL),
            Ok(None) => return Err(late()),
            Err(error) => return Err(format!("can't be waited for: {error}")),
        }
    };
    if !status.success() {
        let message = String::from_utf8_lossy(&answer);
        let message = message.trim();
        if message == NOT_FOUND {
            return Ok(None);
        }
        if message.is_empty() {
            return Err(format!("fails ({status}) without a message on its standard output"));
        }
        // The helper may have printed its answer, and failed after that.
        if message.contains('{') {
            return Err(format!("fails ({status}), and what it says is not repeated: it may hold a secret"));
        }
        let message: String = message.chars().take(MAX_MESSAGE).collect();
        return Err(format!("fails ({status}): {}", escaped(&shown_text(&message))));
    }
    // The JSON error is left out: it could quote the secret.
    let HelperAnswer { username, secret } =
        json::from_object(&answer).map_err(|_| "answers something else than credentials".to_owned())?;
    Ok(login(username, SecretString::from(secret)))
}

/// Kills the process when it is dropped.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // A process that has exited can't be killed.
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    /// Runs a helper that is this shell script.
    fn run_script(script: &str, time: Duration) -> Result<Option<String>, String> {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "docker-credential-test"]);
        run(&mut shell, "registry.example.com", time).map(|login| {
            login.map(|login| match login {
                Login::Password { username, password } => format!("{username}:{}", password.expose_secret()),
                Login::IdentityToken(token) => format!("token {}", token.expose_secret()),
            })
        })
    }

    fn answer(script: &str) -> Result<Option<String>, String> {
        run_script(script, HELPER_TIMEOUT)
    }

    #[test]
    fn a_helper_is_asked_as_docker_asks_it() {
        let script = r#"test "$1" = get || exit 3
            printf '{"ServerURL":"%s","Username":"jane","Secret":"p:w"}' "$(cat)""#;
        assert_eq!(answer(script), Ok(Some("jane:p:w".to_owned())));
        let script = r#"read -r server; test "$server" = registry.example.com || test -n "$server" &&
            echo '{"ServerURL":"x","Username":"<token>","Secret":"t"}'"#;
        assert_eq!(answer(script), Ok(Some("token t".to_owned())));
        assert_eq!(
            answer(r#"echo '{"Username":"jane","Secret":"s"}'"#),
            Ok(Some("jane:s".to_owned())),
            "without reading"
        );
    }

    #[test]
    fn one_that_does_not_know_the_server_has_none() {
        assert_eq!(answer(&format!("echo '{NOT_FOUND}'; exit 1")), Ok(None));
        assert_eq!(answer(&format!("printf '{NOT_FOUND}'; exit 1")), Ok(None));
        assert_eq!(answer(r#"echo '{"ServerURL":"x","Username":"","Secret":""}'"#), Ok(None));
    }

    #[test]
    fn one_that_fails_is_an_error_that_repeats_no_secret() {
        let error = answer("printf 'no \\033[2Jkeyring\\n'; exit 7").unwrap_err();
        assert!(error.contains("exit status: 7") && error.contains(r"no \u{1b}[2Jkeyring"), "{error}");
        let turned = answer("printf 'no \\342\\200\\256keyring'; exit 1").unwrap_err();
        assert_eq!(turned, r"fails (exit status: 1): no \u{202e}keyring");
        for script in [r#"echo '{"Username":"jane","Secret":"s3cret"}'"#, r#"echo note; echo '{"Secret":"s3cret"}'"#] {
            let error = answer(&format!("{script}; exit 1")).unwrap_err();
            assert!(error.starts_with("fails (exit status: 1), and") && !error.contains("s3cret"), "{error}");
        }
        let url = answer("echo 'https://jane:s3cret@vault.example.com/?k=s3cret is down'; exit 1").unwrap_err();
        assert!(url.contains("vault.example.com") && !url.contains("s3cret"), "{url}");
        let lengthy = answer("head -c 60000 /dev/zero | tr '\\0' x; exit 1").unwrap_err();
        assert!(lengthy.len() < 2 * MAX_MESSAGE, "{lengthy}");
        let silent = answer("echo boom >&2; exit 3").unwrap_err();
        assert_eq!(silent, "fails (exit status: 3) without a message on its standard output");
        for script in
            ["echo secret", "echo '{\"Username\":\"x\",\"Secret\":7,\"y\":\"secret\"}'", "echo '[\"secret\"]'", "true"]
        {
            let error = answer(script).unwrap_err();
            assert_eq!(error, "answers something else than credentials", "{script}");
        }
        let long = answer("head -c 100000 /dev/zero | tr '\\0' x; exit 1").unwrap_err();
        assert!(long.contains("more than 65536 bytes"), "{long}");
        let endless = answer("yes secret").unwrap_err();
        assert!(endless.contains("more than 65536 bytes"), "{endless}");
        let missing = get("there-is-no-such-helper", "registry.example.com").unwrap_err().to_string();
        assert!(
            missing.starts_with("docker-credential-there-is-no-such-helper can't be started from the PATH"),
            "{missing}"
        );
    }

    #[test]
    fn one_that_hangs_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let marks = folder.path().join("pid");
        for script in ["exec sleep 1000", "exec >&-; exec sleep 1000"] {
            let script = format!("echo $$ >{}; {script}", marks.display());
            // Long enough that it has begun, wherever this runs: it is waited for.
            let mut time = Duration::from_millis(200);
            let pid = loop {
                let error = run_script(&script, time).unwrap_err();
                assert!(error.starts_with("did not answer within"), "{error}");
                match std::fs::read_to_string(&marks).ok().and_then(|text| text.trim().parse::<u32>().ok()) {
                    Some(pid) => break pid,
                    None => time *= 2,
                }
            };
            assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{script}");
            std::fs::remove_file(&marks).unwrap();
        }
    }
}
