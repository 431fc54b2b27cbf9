//! Finds the login files of `docker login` and `podman login`. Only commands use them, and only this module reads the
//! environment for them: gate and store use the credentials of their configuration.

use std::{env, ffi::OsString, fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use crate::configuration::{LoginFile, LoginFormat, Logins};

/// Returns the login files of the user, in the order in which skopeo reads them.
pub(super) fn of_caller() -> Logins {
    // The ID of the user, without a call to libc.
    let user = fs::metadata("/proc/self").ok().map(|process| process.uid());
    find(|name| env::var_os(name), user)
}

/// Returns the login file that the user named.
pub(super) fn named(path: PathBuf) -> Logins {
    Logins([LoginFile { path, format: LoginFormat::Current }].into())
}

/// Finds the login files of a user with these environment variables.
fn find(variable: impl Fn(&str) -> Option<OsString>, user: Option<u32>) -> Logins {
    // As everywhere, an empty variable counts as not set.
    let folder = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = folder("REGISTRY_AUTH_FILE") {
        return named(absolute(path));
    }
    let home = folder("HOME");
    let in_home = |name: &str| home.as_ref().map(|home| home.join(name));
    let running = folder("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json"));
    // podman uses this path for users without a session.
    let running = running.or_else(|| user.map(|user| PathBuf::from(format!("/run/containers/{user}/auth.json"))));
    let configuration = folder("XDG_CONFIG_HOME").or_else(|| in_home(".config"));
    let docker = folder("DOCKER_CONFIG").or_else(|| in_home(".docker"));
    let files = [
        (running, LoginFormat::Current),
        (configuration.map(|folder| folder.join("containers/auth.json")), LoginFormat::Current),
        (docker.map(|folder| folder.join("config.json")), LoginFormat::Current),
        (in_home(".dockercfg"), LoginFormat::Old),
    ];
    Logins(files.into_iter().filter_map(|(path, format)| Some(LoginFile { path: absolute(path?), format })).collect())
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn paths(variables: &[(&str, &str)], user: Option<u32>) -> Vec<String> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        let Logins(files) = find(variable, user);
        assert!(files.iter().all(|file| (file.format == LoginFormat::Old) == file.path.ends_with(".dockercfg")));
        files.iter().map(|file| file.path.display().to_string()).collect()
    }

    #[test]
    fn they_are_looked_for_in_skopeos_order() {
        let home = ("HOME", "/home/jane");
        let (runtime, docker) = (("XDG_RUNTIME_DIR", "/run/user/7"), ("DOCKER_CONFIG", "/etc/docker"));
        let podman = "/run/user/7/containers/auth.json";
        let (user, old) = ("/home/jane/.config/containers/auth.json", "/home/jane/.dockercfg");
        for (variables, expected) in [
            (&[home, runtime][..], &[podman, user, "/home/jane/.docker/config.json", old][..]),
            (&[home, runtime, docker], &[podman, user, "/etc/docker/config.json", old]),
            (&[home], &["/run/containers/7/auth.json", user, "/home/jane/.docker/config.json", old]),
            (
                &[home, ("XDG_RUNTIME_DIR", ""), ("DOCKER_CONFIG", "")],
                &["/run/containers/7/auth.json", user, "/home/jane/.docker/config.json", old],
            ),
            (
                &[home, runtime, ("XDG_CONFIG_HOME", "/c")],
                &[podman, "/c/containers/auth.json", "/home/jane/.docker/config.json", old],
            ),
            (&[runtime, docker], &[podman, "/etc/docker/config.json"]),
            // A file that is named so is the only one.
            (&[home, runtime, docker, ("REGISTRY_AUTH_FILE", "/a.json")], &["/a.json"]),
            (&[home, runtime, ("REGISTRY_AUTH_FILE", "")], &[podman, user, "/home/jane/.docker/config.json", old]),
        ] {
            assert_eq!(paths(variables, Some(7)), expected, "{variables:?}");
        }
        assert!(paths(&[], None).is_empty());
        assert!(paths(&[("DOCKER_CONFIG", "here")], None).iter().all(|path| Path::new(path).is_absolute()));
    }
}
