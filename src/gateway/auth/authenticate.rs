//! Authenticates requests.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderValue},
};
use jiff::Timestamp;

use super::{
    AccessControl, AccessError, ClientNetwork, Credentials, Identity, Principal, Rejection,
    caller::Caller,
    challenge,
    client_address::{ClientAddresses, is_forwarded},
};
use crate::configuration::{Gateway, Network};
use crate::gateway::{
    audit_log, browser,
    error::ApiError,
    headers::External,
    upstream::{Registry, RequiredAuth},
};

/// The explanation for callers whose credentials can't be valid for both store and registry.
pub(super) const MISMATCH_FOR_CALLERS: &str = "; the store takes tokens of its cluster, and the registry behind it names and passwords: \
     through the store only what everyone may pull can be pulled and signed (docs/gateway.md#credentials)";

/// Authenticates and authorizes requests. All workers share one.
pub(in crate::gateway) struct RequestAuth {
    pub(super) access: Arc<AccessControl>,
    external: Option<External>,
    addresses: ClientAddresses,
    /// By its settings, only this machine reaches the store.
    on_loopback: bool,
    /// Callers use TLS.
    over_tls: bool,
}

impl RequestAuth {
    pub(in crate::gateway) fn new(access: Arc<AccessControl>, settings: &Gateway) -> Self {
        let Gateway { external_url, trusted_proxies, .. } = settings;
        let external = external_url.as_ref().map(External::of_url);
        let addresses = ClientAddresses::new(trusted_proxies.clone());
        let on_loopback = !settings.is_reached_through_others();
        Self { access, external, addresses, on_loopback, over_tls: false }
    }

    /// Sets the address that the server listens on, with or without TLS.
    pub(in crate::gateway) fn at(self, address: SocketAddr, over_tls: bool) -> Self {
        Self { on_loopback: self.on_loopback && address.ip().to_canonical().is_loopback(), over_tls, ..self }
    }

    /// Returns the proxies that forward the requests of other clients.
    pub(in crate::gateway) fn trusted_proxies(&self) -> &[Network] {
        self.addresses.trusted_proxies()
    }

    /// Returns whether only this machine reaches the store, by its settings.
    pub(in crate::gateway) fn is_on_loopback(&self) -> bool {
        self.on_loopback
    }

    /// Returns the access control, which issues tokens.
    pub(in crate::gateway) fn access(&self) -> &AccessControl {
        &self.access
    }

    /// Returns whether callers are authenticated.
    pub(in crate::gateway) fn is_enabled(&self) -> bool {
        self.access.is_enabled()
    }

    /// Returns whether a request comes over a connection of a trusted proxy.
    pub(in crate::gateway) fn is_of_trusted_proxy(&self, request: &HttpRequest) -> bool {
        self.addresses.is_of_trusted_proxy(request)
    }

