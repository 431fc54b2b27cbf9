//! The backend of a Kubernetes cluster: a `TokenReview` authenticates a caller, a `SubjectAccessReview` authorizes an
//! action.
//!
//! The reviews are about OpenShift's resources `imagesignatures` and `images` of `image.openshift.io`, so that its
//! roles have the same meaning here. RBAC does not need the resources to exist.

use std::{collections::BTreeMap, fmt, future::poll_fn, path::Path, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use hyper::{
    body::Body as _,
    http::{Request, header::CONTENT_TYPE},
};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{
    Client, Config,
    client::Body,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{
    AccessError, Action, AuthBackend, ClientNetwork, Credentials, Principal, Rejection,
    auth_cache::{AuthCache, ProvenCredentials},
    fair_queue::{FairQueue, LOG_INTERVAL, Priority, QueueKey},
    token::is_ours,
};
use crate::gateway::store::RepositoryName;
use crate::telemetry::LogThrottle;

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const GROUP: &str = "image.openshift.io";
/// The name of anonymous requests. A caller with a token never gets it.
const ANONYMOUS_USER: &str = "system:anonymous";

/// The lifetime of a positive answer: a revoked role stays usable for this long.
const ALLOWED_TTL: Duration = Duration::from_secs(10);
/// The lifetime of a negative answer: a user with a new role soon tries again.
const DENIED_TTL: Duration = Duration::from_secs(2);
/// The time for which a review may wait for a permit, and then take.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(3);
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// The time limit of a connection to the API server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The maximum size of an answer, in bytes.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
/// The maximum number of reviews in flight, and of reviews that wait.
const MAX_CONCURRENT_REVIEWS: usize = 16;
const MAX_QUEUED_REVIEWS: usize = 256;

/// The reason why the API server can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubernetesError {
    /// The store does not run in a pod of a cluster.
    #[error(
        "gateway.access.kubernetes: this does not run in a pod with a service account's token ({0}); name a file: {{kubeconfig: FILE}}"
    )]
    NotInCluster(#[from] InClusterError),
    /// The kubeconfig can't be used.
    #[error("gateway.access.kubernetes.kubeconfig: {0}")]
    Kubeconfig(#[from] KubeconfigError),
    /// The client can't be made.
    #[error("gateway.access.kubernetes: {0}")]
    Client(#[from] kube::Error),
    /// The system has no randomness.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// The client of an API server.
#[derive(Debug)]
pub struct Kubernetes {
    reviews: Reviews,
    principals: AuthCache<Option<Arc<Principal>>>,
    proven: ProvenCredentials,
    permissions: AuthCache<bool>,
}

impl Kubernetes {
    /// Makes a client with the service account of this pod, or with a kubeconfig. `audiences` are those that a token
    /// may be meant for; without any, it is the API server's.
    ///
    /// Requests run on the current runtime, which has to outlive their callers. The API server need not be reachable
    /// yet.
    ///
    /// # Errors
    /// There is no address of an API server, or no credentials for it.
    pub async fn connect(kubeconfig: Option<&Path>, audiences: &[Box<str>]) -> Result<Self, KubernetesError> {
        let mut config = match kubeconfig {
            Some(path) => {
                Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?
            }
            None => Config::incluster()?,
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // Clients are told to retry; their requests wait here no longer than necessary.
        config.default_retry = false;
        let audiences = audiences.iter().map(ToString::to_string).collect();
        let reviews = Reviews(Arc::new(ReviewClient {
            client: Client::try_from(config)?,
            audiences,
            queue: FairQueue::new("reviews", MAX_CONCURRENT_REVIEWS, MAX_QUEUED_REVIEWS),
            log: LogThrottle::every(LOG_INTERVAL),
        }));
        let no_randomness = KubernetesError::NoRandomness;
        Ok(Self {
            reviews,
            principals: AuthCache::new().ok_or(no_randomness)?,
            proven: ProvenCredentials::new(),
            permissions: AuthCache::new().ok_or(KubernetesError::NoRandomness)?,
        })
    }

    async fn principal(&self, token: &SecretString, peer: ClientNetwork) -> Result<Principal, AccessError> {
        // A token of a store is valid here or nowhere, and never sent to another server.
        if token.expose_secret().is_empty() || is_ours(token.expose_secret()) {
            return Err(Rejection::Unknown.into());
        }
        let key = self.principals.key(&[token.expose_secret().as_bytes()]);
        let keep = |principal: &Option<_>| if principal.is_some() { ALLOWED_TTL } else { DENIED_TTL };
        let (reviews, token, priority) = (self.reviews.clone(), token.clone(), self.proven.priority(&key));
        let principal = self.principals.get(key, keep, || async move { reviews.token(&token, peer, priority).await });
        let principal = principal.await?.ok_or(Rejection::Unknown)?;
        self.proven.add(key);
        Ok(Principal::clone(&principal))
    }
}

#[async_trait]
impl AuthBackend for Kubernetes {
    /// Ignores the name beside a token in place of a password: `docker login` requires a name.
    async fn authenticate(&self, credentials: &Credentials, peer: ClientNetwork) -> Result<Principal, AccessError> {
        match credentials {
            Credentials::None => Ok(Principal::anonymous()),
            Credentials::Basic { password: token, .. } | Credentials::Bearer(token) => {
                self.principal(token, peer).await
            }
        }
    }

    async fn is_allowed(
        &self,
        principal: &Principal,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Result<bool, AccessError> {
        if principal.is_anonymous() {
            return Ok(false);
        }
        let namespace = repository.and_then(namespace_of).unwrap_or_default();
        let described = serde_json::to_vec(principal).map_err(|_| AccessError::unavailable())?;
        for &(verb, resource) in needed_for(action) {
            let parts: [&[u8]; 4] = [&described, verb.as_bytes(), resource.as_bytes(), namespace.as_bytes()];
            let key = self.permissions.key(&parts);
            let spec = access_review(principal, verb, resource, namespace);
            let reviews = self.reviews.clone();
            let keep = |allowed: &bool| if *allowed { ALLOWED_TTL } else { DENIED_TTL };
            if !self.permissions.get(key, keep, || async move { reviews.access(spec).await }).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the names of manifests/store/roles.yaml.
    fn role_for(&self, action: Action) -> &'static str {
        match action {
            Action::CreateSignature | Action::DeleteSignature => "system:image-signer",
            Action::SetStatus => "image-auditor",
            Action::Export | Action::Import => "sealgate-store-admin",
        }
    }
}

/// Returns the permissions on OpenShift's resources that an action requires.
fn needed_for(action: Action) -> &'static [(&'static str, &'static str)] {
    match action {
        Action::CreateSignature => &[("create", "imagesignatures")],
        Action::DeleteSignature => &[("delete", "imagesignatures")],
        Action::SetStatus => &[("update", "images")],
        Action::Export => &[("list", "imagesignatures")],
        Action::Import => &[("create", "imagesignatures"), ("update", "images")],
    }
}

/// Returns the namespace of a repository, as in OpenShift's registry: `acme` for `acme/web`. `web` has none, so that
/// only a `ClusterRoleBinding` covers it.
fn namespace_of(repository: &RepositoryName) -> Option<&str> {
    repository.as_str().split_once('/').map(|(namespace, _)| namespace)
}

fn access_review(principal: &Principal, verb: &str, resource: &str, namespace: &str) -> SubjectAccessReviewSpec {
    let owned = |texts: &[Box<str>]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let extra: BTreeMap<_, _> = principal.extra.iter().map(|(key, values)| (key.to_string(), owned(values))).collect();
    SubjectAccessReviewSpec {
        user: principal.name.as_ref().map(ToString::to_string),
        uid: principal.uid.as_ref().map(ToString::to_string),
        groups: Some(owned(&principal.groups)),
        extra: Some(extra),
        resource_attributes: Some(ResourceAttributes {
            namespace: Some(namespace.to_owned()),
            verb: Some(verb.to_owned()),
            group: Some(GROUP.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some(resource.to_owned()),
            ..ResourceAttributes::default()
        }),
        non_resource_attributes: None,
    }
}

fn principal_of(user: UserInfo) -> Option<Principal> {
    let UserInfo { username, uid, groups, extra } = user;
    let name = username.filter(|name| !name.is_empty() && name != ANONYMOUS_USER)?;
    let boxed = |texts: Vec<String>| texts.into_iter().map(Into::into).collect();
    Some(Principal {
        name: Some(name.into()),
        uid: uid.filter(|uid| !uid.is_empty()).map(Into::into),
        groups: boxed(groups.unwrap_or_default()),
        extra: extra.unwrap_or_default().into_iter().map(|(key, values)| (key.into(), boxed(values))).collect(),
    })
}

#[derive(Clone, Debug)]
struct Reviews(Arc<ReviewClient>);

struct ReviewClient {
    client: Client,
    audiences: Vec<String>,
    queue: FairQueue,
    /// The limit on log lines about reviews without an answer.
    log: LogThrottle,
}

impl fmt::Debug for ReviewClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReviewClient").field("audiences", &self.audiences).finish_non_exhaustive()
    }
}

/// The reason why a review has no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error(
        "it answers {0}: the store's service account needs the ClusterRole system:auth-delegator (manifests/store has the binding)"
    )]
    NotAllowed(u16),
    #[error("it answers {0}")]
    Status(u16),
    #[error("it answers more than {MAX_RESPONSE_BYTES} bytes")]
    TooLarge,
    #[error("its answer is not a review with a status")]
    Malformed,
    #[error("it does not answer within {} s", REVIEW_TIMEOUT.as_secs())]
    TimedOut,
    #[error(transparent)]
    Failed(#[from] kube::Error),
}

impl Reviews {
    /// Reviews a token. Returns `None` if the cluster does not accept it.
    async fn token(
        &self,
        token: &SecretString,
        peer: ClientNetwork,
        priority: Priority,
    ) -> Result<Option<Arc<Principal>>, AccessError> {
        let wanted = &self.0.audiences;
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.expose_secret().to_owned(),
                audiences: (!wanted.is_empty()).then(|| wanted.clone()),
            },
            ..TokenReview::default()
        };
        let key = (peer.into(), priority);
        let status = self.ask(TOKEN_REVIEWS, &review, key, |review: TokenReview| review.status).await?;
        if status.authenticated != Some(true) {
            return Ok(None);
        }
        // An API server without support for audiences would accept every token.
        let meant = status.audiences.unwrap_or_default();
        if !wanted.is_empty() && !meant.iter().any(|audience| wanted.contains(audience)) {
            return Ok(None);
        }
        Ok(status.user.and_then(principal_of).map(Arc::new))
    }

    async fn access(&self, spec: SubjectAccessReviewSpec) -> Result<bool, AccessError> {
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        // The token was accepted before.
        let key = (QueueKey::Caller(review.spec.user.as_deref().unwrap_or_default().into()), Priority::Proven);
        let status = self.ask(ACCESS_REVIEWS, &review, key, |review: SubjectAccessReview| review.status).await?;
        Ok(status.allowed && status.denied != Some(true))
    }

    /// Posts a review within the limits. Sometimes logs why there is no answer.
    async fn ask<T: Serialize + DeserializeOwned, S>(
        &self,
        path: &str,
        review: &T,
        (key, priority): (QueueKey, Priority),
        status: impl FnOnce(T) -> Option<S>,
    ) -> Result<S, AccessError> {
        // A separate time limit: a long queue here says nothing about the API server.
        let permit = timeout(QUEUE_TIMEOUT, self.0.queue.acquire(key, priority)).await;
        let _permit = permit.unwrap_or_else(|_| Err(self.0.queue.busy()))?;
        let review = timeout(REVIEW_TIMEOUT, self.post(path, review)).await.unwrap_or(Err(NoAnswer::TimedOut));
        let status = review.and_then(|review| status(review).ok_or(NoAnswer::Malformed));
        status.map_err(|why| self.unavailable(path, &why))
    }

    /// Posts without kube's parser of answers, which has no size limit, and logs what it can't parse, tokens included.
    async fn post<T: Serialize + DeserializeOwned>(&self, path: &str, review: &T) -> Result<T, NoAnswer> {
        let body = serde_json::to_vec(review).map_err(|_| NoAnswer::Malformed)?;
        let request = Request::post(path).header(CONTENT_TYPE, "application/json").body(Body::from(body));
        let answer = self.0.client.send(request.map_err(kube::Error::HttpError)?).await?;
        match answer.status().as_u16() {
            200 | 201 => {}
            status @ (401 | 403) => return Err(NoAnswer::NotAllowed(status)),
            status => return Err(NoAnswer::Status(status)),
        }
        let mut body = answer.into_body();
        let mut bytes = Vec::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let Ok(data) = frame?.into_data() else { continue };
            if bytes.len() + data.len() > MAX_RESPONSE_BYTES {
                return Err(NoAnswer::TooLarge);
            }
            bytes.extend_from_slice(&data);
        }
        serde_json::from_slice(&bytes).map_err(|_| NoAnswer::Malformed)
    }

    fn unavailable(&self, path: &str, why: &NoAnswer) -> AccessError {
        if self.0.log.take().is_some() {
            tracing::error!(path, "the API server did not answer a review, so the caller is refused: {why}");
        }
        AccessError::unavailable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::test_log::Log;

    #[test]
    fn an_action_takes_what_openshift_asks_for_it() {
        for (action, permissions) in [
            (Action::CreateSignature, &[("create", "imagesignatures")][..]),
            (Action::DeleteSignature, &[("delete", "imagesignatures")]),
            (Action::SetStatus, &[("update", "images")]),
            (Action::Export, &[("list", "imagesignatures")]),
            (Action::Import, &[("create", "imagesignatures"), ("update", "images")]),
        ] {
            assert_eq!(needed_for(action), permissions);
        }
    }

    #[test]
    fn a_review_of_access_has_the_whole_caller_and_the_whole_question() {
        let principal = Principal {
            name: Some("jane".into()),
            uid: Some("7".into()),
            groups: vec!["developers".into()],
            extra: BTreeMap::from([("scopes".into(), vec!["user:full".into()])]),
        };
        let review = access_review(&principal, "create", "imagesignatures", "acme");
        assert_eq!(
            serde_json::to_value(review).unwrap(),
            serde_json::json!({
                "user": "jane", "uid": "7", "groups": ["developers"], "extra": {"scopes": ["user:full"]},
                "resourceAttributes": {
                    "namespace": "acme", "verb": "create", "group": GROUP, "version": "v1", "resource": "imagesignatures",
                },
            })
        );
    }

    async fn connect(server: &str) -> Kubernetes {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kubeconfig");
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "users": [{"name": "store", "user": {"token": "store-token"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "store"}}],
        });
        std::fs::write(&file, text.to_string()).unwrap();
        Kubernetes::connect(Some(&file), &[]).await.unwrap()
    }

    /// Answers one request with this body, and returns the address.
    fn answer_once(body: Vec<u8>) -> String {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut byte = [0];
                connection.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            let head = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            connection.write_all(head.as_bytes()).unwrap();
            // A client that has read enough leaves.
            let _ = connection.write_all(&body);
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn a_review_is_read_up_to_its_limit_and_no_further() {
        for (bytes, is_read) in [(MAX_RESPONSE_BYTES, true), (MAX_RESPONSE_BYTES + 1, false)] {
            let mut body = b"{}".to_vec();
            body.resize(bytes, b' ');
            let access = connect(&answer_once(body)).await;
            let answer: Result<serde_json::Value, _> = access.reviews.post("/reviews", &serde_json::json!({})).await;
            match answer {
                Ok(_) => assert!(is_read, "{bytes}"),
                Err(why) => assert!(!is_read && matches!(why, NoAnswer::TooLarge), "{bytes}: {why}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn that_too_many_wait_for_a_review_is_not_said_to_be_the_api_servers_fault() {
        let (log, _logging) = Log::start();
        let mut access = connect("http://127.0.0.1:1").await;
        // Others have all places, and keep them.
        Arc::get_mut(&mut access.reviews.0).unwrap().queue = FairQueue::new("reviews", 0, 1);
        let begun = tokio::time::Instant::now();
        let error =
            access.authenticate(&Credentials::Bearer("hers".into()), ClientNetwork::default()).await.unwrap_err();
        assert!(matches!(error, AccessError::Busy { .. }), "{error}");
        assert_eq!(begun.elapsed().as_secs(), QUEUE_TIMEOUT.as_secs());
        let text = log.text();
        assert!(text.contains("too many requests wait in the queue") && !text.contains("API server"), "{text}");
    }

    #[test]
    fn a_repository_is_in_the_namespace_of_its_first_component() {
        for (name, namespace) in
            [("acme/web", Some("acme")), ("acme/web/deep", Some("acme")), ("acme", None), ("web-1", None)]
        {
            assert_eq!(namespace_of(&RepositoryName::parse(name).unwrap()), namespace, "{name}");
        }
    }

    #[test]
    fn a_user_without_a_name_or_with_nobody_s_is_nobody() {
        let user = |name: Option<&str>| UserInfo { username: name.map(str::to_owned), ..UserInfo::default() };
        for name in [None, Some(""), Some(ANONYMOUS_USER)] {
            assert_eq!(principal_of(user(name)), None, "{name:?}");
        }
        assert_eq!(principal_of(user(Some("jane"))).unwrap().name(), Some("jane"));
    }

    #[test]
    fn the_authorizers_learn_all_that_is_known_of_the_caller() {
        let user = UserInfo {
            username: Some("jane".into()),
            uid: Some("7".into()),
            groups: Some(vec!["a".into(), "b".into()]),
            extra: Some([("scopes".to_owned(), vec!["x".to_owned()])].into()),
        };
        let spec = access_review(&principal_of(user.clone()).unwrap(), "create", "imagesignatures", "acme");
        assert_eq!((spec.user, spec.uid, spec.groups, spec.extra), (user.username, user.uid, user.groups, user.extra));
        let about = spec.resource_attributes.unwrap();
        let about = [about.group, about.resource, about.verb, about.namespace].map(Option::unwrap_or_default);
        assert_eq!(about, ["image.openshift.io", "imagesignatures", "create", "acme"]);
    }
}
