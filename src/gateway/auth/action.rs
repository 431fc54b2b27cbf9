//! What callers do to signatures that takes a permission.

use std::fmt;

use crate::gateway::store::RepositoryName;

/// What a caller does to signatures. Reading is not among these: a caller that may pull an image from the registry may read
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
    /// Write signatures with whatever details and status they come with.
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

    /// Returns it as part of a sentence about the signatures of a repository, or of every repository for `None`.
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
