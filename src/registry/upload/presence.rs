//! Checks whether a registry has a blob.

use reqwest::{Method, header::CONTENT_LENGTH};

use super::{blob::Blob, error::UploadError, manifest::STEP_TIMEOUT};
use crate::registry::{
    access::Access,
    client::Client,
    encoding::Encoding,
    request::{Fetched, Request, RequestSpec},
    server_refused::ServerRefused,
    target::Target,
    time_budget::TimeBudget,
};
use crate::telemetry::RequestKind;

/// The presence of a blob on a registry.
pub(super) enum Stored {
    Absent,
    /// The registry has the blob; its length is unknown.
    WithoutLength,
    /// The registry has the blob, with the expected length.
    Whole,
}

impl Client {
    /// Returns whether the registry has the blob.
    ///
    /// # Errors
    /// The registry can't be asked, or has the blob with another length.
    pub(crate) async fn has_blob(&self, target: &Target, blob: &dyn Blob) -> Result<bool, UploadError> {
        Ok(!matches!(self.stored(target, blob).await?, Stored::Absent))
    }

    /// Asks for the blob by HEAD, and by GET if the answer to that has no length.
    pub(super) async fn stored(&self, target: &Target, blob: &dyn Blob) -> Result<Stored, UploadError> {
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
                    // The answer to HEAD stands.
                    _ => Ok(Stored::WithoutLength),
                }
            }
            400 | 405 | 501 => {
                let get = self.ask_for_blob(target, blob, Method::GET).await?;
                match get.answer.status {
                    200 => self.read_stored(target, blob, &get),
                    404 => Ok(Stored::Absent),
                    _ => Err(ServerRefused::of(target, &get.url, &get.answer).into()),
                }
            }
            404 => Ok(Stored::Absent),
            _ => Err(ServerRefused::of(target, &head.url, &head.answer).into()),
        }
    }

    async fn ask_for_blob(&self, target: &Target, blob: &dyn Blob, method: Method) -> Result<Fetched, UploadError> {
        let path = format!("v2/{}/blobs/{}", target.path, blob.digest());
        let what = RequestSpec { path: &path, accept: None, kind: RequestKind::Blob, limit: 0 };
        Ok(self.send(target, &what, Request::new(method, Access::Push), TimeBudget::of(STEP_TIMEOUT)).await?)
    }

    /// Parses the digest and length of the blob from an answer with status 200.
    fn read_stored(&self, target: &Target, blob: &dyn Blob, fetched: &Fetched) -> Result<Stored, UploadError> {
        let Fetched { url, answer } = fetched;
        self.check_digest(target, url, answer, &blob.digest())?;
        // The length of an encoded body says nothing about the blob's length.
        let length = answer.headers.get(CONTENT_LENGTH).filter(|_| Encoding::of(&answer.headers).is_identity());
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        match length {
            Some(length) if length == blob.length() => Ok(Stored::Whole),
            // Some registries answer so to every HEAD. The answer of another host may be specific to that request.
            None | Some(0) => Ok(Stored::WithoutLength),
            Some(_) if answer.elsewhere => Ok(Stored::WithoutLength),
            Some(length) => {
                let what = format!("it says that {} has {length} bytes, not {}", blob.digest(), blob.length());
                Err(self.wrong(target, url, what))
            }
        }
    }
}
