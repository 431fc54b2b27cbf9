//! The backend of files: users and passwords in an Apache password file (`htpasswd -B`), roles in another file.
//!
//! Both are read again when they change. Checks of passwords are slow by design, so they run outside the workers, a few
//! at once, and for each client in turn. Recently accepted credentials do not wait behind others. Each answer is cached
//! for seconds.

mod followed_files;
mod password_file;

use std::{path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

pub use self::followed_files::UsersError;
use self::followed_files::{Files, Reload, read_roles, read_users};
use super::{
    AccessError, Action, AuthBackend, ClientNetwork, Credentials, Principal, Rejection,
    auth_cache::{AuthCache, ProvenCredentials},
    fair_queue::FairQueue,
};
use crate::files::ChangeWatcher;
use crate::gateway::store::RepositoryName;

/// The time for which an accepted password is not checked again.
const ACCEPTED_TTL: Duration = Duration::from_secs(10);
/// The time for which a wrong password is not checked again: a client with a wrong password in its configuration sends
/// it repeatedly.
const REJECTED_TTL: Duration = Duration::from_secs(5);
/// The maximum number of checks that wait.
const MAX_QUEUED_CHECKS: usize = 64;
/// The time between two reads of the files, if no event reports a change.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Users and roles from files.
#[derive(Debug)]
pub struct Htpasswd {
    files: Arc<Files>,
    queue: FairQueue,
    cache: AuthCache<bool>,
    proven: ProvenCredentials,
    _watcher: ChangeWatcher,
}
impl Htpasswd {
    /// Reads both files, and again whenever they change. If a changed file is refused, its last good content stays in
    /// force.
    ///
    /// # Errors
    /// A file can't be read, or has mistakes.
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
        // A check keeps a core busy: at least one core stays free.
        let places = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1));
        Ok(Self {
            files,
            queue: FairQueue::new("password checks", places, MAX_QUEUED_CHECKS),
            cache: AuthCache::new().ok_or(UsersError::NoRandomness)?,
            proven: ProvenCredentials::new(),
            _watcher: watcher.map_err(UsersError::Watch)?,
        })
    }

    /// Checks a user's password. For an unknown user, it checks another user's password, always the same one, so that
    /// the time does not reveal which users exist.
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
        // The hash is included, so that a changed password never finds the answer of the previous one.
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

    /// The account is looked up again for a caller with a token: a user who was removed from the file, or has another
    /// password, may not do anything any more.
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

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::{super::fair_queue::Priority, *};

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

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Htpasswd::open(&folder.path().join("htpasswd"), &folder.path().join("roles.yaml")).unwrap_err();
        assert!(error.to_string().starts_with("gateway.access.htpasswd.file "), "{error}");
        assert!(error.to_string().ends_with("htpasswd: there is no such file"), "{error}");
    }
}
