//! Reads lines of bounded length.

use std::io::{self, BufRead, Read as _};

use crate::gateway::export_format::MAX_LINE_BYTES;

/// Reads lines. A line that is too long does not take more memory than the longest valid one.
pub(super) struct LineReader<R> {
    inner: R,
    /// The number of the last line, from 1.
    pub(super) number: usize,
    /// The bytes up to the end of the last line.
    pub(super) bytes: u64,
}

pub(super) enum RawLine {
    /// A line with its line end.
    Whole(Vec<u8>),
    /// The last line, without a line end.
    Torn(Vec<u8>),
    /// The beginning of a line that is too long. The rest is skipped.
    Long(Vec<u8>),
}

impl<R: BufRead> LineReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, number: 0, bytes: 0 }
    }

    pub(super) fn next(&mut self) -> io::Result<Option<RawLine>> {
        let mut line = Vec::new();
        let read = (&mut self.inner).take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.bytes += read as u64;
        if line.last() == Some(&b'\n') {
            return Ok(Some(RawLine::Whole(line)));
        }
        if read <= MAX_LINE_BYTES {
            return Ok(Some(RawLine::Torn(line)));
        }
        loop {
            let some = self.inner.fill_buf()?;
            let end = some.iter().position(|&byte| byte == b'\n');
            let skipped = end.map_or(some.len(), |end| end + 1);
            self.inner.consume(skipped);
            self.bytes += skipped as u64;
            if end.is_some() || skipped == 0 {
                return Ok(Some(RawLine::Long(line)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn lines_are_read_one_by_one_whatever_their_length() {
        let long = vec![b'x'; MAX_LINE_BYTES + 1];
        let longer = vec![b'x'; MAX_LINE_BYTES * 3];
        let text = [&b"one\n\n"[..], &long, b"\n", &longer, b"\ntorn"].concat();
        // A small buffer, so that lines lie across its end.
        let mut reader = LineReader::new(BufReader::with_capacity(7, text.as_slice()));
        let mut kinds = Vec::new();
        while let Some(raw) = reader.next().unwrap() {
            kinds.push(match raw {
                RawLine::Whole(line) => format!("{} {}", reader.number, line.len()),
                RawLine::Torn(line) => format!("{} torn {}", reader.number, line.len()),
                RawLine::Long(_) => format!("{} long", reader.number),
            });
        }
        assert_eq!(kinds, ["1 4", "2 1", "3 long", "4 long", "5 torn 4"]);
        assert_eq!(reader.bytes, text.len() as u64);
    }
}
