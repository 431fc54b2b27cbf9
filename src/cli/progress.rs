//! The progress of a push (a bar for each blob on a terminal, otherwise a line), and of a transfer (one bar, or
//! nothing).

use std::{
    collections::HashMap,
    fmt,
    io::{self, IsTerminal as _, Write as _},
    sync::{Mutex, PoisonError},
};

use bytesize::ByteSize;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::image::Digest;
use crate::image_files::ImageBlob;
use crate::push::PushObserver;
use crate::registry::BlobOutcome;

/// The format of a bar, without colours, which `NO_COLOR` may forbid.
const BAR: &str = "{prefix} {msg:12} [{bar:32}] {bytes}/{total_bytes}";
const DONE: &str = "{prefix} {msg:12} {total_bytes}";
const TALLY: &str = "{msg}";
const TALLY_OF: &str = "[{bar:32}] {bytes}/{total_bytes} {msg}";

/// Returns whether standard error is a terminal that can redraw a line.
fn is_watched() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Shows the progress of a push on standard error.
pub(super) struct PushProgress {
    /// `None` if standard error is no terminal.
    bars: Option<MultiProgress>,
    of: Mutex<HashMap<Digest, ProgressBar>>,
}

impl PushProgress {
    pub(super) fn new() -> Self {
        let bars = is_watched().then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        Self { bars, of: Mutex::new(HashMap::new()) }
    }

    /// Reports that a layer is being compressed.
    pub(super) fn compressing(&self, layer: &Digest, done: u64, all: u64) {
        self.with(layer, all, |bar| {
            bar.set_message("compressing");
            bar.set_position(done);
            if done >= all {
                bar.finish_and_clear();
            }
        });
    }

    fn with(&self, digest: &Digest, all: u64, change: impl FnOnce(&ProgressBar)) {
        let Some(bars) = &self.bars else { return };
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = of.entry(*digest).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new(all)).with_prefix(short(digest));
            if let Ok(style) = ProgressStyle::with_template(BAR) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        change(bar);
    }
}

impl PushObserver for PushProgress {
    fn sent(&self, blob: &ImageBlob, bytes: u64) {
        self.with(&blob.digest, blob.data.length(), |bar| {
            bar.set_message("pushing");
            bar.set_position(bytes);
        });
    }

    fn settled(&self, blob: &ImageBlob, outcome: BlobOutcome) {
        let (length, words) = (blob.data.length(), words(outcome));
        if self.bars.is_none() {
            // If standard error is closed, there is no other place for the error.
            let _ = writeln!(io::stderr(), "{} {words} ({})", short(&blob.digest), ByteSize::b(length));
        }
        self.with(&blob.digest, length, |bar| {
            if let Ok(style) = ProgressStyle::with_template(DONE) {
                bar.set_style(style);
            }
            bar.finish_with_message(words);
        });
    }
}

/// A counter that is shown while it grows.
pub(super) struct ProgressCounter(Option<ProgressBar>);

impl ProgressCounter {
    /// Makes a counter. `total` is its final value, if that is known.
    pub(super) fn new(total: Option<u64>) -> Self {
        Self(is_watched().then(|| {
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
            let template = if total.is_some() { TALLY_OF } else { TALLY };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        }))
    }

    pub(super) fn at(&self, bytes: u64, words: fmt::Arguments<'_>) {
        if let Some(bar) = &self.0 {
            bar.set_position(bytes);
            bar.set_message(words.to_string());
        }
    }

    /// Removes the counter; the result has the number.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn words(outcome: BlobOutcome) -> &'static str {
    match outcome {
        BlobOutcome::Pushed => "pushed",
        BlobOutcome::Mounted => "mounted",
        BlobOutcome::Present => "is there",
    }
}

/// Returns the first characters of a digest, enough to identify it.
fn short(digest: &Digest) -> String {
    digest.to_string().chars().take(19).collect()
}
