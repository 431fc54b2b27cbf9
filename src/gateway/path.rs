//! Routes a request by its raw path.

use percent_encoding::percent_decode_str;

use super::{
    error::ApiError,
    store::{ImageId, RepositoryName, SignatureName},
};
use crate::image::Digest;

const REGISTRY: &str = "/v2";
const EXTENSION: &str = "/extensions/v2/";
const OWN: &str = "/sealgate/v1/";

/// The route of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// A path of the registry.
    Registry {
        /// The path is `/v2/` itself, where clients learn the registry's features.
        ping: bool,
    },
    /// An image's signatures at the extension endpoint.
    Signatures(ImageId),
    /// A path of the store's own API.
    ApiRoute(ApiRoute),
    /// The health of this program.
    Health,
}

/// The routes of the store's own API, below `/sealgate/v1/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApiRoute {
    /// `token`: the token endpoint.
    Token,
    /// `export`: all signatures.
    Export,
    /// `import`: the signatures of another store.
    Import,
    /// `<name>/signatures/<digest>`: an image's signatures, with their origins and statuses.
    Image(ImageId),
    /// `<name>/signatures/<digest>/status`: the statuses of all signatures of an image.
    Statuses(ImageId),
    /// `<name>/signatures/<digest>/<32 characters>`: one signature.
    Signature(ImageId, SignatureName),
    /// `<name>/signatures/<digest>/<32 characters>/status`: the status of one signature.
    Status(ImageId, SignatureName),
}

/// Finds the route of a raw path, which is the one in the request without the query.
pub(super) fn route(path: &str) -> Result<Route, ApiError> {
    if path == "/healthz" {
        return Ok(Route::Health);
    }
    if let Some(rest) = path.strip_prefix(EXTENSION) {
        return signatures(rest).map(Route::Signatures);
    }
    if let Some(rest) = path.strip_prefix(OWN) {
        return api_route(rest).map(Route::ApiRoute);
    }
    match path.strip_prefix(REGISTRY) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            if !is_unambiguous(path) {
                let message = "the path has a segment that is . or .., a space, or an encoded slash, backslash or control character";
                return Err(ApiError::bad_request(message));
            }
            Ok(Route::Registry { ping: matches!(rest, "" | "/") })
        }
        _ => Err(ApiError::no_such_path()),
    }
}

/// Parses `<name>/signatures/<digest>`. A name may contain `signatures`, so the last one separates.
fn signatures(rest: &str) -> Result<ImageId, ApiError> {
    let (name, digest) = rest.rsplit_once("/signatures/").ok_or_else(ApiError::no_such_path)?;
    let repository = RepositoryName::parse(name).map_err(|error| ApiError::name(error.to_string()))?;
    // Clients may write the digest's colon as %3A. Nothing else needs an escape, and an escaped name could bypass the
    // path rules of a proxy in front.
    let digest = Digest::parse(&digest.replace("%3A", ":").replace("%3a", ":"))
        .map_err(|error| ApiError::digest(error.to_string()))?;
    Ok(ImageId { repository, digest })
}

fn api_route(rest: &str) -> Result<ApiRoute, ApiError> {
    match rest {
        "token" => return Ok(ApiRoute::Token),
        "export" => return Ok(ApiRoute::Export),
        "import" => return Ok(ApiRoute::Import),
        _ => {}
    }
    let (name, after) = rest.rsplit_once("/signatures/").ok_or_else(ApiError::no_such_path)?;
    let mut segments = after.split('/');
    let image = signatures(&format!("{name}/signatures/{}", segments.next().unwrap_or_default()))?;
    let signature = |text: &str| SignatureName::parse(text).ok_or_else(ApiError::no_such_signature);
    match (segments.next(), segments.next(), segments.next()) {
        (None, ..) => Ok(ApiRoute::Image(image)),
        (Some("status"), None, _) => Ok(ApiRoute::Statuses(image)),
        (Some(name), None, _) => Ok(ApiRoute::Signature(image, signature(name)?)),
        (Some(name), Some("status"), None) => Ok(ApiRoute::Status(image, signature(name)?)),
        _ => Err(ApiError::no_such_path()),
    }
}

