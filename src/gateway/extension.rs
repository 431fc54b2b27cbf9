//! The extension endpoint: an image's signatures, read and added.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web::{BytesMut, Payload},
};
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::{
    auth::{Action, scope::Scope},
    desk::{Desk, Visitor},
    error::Refused,
    stall_guard::answer_with,
    store::{Change, Changed, ImageId, Origin, Position, Put, Record, SignatureList, SignatureStore, StoreError},
    submission::{self, Submission},
    upstream::{Pull, Registry},
};

/// What there is to be done with an image's signatures.
const METHODS: &str = "GET, HEAD, OPTIONS, PUT";
/// How long a client may take to send a signature.
const SLOWEST_BODY: Duration = Duration::from_secs(30);

/// All that an answer takes.
pub(super) struct Context<'a> {
    pub(super) store: &'a Arc<dyn SignatureStore>,
    pub(super) registry: &'a Registry,
    pub(super) desk: &'a Desk,
    pub(super) visitor: &'a Visitor,
    pub(super) request: &'a HttpRequest,
}

/// Answers a request for an image's signatures.
pub(super) async fn answer(context: &Context<'_>, payload: Payload, image: &ImageId) -> HttpResponse {
    let answer = match *context.request.method() {
        Method::GET | Method::HEAD => read(context, image).await,
        Method::PUT => add(context, payload, image).await,
        Method::OPTIONS => may_add(context, image).await,
        _ => Err(Refused::method("signatures are read with GET and added with PUT", METHODS)),
    };
    answer.unwrap_or_else(Into::into)
}

/// Whether the caller may add signatures in this repository: for whoever has an image to push first. It is answered as a PUT
/// would be, before its body is read.
async fn may_add(context: &Context<'_>, image: &ImageId) -> Result<HttpResponse, Refused> {
    let Context { registry, desk, visitor, .. } = context;
    desk.must_be_allowed(registry, visitor, Action::CreateSignature, Some(&image.repository)).await?;
    Ok(HttpResponse::NoContent().insert_header((header::ALLOW, METHODS)).finish())
}

/// Who may pull an image may read its signatures. An image that the registry does not have has none: clients take any
/// status but 200 for an error, and ask before they store the first one.
async fn read(context: &Context<'_>, image: &ImageId) -> Result<HttpResponse, Refused> {
    let list = if context.may_read(image).await? {
        context.store.list(image).await.map_err(|error| store_failed(&error))?
    } else {
        SignatureList::new(image, Vec::new())
    };
    let mut answer = HttpResponse::Ok();
    Ok(answer_with(answer.insert_header((header::CONTENT_TYPE, "application/json")), list.encoded()))
}

impl Context<'_> {
    /// Whether the caller may pull the image; that there is none is no refusal.
    pub(super) async fn may_read(&self, image: &ImageId) -> Result<bool, Refused> {
        let authorization = self.desk.authorization(self.registry, self.visitor).await?;
        let pull = self.registry.may_pull(image, authorization.as_ref()).await;
        self.may_pull(image, pull, "pull")
    }

    /// Makes a change and writes it down, in a task of its own: a client that leaves now ends neither.
    pub(super) async fn change(&self, action: Action, change: Change, what: String) -> Result<Changed, Refused> {
        let (store, witness) = (Arc::clone(self.store), self.visitor.witness());
        let changed = tokio::spawn(async move {
            let changed = store.change(change).await;
            match changed {
                Ok(Changed::Put(Put::Created) | Changed::Signatures(1..)) => witness.did(action, &what),
                Ok(Changed::Put(Put::Completed)) => witness.did(action, &format!("{what} completed")),
                _ => {}
            }
            changed
        });
        changed.await.map_err(|_| Refused::store())?.map_err(|error| store_failed(&error))
    }

    fn may_pull(&self, image: &ImageId, pull: Pull, actions: &str) -> Result<bool, Refused> {
        match pull {
            Pull::Yes => Ok(true),
            Pull::Unknown => Ok(false),
            Pull::No(refused, challenges) => {
                let scope = format!("repository:{}:{actions}", image.repository.as_str());
                Err(self.desk.passed_on(self.visitor, refused, challenges, Scope::parse(&scope).ok().as_ref()))
            }
            Pull::Undecided(refused, retry_after) => Err(refused.retry_after(retry_after)),
        }
    }
}

