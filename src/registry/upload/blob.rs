//! Pushing a blob.
//!
//! What registries answer in the middle of an upload differs too much to be relied on (docs/registries.md#pushing): a blob is
//! pushed when the registry has accepted its digest. A way of sending it that a registry refuses is left for
//! [the next one](Strategies). An upload that breaks is resumed where the registry says that it stands, or begun anew. What
//! is sent is [hashed on its way](Reading), so that no upload is completed with anything else than what it should be.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{
    Method,
    header::{CONTENT_LENGTH, HeaderValue, LOCATION},
};
use tokio::time::{Instant, sleep};
use url::Url;

use super::{
    body::Reading,
    error::{BlobOutcome, UploadError},
    manifest::{LARGEST_ANSWER, STEP},
    offset::stands_at,
    strategy::{CHUNK, LearnedLimit, Obstacle, Strategies, Strategy},
};
use crate::image_files::Blob;
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::registry::{
    client::{Client, Fetched, Place, Request, What, join},
    encoding::Encoding,
    error_body::SaidNo,
    retry::Patience,
    target::Target,
    token::Access,
    transport::{Answer, Budget, Content, Payload, location},
    upload_path::is_for_uploads,
};
use crate::telemetry::RequestKind;

/// The time for each [`CHUNK`] of a request that carries part of a blob, and for the registry to put the blob in its place
/// afterwards; and for how long such a request may stand still.
const LONG_STEP: Duration = Duration::from_mins(10);
/// How often it is looked at how far a request is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Failures in a row after which another strategy is tried: it may be what the registry, or a proxy, can't bear.
const FAILURES_OF_A_STRATEGY: u32 = 2;

/// Hears how many bytes of a blob the registry has.
pub(crate) type Progress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// A blob on its way to a repository.
struct Upload<'a> {
    client: &'a Client,
    target: &'a Target,
    blob: &'a Blob,
    progress: Progress<'a>,
    reading: Arc<Reading>,
    learned: &'a LearnedLimit,
    strategies: Strategies,
    /// Whether the registry lost a part of it, so that only a blob of the right length counts.
    needs_length: bool,
}

/// An upload that the registry has begun.
struct Session {
    place: Place,
    /// Bytes that the registry has.
    offset: u64,
    /// Bytes that a chunk must have, but for the last one.
    least_chunk: u64,
    /// Whether it was resumed.
    resumed: bool,
    /// Whether it can't be (once more).
    is_spent: bool,
    /// Whether the registry's last word was that it has another number of bytes than were sent.
    is_doubtful: bool,
}

enum Begun {
    /// There is nothing to send.
    Settled(BlobOutcome),
    Upload(Session),
}

/// Why a step of an upload was not done.
enum StepError {
    /// Nothing can be done about it.
    Final(UploadError),
    /// The registry does not accept the blob in this way.
    Refused(Obstacle, UploadError),
    /// Another try may help.
    Transient(UploadError),
}

impl From<UploadError> for StepError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Lookup(LookupError::Unavailable { .. } | LookupError::TimedOut { .. }) => {
                Self::Transient(error)
            }
            error => Self::Final(error),
        }
    }
}

/// What a registry says of a blob.
enum Stored {
    Absent,
    /// It is there; how many bytes it has is not said.
    WithoutLength,
    /// It is there, and has as many bytes as it should.
    Whole,
}

impl Client {
    /// Sees to it that the registry has a blob in this repository. With `from`, the path of another repository of the same
    /// registry, the registry is asked to take it from there first.
    pub(crate) async fn push_blob(
        &self,
        target: &Target,
        blob: &Blob,
        from: Option<&str>,
        learned: &LearnedLimit,
        progress: Progress<'_>,
    ) -> Result<BlobOutcome, UploadError> {
        let (reading, strategies) = (Reading::new(blob), Strategies::new(blob.data.length(), learned));
        let upload = Upload { client: self, target, blob, progress, reading, learned, strategies, needs_length: false };
        upload.run(from).await
    }

    /// Whether the registry has a blob.
    ///
    /// # Errors
    /// It can't be asked, or has another number of bytes.
    pub(crate) async fn has_blob(&self, target: &Target, blob: &Blob) -> Result<bool, UploadError> {
        Ok(!matches!(self.stored(target, blob).await?, Stored::Absent))
    }

