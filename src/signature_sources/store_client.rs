//! The client of a store's API (`sealgate gateway`) below `/sealgate/v1/`: the origins and statuses of signatures.
//!
//! `/sealgate/v1/<name>/signatures/<digest>` is readable with permission to pull the image. An auditor sets and clears
//! statuses, and a signer removes signatures. A registry or lookaside without this endpoint has signatures alone.

use jiff::Timestamp;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use url::Url;

use crate::configuration::SignatureSource;
use crate::image::{Digest, Repository};
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::registry::{
    Access, Client, Content, Extension, Failure, Fetched, Request, RequestSpec, ServerRefused, Target, TimeBudget,
    error_body, join,
};
use crate::telemetry::RequestKind;

/// The characters of a signature's name behind the digest.
const NAME_CHARACTERS: usize = 32;
/// The maximum size of the answer to a change, in bytes: an error message.
const MAX_ERROR: usize = 64 << 10;

/// A store, for one repository.
pub(crate) struct StoreClient<'a> {
    client: &'a Client,
    target: Target,
    /// The base URL: https, or http if the server has no TLS and that is allowed.
    base: Url,
}

/// The record of a signature in a store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredSignatureInfo {
    /// `<digest>@<32 characters>`.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// The user who added it; `None` if that is not known.
    pub(crate) added_by: Option<String>,
    pub(crate) added_at: Option<Timestamp>,
    /// The IDs of the keys that the signature claims.
    #[serde(default)]
    pub(crate) issuers: Vec<String>,
    pub(crate) status: Option<SignatureStatus>,
}

/// The verification status of a signature: who verified it, and what they found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SignatureStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verified_by: Option<String>,
    pub(crate) verified_at: Timestamp,
    #[serde(flatten)]
    pub(crate) finding: AuditFinding,
}

/// The result of an audit of a signature that verifies. The store adds the auditor and the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditFinding {
    /// The fingerprint of the certificate.
    pub(crate) key: String,
    /// The name of the certificate's owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signer: Option<String>,
    /// The name that was expected, and signed.
    pub(crate) identity: String,
    /// The digest that was computed over the manifest.
    pub(crate) digest: String,
}

/// The outcome of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeOutcome {
    /// The change is made.
    Done,
    /// The store has no such signature.
    Gone,
    /// The signature of this name is another one by now; its status is as it was.
    Changed,
}

/// The reason why a store did not answer or make a change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoreClientError {
    /// The store can't be asked.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The server is not a store.
    #[error(
        "{url} answers {status}: there is no store of `sealgate gateway` at this address, and only such a store has this"
    )]
    NoStore {
        /// The URL of the request.
        url: Box<str>,
        /// The status.
        status: u16,
    },
    /// The store refused the request.
    #[error(transparent)]
    Refused(#[from] ServerRefused),
}

impl<'a> StoreClient<'a> {
    /// Returns the store behind an extension endpoint; `None` if the source is a lookaside, or a registry that
    /// announces no extension.
    ///
    /// # Errors
    /// The registry can't be asked.
    pub(crate) async fn of(
        client: &'a Client,
        source: &SignatureSource,
        repository: &Repository,
        deadline: Instant,
    ) -> Result<Option<Self>, LookupError> {
        let target = match source {
            SignatureSource::Lookaside(_) => return Ok(None),
            SignatureSource::Extension(url) => client.target_at(url, repository)?,
            SignatureSource::RegistryExtension => client.target(repository)?,
        };
        let origin = client.origin(&target, TimeBudget::until(deadline)).await?;
        let base = origin.base.clone();
        Ok((origin.extension == Extension::Announced).then_some(Self { client, target, base }))
    }