/// In this order: who it is, what they may do, how often; then their body is read, and whether there is such an image; and
/// only of whoever may sign it is any OpenPGP read.
async fn add(context: &Context<'_>, payload: Payload, image: &ImageId) -> Result<HttpResponse, Refused> {
    let Context { registry, desk, visitor, request, .. } = context;
    desk.must_be_allowed(registry, visitor, Action::CreateSignature, Some(&image.repository)).await?;
    desk.must_be_slow_enough(visitor)?;
    let body = bounded(request, payload, submission::LARGEST_BODY).await?;
    let authorization = desk.authorization(registry, visitor).await?;
    let pull = registry.may_pull_now(image, authorization.as_ref()).await;
    if !context.may_pull(image, pull, "pull,push")? {
        return Err(Refused::manifest_unknown());
    }
    let digest = image.digest;
    // Off this thread: what is compressed takes its time.
    let parsed = spawn_blocking(move || submission::parse(&body, &digest)).await;
    let Submission { signature, issuers } =
        parsed.unwrap_or_else(|_| Err(Refused::signature("content is not a signature")))?;
    let what = Position::behind(image, &signature.name).as_str().to_owned();
    let origin = Some(Origin { added_by: visitor.name(), added_at: Timestamp::now(), issuers });
    let put = Change::Put(image.clone(), Record { signature, origin, status: None });
    let put = match context.change(Action::CreateSignature, put, what).await? {
        Changed::Put(put) => put,
        // Only other changes have other outcomes; that it is stored is not known.
        Changed::Signatures(_) | Changed::Another => return Err(Refused::store()),
    };
    let refused = match put {
        Put::Created => return Ok(HttpResponse::Created().finish()),
        Put::Present | Put::Completed | Put::NameExists => Refused::exists("the image has a signature of this name"),
        Put::ContentExists => Refused::exists("the image has this signature already, under another name"),
        Put::TooMany { limit } => Refused::too_large(format!(
            "the image has {limit} signatures, as many as one may have; take some away (sealgate signatures remove)"
        )),
        Put::TooManyOfSigner { limit } => Refused::too_large(format!(
            "the image has {limit} signatures of this signer, as many as one signer may have; take some away \
             (sealgate signatures remove)"
        )),
        Put::TooLong { limit } => {
            Refused::too_large(format!("the list of the image's signatures would have more than {limit} bytes"))
        }
        Put::TooLongOfSigner { limit } => Refused::too_large(format!(
            "this signer's part of the list of the image's signatures would have more than {limit} bytes"
        )),
    };
    Err(refused)
}

/// Reads a body of at most so many bytes.
pub(super) async fn bounded(request: &HttpRequest, mut payload: Payload, limit: usize) -> Result<BytesMut, Refused> {
    let too_large = || Refused::too_large(format!("the body has at most {limit} bytes"));
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let end = Instant::now() + SLOWEST_BODY;
    let mut body = BytesMut::new();
    while let Some(chunk) = timeout_at(end, payload.next()).await.map_err(|_| Refused::slow_client())? {
        let chunk = chunk.map_err(|_| Refused::bad_request("the request's body broke off"))?;
        if body.len() + chunk.len() > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

pub(super) fn store_failed(error: &StoreError) -> Refused {
    // What put it out of use was said then, once.
    if !matches!(error, StoreError::Stopped { .. } | StoreError::Unavailable { .. }) {
        tracing::error!(%error, "the store failed");
    }
    match error {
        StoreError::Unavailable { retry_after, .. } => Refused::store().after(*retry_after),
        _ => Refused::store(),
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
            store::RepositoryName,
            test_log::Log,
            upstream::{Learned, Settings},
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
        let registry = Settings::new(&settings.registry, 0).unwrap().registry(Learned::new()).unwrap();
        let desk = Desk::new(Arc::new(AccessControl::everyone().unwrap()), &settings);
        let request = TestRequest::default().peer_addr(([192, 0, 2, 7], 1).into()).to_http_request();
        let visitor = desk.receive(&registry, &request).await.unwrap();
        let slow = Arc::new(Slow::default());
        let store: Arc<dyn SignatureStore> = Arc::clone(&slow) as _;
        let context = Context { store: &store, registry: &registry, desk: &desk, visitor: &visitor, request: &request };
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
