//! What an examination has learned so far, for callers that can't wait for its end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::image::{Digest, HashedManifest, Reference, Repository};
use crate::refusal::LookupError;
use crate::verification::{AskedSource, FoundSignatures};

use super::ports::{FindSignatures, ResolveDigest};

/// Manifests and signatures that are there by now. To ask it takes no time: what is not there counts as not there in time.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<ProgressState>);

#[derive(Debug, Default)]
struct ProgressState {
    manifests: HashMap<Digest, Arc<HashedManifest>>,
    signatures: HashMap<Digest, Arc<FoundSignatures>>,
}

impl Progress {
    fn learned(&self) -> MutexGuard<'_, ProgressState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn resolved(&self, manifest: &Arc<HashedManifest>) {
        self.learned().manifests.insert(manifest.digest(), Arc::clone(manifest));
    }

    pub(super) fn found(&self, digest: Digest, found: &Arc<FoundSignatures>) {
        self.learned().signatures.insert(digest, Arc::clone(found));
    }
}

#[async_trait]
impl ResolveDigest for Progress {
    async fn resolve(&self, image: &Reference, _: Instant) -> Result<Arc<HashedManifest>, LookupError> {
        let manifest = image.digest().and_then(|digest| self.learned().manifests.get(digest).cloned());
        manifest.ok_or_else(|| LookupError::timed_out(image.repository(), Duration::ZERO))
    }
}

#[async_trait]
impl FindSignatures for Progress {
    async fn find(&self, repository: &Repository, digest: Digest, _: Instant) -> Arc<FoundSignatures> {
        let found = self.learned().signatures.get(&digest).cloned();
        found.unwrap_or_else(|| {
            let asked = vec![AskedSource {
                url: repository.as_str().into(),
                outcome: Err(LookupError::timed_out(repository, Duration::ZERO)),
            }];
            Arc::new(FoundSignatures { signatures: Vec::new(), asked })
        })
    }
}
