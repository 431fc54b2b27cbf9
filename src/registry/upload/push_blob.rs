//! Pushing a blob.
//!
//! What registries answer in the middle of an upload differs too much to be relied on (docs/registries.md#pushing): a blob is
//! pushed when the registry has accepted its digest. A way of sending it that a registry refuses is left for
//! [the next one](Strategies). An upload that breaks is resumed where the registry says that it stands, or begun anew. What
//! is sent is [hashed on its way](Reading), so that no upload is completed with anything else than what it should be.

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

/// Failures in a row after which another strategy is tried: it may be what the registry, or a proxy, can't bear.
const FAILURES_OF_A_STRATEGY: u32 = 2;

enum UploadStart {
    /// There is nothing to send.
    Settled(BlobOutcome),
    Upload(UploadSession),
}

impl Client {
    /// Sees to it that the registry has a blob in this repository. With `from`, the path of another repository of the same
    /// registry, the registry is asked to take it from there first.
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

/// Waits before another try. Returns the error if none is left or would help.
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
                wait_before_retry(&mut retries, error, done).await?;
                // The answer to a last request may be what was lost.
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

    /// Whether what the registry has of the blob can be added to.
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

    /// Begins an upload, unless the blob is there or can be mounted.
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
                    // Some say so without having looked.
                    if self.is_stored().await? {
                        return Ok(UploadStart::Settled(BlobOutcome::Mounted));
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

    /// Asks where an upload stands. Returns whether it can be resumed there.
    async fn resume(&self, session: &mut UploadSession) -> Result<bool, UploadError> {
        let request = Request { place: Some(session.place.clone()), ..Request::new(Method::GET, Access::Push) };
        let Ok(Fetched { url, answer }) = self.client.push_step(self.target, "", request).await else {
            return Ok(false);
        };
        if !matches!(answer.status, 200 | 202 | 204) {
            return Ok(false);
        }
        // More than was sent it can't have.
        let Some(offset) = received_bytes(&answer.headers).filter(|&offset| offset <= self.reading.furthest()) else {
            return Ok(false);
        };
        // The address is a new one where the answer has one.
        if has_location(&answer) {
            session.place = self.next_place(&url, &answer).await?;
        }
        tracing::info!(digest = %self.blob.digest(), offset, "resuming an upload");
        session.offset = offset;
        session.resumed = true;
        session.is_doubtful = false;
        Ok(true)
    }

    /// Tells the registry that nothing more comes. If it does not hear that, it will find out.
    async fn abandon(&self, session: UploadSession) {
        let request = Request { place: Some(session.place), ..Request::new(Method::DELETE, Access::Push) };
        let _ = self.client.push_step(self.target, "", request).await;
    }
}
