//! Pushing (distribution specification, "Pushing blobs", "Pushing manifests").
//!
//! An upload that breaks is taken up where the registry says that it stands, or begun anew. What is sent is hashed on its
//! way, so that an upload is never completed with anything else than what it should be.

use std::{io, time::Duration};

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use reqwest::{
    Method,
    header::{CONTENT_LENGTH, HeaderMap, HeaderValue, RANGE},
};
use url::Url;

use super::{
    client::{Client, Fetched, Place, Request, What, join},
    encoding::Encoding,
    failure::shown,
    manifest::{ACCEPTED, claimed_digests},
    patience::{self, Patience},
    said::SaidNo,
    target::Target,
    token::Access,
    transport::{Answer, Budget, Content, location},
};
use crate::image::{Digest, Hasher, Mismatch};
use crate::operations::RequestKind;
use crate::source::{Blob, SourceManifest};
use crate::verdict::LookupError;

/// The time of a request that carries little.
const STEP: Duration = Duration::from_mins(1);
/// The time of one that carries a chunk, or after which the registry puts a blob in its place.
const LONG_STEP: Duration = Duration::from_mins(10);
/// Bytes that are sent at once, unless the registry wants more.
const CHUNK: u64 = 16 << 20;
/// The largest chunk that a registry may want: each is held in memory.
const LARGEST_CHUNK: u64 = 128 << 20;
/// Bytes of an answer that is read.
const LARGEST_ANSWER: usize = 64 << 10;

/// What became of a blob or manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobOutcome {
    /// It was sent.
    Pushed,
    /// The registry took it from another repository.
    Mounted,
    /// It was there.
    Present,
}

