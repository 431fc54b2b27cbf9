//! The cache of facts about the registry, which all workers share.

use std::time::Duration;

use actix_web::http::header::HeaderValue;
use moka::future::Cache;
use url::Url;

use crate::gateway::store::ImageId;

/// The time for which it is cached that everyone may pull an image. After a repository becomes private, its signatures,
/// which were public until then, stay readable for this long.
const PUBLIC_IMAGE_TTL: Duration = Duration::from_mins(1);
/// The maximum number of cached public images.
const MAX_PUBLIC_IMAGES: u64 = 100_000;

/// The time for which the registry's authentication is cached.
const REQUIRED_AUTH_TTL: Duration = Duration::from_mins(1);

/// The cache of facts about the registry, which all workers share.
#[derive(Clone)]
pub(in crate::gateway) struct UpstreamCache {
    /// The images that everyone may pull.
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
    /// Makes a cache with this authentication, for a registry that need not exist.
    pub(in crate::gateway) async fn with_required_auth(required_auth: RequiredAuth) -> Self {
        let cache = Self::new();
        cache.required_auth.insert((), required_auth).await;
        cache
    }
}

/// The authentication that the registry asks of a client without credentials.
#[derive(Clone, Debug)]
pub(in crate::gateway) enum RequiredAuth {
    /// None: the registry is open.
    Nothing,
    /// A name and a password, with the registry's challenge.
    Basic(HeaderValue),
    /// A token.
    Bearer {
        /// The URL of the token server.
        realm: Url,
        /// The name of the registry at the token server.
        service: Option<Box<str>>,
    },
}
