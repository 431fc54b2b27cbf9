//! Scopes of the transports that no cluster pulls through. Nothing comes of them, but a policy that containers/image would
//! refuse to read is refused here too.

use crate::image::Digest;

/// Checks a scope as containers/image's `ValidatePolicyConfigurationScope` does. Transports that it does not know (an older
/// or newer one may) are not looked into.
pub(super) fn check_scope(transport: &str, scope: &str) -> Result<(), &'static str> {
    if scope.is_empty() {
        return Ok(());
    }
    match transport {
        "dir" | "oci" | "oci-archive" | "sif" => path(scope),
        "docker-archive" | "tarball" => Err("it has only the scope \"\""),
        // An image's ID has no namespaces.
        "docker-daemon" if Digest::parse(scope).is_ok() => Err("an image's ID is no scope"),
        "containers-storage" => storage(scope),
        _ => Ok(()),
    }
}

/// An absolute path in its shortest form, and not `/`, which says no more than "".
fn path(scope: &str) -> Result<(), &'static str> {
    let Some(below) = scope.strip_prefix('/') else { return Err("it must be an absolute path") };
    if below.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("it must be a path in its shortest form, and not \"/\"");
    }
    Ok(())
}

/// `[/graph/root]…` or `[driver@/graph/root]…`, where an image's ID may follow after an `@`.
fn storage(scope: &str) -> Result<(), &'static str> {
    let why = "it must begin with [/path] or [driver@/path]";
    let (store, name) = scope.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or(why)?;
    let root = match store.split_once('@') {
        Some(("", _)) => return Err(why),
        Some((_, root)) => root,
        None => store,
    };
    if !root.starts_with('/') {
        return Err(why);
    }
    match name.rsplit_once('@') {
        Some((_, id)) if id.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Err("after the @, the ID of an image has 64 hexadecimal digits")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_refused_as_skopeo_refuses_them() {
        for (transport, good) in [
            ("dir", "/x:y"),
            ("oci", "/var/lib/images"),
            ("docker-archive", ""),
            ("docker-daemon", "a b"),
            ("docker-daemon", "sha256:0000"),
            ("atomic", "a//b"),
            ("containers-storage", "[/var/lib]"),
            ("containers-storage", "[overlay@/]docker.io/library"),
            ("containers-storage", "[/x]A b"),
            ("containers-storage", "[/x]a@e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("from-tomorrow", "*"),
        ] {
            assert_eq!(check_scope(transport, good), Ok(()), "{transport} {good}");
        }
        let image = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (transport, bad) in [
            ("dir", "x"),
            ("dir", "/"),
            ("oci", "/x/"),
            ("oci-archive", "/x/../y"),
            ("sif", "*"),
            ("docker-archive", "/x"),
            ("tarball", "x"),
            ("docker-daemon", image),
            ("containers-storage", "a/b"),
            ("containers-storage", "[x]"),
            ("containers-storage", "[@/x]"),
            ("containers-storage", "[/x]@sha256:00"),
            ("containers-storage", "[/x]a@e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85"),
            ("containers-storage", "[/x]a@e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85z"),
        ] {
            assert!(check_scope(transport, bad).is_err(), "{transport} {bad}");
        }
    }
}
