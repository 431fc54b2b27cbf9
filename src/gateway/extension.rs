//! The extension endpoint: an image's signatures, read and added.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        Method,
        header::{self, HeaderValue},
    },
    web::{BytesMut, Payload},
};
use base64::{display::Base64Display, prelude::BASE64_STANDARD};
use futures_util::StreamExt;
use jiff::Timestamp;
use serde::Serialize;
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::{
    answer::Refused,
    store::{Change, Changed, ImageId, Origin, Put, Record, SignatureStore, StoreError, StoredSignature},
    submission::{self, Submission},
    upstream::{Pull, Registry},
};

/// How long a client may take to send a signature.
const SLOWEST_BODY: Duration = Duration::from_secs(30);

/// Answers a request for an image's signatures.
pub(super) async fn answer(
    store: &dyn SignatureStore,
    registry: &Registry,
    request: &HttpRequest,
    payload: Payload,
    image: &ImageId,
) -> HttpResponse {
    let answer = match *request.method() {
        Method::GET | Method::HEAD => read(store, registry, request, image).await,
        Method::PUT => add(store, registry, request, payload, image).await,
        _ => Err(Refused::method("signatures are read with GET and added with PUT", "GET, HEAD, PUT").into()),
    };
    answer.unwrap_or_else(|refusal| refusal)
}

/// Who may pull an image may read its signatures. An image that the registry does not have has none: clients take any
/// status but 200 for an error, and ask before they store the first one.
async fn read(
    store: &dyn SignatureStore,
    registry: &Registry,
    request: &HttpRequest,
    image: &ImageId,
) -> Result<HttpResponse, HttpResponse> {
    let signatures = match registry.may_pull(image, authorization(request)).await {
        Pull::Yes => store.list(image).await.map_err(|error| store_failed(&error))?,
        Pull::Unknown => Vec::new(),
        pull => return Err(not_pulled(pull)),
    };
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "application/json")).body(list(image, &signatures)))
}

/// Who may not pull an image is told nothing else: neither what is wrong with a signature, nor is any OpenPGP read for him.
async fn add(
    store: &dyn SignatureStore,
    registry: &Registry,
    request: &HttpRequest,
    payload: Payload,
    image: &ImageId,
) -> Result<HttpResponse, HttpResponse> {
    let body = bounded(request, payload).await?;
    match registry.may_pull_now(image, authorization(request)).await {
        Pull::Yes => {}
        Pull::Unknown => return Err(Refused::manifest_unknown().into()),
        pull => return Err(not_pulled(pull)),
    }
    let digest = image.digest;
    // Off this thread: what is compressed takes its time.
    let parsed = spawn_blocking(move || submission::parse(&body, &digest)).await;
    let Submission { signature, issuers } =
        parsed.unwrap_or_else(|_| Err(Refused::signature("content is not a signature")))?;
    let name = signature.name.clone();
    let origin = Some(Origin { added_by: None, added_at: Timestamp::now(), issuers });
    let put = Change::Put(image.clone(), Record { signature, origin, status: None });
    let put = match store.change(put).await.map_err(|error| store_failed(&error))? {
        Changed::Put(put) => put,
        // Only other changes have other outcomes; that it is stored is not known.
        Changed::Signatures(_) => return Err(Refused::store().into()),
    };
    let refused = match put {
        Put::Created => {
            let (repository, digest) = (image.repository.as_str(), &image.digest);
            tracing::info!(repository, %digest, name = name.as_str(), "a signature is stored");
            return Ok(HttpResponse::Created().finish());
        }
        Put::Present | Put::NameExists => Refused::exists("the image has a signature of this name"),
        Put::ContentExists => Refused::exists("the image has this signature already, under another name"),
        Put::TooMany { limit } => {
            Refused::too_large(format!("the image has {limit} signatures, as many as one may have"))
        }
        Put::TooManyOfSigner { limit } => Refused::too_large(format!(
            "the image has {limit} signatures of this signer, as many as one signer may have"
        )),
        Put::TooLong { limit } => {
            Refused::too_large(format!("the list of the image's signatures would have more than {limit} bytes"))
        }
    };
    Err(refused.into())
}

