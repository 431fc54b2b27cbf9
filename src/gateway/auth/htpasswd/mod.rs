//! Users and passwords in a file of Apache's (`htpasswd -B`), their roles in another.
//!
//! Both are read again when they change. Checking a password is meant to be slow, so it happens away from the workers, by
//! few at once and one of each client in turn. Credentials that were accepted within the hour do not wait behind those that
//! were not, and each answer is cached for seconds.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr as _,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use super::{
    AccessError, Action, AuthBackend, ClientNetwork, Credentials, Principal, Rejection,
    auth_cache::{AuthCache, ProvenCredentials},
    fair_queue::FairQueue,
    roles::Roles,
};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::files::{
    ChangeWatcher, NextCheck, ReadError,
    follower::{Follower, Progress},
    read_bounded,
};
use crate::gateway::store::RepositoryName;
use crate::text;

/// The most bytes of either file: some ten thousand users.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// How long a good password is not checked again.
const ACCEPTED_TTL: Duration = Duration::from_secs(10);
/// How long a wrong one is not: clients that have it in a file send it again and again.
const REJECTED_TTL: Duration = Duration::from_secs(5);
/// Above this, one check takes longer than a client waits; it doubles with each step.
const MAX_BCRYPT_COST: u32 = 15;
/// The cost of a check for a user who is not there, where the file has no user whose cost could be taken.
const DEFAULT_BCRYPT_COST: u32 = 10;
/// How many may wait for a check.
const MAX_QUEUED_CHECKS: usize = 64;
/// How often the files are looked at where no event tells of a change.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Why there are no users or no roles.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// A file can't be read.
    #[error("{setting} {}: {why}", path.display())]
    Unreadable {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        why: ReadError,
    },
    /// There are mistakes in a file.
    #[error("{}", Diagnostics(.0))]
    Refused(Vec<Diagnostic>),
    /// The files can't be watched.
    #[error("the files of gateway.access can't be watched for changes: {0}")]
    Watch(#[source] std::io::Error),
    /// The system has no randomness.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// Users of a file, with roles of a file.
#[derive(Debug)]
pub struct Htpasswd {
    files: Arc<Files>,
    queue: FairQueue,
    cache: AuthCache<bool>,
    proven: ProvenCredentials,
    _watcher: ChangeWatcher,
}

#[derive(Debug)]
struct Files {
    users_file: PathBuf,
    roles_file: PathBuf,
    users: ArcSwap<Users>,
    roles: ArcSwap<Roles>,
}

impl Htpasswd {
    /// Reads both files, and from then on whenever they change. Each has a last good content, which stays in force while
    /// what stands there is refused.
    ///
    /// # Errors
    /// A file that can't be read, or has mistakes.
    pub fn open(users_file: &Path, roles_file: &Path) -> Result<Self, UsersError> {
        let files = Arc::new(Files {
            users: ArcSwap::from_pointee(read_users(users_file)?),
            roles: ArcSwap::from_pointee(read_roles(roles_file)?),
            users_file: users_file.to_owned(),
            roles_file: roles_file.to_owned(),
        });
        files.warn_of_strangers();
        let mut reload = Reload::new(Arc::clone(&files));
        let watcher = ChangeWatcher::start("access-watcher", POLL_INTERVAL, move || reload.check(Instant::now()));
        // A check keeps a core busy: at least one is left for everything else.
        let places = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1));
        Ok(Self {
            files,
            queue: FairQueue::new("password checks", places, MAX_QUEUED_CHECKS),
            cache: AuthCache::new().ok_or(UsersError::NoRandomness)?,
            proven: ProvenCredentials::new(),
            _watcher: watcher.map_err(UsersError::Watch)?,
        })
    }

    /// Checks a user's password. For a user who is not there, another user's password is checked all the same, the
    /// same one each time, so that time does not tell who is there.
    async fn check(
        &self,
        user: &str,
        password: &secrecy::SecretString,
        peer: ClientNetwork,
    ) -> Result<Option<Principal>, AccessError> {
        let users = self.files.users.load_full();
        let name = self.cache.key(&[user.as_bytes()]);
        let (account, known) = match users.by_name.get(user) {
            Some(account) => (account.clone(), true),
            None => (users.in_place_of(name), false),
        };
        // With the hash in it: what was cached of another password is never found.
        let key = self.cache.key(&[user.as_bytes(), password.expose_secret().as_bytes(), account.hash.as_bytes()]);
        let keep = |good: &bool| if *good { ACCEPTED_TTL } else { REJECTED_TTL };
        let hash = account.hash.clone();
        let (queue, password, priority) = (self.queue.clone(), password.clone(), self.proven.priority(&key));
        let good = self.cache.get(key, keep, || async move {
            let permit = queue.acquire(peer.into(), priority).await?;
            let check = tokio::task::spawn_blocking(move || {
                let good = bcrypt::verify(password.expose_secret(), &hash);
                drop(permit);
                known && good.unwrap_or(false)
            });
            check.await.map_err(|_| AccessError::unavailable())
        });
        let good = good.await?;
        if good && known {
            self.proven.add(key);
        }
        Ok((good && known).then(|| account.principal(user)))
    }
}

