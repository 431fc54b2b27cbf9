//! A tar archive, as an index of the files in it.
//!
//! The tar crate parses headers. The walk over the archive is our own, because it has to be bounded: long names and
//! extension headers are read into memory, and the author of the archive controls their size.

use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use ::tar::{EntryType, Header, PaxExtensions};

use super::{data::Data, error::SourceError};

const BLOCK: u64 = 512;
const NOTHING: [u8; 512] = [0; 512];
/// The maximum number of entries.
const MAX_ENTRIES: usize = 65_536;
/// The maximum size of a name or of a link's target, in bytes.
const MAX_NAME: u64 = 8 << 10;
/// The maximum size of all names together, which are kept in memory, in bytes.
const MAX_NAME_BYTES: usize = 32 << 20;
/// The maximum size of an extension header, in bytes. Those with a file's extended attributes are the largest.
const MAX_EXTENSION: u64 = 1 << 20;
/// The maximum length of a chain of links.
const MAX_LINKS: usize = 8;

/// The first bytes of compressed files, each with the tool that decompresses them.
const COMPRESSED: [(&[u8], &str); 4] =
    [(&[0x1f, 0x8b], "gunzip"), (&[0x28, 0xb5, 0x2f, 0xfd], "unzstd"), (b"\xfd7zXZ", "unxz"), (b"BZh", "bunzip2")];

pub(super) struct Archive {
    path: PathBuf,
    file: Arc<File>,
    entries: HashMap<String, ArchiveEntry>,
    /// The size of all names so far, in bytes.
    names: usize,
}

