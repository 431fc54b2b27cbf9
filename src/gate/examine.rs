//! The examination of a digest by a rule's requirements: its manifest and its signatures, side by side, and then the
//! verification.

use std::{pin::pin, sync::Arc};

use futures_util::{FutureExt, StreamExt, future::join, stream};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use crate::image::{Digest, HashedManifest, Manifest, Reference, Walk};
use crate::policy::Platforms;
use crate::refusal::{LookupError, Refusal, refusal_of_index};
use crate::verification::{Examination, FoundSignatures, Question, verify_within};

use super::{
    applied_rule::AppliedRule,
    deadline::{ExaminationBounds, LATE_SOURCE_TIMEOUT},
    limits::MAX_CONCURRENT_MANIFESTS,
    ports::{FindSignatures, Lease, ResolveDigest, SignatureSnapshot, SignatureSnapshots},
    progress::Progress,
    workers::{CpuAllowance, CpuBudget, Workers},
};

/// Finds out what requirements say, with nothing kept.
pub(super) struct Examiner {
    pub(super) resolve: Arc<dyn ResolveDigest>,
    pub(super) signatures: Arc<dyn FindSignatures>,
    pub(super) workers: Workers,
    /// Signatures tried for one digest.
    pub(super) tries: usize,
    /// The budget of verification for one question, in microseconds.
    pub(super) budget: u64,
}

/// The outcome of an examination.
pub(super) struct FreshExamination {
    pub(super) examination: Examination,
    /// The time until which it may be kept, as far as that depends on the signatures found.
    pub(super) keep_until: Option<Instant>,
    /// The image is known not to verify, whatever else could not be had.
    pub(super) is_refused: bool,
}

/// One question on its way through an image and all that is in it.
pub(super) struct RunningExamination<'a> {
    pub(super) examiner: &'a Examiner,
    pub(super) applied: &'a AppliedRule,
    pub(super) bounds: ExaminationBounds,
    /// The CPU budget of the question.
    pub(super) budget: Arc<CpuBudget>,
    /// Has what was learned by now.
    pub(super) progress: &'a Progress,
    /// Limits the requests at a time.
    pub(super) requests: Semaphore,
    /// Counts the manifests that are looked at.
    pub(super) walk: Walk,
}

/// The examination of one manifest, and of all below it.
pub(super) struct ManifestExamination {
    pub(super) examination: Examination,
    /// The leases of the lists of signatures that the result stands or falls with.
    pub(super) depends_on: Vec<Lease>,
    /// A complete list did not suffice, before a newer one could not be had. Then an earlier proof counts no more, although the
    /// refusal is that of a registry which is down.
    pub(super) was_refused: bool,
}

/// The signatures of a digest: the first list, and those that may come after it.
struct DigestSignatures<'a> {
    list: SignatureList,
    more: ListReader<'a>,
}

/// The lists of a digest that are still to come.
struct ListReader<'a> {
    snapshots: SignatureSnapshots<'a>,
    /// The part of the question's budget that the last list took.
    last_price: u64,
}

/// A complete list of signatures, or a partial one with the proof that it suffices.
struct SignatureList {
    snapshot: SignatureSnapshot,
    proof: Option<ManifestExamination>,
}

impl Examiner {
    /// Examines the image `digest`. What is learned on the way stands in `progress`.
    pub(super) async fn examine(
        &self,
        applied: &AppliedRule,
        digest: Digest,
        manifest: Option<Arc<HashedManifest>>,
        bounds: ExaminationBounds,
        progress: &Progress,
    ) -> FreshExamination {
        let running = RunningExamination {
            examiner: self,
            applied,
            bounds,
            budget: CpuBudget::new(self.budget),
            progress,
            requests: Semaphore::new(MAX_CONCURRENT_MANIFESTS),
            walk: Walk::default(),
        };
        let seen = running.examine_manifest(digest, manifest, 0).await;
        let is_refused = seen.is_refused();
        let ManifestExamination { examination, depends_on, .. } = seen;
        let keep_until = match &examination.result {
            // Nothing was learned.
            Err(refusal) if is_inconclusive(refusal) => None,
            result => keep_until(&depends_on, result.is_ok()),
        };
        FreshExamination { examination, keep_until, is_refused }
    }
}

