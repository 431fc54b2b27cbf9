//! Actions on signatures that require a permission.

use std::fmt;

use crate::gateway::store::RepositoryName;

/// An action on signatures. Reading is not among them: permission to pull an image from the registry includes reading
/// its signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Add a signature.
    CreateSignature,
    /// Remove a signature.
    DeleteSignature,
    /// Set or clear a signature's verification status.
    SetStatus,
    /// Read the whole store.
    Export,
    /// Write signatures with any origin and status.
    Import,
}

impl Action {
    /// Returns the word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateSignature => "create-signature",
            Self::DeleteSignature => "delete-signature",
            Self::SetStatus => "set-status",
            Self::Export => "export",
            Self::Import => "import",
        }
    }

    /// Returns the action as part of a sentence about the signatures of a repository, or of every repository for
    /// `None`.
    pub fn in_words(self, repository: Option<&RepositoryName>) -> String {
        let what = repository.map_or("this store", RepositoryName::as_str);
        match self {
            Self::CreateSignature => format!("add signatures to {what}"),
            Self::DeleteSignature => format!("remove signatures from {what}"),
            Self::SetStatus => format!("set or clear the status of signatures in {what}"),
            Self::Export => "export this store".to_owned(),
            Self::Import => "import into this store".to_owned(),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_part_of_a_sentence() {
        let repository = RepositoryName::parse("acme/web").unwrap();
        let words = |action: Action| [action.in_words(Some(&repository)), action.in_words(None)];
        assert_eq!(words(Action::CreateSignature), ["add signatures to acme/web", "add signatures to this store"]);
        assert_eq!(words(Action::Export), ["export this store", "export this store"]);
    }
}
