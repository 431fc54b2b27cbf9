//! Writes signatures into lookaside folders: complete, durable, numbered without a gap, and never over another file.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use tempfile::{PathPersistError, TempPath};

use super::{
    format::{SignatureFormat, detect_format},
    lookaside::{self, MAX_FILES},
    write_error::{WriteError, Written},
};
use crate::files::durable::{create_folder_with, sync_folder};

/// The maximum length of the prefix in a file that says which kind of signature follows, in bytes.
const MAX_PREFIX: usize = 32;
/// The maximum size of a file in the folder, in bytes (containers/image's limit): beyond it, readers find no signature.
const MAX_FILE: u64 = 4 << 20;

/// Writes `signature-N` with the first free N. Readers stop at the first missing number, so there must be no gap.
/// Blocks.
pub(crate) fn write_file(folder: &Path, signature: &[u8]) -> Result<Written, WriteError> {
    write_file_on(folder, signature, |new, path| new.persist_noclobber(path), sync)
}

/// Writes as [`write_file`] does, with these ways to name and sync files, which depend on the file system.
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
        // The process that wrote the file may have ended before the sync.
        sync(folder).map_err(failed(folder))?;
        Ok(Written { place: path.display().to_string(), existed: true })
    };
    // Most signatures that exist already are found without writing a file.
    for path in (1..=MAX_FILES).map(place).take_while(|path| path.symlink_metadata().is_ok()) {
        if holds(&path, signature)? {
            return existed(&path);
        }
    }
    create_folder_with(folder, &sync).map_err(failed(folder))?;
    // Readable for all, less the umask. The temporary file is always removed.
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".new").permissions(fs::Permissions::from_mode(0o666));
    let new = builder.tempfile_in(folder).and_then(|mut new| {
        new.write_all(signature)?;
        new.as_file().sync_all()?;
        Ok(new.into_temp_path())
    });
    let mut new = new.map_err(failed(folder))?;
    for path in (1..=MAX_FILES).map(place) {
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

/// Syncs a folder, if its file system can.
fn sync(folder: &Path) -> io::Result<()> {
    match sync_folder(folder) {
        // Some file systems (CIFS, some FUSE ones) can't sync folders.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// Returns whether a file system supports neither hard links nor a rename that does not replace. FAT and object stores
/// report that with several error codes.
fn has_no_links(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)
}

/// Names a file by a rename that replaces, under a lock that excludes other processes which write with this function.
/// The lock ends with the process.
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

/// Returns whether an existing file contains this signature. Reads no more of a foreign file than that takes.
fn holds(path: &Path, signature: &[u8]) -> Result<bool, WriteError> {
    let in_the_way = |what: String| WriteError::InTheWay { path: path.to_owned(), what };
    // Follows links, as readers do.
    let length = match fs::metadata(path) {
        // Reading anything but a regular file could block for ever.
        Ok(metadata) if !metadata.is_file() => return Err(in_the_way("it is no file".to_owned())),
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            return Err(in_the_way("it is a link to nowhere".to_owned()));
        }
        Err(source) => return Err(WriteError::File { path: path.to_owned(), source }),
    };
    if length > MAX_FILE {
        return Err(in_the_way(format!("it has {length} bytes, more than any signature")));
    }
    if length > (signature.len() + MAX_PREFIX) as u64 {
        return Ok(false);
    }
    let there = lookaside::read_file(path, signature.len() + MAX_PREFIX);
    Ok(there
        .is_ok_and(|there| detect_format(&there) == SignatureFormat::SimpleSigning(signature) || there == signature))
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

    /// Returns the names in a folder, in order.
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
        assert!(fifo.contains("signature-1: it is no file: readers stop at it"), "{fifo}");
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
    fn concurrent_writers_without_links_replace_nothing_and_leave_nothing_half() {
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
}
