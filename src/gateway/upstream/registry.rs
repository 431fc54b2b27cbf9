//! The registry behind the gateway, for one worker.

use std::{sync::Arc, time::Duration};

use reqwest::Client;
use url::Url;

use super::cache::UpstreamCache;
use crate::gateway::error::ApiError;
use crate::registry::{RemoteServer, Transport};

/// The time limit for the registry to answer whether an image exists.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);

/// The registry behind the gateway, for one worker.
#[derive(Clone)]
pub(in crate::gateway) struct Registry {
    pub(in crate::gateway) url: Url,
    pub(in crate::gateway) max_manifest_bytes: usize,
    /// The client for requests that pass through.
    pub(in crate::gateway) client: Client,
    /// The server for the gateway's own requests.
    pub(in crate::gateway) peer: RemoteServer,
    pub(in crate::gateway) transport: Arc<Transport>,
    pub(in crate::gateway) cache: UpstreamCache,
}

impl Registry {
    pub(in crate::gateway) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the cache of facts about the registry.
    pub(in crate::gateway) fn cache(&self) -> &UpstreamCache {
        &self.cache
    }

    /// Returns the registry's URL for a raw path and query, unchanged. Returns `None` if a URL parser would change
    /// them.
    pub(in crate::gateway) fn url_of(&self, path_and_query: &str) -> Option<Url> {
        // A registry's address has no path of its own; the configuration refuses one.
        let url = Url::parse(&format!("{}{path_and_query}", self.url.origin().ascii_serialization())).ok()?;
        let path = path_and_query.split(['?', '#']).next()?;
        (url.path() == path && url.fragment().is_none()).then_some(url)
    }
}

/// Returns the answer to a client whose request to the registry failed.
pub(in crate::gateway) fn failure(error: &reqwest::Error) -> ApiError {
    if error.is_connect() {
        ApiError::unavailable()
    } else if error.is_timeout() {
        ApiError::timed_out()
    } else {
        ApiError::bad_gateway()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::Upstream;
    use crate::gateway::upstream::Settings;

    #[test]
    fn paths_and_queries_stay_as_they_were_sent() {
        let upstream =
            Upstream { url: "http://r:5000".parse().unwrap(), ca_file: None, token_realms: Vec::new(), insecure: true };
        let settings = Settings::new(&upstream, 0).unwrap();
        let registry = settings.registry(UpstreamCache::new()).unwrap();
        for path in
            ["/v2/", "/v2/a/blobs/sha256%3A00?x=%2F%20&y=a+b&_state=A%3D", "/v2/a//b", "/v2/?", "/v2/a~b?n=1&n=2"]
        {
            assert_eq!(registry.url_of(path).unwrap().as_str(), format!("http://r:5000{path}"));
        }
        for path in ["/v2/../x", "/v2/%2e%2e/x", "/v2/a\\..\\x", "/v2/#/x"] {
            assert!(registry.url_of(path).is_none(), "{path}");
        }
    }
}
