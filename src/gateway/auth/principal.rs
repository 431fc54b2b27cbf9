//! The principal that a request's credentials prove.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// The identity of a caller, as the credentials prove it.
///
/// Tokens contain a sealed principal. A backend that gets it back must not assume that the caller still has its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// `None` for an anonymous caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<Box<str>>,
    /// Distinguishes two users who had the same name one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) groups: Vec<Box<str>>,
    /// Further attributes of a Kubernetes user, for the cluster's authorizers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) extra: BTreeMap<Box<str>, Vec<Box<str>>>,
}

impl Principal {
    /// Returns the principal of a request without credentials.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Returns the name; `None` for an anonymous caller.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns whether the request had no credentials.
    pub fn is_anonymous(&self) -> bool {
        self.name.is_none()
    }
}

/// Formats the name for logs. The backend decides which characters a name has, so control characters are escaped.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            None => f.write_str("(anonymous)"),
            Some(name) => name.escape_debug().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_not_forge_a_line_of_the_log() {
        let caller = Principal { name: Some("jane\n2026 admin".into()), ..Principal::default() };
        assert_eq!(caller.to_string(), "jane\\n2026 admin");
        assert!(!caller.is_anonymous() && Principal::anonymous().is_anonymous());
        assert_eq!(Principal::anonymous().to_string(), "(anonymous)");
    }
}