#[async_trait]
impl AuthBackend for Htpasswd {
    async fn authenticate(&self, credentials: &Credentials, peer: ClientNetwork) -> Result<Principal, AccessError> {
        match credentials {
            Credentials::None => Ok(Principal::anonymous()),
            Credentials::Basic { user, password } => {
                self.check(user, password, peer).await?.ok_or_else(|| Rejection::Password.into())
            }
            Credentials::Bearer(_) => Err(Rejection::Unknown.into()),
        }
    }

    /// Also where the caller comes out of a token: who was removed from the file since, or has another password, may
    /// nothing any more.
    async fn is_allowed(
        &self,
        principal: &Principal,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Result<bool, AccessError> {
        let Some(name) = principal.name() else { return Ok(false) };
        let users = self.files.users.load();
        let same = users.by_name.get(name).is_some_and(|account| account.principal(name) == *principal);
        Ok(same && self.files.roles.load().let_do(name, action, repository))
    }
}

impl Files {
    fn warn_of_strangers(&self) {
        let (users, roles) = (self.users.load(), self.roles.load());
        for user in roles.users().into_iter().filter(|user| !users.by_name.contains_key(*user)) {
            let (users_file, roles_file) = (self.users_file.display(), self.roles_file.display());
            tracing::warn!(user, %users_file, %roles_file, "a user has a role and no password, so the role is of no use");
        }
    }
}

struct Reload {
    files: Arc<Files>,
    users: Follower<Arc<Users>>,
    roles: Follower<Arc<Roles>>,
}

impl Reload {
    fn new(files: Arc<Files>) -> Self {
        Self {
            files,
            users: Follower::new("the passwords of gateway.access.htpasswd"),
            roles: Follower::new("the roles of gateway.access.htpasswd"),
        }
    }

    /// Reads both files. Each counts by itself: broken roles must not keep a removed user in.
    fn check(&mut self, now: Instant) -> NextCheck {
        let Self { files, users, roles } = self;
        let progress = [
            users.follow(&files.users, read_users(&files.users_file), now),
            roles.follow(&files.roles, read_roles(&files.roles_file), now),
        ];
        if progress.contains(&Progress::Changed) {
            files.warn_of_strangers();
        }
        let folders = [&files.users_file, &files.roles_file].into_iter();
        NextCheck {
            folders: folders.filter_map(|file| file.parent().map(Path::to_owned)).collect(),
            again: progress.into_iter().filter_map(Progress::again).min(),
        }
    }
}

fn read_users(path: &Path) -> Result<Users, UsersError> {
    let text = read_text("gateway.access.htpasswd.file", path)?;
    Users::parse(&path.display().to_string(), &text).map_err(UsersError::Refused)
}

fn read_roles(path: &Path) -> Result<Roles, UsersError> {
    let text = read_text("gateway.access.htpasswd.roles", path)?;
    Roles::parse(&path.display().to_string(), &text).map_err(UsersError::Refused)
}

fn read_text(setting: &'static str, path: &Path) -> Result<String, UsersError> {
    let bytes = read_bounded(path, MAX_FILE_BYTES);
    let bytes = bytes.map_err(|why| UsersError::Unreadable { setting, path: path.to_owned(), why })?;
    // Its lines are secrets, which are not shown.
    let hide = |mistake: Diagnostic| UsersError::Refused(vec![Diagnostic { snippet: None, ..mistake }]);
    text::utf8(&path.display().to_string(), &bytes).map(str::to_owned).map_err(|mistake| hide(*mistake))
}

/// A line of the file.
#[derive(Clone, PartialEq, Eq)]
struct Account {
    /// `$2y$..`, `$2b$..` or `$2a$..`.
    hash: Arc<str>,
}

impl Account {
    /// The user with this very password: with another one they are another caller, so that tokens end with it.
    fn principal(&self, name: &str) -> Principal {
        let uid = URL_SAFE_NO_PAD.encode(&digest(&SHA256, self.hash.as_bytes()).as_ref()[..12]);
        Principal { name: Some(name.into()), uid: Some(uid.into()), ..Principal::default() }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Account")
    }
}

/// The password file, checked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Users {
    by_name: HashMap<Box<str>, Account>,
    /// The accounts in the file's order.
    in_order: Vec<Account>,
}

