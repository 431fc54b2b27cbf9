//! Credentials, read from their files when they are needed, so that a rotated password takes effect.

use std::{
    path::{Path, PathBuf},
    sync::Once,
    time::Duration,
};

use moka::future::Cache;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::{
    blocking_pool::BlockingPool,
    failure::Failure,
    helper::{self, HELPER_TIMEOUT, HelperError},
    login::{CredentialsError, Login, escaped},
    login_file::{self, LoginSource},
};
use crate::configuration::{Credentials, LoginFile, LoginFormat, Logins};
use crate::files::{ReadError, read_bounded};
use crate::image::Repository;

/// The maximum size of a password file, in bytes.
const MAX_PASSWORD_FILE: u64 = 64 << 10;
/// The maximum size of a Docker configuration file, in bytes.
const MAX_DOCKER_CONFIG: u64 = 1 << 20;
/// The lifetime of a helper's answer in the cache, far shorter than that of any token a helper returns.
const HELPER_TTL: Duration = Duration::from_mins(5);
/// The maximum number of helpers that run at once.
const MAX_CONCURRENT_HELPERS: usize = 4;
/// The maximum number of helpers' answers in the cache.
const MAX_HELPER_ANSWERS: u64 = 1000;

/// The remedy if a command has no credentials for a server.
const NEEDED: &str = "credentials are needed (--creds, --authfile; for another host than the image's, in its registries entry: \
                      --config; or docker login, podman login)";

/// Returns the message that a server needs credentials, with the places that were searched.
pub(crate) fn needed(looked_in: Option<&str>) -> String {
    match looked_in {
        Some(places) => format!("{NEEDED}, and none for it are in {places}"),
        None => NEEDED.to_owned(),
    }
}

/// Finds the configured credentials of a repository; `Ok(None)` if there are none.
///
/// # Errors
/// The time is over, or the configured credentials can't be used.
pub(super) async fn find(
    credentials: &Credentials,
    repository: &Repository,
    files: &BlockingPool,
    helpers: &CredentialHelpers,
    deadline: Instant,
) -> Result<Option<Login>, FindError> {
    // A file may hang with its disk, so no runtime worker reads it.
    let Credentials::Logins(Logins(logins)) = credentials else {
        let (credentials, repository) = (credentials.clone(), repository.clone());
        return Ok(files.run(deadline, move || read(&credentials, &repository)).await??);
    };
    for file in logins.iter() {
        let (read, repository) = (file.clone(), repository.clone());
        match files.run(deadline, move || read_login_file(&read, &repository)).await?? {
            LoginSource::Login(login) => return Ok(Some(login)),
            LoginSource::Nothing => {}
            LoginSource::Helper { name, servers } => {
                let named_in = &*file.path;
                for server in servers {
                    if let Some(login) = helpers.get(&name, &server, named_in).await? {
                        return Ok(Some(login));
                    }
                }
            }
        }
    }
    Ok(None)
}

/// The reason why credentials could not be determined.
#[derive(Debug, thiserror::Error)]
pub(super) enum FindError {
    #[error("{0:?}")]
    Failure(Failure),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("{error} ({path} names it for this registry)", path = escaped(&path.display()))]
    Helper { error: HelperError, path: PathBuf },
}

impl From<Failure> for FindError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// The name of a credential helper, and the server that it is asked about.
type HelperQuestion = (Box<str>, Box<str>);

/// Runs credential helpers. Keeps an answer for a while, and lets concurrent callers share one run. Keeps a failure as
/// well: the helper may have asked the user for a passphrase, and must not ask again for each request of one command.
pub(super) struct CredentialHelpers {
    answers: Cache<HelperQuestion, Result<Option<Login>, HelperError>>,
    /// The pool for the programs.
    programs: BlockingPool,
}

impl CredentialHelpers {
    pub(super) fn new() -> Self {
        let answers = Cache::builder().max_capacity(MAX_HELPER_ANSWERS).time_to_live(HELPER_TTL).build();
        Self { answers, programs: BlockingPool::new(MAX_CONCURRENT_HELPERS) }
    }

    /// Asks the helper that the file at `named_in` names.
    async fn get(&self, name: &str, server: &str, named_in: &Path) -> Result<Option<Login>, FindError> {
        let (of, at) = (name.to_owned(), server.to_owned());
        let asking = async {
            // The helper has a shorter time limit of its own.
            let deadline = Instant::now() + 2 * HELPER_TIMEOUT;
            self.programs.run(deadline, move || helper::get(&of, &at)).await
        };
        let answer = self.answers.try_get_with((name.into(), server.into()), asking).await;
        let answer = answer.map_err(|not_run| FindError::Failure((*not_run).clone()))?;
        answer.map_err(|error| FindError::Helper { error, path: named_in.to_owned() })
    }
}

/// Returns the source of the calling user's credentials if they were sent, or the places that were searched for them.
/// `None` if an operator configured the credentials.
pub(crate) fn looked_in(credentials: Option<&Credentials>, sent: bool) -> Option<Box<str>> {
    let files = match credentials {
        Some(Credentials::Given { .. }) if sent => return Some("--creds".into()),
        Some(Credentials::Logins(Logins(files))) => files,
        _ => return None,
    };
    let paths: Vec<String> = files.iter().map(|file| file.path.display().to_string()).collect();
    (!paths.is_empty()).then(|| paths.join(", ").into())
}

