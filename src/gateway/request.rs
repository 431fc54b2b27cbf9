//! The context of one request, which its handlers share.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::header,
    web::{Bytes, BytesMut, Payload},
};
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::{
    answer_memory::AnswerMemory,
    auth::{Action, Caller, RequestAuth, scope::Scope},
    error::ApiError,
    rate_limit::RateLimit,
    stall_guard::answer_with,
    store::{Change, Changed, ImageId, Put, RepositoryName, SignatureStore, StoreError},
    upstream::{PullAnswer, Registry},
};

/// The time limit for a client to send a signature or another short body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A request of an authenticated caller, with everything that its handlers need.
pub(super) struct RequestContext<'a> {
    pub(super) store: &'a Arc<dyn SignatureStore>,
    pub(super) registry: &'a Registry,
    pub(super) auth: &'a RequestAuth,
    pub(super) rate_limit: &'a RateLimit,
    pub(super) answers: &'a AnswerMemory,
    pub(super) caller: &'a Caller,
    pub(super) request: &'a HttpRequest,
}

impl RequestContext<'_> {
    /// Checks that the caller may act on the signatures of a repository, or of every repository for `None`.
    pub(super) async fn authorize(&self, action: Action, repository: Option<&RepositoryName>) -> Result<(), ApiError> {
        self.auth.authorize(self.registry, self.caller, action, repository).await
    }

    /// Returns whether the caller may pull the image; `false` if there is no such image. That everyone may pull it can
    /// come from a cache.
    pub(super) async fn may_read(&self, image: &ImageId) -> Result<bool, ApiError> {
        let authorization = self.auth.upstream_authorization(self.registry, self.caller).await?;
        let pull = self.registry.may_pull(image, authorization.as_ref()).await;
        self.check_pull(image, pull, "pull")
    }

    /// Returns whether the caller may pull the image, by asking the registry; `false` if there is no such image.
    pub(super) async fn may_read_now(&self, image: &ImageId) -> Result<bool, ApiError> {
        let authorization = self.auth.upstream_authorization(self.registry, self.caller).await?;
        let pull = self.registry.may_pull_now(image, authorization.as_ref()).await;
        self.check_pull(image, pull, "pull,push")
    }

    /// Makes an answer with a body in memory.
    ///
    /// # Errors
    /// The body is long, and there is no memory for it.
    pub(super) fn answer_with(&self, answer: &mut HttpResponseBuilder, body: Bytes) -> Result<HttpResponse, ApiError> {
        let held = self.answers.hold(self.caller.network(), &body)?;
        Ok(answer_with(answer, body, held))
    }

    /// Makes a change and logs it, in a task of its own: if the client leaves, both are completed.
    pub(super) async fn change(&self, action: Action, change: Change, what: String) -> Result<Changed, ApiError> {
        let (store, entry) = (Arc::clone(self.store), self.caller.audit_entry());
        let changed = tokio::spawn(async move {
            let changed = store.change(change).await;
            match changed {
                Ok(Changed::Put(Put::Created) | Changed::Signatures(1..)) => entry.done(action, &what),
                Ok(Changed::Put(Put::Completed)) => entry.done(action, &format!("{what} completed")),
                _ => {}
            }
            changed
        });
        changed.await.map_err(|_| ApiError::store())?.map_err(|error| store_error(&error))
    }

    fn check_pull(&self, image: &ImageId, pull: PullAnswer, actions: &str) -> Result<bool, ApiError> {
        match pull {
            PullAnswer::Yes => Ok(true),
            PullAnswer::Unknown => Ok(false),
            PullAnswer::No(refused, challenges) => {
                let scope = format!("repository:{}:{actions}", image.repository.as_str());
                Err(self.auth.registry_refused(self.caller, refused, challenges, Scope::parse(&scope).ok().as_ref()))
            }
            PullAnswer::Undecided(refused, retry_after) => Err(refused.retry_after(retry_after)),
        }
    }
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read_body(request: &HttpRequest, mut payload: Payload, limit: usize) -> Result<BytesMut, ApiError> {
    let too_large = || ApiError::too_large(format!("the body has at most {limit} bytes"));
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let end = Instant::now() + BODY_TIMEOUT;
    let mut body = BytesMut::new();
    while let Some(chunk) = timeout_at(end, payload.next()).await.map_err(|_| ApiError::slow_client())? {
        let chunk = chunk.map_err(|_| ApiError::bad_request("the request's body broke off"))?;
        if body.len() + chunk.len() > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Makes the answer to a request that the store could not serve, and logs the error.
pub(super) fn store_error(error: &StoreError) -> ApiError {
    // These two are logged once, when they begin.
    if !matches!(error, StoreError::Stopped { .. } | StoreError::Unavailable { .. }) {
        tracing::error!(%error, "the store failed");
    }
    match error {
        StoreError::Unavailable { retry_after, .. } => ApiError::store().after(*retry_after),
        _ => ApiError::store(),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use async_trait::async_trait;
    use futures_util::FutureExt as _;
    use tokio::sync::Notify;

    use super::*;
    use crate::{
        configuration::{Gateway, Store, Upstream},
        gateway::{
            auth::AccessControl,
            store::{Position, Record, SignatureList},
            test_log::Log,
            upstream::{Settings, UpstreamCache},
        },
        image::Digest,
    };

    /// A store whose disk takes its time.
    #[derive(Default)]
    struct Slow {
        begun: Notify,
        go_on: Notify,
    }

    #[async_trait]
    impl SignatureStore for Slow {
        async fn list(&self, image: &ImageId) -> Result<SignatureList, StoreError> {
            Ok(SignatureList::new(image, Vec::new()))
        }

        async fn inspect(&self, _: &ImageId) -> Result<Vec<Record>, StoreError> {
            Ok(Vec::new())
        }

        async fn change(&self, _: Change) -> Result<Changed, StoreError> {
            self.begun.notify_one();
            self.go_on.notified().await;
            Ok(Changed::Signatures(1))
        }

        async fn scan(&self, _: Option<&Position>, _: usize) -> Result<Vec<(ImageId, Record)>, StoreError> {
            Ok(Vec::new())
        }

        async fn health(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_change_whose_client_leaves_in_the_middle_is_made_and_written_down() {
        let (log, _logging) = Log::start();
        let settings = Gateway {
            listen: ([127, 0, 0, 1], 0).into(),
            certificate: None,
            anyone_may_sign: false,
            registry: Upstream {
                url: "http://r:5000".parse().unwrap(),
                ca_file: None,
                token_realms: Vec::new(),
                insecure: true,
            },
            store: Store::Redb("unused".into()),
            access: None,
            external_url: None,
            trusted_proxies: Vec::new(),
        };
        let registry = Settings::new(&settings.registry, 0).unwrap().registry(UpstreamCache::new()).unwrap();
        let auth = RequestAuth::new(Arc::new(AccessControl::everyone().unwrap()), &settings);
        let request = TestRequest::default().peer_addr(([192, 0, 2, 7], 1).into()).to_http_request();
        let caller = auth.authenticate(&registry, &request).await.unwrap();
        let slow = Arc::new(Slow::default());
        let store: Arc<dyn SignatureStore> = Arc::clone(&slow) as _;
        let context = RequestContext {
            store: &store,
            registry: &registry,
            auth: &auth,
            rate_limit: &RateLimit::new(),
            answers: &AnswerMemory::for_lists_of(0),
            caller: &caller,
            request: &request,
        };
        let image = ImageId { repository: RepositoryName::parse("acme/web").unwrap(), digest: Digest::sha256(b"") };
        let change = context.change(Action::SetStatus, Change::ClearStatuses(image), "the image".to_owned());
        let mut change = Box::pin(change);
        assert!((&mut change).now_or_never().is_none());
        slow.begun.notified().await;
        // What becomes of a request's handler when its connection ends.
        drop(change);
        assert_eq!(log.text(), "");
        slow.go_on.notify_one();
        while log.text().is_empty() {
            tokio::task::yield_now().await;
        }
        let line = log.text();
        for part in ["sealgate::audit", "audit=true", "set-status", "the image", "192.0.2.7", "done"] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
}
