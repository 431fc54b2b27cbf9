//! What fuzz targets reach of the gateway. Only there with the feature `fuzzing`.

use url::Url;

use super::{
    headers::{External, Rewrite},
    path::{Route, route},
    submission,
};
use crate::image::Digest;

/// Whatever path is let through to the registry stays below `/v2` for other readers of URLs too.
pub fn path(path: &str) {
    if let Ok(Route::Registry { .. }) = route(path) {
        let url = Url::parse(&format!("http://registry.example.com{path}")).expect("a path makes a URL");
        assert_eq!(url.host_str(), Some("registry.example.com"), "{path:?}");
        assert!(url.path() == "/v2" || url.path().starts_with("/v2/"), "{path:?} leads to {url}");
    }
}

/// Whatever is stored names the image that it is stored for.
pub fn submission(body: &[u8], digest: &Digest) {
    if let Ok(signature) = submission::parse(body, digest) {
        let payload = crate::signature::claimed_payload(&signature.content).expect("it was looked at");
        assert_eq!(payload.digest, *digest);
    }
}

/// Whatever address is rewritten leads to the gateway.
pub fn addresses(registry: &Url, value: &str) {
    let external = External { scheme: "https", host: Some("gateway.example.com".to_owned()) };
    let rewrite = Rewrite { registry, external: &external };
    if let Some(location) = rewrite.location(value) {
        assert!(
            location.starts_with('/') || location.starts_with("https://gateway.example.com/"),
            "{value:?}: {location}"
        );
    }
    if let Some(link) = rewrite.link(value) {
        assert!(link.contains('<'), "{value:?}: {link}");
    }
}