    /// Asks for the blob by HEAD, and by GET where the answer to that says nothing.
    async fn stored(&self, target: &Target, blob: &Blob) -> Result<Stored, UploadError> {
        let head = self.ask_for_blob(target, blob, Method::HEAD).await?;
        match head.answer.status {
            200 => {
                let by_get = match self.read_stored(target, blob, &head)? {
                    Stored::WithoutLength => self.ask_for_blob(target, blob, Method::GET).await.ok(),
                    stored => return Ok(stored),
                };
                match by_get {
                    Some(get) if get.answer.status == 200 => self.read_stored(target, blob, &get),
                    Some(get) if get.answer.status == 404 => Ok(Stored::Absent),
                    // Then the HEAD stands.
                    _ => Ok(Stored::WithoutLength),
                }
            }
            400 | 405 | 501 => {
                let get = self.ask_for_blob(target, blob, Method::GET).await?;
                match get.answer.status {
                    200 => self.read_stored(target, blob, &get),
                    404 => Ok(Stored::Absent),
                    _ => Err(SaidNo::of(target, &get.url, &get.answer).into()),
                }
            }
            404 => Ok(Stored::Absent),
            _ => Err(SaidNo::of(target, &head.url, &head.answer).into()),
        }
    }

    async fn ask_for_blob(&self, target: &Target, blob: &Blob, method: Method) -> Result<Fetched, UploadError> {
        let path = format!("v2/{}/blobs/{}", target.path, blob.digest);
        let what = What { path: &path, accept: None, kind: RequestKind::Blob, limit: 0 };
        Ok(self.send(target, &what, Request::new(method, Access::Push), Budget::of(STEP)).await?)
    }

    /// What an answer of 200 says of the blob.
    fn read_stored(&self, target: &Target, blob: &Blob, fetched: &Fetched) -> Result<Stored, UploadError> {
        let Fetched { url, answer } = fetched;
        self.check_digest(target, url, answer, &blob.digest)?;
        // The length of what is encoded says nothing.
        let length = answer.headers.get(CONTENT_LENGTH).filter(|_| Encoding::of(&answer.headers).is_identity());
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        match length {
            Some(length) if length == blob.data.length() => Ok(Stored::Whole),
            // Some answer so to every HEAD; and another host's answer to a HEAD may be about that request alone.
            None | Some(0) => Ok(Stored::WithoutLength),
            Some(_) if answer.elsewhere => Ok(Stored::WithoutLength),
            Some(length) => {
                let what = format!("it says that {} has {length} bytes, not {}", blob.digest, blob.data.length());
                Err(self.wrong(target, url, what))
            }
        }
    }
}

/// Returns whether an answer says where an upload goes on.
fn has_location(answer: &Answer) -> bool {
    answer.headers.get_all(LOCATION).iter().any(|location| !location.is_empty())
}

/// Waits before another try. Returns the error if none is left or would help.
async fn bear(patience: &mut Patience, error: UploadError, done: u64) -> Result<(), UploadError> {
    let again = patience.bear(&error, done, |usual| error.wait(usual)).await;
    if again { Ok(()) } else { Err(error) }
}

