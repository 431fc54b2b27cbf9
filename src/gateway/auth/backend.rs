//! The trait of backends, which check credentials and permissions.

use std::fmt;

use async_trait::async_trait;

use super::{
    action::Action, client_network::ClientNetwork, credentials::Credentials, error::AccessError, principal::Principal,
    roles,
};
use crate::gateway::store::RepositoryName;

/// A backend, which checks credentials and permissions.
#[async_trait]
pub trait AuthBackend: fmt::Debug + Send + Sync + 'static {
    /// Returns the principal that the credentials prove. Without credentials, that is the anonymous principal, and no
    /// error.
    ///
    /// # Errors
    /// [`AccessError::Rejected`] if they are invalid; [`AccessError::Busy`] and [`AccessError::Unavailable`] if they
    /// can't be checked now.
    async fn authenticate(&self, credentials: &Credentials, peer: ClientNetwork) -> Result<Principal, AccessError>;

    /// Returns whether a principal may act on the signatures of a repository, or of every repository for `None`.
    ///
    /// # Errors
    /// [`AccessError::Busy`] and [`AccessError::Unavailable`] if that can't be checked now.
    async fn is_allowed(
        &self,
        principal: &Principal,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Result<bool, AccessError>;

    /// Returns the role that allows an action, for the refusal of a caller without it.
    fn role_for(&self, action: Action) -> &'static str {
        roles::Role::for_action(action).as_str()
    }
}

/// The backend without access control: it authenticates no caller, and allows every caller everything.
#[derive(Clone, Copy, Debug)]
pub struct AllowAll;

#[async_trait]
impl AuthBackend for AllowAll {
    /// Returns the anonymous principal: a name that is not checked must not get into the log.
    async fn authenticate(&self, _: &Credentials, _: ClientNetwork) -> Result<Principal, AccessError> {
        Ok(Principal::anonymous())
    }

    async fn is_allowed(&self, _: &Principal, _: Action, _: Option<&RepositoryName>) -> Result<bool, AccessError> {
        Ok(true)
    }
}
