//! Whether a registry has a blob.

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

/// Whether a registry has a blob, and how sure that is.
pub(super) enum Stored {
    Absent,
    /// It is there; how many bytes it has is not said.
    WithoutLength,
    /// It is there, and has as many bytes as it should.
    Whole,
}

impl Client {
    /// Whether the registry has a blob.
    ///
    /// # Errors
    /// It can't be asked, or has another number of bytes.
    pub(crate) async fn has_blob(&self, target: &Target, blob: &dyn Blob) -> Result<bool, UploadError> {
        Ok(!matches!(self.stored(target, blob).await?, Stored::Absent))
    }

    /// Asks for the blob by HEAD, and by GET where the answer to that says nothing.
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
                    // Then the HEAD stands.
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

    /// Reads the digest and length of the blob in an answer of 200.
    fn read_stored(&self, target: &Target, blob: &dyn Blob, fetched: &Fetched) -> Result<Stored, UploadError> {
        let Fetched { url, answer } = fetched;
        self.check_digest(target, url, answer, &blob.digest())?;
        // The length of what is encoded says nothing.
        let length = answer.headers.get(CONTENT_LENGTH).filter(|_| Encoding::of(&answer.headers).is_identity());
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        match length {
            Some(length) if length == blob.length() => Ok(Stored::Whole),
            // Some answer so to every HEAD; and another host's answer to a HEAD may be about that request alone.
            None | Some(0) => Ok(Stored::WithoutLength),
            Some(_) if answer.elsewhere => Ok(Stored::WithoutLength),
            Some(length) => {
                let what = format!("it says that {} has {length} bytes, not {}", blob.digest(), blob.length());
                Err(self.wrong(target, url, what))
            }
        }
    }
}