impl Users {
    /// Reads and checks a password file.
    ///
    /// # Errors
    /// Every mistake. Never empty; no line is shown, since it may hold a password.
    fn parse(name: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut users = Self::default();
        let mut lines: HashMap<&str, usize> = HashMap::new();
        let mut mistakes = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let place = Span { line: number, column: 1, width: 1 };
            let mut mistake = |message: String, suggestion: String| {
                let mistake = Diagnostic { place: Some(place), ..Diagnostic::of_file(name, message) };
                mistakes.push(mistake.suggest(suggestion));
            };
            let Some((user, hash)) = line.split_once(':').filter(|(user, _)| !user.is_empty()) else {
                mistake("NAME:HASH is expected".to_owned(), format!("add users with: htpasswd -B {name} NAME"));
                continue;
            };
            if let Err(what) = check_hash(hash) {
                mistake(format!("the password of {user:?} {what}"), format!("set it with: htpasswd -B {name} {user}"));
                continue;
            }
            if let Some(first) = lines.insert(user, number) {
                let message = format!("{user:?} has a password in line {first} already");
                mistake(message, "remove one of the two lines".to_owned());
                continue;
            }
            let account = Account { hash: hash.into() };
            users.in_order.push(account.clone());
            users.by_name.insert(user.into(), account);
        }
        if mistakes.is_empty() { Ok(users) } else { Err(mistakes) }
    }

    /// Returns the account whose password is checked for a user who is not there.
    fn in_place_of(&self, user: [u8; 32]) -> Account {
        let number = u32::from_le_bytes([user[0], user[1], user[2], user[3]]) as usize;
        match number.checked_rem(self.in_order.len()).and_then(|number| self.in_order.get(number)) {
            Some(account) => account.clone(),
            None => Account { hash: format!("$2y${DEFAULT_BCRYPT_COST:02}${}", ".".repeat(53)).into() },
        }
    }
}

