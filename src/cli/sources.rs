//! Files that people write, read whole and bounded: policies, the keys that they name, the configuration.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::diagnostic::Diagnostic;
use crate::policy::{self, KeyFileError, Policy, SourceFile};

/// The most bytes of a policy or configuration file. A ConfigMap has at most 1 MiB in all.
const LARGEST_FILE: u64 = 4 << 20;
/// The most bytes of a key file.
const LARGEST_KEY: u64 = 4 << 20;
/// The most files of a policy folder.
const MOST_FILES: usize = 1_000;
/// The files of a folder that are policies.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads a policy file or folder, and the keys that it names.
///
/// # Errors
/// Every mistake that can be found at once. Never empty.
pub(super) fn load_policy(path: &Path) -> Result<Policy, Vec<Diagnostic>> {
    let files = read_policy(path)?;
    policy::load(&files, &mut read_key)
}

/// Reads the files of a policy: `path` itself, or those below it that are policies by their extension. Folders are read
/// flat; names with a dot in front are left out, as a ConfigMap's mount has them.
///
/// # Errors
/// A folder without policies; what can't be read.
pub(super) fn read_policy(path: &Path) -> Result<Vec<SourceFile>, Vec<Diagnostic>> {
    let one = |mistake| vec![mistake];
    let failed = |error: &io::Error| one(Diagnostic::of_file(&path.display().to_string(), in_words(error)));
    if !fs::metadata(path).map_err(|error| failed(&error))?.is_dir() {
        return Ok(vec![read_source(path).map_err(|mistake| one(*mistake))?]);
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| failed(&error))? {
        let entry = entry.map_err(|error| failed(&error))?;
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with('.');
        let path = entry.path();
        let ours = path
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| EXTENSIONS.contains(&extension));
        // Metadata follows symbolic links; a folder called x.yaml is none of ours.
        if !hidden && ours && !fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        let mistake = Diagnostic::of_file(&path.display().to_string(), "no policy is in this folder");
        return Err(one(mistake.suggest("policies are *.yaml, *.yml and *.json; folders below are not looked into")));
    }
    if paths.len() > MOST_FILES {
        let message = format!("{} files are in this folder, over the limit of {MOST_FILES}", paths.len());
        return Err(one(Diagnostic::of_file(&path.display().to_string(), message)));
    }
    paths.sort();
    let mut files = Vec::new();
    let mut mistakes = Vec::new();
    for path in paths {
        match read_source(&path) {
            Ok(file) => files.push(file),
            Err(mistake) => mistakes.push(*mistake),
        }
    }
    if mistakes.is_empty() { Ok(files) } else { Err(mistakes) }
}

/// Reads a policy or configuration file.
///
/// # Errors
/// It can't be read, or is too large.
pub(super) fn read_source(path: &Path) -> Result<SourceFile, Box<Diagnostic>> {
    let name = path.display().to_string();
    let mistake = |message: String| Box::new(Diagnostic::of_file(&name, message));
    let bytes = read_bounded(path, LARGEST_FILE).map_err(|error| mistake(in_words(&error)))?;
    let bytes = bytes.ok_or_else(|| mistake(format!("it has more than {LARGEST_FILE} bytes")))?;
    let absolute = std::path::absolute(path).map_err(|error| mistake(in_words(&error)))?;
    let folder = absolute.parent().map_or_else(PathBuf::new, Path::to_owned);
    Ok(SourceFile { name: name.into(), folder, bytes })
}

fn read_key(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(KeyFileError::NotAFile),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(KeyFileError::Missing),
        Err(error) => return Err(KeyFileError::Unreadable(in_words(&error))),
    }
    match read_bounded(path, LARGEST_KEY) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(KeyFileError::TooLarge { limit: LARGEST_KEY }),
        Err(error) => Err(KeyFileError::Unreadable(in_words(&error))),
    }
}

/// Nothing: there are more bytes than `limit`.
fn read_bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        io::ErrorKind::IsADirectory => "this is a folder, not a file".to_owned(),
        io::ErrorKind::PermissionDenied => "it may not be read by this user".to_owned(),
        _ => format!("it can't be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[SourceFile]) -> Vec<String> {
        let name = |file: &SourceFile| Path::new(&*file.name).file_name().unwrap().to_string_lossy().into_owned();
        files.iter().map(name).collect()
    }

    #[test]
    fn a_folder_is_read_flat_as_a_config_map_mounts_it() {
        let folder = tempfile::tempdir().unwrap();
        let below = |name: &str| folder.path().join(name);
        fs::create_dir(below("..2026")).unwrap();
        fs::write(below("..2026/b.yaml"), "b").unwrap();
        fs::create_dir(below("deep.yaml")).unwrap();
        fs::write(below("deep.yaml/c.yaml"), "c").unwrap();
        fs::write(below("a.json"), "a").unwrap();
        fs::write(below("notes.txt"), "").unwrap();
        fs::write(below(".hidden.yaml"), "").unwrap();
        std::os::unix::fs::symlink("..2026/b.yaml", below("b.yml")).unwrap();
        let files = read_policy(folder.path()).unwrap();
        assert_eq!(names(&files), ["a.json", "b.yml"]);
        assert_eq!(files[1].bytes, b"b");
        assert_eq!(files[1].folder, folder.path());
    }

    #[test]
    fn a_folder_without_policies_and_a_link_to_nowhere_are_mistakes() {
        let folder = tempfile::tempdir().unwrap();
        let mistakes = read_policy(folder.path()).unwrap_err();
        assert_eq!(mistakes[0].message, "no policy is in this folder");
        std::os::unix::fs::symlink("gone", folder.path().join("a.yaml")).unwrap();
        let mistakes = read_policy(folder.path()).unwrap_err();
        assert_eq!(mistakes[0].message, "there is no such file or folder");
        assert!(read_policy(&folder.path().join("gone")).is_err());
    }

    #[test]
    fn what_is_too_large_or_no_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large");
        File::create(&large).unwrap().set_len(LARGEST_KEY + 1).unwrap();
        assert_eq!(read_key(&large), Err(KeyFileError::TooLarge { limit: LARGEST_KEY }));
        assert!(read_source(&large).unwrap_err().message.contains("more than"));
        assert_eq!(read_key(folder.path()), Err(KeyFileError::NotAFile));
        assert_eq!(read_key(&folder.path().join("gone")), Err(KeyFileError::Missing));
    }
}