/// Reads the configured credentials of a repository, without running a program. Blocks.
fn read(credentials: &Credentials, repository: &Repository) -> Result<Option<Login>, CredentialsError> {
    match credentials {
        Credentials::Given { username, password } => {
            Ok(Some(Login::Password { username: username.clone(), password: password.clone() }))
        }
        Credentials::Password { username, password_file } => {
            let password = read_file(password_file, MAX_PASSWORD_FILE)?;
            let line = password.expose_secret();
            let line = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
            Ok(Some(Login::Password { username: username.clone(), password: line.into() }))
        }
        Credentials::DockerConfig(path) => {
            let text = read_file(path, MAX_DOCKER_CONFIG)?;
            from_docker_config(path, text.expose_secret(), repository)
        }
        // Only `find` runs helpers.
        Credentials::Logins(_) => Ok(None),
    }
}

/// Reads the entry of a repository in a login file. A file that does not exist has none.
fn read_login_file(
    LoginFile { path, format }: &LoginFile,
    repository: &Repository,
) -> Result<LoginSource, CredentialsError> {
    match read_file(path, MAX_DOCKER_CONFIG) {
        Ok(text) => login_file::LoginFile::parse(path, *format, text.expose_secret())?.find(repository),
        Err(CredentialsError::Read { source: ReadError::Missing, .. }) => Ok(LoginSource::Nothing),
        Err(error) => Err(error),
    }
}

/// Checks that a login file can be used for a repository, whether it has credentials for it or not. Runs no helper.
pub(crate) fn check_login_file(path: &Path, repository: &Repository) -> Result<(), CredentialsError> {
    let text = read_file(path, MAX_DOCKER_CONFIG)?;
    login_file::LoginFile::parse(path, LoginFormat::Current, text.expose_secret())?.find(repository).map(drop)
}