/// What is wrong with a hash.
fn check_hash(hash: &str) -> Result<(), String> {
    if !["$2y$", "$2b$", "$2a$"].iter().any(|prefix| hash.starts_with(prefix)) {
        let what = if hash.starts_with("$apr1$") || hash.starts_with("$1$") {
            "is hashed with MD5"
        } else if hash.starts_with("{SHA}") {
            "is hashed with SHA-1"
        } else if hash.starts_with("$5$") || hash.starts_with("$6$") {
            "is hashed with crypt's SHA-2"
        } else {
            "is not hashed with bcrypt"
        };
        return Err(format!("{what}; only bcrypt counts"));
    }
    let parts = bcrypt::HashParts::from_str(hash).map_err(|_| "is a malformed bcrypt hash".to_owned())?;
    let cost = parts.get_cost();
    if (4..=MAX_BCRYPT_COST).contains(&cost) {
        Ok(())
    } else {
        Err(format!("has the bcrypt cost {cost}; 4 to {MAX_BCRYPT_COST} is expected"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::{super::fair_queue::Priority, *};
    use crate::files::SETTLE_INTERVAL;

    const ROLES: &str = "apiVersion: sealgate.dev/v1\nkind: StoreRoles\nroles:\n\
        - {role: 'system:image-signer', users: [jane], repositories: [acme]}\n";

    fn line(user: &str, password: &str) -> String {
        format!("{user}:{}\n", bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap())
    }

    fn opened(users: &str) -> (TempDir, Htpasswd) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("htpasswd"), users).unwrap();
        fs::write(folder.path().join("roles.yaml"), ROLES).unwrap();
        let opened = Htpasswd::open(&folder.path().join("htpasswd"), &folder.path().join("roles.yaml")).unwrap();
        (folder, opened)
    }

    async fn login(access: &Htpasswd, user: &str, password: &str) -> Result<Principal, AccessError> {
        login_from(access, 1, user, password).await
    }

    async fn login_from(access: &Htpasswd, peer: u8, user: &str, password: &str) -> Result<Principal, AccessError> {
        let peer = ClientNetwork::of(Some([192, 0, 2, peer].into()));
        access.authenticate(&Credentials::of_user(user, password).unwrap(), peer).await
    }

    async fn may_sign(access: &Htpasswd, principal: &Principal) -> bool {
        let repository = RepositoryName::parse("acme/web").unwrap();
        access.is_allowed(principal, Action::CreateSignature, Some(&repository)).await.unwrap()
    }

    #[tokio::test]
    async fn a_right_password_makes_a_caller_and_a_wrong_one_does_not() {
        let (_folder, access) = opened(&(line("jane", "secret") + &line("joe", "other")));
        for _ in 0..2 {
            let jane = login(&access, "jane", "secret").await.unwrap();
            assert_eq!(jane.name(), Some("jane"));
            assert!(may_sign(&access, &jane).await);
            let joe = login(&access, "joe", "other").await.unwrap();
            assert!(!may_sign(&access, &joe).await);
            for (user, password) in
                [("jane", "other"), ("jane", ""), ("joe", "secret"), ("", "secret"), ("jan", "secret")]
            {
                let rejected = login(&access, user, password).await.unwrap_err();
                assert_eq!(rejected, Rejection::Password.into(), "{user}: whether there is such a user is not told");
            }
        }
        assert!(access.authenticate(&Credentials::None, ClientNetwork::default()).await.unwrap().is_anonymous());
        assert!(!may_sign(&access, &Principal::anonymous()).await);
        let token = access.authenticate(&Credentials::Bearer("x".into()), ClientNetwork::default()).await;
        assert_eq!(token.unwrap_err(), Rejection::Unknown.into());
    }

    /// Some user's password is checked in place of theirs: it must not become theirs.
    #[tokio::test]
    async fn nobody_is_let_in_with_the_password_of_somebody_else() {
        let (_folder, access) = opened(&line("jane", "secret"));
        for number in 0..20 {
            for _ in 0..2 {
                let stranger = login(&access, &format!("stranger-{number}"), "secret").await;
                assert_eq!(stranger.unwrap_err(), Rejection::Password.into());
            }
        }
        let (_folder, empty) = opened("# nobody yet\n\n");
        assert_eq!(login(&empty, "jane", "secret").await.unwrap_err(), Rejection::Password.into());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_password_is_not_checked_again_for_seconds_whoever_it_is_for() {
        let (_folder, access) = opened(&line("jane", "secret"));
        for (user, password) in [("jane", "wrong"), ("nobody", "secret")] {
            assert_eq!(login(&access, user, password).await.unwrap_err(), Rejection::Password.into());
        }
        assert!(login(&access, "jane", "secret").await.is_ok());
        // Nothing can be checked any more: what has an answer was cached.
        let busy = Htpasswd { queue: FairQueue::new("checks", 0, 0), ..access };
        for (user, password) in [("jane", "wrong"), ("nobody", "secret")] {
            assert_eq!(login(&busy, user, password).await.unwrap_err(), Rejection::Password.into(), "{user}");
        }
        assert!(login(&busy, "jane", "secret").await.is_ok());
        for (user, password) in [("jane", "other"), ("somebody", "secret")] {
            let told = login(&busy, user, password).await.unwrap_err();
            assert!(matches!(told, AccessError::Busy { .. }), "{user}: it takes a check, whether or not there is one");
        }
        tokio::time::advance(REJECTED_TTL).await;
        assert!(matches!(login(&busy, "jane", "wrong").await, Err(AccessError::Busy { .. })));
        assert!(login(&busy, "jane", "secret").await.is_ok());
    }

    #[tokio::test]
    async fn whoever_guesses_passwords_keeps_nobody_else_out() {
        let (_folder, access) = opened(&line("jane", "secret"));
        let (queue, waiting) = (FairQueue::new("checks", 1, 4), 4);
        let access = Htpasswd { queue: queue.clone(), ..access };
        let held = queue.acquire(ClientNetwork::default().into(), Priority::Unproven).await.unwrap();
        let wrong: Vec<String> = (0..=waiting).map(|number| format!("guess-{number}")).collect();
        let mut guesses: Vec<_> = wrong.iter().map(|guess| Box::pin(login_from(&access, 66, "jane", guess))).collect();
        let mut jane = Box::pin(login_from(&access, 1, "jane", "secret"));
        // In this order, until each stands in the queue or is refused.
        let mut refused = 0;
        for guess in &mut guesses {
            for _ in 0..10 {
                if let Some(outcome) = futures_util::FutureExt::now_or_never(&mut *guess) {
                    assert!(matches!(outcome, Err(AccessError::Busy { .. })), "{outcome:?}");
                    refused += 1;
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(refused, 1, "the queue is full");
        for _ in 0..10 {
            assert!(futures_util::FutureExt::now_or_never(&mut jane).is_none());
            tokio::task::yield_now().await;
        }
        drop(held);
        assert_eq!(jane.await.unwrap().name(), Some("jane"));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_was_let_in_within_the_hour_is_let_in_again_however_many_guess() {
        let (_folder, access) = opened(&(line("jane", "secret") + &line("joe", "other")));
        assert!(login(&access, "jane", "secret").await.is_ok());
        // It has to be checked again.
        tokio::time::advance(ACCEPTED_TTL).await;
        let queue = FairQueue::new("checks", 1, 8);
        let access = Htpasswd { queue: queue.clone(), ..access };
        let held = queue.acquire(ClientNetwork::default().into(), Priority::Unproven).await.unwrap();
        let guess = async |number: u16| {
            // No two of them are neighbours.
            let peer = ClientNetwork::of(Some([0x2001, 0xdb8, number, 0, 0, 0, 0, 1].into()));
            access.authenticate(&Credentials::of_user("jane", &format!("guess-{number}")).unwrap(), peer).await
        };
        let mut guesses: Vec<_> = (0..8).map(|number| Box::pin(guess(number))).collect();
        let mut jane = Box::pin(login_from(&access, 1, "jane", "secret"));
        let mut joe = Box::pin(login_from(&access, 2, "joe", "other"));
        for _ in 0..20 {
            for guess in &mut guesses {
                assert!(futures_util::FutureExt::now_or_never(guess).is_none());
            }
            tokio::task::yield_now().await;
        }
        let refused = joe.as_mut().await.unwrap_err();
        assert!(matches!(refused, AccessError::Busy { .. }), "who was never here is one of many: {refused}");
        for _ in 0..20 {
            assert!(futures_util::FutureExt::now_or_never(&mut jane).is_none());
            tokio::task::yield_now().await;
        }
        drop(held);
        assert_eq!(jane.await.unwrap().name(), Some("jane"));
    }

    async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
        for _ in 0..12_000 {
            if holds().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} did not come");
    }

    #[tokio::test]
    async fn a_changed_file_is_in_force_and_a_broken_one_changes_nothing() {
        let (folder, access) = opened(&line("jane", "secret"));
        let jane = login(&access, "jane", "secret").await.unwrap();
        // Broken roles must not keep a removed user in.
        fs::write(folder.path().join("roles.yaml"), "roles: nonsense").unwrap();
        fs::write(folder.path().join("htpasswd"), line("jane", "changed")).unwrap();
        until("the new password", async || login(&access, "jane", "changed").await.is_ok()).await;
        assert!(login(&access, "jane", "secret").await.is_err(), "what was remembered of the old one does not count");
        assert!(!may_sign(&access, &jane).await, "who came with the old password may nothing any more");
        let changed = login(&access, "jane", "changed").await.unwrap();
        assert!(may_sign(&access, &changed).await, "the last good roles are in force");
        fs::write(folder.path().join("htpasswd"), "jane:plain\n").unwrap();
        fs::write(folder.path().join("roles.yaml"), ROLES.replace("jane", "joe")).unwrap();
        until("the new roles", async || !may_sign(&access, &changed).await).await;
        assert!(login(&access, "jane", "changed").await.is_ok(), "the last good passwords are in force");
    }

    /// Roles without their last lines give more than the whole: `repositories` is what bounds a role.
    #[test]
    fn a_file_that_is_written_in_place_takes_effect_whole_however_long_that_takes() {
        let folder = tempfile::tempdir().unwrap();
        let [users, roles] = ["htpasswd", "roles.yaml"].map(|name| folder.path().join(name));
        let grant = "apiVersion: sealgate.dev/v1\nkind: StoreRoles\nroles:\n- role: system:image-signer\n  users: [jane]\n  \
                     repositories:\n  - acme/web\n";
        let no_roles = "apiVersion: sealgate.dev/v1\nkind: StoreRoles\nroles: []\n";
        let (jane, joe) = (line("jane", "secret"), line("joe", "other"));
        fs::write(&users, &jane).unwrap();
        fs::write(&roles, no_roles).unwrap();
        let files = Arc::new(Files {
            users: ArcSwap::from_pointee(read_users(&users).unwrap()),
            roles: ArcSwap::from_pointee(read_roles(&roles).unwrap()),
            users_file: users.clone(),
            roles_file: roles.clone(),
        });
        let mut reload = Reload::new(Arc::clone(&files));
        let repository = |name: &str| RepositoryName::parse(name).unwrap();
        let may_sign = |name: &str| files.roles.load().let_do("jane", Action::CreateSignature, Some(&repository(name)));
        let is_there = |name: &str| files.users.load().by_name.contains_key(name);
        let all_users = format!("{joe}{jane}");
        let mut now = Instant::now();
        for end in grant.match_indices('\n').map(|(end, _)| end + 1) {
            fs::write(&roles, &grant[..end]).unwrap();
            fs::write(&users, &all_users[..joe.len() * end / grant.len()]).unwrap();
            for _ in 0..2 {
                reload.check(now);
                now += SETTLE_INTERVAL / 2;
                assert!(!may_sign("acme/web") && !may_sign("other"), "a part counts: {}", &grant[..end]);
                assert!(is_there("jane") && !is_there("joe"));
            }
        }
        fs::write(&users, &all_users).unwrap();
        reload.check(now);
        let look = reload.check(now + SETTLE_INTERVAL);
        assert!(may_sign("acme/web") && !may_sign("other"));
        assert!(is_there("jane") && is_there("joe"));
        assert_eq!(look.again, None);
    }

    #[test]
    fn a_file_with_mistakes_is_refused_and_shows_no_hash() {
        let good = line("jane", "secret");
        for (text, expected) in [
            ("jane\n".to_owned(), "htpasswd:1:1: NAME:HASH is expected"),
            (":x\n".to_owned(), "htpasswd:1:1: NAME:HASH is expected"),
            ("# x\njane:hunter2\n".to_owned(), "htpasswd:2:1: the password of \"jane\" is not hashed with bcrypt"),
            ("jane:$apr1$hunter2\n".to_owned(), "is hashed with MD5; only bcrypt counts"),
            ("jane:{SHA}hunter2\n".to_owned(), "is hashed with SHA-1"),
            ("jane:$6$hunter2\n".to_owned(), "is hashed with crypt's SHA-2"),
            ("jane:$2y$05$hunter2\n".to_owned(), "is a malformed bcrypt hash"),
            (good.replace("$04$", "$31$"), "has the bcrypt cost 31; 4 to 15 is expected"),
            (good.replace("$2b$", "$2x$"), "is not hashed with bcrypt"),
            (format!("{good}{good}"), "htpasswd:2:1: \"jane\" has a password in line 1 already"),
        ] {
            let told = Diagnostics(&Users::parse("htpasswd", &text).unwrap_err()).to_string();
            assert!(told.contains(expected) && told.contains("help: "), "{text}\n{told}");
            assert!(!told.contains("hunter2") && !told.contains("$2"), "{told}");
        }
        let told = Users::parse("htpasswd", "a\nb\n").unwrap_err();
        assert_eq!(told.len(), 2, "all mistakes are told");
    }

    #[test]
    fn every_flavour_of_bcrypt_is_taken() {
        for flavour in ["$2a$", "$2b$", "$2y$"] {
            let text = line("jane", "secret").replace("$2b$", flavour).replace('\n', "\r\n");
            let users = Users::parse("htpasswd", &text).unwrap();
            assert!(bcrypt::verify("secret", &users.by_name["jane"].hash).unwrap(), "{flavour}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Htpasswd::open(&folder.path().join("htpasswd"), &folder.path().join("roles.yaml")).unwrap_err();
        assert!(error.to_string().starts_with("gateway.access.htpasswd.file "), "{error}");
        assert!(error.to_string().ends_with("htpasswd: there is no such file"), "{error}");
    }
}