impl RunningExamination<'_> {
    /// One manifest: an image by its own signatures, an index as the rule's `platforms` say. `depth` counts the indexes
    /// around it.
    pub(super) async fn examine_manifest(
        &self,
        digest: Digest,
        known: Option<Arc<HashedManifest>>,
        depth: usize,
    ) -> ManifestExamination {
        let platforms = self.applied.platforms;
        let (resolved, found) = {
            // Never closed: it lives as long as this examination, which does not close it.
            let _permit = self.requests.acquire().await;
            let mut resolving = pin!(self.resolve(digest, known));
            match resolving.as_mut().now_or_never() {
                // Known without a request: then it is also known whether its own signatures matter.
                Some(Ok(image)) if platforms == Platforms::Each && *image.manifest() != Manifest::Image => {
                    (Ok(image), None)
                }
                Some(Ok(image)) => (Ok(image), Some(self.find_signatures(digest).await)),
                Some(Err(error)) => (Err(error), None),
                None => {
                    let (resolved, found) = join(resolving, self.find_signatures(digest)).await;
                    (resolved, Some(found))
                }
            }
        };
        let resolved = match resolved {
            Ok(resolved) => resolved,
            Err(error) => {
                let mut seen = ManifestExamination::refused(error.into());
                seen.examination.asked =
                    found.map(|signatures| signatures.list.snapshot.found.asked.clone()).unwrap_or_default();
                return seen;
            }
        };
        if *resolved.manifest() == Manifest::Image {
            return match found {
                Some(found) => self.verify_signatures(digest, found).await,
                None => ManifestExamination::refused(self.lost_error().into()),
            };
        }
        match (platforms, found) {
            (Platforms::Index, Some(found)) => self.verify_signatures(digest, found).await,
            (Platforms::IndexOrEach, Some(found)) => {
                let own = self.verify_signatures(digest, found).await;
                if own.examination.result.is_ok() {
                    return own;
                }
                self.examine_entries(&resolved, depth).await.after(own)
            }
            (Platforms::Each, _) => self.examine_entries(&resolved, depth).await,
            (Platforms::Index | Platforms::IndexOrEach, None) => ManifestExamination::refused(self.lost_error().into()),
        }
    }

    async fn resolve(
        &self,
        digest: Digest,
        known: Option<Arc<HashedManifest>>,
    ) -> Result<Arc<HashedManifest>, LookupError> {
        let repository = self.applied.image.repository();
        let resolved = if let Some(known) = known {
            known
        } else {
            let image = Reference::from_parts(repository.clone(), None, Some(digest));
            self.examiner.resolve.resolve(&image, self.bounds.lookups).await?
        };
        if resolved.digest() == digest {
            self.progress.resolved(&resolved);
            return Ok(resolved);
        }
        Err(LookupError::another_digest(repository))
    }

    /// Begins to look for the signatures of a digest, and reads the first list.
    async fn find_signatures(&self, digest: Digest) -> DigestSignatures<'_> {
        let repository = self.applied.image.repository();
        let snapshots = self.examiner.signatures.find(repository, digest, self.bounds.lookups);
        let mut more = ListReader { snapshots, last_price: 0 };
        let list = self.next_list(digest, &mut more).await.unwrap_or_else(|| {
            let found = FoundSignatures::unanswered(repository.as_str().into(), self.lost_error());
            SignatureList { snapshot: SignatureSnapshot::complete(found), proof: None }
        });
        if list.proof.is_some() {
            // Ends the requests to late sources: nothing reads their answers any more.
            more.snapshots = stream::empty().boxed();
        }
        DigestSignatures { list, more }
    }

    /// Reads on to the next complete list. Returns `None` if there is nothing newer.
    ///
    /// If a source is late and the signatures of others are proof, it is not waited for: a source that hangs should not hold
    /// up every review. If they are no proof, the late source may have the signature that is missing.
    async fn next_list(&self, digest: Digest, lists: &mut ListReader<'_>) -> Option<SignatureList> {
        let (mut late, mut latest) = (None, None);
        loop {
            // A partial list costs about as much as the one before, and so does the complete list, for which that much is left.
            let is_affordable = self.budget.left() / 2 >= lists.last_price;
            tokio::select! {
                snapshot = lists.snapshots.next() => {
                    let snapshot = snapshot?;
                    self.progress.found(digest, &snapshot.found);
                    if snapshot.is_complete {
                        return Some(SignatureList { snapshot, proof: None });
                    }
                    late = late.or_else(|| Some(Instant::now() + LATE_SOURCE_TIMEOUT));
                    latest = Some(snapshot);
                }
                () = at(late), if latest.is_some() && is_affordable => {
                    let Some(snapshot) = latest.take() else { continue };
                    let seen = self.verify_read(digest, &snapshot, lists).await;
                    if seen.examination.result.is_ok() {
                        return Some(SignatureList { snapshot, proof: Some(seen) });
                    }
                }
            }
        }
    }

    /// Verifies the list that was read, and those that came since, if one does not suffice.
    async fn verify_signatures(&self, digest: Digest, signatures: DigestSignatures<'_>) -> ManifestExamination {
        let DigestSignatures { mut list, mut more } = signatures;
        let mut was_refused = false;
        loop {
            if let Some(proof) = list.proof {
                return proof;
            }
            let mut seen = self.verify_read(digest, &list.snapshot, &mut more).await;
            match &seen.examination.result {
                Ok(_) => return seen,
                Err(refusal) if is_inconclusive(refusal) => {
                    seen.was_refused = was_refused;
                    return seen;
                }
                Err(_) => was_refused = true,
            }
            match self.next_list(digest, &mut more).await {
                Some(newer) => list = newer,
                None => return seen,
            }
        }
    }

    /// Verifies a list of a reader, and notes its price.
    async fn verify_read(
        &self,
        digest: Digest,
        snapshot: &SignatureSnapshot,
        lists: &mut ListReader<'_>,
    ) -> ManifestExamination {
        let before = self.budget.left();
        let seen = self.verify_list(digest, snapshot).await;
        lists.last_price = before.saturating_sub(self.budget.left());
        seen
    }

    /// Verifies a digest's own signatures. Off the threads that serve: it is arithmetic.
    async fn verify_list(&self, digest: Digest, snapshot: &SignatureSnapshot) -> ManifestExamination {
        let (applied, now, tries) = (self.applied.clone(), self.bounds.now, self.examiner.tries);
        let (question, review) = (Arc::clone(&self.budget), Arc::clone(&self.bounds.budget));
        let list = Arc::clone(&snapshot.found);
        let host = self.applied.image.repository().host();
        let examination = self.examiner.workers.run(host, &self.bounds.namespace, move |abandoned| {
            let AppliedRule { rule, image, .. } = &applied;
            let requirements = applied.requirements()?;
            let spending = CpuAllowance { question: &question, review: &review, abandoned };
            let question = Question { image, digest, rule: &rule.id, requirements, now, tries };
            let mut examination = verify_within(&question, &list, &spending);
            // What the review spent on other images says nothing of this one.
            if matches!(examination.result, Err(Refusal::TooManySignatures)) && review.is_over() {
                examination.result = Err(Refusal::ReviewTooCostly);
            }
            Some(examination)
        });
        match examination.await {
            Some(Some(examination)) => {
                ManifestExamination { examination, depends_on: vec![snapshot.lease], was_refused: false }
            }
            Some(None) | None => ManifestExamination::refused(self.lost_error().into()),
        }
    }

    /// Returns the error for an examination that ended without a result, by a panic or because the program ends.
    pub(super) fn lost_error(&self) -> LookupError {
        LookupError::without_answer(self.applied.image.repository(), "the examination ended without a result")
    }
}

