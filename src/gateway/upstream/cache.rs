//! What all workers remember of the registry.

use std::time::Duration;

use actix_web::http::header::HeaderValue;
use moka::future::Cache;
use url::Url;

use crate::gateway::store::ImageId;

/// How long it is remembered that everyone may pull an image. A repository that is made private waits this long until
/// its signatures, which were public until then, are private too.
const PUBLIC_IMAGE_TTL: Duration = Duration::from_mins(1);
/// How many images that everyone may pull are remembered.
const MAX_PUBLIC_IMAGES: u64 = 100_000;

/// How long it is remembered what the registry wants.
const REQUIRED_AUTH_TTL: Duration = Duration::from_mins(1);

/// What was learned of the registry, shared by all workers.
#[derive(Clone)]
pub(in crate::gateway) struct UpstreamCache {
    /// Images that everyone may pull.
    pub(in crate::gateway) public: Cache<ImageId, ()>,
    pub(in crate::gateway) required_auth: Cache<(), RequiredAuth>,
}

impl UpstreamCache {
    /// Makes an empty cache.
    pub(in crate::gateway) fn new() -> Self {
        Self {
            public: Cache::builder().max_capacity(MAX_PUBLIC_IMAGES).time_to_live(PUBLIC_IMAGE_TTL).build(),
            required_auth: Cache::builder().max_capacity(1).time_to_live(REQUIRED_AUTH_TTL).build(),
        }
    }
}

#[cfg(test)]
impl UpstreamCache {
    /// What a registry wants that need not be there.
    pub(in crate::gateway) async fn with_required_auth(required_auth: RequiredAuth) -> Self {
        let cache = Self::new();
        cache.required_auth.insert((), required_auth).await;
        cache
    }
}

/// Which credentials the registry asks a client for that sends none.
#[derive(Clone, Debug)]
pub(in crate::gateway) enum RequiredAuth {
    /// None: the registry is open.
    Nothing,
    /// A name and a password; with the challenge as it came.
    Basic(HeaderValue),
    /// A token.
    Bearer {
        /// Where from.
        realm: Url,
        /// For what.
        service: Option<Box<str>>,
    },
}
