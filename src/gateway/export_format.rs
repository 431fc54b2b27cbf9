//! The format of exports: one JSON object a line (NDJSON) for each signature, with its origin and status.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    store::{Changed, ImageId, Origin, Put, Record, RepositoryName, SignatureName, Status, StoredSignature},
    submission::{MAX_CONTENT_BYTES, issuers_of},
};
use crate::image::Digest;
use crate::json;
use crate::signature::MAX_ISSUERS;

/// The media type of exports.
pub const NDJSON: &str = "application/x-ndjson";
/// The maximum length of a line, in bytes: the largest signature in base64, and a dozen texts of 512 bytes, half of
/// which may need escapes.
pub const MAX_LINE_BYTES: usize = MAX_CONTENT_BYTES / 3 * 4 + (16 << 10);
/// The maximum number of signatures of an import whose refusals are reported with a reason.
pub const MAX_REASONS: usize = 100;

/// A line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    repository: String,
    digest: String,
    /// The last 32 characters of the signature's name.
    name: String,
    /// The message, in base64.
    content: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

/// Appends a line, with its line end.
pub fn write(lines: &mut Vec<u8>, image: &ImageId, record: &Record) {
    let Record { signature, origin, status } = record;
    let line = Line {
        repository: image.repository.as_str().to_owned(),
        digest: image.digest.to_string(),
        name: signature.name.as_str().to_owned(),
        content: BASE64_STANDARD.encode(&signature.content),
        origin: origin.clone(),
        status: status.clone(),
    };
    serde_json::to_writer(&mut *lines, &line).expect("strings and times are JSON");
    lines.push(b'\n');
}

/// Parses a line. [`check`] decides whether a store accepts the signature.
///
/// # Errors
/// Returns the reason why it is no line of an export, for users.
pub fn read(line: &[u8]) -> Result<(ImageId, Record), String> {
    let line: Line = json::from_object(line).map_err(|error| format!("not a line of an export: {error}"))?;
    let Line { repository, digest, name, content, origin, status } = line;
    let repository = RepositoryName::parse(&repository).map_err(|error| error.to_string())?;
    let digest = Digest::parse(&digest).map_err(|error| error.to_string())?;
    let name = SignatureName::parse(&name).ok_or("name must be 32 characters of A-Z a-z 0-9 _ . -")?;
    let content = BASE64_STANDARD.decode(content).map_err(|error| format!("content is not base64: {error}"))?;
    let signature = StoredSignature { name, content: content.into() };
    Ok((ImageId { repository, digest }, Record { signature, origin, status }))
}

/// Checks a signature to import as a PUT is checked, and its origin and status. Returns the keys that the signature
/// names.
///
/// # Errors
/// Returns the reason why a store does not accept it, for users.
pub fn check(image: &ImageId, record: &Record) -> Result<Vec<Box<str>>, String> {
    let Record { signature, origin, status } = record;
    if signature.content.len() > MAX_CONTENT_BYTES {
        return Err(format!("a signature has at most {MAX_CONTENT_BYTES} bytes"));
    }
    let issuers = issuers_of(&signature.content, &image.digest)?;
    if origin.as_ref().is_some_and(|origin| origin.issuers.len() > MAX_ISSUERS) {
        return Err(format!("origin names more than {MAX_ISSUERS} keys"));
    }
    if !origin.as_ref().is_none_or(Origin::is_plain) || !status.as_ref().is_none_or(Status::is_plain) {
        return Err("origin or status has more than 512 bytes in a member, or control characters".to_owned());
    }
    if status.as_ref().is_some_and(|status| *status.finding.digest != *image.digest.to_string()) {
        return Err("the status is of another digest".to_owned());
    }
    Ok(issuers)
}

/// The outcome of an import.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// The number of new signatures.
    pub created: usize,
    /// The number of signatures that were there, and to which an origin or status was added.
    #[serde(default)]
    pub completed: usize,
    /// The number of signatures that were there already, and did not change.
    pub present: usize,
    /// The number of refused signatures.
    pub refused: usize,
    /// The reasons of the first [`MAX_REASONS`].
    pub reasons: Vec<Reason>,
}