/// Why something was not pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// The registry can't be asked, or says nothing to stand on.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The registry does not take it.
    #[error(transparent)]
    SaidNo(#[from] SaidNo),
    /// What is pushed can't be read.
    #[error("{name:?} can't be read: {source}")]
    Read {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// What is pushed is something else than it should be.
    #[error("{name:?} is damaged: {mismatch}")]
    Damaged {
        /// The file.
        name: String,
        /// What it should be, and what it is.
        mismatch: Box<Mismatch>,
    },
}

impl UploadError {
    /// How long to wait before another try, if one may help: as the registry wishes, or so long.
    fn wait(&self, otherwise: Duration) -> Option<Duration> {
        match self {
            Self::Lookup(error) => patience::wait_after(error, otherwise),
            _ => None,
        }
    }
}

/// Hears how many bytes of a blob the registry has.
pub(crate) type Progress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// An upload under way.
struct Session {
    place: Place,
    /// Bytes that the registry has.
    offset: u64,
    /// Bytes of a chunk.
    chunk: u64,
    /// Whether it was taken up again.
    resumed: bool,
    /// Whether it can't be (once more).
    is_spent: bool,
}

enum Begun {
    /// There is nothing to send.
    Settled(BlobOutcome),
    Upload(Session),
}

/// Waits before another try; or gives the error back, where none is left or would help.
async fn bear(patience: &mut Patience, error: UploadError, offset: u64) -> Result<(), UploadError> {
    let again = patience.bear(&error, offset, |usual| error.wait(usual)).await;
    if again { Ok(()) } else { Err(error) }
}

/// The digest of what was read so far, however often parts of it are read again.
struct Read {
    hasher: Hasher,
    at: u64,
}

impl Client {
    /// Sees to it that the registry has a blob in this repository. With `from`, the path of another repository of the same
    /// registry, the registry is asked to take it from there first.
    pub(crate) async fn push_blob(
        &self,
        target: &Target,
        blob: &Blob,
        from: Option<&str>,
        progress: Progress<'_>,
    ) -> Result<BlobOutcome, UploadError> {
        let mut from = from;
        let mut patience = Patience::default();
        let mut read = Read { hasher: Hasher::new(blob.digest.algorithm()), at: 0 };
        loop {
            let mut session = match self.begin(target, blob, from.take()).await {
                Ok(Begun::Settled(outcome)) => return Ok(outcome),
                Ok(Begun::Upload(session)) => session,
                Err(error) => {
                    bear(&mut patience, error, 0).await?;
                    continue;
                }
            };
            loop {
                progress(session.offset);
                let step = self.step(target, blob, &mut session, &mut read).await;
                let error = match step {
                    Ok(true) => return Ok(BlobOutcome::Pushed),
                    Ok(false) => continue,
                    Err(error @ UploadError::Damaged { .. }) => {
                        self.abandon(target, session).await;
                        return Err(error);
                    }
                    Err(error) => error,
                };
                bear(&mut patience, error, session.offset).await?;
                // The answer to a last request may be what was lost.
                if self.has_blob(target, blob).await.unwrap_or(false) {
                    return Ok(BlobOutcome::Pushed);
                }
                if session.is_spent || !self.resume(target, blob, &mut session, read.at).await? {
                    break;
                }
            }
        }
    }

    /// Whether the registry has a blob.
    pub(crate) async fn has_blob(&self, target: &Target, blob: &Blob) -> Result<bool, UploadError> {
        let path = format!("v2/{}/blobs/{}", target.path, blob.digest);
        let Fetched { url, answer } =
            self.push_step(target, &path, Request::new(Method::HEAD, Access::Push), STEP).await?;
        match answer.status {
            200 => {
                self.check_digest(target, &url, &answer, &blob.digest)?;
                // Where a HEAD is answered without, that says nothing; nor does the length of what is encoded.
                let length = answer.headers.get(CONTENT_LENGTH).filter(|_| Encoding::of(&answer.headers).is_identity());
                let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                match length.filter(|&length: &u64| length != blob.data.length() && !answer.elsewhere) {
                    Some(length) => Err(self.wrong(
                        target,
                        &url,
                        format!("it says that {} has {length} bytes, not {}", blob.digest, blob.data.length()),
                    )),
                    None => Ok(true),
                }
            }
            404 => Ok(false),
            _ => Err(SaidNo::of(target, &url, &answer).into()),
        }
    }

    /// Begins an upload, unless the blob is there or can be mounted.
    async fn begin(&self, target: &Target, blob: &Blob, from: Option<&str>) -> Result<Begun, UploadError> {
        if self.has_blob(target, blob).await? {
            return Ok(Begun::Settled(BlobOutcome::Present));
        }
        let path = format!("v2/{}/blobs/uploads/", target.path);
        if let Some(from) = from {
            let base = self.origin(target, Budget::of(STEP)).await?;
            let mut url = join(&base.base, &path);
            url.query_pairs_mut().append_pair("mount", &blob.digest.to_string()).append_pair("from", from);
            let place = Some(Place::own(url));
            let request = Request { place, ..Request::new(Method::POST, Access::Mount(from.into())) };
            match self.push_step(target, &path, request, STEP).await {
                Ok(Fetched { url, answer }) if answer.status == 201 => {
                    self.check_digest(target, &url, &answer, &blob.digest)?;
                    // Some say so without having looked.
                    if self.has_blob(target, blob).await? {
                        return Ok(Begun::Settled(BlobOutcome::Mounted));
                    }
                }
                Ok(Fetched { url, answer }) if answer.status == 202 => return self.begun(target, &url, &answer).await,
                // Not to be allowed to read there is no reason not to push here.
                Ok(_) | Err(UploadError::Lookup(LookupError::Unauthorized { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        let Fetched { url, answer } =
            self.push_step(target, &path, Request::new(Method::POST, Access::Push), STEP).await?;
        match answer.status {
            202 => self.begun(target, &url, &answer).await,
            _ => Err(SaidNo::of(target, &url, &answer).into()),
        }
    }

    async fn begun(&self, target: &Target, url: &Url, answer: &Answer) -> Result<Begun, UploadError> {
        let place = self.goes_on(target, url, answer).await?;
        let least = answer.headers.get("oci-chunk-min-length").and_then(|value| value.to_str().ok()?.parse().ok());
        let chunk = least.unwrap_or(0).max(CHUNK);
        if chunk > LARGEST_CHUNK {
            let what = format!("it wants chunks of at least {chunk} bytes; here they have at most {LARGEST_CHUNK}");
            return Err(self.wrong(target, url, what));
        }
        Ok(Begun::Upload(Session { place, offset: 0, chunk, resumed: false, is_spent: false }))
    }

    /// Sends a chunk, or completes the upload. Gives whether it is complete.
    async fn step(
        &self,
        target: &Target,
        blob: &Blob,
        session: &mut Session,
        read: &mut Read,
    ) -> Result<bool, UploadError> {
        let size = blob.data.length();
        let left = size - session.offset;
        let length = left.min(session.chunk);
        let bytes = read_chunk(blob, session.offset, length, read).await?;
        // What fits into one request is not worth two; all else is sent in chunks, with nothing left for the last one.
        let is_whole = session.offset == 0 && left == length;
        if is_whole || left == 0 {
            // All was read, for nothing is taken up behind what was.
            if let Some(mismatch) = blob.digest.mismatch(read.hasher.clone().finish()) {
                return Err(UploadError::Damaged { name: blob.data.name().to_owned(), mismatch });
            }
            return self.complete(target, blob, session, bytes).await.map(|()| true);
        }
        let last = session.offset + length - 1;
        let range = HeaderValue::from_str(&format!("{}-{last}", session.offset)).ok();
        let content = Some(Content { kind: "application/octet-stream".into(), bytes, may_move: true });
        let request = Request {
            place: Some(session.place.clone()),
            content,
            content_range: range,
            repeat: false,
            ..Request::new(Method::PATCH, Access::Push)
        };
        let Fetched { url, answer } = self.push_step(target, "", request, LONG_STEP).await?;
        match answer.status {
            202 => {}
            // It is gone, or stands elsewhere than we believe.
            404 | 416 => {
                session.is_spent = answer.status == 404 || session.resumed;
                return Err(unsettled(target, &url, answer.status));
            }
            _ => return Err(SaidNo::of(target, &url, &answer).into()),
        }
        session.place = self.goes_on(target, &url, &answer).await?;
        let sent = session.offset + length;
        let offset = match stands_at(&answer.headers) {
            None => sent,
            Some(offset) if offset == sent => sent,
            Some(offset) if offset > session.offset && offset < sent => {
                session.offset = offset;
                return Err(unsettled(target, &url, answer.status));
            }
            Some(offset) => {
                let what = format!("of {sent} bytes that were sent it says that it has {offset}");
                return Err(self.wrong(target, &url, what));
            }
        };
        session.offset = offset;
        Ok(false)
    }

    async fn complete(
        &self,
        target: &Target,
        blob: &Blob,
        session: &mut Session,
        bytes: Bytes,
    ) -> Result<(), UploadError> {
        let mut place = session.place.clone();
        place.url.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let request = Request {
            place: Some(place),
            content: Some(Content { kind: "application/octet-stream".into(), bytes, may_move: true }),
            repeat: false,
            ..Request::new(Method::PUT, Access::Push)
        };
        let Fetched { url, answer } = self.push_step(target, "", request, LONG_STEP).await?;
        match answer.status {
            200 | 201 | 204 => self.check_digest(target, &url, &answer, &blob.digest),
            // It is gone, or stands elsewhere than we believe. Where it was taken up again, the fault may be in where.
            404 | 416 => {
                session.is_spent = answer.status == 404 || session.resumed;
                Err(unsettled(target, &url, answer.status))
            }
            400 if session.resumed => {
                session.is_spent = true;
                Err(unsettled(target, &url, answer.status))
            }
            _ => Err(SaidNo::of(target, &url, &answer).into()),
        }
    }

    /// Asks where an upload stands. Gives whether it can be taken up there.
    async fn resume(
        &self,
        target: &Target,
        blob: &Blob,
        session: &mut Session,
        sent: u64,
    ) -> Result<bool, UploadError> {
        let request = Request { place: Some(session.place.clone()), ..Request::new(Method::GET, Access::Push) };
        let Ok(Fetched { url, answer }) = self.push_step(target, "", request, STEP).await else { return Ok(false) };
        if !matches!(answer.status, 200 | 202 | 204) {
            return Ok(false);
        }
        let Some(offset) = stands_at(&answer.headers) else { return Ok(false) };
        if offset > sent {
            let what = format!("of at most {sent} bytes that were sent it says that it has {offset}");
            return Err(self.wrong(target, &url, what));
        }
        // The address is a new one where the answer has one.
        if answer.headers.contains_key("location") {
            session.place = self.goes_on(target, &url, &answer).await?;
        }
        tracing::info!(digest = %blob.digest, offset, "an upload is taken up again");
        session.offset = offset;
        session.resumed = true;
        Ok(true)
    }

    /// Tells the registry that nothing more comes. If it does not hear that, it will find out.
    async fn abandon(&self, target: &Target, session: Session) {
        let request = Request { place: Some(session.place), ..Request::new(Method::DELETE, Access::Push) };
        let _ = self.push_step(target, "", request, STEP).await;
    }

    /// Sees to it that the registry has a manifest under this tag or digest.
    pub(crate) async fn push_manifest(
        &self,
        target: &Target,
        name: &str,
        manifest: &SourceManifest,
    ) -> Result<BlobOutcome, UploadError> {
        if self.stored_manifest(target, name).await?.as_deref() == Some(&*manifest.bytes) {
            return Ok(BlobOutcome::Present);
        }
        let path = format!("v2/{}/manifests/{name}", target.path);
        let kind = manifest.media_type.as_str();
        let content = Some(Content { kind: kind.to_owned().into(), bytes: manifest.bytes.clone(), may_move: true });
        let request = Request { content, ..Request::new(Method::PUT, Access::Push) };
        let what = What { path: &path, accept: None, kind: RequestKind::Manifest, limit: LARGEST_ANSWER };
        let Fetched { url, answer } = self.send(target, &what, request, Budget::of(STEP)).await?;
        match answer.status {
            200..=299 => {
                self.check_digest(target, &url, &answer, &manifest.digest)?;
                Ok(BlobOutcome::Pushed)
            }
            _ => Err(SaidNo::of(target, &url, &answer).into()),
        }
    }

    /// The bytes that the registry itself, no mirror of it, has under a tag or digest.
    pub(crate) async fn stored_manifest(&self, target: &Target, name: &str) -> Result<Option<Vec<u8>>, UploadError> {
        let path = format!("v2/{}/manifests/{name}", target.path);
        let what =
            What { path: &path, accept: Some(ACCEPTED), kind: RequestKind::Manifest, limit: self.manifest_bytes };
        let request = Request::new(Method::GET, Access::Push);
        let Fetched { url, answer } = self.send(target, &what, request, Budget::of(STEP)).await?;
        match answer.status {
            200 => Ok(Some(answer.body.to_vec())),
            404 => Ok(None),
            _ => Err(SaidNo::of(target, &url, &answer).into()),
        }
    }

    async fn push_step(
        &self,
        target: &Target,
        path: &str,
        request: Request,
        time: Duration,
    ) -> Result<Fetched, UploadError> {
        let what = What { path, accept: None, kind: RequestKind::Blob, limit: LARGEST_ANSWER };
        Ok(self.send(target, &what, request, Budget::of(time)).await?)
    }

    /// A digest that the registry names has to be the one that was pushed.
    fn check_digest(&self, target: &Target, url: &Url, answer: &Answer, digest: &Digest) -> Result<(), UploadError> {
        let expected = digest.to_string();
        if claimed_digests(&answer.headers).all(|named| named.as_bytes() == expected.as_bytes()) {
            return Ok(());
        }
        Err(self.wrong(target, url, format!("its Docker-Content-Digest header is not {expected}")))
    }

    /// Where an upload goes on.
    async fn goes_on(&self, target: &Target, asked: &Url, answer: &Answer) -> Result<Place, UploadError> {
        let origin = self.origin(target, Budget::of(STEP)).await?;
        let url = location(&answer.url, &answer.headers, target.peer.settings.insecure)
            .map_err(|failure| UploadError::Lookup(failure.at(&target.peer.registry, asked, STEP)))?;
        if url.origin() == origin.base.origin() && !is_for_uploads(&url) {
            let what = format!("it has an upload go on where none can: {}", shown(&url));
            return Err(self.wrong(target, asked, what));
        }
        Ok(Place { url, elsewhere: answer.elsewhere })
    }

    fn wrong(&self, target: &Target, url: &Url, what: String) -> UploadError {
        UploadError::Lookup(self.misbehaved(target, url, what, Budget::of(STEP)))
    }
}

/// Whether an upload may go on at this path of the registry, which then gets credentials, and what is sent.
///
/// Below `/v2/`, all paths but an upload's are other endpoints, at which the same requests would do something else. There
/// it is not looked at whose upload it is: in front of some registries a proxy puts something before all names. Outside of
/// `/v2/` there is no rule, for what paths mean there the registry alone knows (Google's uploads are at
/// `/artifacts-uploads/...`), but for signatures, which are never where layers go.
pub(super) fn is_for_uploads(url: &Url) -> bool {
    let path = percent_decode_str(url.path()).decode_utf8_lossy();
    let segments: Vec<&str> = path.split(['/', '\\']).filter(|segment| !segment.is_empty()).collect();
    match segments[..] {
        _ if segments.iter().any(|segment| matches!(*segment, "." | "..")) => false,
        // GitHub's has it in the singular.
        ["v2", _, .., "blobs", "uploads" | "upload"] | ["v2", _, .., "blobs", "uploads" | "upload", _] => true,
        ["v2" | "extensions" | "sealgate", ..] => false,
        _ => true,
    }
}

async fn read_chunk(blob: &Blob, offset: u64, length: u64, read: &mut Read) -> Result<Bytes, UploadError> {
    let data = blob.data.clone();
    // Chunks are no larger than LARGEST_CHUNK.
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    let bytes = match tokio::task::spawn_blocking(move || data.read_at(offset, size)).await {
        Ok(bytes) => bytes,
        Err(panic) => Err(io::Error::other(panic)),
    };
    let bytes = bytes.map_err(|source| UploadError::Read { name: blob.data.name().to_owned(), source })?;
    if offset <= read.at
        && let Ok(known) = usize::try_from(read.at - offset)
        && known < bytes.len()
    {
        read.hasher.update(&bytes[known..]);
        read.at = offset + length;
    }
    Ok(bytes.into())
}

/// Bytes that a registry has of an upload: `Range: 0-<last>`. The first registries, and their heirs, say `0-0` of nothing;
/// who has that one byte answers the next request with 416.
fn stands_at(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?;
    let (first, last) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    match (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?) {
        (0, 0) => Some(0),
        (0, last) => last.checked_add(1),
        _ => None,
    }
}

/// An answer that leaves open where an upload stands: worth asking.
fn unsettled(target: &Target, url: &Url, status: u16) -> UploadError {
    UploadError::Lookup(LookupError::Unavailable {
        registry: (&*target.peer.registry).into(),
        url: shown(url),
        cause: format!("it answers {status} in the middle of an upload").into(),
        retry_after: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_go_on_where_real_registries_have_them() {
        let is = |path: &str| is_for_uploads(&Url::parse(&format!("https://r.example.com{path}")).unwrap());
        for path in [
            "/v2/acme/web/blobs/uploads/3c1a0d0e-6f1c-4b7e-9d55-7c0d5c1e2f3a?_state=x%2Fy",
            "/v2/web/blobs/uploads/AJMTJPA_x-y=",
            "/v2/acme/web/blobs/upload/3c1a0d0e",
            "/v2/team/acme/web/blobs/uploads/3c1a0d0e",
            "/v2/acme/web/blobs/uploads/?state=x",
            "/artifacts-uploads/namespaces/project/repositories/images/uploads/AF2XiV",
            "/artifactory/api/docker/images/v2/acme/web/blobs/uploads/3c1a0d0e",
            "/registry/v2/acme/web/blobs/uploads/3c1a0d0e",
        ] {
            assert!(is(path), "{path}");
        }
        for path in [
            "/v2/",
            "/v2/blobs/uploads/x",
            "/v2/acme/web/manifests/1",
            "/v2/acme/web/blobs/uploads/x/manifests/1",
            "/v2/acme/web/blobs/uploads/x/../../../manifests/1",
            "/v2/acme/web/blobs/uploads/..%2F..%2Fmanifests%2F1",
            "/v2/acme/web/blobs/uploads%2Fx%2Fmanifests%2F1",
            "/v2/acme/web/blobs/uploads/x%5Cmanifests%5C1",
            "/%76%32/acme/web/manifests/1",
            "//v2/acme/web/manifests/1",
            "/x%2F..%2Fv2/acme/web/manifests/1",
            "/extensions/v2/acme/web/signatures/sha256:00",
            "/sealgate/v1/import",
        ] {
            assert!(!is(path), "{path}");
        }
    }

    #[test]
    fn a_range_says_how_many_bytes_are_there() {
        let of = |text: &str| stands_at(&HeaderMap::from_iter([(RANGE, HeaderValue::from_str(text).unwrap())]));
        assert_eq!(of("0-0"), Some(0));
        assert_eq!(of("0-15"), Some(16));
        assert_eq!(of("bytes=0-15"), Some(16));
        for bad in ["", "15", "1-15", "0-", "-15", "0--1", "0-18446744073709551615", "0-99999999999999999999"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(stands_at(&HeaderMap::new()), None);
    }
}
