//! The file with the keys of tokens, which replicas share.
//!
//! Each line has one key in base64. The first key seals, and all of them open. Lines that begin with `#` are comments.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::time::Instant;

use super::token::{KEY_BYTES, TokenKey, TokenKeys};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::files::{ChangeWatcher, NextCheck, ReadError, follower::Follower, read_bounded};

/// The maximum size of the file, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// The maximum number of keys. Keys are found by their identifier, but a file with thousands is a mistake.
const MAX_KEYS: usize = 16;
/// The time between two reads of the file, if no event reports a change.
const POLL: Duration = Duration::from_secs(5);

/// The reason why keys can't be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenKeyError {
    /// The file can't be read.
    #[error("gateway.access.tokenKey {}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        why: ReadError,
    },
    /// The file does not exist and can't be made.
    #[error(
        "gateway.access.tokenKey {}: there is no such file, and it can't be made: {source}; make it with: openssl rand -base64 32",
        path.display()
    )]
    Keep {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file has these mistakes.
    #[error("{}", Diagnostics(.0))]
    Refused(Vec<Diagnostic>),
    /// The file can't be watched.
    #[error("gateway.access.tokenKey can't be watched for changes: {0}")]
    Watch(#[source] io::Error),
    /// The system has no randomness.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// The keys in force.
#[derive(Debug)]
pub struct KeyRing {
    keys: Arc<ArcSwap<TokenKeys>>,
    _watcher: Option<ChangeWatcher>,
}

impl KeyRing {
    /// Makes a random key, which ends with this process.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn random() -> Result<Self, TokenKeyError> {
        let keys = TokenKeys::new(TokenKey::new(&random()?), Vec::new());
        Ok(Self { keys: Arc::new(ArcSwap::from_pointee(keys)), _watcher: None })
    }

    /// Reads the file, or makes it if it does not exist, and follows its changes. If a change is refused, the last good
    /// keys stay in force.
    ///
    /// # Errors
    /// The file can't be read or made, or has mistakes.
    pub fn open(path: &Path) -> Result<Self, TokenKeyError> {
        let first = match read(path) {
            Err(TokenKeyError::Unreadable { why: ReadError::Missing, .. }) => {
                make(path)?;
                read(path)?
            }
            read => read?,
        };
        let keys = Arc::new(ArcSwap::from_pointee(first));
        let (in_force, path) = (Arc::clone(&keys), path.to_owned());
        let mut follower = Follower::new("the keys of gateway.access.tokenKey");
        let watcher = ChangeWatcher::start("token-key-watcher", POLL, move || {
            let again = follower.follow(&in_force, read(&path), Instant::now()).again();
            NextCheck { folders: path.parent().map(Path::to_owned).into_iter().collect(), again }
        });
        Ok(Self { keys, _watcher: Some(watcher.map_err(TokenKeyError::Watch)?) })
    }

    /// Reads the file, which need not exist, and makes none.
    ///
    /// # Errors
    /// The file can't be read, or has mistakes.
    pub fn look(path: &Path) -> Result<Self, TokenKeyError> {
        match read(path) {
            Ok(keys) => Ok(Self { keys: Arc::new(ArcSwap::from_pointee(keys)), _watcher: None }),
            Err(TokenKeyError::Unreadable { why: ReadError::Missing, .. }) => Self::random(),
            Err(error) => Err(error),
        }
    }

    /// Returns the keys in force.
    pub fn get(&self) -> Arc<TokenKeys> {
        self.keys.load_full()
    }
}

fn read(path: &Path) -> Result<TokenKeys, TokenKeyError> {
    let bytes = read_bounded(path, MAX_FILE_BYTES);
    let bytes = bytes.map_err(|why| TokenKeyError::Unreadable { path: path.to_owned(), why })?;
    parse(&path.display().to_string(), &String::from_utf8_lossy(&bytes)).map_err(TokenKeyError::Refused)
}

/// Parses the keys. No line is shown in a mistake: it is a secret, or nearly one.
fn parse(name: &str, text: &str) -> Result<TokenKeys, Vec<Diagnostic>> {
    const HELP: &str = "make one with: openssl rand -base64 32";
    let mut keys = Vec::new();
    let mut mistakes = Vec::new();
    let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    for (number, line) in lines {
        let secret = STANDARD.decode(line).ok().and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok());
        if let Some(secret) = secret {
            keys.push(TokenKey::new(&secret));
        } else {
            let place = Some(Span { line: number, column: 1, width: 1 });
            let mistake = Diagnostic { place, ..Diagnostic::of_file(name, "the base64 of 32 bytes is expected") };
            mistakes.push(mistake.suggest(HELP));
        }
    }
    if keys.len() > MAX_KEYS {
        mistakes.push(Diagnostic::of_file(name, format!("at most {MAX_KEYS} keys are expected, found {}", keys.len())));
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let mut keys = keys.into_iter();
    match keys.next() {
        Some(sealing) => Ok(TokenKeys::new(sealing, keys.collect())),
        None => Err(vec![Diagnostic::of_file(name, "there is no key in it").suggest(HELP)]),
    }
}

fn random() -> Result<[u8; KEY_BYTES], TokenKeyError> {
    let mut secret = [0; KEY_BYTES];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| TokenKeyError::NoRandomness)?;
    Ok(secret)
}

