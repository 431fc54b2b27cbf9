//! Snapshots of what programs print: what is another in each run is replaced by an example.

use std::fmt::Display;

/// Asserts that a text is the snapshot of this name in `tests/integration/snapshots`.
macro_rules! assert_reads {
    ($name:expr, $text:expr) => {
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/snapshots"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!($name, $text);
        });
    };
}
pub(crate) use assert_reads;

/// Values that are others in each run, with the examples that stand for them in snapshots.
#[derive(Default)]
pub(crate) struct Masks(Vec<(String, String)>);

impl Masks {
    /// Has an example stand for a value. Earlier values are replaced first.
    pub(crate) fn value(mut self, value: &(impl Display + ?Sized), example: &str) -> Self {
        self.0.push((value.to_string(), example.to_owned()));
        self
    }

    /// Has an example stand for a key's fingerprint of 40 digits, in each of the forms in which it is shown.
    pub(crate) fn key(self, fingerprint: &str, example: &str) -> Self {
        let short = |key: &str| format!("{}…{}", &key[..8], &key[32..]);
        self.value(fingerprint, example)
            .value(&short(fingerprint), &short(example))
            .value(&fingerprint[24..], &example[24..])
    }

    /// Returns the text with examples in it, and with `2026-01-02T03:04:05Z` in place of every time.
    pub(crate) fn apply(&self, text: &str) -> String {
        let text = self.0.iter().fold(text.to_owned(), |text, (value, example)| text.replace(value, example));
        without_times(&text)
    }
}

fn without_times(text: &str) -> String {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let mut rest = text;
    let mut result = String::new();
    while let Some(at) = rest.find('T') {
        let start = at.checked_sub("0000-00-00".len()).and_then(|start| rest.get(start..start + SHAPE.len()));
        let is_time = start.is_some_and(|time| {
            time.bytes()
                .zip(SHAPE)
                .all(|(byte, shape)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == *shape })
        });
        let after = &rest[at + 1..];
        if !is_time {
            result.push_str(&rest[..=at]);
            rest = after;
            continue;
        }
        result.push_str(&rest[..at - "0000-00-00".len()]);
        result.push_str("2026-01-02T03:04:05Z");
        let after = &after["00:00:00".len()..];
        let fraction = |character: char| character == '.' || character.is_ascii_digit();
        rest = after.trim_start_matches(fraction);
        rest = rest.strip_prefix('Z').unwrap_or(rest);
    }
    result + rest
}

#[test]
fn times_and_values_are_replaced_and_nothing_else() {
    let key = "81A2B3C4D5E6F708192A3B4C5D6E7F8091A2B302";
    let masks = Masks::default().value("127.0.0.1:5", "HOST").key(key, "0000000011111111222222223333333344444444");
    let text = "To 127.0.0.1:5 T at 2099-11-30T01:02:03.123Z, 2099-11-30T01:02:03Z; 2099-11-30; 12T; 0x81A2B3C4…91A2B302 5D6E7F8091A2B302";
    let shown = "To HOST T at 2026-01-02T03:04:05Z, 2026-01-02T03:04:05Z; 2099-11-30; 12T; 0x00000000…44444444 3333333344444444";
    assert_eq!(masks.apply(text), shown);
}
