//! Asks all signature sources of an image side by side.

use std::{sync::Arc, time::Duration};

use futures_util::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use tokio::time::Instant;

use super::{
    extension, lookaside,
    source_answer::{SourceAnswer, url_of},
};
use crate::configuration::SignatureSource;
use crate::gate::{FindSignatures, SignatureSnapshot, SignatureSnapshots};
use crate::image::{Digest, Repository};
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::registry::{BlockingPool, Client, TimeBudget};
use crate::verification::{AskedSource, FoundSignatures};

/// Folders that are read at once; one on a network may hang.
const MAX_CONCURRENT_FOLDERS: usize = 16;

/// Says where the signatures of a repository are.
pub trait SignatureSources: Send + Sync {
    /// The sources, in the order in which their signatures are tried.
    fn sources(&self, repository: &Repository) -> Vec<SignatureSource>;
}

impl<F: Fn(&Repository) -> Vec<SignatureSource> + Send + Sync> SignatureSources for F {
    fn sources(&self, repository: &Repository) -> Vec<SignatureSource> {
        self(repository)
    }
}

/// Those of the configuration: a repository's `registries` entry, or its registry's own extension.
impl SignatureSources for Client {
    fn sources(&self, repository: &Repository) -> Vec<SignatureSource> {
        self.signature_sources(repository)
    }
}

/// Finds signatures.
pub struct Finder {
    client: Arc<Client>,
    sources: Arc<dyn SignatureSources>,
    /// Reads folders.
    folders: BlockingPool,
}

impl Finder {
    /// Looks where the configuration says.
    pub fn new(client: Arc<Client>) -> Self {
        let sources: Arc<dyn SignatureSources> = Arc::clone(&client) as _;
        Self::with_sources(client, sources)
    }

    /// Looks elsewhere.
    pub fn with_sources(client: Arc<Client>, sources: Arc<dyn SignatureSources>) -> Self {
        Self { client, sources, folders: BlockingPool::new(MAX_CONCURRENT_FOLDERS) }
    }

    /// Looks in one source alone.
    pub fn of_source(client: Arc<Client>, source: SignatureSource) -> Self {
        Self::with_sources(client, Arc::new(move |_: &Repository| vec![source.clone()]))
    }

    /// Waits until each source has answered or failed, or the deadline is over.
    pub async fn find_complete(
        &self,
        repository: &Repository,
        digest: Digest,
        deadline: Instant,
    ) -> Arc<FoundSignatures> {
        let mut snapshots = self.find(repository, digest, deadline);
        while let Some(snapshot) = snapshots.next().await {
            if snapshot.is_complete {
                return snapshot.found;
            }
        }
        let error = LookupError::without_answer(repository, "the look-up ended without an answer");
        Arc::new(FoundSignatures::unanswered(repository.as_str().into(), error))
    }

    async fn ask(
        &self,
        source: &SignatureSource,
        repository: &Repository,
        digest: &Digest,
        budget: TimeBudget,
    ) -> SourceAnswer {
        let outcome = match source {
            SignatureSource::RegistryExtension => extension::own(&self.client, repository, digest, budget).await,
            SignatureSource::Extension(url) => extension::at(&self.client, url, repository, digest, budget).await,
            SignatureSource::Lookaside(url) if url.scheme() == "file" => {
                let limit = self.client.signature_list_bytes();
                lookaside::folder(&self.folders, url, repository, digest, limit, budget).await
            }
            SignatureSource::Lookaside(url) => lookaside::web(&self.client, url, repository, digest, budget).await,
        };
        outcome.unwrap_or_else(|error| SourceAnswer {
            signatures: Vec::new(),
            asked: vec![AskedSource { url: url_of(&error), outcome: Err(error) }],
        })
    }
}

impl FindSignatures for Finder {
    fn find<'a>(&'a self, repository: &'a Repository, digest: Digest, deadline: Instant) -> SignatureSnapshots<'a> {
        let budget = TimeBudget::until(deadline);
        let sources = self.sources.sources(repository);
        let requests: FuturesUnordered<_> = sources
            .iter()
            .cloned()
            .enumerate()
            .map(|(place, source)| async move { (place, self.ask(&source, repository, &digest, budget).await) })
            .collect();
        let answers = Answers {
            repository,
            began: Instant::now(),
            by_source: sources.into_iter().map(|source| (source, None)).collect(),
        };
        stream::unfold(Some((requests, answers)), |waiting| async move {
            let (mut requests, mut answers) = waiting?;
            while let Some((place, answer)) = requests.next().await {
                let has_more = !answer.signatures.is_empty();
                answers.by_source[place].1 = Some(answer);
                if has_more && !requests.is_empty() {
                    return Some((SignatureSnapshot::partial(answers.found()), Some((requests, answers))));
                }
            }
            Some((SignatureSnapshot::complete(answers.found()), None))
        })
        .boxed()
    }
}

/// The answers of an image's sources by now.
struct Answers<'a> {
    repository: &'a Repository,
    began: Instant,
    /// In the order in which their signatures are tried.
    by_source: Vec<(SignatureSource, Option<SourceAnswer>)>,
}

impl Answers<'_> {
    /// Joins the answers. A source that has not answered counts as one that failed.
    fn found(&self) -> FoundSignatures {
        let mut found = FoundSignatures::default();
        for (source, answer) in &self.by_source {
            match answer {
                Some(SourceAnswer { signatures, asked }) => {
                    found.signatures.extend_from_slice(signatures);
                    found.asked.extend_from_slice(asked);
                }
                None => found.asked.push(is_late(source, self.repository, self.began.elapsed())),
            }
        }
        found
    }
}

/// A source that has not answered yet.
fn is_late(source: &SignatureSource, repository: &Repository, after: Duration) -> AskedSource {
    let (registry, url): (Box<str>, Box<str>) = match source {
        SignatureSource::RegistryExtension => (repository.host().into(), repository.as_str().into()),
        SignatureSource::Extension(url) | SignatureSource::Lookaside(url) => {
            (url.host_str().unwrap_or("the folder").into(), shown(url))
        }
    };
    AskedSource { url: Arc::from(&*url), outcome: Err(LookupError::TimedOut { registry, url, after }) }
}
