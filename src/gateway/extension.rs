//! The extension endpoint: reads and adds an image's signatures.

use actix_web::{
    HttpResponse,
    http::{Method, header},
    web::Payload,
};
use jiff::Timestamp;
use tokio::task::spawn_blocking;

use super::{
    auth::Action,
    error::ApiError,
    request::{RequestContext, read_body, store_error},
    store::{Change, Changed, ImageId, Origin, Position, Put, Record, SignatureList},
    submission::{self, Submission},
};

/// The methods of an image's signatures.
const METHODS: &str = "GET, HEAD, OPTIONS, PUT";

/// Answers a request for an image's signatures.
pub(super) async fn answer(context: &RequestContext<'_>, payload: Payload, image: &ImageId) -> HttpResponse {
    let answer = match *context.request.method() {
        Method::GET | Method::HEAD => read(context, image).await,
        Method::PUT => add(context, payload, image).await,
        Method::OPTIONS => may_add(context, image).await,
        _ => Err(ApiError::method("signatures are read with GET and added with PUT", METHODS)),
    };
    answer.unwrap_or_else(Into::into)
}

/// Answers whether the caller may add signatures in this repository, for clients that push an image first. The answer
/// is the one that a PUT would get before its body is read.
async fn may_add(context: &RequestContext<'_>, image: &ImageId) -> Result<HttpResponse, ApiError> {
    context.authorize(Action::CreateSignature, Some(&image.repository)).await?;
    Ok(HttpResponse::NoContent().insert_header((header::ALLOW, METHODS)).finish())
}

/// Lists signatures to a caller that may pull the image. An image that the registry does not have has an empty list:
/// clients treat any status but 200 as an error, and ask before they store the first signature.
async fn read(context: &RequestContext<'_>, image: &ImageId) -> Result<HttpResponse, ApiError> {
    let list = if context.may_read(image).await? {
        context.store.list(image).await.map_err(|error| store_error(&error))?
    } else {
        SignatureList::new(image, Vec::new())
    };
    let mut answer = HttpResponse::Ok();
    context.answer_with(answer.insert_header((header::CONTENT_TYPE, "application/json")), list.encoded())
}

/// Adds a signature. Checks the permission and the rate limit first, then reads the body, and asks the registry for the
/// image. OpenPGP is parsed only for callers that may sign the image.
async fn add(context: &RequestContext<'_>, payload: Payload, image: &ImageId) -> Result<HttpResponse, ApiError> {
    let RequestContext { caller, request, .. } = context;
    context.authorize(Action::CreateSignature, Some(&image.repository)).await?;
    context.rate_limit.check_rate_limit(caller)?;
    let body = read_body(request, payload, submission::MAX_BODY_BYTES).await?;
    if !context.may_read_now(image).await? {
        return Err(ApiError::manifest_unknown());
    }
    let digest = image.digest;
    // Parsing compressed signatures takes time, so it does not block this thread.
    let parsed = spawn_blocking(move || submission::parse(&body, &digest)).await;
    let Submission { signature, issuers } =
        parsed.unwrap_or_else(|_| Err(ApiError::signature("content is not a signature")))?;
    let what = Position::behind(image, &signature.name).as_str().to_owned();
    let origin = Some(Origin { added_by: caller.name(), added_at: Timestamp::now(), issuers });
    let put = Change::Put(image.clone(), Record { signature, origin, status: None });
    let put = match context.change(Action::CreateSignature, put, what).await? {
        Changed::Put(put) => put,
        // Other changes have other outcomes. It is unknown whether the signature is stored.
        Changed::Signatures(_) | Changed::Another => return Err(ApiError::store()),
    };
    let refused = match put {
        Put::Created => return Ok(HttpResponse::Created().finish()),
        Put::Present | Put::Completed | Put::NameExists => ApiError::exists("the image has a signature of this name"),
        Put::ContentExists => ApiError::exists("the image has this signature already, under another name"),
        Put::TooMany { limit } => ApiError::too_large(format!(
            "the image has {limit} signatures, as many as one may have; take some away (sealgate signatures remove)"
        )),
        Put::TooManyOfSigner { limit } => ApiError::too_large(format!(
            "the image has {limit} signatures of this signer, as many as one signer may have; take some away \
             (sealgate signatures remove)"
        )),
        Put::TooLong { limit } => {
            ApiError::too_large(format!("the list of the image's signatures would have more than {limit} bytes"))
        }
        Put::TooLongOfSigner { limit } => ApiError::too_large(format!(
            "this signer's part of the list of the image's signatures would have more than {limit} bytes"
        )),
    };
    Err(refused)
}
