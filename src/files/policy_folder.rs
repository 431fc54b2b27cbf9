//! The policy folder, or a single policy file.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::{ReadError, read_bounded, with_reserve};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::image::{Repository, Scope};
use crate::policy::{self, Action, Dialect, KeyFileError, Policy, SourceFile, policy_json};
use crate::signature::keyring::MAX_KEYRING_BYTES;

/// The maximum size of a policy file, in bytes. It may contain keys.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// The maximum number of policy files in a folder.
const MAX_FILES: usize = 1_000;
/// The link that Kubernetes replaces when it changes a mounted ConfigMap.
const CONFIG_MAP_DATA: &str = "..data";

/// The policy's files, and how to read them.
#[derive(Clone, Debug)]
pub struct PolicyFiles {
    /// The path of one file, or of a folder, which is read flat: `*.yaml`, `*.yml` and `*.json`, through symbolic
    /// links, without names that begin with a dot.
    pub path: PathBuf,
    /// Accepts a policy.json whose default accepts anything.
    pub accept_anything_by_default: bool,
    /// Requires pods to name digests.
    pub pin_required: bool,
}

/// The reason why a policy can't be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyLoadError {
    /// The folder, or a file in it, can't be read.
    #[error("policies {}: {why}", path.display())]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// The reason.
        #[source]
        why: ReadError,
    },
    /// The folder has no policy file.
    #[error("policies {}: the folder has no policy file (*.yaml, *.yml or *.json)", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The folder has too many files.
    #[error("policies {}: a policy has at most {limit} files", path.display())]
    TooManyFiles {
        /// The folder.
        path: PathBuf,
        /// The maximum.
        limit: usize,
    },
    /// The policy has these mistakes.
    #[error("{}", Diagnostics(.0))]
    Refused(Vec<Diagnostic>),
    /// A key file exists, and the system does not let it be read.
    #[error("{}", Diagnostics(.0))]
    KeysUnreadable(Vec<Diagnostic>),
    /// A policy.json allows every image that it does not name.
    #[error(
        "policies {}: the default of this policy.json accepts anything: whatever it does not name would run unsigned\n  \
         help: write \"default\": [{{\"type\": \"reject\"}}], or, to have it so, acceptAnythingByDefault: true in the \
         configuration",
        path.display()
    )]
    AcceptsAnything {
        /// The folder or file.
        path: PathBuf,
    },
    /// A policy.json requires signatures of a tag, while pods have to name digests.
    #[error(
        "policies {}: the scope {scope} of this policy.json can let no pod run: it covers images by tag alone, and a pod \
         has to name the digest of an image that must be signed\n  \
         help: write the scope {repository}; or webhook.pin: off in the configuration",
        path.display()
    )]
    TagRequiresSignatures {
        /// The folder or file.
        path: PathBuf,
        /// The scope.
        scope: Box<Scope>,
        /// The text to write in its place.
        repository: Repository,
    },
}

impl PolicyLoadError {
    /// Returns whether the content of the files is unknown because they could not be read. An empty folder counts: that
    /// is what a lost volume leaves.
    pub(crate) fn is_unread(&self) -> bool {
        matches!(self, Self::Unreadable { .. } | Self::KeysUnreadable(_) | Self::Empty { .. })
    }
}

impl PolicyFiles {
    /// Reads and checks the policy.
    pub fn load(&self) -> Result<Policy, PolicyLoadError> {
        self.load_noting_folders(&mut BTreeSet::new())
    }

    /// Loads the policy as [`PolicyFiles::load`] does. Adds the folders in which a change may change the policy,
    /// whether they exist or not.
    pub(crate) fn load_noting_folders(&self, folders: &mut BTreeSet<PathBuf>) -> Result<Policy, PolicyLoadError> {
        // Kubernetes replaces all files of a mounted ConfigMap in one step. A read that began before it and ended after
        // it would make a policy that no user wrote.
        const ATTEMPTS: usize = 5;
        let mut result = None;
        for _ in 0..ATTEMPTS {
            let before = self.mounted();
            result = Some(self.load_once(folders));
            if self.mounted() == before {
                break;
            }
        }
        match result {
            Some(result) => result,
            None => self.load_once(folders),
        }
    }

    /// Returns the folder that a mounted ConfigMap shows now, in the policy folder or around the policy file.
    fn mounted(&self) -> [Option<PathBuf>; 2] {
        let data = |folder: &Path| fs::read_link(folder.join(CONFIG_MAP_DATA)).ok();
        [data(&self.path), parent(&self.path).and_then(|folder| data(&folder))]
    }

