//! Reads the signatures of a lookaside tree: `<path>@<algorithm>=<hex>/signature-N` (containers-registries.d(5)). A tree has no
//! names, origins or statuses.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{
    error::TransferError,
    import_item::{ImportItem, ItemContent},
    item_location::ItemLocation,
};
use crate::gateway::export_format;
use crate::gateway::store::{ImageId, Origin, Record, RepositoryName, SignatureName, StoredSignature};
use crate::image::Digest;
use crate::signature_sources::{
    SignatureFormat, detect_format,
    lookaside::{parse_folder_name, read_file},
};

/// The maximum size of a file, in bytes: no store accepts a larger signature.
const MAX_FILE: usize = export_format::MAX_LINE_BYTES;

/// Walks a lookaside tree, folder after folder, in order. Opens only folders and regular files, and follows no symbolic
/// links, so that everything it reads is inside the tree.
pub(crate) struct TreeReader {
    base: PathBuf,
    /// The pending entries; the last one is next.
    todo: Vec<PendingEntry>,
    /// The time that imported signatures get as the time of their addition.
    now: Timestamp,
}

enum PendingEntry {
    Folder(PathBuf),
    Signature(ImageId, PathBuf),
    Found(ImportItem),
}

impl TreeReader {
    /// Opens the tree at this folder.
    pub(crate) fn open(base: &Path) -> Result<Self, TransferError> {
        let mut walk = Self { base: base.to_owned(), todo: Vec::new(), now: Timestamp::now() };
        walk.enter(base).map_err(TransferError::file(base))?;
        Ok(walk)
    }

    pub(super) fn next(&mut self) -> Option<ImportItem> {
        loop {
            match self.todo.pop()? {
                PendingEntry::Found(found) => return Some(found),
                PendingEntry::Signature(image, path) => {
                    let what = match self.read(image, &path) {
                        Ok(signature) => ItemContent::Signature(Box::new(signature)),
                        Err(why) => ItemContent::Junk(why),
                    };
                    return Some(ImportItem { place: ItemLocation::Path(path), what });
                }
                PendingEntry::Folder(folder) => {
                    if let Err(error) = self.enter(&folder) {
                        return Some(junk(folder, format!("it can't be read: {error}")));
                    }
                }
            }
        }
    }

    /// Schedules the entries of a folder before all other pending entries.
    fn enter(&mut self, folder: &Path) -> io::Result<()> {
        let image = self.image_of(folder);
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // Files that an interrupted write left begin with a dot, too.
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                entries.push((entry.path(), entry.file_type()?));
            }
        }
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut todo = Vec::new();
        let mut numbered = Vec::new();
        for (path, kind) in entries {
            match (&image, number_of(&path)) {
                (Some(_), Some(number)) if kind.is_file() => numbered.push((number, path)),
                (None, _) if kind.is_dir() => todo.push(match self.name_of(&path) {
                    Ok(()) => PendingEntry::Folder(path),
                    Err(why) => PendingEntry::Found(junk(path, why)),
                }),
                _ => todo.push(PendingEntry::Found(junk(path, what_it_is(kind, image.is_some()).to_owned()))),
            }
        }
        numbered.sort_unstable();
        let mut expected = 1;
        for (number, path) in numbered {
            if number != expected {
                let missing = folder.join(format!("signature-{expected}"));
                todo.push(PendingEntry::Found(ImportItem {
                    place: ItemLocation::Path(missing),
                    what: ItemContent::Gap,
                }));
            }
            expected = number.saturating_add(1);
            if let Some(image) = &image {
                todo.push(PendingEntry::Signature(image.clone(), path));
            }
        }
        self.todo.extend(todo.into_iter().rev());
        Ok(())
    }

    /// Returns a folder's path relative to the tree, in the form of a repository name.
    fn below(&self, path: &Path) -> Option<String> {
        path.strip_prefix(&self.base).ok()?.to_str().map(str::to_owned)
    }

    /// Returns the image whose signatures this folder contains.
    fn image_of(&self, folder: &Path) -> Option<ImageId> {
        let below = self.below(folder)?;
        let (path, digest) = parse_folder_name(&below)?;
        Some(ImageId { repository: RepositoryName::parse(path).ok()?, digest })
    }

    /// Checks that this folder, or a folder below it, can contain signatures.
    fn name_of(&self, folder: &Path) -> Result<(), String> {
        let below = self.below(folder).ok_or("its name is not UTF-8")?;
        match below.split_once('@') {
            Some((path, _)) => {
                RepositoryName::parse(path).map_err(|error| error.to_string())?;
                parse_folder_name(&below).map(drop).ok_or_else(|| "its name ends with no digest".to_owned())
            }
            None => RepositoryName::parse(&below).map(drop).map_err(|error| error.to_string()),
        }
    }

    /// Reads a signature in the form that a store accepts. The name is derived from the content, so that it is the same
    /// each time.
    fn read(&self, image: ImageId, path: &Path) -> Result<(ImageId, Record), String> {
        let bytes = read_file(path, MAX_FILE).map_err(|error| format!("it can't be read: {error}"))?;
        if bytes.len() > MAX_FILE {
            return Err(format!("it has more than {MAX_FILE} bytes"));
        }
        let content = match detect_format(&bytes) {
            SignatureFormat::SimpleSigning(content) => content,
            SignatureFormat::Sigstore => {
                return Err("it is a signature of sigstore, which a store does not keep".to_owned());
            }
            // The later check of the signature reports what the file is.
            SignatureFormat::Page | SignatureFormat::Unknown => &bytes,
        };
        let name = SignatureName::parse(&Digest::sha256(content).hex()[..32]).ok_or("it has no name")?;
        let signature = StoredSignature { name, content: content.into() };
        let mut record = Record { signature, origin: None, status: None };
        let issuers = export_format::check(&image, &record)?;
        record.origin = Some(Origin { added_by: None, added_at: self.now, issuers });
        Ok((image, record))
    }
}

