//! The limit of file descriptors: every connection, request and open file takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, and logs the result. For servers, at their start: containers often get a soft
/// limit of 1,024, for the sake of programs that call `select`.
///
/// Servers start no other programs, so no program inherits the raised limit.
pub fn raise_descriptor_limit() {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    let failure = if raised == before { None } else { setrlimit(Resource::Nofile, raised).err() };
    let (limit, was) = (words(getrlimit(Resource::Nofile).current), words(before.current));
    match failure {
        None => tracing::info!(%limit, %was, "limit of file descriptors"),
        Some(error) => {
            tracing::warn!(%limit, %error, "the limit of file descriptors can't be raised to the hard limit");
        }
    }
}

/// Returns how many file descriptors this process may have open at once; [`u64::MAX`] if there is no limit.
///
/// Call it after [`raise_descriptor_limit`].
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn words(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}
