//! Authorizes actions on signatures.

use super::{Action, Rejection, authenticate::RequestAuth, caller::Caller, challenge, scope::Scope};
use crate::gateway::{
    audit_log,
    error::ApiError,
    store::RepositoryName,
    upstream::{Registry, RequiredAuth},
};

impl RequestAuth {
    /// Checks that a caller may act on the signatures of a repository, or of every repository for `None`. Logs each
    /// refusal.
    ///
    /// # Errors
    /// Returns the answer to a caller without permission, or whose permission can't be checked now.
    pub(in crate::gateway) async fn authorize(
        &self,
        registry: &Registry,
        caller: &Caller,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Result<(), ApiError> {
        let outcome = self.check(registry, caller, action, repository).await;
        if let Err(refused) = &outcome {
            let what = repository.map_or("the store", RepositoryName::as_str);
            audit_log::refused(&caller.audit_entry(), caller.rejected_user.as_deref(), action, what, refused);
        }
        outcome
    }

    async fn check(
        &self,
        registry: &Registry,
        caller: &Caller,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Result<(), ApiError> {
        let scope = Scope::needed_for(action, repository);
        if caller.is_cross_site {
            // A user who is logged in to the store, or works on its machine, did not ask for what a web page does.
            return Err(ApiError::role_missing(format!(
                "a browser sends this for the page of another site (its Sec-Fetch-Site or Origin field says so), and no page may {}: \
                 use sealgate, skopeo or another tool, or a page at the store's own address",
                action.in_words(repository)
            )));
        }
        if !self.is_enabled() {
            // A signature proves itself, so everyone may add one. Without authentication, no remote caller may remove
            // the signatures of others.
            return if caller.is_local || action == Action::CreateSignature {
                Ok(())
            } else {
                Err(ApiError::role_missing(format!(
                    "without gateway.access only a client on the machine of a store may {}, if no other machine reaches that store (gateway.listen \
                     on loopback, no proxy, no gateway.externalUrl, no gateway.trustedProxies), asked for as localhost, 127.0.0.1 or \
                     [::1]: say in gateway.access who may",
                    action.in_words(repository)
                )))
            };
        }
        if caller.identity.principal.is_anonymous() {
            let rejected = caller.rejected_user.as_ref().map(|_| Rejection::Password);
            let refused =
                rejected.map_or_else(ApiError::credentials_required, |why| ApiError::rejected(why.to_string()));
            return Err(match registry.required_auth().await {
                // The registry has the same users.
                Ok(RequiredAuth::Basic(challenge)) if self.access.shares_credentials_with_registry() => {
                    refused.with_challenges(vec![challenge])
                }
                _ => {
                    let error = rejected.map(|_| "invalid_token");
                    challenge::add_challenge(refused, &caller.external, Some(&scope), error)
                }
            });
        }
        match self.access.is_allowed(&caller.identity, action, repository).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ApiError::role_missing(format!(
                "{} may not {}: that takes the role {}",
                caller.identity.principal,
                action.in_words(repository),
                self.access.role_for(action)
            ))),
            Err(error) => Err(challenge::access_refused(&error, &caller.external, Some(&scope))),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use actix_web::{FromRequest as _, http::header::HeaderValue, test::TestRequest, web::Payload};
    use base64::{Engine as _, prelude::BASE64_STANDARD};

    use super::*;
    use crate::configuration::{Access, Gateway, Store, Upstream, Users};
    use crate::gateway::{
        auth::AccessControl,
        test_log::Log,
        token_endpoint,
        upstream::{Settings, UpstreamCache},
    };

    /// Makes the settings of a gateway on loopback, in front of a registry that need not exist.
    pub(in crate::gateway::auth) fn settings() -> Gateway {
        Gateway {
            listen: ([127, 0, 0, 1], 0).into(),
            certificate: None,
            anyone_may_sign: false,
            registry: Upstream {
                url: "http://127.0.0.1:1".parse().unwrap(),
                ca_file: None,
                token_realms: Vec::new(),
                insecure: false,
            },
            store: Store::Redb("unused".into()),
            access: None,
            external_url: None,
            trusted_proxies: Vec::new(),
        }
    }

    /// Requests to a store without access control: the sender's address, the host asked for, a header field, and whether the
    /// sender is on the machine of the store.
    const WITHOUT_ACCESS: [(&str, &str, &str, bool); 9] = [
        ("127.0.0.1", "127.0.0.1:5000", "accept", true),
        ("::1", "localhost", "accept", true),
        ("192.0.2.7", "127.0.0.1:5000", "accept", false),
        ("127.0.0.1", "store.example.com", "accept", false),
        ("192.0.2.7", "store.example.com", "accept", false),
        ("127.0.0.1", "127.0.0.1:5000", "x-forwarded-for", false),
        ("127.0.0.1", "127.0.0.1:5000", "via", false),
        ("192.0.2.7", "127.0.0.1:5000", "via", false),
        ("192.0.2.7", "store.example.com", "x-forwarded-for", false),
    ];

    #[tokio::test]
    async fn without_access_only_the_machine_of_a_store_on_loopback_removes_and_exports() {
        let one = |address: &str| address.parse::<std::net::IpAddr>().unwrap();
        let mut proxied = settings();
        proxied.trusted_proxies = vec![crate::configuration::Network::parse("10.0.0.0/8").unwrap()];
        for (settings, listen, on_loopback) in [
            (settings(), "127.0.0.1", true),
            (settings(), "::ffff:127.0.0.1", true),
            (settings(), "0.0.0.0", false),
            (proxied, "127.0.0.1", false),
        ] {
            let access = Arc::new(AccessControl::open(None).await.unwrap());
            let auth = RequestAuth::new(access, &settings).at((one(listen), 5000).into(), false);
            assert_eq!((auth.is_enabled(), auth.is_on_loopback()), (false, on_loopback), "{listen}");
            assert_eq!(auth.trusted_proxies(), settings.trusted_proxies);
            let challenge = RequiredAuth::Basic(HeaderValue::from_static("Basic realm=\"r\""));
            let cache = UpstreamCache::with_required_auth(challenge).await;
            let registry = Settings::new(&settings.registry, 0).unwrap().registry(cache).unwrap();
            for (peer, host, field, is_local) in WITHOUT_ACCESS {
                let request = |site: &str| {
                    let request = TestRequest::with_uri("/sealgate/v1/export").peer_addr((one(peer), 1).into());
                    let request = request.insert_header(("host", host)).insert_header((field, "192.0.2.9"));
                    request.insert_header(("sec-fetch-site", site)).to_http_request()
                };
                let caller = auth.authenticate(&registry, &request("none")).await.unwrap();
                for action in [Action::DeleteSignature, Action::SetStatus, Action::Export, Action::Import] {
                    let allowed = auth.authorize(&registry, &caller, action, None).await.is_ok();
                    assert_eq!(allowed, is_local && on_loopback, "{listen} {peer} {host} {field} {action}");
                }
                auth.authorize(&registry, &caller, Action::CreateSignature, None).await.unwrap();
                // No page of another site does anything.
                let caller = auth.authenticate(&registry, &request("cross-site")).await.unwrap();
                for action in [Action::CreateSignature, Action::Export] {
                    auth.authorize(&registry, &caller, action, None).await.unwrap_err();
                }
            }
        }
    }

    #[tokio::test]
    async fn who_guesses_passwords_is_written_down_where_the_registry_may_know_them_too() {
        let (log, _logging) = Log::start();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let hash = bcrypt::hash_with_salt("secret", 4, [7; 16]).unwrap();
        std::fs::write(path("htpasswd"), format!("jane:{hash}\n")).unwrap();
        std::fs::write(path("roles"), "apiVersion: sealgate.dev/v1\nkind: StoreRoles\nroles: []\n").unwrap();
        let users = Users::Htpasswd { file: path("htpasswd"), roles: path("roles") };
        let access = AccessControl::open(Some(&Access { users, token_key: None })).await.unwrap();
        let settings = settings();
        let auth = RequestAuth::new(Arc::new(access), &settings).at(settings.listen, false);
        let realm = "http://127.0.0.1:1/token".parse().unwrap();
        for required_auth in [
            RequiredAuth::Basic(HeaderValue::from_static("Basic realm=\"r\"")),
            RequiredAuth::Bearer { realm, service: None },
        ] {
            let cache = UpstreamCache::with_required_auth(required_auth).await;
            let registry = Settings::new(&settings.registry, 0).unwrap().registry(cache).unwrap();
            let request = |uri: &str| {
                let basic = format!("Basic {}", BASE64_STANDARD.encode("jane:guessed"));
                let request = TestRequest::with_uri(uri).peer_addr(([192, 0, 2, 7], 1).into());
                request.insert_header(("authorization", basic)).to_http_request()
            };
            let before = log.text().len();
            let caller = auth.authenticate(&registry, &request("/v2/")).await.unwrap();
            assert_eq!(log.text().len(), before, "they may read, as far as the registry lets them");
            let refused = auth.authorize(&registry, &caller, Action::Export, None).await.unwrap_err();
            assert!(
                refused.to_string().starts_with("401 ") && refused.to_string().contains("password is wrong"),
                "{refused}"
            );
            let line = log.text()[before..].to_owned();
            for part in ["audit=true", "claimed=\"jane\"", "192.0.2.7", "export", "password is wrong", "refused"] {
                assert!(line.contains(part), "{part}: {line}");
            }
            let before = log.text().len();
            let asks = request("/sealgate/v1/token?scope=registry:signatures:*");
            let nothing = Payload::extract(&asks).await.unwrap();
            assert_eq!(token_endpoint::answer(&registry, &auth, &asks, nothing).await.status(), 401);
            let line = log.text()[before..].to_owned();
            for part in ["audit=true", "claimed=\"jane\"", "192.0.2.7", "password is wrong", "credentials rejected"] {
                assert!(line.contains(part), "{part}: {line}");
            }
            assert!(!log.text().contains("guessed"));
        }
    }
}
