//! Image indexes: whether each manifest in one is proven.

use std::collections::HashMap;

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};

use crate::image::{Descriptor, Digest, HashedManifest, WalkLimit, walk::runnable};
use crate::policy::Requirements;
use crate::refusal::{LookupError, Refusal, refusal_to_show};
use crate::verification::{Examination, Question, VerifiedImage, verify_each};

use super::examine::{ManifestExamination, RunningExamination};

impl RunningExamination<'_> {
    /// Examines the entries of an index: each must be proven, but no attestation.
    ///
    /// The first entry is examined alone: where the index is not signed entry by entry at all, which is usual, that costs the
    /// requests for one entry and not those for each.
    pub(super) fn examine_entries<'a>(
        &'a self,
        index: &'a HashedManifest,
        depth: usize,
    ) -> BoxFuture<'a, ManifestExamination> {
        async move {
            let different = match self.walk.enter(index.entries(), depth) {
                Ok(different) => different,
                Err(limit) => return ManifestExamination::refused(self.too_large(limit).into()),
            };
            let places = different.iter().enumerate().map(|(place, entry)| (entry.digest, place)).collect();
            let mut seen = Vec::with_capacity(different.len());
            let look_at = async |entry: &&Descriptor| {
                let mut seen = self.examine_manifest(entry.digest, None, depth + 1).await;
                seen.examination.result = seen.examination.result.map_err(|refusal| refusal.of_entry(entry.digest));
                seen
            };
            if let Some((first, others)) = different.split_first() {
                seen.push(look_at(first).await);
                if seen[0].examination.result.is_ok() {
                    seen.extend(join_all(others.iter().map(look_at)).await);
                }
            }
            let requirements = self.applied.requirements();
            join_entries(seen, self.lost_error().into(), |proofs| match requirements {
                Some(requirements) => self.join(index, requirements, &places, proofs),
                None => Err(self.lost_error().into()),
            })
        }
        .boxed()
    }

    fn join(
        &self,
        index: &HashedManifest,
        requirements: &Requirements,
        places: &HashMap<Digest, usize>,
        proofs: &[Result<VerifiedImage, Refusal>],
    ) -> Result<VerifiedImage, Refusal> {
        let question = Question {
            image: &self.applied.image,
            digest: index.digest(),
            rule: &self.applied.rule.id,
            requirements,
            now: self.bounds.now,
            tries: self.examiner.tries,
        };
        // An entry that stands there twice is proven once.
        let proofs: Vec<_> = runnable(index.entries())
            .filter_map(|entry| places.get(&entry.digest).and_then(|place| proofs.get(*place)).cloned())
            .collect();
        verify_each(&question, index, &proofs)
    }

    /// Makes the refusal of an image beyond a limit of the walk.
    fn too_large(&self, beyond: WalkLimit) -> LookupError {
        LookupError::IndexTooLarge { url: self.applied.image.repository().as_str().into(), beyond }
    }
}

/// Puts together what was seen of the entries. `none` holds until there is a result.
fn join_entries(
    seen: Vec<ManifestExamination>,
    none: Refusal,
    join: impl FnOnce(&[Result<VerifiedImage, Refusal>]) -> Result<VerifiedImage, Refusal>,
) -> ManifestExamination {
    let mut joined = ManifestExamination::refused(none);
    let mut proofs = Vec::with_capacity(seen.len());
    for one in seen {
        joined.was_refused |= one.is_refused();
        let ManifestExamination { examination, depends_on, .. } = one;
        let Examination { result, signatures, asked } = examination;
        proofs.push(result);
        joined.examination.signatures.extend(signatures);
        joined.examination.asked.extend(asked);
        joined.depends_on.extend(depends_on);
    }
    let refusals = proofs.iter().filter_map(|proof| proof.as_ref().err().cloned());
    joined.examination.result = match refusals.reduce(refusal_to_show) {
        Some(refusal) => Err(refusal),
        None => join(&proofs),
    };
    joined
}