/// Returns whether all URL parsers agree about the path, and it stays below its prefix.
fn is_unambiguous(path: &str) -> bool {
    // No valid request line has a space in its path. URL parsers drop it at the end: `/v2/.. ` is `/` to them.
    !path.contains(' ')
        && path.split('/').all(|segment| {
            let decoded: Vec<u8> = percent_decode_str(segment).collect();
            !matches!(decoded.as_slice(), b"." | b"..")
                && decoded.iter().all(|&byte| !matches!(byte, b'/' | b'\\') && !byte.is_ascii_control())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_registry_has_what_is_below_v2() {
        for path in ["/v2/", "/v2"] {
            assert_eq!(route(path), Ok(Route::Registry { ping: true }));
        }
        for path in ["/v2/_catalog", "/v2/a/b/manifests/1.0", &format!("/v2/a/blobs/{}", DIGEST.replace(':', "%3A"))] {
            assert_eq!(route(path), Ok(Route::Registry { ping: false }), "{path}");
        }
        for path in ["/", "", "*", "/v1/", "/v2x", "/v3/", "//v2/", "/sealgate/v1/x", "/extensions/v1/", "/V2/"] {
            assert_eq!(route(path).unwrap_err().status(), 404, "{path}");
        }
    }

    #[test]
    fn no_path_leads_out_of_v2() {
        for path in [
            "/v2/..",
            "/v2/..  ",
            "/v2/../metrics",
            "/v2/a/%2e%2e/%2E%2E/x",
            "/v2/.%2e/x",
            "/v2/./x",
            "/v2/a%2f..%2fx",
            "/v2/..\\x",
            "/v2/a%5Cx",
            "/v2/a%00",
            "/v2/a%0d%0aHost:x",
        ] {
            assert_eq!(route(path).unwrap_err().status(), 400, "{path}");
        }
        assert_eq!(route("/v2/a/..b/..."), Ok(Route::Registry { ping: false }));
    }

    #[test]
    fn signatures_belong_to_a_name_of_any_depth_and_a_digest() {
        for name in ["web", "acme/web", "a/b/c/d", "a/signatures/b"] {
            for digest in [DIGEST.to_owned(), format!("sha512:{}", "0".repeat(128))] {
                let expected = ImageId {
                    repository: RepositoryName::parse(name).unwrap(),
                    digest: Digest::parse(&digest).unwrap(),
                };
                let path = format!("/extensions/v2/{name}/signatures/{digest}");
                assert_eq!(route(&path), Ok(Route::Signatures(expected.clone())));
                assert_eq!(route(&path.replace(':', "%3a")), Ok(Route::Signatures(expected)));
            }
        }
        for (path, code) in [
            ("a/signatures/sha256:00", "DIGEST_INVALID"),
            ("a/signatures/latest", "DIGEST_INVALID"),
            (&format!("A/signatures/{DIGEST}"), "NAME_INVALID"),
            (&format!("../signatures/{DIGEST}"), "NAME_INVALID"),
            (&format!("/signatures/{DIGEST}"), "NAME_INVALID"),
            (&format!("a%00/signatures/{DIGEST}"), "NAME_INVALID"),
            (&format!("acme%2Fweb/signatures/{DIGEST}"), "NAME_INVALID"),
            (&format!("%61cme/web/signatures/{DIGEST}"), "NAME_INVALID"),
            (&format!("acme/web/signatures%2F{DIGEST}"), "NOT_FOUND"),
            (&format!("acme/web/signatures/{}", DIGEST.replace('e', "%65")), "DIGEST_INVALID"),
            (&format!("a/signatures/{DIGEST}/"), "DIGEST_INVALID"),
            ("a", "NOT_FOUND"),
            ("", "NOT_FOUND"),
        ] {
            assert_eq!(route(&format!("/extensions/v2/{path}")).unwrap_err().code(), code, "{path}");
        }
    }
}