fn junk(path: PathBuf, why: String) -> ImportItem {
    ImportItem { place: ItemLocation::Path(path), what: ItemContent::Junk(why) }
}

/// Returns the N of `signature-N`.
fn number_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix("signature-")?;
    let number: u64 = digits.parse().ok()?;
    (number > 0 && number.to_string() == digits).then_some(number)
}

fn what_it_is(kind: fs::FileType, in_image: bool) -> &'static str {
    if kind.is_symlink() {
        "it is a symbolic link, and those are not followed"
    } else if kind.is_dir() {
        "a folder of signatures has no folders in it"
    } else if !kind.is_file() {
        "it is neither a file nor a folder"
    } else if in_image {
        "its name is not signature-N"
    } else {
        "it is in no folder of an image's signatures"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(base: &Path) -> Vec<String> {
        let mut walk = TreeReader::open(base).unwrap();
        let mut found = Vec::new();
        while let Some(ImportItem { place: ItemLocation::Path(path), what }) = walk.next() {
            let what = match what {
                ItemContent::Signature(signature) => format!("of {}", signature.0.repository.as_str()),
                ItemContent::Junk(why) => why,
                ItemContent::Gap => "gap".to_owned(),
            };
            found.push(format!("{}: {what}", path.strip_prefix(base).unwrap().display()));
        }
        found
    }

    #[test]
    fn a_tree_is_gone_through_in_order_and_whatever_does_not_belong_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        let write = |path: &str, content: &[u8]| {
            let path = base.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let (one, other) = ("0".repeat(64), "1".repeat(64));
        let image = |path: &str, hex: &str, file: &str| format!("{path}@sha256={hex}/{file}");
        for number in [1, 2, 10, 12] {
            write(&image("acme/web", &one, &format!("signature-{number}")), b"");
        }
        write(&image("acme/web", &one, "signature-01"), b"");
        write(&image("acme/web", &one, "signature-0"), b"");
        write(&image("acme/web", &one, ".x.new"), b"");
        write(&image("acme/web", &one, "inner/signature-1"), b"");
        write(&image("acme", &other, "signature-1"), &vec![0x90; MAX_FILE + 1]);
        write(&image("Acme", &one, "signature-1"), b"");
        write("acme/web@sha256=00/signature-1", b"");
        write("acme/readme", b"");
        std::os::unix::fs::symlink("/", base.join("link")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", base.join(image("acme/web", &one, "signature-3"))).unwrap();
        let pipe = base.join(image("acme/web", &one, "signature-4")).display().to_string();
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        let name = "an image's name is written in lower case";
        let is = |found: &[String], expected: &[String]| {
            let close =
                found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| f.starts_with(e.as_str()));
            assert!(close, "{found:#?}\n{expected:#?}");
        };
        let in_web = |file: &str, what: &str| format!("{}: {what}", image("acme/web", &one, file));
        is(
            &walked(base),
            &[
                format!("Acme@sha256={one}: {name}"),
                "acme/readme: it is in no folder".to_owned(),
                "acme/web@sha256=00: its name ends with no digest".to_owned(),
                in_web("inner", "a folder of signatures has no folders"),
                in_web("signature-0", "its name is not signature-N"),
                in_web("signature-01", "its name is not signature-N"),
                in_web("signature-3", "it is a symbolic link"),
                in_web("signature-4", "it is neither a file nor a folder"),
                in_web("signature-1", "content is not a signature: it is empty"),
                in_web("signature-2", "content is not a signature: it is empty"),
                in_web("signature-3", "gap"),
                in_web("signature-10", "content is not a signature: it is empty"),
                in_web("signature-11", "gap"),
                in_web("signature-12", "content is not a signature: it is empty"),
                format!("{}: it has more than", image("acme", &other, "signature-1")),
                "link: it is a symbolic link".to_owned(),
            ],
        );
        assert!(TreeReader::open(&base.join("none")).is_err());
    }
}
