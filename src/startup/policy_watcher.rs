//! Reloads the policy when its files change.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::policy_freshness::{FreshnessMonitor, PolicyFreshness, ReadStatus};
use crate::files::{
    ChangeWatcher, NextCheck, PolicyFiles, PolicyLoadError,
    follower::{Follower, Progress},
};
use crate::gate::CurrentPolicy;
use crate::image::Digest;
use crate::policy::{Action, KeyWarning, Policy};
use crate::signature::{KeyNotice, UnusableKey};
use crate::telemetry::{Metrics, catch_panic};

/// The maximum number of warnings about key files that are logged for each policy.
const MAX_LOGGED_WARNINGS: usize = 100;
/// The time between two reads of the files, if no event of the file system reports a change.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// The number of reads within `policyMaxStale`: one read that is late or fails must not refuse every image.
const CHECKS_WITHIN_MAX_STALE: u32 = 4;

/// Reloads the policy when its files change, until it is dropped.
///
/// - A change takes effect once two reads, one [`SETTLE_INTERVAL`](crate::files::SETTLE_INTERVAL) apart, are equal.
/// - If a policy can't be loaded, the last good one stays in force, and a metric and a log line say so.
/// - If the files can't be read, or never come to rest, for longer than the polling interval, another metric and repeated log
///   lines say so.
#[derive(Debug)]
pub struct PolicyWatcher {
    _watcher: ChangeWatcher,
    _monitor: FreshnessMonitor,
}

impl PolicyWatcher {
    /// Starts to watch. `current` holds the policy that [`PolicyFiles::load`] returned; its metrics are set at once.
    ///
    /// # Errors
    /// A thread can't be started.
    pub fn start(files: PolicyFiles, current: Arc<CurrentPolicy>, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let poll =
            current.max_stale().map_or(POLL_INTERVAL, |limit| POLL_INTERVAL.min(limit / CHECKS_WITHIN_MAX_STALE));
        Self::start_polling(files, current, metrics, poll)
    }

    /// Starts as [`PolicyWatcher::start`] does, with another time between two reads.
    pub fn start_polling(
        files: PolicyFiles,
        current: Arc<CurrentPolicy>,
        metrics: Arc<Metrics>,
        poll: Duration,
    ) -> std::io::Result<Self> {
        let loaded = current.get();
        announce(&metrics, loaded.generation, &loaded.policy);
        metrics.policy_read(Timestamp::now().as_second());
        let status = Arc::new(ReadStatus::new(Instant::now()));
        let freshness = PolicyFreshness::new(Arc::clone(&status), Arc::clone(&current), Arc::clone(&metrics), poll);
        let load = move |folders: &mut BTreeSet<PathBuf>| files.load_noting_folders(folders);
        let mut reload = PolicyReload::new(load, current, metrics, status);
        let watcher = ChangeWatcher::start("policy-watcher", poll, move || reload.check(Instant::now()))?;
        Ok(Self { _watcher: watcher, _monitor: FreshnessMonitor::start(freshness)? })
    }
}

struct PolicyReload<L> {
    /// The function that loads the policy: [`PolicyFiles::load_noting_folders`].
    load: L,
    current: Arc<CurrentPolicy>,
    metrics: Arc<Metrics>,
    status: Arc<ReadStatus>,
    /// The folders of the last read.
    folders: BTreeSet<PathBuf>,
    /// The state of the files. A policy is identified by the digest over all its files.
    follower: Follower<Option<Digest>>,
    /// The last policy that settled was refused.
    refused: bool,
}

/// The reason why a read gave no policy.
struct LoadFailure {
    message: String,
    /// The files could not be read, so that their content is unknown.
    unread: bool,
}

impl<L: FnMut(&mut BTreeSet<PathBuf>) -> Result<Policy, PolicyLoadError>> PolicyReload<L> {
    fn new(load: L, current: Arc<CurrentPolicy>, metrics: Arc<Metrics>, status: Arc<ReadStatus>) -> Self {
        let follower = Follower::new("the policy files");
        Self { load, current, metrics, status, folders: BTreeSet::new(), follower, refused: false }
    }

