//! Writes signatures to an extension endpoint, or into a lookaside folder.

use std::io;

use reqwest::Method;
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::{
    destination::Destination,
    lookaside,
    write_error::{WriteError, Written},
    write_extension::put,
    write_lookaside::write_file,
};
use crate::image::{Digest, Repository};
use crate::refusal::LookupError;
use crate::registry::{
    Access, Client, Extension, Fetched, Request, RequestSpec, ServerRefused, Target, TimeBudget, error_body,
};
use crate::telemetry::RequestKind;

/// Stores a signature. After success, it is complete and durable; after an error, it is not stored at all, or its state
/// is unknown.
pub async fn write(
    client: &Client,
    destination: &Destination,
    repository: &Repository,
    digest: &Digest,
    signature: &[u8],
    deadline: Instant,
) -> Result<Written, WriteError> {
    let budget = TimeBudget::until(deadline);
    let target = match destination {
        Destination::RegistryExtension => extension(client, repository, budget).await?,
        Destination::Extension(url) => client.target_at(url, repository)?,
        Destination::Folder(folder) => {
            let folder = folder.join(lookaside::folder_name(repository.path(), digest));
            let (path, signature) = (folder.clone(), signature.to_owned());
            let writing = spawn_blocking(move || write_file(&folder, &signature));
            let error = match timeout_at(deadline, writing).await {
                Ok(Ok(written)) => return written,
                Ok(Err(panic)) => io::Error::other(panic),
                Err(_) => io::Error::new(io::ErrorKind::TimedOut, "it was not done in time; trying again does no harm"),
            };
            return Err(WriteError::File { path, source: error });
        }
    };
    put(client, &target, digest, signature, budget).await
}

/// Checks whether signatures can be written, as far as that is possible before there is one.
pub async fn check(
    client: &Client,
    destination: &Destination,
    repository: &Repository,
    deadline: Instant,
) -> Result<(), WriteError> {
    let budget = TimeBudget::until(deadline);
    let target = match destination {
        Destination::RegistryExtension => extension(client, repository, budget).await?,
        Destination::Extension(url) => client.target_at(url, repository)?,
        Destination::Folder(_) => return Ok(()),
    };
    // Permission to sign is per repository, so the digest is arbitrary, and messages leave it out.
    let path = format!("extensions/v2/{}/signatures/{}", target.path, Digest::sha256(b""));
    let what = RequestSpec { path: &path, accept: None, kind: RequestKind::Signatures, limit: 64 << 10 };
    let request = Request::new(Method::OPTIONS, Access::Push);
    // A store answers OPTIONS with the same refusals as a PUT. Other servers with the extension need not support this
    // method, and a proxy in front of them may refuse it.
    let Fetched { url, answer } = client.send(&target, &what, request, budget).await?;
    match (answer.status, error_body::code(&answer.body).as_deref()) {
        (401, Some("UNAUTHORIZED")) | (403, Some("DENIED")) => {
            Err(ServerRefused::of(&target, &url.join(".").unwrap_or(url), &answer).into())
        }
        _ => Ok(()),
    }
}

/// Returns whether a registry announces an extension endpoint of its own.
pub async fn is_extension_announced(
    client: &Client,
    repository: &Repository,
    deadline: Instant,
) -> Result<bool, LookupError> {
    let target = client.target(repository)?;
    Ok(client.origin(&target, TimeBudget::until(deadline)).await?.extension == Extension::Announced)
}

async fn extension(client: &Client, repository: &Repository, budget: TimeBudget) -> Result<Target, WriteError> {
    let target = client.target(repository)?;
    if client.origin(&target, budget).await?.extension != Extension::Announced {
        return Err(WriteError::NoExtension { registry: (&*target.remote.registry).into() });
    }
    Ok(target)
}
