//! Pushing (distribution specification, "Pushing blobs", "Pushing manifests").

mod blob;
mod body;
mod place;
mod strategy;

use std::{io, time::Duration};

use reqwest::Method;
use url::Url;

use super::{
    client::{Client, Fetched, Request, What},
    error_body::SaidNo,
    manifest::{ACCEPTED, claimed_digests},
    retry,
    target::Target,
    token::Access,
    transport::{Answer, Budget, Content},
};
use crate::image::{Digest, Mismatch};
use crate::image_files::SourceManifest;
use crate::refusal::LookupError;
use crate::telemetry::RequestKind;

pub(super) use self::place::is_for_uploads;
pub(crate) use self::strategy::LearnedLimit;

/// The time of a request that carries little.
const STEP: Duration = Duration::from_mins(1);
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
            Self::Lookup(error) => retry::wait_after(error, otherwise),
            _ => None,
        }
    }
}

impl Client {
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
        let bytes = manifest.bytes.clone().into();
        let content = Some(Content { kind: kind.to_owned().into(), bytes, may_move: true });
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

    async fn push_step(&self, target: &Target, path: &str, request: Request) -> Result<Fetched, UploadError> {
        let what = What { path, accept: None, kind: RequestKind::Blob, limit: LARGEST_ANSWER };
        Ok(self.send(target, &what, request, Budget::of(STEP)).await?)
    }

    /// A digest that the registry names has to be the one that was pushed.
    fn check_digest(&self, target: &Target, url: &Url, answer: &Answer, digest: &Digest) -> Result<(), UploadError> {
        let expected = digest.to_string();
        if claimed_digests(&answer.headers).all(|named| named.as_bytes() == expected.as_bytes()) {
            return Ok(());
        }
        Err(self.wrong(target, url, format!("its Docker-Content-Digest header is not {expected}")))
    }

    fn wrong(&self, target: &Target, url: &Url, what: String) -> UploadError {
        UploadError::Lookup(self.misbehaved(target, url, what, Budget::of(STEP)))
    }
}