/// Returns whether the refusal says nothing about the image: what was needed could not be had.
fn is_inconclusive(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Lookup(_) | Refusal::ReviewTooCostly)
}

/// Returns the earliest end of the leases, for this conclusion. Returns `None` if one of them lets nothing be kept.
fn keep_until(leases: &[Lease], sufficed: bool) -> Option<Instant> {
    let ends: Option<Vec<Instant>> = leases.iter().map(|lease| lease.keep_until(sufficed)).collect();
    ends?.into_iter().min()
}

/// Waits until then; without a time, for ever.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl ManifestExamination {
    pub(super) fn refused(refusal: Refusal) -> Self {
        Self { examination: Examination::refused(refusal), depends_on: Vec::new(), was_refused: false }
    }

    /// Returns whether the manifest is known not to verify, now or by an earlier complete list.
    pub(super) fn is_refused(&self) -> bool {
        self.was_refused || self.examination.result.as_ref().is_err_and(|refusal| !is_inconclusive(refusal))
    }

    /// Joins what was seen of an index's entries with what was seen of its own signatures before, which did not suffice.
    fn after(self, own: Self) -> Self {
        let (each, mut seen) = (self, own);
        seen.was_refused = seen.is_refused() && each.is_refused();
        let Examination { result, signatures, asked } = each.examination;
        let some_are_proven = signatures.iter().any(|signature| signature.outcome.is_ok());
        seen.examination.signatures.extend(signatures);
        seen.examination.asked.extend(asked);
        seen.examination.result = match (seen.examination.result, result) {
            (_, Ok(proof)) => {
                seen.depends_on = each.depends_on;
                Ok(proof)
            }
            (Err(own), Err(each_refused)) => {
                // Either list may be the one that is short of a signature.
                seen.depends_on.extend(each.depends_on);
                Err(refusal_of_index(own, each_refused, some_are_proven))
            }
            (Ok(proof), Err(_)) => Ok(proof),
        };
        seen
    }
}
