//! Structured logs on standard error.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use super::log_throttle::LimitedLines;

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text, for a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The environment variable that holds the filter, in the syntax of `RUST_LOG`: `info`, `sealgate=debug`, ...
pub const FILTER_VARIABLE: &str = "SEALGATE_LOG";

/// Leaves out the errors that actix logs for a client that breaks HTTP, or speaks TLS to a plain listener. The client
/// is to blame, and has its answer. An operator who wants these lines sets the variable.
const QUIET: &str = "actix_http::h1::dispatcher=off";

/// Sends all log lines to standard error from here on. `default_level` applies if the variable is not set.
///
/// # Errors
/// The filter in the variable is malformed, or logging was set up before.
pub fn start(format: Format, default_level: &str) -> anyhow::Result<()> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(&text).map_err(|error| anyhow::anyhow!("{FILTER_VARIABLE}={text}: {error}"))?
        }
        _ => EnvFilter::try_new(format!("{default_level},{QUIET}"))?,
    };
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // tracing would report a line that can't be written on the same standard error, and panic if that is closed.
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false).log_internal_errors(false);
    let layer = match format {
        Format::Text => lines.with_ansi(colours).boxed(),
        Format::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    let layer = layer.with_filter(LimitedLines::default());
    tracing_subscriber::registry().with(filter).with(layer).try_init()?;
    Ok(())
}
