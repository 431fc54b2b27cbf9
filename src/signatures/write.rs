//! Putting signatures where they are found: an extension endpoint, or a lookaside folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde::Serialize;
use tokio::time::Instant;
use url::Url;

use super::{
    Kind, kind,
    lookaside::{self, MOST_ENTRIES},
};
use crate::configuration::SignatureSource;
use crate::files::durable::{create_folder, sync_folder};
use crate::image::{Digest, Repository};
use crate::operations::RequestKind;
use crate::registry::{
    Access, Budget, Client, Content, Extension, Fetched, Request, SaidNo, Target, What, said, shown,
};
use crate::verdict::LookupError;

/// Signatures of one image in a lookaside folder. Of [`MOST_ENTRIES`], containers/image takes none.
const MOST_FILES: usize = MOST_ENTRIES - 1;

/// Bytes that may stand in front of a signature in a file and say of which kind it is.
const LONGEST_PREFIX: usize = 32;

/// The characters behind the `@` of a signature's name.
const NAME_CHARACTERS: usize = 32;

/// Where signatures are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The registry's own extension endpoint.
    RegistryExtension,
    /// The extension endpoint of a store.
    Extension(Url),
    /// A lookaside tree on this machine.
    Folder(PathBuf),
}

impl Destination {
    /// Where what was written there is read. Nothing: the folder has no absolute path.
    pub fn source(&self) -> Option<SignatureSource> {
        Some(match self {
            Self::RegistryExtension => SignatureSource::RegistryExtension,
            Self::Extension(url) => SignatureSource::Extension(url.clone()),
            Self::Folder(folder) => SignatureSource::Lookaside(Url::from_directory_path(folder).ok()?),
        })
    }
}

/// Why a signature was not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The server can't be asked.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The registry has no signature extension.
    #[error(
        "{registry} does not announce a signature extension (X-Registry-Supports-Signatures on /v2/): write into a store \
         (--to https://...), a lookaside folder (--to FOLDER), or put `sealgate gateway` in front of the registry"
    )]
    NoExtension {
        /// The registry.
        registry: Box<str>,
    },
    /// The registry has no such image.
    #[error("{url} answers 404: {message}")]
    NoImage {
        /// What was asked.
        url: Box<str>,
        /// The server's own words.
        message: String,
    },
    /// The server does not take it.
    #[error(transparent)]
    SaidNo(#[from] SaidNo),
    /// A file can't be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Readers look no further.
    #[error("{}: there are {MOST_FILES} signatures already, and readers refuse an image with more", .0.display())]
    Full(PathBuf),
}

/// What became of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its place: a URL with its name, or a file.
    pub place: String,
    /// Whether it was there already, to the letter.
    pub existed: bool,
}

/// Stores a signature. It is whole and durable there when this returns, or not there at all.
pub async fn write(
    client: &Client,
    destination: &Destination,
    repository: &Repository,
    digest: &Digest,
    signature: &[u8],
    deadline: Instant,
) -> Result<Written, WriteError> {
    let budget = Budget::until(deadline);
    let target = match destination {
        Destination::RegistryExtension => extension(client, repository, budget).await?,
        Destination::Extension(url) => client.target_at(url, repository)?,
        Destination::Folder(folder) => {
            let folder = folder.join(lookaside::folder_name(repository.path(), digest));
            return write_file(&folder, signature);
        }
    };
    put(client, &target, digest, signature, budget).await
}

/// Finds out whether signatures can go there at all, as far as that is known before there is one.
pub async fn check(
    client: &Client,
    destination: &Destination,
    repository: &Repository,
    deadline: Instant,
) -> Result<(), WriteError> {
    match destination {
        Destination::RegistryExtension => extension(client, repository, Budget::until(deadline)).await.map(drop),
        Destination::Extension(_) | Destination::Folder(_) => Ok(()),
    }
}

async fn extension(client: &Client, repository: &Repository, budget: Budget) -> Result<Target, WriteError> {
    let target = client.target(repository)?;
    if client.origin(&target, budget).await?.extension != Extension::Announced {
        return Err(WriteError::NoExtension { registry: (&*target.peer.registry).into() });
    }
    Ok(target)
}

/// As both generations of clients read it: skopeo `schemaVersion`, what was documented first `version`.
#[derive(Serialize)]
struct Entry<'a> {
    #[serde(rename = "schemaVersion")]
    schema_version: u8,
    version: u8,
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    content: String,
}