    /// Returns the records of an image's signatures; `None` if the server is no store of `sealgate gateway`, or the
    /// caller may not read there. The answer of its extension endpoint tells which.
    ///
    /// # Errors
    /// The store can't be asked, or its answer is malformed.
    pub(crate) async fn inspect(
        &self,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Option<Vec<StoredSignatureInfo>>, LookupError> {
        #[derive(Deserialize)]
        struct StoredSignatureList {
            signatures: Vec<StoredSignatureInfo>,
        }
        let limit = self.client.signature_list_bytes();
        let request = Request::new(Method::GET, Access::Pull);
        let budget = TimeBudget::until(deadline);
        let Fetched { url, answer } = self.send(&image(digest), request, limit, budget).await?;
        let kind = answer.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        // Some servers answer every path with a page.
        if answer.status != 200 || !kind.starts_with("application/json") {
            return Ok(None);
        }
        let list = self
            .client
            .read_body(answer.body, budget, |body| serde_json::from_slice::<StoredSignatureList>(body).ok())
            .await;
        let failed = |failure: Failure| failure.at(&self.target.remote.registry, &url, budget.total());
        let misbehaved = || {
            let what = "what it sends is no list of what is known of signatures".to_owned();
            self.client.misbehaved(&self.target, &url, what, budget)
        };
        Ok(Some(list.map_err(failed)?.ok_or_else(misbehaved)?.signatures))
    }

    /// Sets the verification status of a signature. `content` is the signature that was verified.
    ///
    /// # Errors
    /// After an error, the status is unchanged.
    pub(crate) async fn set_status(
        &self,
        digest: &Digest,
        (name, content): (&StoredName, &[u8]),
        finding: &AuditFinding,
        deadline: Instant,
    ) -> Result<ChangeOutcome, StoreClientError> {
        // Strings can't fail to be JSON.
        let bytes = serde_json::to_vec(finding).expect("strings are JSON").into();
        let body = Some(Content { kind: "application/json".into(), bytes, may_move: false });
        let request = Request { content: body, ..Request::new(Method::PUT, Access::Push) };
        self.change_status(digest, (name, content), request, deadline).await
    }

    /// Clears the verification status of a signature; the signature and its origin stay. `content` is the signature
    /// that was checked.
    ///
    /// # Errors
    /// After an error, the status is unchanged.
    pub(crate) async fn unset_status(
        &self,
        digest: &Digest,
        (name, content): (&StoredName, &[u8]),
        deadline: Instant,
    ) -> Result<ChangeOutcome, StoreClientError> {
        self.change_status(digest, (name, content), Request::new(Method::DELETE, Access::Push), deadline).await
    }

    /// Changes a status on the condition (`If-Match`) that the signature still has the content that was checked:
    /// another client may have replaced it.
    async fn change_status(
        &self,
        digest: &Digest,
        (name, content): (&StoredName, &[u8]),
        request: Request,
        deadline: Instant,
    ) -> Result<ChangeOutcome, StoreClientError> {
        // A digest in quotes is always a valid header value.
        let if_match = HeaderValue::from_str(&format!("\"{}\"", Digest::sha256(content))).ok();
        self.change(&format!("{}/{}/status", image(digest), name.0), Request { if_match, ..request }, deadline).await
    }

    /// Clears the verification status of all signatures of an image.
    ///
    /// # Errors
    /// After an error, all statuses are unchanged.
    pub(crate) async fn clear_statuses(&self, digest: &Digest, deadline: Instant) -> Result<(), StoreClientError> {
        self.delete(&format!("{}/status", image(digest)), deadline).await.map(drop)
    }

    /// Removes a signature. Returns `false` if the store has none of this name.
    ///
    /// # Errors
    /// After an error, the signature is still there.
    pub(crate) async fn remove(
        &self,
        digest: &Digest,
        name: &StoredName,
        deadline: Instant,
    ) -> Result<bool, StoreClientError> {
        Ok(self.delete(&format!("{}/{}", image(digest), name.0), deadline).await? == ChangeOutcome::Done)
    }

    /// Returns the URL of an image's signatures, for messages.
    pub(crate) fn url(&self, digest: &Digest) -> Box<str> {
        shown(&join(&self.base, &self.path(&image(digest))))
    }

    fn path(&self, rest: &str) -> String {
        format!("sealgate/v1/{}/{rest}", self.target.path)
    }

    async fn send(
        &self,
        rest: &str,
        request: Request,
        limit: usize,
        budget: TimeBudget,
    ) -> Result<Fetched, LookupError> {
        let path = self.path(rest);
        let what = RequestSpec { path: &path, accept: Some("application/json"), kind: RequestKind::Signatures, limit };
        self.client.send(&self.target, &what, request, budget).await
    }

    async fn delete(&self, rest: &str, deadline: Instant) -> Result<ChangeOutcome, StoreClientError> {
        self.change(rest, Request::new(Method::DELETE, Access::Push), deadline).await
    }

    async fn change(&self, rest: &str, request: Request, deadline: Instant) -> Result<ChangeOutcome, StoreClientError> {
        let Fetched { url, answer } = self.send(rest, request, MAX_ERROR, TimeBudget::until(deadline)).await?;
        match answer.status {
            200 | 204 => Ok(ChangeOutcome::Done),
            404 if error_body::code(&answer.body).as_deref() == Some("SIGNATURE_UNKNOWN") => Ok(ChangeOutcome::Gone),
            412 => Ok(ChangeOutcome::Changed),
            status @ (404 | 405 | 501) => Err(StoreClientError::NoStore { url: shown(&url), status }),
            _ => Err(ServerRefused::of(&self.target, &url, &answer).into()),
        }
    }
}

fn image(digest: &Digest) -> String {
    format!("signatures/{digest}")
}

/// The last 32 characters of a signature's name, after the digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredName(Box<str>);

impl StoredName {
    /// Parses a name; returns `None` if no store has such a name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (text.len() == NAME_CHARACTERS && text.bytes().all(word)).then(|| Self(text.into()))
    }

    /// Returns the name of a signature from an extension endpoint, which is the fragment of its source's URL.
    pub(crate) fn of_source(source: &str, digest: &Digest) -> Option<Self> {
        let (_, name) = source.rsplit_once('#')?;
        Self::parse(name.strip_prefix(&digest.to_string())?.strip_prefix('@')?)
    }

    /// Returns the characters.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signatures_name_is_found_in_its_source() {
        let digest = Digest::sha256(b"image");
        let name = "0123456789abcdefABCDEF-_.0123456";
        let of = |text: &str| StoredName::of_source(text, &digest).map(|name| name.as_str().to_owned());
        assert_eq!(of(&format!("https://s.example.com/x#{digest}@{name}")).as_deref(), Some(name));
        for other in [
            format!("https://s.example.com/x#{}@{name}", Digest::sha256(b"other")),
            format!("https://s.example.com/x#{digest}@{}", &name[1..]),
            format!("https://s.example.com/x#{digest}@{}/", &name[1..]),
            format!("https://s.example.com/x#{digest}"),
            "https://s.example.com/x#1".to_owned(),
            "file:///x/signature-1".to_owned(),
        ] {
            assert_eq!(of(&other), None, "{other}");
        }
    }

    #[test]
    fn an_entry_may_lack_all_but_its_name_and_size() {
        let old: StoredSignatureInfo = serde_json::from_str(r#"{"name": "x", "bytes": 7, "later": 1}"#).unwrap();
        assert_eq!((old.bytes, old.added_at, old.status), (7, None, None));
        let null: StoredSignatureInfo = serde_json::from_str(r#"{"name": "x", "bytes": 7, "status": null}"#).unwrap();
        assert_eq!(null.status, None);
    }
}
