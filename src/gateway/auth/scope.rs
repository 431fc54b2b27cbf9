//! The scopes of tokens, in the registry token protocol (distribution, "Token Scope Documentation").

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Action;
use crate::gateway::store::RepositoryName;

/// The maximum number of scopes of one token.
const MAX_SCOPES: usize = 16;
/// The maximum length of one scope, in bytes.
const MAX_SCOPE_BYTES: usize = 512;

/// The resource type of a whole store in a scope: `registry:signatures:*`.
const REGISTRY: &str = "registry";
const THE_STORE: &str = "signatures";

/// One scope: `repository:acme/web:pull,push`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The resource type: `repository`, `registry`, `repository(plugin)`.
    kind: Box<str>,
    name: Box<str>,
    actions: Vec<Box<str>>,
}

/// The scopes of a token, at most 16.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Scopes(Vec<Scope>);

/// The reason why a text is no list of scopes. The message does not repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// There are too many scopes for a token.
    #[error("a token has at most {MAX_SCOPES} scopes")]
    TooMany,
    /// A scope is too long.
    #[error("a scope has at most {MAX_SCOPE_BYTES} bytes")]
    TooLong,
    /// A scope is malformed.
    #[error("a scope is written TYPE:NAME:ACTION,ACTION, like repository:acme/web:pull,push")]
    Malformed,
}

impl Scope {
    /// Parses one scope.
    pub fn parse(text: &str) -> Result<Self, ScopeError> {
        if text.len() > MAX_SCOPE_BYTES {
            return Err(ScopeError::TooLong);
        }
        // A name may contain a host with a port, so the first and the last colon separate the parts.
        let (kind, rest) = text.split_once(':').ok_or(ScopeError::Malformed)?;
        let (name, actions) = rest.rsplit_once(':').ok_or(ScopeError::Malformed)?;
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let (base, class) = match kind.split_once('(') {
            Some((base, class)) => (base, class.strip_suffix(')').ok_or(ScopeError::Malformed)?),
            None => (kind, "x"),
        };
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/' | b':');
        let good = [base, class].iter().all(|part| !part.is_empty() && part.bytes().all(word))
            && !name.is_empty()
            && name.bytes().all(named);
        if !good {
            return Err(ScopeError::Malformed);
        }
        let mut parsed = Self { kind: kind.into(), name: name.into(), actions: Vec::new() };
        for action in actions.split(',') {
            if action != "*" && (action.is_empty() || !action.bytes().all(|byte| byte.is_ascii_lowercase())) {
                return Err(ScopeError::Malformed);
            }
            parsed.add(action);
        }
        Ok(parsed)
    }

    /// Returns the scope that an action on a repository, or on the whole store, requires. Clients that push request it
    /// by themselves.
    pub fn needed_for(action: Action, repository: Option<&RepositoryName>) -> Self {
        let (kind, name, actions): (_, _, &[&str]) = match (action, repository) {
            (Action::CreateSignature | Action::DeleteSignature | Action::SetStatus, Some(repository)) => {
                ("repository", repository.as_str(), &["pull", "push"])
            }
            _ => (REGISTRY, THE_STORE, &["*"]),
        };
        let actions = actions.iter().map(|&action| action.into()).collect();
        Self { kind: kind.into(), name: name.into(), actions }
    }

    /// Returns whether the scope is about the store itself, so that no registry knows it.
    fn is_of_this_store(&self) -> bool {
        &*self.kind == REGISTRY && &*self.name == THE_STORE
    }

    fn add(&mut self, action: &str) {
        if !self.actions.iter().any(|known| &**known == action) {
            self.actions.push(action.into());
        }
    }

    fn covers(&self, other: &Self) -> bool {
        let has = |action: &str| self.actions.iter().any(|own| &**own == "*" || &**own == action);
        self.kind == other.kind && self.name == other.name && other.actions.iter().all(|action| has(action))
    }
}

impl Scopes {
    /// Parses all `scope` parameters of a request, each of which may hold several scopes, separated by spaces. Merges
    /// the actions of scopes with the same resource.
    pub fn parse<'a>(parameters: impl IntoIterator<Item = &'a str>) -> Result<Self, ScopeError> {
        let mut scopes: Vec<Scope> = Vec::new();
        for text in parameters.into_iter().flat_map(|parameter| parameter.split(' ')).filter(|text| !text.is_empty()) {
            let scope = Scope::parse(text)?;
            let full = scopes.len() == MAX_SCOPES;
            match scopes.iter_mut().find(|known| known.kind == scope.kind && known.name == scope.name) {
                Some(known) => scope.actions.iter().for_each(|action| known.add(action)),
                None if full => return Err(ScopeError::TooMany),
                None => scopes.push(scope),
            }
        }
        Ok(Self(scopes))
    }

    /// Returns whether these scopes include all actions of `needed`.
    pub fn cover(&self, needed: &Scope) -> bool {
        self.0.iter().any(|scope| scope.covers(needed))
    }

    /// Returns the intersection with `others`.
    #[must_use]
    pub fn within(&self, others: &Self) -> Self {
        Self(self.0.iter().filter(|scope| others.cover(scope)).cloned().collect())
    }

    /// Returns the scopes for a registry's own token; `None` if all are about the store alone.
    pub fn of_the_registry(&self) -> Option<Vec<String>> {
        let theirs = self.0.iter().filter(|scope| !scope.is_of_this_store());
        let theirs: Vec<String> = theirs.map(Scope::to_string).collect();
        (!theirs.is_empty() || self.0.is_empty()).then_some(theirs)
    }

    /// Iterates over the scopes in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.kind, self.name, self.actions.join(","))
    }
}