    fn load_once(&self, folders: &mut BTreeSet<PathBuf>) -> Result<Policy, PolicyLoadError> {
        folders.extend(parent(&self.path));
        let files = self.read(folders)?;
        let mut keys_unread = false;
        let policy = policy::load(&files, &mut |path| {
            folders.extend(parent(path));
            let key = read_key(path);
            keys_unread |= matches!(key, Err(KeyFileError::Unreadable(_)));
            key
        });
        let refused = if keys_unread { PolicyLoadError::KeysUnreadable } else { PolicyLoadError::Refused };
        let policy = policy.map_err(refused)?;
        let accepts_anything =
            policy.cluster.dialect == Dialect::PolicyJson && policy_json::accepts_anything_by_default(&policy.cluster);
        if accepts_anything && !self.accept_anything_by_default {
            return Err(PolicyLoadError::AcceptsAnything { path: self.path.clone() });
        }
        if self.pin_required {
            for (scope, rule) in policy.cluster.rules.iter() {
                if let (Scope::Tag(repository, _), Action::Require(_)) = (&scope, &rule.action) {
                    let (path, repository) = (self.path.clone(), repository.clone());
                    return Err(PolicyLoadError::TagRequiresSignatures { path, scope: Box::new(scope), repository });
                }
            }
        }
        Ok(policy)
    }

    fn read(&self, folders: &mut BTreeSet<PathBuf>) -> Result<Vec<SourceFile>, PolicyLoadError> {
        let unreadable = |path: &Path, why: ReadError| PolicyLoadError::Unreadable { path: path.to_owned(), why };
        let read = |path: PathBuf, folder: &Path| {
            let bytes = read_bounded(&path, MAX_FILE_BYTES).map_err(|why| unreadable(&path, why))?;
            Ok(SourceFile { name: path.display().to_string().into(), folder: folder.to_owned(), bytes })
        };
        let metadata = fs::metadata(&self.path).map_err(|error| unreadable(&self.path, error.into()))?;
        if !metadata.is_dir() {
            return Ok(vec![read(self.path.clone(), &parent(&self.path).unwrap_or_default())?]);
        }
        folders.insert(self.path.clone());
        // The folder is closed before its files are opened: one descriptor at a time.
        let paths = with_reserve(|| policy_files_in(&self.path));
        let mut paths = paths.map_err(|error| unreadable(&self.path, error.into()))?;
        if paths.len() > MAX_FILES {
            return Err(PolicyLoadError::TooManyFiles { path: self.path.clone(), limit: MAX_FILES });
        }
        if paths.is_empty() {
            return Err(PolicyLoadError::Empty { path: self.path.clone() });
        }
        paths.sort();
        paths.into_iter().map(|path| read(path, &self.path)).collect()
    }
}

/// Returns the policy files of a folder, at most one more than [`MAX_FILES`].
fn policy_files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_policy_file(&entry.file_name().to_string_lossy()) {
            paths.push(entry.path());
        }
        if paths.len() > MAX_FILES {
            break;
        }
    }
    Ok(paths)
}

fn is_policy_file(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Returns the folder of a file; for a bare name, the working directory.
fn parent(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() })
}

fn read_key(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    read_bounded(path, MAX_KEYRING_BYTES as u64).map_err(|error| match error {
        ReadError::Missing => KeyFileError::Missing,
        ReadError::NotAFile => KeyFileError::NotAFile,
        ReadError::TooLarge { limit } => KeyFileError::TooLarge { limit },
        ReadError::Io(error) => KeyFileError::Unreadable(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_s_policy_files_are_those_that_are_not_hidden() {
        for name in ["a.yaml", "a.yml", "a.json", "a.b.yaml"] {
            assert!(is_policy_file(name), "{name}");
        }
        for name in ["..data", ".a.yaml", "a.yaml~", "a.asc", "yaml", "a.yaml.swp", "#a.yaml#"] {
            assert!(!is_policy_file(name), "{name}");
        }
    }

    #[test]
    fn a_swap_of_a_mounted_config_map_is_seen_around_a_folder_and_around_a_file() {
        let mount = tempfile::tempdir().unwrap();
        for path in [mount.path().to_owned(), mount.path().join("policy.json")] {
            let files = PolicyFiles { path, accept_anything_by_default: false, pin_required: true };
            let shown: Vec<_> = ["..one", "..two"]
                .map(|version| {
                    let link = mount.path().join("..new");
                    std::os::unix::fs::symlink(version, &link).unwrap();
                    fs::rename(link, mount.path().join(CONFIG_MAP_DATA)).unwrap();
                    files.mounted()
                })
                .into();
            assert_ne!(shown[0], shown[1]);
            assert_eq!(shown[1], files.mounted());
        }
    }

    #[test]
    fn the_folder_of_a_bare_name_is_the_working_directory() {
        assert_eq!(parent(Path::new("policy.yaml")), Some(PathBuf::from(".")));
        assert_eq!(parent(Path::new("a/policy.yaml")), Some(PathBuf::from("a")));
        assert_eq!(parent(Path::new("/")), None);
    }
}
