//! What a request does in a repository, as the scopes of tokens name it.

use std::sync::Arc;

/// The access that a request needs to a repository, or to a whole store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// To read.
    Pull,
    /// To read and write.
    Push,
    /// To read and write, and to read in another repository of the registry, from which blobs are mounted.
    Mount(Arc<str>),
    /// To read and write all of a store of signatures, whatever the repository.
    Store,
}

impl Access {
    /// As a token's scopes have it (distribution specification, "Token Scope Documentation").
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
