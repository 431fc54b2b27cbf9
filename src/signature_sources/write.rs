//! Putting signatures where they are found: an extension endpoint, or a lookaside folder.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use reqwest::Method;
use tempfile::{PathPersistError, TempPath};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};
use url::Url;

use super::{
    Entry, Kind, kind,
    lookaside::{self, MOST_ENTRIES},
};
use crate::configuration::SignatureSource;
use crate::files::durable::{create_folder_with, sync_folder};
use crate::image::{Digest, Repository};
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::registry::{Access, Budget, Client, Content, Extension, Fetched, Request, SaidNo, Target, What, error_body};
use crate::telemetry::RequestKind;

/// Signatures of one image in a lookaside folder. Of [`MOST_ENTRIES`], containers/image takes none.
const MOST_FILES: usize = MOST_ENTRIES - 1;

/// Bytes that may stand in front of a signature in a file and say of which kind it is.
const LONGEST_PREFIX: usize = 32;
/// Bytes of a file beside which readers find no signature (containers/image's limit of all that it reads there).
const LARGEST_FILE: u64 = 4 << 20;

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
    /// What stands in a signature's place would stop readers before they come to ours.
    #[error("{}: {what}: readers get no further, so take it away first", path.display())]
    InTheWay {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
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

/// Finds out whether signatures can go there at all, as far as that is known before there is one.
pub async fn check(
    client: &Client,
    destination: &Destination,
    repository: &Repository,
    deadline: Instant,
) -> Result<(), WriteError> {
    let budget = Budget::until(deadline);
    let target = match destination {
        Destination::RegistryExtension => extension(client, repository, budget).await?,
        Destination::Extension(url) => client.target_at(url, repository)?,
        Destination::Folder(_) => return Ok(()),
    };
    // Who may sign is said of repositories; the digest is any, and is left out of what is told.
    let path = format!("extensions/v2/{}/signatures/{}", target.path, Digest::sha256(b""));
    let what = What { path: &path, accept: None, kind: RequestKind::Signatures, limit: 64 << 10 };
    let request = Request::new(Method::OPTIONS, Access::Push);
    // A store says no in the same words as to a PUT. Whoever else has the extension need not know this question, and what
    // stands before it may refuse the method.
    let Fetched { url, answer } = client.send(&target, &what, request, budget).await?;
    match (answer.status, error_body::code(&answer.body).as_deref()) {
        (401, Some("UNAUTHORIZED")) | (403, Some("DENIED")) => {
            Err(SaidNo::of(&target, &url.join(".").unwrap_or(url), &answer).into())
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
    Ok(client.origin(&target, Budget::until(deadline)).await?.extension == Extension::Announced)
}

async fn extension(client: &Client, repository: &Repository, budget: Budget) -> Result<Target, WriteError> {
    let target = client.target(repository)?;
    if client.origin(&target, budget).await?.extension != Extension::Announced {
        return Err(WriteError::NoExtension { registry: (&*target.peer.registry).into() });
    }
    Ok(target)
}

async fn put(
    client: &Client,
    target: &Target,
    digest: &Digest,
    signature: &[u8],
    budget: Budget,
) -> Result<Written, WriteError> {
    let name = format!("{digest}@{}", name());
    // Numbers and strings can't fail to be JSON.
    let bytes = serde_json::to_vec(&Entry::new(name.clone(), signature)).expect("strings are JSON").into();
    let path = format!("extensions/v2/{}/signatures/{digest}", target.path);
    let what = What { path: &path, accept: Some("application/json"), kind: RequestKind::Signatures, limit: 64 << 10 };
    let content = Some(Content { kind: "application/json".into(), bytes, may_move: false });
    let request = Request { content, ..Request::new(Method::PUT, Access::Push) };
    let Fetched { url, answer } = client.send(target, &what, request, budget).await?;
    let at = || shown(&url);
    let place = format!("{}#{name}", at());
    match answer.status {
        200..=299 => Ok(Written { place, existed: false }),
        409 if error_body::code(&answer.body).as_deref() == Some("SIGNATURE_EXISTS") => {
            Ok(Written { place: at().into(), existed: true })
        }
        404 => Err(WriteError::NoImage { url: at(), message: error_body::message(&answer.body) }),
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
/// This blocks.
pub(crate) fn write_file(folder: &Path, signature: &[u8]) -> Result<Written, WriteError> {
    write_file_on(folder, signature, |new, path| new.persist_noclobber(path), sync)
}

/// The same on a file system that names and syncs so.
fn write_file_on(
    folder: &Path,
    signature: &[u8],
    name_it: impl Fn(TempPath, &Path) -> Result<(), PathPersistError>,
    sync: impl Fn(&Path) -> io::Result<()>,
) -> Result<Written, WriteError> {
    use io::Write as _;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| WriteError::File { path, source }
    };
    let place = |number: usize| folder.join(format!("signature-{number}"));
    let existed = |path: &Path| {
        // Whoever wrote it may not have come to this.
        sync(folder).map_err(failed(folder))?;
        Ok(Written { place: path.display().to_string(), existed: true })
    };
    // Most that are there are found without a word written.
    for path in (1..=MOST_FILES).map(place).take_while(|path| path.symlink_metadata().is_ok()) {
        if holds(&path, signature)? {
            return existed(&path);
        }
    }
    create_folder_with(folder, &sync).map_err(failed(folder))?;
    // For all to read, less what the umask takes away. Whatever happens, it does not stay behind under this name.
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".new").permissions(fs::Permissions::from_mode(0o666));
    let new = builder.tempfile_in(folder).and_then(|mut new| {
        new.write_all(signature)?;
        new.as_file().sync_all()?;
        Ok(new.into_temp_path())
    });
    let mut new = new.map_err(failed(folder))?;
    for path in (1..=MOST_FILES).map(place) {
        let named = match name_it(new, &path) {
            Err(PathPersistError { error, path: new }) if has_no_links(&error) => name_alone(new, folder, &path),
            named => named,
        };
        match named {
            Ok(()) => {
                sync(folder).map_err(failed(folder))?;
                return Ok(Written { place: path.display().to_string(), existed: false });
            }
            Err(PathPersistError { error, path: back }) if error.kind() == io::ErrorKind::AlreadyExists => {
                if holds(&path, signature)? {
                    return existed(&path);
                }
                new = back;
            }
            Err(PathPersistError { error: source, .. }) => return Err(WriteError::File { path, source }),
        }
    }
    Err(WriteError::Full(folder.to_owned()))
}

/// What was made in a folder stays so, as far as its file system can see to that.
fn sync(folder: &Path) -> io::Result<()> {
    match sync_folder(folder) {
        // Some file systems (CIFS, some of FUSE's) don't sync folders, and nothing more can be done.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// Whether a file system can name a file neither by a link nor by a rename that replaces nothing: FAT and object stores say
/// so in several ways.
fn has_no_links(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)
}

/// Names a file where only a rename that replaces does that, while nobody else who writes like this may. The lock ends with
/// the process, whatever becomes of it.
fn name_alone(new: TempPath, folder: &Path, path: &Path) -> Result<(), PathPersistError> {
    let alone = fs::File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
    let free = alone.and_then(|alone| match path.symlink_metadata() {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(alone),
        Err(error) => Err(error),
    });
    match free {
        Ok(_alone) => new.persist(path),
        Err(error) => Err(PathPersistError { error, path: new }),
    }
}

/// Whether a file that is there is this signature. Of what others wrote, no more is read than that takes.
fn holds(path: &Path, signature: &[u8]) -> Result<bool, WriteError> {
    let in_the_way = |what: String| WriteError::InTheWay { path: path.to_owned(), what };
    // Through links, as readers do.
    let length = match fs::metadata(path) {
        // Anything but a file could block for ever.
        Ok(metadata) if !metadata.is_file() => return Err(in_the_way("it is no file".to_owned())),
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            return Err(in_the_way("it is a link to nowhere".to_owned()));
        }
        Err(source) => return Err(WriteError::File { path: path.to_owned(), source }),
    };
    if length > LARGEST_FILE {
        return Err(in_the_way(format!("it has {length} bytes, more than any signature")));
    }
    if length > (signature.len() + LONGEST_PREFIX) as u64 {
        return Ok(false);
    }
    let there = lookaside::read_file(path, signature.len() + LONGEST_PREFIX);
    Ok(there.is_ok_and(|there| kind(&there) == Kind::SimpleSigning(signature) || there == signature))
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

    /// What is left of a folder: its names, in order.
    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn folders_that_were_made_are_synced_up_to_one_that_was_there() {
        let base = tempfile::tempdir().unwrap();
        let synced = std::cell::RefCell::new(Vec::new());
        let note = |folder: &Path| {
            synced.borrow_mut().push(folder.strip_prefix(base.path()).unwrap().display().to_string());
            Ok(())
        };
        let folder = base.path().join("tree/acme/web@sha256=00");
        let write = |signature: &[u8]| {
            write_file_on(&folder, signature, |new, path| new.persist_noclobber(path), note).unwrap();
            synced.take()
        };
        assert_eq!(write(b"one"), ["", "tree", "tree/acme", "tree/acme/web@sha256=00"]);
        assert_eq!(write(b"two"), ["tree/acme/web@sha256=00"]);
        assert_eq!(write(b"two"), ["tree/acme/web@sha256=00"], "whoever wrote it may have died before");
    }

    #[test]
    fn what_is_written_is_for_all_to_read_as_other_files_are() {
        let folder = tempfile::tempdir().unwrap();
        write_file(folder.path(), b"a").unwrap();
        fs::write(folder.path().join("other"), "").unwrap();
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode("signature-1"), mode("other"));
    }

    #[test]
    fn what_others_put_in_a_signatures_place_is_refused_and_not_waited_for() {
        let refused = |make: &dyn Fn(&Path)| {
            let folder = tempfile::tempdir().unwrap();
            make(&folder.path().join("signature-1"));
            let error = write_file(folder.path(), b"signature").unwrap_err();
            assert!(matches!(error, WriteError::InTheWay { .. }), "{error}");
            assert_eq!(names(folder.path()), ["signature-1"]);
            error.to_string()
        };
        let fifo = refused(&|path| {
            assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        });
        assert!(fifo.contains("signature-1: it is no file: readers get no further"), "{fifo}");
        let link = |to: &'static str| move |path: &Path| std::os::unix::fs::symlink(to, path).unwrap();
        assert!(refused(&link("/dev/zero")).contains("it is no file"));
        assert!(refused(&link("nowhere")).contains("it is a link to nowhere"));
        assert!(refused(&|path| fs::create_dir(path).unwrap()).contains("it is no file"));
        // Of a terabyte nothing is read.
        let huge = refused(&|path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap());
        assert!(huge.contains("it has 1099511627776 bytes, more than any signature"), "{huge}");
    }

    #[test]
    fn a_link_to_a_signature_is_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("there"), "signature").unwrap();
        std::os::unix::fs::symlink("there", folder.path().join("signature-1")).unwrap();
        assert!(write_file(folder.path(), b"signature").unwrap().existed);
        assert!(!write_file(folder.path(), b"another").unwrap().existed);
        assert_eq!(names(folder.path()), ["signature-1", "signature-2", "there"]);
    }

    #[test]
    fn without_links_many_who_write_at_once_still_replace_nothing_and_leave_nothing_half() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("web@sha256=00");
        let no_links = |error: fn() -> io::Error| {
            move |new: TempPath, _: &Path| Err(PathPersistError { error: error(), path: new })
        };
        // EPERM, as FAT says it, and ENOSYS.
        let errors: [fn() -> io::Error; 2] = [|| io::Error::from_raw_os_error(1), || io::Error::from_raw_os_error(38)];
        std::thread::scope(|scope| {
            for number in 0..16 {
                let (folder, error) = (&folder, errors[number % 2]);
                scope.spawn(move || {
                    let signature = format!("{number}").repeat(1000);
                    write_file_on(folder, signature.as_bytes(), no_links(error), sync).unwrap();
                });
            }
        });
        let mut found: Vec<String> =
            (1..=16).map(|number| fs::read_to_string(folder.join(format!("signature-{number}"))).unwrap()).collect();
        let mut wanted: Vec<String> = (0..16).map(|number| format!("{number}").repeat(1000)).collect();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted);
        assert_eq!(names(&folder).len(), 16, "nothing is left beside them");
        assert!(write_file_on(&folder, found[0].as_bytes(), no_links(errors[0]), sync).unwrap().existed);
    }

    #[test]
    fn names_are_32_characters_and_each_is_another() {
        assert_eq!(name().len(), NAME_CHARACTERS);
        assert_ne!(name(), name());
    }
}
