//! The origin of each registry: whether it uses TLS, which challenge it sends, and whether it has the signature
//! extension.

use std::{sync::Arc, time::Duration};

use moka::{Expiry, future::Cache};
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use url::Url;

use super::{
    answer::Answer,
    challenge::{Challenge, ChallengeError},
    target::Target,
};

/// The lifetime of a ping's result.
const ORIGIN_TTL: Duration = Duration::from_mins(5);
/// The lifetime of a ping's result if the registry has no signature extension. It is short because an operator may be
/// about to add one.
const NO_EXTENSION_TTL: Duration = Duration::from_secs(30);
/// The lifetime of a ping's result if the answer was inconclusive: a registry, or a proxy in front of it, may be
/// restarting.
const UNKNOWN_EXTENSION_TTL: Duration = Duration::from_secs(2);
/// The approximate memory of the cache of registries, in bytes, and again of that of repositories: about ten thousand
/// of them.
const MAX_ORIGIN_BYTES: u64 = 8 << 20;
/// The approximate memory of a cache entry beside its texts, in bytes.
const ENTRY: usize = 512;

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct OriginKey {
    pub(super) settings: usize,
    pub(super) base: Url,
}

/// The result of `GET /v2/` at a registry.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The base URL, with a slash at the end: https, or http if that is allowed and the registry has no TLS.
    pub(crate) base: Url,
    pub(crate) extension: Extension,
    pub(super) challenge: Option<Challenge>,
}

/// The presence of the signature extension on a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extension {
    Announced,
    NotAnnounced,
    /// Unknown: the registry answered with this status, which says nothing about it.
    Unknown(u16),
}

fn origin_weight(key: &OriginKey, origin: &Origin) -> u32 {
    let challenge = origin.challenge.as_ref().map_or(0, Challenge::weight);
    let texts = key.base.as_str().len() + origin.base.as_str().len() + challenge;
    u32::try_from(ENTRY + texts).unwrap_or(u32::MAX)
}

fn challenge_weight((key, path): &(OriginKey, Box<str>), challenge: &Challenge) -> u32 {
    u32::try_from(ENTRY + key.base.as_str().len() + path.len() + challenge.weight()).unwrap_or(u32::MAX)
}

struct OriginTtl;

impl Expiry<OriginKey, Arc<Origin>> for OriginTtl {
    fn expire_after_create(&self, _: &OriginKey, origin: &Arc<Origin>, _: std::time::Instant) -> Option<Duration> {
        Some(match origin.extension {
            Extension::Announced => ORIGIN_TTL,
            Extension::NotAnnounced => NO_EXTENSION_TTL,
            Extension::Unknown(_) => UNKNOWN_EXTENSION_TTL,
        })
    }
}

/// Caches the results of pings, and the challenges of repositories.
pub(super) struct Origins {
    pub(super) origins: Cache<OriginKey, Arc<Origin>>,
    challenges: Cache<(OriginKey, Box<str>), Challenge>,
}

impl Origins {
    pub(super) fn new() -> Self {
        Self {
            origins: Cache::builder()
                .max_capacity(MAX_ORIGIN_BYTES)
                .weigher(|key, origin: &Arc<_>| origin_weight(key, origin))
                .expire_after(OriginTtl)
                .build(),
            challenges: Cache::builder()
                .max_capacity(MAX_ORIGIN_BYTES)
                .weigher(challenge_weight)
                .time_to_live(ORIGIN_TTL)
                .build(),
        }
    }

    /// Removes the cached result about a server.
    pub(super) async fn forget(&self, target: &Target) {
        self.origins
            .invalidate(&OriginKey { settings: target.remote.settings.number, base: target.base.clone() })
            .await;
    }

    /// Returns the challenge that the last answer about this repository carried, if there was one.
    pub(super) async fn challenge(&self, target: &Target, base: &Url) -> Option<Challenge> {
        self.challenges.get(&repository_key(target, base)).await
    }

    /// Caches the challenge of a repository.
    pub(super) async fn remember_challenge(&self, target: &Target, base: &Url, challenge: Challenge) {
        self.challenges.insert(repository_key(target, base), challenge).await;
    }
}

fn repository_key(target: &Target, base: &Url) -> (OriginKey, Box<str>) {
    (OriginKey { settings: target.remote.settings.number, base: base.clone() }, target.path.clone())
}

/// Parses the challenge of an answer.
pub(super) fn challenge(answer: &Answer) -> Result<Challenge, ChallengeError> {
    Challenge::parse(answer.headers.get_all(WWW_AUTHENTICATE).iter().map(HeaderValue::as_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::{Limits, Registries};
    use crate::registry::{Client, allowed_hosts::AllowedHosts};

    #[tokio::test]
    async fn what_registries_say_of_themselves_is_bounded_in_bytes() {
        let named: Arc<dyn AllowedHosts> = Arc::new(|_: &str| false);
        let client = Client::new(&Registries::default(), &Limits::default(), named, Arc::default()).unwrap();
        let long = "x".repeat(2000);
        let realm = Url::parse(&format!("https://r.example.com/{long}")).unwrap();
        let challenge = Challenge::Bearer { realm, service: Some(long.as_str().into()) };
        for number in 0..4000 {
            let base = Url::parse(&format!("https://{number}.example.com/")).unwrap();
            let key = OriginKey { settings: 0, base: base.clone() };
            let origin = Origin { base, extension: Extension::Announced, challenge: Some(challenge.clone()) };
            client.origins.origins.insert(key.clone(), Arc::new(origin)).await;
            client.origins.challenges.insert((key, "acme/web".into()), challenge.clone()).await;
        }
        client.origins.origins.run_pending_tasks().await;
        client.origins.challenges.run_pending_tasks().await;
        for kept in [client.origins.origins.entry_count(), client.origins.challenges.entry_count()] {
            assert!(kept > 0 && kept * challenge.weight() as u64 <= MAX_ORIGIN_BYTES, "{kept}");
        }
    }
}
