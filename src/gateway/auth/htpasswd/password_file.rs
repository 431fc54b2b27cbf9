//! The password file (`htpasswd -B`), checked.

use std::{collections::HashMap, fmt, str::FromStr as _, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::super::Principal;
use crate::diagnostic::{Diagnostic, Span};

/// The maximum bcrypt cost. The time of a check doubles with each step, and beyond this, clients do not wait for it.
const MAX_BCRYPT_COST: u32 = 15;
/// The cost of a check for an unknown user, if the file has no users to take it from.
const DEFAULT_BCRYPT_COST: u32 = 10;

/// A line of the file.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// The bcrypt hash: `$2y$..`, `$2b$..` or `$2a$..`.
    pub(super) hash: Arc<str>,
}

impl Account {
    /// Returns the principal of the user with this password. A new password makes another principal, so that the tokens
    /// of the previous one end.
    pub(super) fn principal(&self, name: &str) -> Principal {
        let uid = URL_SAFE_NO_PAD.encode(&digest(&SHA256, self.hash.as_bytes()).as_ref()[..12]);
        Principal { name: Some(name.into()), uid: Some(uid.into()), ..Principal::default() }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Account")
    }
}

/// The checked password file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Users {
    pub(super) by_name: HashMap<Box<str>, Account>,
    /// The accounts in the file's order.
    in_order: Vec<Account>,
}

impl Users {
    /// Parses and checks a password file.
    ///
    /// # Errors
    /// Returns every mistake, at least one. No line is shown, since it may contain a password.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
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

    /// Returns the account whose password is checked in place of an unknown user's.
    pub(super) fn in_place_of(&self, user: [u8; 32]) -> Account {
        let number = u32::from_le_bytes([user[0], user[1], user[2], user[3]]) as usize;
        match number.checked_rem(self.in_order.len()).and_then(|number| self.in_order.get(number)) {
            Some(account) => account.clone(),
            None => Account { hash: format!("$2y${DEFAULT_BCRYPT_COST:02}${}", ".".repeat(53)).into() },
        }
    }
}

/// Checks a hash; returns what is wrong with it.
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
    use super::*;
    use crate::diagnostic::Diagnostics;

    fn line(user: &str, password: &str) -> String {
        format!("{user}:{}\n", bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap())
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
}
