//! The password file and the roles file, read again when they change.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::{super::roles::Roles, password_file::Users};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::files::{
    NextCheck, ReadError,
    follower::{Follower, Progress},
    read_bounded,
};
use crate::text;

/// The maximum size of either file, in bytes: about ten thousand users.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The reason why users or roles can't be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// A file can't be read.
    #[error("{setting} {}: {why}", path.display())]
    Unreadable {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        why: ReadError,
    },
    /// A file has these mistakes.
    #[error("{}", Diagnostics(.0))]
    Refused(Vec<Diagnostic>),
    /// The files can't be watched.
    #[error("the files of gateway.access can't be watched for changes: {0}")]
    Watch(#[source] std::io::Error),
    /// The system has no randomness.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

#[derive(Debug)]
pub(super) struct Files {
    pub(super) users_file: PathBuf,
    pub(super) roles_file: PathBuf,
    pub(super) users: ArcSwap<Users>,
    pub(super) roles: ArcSwap<Roles>,
}
impl Files {
    pub(super) fn warn_of_strangers(&self) {
        let (users, roles) = (self.users.load(), self.roles.load());
        for user in roles.users().into_iter().filter(|user| !users.by_name.contains_key(*user)) {
            let (users_file, roles_file) = (self.users_file.display(), self.roles_file.display());
            tracing::warn!(user, %users_file, %roles_file, "a user has a role and no password, so the role is of no use");
        }
    }
}

pub(super) struct Reload {
    files: Arc<Files>,
    users: Follower<Arc<Users>>,
    roles: Follower<Arc<Roles>>,
}

impl Reload {
    pub(super) fn new(files: Arc<Files>) -> Self {
        Self {
            files,
            users: Follower::new("the passwords of gateway.access.htpasswd"),
            roles: Follower::new("the roles of gateway.access.htpasswd"),
        }
    }

    /// Reads both files. They are independent: broken roles must not keep a removed user in.
    pub(super) fn check(&mut self, now: Instant) -> NextCheck {
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

pub(super) fn read_users(path: &Path) -> Result<Users, UsersError> {
    let text = read_text("gateway.access.htpasswd.file", path)?;
    Users::parse(&path.display().to_string(), &text).map_err(UsersError::Refused)
}

pub(super) fn read_roles(path: &Path) -> Result<Roles, UsersError> {
    let text = read_text("gateway.access.htpasswd.roles", path)?;
    Roles::parse(&path.display().to_string(), &text).map_err(UsersError::Refused)
}

fn read_text(setting: &'static str, path: &Path) -> Result<String, UsersError> {
    let bytes = read_bounded(path, MAX_FILE_BYTES);
    let bytes = bytes.map_err(|why| UsersError::Unreadable { setting, path: path.to_owned(), why })?;
    // The lines contain secrets, so they are not shown.
    let hide = |mistake: Diagnostic| UsersError::Refused(vec![Diagnostic { snippet: None, ..mistake }]);
    text::utf8(&path.display().to_string(), &bytes).map(str::to_owned).map_err(|mistake| hide(*mistake))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::files::SETTLE_INTERVAL;
    use crate::gateway::{auth::Action, store::RepositoryName};

    fn line(user: &str, password: &str) -> String {
        format!("{user}:{}\n", bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap())
    }

    /// Roles without their last lines allow more than the whole file: `repositories` is what limits a role.
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
}