    /// Authenticates the sender of a request. A request without credentials has an anonymous caller.
    ///
    /// # Errors
    /// Returns the answer to a client with invalid credentials.
    pub(in crate::gateway) async fn authenticate(
        &self,
        registry: &Registry,
        request: &HttpRequest,
    ) -> Result<Caller, ApiError> {
        if !self.is_enabled() {
            let identity = Identity { principal: Principal::anonymous(), credentials: Credentials::None, claims: None };
            let forwarded_authorization = request.headers().get(header::AUTHORIZATION).cloned();
            return Ok(Caller { forwarded_authorization, ..self.caller(identity, request) });
        }
        let fields = request.headers().get_all(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        match Credentials::from_authorization(fields) {
            Ok(credentials) => self.authenticate_with(registry, request, credentials).await,
            Err(malformed) => {
                let error = Rejection::from(malformed).into();
                self.log_rejected(request, None, &error);
                Err(self.access_refused(request, &error))
            }
        }
    }

    /// Authenticates the sender of a request with credentials from a form.
    ///
    /// # Errors
    /// The errors of [`RequestAuth::authenticate`].
    pub(in crate::gateway) async fn authenticate_with(
        &self,
        registry: &Registry,
        request: &HttpRequest,
        credentials: Credentials,
    ) -> Result<Caller, ApiError> {
        let claimed = match &credentials {
            Credentials::Basic { user, .. } => Some(user.clone()),
            _ => None,
        };
        let network = ClientNetwork::of(self.address(request));
        match self.access.authenticate_with(credentials.clone(), network, Timestamp::now()).await {
            Ok(identity) => Ok(self.caller(identity, request)),
            // The registry may have users that the store lacks, and it decides who may read.
            Err(AccessError::Rejected(Rejection::Password))
                if self.access.shares_credentials_with_registry()
                    && matches!(
                        registry.required_auth().await,
                        Ok(RequiredAuth::Basic(_) | RequiredAuth::Bearer { .. })
                    ) =>
            {
                let identity = Identity { principal: Principal::anonymous(), credentials, claims: None };
                Ok(Caller { rejected_user: claimed, ..self.caller(identity, request) })
            }
            Err(error) => {
                self.log_rejected(request, claimed.as_deref(), &error);
                let refused = self.access_refused(request, &error);
                let mismatched = matches!(error, AccessError::Rejected(_)) && self.is_mismatched(registry).await;
                Err(if mismatched { refused.and(MISMATCH_FOR_CALLERS) } else { refused })
            }
        }
    }

    fn caller(&self, identity: Identity, request: &HttpRequest) -> Caller {
        let (external, address) = (self.external(request), self.address(request));
        let is_local = self.on_loopback
            && address.is_some_and(|address| address.is_loopback())
            && !is_forwarded(request)
            && browser::is_for_loopback(request);
        let scheme_is_known = self.external.is_some() || request.app_config().secure();
        let is_cross_site = browser::is_cross_site(request.headers(), &external, scheme_is_known);
        let (forwarded_authorization, rejected_user) = (None, None);
        Caller { identity, external, forwarded_authorization, rejected_user, address, is_local, is_cross_site }
    }

    fn address(&self, request: &HttpRequest) -> Option<IpAddr> {
        self.addresses.client_address(request)
    }

    /// Returns whether a cluster authenticates callers, while the registry asks for names and passwords. A request can
    /// carry only one of both.
    pub(super) async fn is_mismatched(&self, registry: &Registry) -> bool {
        self.is_enabled()
            && !self.access.shares_credentials_with_registry()
            && matches!(registry.required_auth().await, Ok(RequiredAuth::Basic(_)))
    }

    /// Makes the answer to a caller that is not authenticated or authorized.
    pub(in crate::gateway) fn access_refused(&self, request: &HttpRequest, error: &AccessError) -> ApiError {
        challenge::access_refused(error, &self.external(request), None)
    }

    /// Refuses a caller with a wrong password, and logs that. For requests that do not reach the registry.
    pub(in crate::gateway) fn refuse_wrong_password(
        &self,
        request: &HttpRequest,
        caller: &Caller,
    ) -> Result<(), ApiError> {
        let Some(claimed) = &caller.rejected_user else { return Ok(()) };
        let error = Rejection::Password.into();
        self.log_rejected(request, Some(claimed), &error);
        Err(challenge::access_refused(&error, &caller.external, None))
    }

    /// Logs invalid credentials, so that an operator notices an attacker who guesses passwords.
    fn log_rejected(&self, request: &HttpRequest, claimed: Option<&str>, error: &AccessError) {
        if let AccessError::Rejected(why) = error {
            audit_log::credentials_rejected(claimed, self.address(request), *why);
        }
    }

    /// Returns the address by which a client knows the gateway. If passwords are sent to it, only the configuration and
    /// trusted proxies can change it.
    fn external(&self, request: &HttpRequest) -> External {
        if let Some(external) = &self.external {
            return external.clone();
        }
        let believed = self.is_of_trusted_proxy(request) || !self.is_enabled();
        External::of(request.headers(), self.over_tls, believed)
    }
}
