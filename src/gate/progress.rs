//! The progress of an examination, for callers that can't wait for its end.

use std::{
    collections::HashMap,
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use crate::image::{Digest, HashedManifest, Reference, Repository};
use crate::refusal::LookupError;
use crate::verification::FoundSignatures;

use super::ports::{FindSignatures, Lease, ResolveDigest, SignatureSnapshot, SignatureSnapshots};

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

impl FindSignatures for Progress {
    fn find<'a>(&'a self, repository: &'a Repository, digest: Digest, _: Instant) -> SignatureSnapshots<'a> {
        let found = self.learned().signatures.get(&digest).cloned().unwrap_or_else(|| {
            let error = LookupError::timed_out(repository, Duration::ZERO);
            Arc::new(FoundSignatures::unanswered(repository.as_str().into(), error))
        });
        stream::once(ready(SignatureSnapshot { found, is_complete: true, lease: Lease::default() })).boxed()
    }
}