/// Makes the file, completely or not at all. If another process is faster, its key stays.
fn make(path: &Path) -> Result<(), TokenKeyError> {
    let secret = random()?;
    let made = (|| -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        // The name contains this process's ID, so that no other process writes to it.
        let temporary = path.with_extension(format!("new-{}", std::process::id()));
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(format!("{}\n", STANDARD.encode(secret)).as_bytes())?;
        file.sync_all()?;
        // Unlike a rename, a link never replaces an existing file.
        let linked = fs::hard_link(&temporary, path);
        fs::remove_file(&temporary)?;
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                tracing::info!(path = %path.display(), "made a key for tokens; replicas need the same file");
                Ok(())
            }
        }
    })();
    made.map_err(|source| TokenKeyError::Keep { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use jiff::Timestamp;
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::gateway::auth::{
        Principal,
        scope::Scopes,
        token::{Claims, TOKEN_TTL},
    };

    fn token(ring: &KeyRing) -> String {
        let expires_at = Timestamp::UNIX_EPOCH + TOKEN_TTL;
        let claims =
            Claims { principal: Principal::anonymous(), scopes: Scopes::default(), upstream: None, expires_at };
        ring.get().seal(&claims).unwrap().expose_secret().to_owned()
    }

    fn opens(ring: &KeyRing, token: &str) -> bool {
        ring.get().open(token, Timestamp::UNIX_EPOCH).is_ok()
    }

    #[test]
    fn a_key_is_made_once_and_is_its_owner_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets/token.key");
        let first = KeyRing::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path().join("secrets")).unwrap().count(), 1, "nothing is left beside it");
        let second = KeyRing::open(&path).unwrap();
        assert!(opens(&second, &token(&first)));
        assert!(!opens(&KeyRing::random().unwrap(), &token(&first)));
    }

    #[test]
    fn processes_that_start_at_once_share_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.key");
        make(&path).unwrap();
        let key = fs::read(&path).unwrap();
        make(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), key);
    }

    #[test]
    fn a_new_key_in_front_of_the_old_one_is_used_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.key");
        let ring = KeyRing::open(&path).unwrap();
        let (before, old) = (token(&ring), fs::read_to_string(&path).unwrap());
        let new = STANDARD.encode([7; KEY_BYTES]);
        fs::write(&path, format!("# new\n{new}\n{old}")).unwrap();
        let sealing = TokenKey::new(&[7; KEY_BYTES]);
        let only_new = TokenKeys::new(sealing, Vec::new());
        let begun = std::time::Instant::now();
        while only_new.open(&token(&ring), Timestamp::UNIX_EPOCH).is_err() {
            assert!(begun.elapsed() < Duration::from_mins(2), "the new key is not used");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(opens(&ring, &before));
    }

    #[test]
    fn mistakes_are_told_without_the_secret() {
        let short = STANDARD.encode([7; 31]);
        for (text, expected) in [
            (String::new(), "token.key: there is no key in it"),
            ("# only this\n".to_owned(), "token.key: there is no key in it"),
            (format!("\n{short}\n"), "token.key:2:1: the base64 of 32 bytes is expected"),
            ("hunter2".to_owned(), "token.key:1:1: the base64 of 32 bytes is expected"),
            (format!("{}\n", STANDARD.encode([7; KEY_BYTES])).repeat(17), "at most 16 keys are expected, found 17"),
        ] {
            let told = Diagnostics(&parse("token.key", &text).unwrap_err()).to_string();
            assert!(told.contains(expected), "{told}");
            assert!(!told.contains("hunter2") && !told.contains(&short), "{told}");
        }
    }

    #[test]
    fn as_many_keys_as_allowed_are_read_between_comments_and_blank_lines() {
        let keys = format!("# a key\n\n{}\n", STANDARD.encode([7; KEY_BYTES])).repeat(MAX_KEYS);
        assert!(parse("token.key", &keys).is_ok());
    }

    #[test]
    fn a_file_that_can_not_be_made_is_an_error_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = KeyRing::open(&folder.path().join("file/token.key")).unwrap_err().to_string();
        assert!(error.contains("file/token.key"), "{error}");
    }
}
