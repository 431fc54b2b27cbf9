//! Reads the lines of an export for an import.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use super::{
    error::TransferError,
    import_item::{ImportItem, ItemContent},
    item_location::ItemLocation,
    line_reader::{LineReader, RawLine},
};
use crate::gateway::export_format::{self, MAX_LINE_BYTES};

/// The lines of an export.
pub(crate) struct ExportLines {
    path: PathBuf,
    reader: LineReader<Box<dyn BufRead + Send>>,
    total: Option<u64>,
    begun: bool,
    /// The first line, read ahead to recognize a file that is no export.
    ahead: Option<ImportItem>,
}

impl ExportLines {
    /// Opens a regular file.
    pub(crate) fn open(path: &Path) -> Result<Self, TransferError> {
        // Checked before the file is opened: opening a pipe would wait for a writer.
        let about = fs::metadata(path).map_err(TransferError::file(path))?;
        if !about.is_file() {
            let why = "it is not a regular file (- reads standard input)".to_owned();
            return Err(TransferError::NotAnExport { path: path.to_owned(), why });
        }
        let file = fs::File::open(path).map_err(TransferError::file(path))?;
        Self::new(path, Box::new(BufReader::new(file)), Some(about.len()))
    }

    /// Reads from standard input.
    pub(crate) fn standard_input() -> Result<Self, TransferError> {
        Self::new(Path::new("standard input"), Box::new(BufReader::new(io::stdin())), None)
    }

    fn new(path: &Path, reader: Box<dyn BufRead + Send>, total: Option<u64>) -> Result<Self, TransferError> {
        let mut lines =
            Self { path: path.to_owned(), reader: LineReader::new(reader), total, begun: false, ahead: None };
        lines.ahead = lines.next()?;
        Ok(lines)
    }

    pub(super) fn bytes(&self) -> (u64, Option<u64>) {
        (self.reader.bytes, self.total)
    }

    pub(super) fn next(&mut self) -> Result<Option<ImportItem>, TransferError> {
        if let Some(found) = self.ahead.take() {
            return Ok(Some(found));
        }
        loop {
            let Some(raw) = self.reader.next().map_err(TransferError::file(&self.path))? else { return Ok(None) };
            let place = ItemLocation::Line(self.reader.number);
            let begins = !std::mem::replace(&mut self.begun, true);
            let (line, torn) = match &raw {
                RawLine::Whole(line) => (line.trim_ascii(), false),
                RawLine::Torn(line) => (line.trim_ascii(), true),
                RawLine::Long(begin) => (begin.as_slice(), false),
            };
            if begins && let Some(why) = is_something_else(line) {
                return Err(TransferError::NotAnExport { path: self.path.clone(), why: why.to_owned() });
            }
            if matches!(raw, RawLine::Long(_)) {
                let why = format!("the line has more than {MAX_LINE_BYTES} bytes");
                return Ok(Some(ImportItem { place, what: ItemContent::Junk(why) }));
            }
            if line.is_empty() {
                self.begun = !begins;
                continue;
            }
            let what = match export_format::read(line) {
                Ok((image, record)) => match export_format::check(&image, &record) {
                    Ok(_) => ItemContent::Signature(Box::new((image, record))),
                    Err(why) => ItemContent::Junk(why),
                },
                Err(_) if torn => ItemContent::Junk("the line has no end: the file is cut off here".to_owned()),
                Err(why) => ItemContent::Junk(why),
            };
            return Ok(Some(ImportItem { place, what }));
        }
    }
}

/// Recognizes what else a file with this first line is, if it is no export at all.
fn is_something_else(line: &[u8]) -> Option<&'static str> {
    match line {
        [0x1f, 0x8b, ..] => Some("it is compressed; give what `gunzip` makes of it"),
        [b'r', b'e', b'd', b'b', ..] => Some("it is a store's own file; `sealgate store export` reads it"),
        [] | [b'{', _, ..] => None,
        _ => Some("its first line is no JSON object"),
    }
}
