//! Lookaside trees: `BASE/<path>@<algorithm>=<hex>/signature-N`, for N from 1 until the first missing one
//! (containers-registries.d(5)).

use std::{fs, io, io::Read, path::Path, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use url::Url;

use super::{
    format::{SignatureFormat, detect_format},
    source_answer::{SourceAnswer, url_of},
};
use crate::image::{Digest, Repository};
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::registry::{BlockingPool, Client, Failure, Fetched, RequestSpec, TimeBudget, join};
use crate::signature::UntrustedSignature;
use crate::telemetry::RequestKind;
use crate::verification::AskedSource;

/// The maximum number of entries (containers/image since 5.24: fewer than 128).
pub(super) const MAX_ENTRIES: usize = 128;
/// The maximum number of signatures written for one image. With [`MAX_ENTRIES`], containers/image reads none of them.
pub(super) const MAX_FILES: usize = MAX_ENTRIES - 1;
/// The number of failed entries after which the source counts as failed.
const MAX_FAILURES: usize = 3;
/// The number of entries fetched in parallel. Most images have one signature, so that the second request finds the end.
const MAX_CONCURRENT_FETCHES: usize = 2;
/// The name of a folder in messages.
const FOLDER: &str = "the signature folder";

/// Collects entries up to the first missing one.
struct Collector {
    found: SourceAnswer,
    failures: usize,
    bytes: usize,
    limit: usize,
    /// The entries come from a web server, and not from a folder.
    is_web: bool,
    /// The number of entries so far.
    number: usize,
}

/// The result of fetching one entry.
enum LookasideEntry {
    Bytes(Vec<u8>),
    NotThere,
    Failed(LookupError),
}

impl Collector {
    fn new(limit: usize, is_web: bool) -> Self {
        Self { found: SourceAnswer::default(), failures: 0, bytes: 0, limit, is_web, number: 0 }
    }

    /// Adds an entry. Returns whether to go on. `misbehaved` makes an error about this entry.
    fn add(&mut self, url: &Arc<str>, entry: LookasideEntry, misbehaved: impl Fn(String) -> LookupError) -> bool {
        match entry {
            LookasideEntry::NotThere => false,
            LookasideEntry::Failed(error) => self.fail(error),
            LookasideEntry::Bytes(bytes) => {
                self.bytes += bytes.len();
                if self.bytes > self.limit {
                    let limit = bytesize::ByteSize::b(self.limit as u64);
                    self.fail(misbehaved(format!("there are more than {limit} of signatures")));
                    return false;
                }
                self.number += 1;
                let content = match detect_format(&bytes) {
                    SignatureFormat::SimpleSigning(content) => content,
                    SignatureFormat::Sigstore => return true,
                    // A proxy answered in place of the server; the next request may reach the server.
                    SignatureFormat::Page if self.is_web => {
                        return self
                            .fail(misbehaved("a web page or JSON is there in the place of a signature".to_owned()));
                    }
                    // The user who put it there made a mistake; verification says which.
                    SignatureFormat::Page | SignatureFormat::Unknown => &bytes,
                };
                let signature =
                    UntrustedSignature { content: content.into(), source: Arc::clone(url), number: self.number };
                self.found.signatures.push(signature);
                true
            }
        }
    }

    fn fail(&mut self, error: LookupError) -> bool {
        let given_up = error.is_out_of_time();
        self.found.asked.push(AskedSource { url: url_of(&error), outcome: Err(error) });
        self.failures += 1;
        !given_up && self.failures < MAX_FAILURES
    }

    /// Returns the collected signatures. `url` is the folder of the image's signatures.
    fn finish(mut self, url: Arc<str>) -> SourceAnswer {
        let count = self.found.signatures.len();
        if count > 0 || self.failures == 0 {
            self.found.asked.insert(0, AskedSource { url, outcome: Ok(count) });
        }
        self.found
    }
}

/// Returns the name of the folder of an image's signatures, relative to the tree.
pub(crate) fn folder_name(path: &str, digest: &Digest) -> String {
    format!("{path}@{}={}", digest.algorithm(), digest.hex())
}

/// Returns the path and digest in a folder's name; `None` if it is no name of a folder of signatures.
pub(crate) fn parse_folder_name(name: &str) -> Option<(&str, Digest)> {
    let (path, digest) = name.split_once('@')?;
    let (algorithm, hex) = digest.split_once('=')?;
    Some((path, Digest::parse(&format!("{algorithm}:{hex}")).ok()?))
}

/// Asks a web server, without credentials.
pub(super) async fn web(
    client: &Client,
    url: &Url,
    repository: &Repository,
    digest: &Digest,
    budget: TimeBudget,
) -> Result<SourceAnswer, LookupError> {
    let mut target = client.target_at(url, repository)?;
    // As in containers/image, the query of the base URL follows each signature's name: it may be a shared access
    // signature.
    target.base.set_query(url.query());
    let name = folder_name(&target.path, digest);
    let limit = client.signature_list_bytes();
    let mut collector = Collector::new(limit, true);
    let fetch = |number: usize| {
        let path = format!("{name}/signature-{number}");
        let target = &target;
        async move {
            let what = RequestSpec { path: &path, accept: None, kind: RequestKind::Signatures, limit };
            let at = join(&target.base, &path);
            let entry = match client.fetch_plain(target, &what, budget).await {
                Ok(Fetched { answer, .. }) if answer.status == 404 => LookasideEntry::NotThere,
                Ok(Fetched { answer, .. }) => LookasideEntry::Bytes(answer.body.to_vec()),
                Err(error) => LookasideEntry::Failed(error),
            };
            (at, entry)
        }
    };
    let mut entries = stream::iter(1..=MAX_ENTRIES).map(fetch).buffered(MAX_CONCURRENT_FETCHES);
    let mut more = true;
    while more {
        let Some((at, entry)) = entries.next().await else { break };
        let shown: Arc<str> = shown(&at).into();
        more = collector.add(&shown, entry, |what| client.misbehaved(&target, &at, what, budget));
    }
    drop(entries);
    let folder = join(&target.base, &name);
    if more {
        let what = format!("there are more than {MAX_ENTRIES} signatures");
        collector.fail(client.misbehaved(&target, &folder, what, budget));
    }
    Ok(collector.finish(shown(&folder).into()))
}

/// Reads a folder.
pub(super) async fn folder(
    folders: &BlockingPool,
    url: &Url,
    repository: &Repository,
    digest: &Digest,
    limit: usize,
    budget: TimeBudget,
) -> Result<SourceAnswer, LookupError> {
    let failed = |failure: Failure| failure.at(FOLDER, url, budget.total());
    let base = url.to_file_path().map_err(|()| failed(Failure::Unavailable("its URL is no path".to_owned())))?;
    let folder = base.join(folder_name(repository.path(), digest));
    let total = budget.total();
    folders.run(budget.deadline, move || read_folder(&folder, limit, total)).await.map_err(failed)
}

fn read_folder(folder: &Path, limit: usize, total: Duration) -> SourceAnswer {
    let mut collector = Collector::new(limit, false);
    let mut more = true;
    let mut number = 0;
    while more && number < MAX_ENTRIES {
        number += 1;
        let path = folder.join(format!("signature-{number}"));
        let at = file_url(&path);
        let error = |failure: Failure| failure.at(FOLDER, &at, total);
        let entry = match read_file(&path, limit) {
            Ok(bytes) => LookasideEntry::Bytes(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => LookasideEntry::NotThere,
            Err(cause) => {
                tracing::warn!(path = %path.display(), error = %cause, "a signature can't be read");
                LookasideEntry::Failed(error(Failure::Unavailable("a file in it can't be read".to_owned())))
            }
        };
        let shown: Arc<str> = shown(&at).into();
        more = collector.add(&shown, entry, |what| error(Failure::Misbehaved(what)));
    }
    let at = file_url(folder);
    if more {
        let what = format!("there are more than {MAX_ENTRIES} signatures");
        collector.fail(Failure::Misbehaved(what).at(FOLDER, &at, total));
    }
    collector.finish(shown(&at).into())
}

/// Reads at most one byte more than the limit, so that the caller notices an excess. Refuses anything but a regular
/// file, which could block for ever.
pub(crate) fn read_file(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn file_url(path: &Path) -> Url {
    Url::from_file_path(path).unwrap_or_else(|()| Url::parse("file:///").expect("a constant"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_folders_name_is_read_as_it_is_made() {
        for digest in [Digest::sha256(b"image"), Digest::parse(&format!("sha512:{}", "0".repeat(128))).unwrap()] {
            assert_eq!(parse_folder_name(&folder_name("acme/web", &digest)), Some(("acme/web", digest)));
        }
        let hex = "0".repeat(64);
        for other in [
            "acme",
            "@",
            "acme@",
            "acme@sha256",
            "acme@sha256=00",
            &format!("acme@sha256:{hex}"),
            &format!("acme@sha257={hex}"),
        ] {
            assert_eq!(parse_folder_name(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_folder_that_hangs_takes_no_more_threads_than_it_may_and_ends_at_the_deadline() {
        let folders = BlockingPool::new(1);
        let (end, wait) = mpsc::channel::<()>();
        let soon = || TimeBudget::of(Duration::from_millis(50));
        assert!(folders.run(soon().deadline, move || wait.recv()).await.is_err());
        let url = Url::parse("file:///no/such/folder").unwrap();
        let repository = Repository::parse("r.example.com/acme/web").unwrap();
        let digest = Digest::sha256(b"image");
        let read = |budget| folder(&folders, &url, &repository, &digest, 1 << 20, budget);
        assert!(matches!(read(soon()).await, Err(LookupError::TimedOut { .. })));
        drop(end);
        assert!(read(TimeBudget::of(Duration::from_secs(30))).await.is_ok());
    }
}
