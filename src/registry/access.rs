//! Access rights of requests, in the terms of token scopes.

use std::sync::Arc;

/// The access that a request needs to a repository, or to a whole store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Read.
    Pull,
    /// Read and write.
    Push,
    /// Read and write, and read another repository of the registry, from which blobs are mounted.
    Mount(Arc<str>),
    /// Read and write a whole signature store, whatever the repository.
    Store,
}

impl Access {
    /// Returns the token scopes of this access (distribution specification, "Token Scope Documentation").
    pub(super) fn scopes(&self, repository: &str) -> Vec<String> {
        match self {
            Self::Pull => vec![format!("repository:{repository}:pull")],
            Self::Push => vec![format!("repository:{repository}:pull,push")],
            Self::Mount(from) => {
                vec![format!("repository:{repository}:pull,push"), format!("repository:{from}:pull")]
            }
            Self::Store => vec!["registry:signatures:*".to_owned()],
        }
    }
}