async fn put(
    client: &Client,
    target: &Target,
    digest: &Digest,
    signature: &[u8],
    budget: Budget,
) -> Result<Written, WriteError> {
    let name = format!("{digest}@{}", name());
    let entry =
        Entry { schema_version: 2, version: 2, kind: "atomic", name: &name, content: STANDARD.encode(signature) };
    // Numbers and strings can't fail to be JSON.
    let bytes = serde_json::to_vec(&entry).expect("strings are JSON").into();
    let path = format!("extensions/v2/{}/signatures/{digest}", target.path);
    let what = What { path: &path, accept: Some("application/json"), kind: RequestKind::Signatures, limit: 64 << 10 };
    let content = Some(Content { kind: "application/json".into(), bytes, may_move: false });
    let request = Request { content, ..Request::new(Method::PUT, Access::Push) };
    let Fetched { url, answer } = client.send(target, &what, request, budget).await?;
    let at = || shown(&url);
    let place = format!("{}#{name}", at());
    match answer.status {
        200..=299 => Ok(Written { place, existed: false }),
        409 if said::code(&answer.body).as_deref() == Some("SIGNATURE_EXISTS") => {
            Ok(Written { place: at().into(), existed: true })
        }
        404 => Err(WriteError::NoImage { url: at(), message: said::message(&answer.body) }),
        _ => Err(SaidNo::of(target, &url, &answer).into()),
    }
}

/// 32 random hexadecimal digits, as skopeo makes them.
fn name() -> String {
    let mut bytes = [0; NAME_CHARACTERS / 2];
    rand::fill(&mut bytes).expect("the system has random bytes");
    bytes.iter().fold(String::with_capacity(NAME_CHARACTERS), |mut name, byte| {
        use std::fmt::Write as _;
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// Writes `signature-N` with the first N that is free. Readers stop at the first that is missing, so there must be no gap.
pub(crate) fn write_file(folder: &Path, signature: &[u8]) -> Result<Written, WriteError> {
    use io::Write as _;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| WriteError::File { path, source }
    };
    let place = |number: usize| folder.join(format!("signature-{number}"));
    let is_this = |path: &Path| {
        let there = lookaside::read_file(path, signature.len() + LONGEST_PREFIX);
        there.is_ok_and(|there| kind(&there) == Kind::SimpleSigning(signature) || there == signature)
    };
    let existed = |path: &Path| Written { place: path.display().to_string(), existed: true };
    // Most that are there are found without a word written.
    let there = (1..=MOST_FILES).map(place).take_while(|path| path.exists());
    if let Some(path) = there.into_iter().find(|path| is_this(path)) {
        // Whoever wrote it may have ended before this.
        sync_folder(folder).map_err(failed(folder))?;
        return Ok(existed(&path));
    }
    create_folder(folder).map_err(failed(folder))?;
    let new = folder.join(format!(".{}.new", name()));
    let written = fs::File::create_new(&new).and_then(|mut file| {
        file.write_all(signature)?;
        file.sync_all()
    });
    let linked = written.map_err(failed(&new)).and_then(|()| {
        for path in (1..=MOST_FILES).map(place) {
            // Unlike a rename, this does not replace what another signer writes at the same time.
            match fs::hard_link(&new, &path) {
                Ok(()) => return Ok(Written { place: path.display().to_string(), existed: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if is_this(&path) {
                        return Ok(existed(&path));
                    }
                }
                Err(source) => return Err(WriteError::File { path, source }),
            }
        }
        Err(WriteError::Full(folder.to_owned()))
    });
    let _ = fs::remove_file(&new);
    let synced = sync_folder(folder).map_err(failed(folder));
    linked.and_then(|written| synced.map(|()| written))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_numbered_without_a_gap_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("acme/web@sha256=00");
        for (content, number, existed) in [("a", 1, false), ("b", 2, false), ("a", 1, true), ("c", 3, false)] {
            let written = write_file(&folder, content.as_bytes()).unwrap();
            let path = folder.join(format!("signature-{number}"));
            assert_eq!(written, Written { place: path.display().to_string(), existed });
            assert_eq!(fs::read_to_string(path).unwrap(), content);
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3, "nothing is left beside them");
    }

    #[test]
    fn there_are_never_more_files_than_containers_image_reads() {
        let folder = tempfile::tempdir().unwrap();
        for number in 1..=127 {
            write_file(folder.path(), format!("{number}").as_bytes()).unwrap();
        }
        assert!(write_file(folder.path(), b"127").unwrap().existed);
        let error = write_file(folder.path(), b"another").unwrap_err().to_string();
        assert!(error.contains("there are 127 signatures already"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 127);
    }

    #[test]
    fn names_are_32_characters_and_each_is_another() {
        assert_eq!(name().len(), NAME_CHARACTERS);
        assert_ne!(name(), name());
    }
}
