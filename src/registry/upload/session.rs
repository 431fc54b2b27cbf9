//! The steps of an upload that has started.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{
    Method,
    header::{HeaderValue, LOCATION},
};
use tokio::time::{Instant, sleep};
use url::Url;

use super::{
    blob::Blob,
    blob_reader::BlobReader,
    error::UploadError,
    manifest::{MAX_ANSWER, STEP_TIMEOUT},
    offset::received_bytes,
    presence::Stored,
    strategy::{CHUNK_BYTES, LearnedLimit, Obstacle, Strategies, Strategy},
};
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::registry::{
    access::Access,
    answer::Answer,
    client::Client,
    content::{Content, Payload},
    location::location,
    request::{Fetched, Request, RequestLocation, RequestSpec},
    server_refused::ServerRefused,
    target::Target,
    time_budget::TimeBudget,
    upload_path::is_upload_path,
};
use crate::telemetry::RequestKind;

/// The time limit for each [`CHUNK_BYTES`] of a request that carries part of a blob, and for the registry to store the
/// blob afterwards. It is also the stall timeout of such a request.
const CONTENT_TIMEOUT: Duration = Duration::from_mins(10);
/// The time between two checks of a request's progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Reports the number of bytes of a blob that the registry has.
pub(crate) type Progress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// The upload of a blob to a repository.
pub(super) struct Upload<'a> {
    pub(super) client: &'a Client,
    pub(super) target: &'a Target,
    pub(super) blob: &'a dyn Blob,
    pub(super) progress: Progress<'a>,
    pub(super) reading: Arc<BlobReader>,
    pub(super) learned: &'a LearnedLimit,
    pub(super) strategies: Strategies,
    /// The registry lost a part of the blob, so that only a blob with the right length counts as present.
    pub(super) needs_length: bool,
}

/// An upload session of the registry.
pub(super) struct UploadSession {
    pub(super) place: RequestLocation,
    /// The number of bytes that the registry has.
    pub(super) offset: u64,
    /// The minimum size of a chunk, except for the last one, in bytes.
    pub(super) least_chunk: u64,
    /// The session was resumed.
    pub(super) resumed: bool,
    /// The session can't be resumed (again).
    pub(super) is_spent: bool,
    /// The registry's last answer reported another number of bytes than were sent.
    pub(super) is_doubtful: bool,
}

/// The reason why a step of an upload failed.
pub(super) enum StepError {
    /// No other step helps.
    Final(UploadError),
    /// The registry refuses the blob in this way.
    Refused(Obstacle, UploadError),
    /// A retry may help.
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

/// Returns whether an answer has the URL of the upload's next step.
pub(super) fn has_location(answer: &Answer) -> bool {
    answer.headers.get_all(LOCATION).iter().any(|location| !location.is_empty())
}

impl Upload<'_> {
    /// Sends a chunk or the whole blob, or completes the upload. Returns whether the upload is complete.
    pub(super) async fn step(&self, session: &mut UploadSession) -> Result<bool, StepError> {
        let size = self.blob.length();
        let left = size - session.offset;
        let strategy = self.strategies.current();
        let length = match strategy {
            Strategy::Chunks(chunk) => left.min(chunk.max(session.least_chunk)),
            Strategy::OnePatch | Strategy::OnePut => left,
        };
        // With other strategies, the request that completes the upload has no content.
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
        // Without a Location, the URL stays the same.
        if has_location(&answer) {
            session.place = self.next_place(&url, &answer).await?;
        }
        session.offset += length;
        // The offset is not reliable: ECR always reports the first chunk's, others one byte too many. But a difference
        // is remembered.
        if let Some(received_bytes) = received_bytes(&answer.headers) {
            session.is_doubtful = received_bytes != session.offset && received_bytes != session.offset + 1;
        }
        Ok(false)
    }