/// The reason why a line is refused.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reason {
    /// The number of the line, from 1.
    pub line: usize,
    /// The reason, for users.
    pub reason: String,
}

impl Imported {
    /// Counts the outcome of a line.
    pub fn count(&mut self, line: usize, outcome: Result<Changed, String>) {
        let put = outcome.and_then(|changed| match changed {
            Changed::Put(put) => Ok(put),
            // Other changes have other outcomes.
            Changed::Signatures(_) | Changed::Another => Err("the store answers something else".to_owned()),
        });
        let reason = match put {
            Ok(Put::Created) => {
                self.created += 1;
                return;
            }
            Ok(Put::Completed) => {
                self.completed += 1;
                return;
            }
            // A signature under another name counts as present, too.
            Ok(Put::Present | Put::ContentExists) => {
                self.present += 1;
                return;
            }
            Ok(Put::NameExists) => "the image has another signature of this name".to_owned(),
            Ok(Put::TooMany { limit } | Put::TooManyOfSigner { limit }) => {
                format!("the image, or the signer of this one, has {limit} signatures, as many as may be")
            }
            Ok(Put::TooLong { limit }) => format!("the image's list would have more than {limit} bytes"),
            Ok(Put::TooLongOfSigner { limit }) => {
                format!("its signer's part of the image's list would have more than {limit} bytes")
            }
            Err(reason) => reason,
        };
        self.refused += 1;
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push(Reason { line, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::store::Finding;

    fn record(content: &[u8], words: &str) -> (ImageId, Record) {
        let digest = Digest::sha256(b"image");
        let image = ImageId { repository: RepositoryName::parse("acme/web").unwrap(), digest };
        let name = SignatureName::parse(&"a".repeat(32)).unwrap();
        let at = "2026-11-26T00:00:00Z".parse().unwrap();
        let origin = Origin { added_by: Some(words.into()), added_at: at, issuers: vec![words.into()] };
        let finding =
            Finding { key: words.into(), signer: None, identity: words.into(), digest: digest.to_string().into() };
        let status = Status { verified_by: None, verified_at: at, finding };
        let signature = StoredSignature { name, content: content.into() };
        (image, Record { signature, origin: Some(origin), status: Some(status) })
    }

    #[test]
    fn the_largest_signature_with_the_longest_words_is_a_line() {
        let (image, record) = record(&vec![0x90; MAX_CONTENT_BYTES], &"\"".repeat(512));
        let mut line = Vec::new();
        write(&mut line, &image, &record);
        assert!(line.len() <= MAX_LINE_BYTES, "{}", line.len());
    }

    #[test]
    fn what_is_no_line_is_refused_with_a_reason() {
        let (image, record) = record(b"\x90", "jane");
        let mut line = Vec::new();
        write(&mut line, &image, &record);
        let line = String::from_utf8(line).unwrap();
        for (text, reason) in [
            ("", "not a line of an export"),
            ("{}", "missing field `repository`"),
            (&line.replace("\"acme/web\"", "\"../web\""), "components"),
            (&line.replace("\"acme/web\"", "1"), "invalid type"),
            (&line.replace("sha256:", "sha257:"), "digest"),
            (&line.replace(&"a".repeat(32), "a"), "32 characters"),
            (&line.replace("\"content\":\"", "\"content\":\"!"), "base64"),
            (&line.replacen('{', "{\"later\":1,", 1), "unknown field"),
            (&line.replacen('{', "{\"name\":\"x\",", 1), "duplicate field"),
        ] {
            let refused = read(text.as_bytes()).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again_the_same(content in any::<Vec<u8>>(), words in "\\PC{0,40}") {
            let (image, record) = record(&content, &words);
            let mut line = Vec::new();
            write(&mut line, &image, &record);
            prop_assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(line.len() - 1), "one line");
            prop_assert_eq!(read(&line).unwrap(), (image, record));
        }

        #[test]
        fn reading_never_panics(line in any::<Vec<u8>>(), text in "[{}\\[\\]\":,a-z0-9 ]{0,80}") {
            for line in [line.as_slice(), text.as_bytes()] {
                if let Ok((image, record)) = read(line) {
                    let _ = check(&image, &record);
                }
            }
        }
    }
}
