//! Pushes a blob.
//!
//! Registries differ too much in their answers during an upload to rely on these (docs/registries.md#pushing). A blob
//! counts as pushed when the registry has accepted its digest. If a registry refuses a strategy, the upload goes on
//! with [the next one](Strategies). An upload that breaks is resumed at the offset that the registry reports, or
//! started again. The bytes are [hashed while they are read](BlobReader), so that no upload is completed with wrong
//! bytes.

use std::sync::Arc;

use reqwest::Method;
use url::Url;

use super::{
    blob::Blob,
    blob_reader::BlobReader,
    error::{BlobOutcome, UploadError},
    manifest::STEP_TIMEOUT,
    offset::received_bytes,
    presence::Stored,
    session::{Progress, StepError, Upload, UploadSession, has_location},
    strategy::{CHUNK_BYTES, LearnedLimit, Obstacle, Strategies, Strategy},
};
use crate::refusal::LookupError;
use crate::registry::{
    access::Access,
    answer::Answer,
    client::Client,
    request::{Fetched, Request, RequestLocation, join},
    retry::Retries,
    server_refused::ServerRefused,
    target::Target,
    time_budget::TimeBudget,
};

/// The number of failures in a row after which the next strategy is tried: the registry, or a proxy, may not support
/// this one.
const FAILURES_OF_A_STRATEGY: u32 = 2;

enum UploadStart {
    /// The blob needs no upload.
    Settled(BlobOutcome),
    Upload(UploadSession),
}

impl Client {
    /// Pushes a blob to this repository, unless the registry has it already. With `from`, the path of another
    /// repository of the registry, tries to mount the blob from there first.
    pub(crate) async fn push_blob(
        &self,
        target: &Target,
        blob: &Arc<dyn Blob>,
        from: Option<&str>,
        learned: &LearnedLimit,
        progress: Progress<'_>,
    ) -> Result<BlobOutcome, UploadError> {
        let (reading, strategies) = (BlobReader::new(blob), Strategies::new(blob.length(), learned));
        let upload =
            Upload { client: self, target, blob: &**blob, progress, reading, learned, strategies, needs_length: false };
        upload.run(from).await
    }
}

/// Waits before a retry. Returns the error if no retry is left, or none would help.
async fn wait_before_retry(retries: &mut Retries, error: UploadError, done: u64) -> Result<(), UploadError> {
    let again = retries.wait_before_retry(&error, done, |usual| error.wait(usual)).await;
    if again { Ok(()) } else { Err(error) }
}

