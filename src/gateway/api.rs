//! The store's own API, below `/sealgate/v1/`: origins and statuses of signatures, their changes, exports and imports.

use std::{io, sync::Arc};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    body::BodyStream,
    http::{Method, header},
    web::{Bytes, BytesMut, Payload},
};
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    auth::Action,
    error::ApiError,
    export_format::{self, Imported, MAX_LINE_BYTES, NDJSON},
    path::ApiRoute,
    request::{RequestContext, read_body, store_error},
    stall_guard::{STALL_TIMEOUT, Transfer},
    store::{
        Change, Changed, Finding, ImageId, Origin, Position, Record, SignatureName, SignatureStore, Status, StoreError,
    },
};
use crate::image::Digest;
use crate::json;

/// The maximum size of the body with an auditor's finding, in bytes.
const MAX_FINDING_BYTES: usize = 16 << 10;
/// The number of signatures that an export reads at once.
const SCAN_BATCH: usize = 64;
/// The approximate maximum of an export that is in memory, in bytes.
const MAX_PAGE_BYTES: usize = 1 << 20;

pub(super) async fn answer(context: &RequestContext<'_>, payload: Payload, route: ApiRoute) -> HttpResponse {
    let method = context.request.method();
    let only = |allowed| Err(ApiError::method("this is not done with this method", allowed));
    let answer = match route {
        ApiRoute::Image(image) if method == Method::GET => inspect(context, &image).await,
        ApiRoute::Signature(image, name) if method == Method::DELETE => remove(context, image, name).await,
        ApiRoute::Status(image, name) if method == Method::PUT => set_status(context, payload, image, name).await,
        ApiRoute::Status(image, name) if method == Method::DELETE => clear_status(context, image, name).await,
        ApiRoute::Statuses(image) if method == Method::DELETE => clear_statuses(context, image).await,
        ApiRoute::Export if method == Method::GET => export(context).await,
        ApiRoute::Import if method == Method::POST => import(context, payload).await,
        ApiRoute::Image(_) | ApiRoute::Export => only("GET"),
        ApiRoute::Signature(..) | ApiRoute::Statuses(_) => only("DELETE"),
        ApiRoute::Status(..) => only("PUT, DELETE"),
        ApiRoute::Import => only("POST"),
        // The token endpoint has answered before the caller was authenticated.
        ApiRoute::Token => only("GET, POST"),
    };
    answer.unwrap_or_else(Into::into)
}

/// An entry of the list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignatureEntry {
    /// `<digest>@<32 characters>`.
    name: String,
    bytes: usize,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
struct SignatureEntries {
    signatures: Vec<SignatureEntry>,
}

/// Answers with the records of an image's signatures. Permission to pull the image is sufficient.
async fn inspect(context: &RequestContext<'_>, image: &ImageId) -> Result<HttpResponse, ApiError> {
    let records = if context.may_read(image).await? {
        context.store.inspect(image).await.map_err(|error| store_error(&error))?
    } else {
        Vec::new()
    };
    let entry = |record: Record| SignatureEntry {
        name: format!("{}@{}", image.digest, record.signature.name.as_str()),
        bytes: record.signature.content.len(),
        origin: record.origin,
        status: record.status,
    };
    let entries = SignatureEntries { signatures: records.into_iter().map(entry).collect() };
    let body = serde_json::to_vec(&entries).map_err(|_| ApiError::store())?;
    let mut answer = HttpResponse::Ok();
    context.answer_with(answer.insert_header((header::CONTENT_TYPE, "application/json")), body.into())
}

/// Changes one signature, with authorization; 404 if there is none of this name.
async fn change(context: &RequestContext<'_>, action: Action, change: Change, what: String) -> Result<usize, ApiError> {
    context.authorize(action, Some(&change.image().repository)).await?;
    match context.change(action, change, what).await? {
        Changed::Signatures(number) => Ok(number),
        Changed::Another => Err(ApiError::another_signature()),
        Changed::Put(_) => Err(ApiError::store()),
    }
}

fn no_content_or_unknown(number: usize) -> Result<HttpResponse, ApiError> {
    if number == 0 { Err(ApiError::no_such_signature()) } else { Ok(HttpResponse::NoContent().finish()) }
}

async fn remove(context: &RequestContext<'_>, image: ImageId, name: SignatureName) -> Result<HttpResponse, ApiError> {
    let what = Position::behind(&image, &name);
    no_content_or_unknown(
        change(context, Action::DeleteSignature, Change::Remove(image, name), what.as_str().to_owned()).await?,
    )
}