fn authorization(request: &HttpRequest) -> Option<&HeaderValue> {
    request.headers().get(header::AUTHORIZATION)
}

/// Reads a body of at most [`submission::LARGEST_BODY`] bytes.
async fn bounded(request: &HttpRequest, mut payload: Payload) -> Result<BytesMut, Refused> {
    let limit = submission::LARGEST_BODY;
    let too_large = || Refused::too_large(format!("a signature's body has at most {limit} bytes"));
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

/// What a caller is told who may not pull, or of whom that can't be said.
fn not_pulled(pull: Pull) -> HttpResponse {
    match pull {
        Pull::No(refused, challenges) => {
            let mut response = refused.response();
            for challenge in challenges {
                response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
            }
            response
        }
        Pull::Undecided(refused, retry_after) => {
            let mut response = refused.response();
            if let Some(retry_after) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, retry_after);
            }
            response
        }
        Pull::Yes | Pull::Unknown => Refused::manifest_unknown().into(),
    }
}

fn store_failed(error: &StoreError) -> HttpResponse {
    // What put it out of use was said then, once.
    if !matches!(error, StoreError::Stopped { .. } | StoreError::Unavailable { .. }) {
        tracing::error!(%error, "the store failed");
    }
    let mut response = Refused::store().response();
    if let StoreError::Unavailable { retry_after, .. } = error {
        response.headers_mut().insert(header::RETRY_AFTER, retry_after.as_secs().into());
    }
    response
}

#[derive(Serialize)]
struct List<'a> {
    signatures: Vec<Entry<'a>>,
}

/// With both spellings of the version: containers/image reads `schemaVersion`, what was documented first says `version`.
#[derive(Serialize)]
struct Entry<'a> {
    #[serde(rename = "schemaVersion")]
    schema_version: u8,
    version: u8,
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    #[serde(serialize_with = "base64")]
    content: &'a [u8],
}

fn base64<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Base64Display::new(bytes, &BASE64_STANDARD))
}

fn list(image: &ImageId, signatures: &[StoredSignature]) -> Vec<u8> {
    let entry = |signature: &'_ StoredSignature| format!("{}@{}", image.digest, signature.name.as_str());
    let signatures = signatures
        .iter()
        .map(|signature| Entry {
            schema_version: 2,
            version: 2,
            kind: "atomic",
            name: entry(signature),
            content: &signature.content,
        })
        .collect();
    // Strings and numbers can't fail to be JSON.
    serde_json::to_vec(&List { signatures }).expect("a list of strings is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gateway::store::{ImageLimits, RepositoryName, SignatureName},
        image::{Digest, digest::Algorithm},
    };

    #[test]
    fn a_list_is_what_all_clients_read_and_never_longer_than_it_was_counted() {
        for digest in [Digest::sha256(b""), Digest::of(Algorithm::Sha512, b"")] {
            let image = ImageId { repository: RepositoryName::parse("acme/web").unwrap(), digest };
            assert_eq!(list(&image, &[]), br#"{"signatures":[]}"#);
            let name = "a".repeat(32);
            for length in [0, 1, 2, 3, 1000] {
                let content = vec![0xff; length].into();
                let signature = StoredSignature { name: SignatureName::parse(&name).unwrap(), content };
                let encoded = list(&image, &[signature]);
                assert!(encoded.len() <= ImageLimits::listed_bytes(length), "{length}: {}", encoded.len());
                let read: serde_json::Value = serde_json::from_slice(&encoded).unwrap();
                let entry = &read["signatures"][0];
                assert_eq!((&entry["schemaVersion"], &entry["version"]), (&2.into(), &2.into()));
                assert_eq!((&entry["type"], &entry["name"]), (&"atomic".into(), &format!("{digest}@{name}").into()));
            }
        }
    }
}
