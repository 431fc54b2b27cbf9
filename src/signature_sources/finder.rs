//! Asks all signature sources of an image side by side.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::Instant;

use super::{
    extension, lookaside,
    source_answer::{SourceAnswer, url_of},
};
use crate::configuration::SignatureSource;
use crate::gate::{Early, FindSignatures};
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

#[async_trait]
impl FindSignatures for Finder {
    async fn find(&self, repository: &Repository, digest: Digest, deadline: Instant) -> Arc<FoundSignatures> {
        self.find_early(repository, digest, deadline, &|_| {}).await
    }

    async fn find_early(
        &self,
        repository: &Repository,
        digest: Digest,
        deadline: Instant,
        early: Early<'_>,
    ) -> Arc<FoundSignatures> {
        let (began, budget) = (Instant::now(), TimeBudget::until(deadline));
        let sources = self.sources.sources(repository);
        let mut all: Vec<Option<SourceAnswer>> = sources.iter().map(|_| None).collect();
        let mut asking: FuturesUnordered<_> = sources
            .iter()
            .enumerate()
            .map(|(place, source)| {
                let digest = &digest;
                async move { (place, self.ask(source, repository, digest, budget).await) }
            })
            .collect();
        while let Some((place, found)) = asking.next().await {
            let is_more = !found.signatures.is_empty();
            all[place] = Some(found);
            if !is_more || asking.is_empty() {
                continue;
            }
            let after = began.elapsed();
            let mut so_far = FoundSignatures::default();
            for (source, found) in sources.iter().zip(&all) {
                match found {
                    Some(SourceAnswer { signatures, asked }) => {
                        so_far.signatures.extend_from_slice(signatures);
                        so_far.asked.extend_from_slice(asked);
                    }
                    None => so_far.asked.push(is_late(source, repository, after)),
                }
            }
            early(Arc::new(so_far));
        }
        let mut found = FoundSignatures::default();
        for SourceAnswer { signatures, asked } in all.into_iter().flatten() {
            found.signatures.extend(signatures);
            found.asked.extend(asked);
        }
        Arc::new(found)
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