    /// Completes the upload, with the remaining content.
    async fn complete(&self, session: &mut UploadSession, length: u64) -> Result<(), StepError> {
        // The reader withholds the last piece of a larger blob until the digest is checked.
        if length <= CHUNK_BYTES {
            self.reading.read_to_end().await?;
        }
        let mut place = session.place.clone();
        place.url.query_pairs_mut().append_pair("digest", &self.blob.digest().to_string());
        let request = self.carrying(Method::PUT, place, session, length);
        let Fetched { url, answer } = self.send_content(request, length).await?;
        match answer.status {
            200..=299 => {}
            400 if session.resumed => {
                // The cause may be a wrong offset of the resumed upload.
                session.is_spent = true;
                return Err(StepError::Transient(self.unsettled(&url, answer.status)));
            }
            status => return Err(self.refused(session, length, &url, &answer, status)),
        }
        self.client.check_digest(self.target, &url, &answer, &self.blob.digest())?;
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

    /// Makes a request that carries the next `length` bytes.
    fn carrying(&self, method: Method, place: RequestLocation, session: &UploadSession, length: u64) -> Request {
        let bytes = if length == 0 { Payload::Bytes(Bytes::new()) } else { self.reading.part(session.offset, length) };
        let content = Some(Content { kind: "application/octet-stream".into(), bytes, may_move: true });
        Request { place: Some(place), content, repeat: false, ..Request::new(method, Access::Push) }
    }

    /// Sends a request that carries part of a blob. It may take long, but must not stall.
    async fn send_content(&self, request: Request, length: u64) -> Result<Fetched, UploadError> {
        let url = request.place.as_ref().map(|place| shown(&place.url)).unwrap_or_default();
        let time = CONTENT_TIMEOUT.saturating_mul(u32::try_from(1 + length / CHUNK_BYTES).unwrap_or(u32::MAX));
        let what = RequestSpec { path: "", accept: None, kind: RequestKind::Blob, limit: MAX_ANSWER };
        let sending = self.client.send(self.target, &what, request, TimeBudget::of(time));
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
                    } else if since.elapsed() >= CONTENT_TIMEOUT {
                        let registry = (&*self.target.remote.registry).into();
                        return Err(LookupError::TimedOut { registry, url, after: CONTENT_TIMEOUT }.into());
                    }
                }
            }
        }
    }

    /// Classifies an error answer to a step.
    fn refused(&self, session: &mut UploadSession, length: u64, url: &Url, answer: &Answer, status: u16) -> StepError {
        let error = || ServerRefused::of(self.target, url, answer).into();
        match status {
            401 | 403 => StepError::Final(error()),
            // The upload session is gone.
            404 => {
                session.is_spent = true;
                StepError::Transient(self.unsettled(url, status))
            }
            // The registry has another offset than expected.
            416 if session.offset > 0 => {
                session.is_spent = session.resumed;
                StepError::Transient(self.unsettled(url, status))
            }
            413 | 416 if length > 0 => StepError::Refused(Obstacle::TooLarge, error()),
            _ => StepError::Refused(Obstacle::Refused, error()),
        }
    }

    /// Returns the URL of the upload's next step.
    pub(super) async fn next_place(&self, asked: &Url, answer: &Answer) -> Result<RequestLocation, UploadError> {
        let target = self.target;
        let origin = self.client.origin(target, TimeBudget::of(STEP_TIMEOUT)).await?;
        if !has_location(answer) {
            // containers/image fails here, too.
            let what = "it begins an upload and does not say where that goes on: its answer has no Location".to_owned();
            return Err(self.client.wrong(target, asked, what));
        }
        let url = location(&answer.url, &answer.headers, target.remote.settings.insecure)
            .map_err(|failure| UploadError::Lookup(failure.at(&target.remote.registry, asked, STEP_TIMEOUT)))?;
        if url.origin() == origin.base.origin() && !is_upload_path(&url) {
            let what = format!("it has an upload go on where none can: {}", shown(&url));
            return Err(self.client.wrong(target, asked, what));
        }
        Ok(RequestLocation { url, elsewhere: answer.elsewhere })
    }

    /// Makes the error of an answer that leaves the offset unknown, so that the registry has to be asked for it.
    fn unsettled(&self, url: &Url, status: u16) -> UploadError {
        UploadError::Lookup(LookupError::Unavailable {
            registry: (&*self.target.remote.registry).into(),
            url: shown(url),
            cause: format!("it answers {status} in the middle of an upload").into(),
            retry_after: None,
        })
    }
}
