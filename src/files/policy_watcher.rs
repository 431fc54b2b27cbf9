//! Keeps the policy in force in step with its files.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{ChangeWatcher, PolicyFiles, PolicyLoadError};
use crate::gate::CurrentPolicy;
use crate::image::Digest;
use crate::operations::Metrics;
use crate::policy::{Action, Policy};

/// How often the files are looked at where no event tells of a change.
const POLL: Duration = Duration::from_secs(10);

/// Reloads the policy when its files change, until it is dropped. A policy that can't be loaded changes nothing: the last
/// good one stays in force, and a metric and a log line say so.
#[derive(Debug)]
pub struct PolicyWatcher {
    _watcher: ChangeWatcher,
}

impl PolicyWatcher {
    /// Starts; `current` holds what [`PolicyFiles::load`] gave. The metrics of the policy in force are set at once.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn start(files: PolicyFiles, current: Arc<CurrentPolicy>, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        Self::start_polling(files, current, metrics, POLL)
    }

    /// As [`PolicyWatcher::start`], with another time between two looks.
    pub fn start_polling(
        files: PolicyFiles,
        current: Arc<CurrentPolicy>,
        metrics: Arc<Metrics>,
        poll: Duration,
    ) -> std::io::Result<Self> {
        let loaded = current.get();
        announce(&metrics, loaded.generation, &loaded.policy);
        let load = move |folders: &mut BTreeSet<PathBuf>| files.load_noting_folders(folders);
        let mut reload = Reload { load, current, metrics, folders: BTreeSet::new(), refused: None };
        let watcher = ChangeWatcher::start("policy-watcher", poll, move || reload.check())?;
        Ok(Self { _watcher: watcher })
    }
}

struct Reload<L> {
    /// [`PolicyFiles::load_noting_folders`].
    load: L,
    current: Arc<CurrentPolicy>,
    metrics: Arc<Metrics>,
    /// The folders of the last look.
    folders: BTreeSet<PathBuf>,
    /// Why the files as they are were refused, so that it is told once and not at every look.
    refused: Option<String>,
}

impl<L: FnMut(&mut BTreeSet<PathBuf>) -> Result<Policy, PolicyLoadError>> Reload<L> {
    fn check(&mut self) -> BTreeSet<PathBuf> {
        let mut folders = BTreeSet::new();
        // A panic would end the thread, and nobody would hear of a changed policy ever again.
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| match (self.load)(&mut folders) {
            Ok(policy) => self.loaded(policy),
            Err(error) => self.refuse(error.to_string()),
        }));
        if outcome.is_err() {
            self.refuse("reading them ended in a panic, which is a bug of Sealgate's; please report it".to_owned());
            // How far it came, nobody knows.
            folders.extend(std::mem::take(&mut self.folders));
        }
        self.folders.clone_from(&folders);
        folders
    }

    fn refuse(&mut self, error: String) {
        if self.refused.as_ref() != Some(&error) {
            self.metrics.policy_refused();
            tracing::error!("the policy files are refused, the last good policy stays in force:\n{error}");
            self.refused = Some(error);
        }
    }

    fn loaded(&mut self, policy: Policy) {
        let in_force = self.current.get();
        let was_refused = self.refused.take().is_some();
        if policy.digest == in_force.policy.digest {
            if was_refused {
                announce(&self.metrics, in_force.generation, &in_force.policy);
                tracing::info!(generation = in_force.generation, "the policy files are those in force again");
            }
            return;
        }
        let generation = self.current.replace(policy);
        let in_force = self.current.get();
        announce(&self.metrics, generation, &in_force.policy);
        tracing::info!(generation, digest = %digest(&in_force.policy), "a changed policy is in force");
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_refused_policy_and_the_next_one_is_loaded() {
        let current = Arc::new(CurrentPolicy::new(Policy::default()));
        let metrics = Arc::new(Metrics::new());
        let mut looks = 0;
        let load = |folders: &mut BTreeSet<PathBuf>| {
            looks += 1;
            match looks {
                1 => folders.extend([PathBuf::from("policies"), PathBuf::from("keys")]),
                2 | 3 => {
                    folders.insert(PathBuf::from("policies"));
                    panic!("of the test");
                }
                _ => return Ok(Policy { digest: Some(Digest::sha256(b"next")), ..Policy::default() }),
            }
            Ok(Policy::default())
        };
        let (kept, counted) = (Arc::clone(&current), Arc::clone(&metrics));
        let mut reload = Reload { load, current, metrics, folders: BTreeSet::new(), refused: None };
        let both = BTreeSet::from([PathBuf::from("policies"), PathBuf::from("keys")]);
        for _ in 0..3 {
            assert_eq!(reload.check(), both, "all that was watched still is");
        }
        assert_eq!(kept.get().generation, 1);
        let text = |metrics: &Metrics| String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(text(&counted).contains("sealgate_policy_reloads_total{result=\"failure\"} 1"), "{}", text(&counted));
        assert!(text(&counted).contains("sealgate_policy_last_reload_successful 0"));
        reload.check();
        assert_eq!(kept.get().generation, 2);
        assert!(text(&counted).contains("sealgate_policy_last_reload_successful 1"));
    }
}
