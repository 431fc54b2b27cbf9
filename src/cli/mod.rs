//! The command line. docs/command-line.md describes it to its users.

mod arguments;
mod report;
mod sources;
mod status;
mod terminal;
mod verify;

use std::{process::ExitCode, sync::LazyLock};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use self::status::Failure;

/// Lets a Kubernetes cluster run only the images whose signatures its policy trusts.
#[derive(Debug, Parser)]
#[command(name = "sealgate", version = VERSION.as_str(), arg_required_else_help = true, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check an image's signatures against a policy, as the gate would
    Verify(Box<verify::Arguments>),
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    // Clap prints help and usage errors itself, and ends with 0 and 2.
    let CommandLine { command } = CommandLine::parse();
    let status = match command {
        Command::Verify(arguments) => verify::run(&arguments),
    };
    match status {
        Ok(status) => status.into(),
        Err(failure) => {
            terminal::complain(&failure);
            failure.status.into()
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("threads can't be started").map_err(Failure::undecided)
}

/// The version, and where the build says it, what it was built from.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    match option_env!("SEALGATE_REVISION") {
        Some(revision) => format!("{version} ({revision}, {target})"),
        None => format!("{version} ({target})"),
    }
});

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn what_is_missing_or_unknown_is_a_usage_error() {
        for wrong in [
            &["sealgate", "verify"][..],
            &["sealgate", "verify", "a", "b"],
            &["sealgate", "verify", "a", "--output", "xml"],
            &["sealgate", "verify", "a", "--creds", "x", "--authfile", "y"],
            &["sealgate", "verify", "a", "--tls-verify", "false"],
            &["sealgate", "polish"],
        ] {
            let error = CommandLine::try_parse_from(wrong).expect_err(&wrong.join(" "));
            assert_eq!(error.exit_code(), 2, "{wrong:?}");
        }
    }
}