impl Upload<'_> {
    async fn run(mut self, mut from: Option<&str>) -> Result<BlobOutcome, UploadError> {
        let mut patience = Patience::default();
        let mut refusal = None;
        let mut is_first = true;
        loop {
            let mut session = match self.begin(from.take()).await {
                Ok(Begun::Settled(BlobOutcome::Present)) if !is_first => return Ok(BlobOutcome::Pushed),
                Ok(Begun::Settled(outcome)) => return Ok(outcome),
                Ok(Begun::Upload(session)) => session,
                Err(error) => {
                    bear(&mut patience, error, 0).await?;
                    continue;
                }
            };
            is_first = false;
            loop {
                (self.progress)(session.offset);
                let step = self.step(&mut session).await;
                self.needs_length |= step.is_err() && session.is_doubtful;
                let error = match step {
                    Ok(true) => return Ok(BlobOutcome::Pushed),
                    Ok(false) => continue,
                    Err(StepError::Final(error)) => {
                        if matches!(error, UploadError::Damaged { .. }) {
                            self.abandon(session).await;
                        }
                        return Err(error);
                    }
                    Err(StepError::Refused(obstacle, error)) => {
                        tracing::info!(digest = %self.blob.digest, strategy = ?self.strategies.current(), %error, "refused");
                        // What skopeo's way is answered with says most: no other client fails differently.
                        let error = match refusal.take() {
                            Some(earlier) if self.strategies.current() != Strategy::OnePatch => earlier,
                            _ => error,
                        };
                        self.abandon(session).await;
                        if !self.strategies.advance(obstacle, self.learned) {
                            return Err(error);
                        }
                        refusal = Some(error);
                        break;
                    }
                    Err(StepError::Transient(error)) => error,
                };
                // Of what was not sent in chunks nothing is left.
                let done = if self.is_resumable() { session.offset } else { 0 };
                bear(&mut patience, error, done).await?;
                // The answer to a last request may be what was lost.
                if self.is_stored().await.unwrap_or(false) {
                    return Ok(BlobOutcome::Pushed);
                }
                if patience.in_a_row() >= FAILURES_OF_A_STRATEGY {
                    self.strategies.advance(Obstacle::Trouble, self.learned);
                }
                if session.is_spent || !self.is_resumable() || !self.resume(&mut session).await? {
                    break;
                }
            }
        }
    }

    /// Whether what the registry has of the blob can be added to.
    fn is_resumable(&self) -> bool {
        match self.strategies.current() {
            Strategy::Chunks(_) => true,
            Strategy::OnePut => self.blob.data.length() <= CHUNK,
            Strategy::OnePatch => false,
        }
    }

    async fn is_stored(&self) -> Result<bool, UploadError> {
        Ok(match self.client.stored(self.target, self.blob).await? {
            Stored::Absent => false,
            Stored::WithoutLength => !self.needs_length,
            Stored::Whole => true,
        })
    }

    /// Begins an upload, unless the blob is there or can be mounted.
    async fn begin(&self, from: Option<&str>) -> Result<Begun, UploadError> {
        let Self { client, target, blob, .. } = *self;
        if self.is_stored().await? {
            return Ok(Begun::Settled(BlobOutcome::Present));
        }
        let path = format!("v2/{}/blobs/uploads/", target.path);
        if let Some(from) = from {
            let base = client.origin(target, Budget::of(STEP)).await?;
            let mut url = join(&base.base, &path);
            url.query_pairs_mut().append_pair("mount", &blob.digest.to_string()).append_pair("from", from);
            let place = Some(Place::own(url));
            let request = Request { place, ..Request::new(Method::POST, Access::Mount(from.into())) };
            match client.push_step(target, &path, request).await {
                Ok(Fetched { url, answer }) if answer.status == 201 => {
                    client.check_digest(target, &url, &answer, &blob.digest)?;
                    // Some say so without having looked.
                    if self.is_stored().await? {
                        return Ok(Begun::Settled(BlobOutcome::Mounted));
                    }
                }
                Ok(Fetched { url, answer }) if answer.status == 202 => return self.begun(&url, &answer).await,
                // Not to be allowed to read there is no reason not to push here.
                Ok(_) | Err(UploadError::Lookup(LookupError::Unauthorized { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        let request = Request::new(Method::POST, Access::Push);
        let Fetched { url, answer } = client.push_step(target, &path, request).await?;
        match answer.status {
            200..=299 => self.begun(&url, &answer).await,
            _ => Err(SaidNo::of(target, &url, &answer).into()),
        }
    }

    async fn begun(&self, url: &Url, answer: &Answer) -> Result<Begun, UploadError> {
        let place = self.next_place(url, answer).await?;
        let least = answer.headers.get("oci-chunk-min-length").and_then(|value| value.to_str().ok()?.parse().ok());
        let least_chunk = least.unwrap_or(0);
        let session = Session { place, offset: 0, least_chunk, resumed: false, is_spent: false, is_doubtful: false };
        Ok(Begun::Upload(session))
    }

    /// Sends a chunk, or all of the blob, or completes the upload. Returns whether it is complete.
    async fn step(&self, session: &mut Session) -> Result<bool, StepError> {
        let size = self.blob.data.length();
        let left = size - session.offset;
        let strategy = self.strategies.current();
        let length = match strategy {
            Strategy::Chunks(chunk) => left.min(chunk.max(session.least_chunk)),
            Strategy::OnePatch | Strategy::OnePut => left,
        };
        // What is sent in parts is sent before the last request, with nothing left for that one.
        let is_whole = session.offset == 0 && length == size && strategy != Strategy::OnePatch;
        if is_whole || left == 0 {
            return self.complete(session, length).await.map(|()| true);
        }
        let content_range = match strategy {
            Strategy::OnePatch => None,
            _ => HeaderValue::from_str(&format!("{}-{}", session.offset, session.offset + length - 1)).ok(),
        };
        let request = Request { content_range, ..self.carrying(Method::PATCH, session.place.clone(), session, length) };
        let Fetched { url, answer } = self.send_content(request, length).await?;
        match answer.status {
            // 202 by the specification; ECR answers 201, go-containerregistry and Pulp 204.
            200..=299 => {}
            status => return Err(self.refused(session, length, &url, &answer, status)),
        }
        // Where none is said, it goes on there.
        if has_location(&answer) {
            session.place = self.next_place(&url, &answer).await?;
        }
        session.offset += length;
        // It can't be believed: ECR always says the first chunk's, others one octet too many. But it is remembered.
        if let Some(stands_at) = stands_at(&answer.headers) {
            session.is_doubtful = stands_at != session.offset && stands_at != session.offset + 1;
        }
        Ok(false)
    }

    /// Tells the registry that this is all, with what is left to send.
    async fn complete(&self, session: &mut Session, length: u64) -> Result<(), StepError> {
        // Of a larger one the last piece is withheld until it is known.
        if length <= CHUNK {
            self.reading.read_to_end().await?;
        }
        let mut place = session.place.clone();
        place.url.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        let request = self.carrying(Method::PUT, place, session, length);
        let Fetched { url, answer } = self.send_content(request, length).await?;
        match answer.status {
            200..=299 => {}
            400 if session.resumed => {
                // The fault may be in where it was resumed.
                session.is_spent = true;
                return Err(StepError::Transient(self.unsettled(&url, answer.status)));
            }
            status => return Err(self.refused(session, length, &url, &answer, status)),
        }
        self.client.check_digest(self.target, &url, &answer, &self.blob.digest)?;
        let is_accepted_only = answer.status == 202;
        if !is_accepted_only && !session.is_doubtful {
            return Ok(());
        }
        match self.client.stored(self.target, self.blob).await? {
            Stored::Whole => Ok(()),
            Stored::WithoutLength if !session.is_doubtful => Ok(()),
            Stored::Absent if !session.is_doubtful => Err(StepError::Transient(self.unsettled(&url, answer.status))),
            Stored::WithoutLength | Stored::Absent => {
                let what = "it lost a part of an upload, and does not say how many bytes it has in the end".to_owned();
                Err(StepError::Refused(Obstacle::Refused, self.client.wrong(self.target, &url, what)))
            }
        }
    }

    /// A request that carries so many of the next bytes.
    fn carrying(&self, method: Method, place: Place, session: &Session, length: u64) -> Request {
        let bytes = if length == 0 { Payload::Bytes(Bytes::new()) } else { self.reading.part(session.offset, length) };
        let content = Some(Content { kind: "application/octet-stream".into(), bytes, may_move: true });
        Request { place: Some(place), content, repeat: false, ..Request::new(method, Access::Push) }
    }

    /// Sends a request that carries part of a blob. It may take long, but not stand still.
    async fn send_content(&self, request: Request, length: u64) -> Result<Fetched, UploadError> {
        let url = request.place.as_ref().map(|place| shown(&place.url)).unwrap_or_default();
        let time = LONG_STEP.saturating_mul(u32::try_from(1 + length / CHUNK).unwrap_or(u32::MAX));
        let what = What { path: "", accept: None, kind: RequestKind::Blob, limit: LARGEST_ANSWER };
        let sending = self.client.send(self.target, &what, request, Budget::of(time));
        let mut sending = std::pin::pin!(sending);
        let (mut position, mut since) = (self.reading.position(), Instant::now());
        loop {
            tokio::select! {
                fetched = &mut sending => return self.reading.take_failure().map_or_else(|| Ok(fetched?), Err),
                () = sleep(PROGRESS_INTERVAL) => {
                    let moved_to = self.reading.position();
                    if moved_to != position {
                        (self.progress)(moved_to);
                        (position, since) = (moved_to, Instant::now());
                    } else if since.elapsed() >= LONG_STEP {
                        let registry = (&*self.target.peer.registry).into();
                        return Err(LookupError::TimedOut { registry, url, after: LONG_STEP }.into());
                    }
                }
            }
        }
    }

    /// What it means that a registry does not answer a step with success.
    fn refused(&self, session: &mut Session, length: u64, url: &Url, answer: &Answer, status: u16) -> StepError {
        let error = || SaidNo::of(self.target, url, answer).into();
        match status {
            401 | 403 => StepError::Final(error()),
            // It is gone.
            404 => {
                session.is_spent = true;
                StepError::Transient(self.unsettled(url, status))
            }
            // It stands elsewhere than we believe.
            416 if session.offset > 0 => {
                session.is_spent = session.resumed;
                StepError::Transient(self.unsettled(url, status))
            }
            413 | 416 if length > 0 => StepError::Refused(Obstacle::TooLarge, error()),
            _ => StepError::Refused(Obstacle::Refused, error()),
        }
    }

    /// Asks where an upload stands. Returns whether it can be resumed there.
    async fn resume(&self, session: &mut Session) -> Result<bool, UploadError> {
        let request = Request { place: Some(session.place.clone()), ..Request::new(Method::GET, Access::Push) };
        let Ok(Fetched { url, answer }) = self.client.push_step(self.target, "", request).await else {
            return Ok(false);
        };
        if !matches!(answer.status, 200 | 202 | 204) {
            return Ok(false);
        }
        // More than was sent it can't have.
        let Some(offset) = stands_at(&answer.headers).filter(|&offset| offset <= self.reading.furthest()) else {
            return Ok(false);
        };
        // The address is a new one where the answer has one.
        if has_location(&answer) {
            session.place = self.next_place(&url, &answer).await?;
        }
        tracing::info!(digest = %self.blob.digest, offset, "resuming an upload");
        session.offset = offset;
        session.resumed = true;
        session.is_doubtful = false;
        Ok(true)
    }

    /// Tells the registry that nothing more comes. If it does not hear that, it will find out.
    async fn abandon(&self, session: Session) {
        let request = Request { place: Some(session.place), ..Request::new(Method::DELETE, Access::Push) };
        let _ = self.client.push_step(self.target, "", request).await;
    }

    /// Where an upload goes on.
    async fn next_place(&self, asked: &Url, answer: &Answer) -> Result<Place, UploadError> {
        let target = self.target;
        let origin = self.client.origin(target, Budget::of(STEP)).await?;
        if !has_location(answer) {
            // containers/image gives up here, too.
            let what = "it begins an upload and does not say where that goes on: its answer has no Location".to_owned();
            return Err(self.client.wrong(target, asked, what));
        }
        let url = location(&answer.url, &answer.headers, target.peer.settings.insecure)
            .map_err(|failure| UploadError::Lookup(failure.at(&target.peer.registry, asked, STEP)))?;
        if url.origin() == origin.base.origin() && !is_for_uploads(&url) {
            let what = format!("it has an upload go on where none can: {}", shown(&url));
            return Err(self.client.wrong(target, asked, what));
        }
        Ok(Place { url, elsewhere: answer.elsewhere })
    }

    /// An answer that leaves open where an upload stands: worth asking.
    fn unsettled(&self, url: &Url, status: u16) -> UploadError {
        UploadError::Lookup(LookupError::Unavailable {
            registry: (&*self.target.peer.registry).into(),
            url: shown(url),
            cause: format!("it answers {status} in the middle of an upload").into(),
            retry_after: None,
        })
    }
}
