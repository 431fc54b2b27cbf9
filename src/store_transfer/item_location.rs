//! Where a signature was found, or should be.

use std::path::{Path, PathBuf};

/// Where something was found, or should be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ItemLocation {
    /// A line's number, from 1 on.
    Line(usize),
    /// A file or folder.
    #[serde(serialize_with = "as_shown")]
    Path(PathBuf),
}

/// A path as people are shown it: what is not UTF-8 in it does not keep a report from being JSON.
fn as_shown<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl std::fmt::Display for ItemLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}
