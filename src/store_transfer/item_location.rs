//! The place of an item in a source or target.

use std::path::{Path, PathBuf};

/// The place of an item: a line or a path.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ItemLocation {
    /// The number of a line, from 1.
    Line(usize),
    /// A file or folder.
    #[serde(serialize_with = "as_shown")]
    Path(PathBuf),
}

/// Serializes a path as text. Bytes that are not UTF-8 are replaced, so that a report is always JSON.
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
