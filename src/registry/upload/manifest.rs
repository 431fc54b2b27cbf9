//! Pushes a manifest (distribution specification, "Pushing manifests"), and has the steps that blobs share with it.

use std::time::Duration;

use reqwest::Method;
use url::Url;

use super::{
    blob::ManifestContent,
    error::{BlobOutcome, UploadError},
};
use crate::image::Digest;
use crate::registry::{
    access::Access,
    answer::Answer,
    client::Client,
    content::Content,
    manifest::{ACCEPTED, claimed_digests},
    request::{Fetched, Request, RequestSpec},
    server_refused::ServerRefused,
    target::Target,
    time_budget::TimeBudget,
};
use crate::telemetry::RequestKind;

/// The time limit of a request with little content.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_mins(1);
/// The maximum size of an answer, in bytes.
pub(super) const MAX_ANSWER: usize = 64 << 10;

impl Client {
    /// Pushes a manifest under this tag or digest, unless the registry has it already.
    pub(crate) async fn push_manifest(
        &self,
        target: &Target,
        name: &str,
        manifest: ManifestContent<'_>,
    ) -> Result<BlobOutcome, UploadError> {
        if self.stored_manifest(target, name).await?.as_deref() == Some(&**manifest.bytes) {
            return Ok(BlobOutcome::Present);
        }
        let path = format!("v2/{}/manifests/{name}", target.path);
        let bytes = manifest.bytes.clone().into();
        let content = Some(Content { kind: manifest.media_type.to_owned().into(), bytes, may_move: true });
        let request = Request { content, ..Request::new(Method::PUT, Access::Push) };
        let what = RequestSpec { path: &path, accept: None, kind: RequestKind::Manifest, limit: MAX_ANSWER };
        let Fetched { url, answer } = self.send(target, &what, request, TimeBudget::of(STEP_TIMEOUT)).await?;
        match answer.status {
            200..=299 => {
                self.check_digest(target, &url, &answer, &manifest.digest)?;
                Ok(BlobOutcome::Pushed)
            }
            _ => Err(ServerRefused::of(target, &url, &answer).into()),
        }
    }

    /// Returns the bytes under a tag or digest on the registry itself, never on a mirror.
    pub(crate) async fn stored_manifest(&self, target: &Target, name: &str) -> Result<Option<Vec<u8>>, UploadError> {
        let path = format!("v2/{}/manifests/{name}", target.path);
        let what = RequestSpec {
            path: &path,
            accept: Some(ACCEPTED),
            kind: RequestKind::Manifest,
            limit: self.manifest_bytes,
        };
        let request = Request::new(Method::GET, Access::Push);
        let Fetched { url, answer } = self.send(target, &what, request, TimeBudget::of(STEP_TIMEOUT)).await?;
        match answer.status {
            200 => Ok(Some(answer.body.to_vec())),
            404 => Ok(None),
            _ => Err(ServerRefused::of(target, &url, &answer).into()),
        }
    }

    pub(super) async fn push_step(
        &self,
        target: &Target,
        path: &str,
        request: Request,
    ) -> Result<Fetched, UploadError> {
        let what = RequestSpec { path, accept: None, kind: RequestKind::Blob, limit: MAX_ANSWER };
        Ok(self.send(target, &what, request, TimeBudget::of(STEP_TIMEOUT)).await?)
    }

    /// Checks that a digest in the registry's answer is the one that was pushed.
    pub(super) fn check_digest(
        &self,
        target: &Target,
        url: &Url,
        answer: &Answer,
        digest: &Digest,
    ) -> Result<(), UploadError> {
        let expected = digest.to_string();
        if claimed_digests(&answer.headers).all(|named| named.as_bytes() == expected.as_bytes()) {
            return Ok(());
        }
        Err(self.wrong(target, url, format!("its Docker-Content-Digest header is not {expected}")))
    }

    pub(super) fn wrong(&self, target: &Target, url: &Url, what: String) -> UploadError {
        UploadError::Lookup(self.misbehaved(target, url, what, TimeBudget::of(STEP_TIMEOUT)))
    }
}
