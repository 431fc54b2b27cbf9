//! Structured logs on standard error.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use super::log_throttle::LimitedLines;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The variable with the filter, in the syntax of `RUST_LOG`: `info`, `sealgate=debug`, ...
pub const FILTER_VARIABLE: &str = "SEALGATE_LOG";

/// Of a client that breaks HTTP (or speaks TLS where there is none) actix logs an error, though the client alone is to blame,
/// and has been answered: an operator who wants these lines asks for them.
const QUIET: &str = "actix_http::h1::dispatcher=off";

/// Sends everything that is logged from here on to standard error. `default_level` holds where the variable is not set.
///
/// # Errors
/// The filter in the variable is malformed; or logging was set up before.
pub fn start(format: Format, default_level: &str) -> anyhow::Result<()> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(&text).map_err(|error| anyhow::anyhow!("{FILTER_VARIABLE}={text}: {error}"))?
        }
        _ => EnvFilter::try_new(format!("{default_level},{QUIET}"))?,
    };
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // A line that can't be written would be told of on the same standard error, with a panic where that is closed.
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false).log_internal_errors(false);
    let layer = match format {
        Format::Text => lines.with_ansi(colours).boxed(),
        Format::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    let layer = layer.with_filter(LimitedLines::default());
    tracing_subscriber::registry().with(filter).with(layer).try_init()?;
    Ok(())
}
