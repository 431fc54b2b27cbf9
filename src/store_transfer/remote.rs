//! The client of a running store's transfer API: `/sealgate/v1/export` and `/sealgate/v1/import`.

use std::time::Duration;

use reqwest::{Method, header::CONTENT_TYPE};
use url::Url;

use super::{error::TransferError, signature::Signature};
use crate::gateway::export_format::{self, Imported, MAX_LINE_BYTES, NDJSON};
use crate::gateway::store::Position;
use crate::image::Repository;
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::registry::{
    Access, Client, Content, Failure, Fetched, Request, RequestLocation, RequestSpec, ServerRefused, Target,
    TimeBudget, join,
};
use crate::telemetry::RequestKind;

/// The time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(2);
/// The size of a page of an export, in bytes. A single line may be larger.
const PAGE_BYTES: usize = 1 << 20;
/// The maximum size of the answer to an import, in bytes: a hundred reasons.
const MAX_ANSWER: usize = 256 << 10;

/// A running store.
pub(crate) struct RemoteStore {
    client: Client,
    target: Target,
}

impl RemoteStore {
    /// Makes a client for the store at `url`; without a URL, for the store at the repository's host, which is probed
    /// for TLS.
    pub(crate) fn at(client: Client, repository: &Repository, url: Option<&Url>) -> Result<Self, LookupError> {
        let target = match url {
            Some(url) => client.target_at(url, repository)?,
            None => client.target(repository)?,
        };
        Ok(Self { client, target })
    }

    /// Returns the signatures after a position; an empty list at the end.
    pub(super) async fn page(&self, after: Option<&Position>) -> Result<Vec<Signature>, TransferError> {
        let budget = TimeBudget::of(REQUEST_TIMEOUT);
        let mut url = join(&self.client.origin(&self.target, budget).await?.base, "sealgate/v1/export");
        url.query_pairs_mut().append_pair("most", &PAGE_BYTES.to_string());
        if let Some(after) = after {
            url.query_pairs_mut().append_pair("after", after.as_str());
        }
        let request = Request { place: Some(RequestLocation::own(url)), ..Request::new(Method::GET, Access::Store) };
        let Fetched { url, answer } = self.send(request, NDJSON, PAGE_BYTES.max(MAX_LINE_BYTES), budget).await?;
        let kind = answer.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        // Some servers answer every path with a page.
        if kind != NDJSON {
            return Err(TransferError::NoStore { url: shown(&url), status: answer.status });
        }
        let page = self.client.read_body(answer.body, budget, read).await;
        let page = page.map_err(|failure: Failure| failure.at(&self.target.remote.registry, &url, budget.total()))?;
        let page = page.map_err(|what| self.misbehaved(&url, what, budget))?;
        let last = page.last().map(|(image, record)| Position::behind(image, &record.signature.name));
        if last.is_some() && last.as_ref() == after {
            return Err(self.misbehaved(&url, "its export goes on where it was".to_owned(), budget));
        }
        Ok(page)
    }

    /// Imports signatures into the store.
    pub(super) async fn import(&self, signatures: &[Signature]) -> Result<Imported, TransferError> {
        let budget = TimeBudget::of(REQUEST_TIMEOUT);
        let mut bytes = Vec::new();
        for (image, record) in signatures {
            export_format::write(&mut bytes, image, record);
        }
        let url = join(&self.client.origin(&self.target, budget).await?.base, "sealgate/v1/import");
        let content = Some(Content { kind: NDJSON.into(), bytes: bytes.into(), may_move: false });
        let request =
            Request { place: Some(RequestLocation::own(url)), content, ..Request::new(Method::POST, Access::Store) };
        let Fetched { url, answer } = self.send(request, "application/json", MAX_ANSWER, budget).await?;
        let imported: Option<Imported> = serde_json::from_slice(&answer.body).ok();
        let all = |Imported { created, completed, present, refused, .. }: &Imported| {
            [*created, *completed, *present, *refused].iter().fold(0, |all: usize, some| all.saturating_add(*some))
                == signatures.len()
        };
        imported.filter(all).ok_or_else(|| {
            self.misbehaved(&url, "it does not say of every signature what became of it".to_owned(), budget)
        })
    }

    /// Sends a request, and returns an answer with a success status.
    async fn send(
        &self,
        request: Request,
        accept: &'static str,
        limit: usize,
        budget: TimeBudget,
    ) -> Result<Fetched, TransferError> {
        let what = RequestSpec { path: "", accept: Some(accept), kind: RequestKind::Signatures, limit };
        let Fetched { url, answer } = self.client.send(&self.target, &what, request, budget).await?;
        match answer.status {
            200 => Ok(Fetched { url, answer }),
            status @ (404 | 405 | 501) => Err(TransferError::NoStore { url: shown(&url), status }),
            _ => Err(TransferError::Refused(ServerRefused::of(&self.target, &url, &answer))),
        }
    }

    fn misbehaved(&self, url: &Url, what: String, budget: TimeBudget) -> TransferError {
        self.client.misbehaved(&self.target, url, what, budget).into()
    }
}

fn read(body: &[u8]) -> Result<Vec<Signature>, String> {
    let Some((end, body)) = body.split_last() else { return Ok(Vec::new()) };
    if *end != b'\n' {
        return Err("the last line of its export has no end".to_owned());
    }
    let read = |line| export_format::read(line).map_err(|_| "what it sends is no export of a store".to_owned());
    body.split(|&byte| byte == b'\n').map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::store::{ImageId, Record, RepositoryName, SignatureName, StoredSignature};
    use crate::image::Digest;

    #[test]
    fn a_page_is_whole_lines_or_nothing() {
        let image = ImageId { repository: RepositoryName::parse("acme/web").unwrap(), digest: Digest::sha256(b"1") };
        let name = SignatureName::parse(&"a".repeat(32)).unwrap();
        let record = Record { signature: StoredSignature { name, content: [0x90].into() }, origin: None, status: None };
        let mut two = Vec::new();
        export_format::write(&mut two, &image, &record);
        export_format::write(&mut two, &image, &record);
        assert_eq!(read(&two).unwrap().len(), 2);
        assert_eq!(read(b"").unwrap().len(), 0);
        for torn in [&two[..two.len() - 1], &two[1..], b"\n", b"<html>\n", b"<html>"] {
            assert!(read(torn).is_err(), "{}", String::from_utf8_lossy(torn));
        }
    }
}