impl Upload<'_> {
    async fn run(mut self, mut from: Option<&str>) -> Result<BlobOutcome, UploadError> {
        let mut retries = Retries::default();
        let mut refusal = None;
        let mut is_first = true;
        loop {
            let mut session = match self.begin(from.take()).await {
                Ok(UploadStart::Settled(BlobOutcome::Present)) if !is_first => return Ok(BlobOutcome::Pushed),
                Ok(UploadStart::Settled(outcome)) => return Ok(outcome),
                Ok(UploadStart::Upload(session)) => session,
                Err(error) => {
                    wait_before_retry(&mut retries, error, 0).await?;
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
                        tracing::info!(digest = %self.blob.digest(), strategy = ?self.strategies.current(), %error, "refused");
                        // The error of skopeo's strategy is the most helpful one: every other client fails in the same
                        // way.
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
                // Only chunks survive a failure.
                let done = if self.is_resumable() { session.offset } else { 0 };
                wait_before_retry(&mut retries, error, done).await?;
                // The answer to the last request may have been lost.
                if self.is_stored().await.unwrap_or(false) {
                    return Ok(BlobOutcome::Pushed);
                }
                if retries.in_a_row() >= FAILURES_OF_A_STRATEGY {
                    self.strategies.advance(Obstacle::Trouble, self.learned);
                }
                if session.is_spent || !self.is_resumable() || !self.resume(&mut session).await? {
                    break;
                }
            }
        }
    }

    /// Returns whether an upload can be resumed after the bytes that the registry has.
    fn is_resumable(&self) -> bool {
        match self.strategies.current() {
            Strategy::Chunks(_) => true,
            Strategy::OnePut => self.blob.length() <= CHUNK_BYTES,
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

    /// Starts an upload, unless the registry has the blob, or can mount it.
    async fn begin(&self, from: Option<&str>) -> Result<UploadStart, UploadError> {
        let Self { client, target, blob, .. } = *self;
        if self.is_stored().await? {
            return Ok(UploadStart::Settled(BlobOutcome::Present));
        }
        let path = format!("v2/{}/blobs/uploads/", target.path);
        if let Some(from) = from {
            let base = client.origin(target, TimeBudget::of(STEP_TIMEOUT)).await?;
            let mut url = join(&base.base, &path);
            url.query_pairs_mut().append_pair("mount", &blob.digest().to_string()).append_pair("from", from);
            let place = Some(RequestLocation::own(url));
            let request = Request { place, ..Request::new(Method::POST, Access::Mount(from.into())) };
            match client.push_step(target, &path, request).await {
                Ok(Fetched { url, answer }) if answer.status == 201 => {
                    client.check_digest(target, &url, &answer, &blob.digest())?;
                    // Some registries answer so without a check.
                    if self.is_stored().await? {
                        return Ok(UploadStart::Settled(BlobOutcome::Mounted));
                    }
                }
                Ok(Fetched { url, answer }) if answer.status == 202 => return self.begun(&url, &answer).await,
                // Missing permission to read the other repository is no obstacle to an upload.
                Ok(_) | Err(UploadError::Lookup(LookupError::Unauthorized { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        let request = Request::new(Method::POST, Access::Push);
        let Fetched { url, answer } = client.push_step(target, &path, request).await?;
        match answer.status {
            200..=299 => self.begun(&url, &answer).await,
            _ => Err(ServerRefused::of(target, &url, &answer).into()),
        }
    }

    async fn begun(&self, url: &Url, answer: &Answer) -> Result<UploadStart, UploadError> {
        let place = self.next_place(url, answer).await?;
        let least = answer.headers.get("oci-chunk-min-length").and_then(|value| value.to_str().ok()?.parse().ok());
        let least_chunk = least.unwrap_or(0);
        let session =
            UploadSession { place, offset: 0, least_chunk, resumed: false, is_spent: false, is_doubtful: false };
        Ok(UploadStart::Upload(session))
    }

    /// Asks the registry for the upload's offset. Returns whether the upload can be resumed.
    async fn resume(&self, session: &mut UploadSession) -> Result<bool, UploadError> {
        let request = Request { place: Some(session.place.clone()), ..Request::new(Method::GET, Access::Push) };
        let Ok(Fetched { url, answer }) = self.client.push_step(self.target, "", request).await else {
            return Ok(false);
        };
        if !matches!(answer.status, 200 | 202 | 204) {
            return Ok(false);
        }
        // The registry can't have more bytes than were read.
        let Some(offset) = received_bytes(&answer.headers).filter(|&offset| offset <= self.reading.furthest()) else {
            return Ok(false);
        };
        // The URL changes if the answer has a new one.
        if has_location(&answer) {
            session.place = self.next_place(&url, &answer).await?;
        }
        tracing::info!(digest = %self.blob.digest(), offset, "resuming an upload");
        session.offset = offset;
        session.resumed = true;
        session.is_doubtful = false;
        Ok(true)
    }

    /// Cancels the upload. If the registry does not get the request, the upload expires by itself.
    async fn abandon(&self, session: UploadSession) {
        let request = Request { place: Some(session.place), ..Request::new(Method::DELETE, Access::Push) };
        let _ = self.client.push_step(self.target, "", request).await;
    }
}