enum ArchiveEntry {
    File {
        offset: u64,
        length: u64,
    },
    /// A target relative to the folder of the link.
    SymbolicLink(String),
    /// A target relative to the archive's root.
    HardLink(String),
    /// A file that can't be read in place, or a name that several entries have.
    Unusable(&'static str),
}

/// The attributes that extension headers give to the next entry.
#[derive(Default)]
struct PaxExtension {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl Archive {
    /// Opens an archive, and reads the headers of all entries.
    pub(super) fn open(path: &Path) -> Result<Self, SourceError> {
        let read = |source| SourceError::Read { path: path.to_owned(), source };
        let metadata = path.metadata().map_err(read)?;
        if !metadata.is_file() {
            let what = "it is no file (an archive that is piped in has to be written to one)".to_owned();
            return Err(SourceError::Malformed { place: path.display().to_string(), what });
        }
        let file = Arc::new(File::open(path).map_err(read)?);
        let mut archive = Self { path: path.to_owned(), file, entries: HashMap::new(), names: 0 };
        archive.index(metadata.len())?;
        Ok(archive)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn malformed(&self, what: impl Into<String>) -> SourceError {
        SourceError::Malformed { place: self.path.display().to_string(), what: what.into() }
    }

    fn index(&mut self, end: u64) -> Result<(), SourceError> {
        let mut at = 0;
        let mut extension = PaxExtension::default();
        for count in 0.. {
            if at == end {
                break;
            }
            if end - at < BLOCK {
                return Err(self.malformed(self.not_an_archive(at)));
            }
            let mut block = NOTHING;
            let read = self.file.read_exact_at(&mut block, at);
            read.map_err(|source| SourceError::Read { path: self.path.clone(), source })?;
            if block == NOTHING {
                break;
            }
            if count == MAX_ENTRIES {
                let place = self.path.display().to_string();
                return Err(SourceError::TooMany { place, what: "entries", limit: MAX_ENTRIES });
            }
            let header = Header::from_byte_slice(&block);
            let said = header.cksum().map_err(|_| self.malformed(self.not_an_archive(at)))?;
            let sum = |range: std::ops::Range<usize>| block[range].iter().map(|&byte| u32::from(byte)).sum::<u32>();
            if sum(0..148) + sum(156..512) + 8 * u32::from(b' ') != said {
                return Err(self.malformed(self.not_an_archive(at)));
            }
            let kind = header.entry_type();
            let has_content = !(kind.is_dir()
                || kind.is_symlink()
                || kind.is_hard_link()
                || matches!(kind, EntryType::Char | EntryType::Block | EntryType::Fifo));
            let length = match extension.size.filter(|_| kind.is_file() || kind.is_contiguous()) {
                Some(length) => length,
                None if has_content => {
                    let bad = |_| self.malformed(format!("the entry at byte {at} has no size"));
                    header.entry_size().map_err(bad)?
                }
                None => 0,
            };
            let offset = at + BLOCK;
            let next = length.checked_next_multiple_of(BLOCK).and_then(|length| offset.checked_add(length));
            let content_end = offset.checked_add(length).filter(|content_end| *content_end <= end);
            let (Some(next), Some(_)) = (next, content_end) else {
                return Err(self.malformed(format!("it is truncated: the entry at byte {at} goes on behind its end")));
            };
            self.entry(header, (offset, length), &mut extension)?;
            // The padding of the last entry may be missing.
            at = next.min(end);
        }
        Ok(())
    }

    fn not_an_archive(&self, at: u64) -> String {
        let mut start = [0; 8];
        // A shorter file has none of these beginnings.
        let read = self.file.read_at(&mut start, 0).unwrap_or(0);
        let compressed = COMPRESSED.iter().find(|(magic, _)| start[..read].starts_with(magic));
        match compressed {
            Some((_, tool)) if at == 0 => format!("it is compressed: decompress it first ({tool})"),
            _ if at == 0 => "it is no tar archive".to_owned(),
            _ => format!("it is truncated or damaged: there is no tar header at byte {at}"),
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        (offset, length): (u64, u64),
        extension: &mut PaxExtension,
    ) -> Result<(), SourceError> {
        let kind = header.entry_type();
        let content = |limit: u64| {
            let length = usize::try_from(length).ok().filter(|_| length <= limit);
            let Some(length) = length else {
                return Err(self.malformed(format!("the header at byte {offset} has more than {limit} bytes")));
            };
            let read = Data::of(Arc::clone(&self.file), offset, length as u64, "").read_at(0, length);
            read.map_err(|source| SourceError::Read { path: self.path.clone(), source })
        };
        let until_nul = |bytes: Vec<u8>| bytes.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
        match kind {
            EntryType::GNULongName => extension.name = Some(until_nul(content(MAX_NAME)?)),
            EntryType::GNULongLink => extension.link = Some(until_nul(content(MAX_NAME)?)),
            EntryType::XHeader => {
                let bytes = content(MAX_EXTENSION)?;
                for record in PaxExtensions::new(&bytes) {
                    let bad = |_| self.malformed(format!("the extension header at byte {offset} is malformed"));
                    let record = record.map_err(bad)?;
                    let name = || match record.value_bytes() {
                        name if name.len() as u64 > MAX_NAME => {
                            Err(self.malformed(format!("a name at byte {offset} has more than {MAX_NAME} bytes")))
                        }
                        name => Ok(Some(name.to_vec())),
                    };
                    match record.key_bytes() {
                        b"path" => extension.name = name()?,
                        b"linkpath" => extension.link = name()?,
                        b"size" => {
                            let size = record.value().ok().and_then(|value| value.parse().ok());
                            let bad = || self.malformed(format!("the size at byte {offset} is no number"));
                            extension.size = Some(size.ok_or_else(bad)?);
                        }
                        key if key.starts_with(b"GNU.sparse.") => extension.sparse = true,
                        _ => {}
                    }
                }
            }
            EntryType::XGlobalHeader => {}
            _ => {
                let PaxExtension { name, link, size: _, sparse } = std::mem::take(extension);
                let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
                let link = link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
                let link = link.and_then(|link| String::from_utf8(link).ok()).unwrap_or_default();
                // Names in other encodings are never looked for.
                let name = String::from_utf8(name).ok().and_then(|name| within("", &name));
                let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(()) };
                self.names += name.len() + link.len();
                if self.names > MAX_NAME_BYTES {
                    let (place, what) = (self.path.display().to_string(), "bytes of names");
                    return Err(SourceError::TooMany { place, what, limit: MAX_NAME_BYTES });
                }
                let entry = match kind {
                    _ if sparse || kind.is_gnu_sparse() => ArchiveEntry::Unusable("is stored sparsely"),
                    EntryType::Regular | EntryType::Continuous => ArchiveEntry::File { offset, length },
                    EntryType::Symlink => ArchiveEntry::SymbolicLink(link),
                    EntryType::Link => ArchiveEntry::HardLink(link),
                    _ => return Ok(()),
                };
                // Readers disagree about which of two entries with one name counts.
                self.entries
                    .entry(name)
                    .and_modify(|first| *first = ArchiveEntry::Unusable("is there twice"))
                    .or_insert(entry);
            }
        }
        Ok(())
    }

    /// Finds a file, through links that stay inside the archive.
    pub(super) fn find(&self, name: &str) -> Result<Data, SourceError> {
        let place = || self.path.display().to_string();
        let outside = || SourceError::Outside { place: place(), name: name.to_owned() };
        let mut at = within("", name).ok_or_else(outside)?;
        for _ in 0..=MAX_LINKS {
            at = match self.entries.get(&at) {
                None => return Err(SourceError::Missing { place: place(), name: name.to_owned() }),
                Some(ArchiveEntry::File { offset, length }) => {
                    return Ok(Data::of(Arc::clone(&self.file), *offset, *length, name));
                }
                Some(ArchiveEntry::Unusable(why)) => return Err(self.malformed(format!("{name:?} {why}"))),
                Some(ArchiveEntry::HardLink(target)) => within("", target).ok_or_else(outside)?,
                Some(ArchiveEntry::SymbolicLink(target)) => {
                    let folder = at.rsplit_once('/').map_or("", |(folder, _)| folder);
                    within(folder, target).ok_or_else(outside)?
                }
            };
        }
        Err(self.malformed(format!("{name:?} is a link to a link to a link, and so on")))
    }
}

/// Resolves a relative path in a folder of the archive; returns `None` if it leads out of the archive.
fn within(folder: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use ::tar::Builder;
    use proptest::prelude::*;
    use tempfile::NamedTempFile;

    use super::*;

    fn opened(bytes: &[u8]) -> Result<Archive, SourceError> {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Archive::open(file.path())
    }

    fn header(kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header
    }

    fn add(builder: &mut Builder<Vec<u8>>, name: &str, content: &[u8]) {
        let mut header = header(EntryType::Regular, content.len() as u64);
        builder.append_data(&mut header, name, content).unwrap();
    }

    fn link(builder: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, target: &str) {
        builder.append_link(&mut header(kind, 0), name, target).unwrap();
    }

    fn content(archive: &Archive, name: &str) -> Result<String, String> {
        let data = archive.find(name).map_err(|error| error.to_string())?;
        let mut text = String::new();
        data.reader().unwrap().read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn files_are_found_by_name_and_through_links_inside() {
        let mut builder = Builder::new(Vec::new());
        let long = format!("{}/layer.tar", "a".repeat(200));
        add(&mut builder, "./manifest.json", b"[]");
        add(&mut builder, &long, b"layer");
        link(&mut builder, EntryType::Symlink, "b/layer.tar", &format!("../{long}"));
        link(&mut builder, EntryType::Link, "c", "manifest.json");
        let archive = opened(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(content(&archive, "manifest.json").unwrap(), "[]");
        assert_eq!(content(&archive, &long).unwrap(), "layer");
        assert_eq!(content(&archive, "b/layer.tar").unwrap(), "layer");
        assert_eq!(content(&archive, "c").unwrap(), "[]");
        assert!(content(&archive, "d").unwrap_err().contains("has no"));
    }

    #[test]
    fn nothing_outside_is_reached() {
        let mut builder = Builder::new(Vec::new());
        link(&mut builder, EntryType::Symlink, "absolute", "/etc/passwd");
        link(&mut builder, EntryType::Symlink, "up", "../../etc/passwd");
        link(&mut builder, EntryType::Link, "hard", "../etc/passwd");
        link(&mut builder, EntryType::Symlink, "loop", "loop");
        let archive = opened(&builder.into_inner().unwrap()).unwrap();
        for name in ["absolute", "up", "hard", "../etc/passwd", "/etc/passwd", "x/../../y"] {
            assert!(content(&archive, name).unwrap_err().contains("leads out"), "{name}");
        }
        assert!(content(&archive, "loop").unwrap_err().contains("link to a link"));
    }

    #[test]
    fn what_two_readers_would_see_differently_is_not_read() {
        let mut builder = Builder::new(Vec::new());
        add(&mut builder, "twice", b"one");
        add(&mut builder, "./twice", b"two");
        builder.append_data(&mut header(EntryType::GNUSparse, 3), "sparse", b"abc".as_slice()).unwrap();
        builder.append_pax_extensions([("GNU.sparse.major", b"1".as_slice())]).unwrap();
        add(&mut builder, "modern", b"abc");
        let archive = opened(&builder.into_inner().unwrap()).unwrap();
        assert!(content(&archive, "twice").unwrap_err().contains("is there twice"));
        assert!(content(&archive, "sparse").unwrap_err().contains("sparsely"));
        assert!(content(&archive, "modern").unwrap_err().contains("sparsely"));
    }

    #[test]
    fn a_damaged_or_foreign_file_is_told_apart() {
        let mut builder = Builder::new(Vec::new());
        add(&mut builder, "file", &[b'x'; 2000]);
        let bytes = builder.into_inner().unwrap();
        let error = |bytes: &[u8]| opened(bytes).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(error(&bytes), "");
        assert!(error(&bytes[..1000]).contains("is truncated: the entry at byte 0"));
        assert!(error(&bytes[..300]).contains("is no tar archive"));
        assert!(error(b"\x1f\x8b\x08\x00\x00\x00").contains("gunzip"));
        assert!(error(&[b"PK".as_slice(), &[7; 600]].concat()).contains("is no tar archive"));
        let mut damaged = bytes.clone();
        damaged[3] ^= 1;
        assert!(error(&damaged).contains("is no tar archive"));
    }

    #[test]
    fn names_and_extensions_are_bounded() {
        for (kind, size) in [(EntryType::GNULongName, MAX_NAME + 1), (EntryType::XHeader, MAX_EXTENSION + 1)] {
            let mut header = header(kind, size);
            header.set_cksum();
            let mut bytes = header.as_bytes().to_vec();
            bytes.resize(bytes.len() + usize::try_from(size.next_multiple_of(BLOCK)).unwrap(), b'a');
            let error = opened(&bytes).err().expect("too large").to_string();
            assert!(error.contains("has more than"), "{error}");
        }
    }

    #[test]
    fn names_in_extensions_are_as_long_as_others_may_be() {
        let longest = usize::try_from(MAX_NAME).unwrap();
        for record in ["path", "linkpath"] {
            let with = |length: usize| {
                let mut builder = Builder::new(Vec::new());
                builder.append_pax_extensions([(record, "a".repeat(length).as_bytes())]).unwrap();
                add(&mut builder, "file", b"abc");
                opened(&builder.into_inner().unwrap()).err().map(|error| error.to_string())
            };
            assert_eq!(with(longest), None);
            let error = with(longest + 1).expect("too long");
            assert!(error.contains("a name at byte 512 has more than 8192 bytes"), "{error}");
        }
    }

    #[test]
    fn all_names_together_are_bounded() {
        let count = MAX_NAME_BYTES / usize::try_from(MAX_NAME).unwrap();
        let with = |count: usize| {
            let mut builder = Builder::new(Vec::new());
            for number in 0..count {
                let name = format!("{number:08192}");
                builder.append_pax_extensions([("path", name.as_bytes())]).unwrap();
                add(&mut builder, "file", b"");
            }
            opened(&builder.into_inner().unwrap()).err().map(|error| error.to_string())
        };
        assert_eq!(with(count), None);
        let error = with(count + 1).expect("too many");
        assert!(error.contains("more than 33554432 bytes of names"), "{error}");
    }

    #[test]
    fn a_size_in_an_extension_counts() {
        let mut builder = Builder::new(Vec::new());
        builder.append_pax_extensions([("size", b"18446744073709551615".as_slice())]).unwrap();
        add(&mut builder, "file", b"abc");
        let error = opened(&builder.into_inner().unwrap()).err().expect("larger than the archive").to_string();
        assert!(error.contains("truncated"), "{error}");
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_are_reading_ends(changes in proptest::collection::vec((0_usize..4096, any::<u8>()), 0..8)) {
            let mut builder = Builder::new(Vec::new());
            add(&mut builder, &format!("{}/x", "a".repeat(150)), b"layer");
            link(&mut builder, EntryType::Symlink, "b", "c");
            let mut bytes = builder.into_inner().unwrap();
            for (at, value) in changes {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            if let Ok(archive) = opened(&bytes) {
                let _ = archive.find("b");
            }
        }
    }
}
