//! Paths of a registry at which an upload may continue.

use percent_encoding::percent_decode_str;
use url::Url;

/// Returns whether an upload may continue at this path of the registry, which then gets credentials and content.
///
/// Below `/v2/`, all paths except those of uploads are other endpoints, where such requests would have another effect.
/// The repository in the path is not checked, because a proxy in front of some registries adds a prefix to all names.
/// Outside of `/v2/`, only the registry knows what a path means (Google's uploads are at `/artifacts-uploads/...`), so
/// all paths are accepted, except those of signatures, which never receive layers.
pub(super) fn is_upload_path(url: &Url) -> bool {
    let path = percent_decode_str(url.path()).decode_utf8_lossy();
    let segments: Vec<&str> = path.split(['/', '\\']).filter(|segment| !segment.is_empty()).collect();
    match segments[..] {
        _ if segments.iter().any(|segment| matches!(*segment, "." | "..")) => false,
        // GitHub's registry uses the singular.
        ["v2", _, .., "blobs", "uploads" | "upload"] | ["v2", _, .., "blobs", "uploads" | "upload", _] => true,
        ["v2" | "extensions" | "sealgate", ..] => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_go_on_where_real_registries_have_them() {
        let is = |path: &str| is_upload_path(&Url::parse(&format!("https://r.example.com{path}")).unwrap());
        for path in [
            "/v2/acme/web/blobs/uploads/3c1a0d0e-6f1c-4b7e-9d55-7c0d5c1e2f3a?_state=x%2Fy",
            "/v2/web/blobs/uploads/AJMTJPA_x-y=",
            "/v2/acme/web/blobs/upload/3c1a0d0e",
            "/v2/team/acme/web/blobs/uploads/3c1a0d0e",
            "/v2/acme/web/blobs/uploads/?state=x",
            "/artifacts-uploads/namespaces/project/repositories/images/uploads/AF2XiV",
            "/artifactory/api/docker/images/v2/acme/web/blobs/uploads/3c1a0d0e",
            "/registry/v2/acme/web/blobs/uploads/3c1a0d0e",
        ] {
            assert!(is(path), "{path}");
        }
        for path in [
            "/v2/",
            "/v2/blobs/uploads/x",
            "/v2/acme/web/manifests/1",
            "/v2/acme/web/blobs/uploads/x/manifests/1",
            "/v2/acme/web/blobs/uploads/x/../../../manifests/1",
            "/v2/acme/web/blobs/uploads/..%2F..%2Fmanifests%2F1",
            "/v2/acme/web/blobs/uploads%2Fx%2Fmanifests%2F1",
            "/v2/acme/web/blobs/uploads/x%5Cmanifests%5C1",
            "/%76%32/acme/web/manifests/1",
            "//v2/acme/web/manifests/1",
            "/x%2F..%2Fv2/acme/web/manifests/1",
            "/extensions/v2/acme/web/signatures/sha256:00",
            "/sealgate/v1/import",
        ] {
            assert!(!is(path), "{path}");
        }
    }
}
