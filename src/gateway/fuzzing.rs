//! Entry points of fuzz targets to the gateway. Only built with the feature `fuzzing`.

use url::Url;

use super::{
    export_format,
    headers::{External, Rewrite},
    path::{Route, route},
    submission,
};
use crate::image::Digest;

/// Routes a path. Panics if a path for the registry could leave `/v2` in another URL parser. (A path ends before a
/// query or fragment.)
pub fn path(path: &str) {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if let Ok(Route::Registry { .. }) = route(path) {
        let url = Url::parse(&format!("http://registry.example.com{path}")).expect("a path makes a URL");
        assert_eq!(url.host_str(), Some("registry.example.com"), "{path:?}");
        assert!(url.path() == "/v2" || url.path().starts_with("/v2/"), "{path:?} leads to {url}");
    }
}

/// Parses a submission. Panics if it is for another image.
pub fn submission(body: &[u8], digest: &Digest) {
    if let Ok(submission) = submission::parse(body, digest) {
        let payload = crate::signature::claimed_payload(&submission.signature.content).expect("it was looked at");
        assert_eq!(payload.digest, *digest);
    }
}

/// Parses a line of an export. Panics unless it is written again the same, on one line, and a line that a store accepts
/// fits into the next export.
pub fn line(line: &[u8]) {
    if let Ok((image, record)) = export_format::read(line) {
        let mut again = Vec::new();
        export_format::write(&mut again, &image, &record);
        assert_eq!(again.iter().position(|&byte| byte == b'\n'), Some(again.len() - 1));
        assert_eq!(export_format::read(&again).as_ref(), Ok(&(image.clone(), record.clone())));
        if export_format::check(&image, &record).is_ok() {
            assert!(again.len() <= export_format::MAX_LINE_BYTES);
        }
    }
}

/// Rewrites an address in a registry's answer. Panics if a client that follows the new address would reach another
/// path, or another server than the gateway (for paths that it serves) or the host that the registry named.
pub fn addresses(requested: &Url, value: &str) {
    // URL parsers differ about a scheme without `//` after it.
    if Url::parse(value).is_ok() && !["http://", "https://"].iter().any(|scheme| value.starts_with(scheme)) {
        return;
    }
    let external = External { scheme: "https", host: Some("gateway.example.com".to_owned()) };
    let rewrite = Rewrite { requested, external: &external };
    let rewritten = rewrite.location(value);
    let seen = Url::parse("https://gateway.example.com").expect("a URL");
    let seen = seen.join(requested.path()).and_then(|base| base.join(rewritten.as_deref().unwrap_or(value)));
    if let (Ok(seen), Ok(meant)) = (seen, requested.join(value)) {
        let at_gateway = seen.host_str() == external.host.as_deref() && meant.host() == requested.host();
        assert!(at_gateway || seen.host() == meant.host(), "{value:?}: {seen} in place of {meant}");
        assert_eq!((seen.path(), seen.query()), (meant.path(), meant.query()), "{value:?}: {seen} in place of {meant}");
        assert!(!at_gateway || meant.path().starts_with("/v2"), "{value:?}: {seen} is not served");
    }
    let _ = rewrite.link(value);
}