    /// Reads the files once. `now` is the time before the read.
    fn check(&mut self, now: Instant) -> NextCheck {
        let mut folders = BTreeSet::new();
        let metrics = Arc::clone(&self.metrics);
        let outcome = catch_panic("policy-watcher", Some(&metrics), || {
            let loaded = (self.load)(&mut folders);
            self.take(
                loaded.map_err(|error| LoadFailure { unread: error.is_unread(), message: error.to_string() }),
                now,
            )
        });
        let progress = outcome.unwrap_or_else(|| {
            // The read panicked, and may have read any number of folders.
            folders.extend(std::mem::take(&mut self.folders));
            let message = "reading them ended in a panic, which is a bug of Sealgate's; please report it".to_owned();
            self.take(Err(LoadFailure { message, unread: true }), now)
        });
        self.folders.clone_from(&folders);
        NextCheck { folders, again: progress.again() }
    }

    fn take(&mut self, loaded: Result<Policy, LoadFailure>, now: Instant) -> Progress {
        let in_force = self.current.get();
        let read = match &loaded {
            Ok(policy) => Ok(policy.digest),
            Err(failure) => Err(failure.message.clone()),
        };
        let progress = self.follower.take(&in_force.policy.digest, read, now);
        match (progress, loaded) {
            (Progress::InForce, _) => {
                self.current.confirm(now);
                self.read_whole(now);
                if std::mem::take(&mut self.refused) {
                    announce(&self.metrics, in_force.generation, &in_force.policy);
                }
            }
            (Progress::Changed, Ok(policy)) => {
                let generation = self.current.replace(policy);
                self.current.confirm(now);
                self.read_whole(now);
                self.refused = false;
                let in_force = self.current.get();
                announce(&self.metrics, generation, &in_force.policy);
                tracing::info!(generation, digest = %digest(&in_force.policy), "a changed policy is in force");
            }
            // An error is never put in force.
            (Progress::Unsettled(_) | Progress::Changed, _) => {}
            (Progress::Refused { is_new, settled }, loaded) => {
                if is_new {
                    self.metrics.policy_refused();
                }
                self.refused = true;
                match loaded {
                    Err(LoadFailure { message, unread: true }) => self.status.failed(&message),
                    _ if !settled => self.status.failed("they are changed again and again: no two reads agree"),
                    // The content is known, and is no valid policy.
                    _ => self.read_whole(now),
                }
            }
        }
        progress
    }

    fn read_whole(&self, now: Instant) {
        self.status.succeeded(now);
        self.metrics.policy_read(Timestamp::now().as_second());
    }
}

fn digest(policy: &Policy) -> String {
    policy.digest.as_ref().map(Digest::to_string).unwrap_or_default()
}

/// Sets the metrics about the policy in force.
fn announce(metrics: &Metrics, generation: u64, policy: &Policy) {
    metrics.policy_loaded(generation, &digest(policy));
    let layers = std::iter::once(&policy.cluster).chain(policy.namespaces.values());
    let mut keys = BTreeMap::new();
    for (_, rule) in layers.flat_map(|layer| layer.rules.iter()) {
        let Action::Require(requirements) = &rule.action else { continue };
        for signer in requirements.all.iter().flat_map(|requirement| &requirement.signed_by) {
            for certificate in &signer.certificates {
                let fingerprint = certificate.fingerprint().0.into_string();
                let expiry = || certificate.expires_at(Timestamp::now()).map(Timestamp::as_second);
                keys.entry((&*signer.name, fingerprint)).or_insert_with(expiry);
            }
        }
    }
    metrics.key_expiries(keys.into_iter().map(|((name, fingerprint), expiry)| (name, fingerprint, expiry)));
    let mut unusable = Vec::new();
    for (number, KeyWarning { signer, notice }) in policy.key_warnings.iter().enumerate() {
        if number < MAX_LOGGED_WARNINGS {
            tracing::warn!(key = %signer, "{notice}");
        }
        if let KeyNotice::Unusable(UnusableKey { key, why }) = notice {
            let fingerprint = key.as_ref().map(|key| key.0.to_string()).unwrap_or_default();
            unusable.push((&**signer, fingerprint, why.to_string()));
        }
    }
    metrics.unusable_keys(unusable.into_iter());
    let left_out = policy.key_warnings.len().saturating_sub(MAX_LOGGED_WARNINGS);
    if left_out > 0 {
        tracing::warn!(
            left_out,
            "there are more warnings about key files than are logged (see sealgate_unusable_key_info)"
        );
    }
}

#[cfg(test)]
mod tests;
