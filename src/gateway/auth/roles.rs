//! The roles file, which gives users roles in repositories. It complements a [password file](super::htpasswd).

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

use serde::Deserialize;

use super::Action;
use crate::diagnostic::{Diagnostic, Span};
use crate::gateway::store::RepositoryName;
use crate::yaml::{self, Lenient, Located, YamlSource};

/// The role that adds and removes signatures.
const SIGNER: &str = "system:image-signer";
/// The role that sets and clears verification statuses.
const AUDITOR: &str = "image-auditor";
/// The role that exports and imports whole stores.
const ADMIN: &str = "store-admin";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawRoles {
    #[allow(dead_code)] // There is one, and reading it is the check.
    api_version: ApiVersion,
    #[allow(dead_code)]
    kind: Kind,
    roles: Vec<Lenient<RawGrant>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum ApiVersion {
    #[serde(rename = "sealgate.dev/v1")]
    V1,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Kind {
    StoreRoles,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawGrant {
    role: Role,
    users: Located<Vec<Located<Box<str>>>>,
    repositories: Option<Located<Vec<Located<Box<str>>>>>,
}

/// A role of a user.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash)]
pub(super) enum Role {
    /// Adds and removes signatures.
    #[serde(rename = "system:image-signer")]
    Signer,
    /// Sets and clears verification status.
    #[serde(rename = "image-auditor", alias = "system:image-auditor")]
    Auditor,
    /// Exports and imports.
    #[serde(rename = "store-admin")]
    Admin,
}

impl Role {
    /// Returns the role that allows an action.
    pub(super) fn for_action(action: Action) -> Self {
        match action {
            Action::CreateSignature | Action::DeleteSignature => Self::Signer,
            Action::SetStatus => Self::Auditor,
            Action::Export | Action::Import => Self::Admin,
        }
    }

    /// Returns the name of the role.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Signer => SIGNER,
            Self::Auditor => AUDITOR,
            Self::Admin => ADMIN,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The repositories in which a role applies.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Where {
    Everywhere,
    /// These repositories, and those below them.
    Below(Vec<RepositoryName>),
}

impl Where {
    /// Returns whether the role applies in a repository, or in the whole store for `None`.
    fn covers(&self, repository: Option<&RepositoryName>) -> bool {
        match (self, repository) {
            (Self::Everywhere, _) => true,
            (Self::Below(_), None) => false,
            (Self::Below(prefixes), Some(repository)) => prefixes.iter().any(|prefix| {
                let rest = repository.as_str().strip_prefix(prefix.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }),
        }
    }
}

/// The checked roles file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Roles {
    by_user: HashMap<Box<str>, Vec<(Role, Where)>>,
}

impl Roles {
    /// Returns whether a role allows an action of this user in a repository, or in the whole store for `None`.
    pub(super) fn let_do(&self, user: &str, action: Action, repository: Option<&RepositoryName>) -> bool {
        let roles = self.by_user.get(user).into_iter().flatten();
        roles.into_iter().any(|(role, place)| *role == Role::for_action(action) && place.covers(repository))
    }

    /// Returns every user with a role, in order.
    pub(super) fn users(&self) -> BTreeSet<&str> {
        self.by_user.keys().map(AsRef::as_ref).collect()
    }

    /// Parses and checks a roles file.
    ///
    /// # Errors
    /// Returns every mistake that can be found in one pass, at least one.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let source = YamlSource { name, text };
        let documents = yaml::parse(source)?;
        let document = match documents.as_slice() {
            [document] => document,
            [] => {
                let mistake = Diagnostic::of_file(name, "the file is empty");
                return Err(vec![
                    mistake.suggest("begin with: apiVersion: sealgate.dev/v1, kind: StoreRoles, roles: []"),
                ]);
            }
            [_, second, ..] => {
                let message = "a roles file has one document, here begins a second one";
                return Err(vec![source.mistake(second.place, message).suggest("put all roles into one list")]);
            }
        };
        let (raw, mistakes) = yaml::read::<RawRoles>(source, document);
        let mut check = Check { source, mistakes, roles: Self::default() };
        for grant in raw.into_iter().flat_map(|raw| raw.roles) {
            if let Lenient(Some(grant)) = grant {
                check.grant(grant);
            }
        }
        let Check { mut mistakes, roles, .. } = check;
        if mistakes.is_empty() {
            return Ok(roles);
        }
        mistakes.sort_by_key(|mistake| mistake.place);
        Err(mistakes)
    }
}

struct Check<'a> {
    source: YamlSource<'a>,
    mistakes: Vec<Diagnostic>,
    roles: Roles,
}

impl Check<'_> {
    fn mistake(&mut self, place: Span, message: impl Into<String>, suggestion: impl Into<String>) {
        self.mistakes.push(self.source.mistake(place, message).suggest(suggestion));
    }

    fn grant(&mut self, raw: RawGrant) {
        let RawGrant { role, users, repositories } = raw;
        let place = match repositories {
            None => Where::Everywhere,
            Some(repositories) if role == Role::Admin => {
                let message = "a store-admin moves the whole store, so the role does not end at a repository";
                self.mistake(repositories.key, message, "leave repositories out");
                return;
            }
            Some(repositories) => Where::Below(self.repositories(&repositories)),
        };
        if users.is_empty() {
            self.mistake(users.key, "users names no user", "write users: [NAME], or leave this entry out");
        }
        let mut seen = BTreeSet::new();
        for user in &users.value {
            if user.is_empty() || user.contains(':') || user.contains(char::is_control) {
                let message = "a user name is not empty, and has no colon and no control character";
                self.mistake(user.place, message, "write the name as it stands in the htpasswd file");
            } else if !seen.insert(&*user.value) {
                self.mistake(user.place, format!("{:?} stands twice", user.value), "name a user once");
            } else {
                self.roles.by_user.entry(user.value.clone()).or_default().push((role, place.clone()));
            }
        }
    }

    fn repositories(&mut self, raw: &Located<Vec<Located<Box<str>>>>) -> Vec<RepositoryName> {
        if raw.is_empty() {
            self.mistake(raw.key, "repositories names none", "leave it out for all repositories");
        }
        let mut repositories = Vec::new();
        for text in &raw.value {
            match RepositoryName::parse(text) {
                Ok(repository) => repositories.push(repository),
                Err(error) => {
                    let message = format!("this is not the path of a repository or of a part of them: {error}");
                    let suggestion = if &*text.value == "*" {
                        "leave repositories out for all of them"
                    } else {
                        "write acme or acme/web: what follows the store's address, without tag"
                    };
                    self.mistake(text.place, message, suggestion);
                }
            }
        }
        repositories
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_has_the_name_that_files_have() {
        for role in [Role::Signer, Role::Auditor, Role::Admin] {
            assert_eq!(serde_json::from_value::<Role>(role.as_str().into()).unwrap(), role);
            assert_eq!(role.to_string(), role.as_str());
        }
    }

    use crate::diagnostic::Diagnostics;

    const HEAD: &str = "apiVersion: sealgate.dev/v1\nkind: StoreRoles\n";

    fn parse(rest: &str) -> Result<Roles, String> {
        Roles::parse("roles.yaml", &format!("{HEAD}{rest}")).map_err(|mistakes| {
            assert!(!mistakes.is_empty());
            Diagnostics(&mistakes).to_string()
        })
    }

    fn repository(name: &str) -> RepositoryName {
        RepositoryName::parse(name).unwrap()
    }

    const ALL: [Action; 5] =
        [Action::CreateSignature, Action::DeleteSignature, Action::SetStatus, Action::Export, Action::Import];

    #[test]
    fn a_role_lets_do_what_it_is_for_and_nothing_else() {
        let roles = parse(
            "roles:\n- {role: 'system:image-signer', users: [robot]}\n- {role: image-auditor, users: [jane]}\n\
             - {role: store-admin, users: [ops]}\n- {role: 'system:image-auditor', users: [joe]}\n",
        )
        .unwrap();
        for (user, expected) in [
            ("robot", vec![Action::CreateSignature, Action::DeleteSignature]),
            ("jane", vec![Action::SetStatus]),
            ("joe", vec![Action::SetStatus]),
            ("ops", vec![Action::Export, Action::Import]),
            ("nobody", vec![]),
            ("", vec![]),
        ] {
            for place in [Some(repository("acme/web")), None] {
                let may = ALL.into_iter().filter(|&action| roles.let_do(user, action, place.as_ref()));
                assert_eq!(may.collect::<Vec<_>>(), expected, "{user}");
            }
        }
        assert_eq!(roles.users().into_iter().collect::<Vec<_>>(), ["jane", "joe", "ops", "robot"]);
    }

    #[test]
    fn a_role_with_repositories_holds_in_them_and_below_and_not_for_the_whole_store() {
        let roles =
            parse("roles:\n- {role: 'system:image-signer', users: [robot], repositories: [acme, payments/api]}\n")
                .unwrap();
        let may = |name: &str| roles.let_do("robot", Action::CreateSignature, Some(&repository(name)));
        for name in ["acme", "acme/web", "acme/web/deep", "payments/api", "payments/api/v2"] {
            assert!(may(name), "{name}");
        }
        for name in ["acmes", "acme-2/web", "payments", "payments/api2", "other/acme"] {
            assert!(!may(name), "{name}");
        }
        assert!(!roles.let_do("robot", Action::CreateSignature, None));
    }

    #[test]
    fn several_roles_of_one_user_add_up() {
        let roles = parse(
            "roles:\n- {role: 'system:image-signer', users: [jane], repositories: [a]}\n\
             - {role: 'system:image-signer', users: [jane, joe], repositories: [b]}\n\
             - {role: image-auditor, users: [jane]}\n",
        )
        .unwrap();
        for name in ["a", "b/c"] {
            assert!(roles.let_do("jane", Action::CreateSignature, Some(&repository(name))), "{name}");
        }
        assert!(roles.let_do("jane", Action::SetStatus, Some(&repository("c"))));
        assert!(!roles.let_do("joe", Action::CreateSignature, Some(&repository("a"))));
    }

    #[test]
    fn nobody_may_have_a_role() {
        assert_eq!(parse("roles: []\n").unwrap(), Roles::default());
    }

    #[test]
    fn mistakes_are_found_at_their_place() {
        for (rest, place, help) in [
            ("", "1:1: the field \"roles\" is missing", ""),
            ("roles:\n- {role: image-signer, users: [a]}\n", "4:10: \"image-signer\" is not known here", SIGNER),
            ("roles:\n- {role: store-admin, user: [a]}\n", "4:23: unknown field \"user\"", "users"),
            ("roles:\n- {role: store-admin, users: []}\n", "4:23: users names no user", "NAME"),
            ("roles:\n- {role: store-admin, users: [a, a]}\n", "4:34: \"a\" stands twice", "once"),
            ("roles:\n- {role: store-admin, users: ['a:b']}\n", "4:31: a user name", "htpasswd"),
            ("roles:\n- {role: store-admin, users: [a], repositories: [b]}\n", "4:35: a store-admin", "leave"),
            (
                "roles:\n- {role: image-auditor, users: [a], repositories: []}\n",
                "4:37: repositories names none",
                "leave",
            ),
            (
                "roles:\n- {role: image-auditor, users: [a], repositories: ['*']}\n",
                "4:52: this is not the path",
                "leave",
            ),
            (
                "roles:\n- {role: image-auditor, users: [a], repositories: [Acme]}\n",
                "4:52: this is not the path of a repository or of a part of them: an image's name is written in lower",
                "acme",
            ),
            ("roles: []\n---\nroles: []\n", "5:1: a roles file has one document", "one list"),
        ] {
            let told = parse(rest).unwrap_err();
            assert!(told.contains(place), "{rest}\n{told}");
            assert!(told.contains(help), "{rest}\n{told}");
        }
        let told = Diagnostics(&Roles::parse("roles.yaml", "").unwrap_err()).to_string();
        assert!(told.contains("roles.yaml: the file is empty"), "{told}");
        let told = parse("roles:\n- {role: nope, users: [a]}\n- {role: store-admin, users: []}\n").unwrap_err();
        assert!(told.contains("4:") && told.contains("5:"), "both are told: {told}");
    }
}
