//! The file or lookaside tree that an export is written to, or an import read from.

use std::{fmt, path::PathBuf, str::FromStr};

/// The argument that names where an export is written to, or an import read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TransferFile {
    /// `-`.
    Stream,
    /// `lookaside:FOLDER`.
    Tree(PathBuf),
    /// A file, or a tree, whatever is there.
    Plain(PathBuf),
}

impl FromStr for TransferFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("lookaside:") {
            Some("") => Err("a folder's name follows".to_owned()),
            Some(folder) => Ok(Self::Tree(folder.into())),
            None if text == "-" => Ok(Self::Stream),
            None if text.is_empty() => Err("expected a file, - or lookaside:FOLDER".to_owned()),
            None => Ok(Self::Plain(text.into())),
        }
    }
}

impl fmt::Display for TransferFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream => f.write_str("-"),
            Self::Tree(path) | Self::Plain(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_trees_and_files_are_told_apart_by_their_names() {
        for (text, name) in [
            ("-", TransferFile::Stream),
            ("backup.ndjson", TransferFile::Plain("backup.ndjson".into())),
            ("lookaside:tree", TransferFile::Tree("tree".into())),
        ] {
            assert_eq!(text.parse(), Ok(name), "{text}");
        }
        for text in ["", "lookaside:"] {
            assert!(text.parse::<TransferFile>().is_err(), "{text}");
        }
    }
}