async fn set_status(
    context: &RequestContext<'_>,
    payload: Payload,
    image: ImageId,
    name: SignatureName,
) -> Result<HttpResponse, ApiError> {
    let RequestContext { caller, request, .. } = context;
    // Checked before the body is read.
    context.authorize(Action::SetStatus, Some(&image.repository)).await?;
    let if_match = if_match_of(request)?;
    let body = read_body(request, payload, MAX_FINDING_BYTES).await?;
    let finding: Finding = json::from_object(&body)
        .map_err(|error| ApiError::bad_request(format!("the body is not what an auditor finds: {error}")))?;
    if !finding.is_plain() {
        return Err(ApiError::bad_request("key, signer, identity and digest are at most 512 characters of text"));
    }
    if *finding.digest != *image.digest.to_string() {
        return Err(ApiError::bad_request("the digest that was found is another one than the path's"));
    }
    let what = format!("{} verified with {}", Position::behind(&image, &name).as_str(), finding.key);
    let status = Status { verified_by: caller.name(), verified_at: Timestamp::now(), finding };
    let change_of = Change::SetStatus(image, name, if_match, Some(status));
    no_content_or_unknown(change(context, Action::SetStatus, change_of, what).await?)
}

async fn clear_status(
    context: &RequestContext<'_>,
    image: ImageId,
    name: SignatureName,
) -> Result<HttpResponse, ApiError> {
    let what = format!("{} unset", Position::behind(&image, &name).as_str());
    let if_match = if_match_of(context.request)?;
    no_content_or_unknown(
        change(context, Action::SetStatus, Change::SetStatus(image, name, if_match, None), what).await?,
    )
}

/// Returns the digest of the signature that the client checked, from the one strong tag of `If-Match` (RFC 9110,
/// section 13.1.1). Returns `None` if the request has no condition.
fn if_match_of(request: &HttpRequest) -> Result<Option<Digest>, ApiError> {
    let mut fields = request.headers().get_all(header::IF_MATCH);
    let Some(field) = fields.next() else { return Ok(None) };
    let tag = field.to_str().ok().and_then(|text| text.trim().strip_prefix('"')?.strip_suffix('"'));
    match tag.and_then(|tag| Digest::parse(tag).ok()) {
        Some(digest) if fields.next().is_none() => Ok(Some(digest)),
        _ => Err(ApiError::bad_request("If-Match is one tag, the digest of the signature's content: \"sha256:...\"")),
    }
}