impl TryFrom<Vec<String>> for Scopes {
    type Error = ScopeError;

    fn try_from(texts: Vec<String>) -> Result<Self, ScopeError> {
        Self::parse(texts.iter().map(String::as_str))
    }
}

impl From<Scopes> for Vec<String> {
    fn from(scopes: Scopes) -> Self {
        scopes.iter().map(Scope::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scopes(parameters: &[&str]) -> Vec<String> {
        Scopes::parse(parameters.iter().copied()).unwrap().into()
    }

    #[test]
    fn scopes_come_in_several_parameters_or_in_one() {
        assert_eq!(scopes(&[]), [""; 0]);
        assert_eq!(scopes(&["", " "]), [""; 0]);
        let both = ["repository:acme/web:pull", "registry:catalog:*"];
        assert_eq!(scopes(&both), both);
        assert_eq!(scopes(&["repository:acme/web:pull registry:catalog:*"]), both);
        assert_eq!(scopes(&["repository:a:pull", "repository:a:push,pull"]), ["repository:a:pull,push"]);
        assert_eq!(scopes(&["repository(plugin):a:pull"]), ["repository(plugin):a:pull"]);
        assert_eq!(scopes(&["repository:example.com:5000/a:pull"]), ["repository:example.com:5000/a:pull"]);
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for text in [
            "repository",
            "repository:a",
            "repository::pull",
            ":a:pull",
            "repository:a:",
            "repository:a:pull,",
            "a(:b:c",
            "a():b:c",
            "repository:a\"b:pull",
            "repository:a,b:pull",
            "repository:a:PULL",
            "repository:ä:pull",
        ] {
            assert_eq!(Scopes::parse([text]), Err(ScopeError::Malformed), "{text}");
        }
        assert_eq!(Scopes::parse([format!("repository:{}:pull", "a".repeat(512)).as_str()]), Err(ScopeError::TooLong));
        let many: Vec<String> = (0..17).map(|number| format!("repository:a{number}:pull")).collect();
        assert_eq!(Scopes::parse(many.iter().map(String::as_str)), Err(ScopeError::TooMany));
        assert!(Scopes::parse(many.iter().skip(1).map(String::as_str)).is_ok());
    }

    #[test]
    fn to_write_signatures_a_token_must_be_for_pushing_to_that_repository() {
        let repository = RepositoryName::parse("acme/web").unwrap();
        let needed = Scope::needed_for(Action::CreateSignature, Some(&repository));
        assert_eq!(needed.to_string(), "repository:acme/web:pull,push");
        for (text, enough) in [
            ("repository:acme/web:pull,push", true),
            ("repository:acme/web:push,delete,pull", true),
            ("repository:acme/web:*", true),
            ("repository:acme/web:pull", false),
            ("repository:acme/web2:pull,push", false),
            ("repository:acme:*", false),
            ("registry:acme/web:*", false),
            ("", false),
        ] {
            assert_eq!(Scopes::parse([text]).unwrap().cover(&needed), enough, "{text}");
        }
        let whole = Scope::needed_for(Action::Export, None);
        assert!(Scopes::parse(["registry:signatures:*"]).unwrap().cover(&whole));
        assert!(!Scopes::parse(["registry:catalog:* repository:signatures:*"]).unwrap().cover(&whole));
    }

    #[test]
    fn one_action_does_not_cover_another() {
        let (pull, push) = (Scope::parse("repository:a:pull").unwrap(), Scope::parse("repository:a:push").unwrap());
        assert!(pull.covers(&pull) && !pull.covers(&push) && !push.covers(&pull));
    }

    #[test]
    fn scopes_within_others_are_those_that_are_covered() {
        let of = |parameters: &[&str]| Scopes::parse(parameters.iter().copied()).unwrap();
        let wanted = of(&["repository:a:pull,push", "repository:b:pull", "repository:c:pull,push"]);
        let within = wanted.within(&of(&["repository:a:*", "repository:c:pull"]));
        assert_eq!(Vec::<String>::from(within), ["repository:a:pull,push"]);
    }

    #[test]
    fn a_scope_may_be_as_long_as_the_limit() {
        let longest = format!("repository:{}:pull", "a".repeat(MAX_SCOPE_BYTES - "repository::pull".len()));
        assert!(Scope::parse(&longest).is_ok());
        assert_eq!(Scope::parse(&format!("{longest}l")), Err(ScopeError::TooLong));
    }

    #[test]
    fn a_registry_is_not_asked_for_what_is_the_stores_alone() {
        let theirs = |text: &str| Scopes::parse([text]).unwrap().of_the_registry();
        let both = "registry:catalog:* repository:signatures:pull";
        assert_eq!(theirs(both).unwrap().join(" "), both);
        assert_eq!(theirs(&format!("registry:signatures:* {both}")).unwrap().join(" "), both);
        assert_eq!(theirs("registry:signatures:*"), None);
        assert_eq!(theirs(""), Some(Vec::new()), "who only logs in is known to the registry, or is not");
    }

    proptest! {
        #[test]
        fn what_was_read_is_read_again_the_same(text in "[a-z:,/.*() -]{0,40}|\\PC{0,40}") {
            if let Ok(scopes) = Scopes::parse([text.as_str()]) {
                let texts: Vec<String> = scopes.clone().into();
                prop_assert_eq!(Scopes::try_from(texts).unwrap(), scopes);
            }
        }
    }
}