fn read_file(path: &Path, limit: u64) -> Result<SecretString, CredentialsError> {
    let bytes = read_bounded(path, limit).map_err(|source| CredentialsError::Read { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map(SecretString::from).map_err(|_| CredentialsError::NotText { path: path.to_owned() })
}

/// Reads the entry of a repository in an operator's login file. The gate runs no credential helpers, because it starts
/// no programs.
fn from_docker_config(path: &Path, text: &str, repository: &Repository) -> Result<Option<Login>, CredentialsError> {
    static HELPERS: Once = Once::new();
    let file = login_file::LoginFile::parse(path, LoginFormat::Current, text)?;
    if file.has_helpers() {
        HELPERS.call_once(|| {
            tracing::warn!(path = %path.display(), "credential helpers (credsStore, credHelpers) are not run; only auths are read");
        });
    }
    file.login(repository)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;

    fn login(config: &str, repository: &str) -> Result<Option<Login>, CredentialsError> {
        from_docker_config(Path::new("config.json"), config, &Repository::parse(repository).unwrap())
    }

    fn user(config: &str, repository: &str) -> Option<String> {
        match login(config, repository).unwrap() {
            Some(Login::Password { username, password }) => Some(format!("{username}:{}", password.expose_secret())),
            Some(Login::IdentityToken(token)) => Some(format!("token {}", token.expose_secret())),
            None => None,
        }
    }

    #[test]
    fn the_most_specific_key_of_a_docker_config_wins() {
        let config = r#"{"auths": {
            "r.example.com": {"auth": "aG9zdDpw"},
            "r.example.com/acme": {"auth": "YWNtZTpw"},
            "r.example.com/acme/web": {"username": "web", "password": "p:q"},
            "https://index.docker.io/v1/": {"auth": "aHViOnBAAA=="},
            "https://Old.example.com:5000/v2/": {"auth": "b2xkOnA="}
        }}"#
        .replace("aHViOnBAAA==", &STANDARD.encode("hub:p\0\0"));
        for (repository, expected) in [
            ("r.example.com/x", Some("host:p")),
            ("r.example.com/acme/x", Some("acme:p")),
            ("r.example.com/acmes/x", Some("host:p")),
            ("r.example.com/acme/web", Some("web:p:q")),
            ("r.example.com/acme/web/x", Some("web:p:q")),
            ("r.example.com:5000/acme", None),
            ("other.example.com/acme", None),
            ("nginx", Some("hub:p")),
            ("old.example.com:5000/x", Some("old:p")),
        ] {
            assert_eq!(user(&config, repository).as_deref(), expected, "{repository}");
        }
    }

    #[test]
    fn an_identity_token_is_one_in_both_spellings() {
        let config = r#"{"auths": {"a.example.com": {"auth": "PHRva2VuPjp0", "identitytoken": "secret"},
            "b.example.com": {"username": "<token>", "password": "secret"}}}"#;
        assert_eq!(user(config, "a.example.com/x").as_deref(), Some("token secret"));
        assert_eq!(user(config, "b.example.com/x").as_deref(), Some("token secret"));
    }

    #[test]
    fn an_operators_entry_of_a_helper_has_no_credentials() {
        let config = r#"{"auths": {"a.example.com": {}}, "credsStore": "desktop", "HttpHeaders": {}}"#;
        assert_eq!(user(config, "a.example.com/x"), None);
        let config = r#"{"auths": {"a.example.com": {"auth": "YTpi"}}, "credHelpers": {"a.example.com": "x"}}"#;
        assert_eq!(user(config, "a.example.com/x").as_deref(), Some("a:b"));
    }

    #[test]
    fn auth_may_be_wrapped_as_base64_does_it() {
        let long = format!("robot:{}", "0123456789".repeat(20));
        let text = STANDARD.encode(&long);
        let lines: Vec<&str> = text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
        for auth in [text.clone(), lines.join("\n"), lines.join("\r\n"), format!("{}\n", lines.join("\n"))] {
            let config = serde_json::json!({"auths": {"a.example.com": {"auth": auth}}}).to_string();
            assert_eq!(user(&config, "a.example.com/x").as_deref(), Some(long.as_str()), "{auth:?}");
        }
        for auth in [lines.join(" "), format!("{text}!"), text[..text.len() - 1].to_owned(), lines.join("\\n")] {
            let config = serde_json::json!({"auths": {"a.example.com": {"auth": auth}}}).to_string();
            let outcome = login(&config, "a.example.com/x");
            assert!(matches!(outcome, Err(CredentialsError::Auth { .. })), "{auth:?}: {outcome:?}");
        }
    }

    #[test]
    fn a_null_is_as_good_as_nothing() {
        for (entry, expected) in [
            (
                r#"{"auth": "YTpi", "identitytoken": null, "username": null, "password": null, "email": null}"#,
                Some("a:b"),
            ),
            (r#"{"auth": null, "username": "a", "password": "b"}"#, Some("a:b")),
            (r#"{"auth": null, "identitytoken": "t"}"#, Some("token t")),
            (r#"{"auth": null, "username": "a", "password": null}"#, Some("a:")),
            (r#"{"auth": null}"#, None),
            ("null", None),
        ] {
            let config =
                format!(r#"{{"auths": {{"a.example.com": {entry}}}, "credsStore": null, "credHelpers": null}}"#);
            assert_eq!(user(&config, "a.example.com/x").as_deref(), expected, "{entry}");
        }
        assert_eq!(user(r#"{"auths": null}"#, "a.example.com/x"), None);
    }

    #[test]
    fn what_is_wrong_in_another_hosts_entry_does_no_harm() {
        for other in
            ["null", "7", "[]", r#"{"auth": null}"#, r#"{"auth": 7}"#, r#"{"auth": "!"}"#, r#"{"email": null}"#]
        {
            let config = format!(r#"{{"auths": {{"a.example.com": {{"auth": "YTpi"}}, "b.example.com": {other}}}}}"#);
            assert_eq!(user(&config, "a.example.com/x").as_deref(), Some("a:b"), "{other}");
        }
        // Of its own, it does.
        for own in ["7", "[1]", r#"{"auth": 7}"#, r#"{"auth": "!"}"#] {
            let config = format!(r#"{{"auths": {{"a.example.com": {own}}}}}"#);
            assert!(login(&config, "a.example.com/x").is_err(), "{own}");
        }
    }

    #[test]
    fn a_broken_docker_config_is_an_error_that_quotes_nothing() {
        for config in [r#"{"auths": {"a.example.com": {"auth": "secret!"}}}"#, r#"{"auths": "secret"}"#, "secret"] {
            let error = login(config, "a.example.com/x").unwrap_err();
            assert!(!format!("{error:?} {error}").contains("secret"));
        }
        assert!(matches!(
            login(r#"{"auths": {"a.example.com": {"auth": "bm9jb2xvbg=="}}}"#, "a.example.com/x"),
            Err(CredentialsError::Auth { .. })
        ));
    }

    #[test]
    fn a_password_file_is_read_again_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let repository = Repository::parse("r.example.com/x").unwrap();
        let credentials = Credentials::Password { username: "robot".into(), password_file: file.clone() };
        assert!(matches!(read(&credentials, &repository), Err(CredentialsError::Read { .. })));
        for (content, expected) in [("one\n", "one"), ("two \r\n", "two "), ("three", "three")] {
            fs::write(&file, content).unwrap();
            let Some(Login::Password { password, .. }) = read(&credentials, &repository).unwrap() else {
                panic!("no password")
            };
            assert_eq!(password.expose_secret(), expected);
        }
        fs::write(&file, "x".repeat(1 << 20)).unwrap();
        assert!(matches!(
            read(&credentials, &repository),
            Err(CredentialsError::Read { source: ReadError::TooLarge { .. }, .. })
        ));
    }

    #[test]
    fn secrets_do_not_print() {
        let login = Login::Password { username: "robot".into(), password: "hunter2".into() };
        assert!(!format!("{login:?} {:?}", login.basic()).contains("hunter2"));
        assert!(!format!("{:?}", login.basic()).contains("cm9ib3Q"));
    }
}