async fn clear_statuses(context: &RequestContext<'_>, image: ImageId) -> Result<HttpResponse, ApiError> {
    let what = format!("{}@{} cleared", image.repository.as_str(), image.digest);
    // An image without signatures is no error.
    change(context, Action::SetStatus, Change::ClearStatuses(image), what).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Answers with all signatures, one a line (NDJSON), in the store's order. With `?after=<repository>@<digest>/<32
/// characters>`, continues after the last line that the client received. An error of the store breaks the answer off,
/// so that an incomplete export does not look complete.
///
/// With `most`, answers with one page of at most that many bytes, or of one line; an empty page is the end.
async fn export(context: &RequestContext<'_>) -> Result<HttpResponse, ApiError> {
    let RequestContext { store, caller, request, .. } = context;
    context.authorize(Action::Export, None).await?;
    let query = url::form_urlencoded::parse(request.query_string().as_bytes());
    let (mut after, mut most) = (None, None);
    for (name, value) in query {
        match &*name {
            "after" => {
                let position = Position::parse(&value);
                let refused = || ApiError::bad_request("after is <repository>@<digest>/<32 characters>");
                after = Some(position.ok_or_else(refused)?);
            }
            "most" => {
                let bytes: Option<usize> = value.parse().ok();
                most = Some(bytes.ok_or_else(|| ApiError::bad_request("most is a number of bytes"))?);
            }
            _ => return Err(ApiError::bad_request("the query has nothing but after and most")),
        }
    }
    caller.audit_entry().done(Action::Export, after.as_ref().map_or("all", Position::as_str));
    let mut answer = HttpResponse::Ok();
    answer.insert_header((header::CONTENT_TYPE, NDJSON));
    if let Some(most) = most {
        let page = page(store, after, most.min(MAX_PAGE_BYTES)).await.map_err(|error| store_error(&error))?;
        return context.answer_with(&mut answer, page.lines.into());
    }
    // The first page is read before the status is sent, each further page after the previous one is sent.
    let first = page(store, after, MAX_PAGE_BYTES).await.map_err(|error| store_error(&error))?;
    let ExportPage { lines, last } = first;
    let further = stream::try_unfold((last, Arc::clone(store)), |(last, store)| async move {
        let Some(last) = last else { return Ok(None) };
        let ExportPage { lines, last } = page(&store, Some(last), MAX_PAGE_BYTES).await.map_err(|error| {
            tracing::error!(%error, "an export broke off");
            io::Error::other("the store failed")
        })?;
        Ok::<_, io::Error>(Some((Bytes::from(lines), (last, store))))
    });
    let pages = stream::iter([Ok(Bytes::from(lines))]).chain(further);
    Ok(answer.body(BodyStream::new(Transfer::new(Box::pin(pages), "the store stopped sending"))))
}

/// A page of an export.
struct ExportPage {
    lines: Vec<u8>,
    /// The position of the last line, if more may follow.
    last: Option<Position>,
}

async fn page(
    store: &Arc<dyn SignatureStore>,
    mut after: Option<Position>,
    most: usize,
) -> Result<ExportPage, StoreError> {
    let mut lines = Vec::new();
    loop {
        let some = store.scan(after.as_ref(), SCAN_BATCH).await?;
        let more = some.len() == SCAN_BATCH;
        for (image, record) in some {
            let before = lines.len();
            export_format::write(&mut lines, &image, &record);
            if before > 0 && lines.len() > most {
                lines.truncate(before);
                return Ok(ExportPage { lines, last: after });
            }
            after = Some(Position::behind(&image, &record.signature.name));
        }
        if !more {
            return Ok(ExportPage { lines, last: None });
        }
    }
}

/// Imports lines of an export. Each line is durable on its own, and a signature that is there already is no error: a
/// client that was interrupted may repeat all lines, or send the missing ones.
async fn import(context: &RequestContext<'_>, mut payload: Payload) -> Result<HttpResponse, ApiError> {
    let RequestContext { caller, request, .. } = context;
    context.authorize(Action::Import, None).await?;
    // A web page can't make a browser send this media type unasked, to a store without authentication.
    if !request.content_type().eq_ignore_ascii_case(NDJSON) {
        return Err(ApiError::media_type(format!("the lines of an import are sent with Content-Type: {NDJSON}")));
    }
    let mut imported = Imported::default();
    let (mut rest, mut number) = (BytesMut::new(), 0);
    let mut more = true;
    while more {
        match tokio::time::timeout(STALL_TIMEOUT, payload.next()).await {
            Ok(Some(Ok(chunk))) => rest.extend_from_slice(&chunk),
            Ok(Some(Err(_))) => return Err(ApiError::bad_request("the request's body broke off")),
            Ok(None) => {
                more = false;
                rest.extend_from_slice(b"\n");
            }
            Err(_) => return Err(ApiError::slow_client()),
        }
        let mut changes = Vec::new();
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let line = rest.split_to(end + 1);
            number += 1;
            if !line.trim_ascii().is_empty() {
                changes.push((number, line.freeze()));
            }
        }
        if rest.len() > MAX_LINE_BYTES {
            return Err(ApiError::too_large(format!("line {} has more than {MAX_LINE_BYTES} bytes", number + 1)));
        }
        if !changes.is_empty() {
            import_lines(context, changes, &mut imported).await?;
        }
    }
    caller.audit_entry().done(
        Action::Import,
        &format!(
            "{} new, {} completed, {} there, {} refused",
            imported.created, imported.completed, imported.present, imported.refused
        ),
    );
    Ok(HttpResponse::Ok().json(imported))
}

async fn import_lines(
    context: &RequestContext<'_>,
    lines: Vec<(usize, Bytes)>,
    imported: &mut Imported,
) -> Result<(), ApiError> {
    // Parsing compressed signatures takes time, so it does not block this thread.
    let checked = tokio::task::spawn_blocking(move || {
        let check = |line: &[u8]| {
            let (image, record) = export_format::read(line)?;
            export_format::check(&image, &record).map(|_| (image, record))
        };
        lines.into_iter().map(|(number, line)| (number, check(&line))).collect::<Vec<_>>()
    });
    let checked = checked.await.map_err(|_| ApiError::bad_request("a line can't be read"))?;
    // In parallel, so that they share a sync.
    let changes = checked.into_iter().map(|(number, checked)| async move {
        let outcome = match checked {
            Ok((image, record)) => {
                let what = Position::behind(&image, &record.signature.name).as_str().to_owned();
                Ok(context.change(Action::Import, Change::Import(image, record), what).await?)
            }
            Err(reason) => Err(reason),
        };
        Ok::<_, ApiError>((number, outcome))
    });
    for outcome in futures_util::future::join_all(changes).await {
        let (number, outcome) = outcome?;
        imported.count(number, outcome);
    }
    Ok(())
}
