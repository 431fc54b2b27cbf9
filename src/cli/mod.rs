//! The command line. docs/command-line.md describes it to its users.

mod arguments;
mod completions;
mod exit_status;
mod image_arguments;
mod image_tree;
mod logins;
mod progress;
mod push;
mod report;
mod runtime;
mod sign;
mod signature_status;
mod signatures;
mod store;
mod terminal;
mod verify;

use std::{path::PathBuf, process::ExitCode, sync::LazyLock};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use self::exit_status::{CliError, ExitStatus};
use self::runtime::block_on;
use crate::telemetry::logging;
use crate::{files, startup};

/// Lets a Kubernetes cluster run only the images whose signatures its policy trusts.
#[derive(Debug, Parser)]
#[command(name = "sealgate", version = VERSION.as_str(), arg_required_else_help = true, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the gate: the admission webhook that allows or refuses images
    Serve(ServerArguments),
    /// Serve the store: the signature endpoint in front of a registry without one
    Gateway(ServerArguments),
    /// Check an image's signatures: against a policy, as the gate would, or against an identity
    Verify(Box<verify::VerifyArguments>),
    /// Sign an image that is in a registry
    Sign(Box<sign::SignArguments>),
    /// Push an image from files to a registry, and sign it there
    Push(Box<push::PushArguments>),
    /// List the signatures of an image, remove one, or clear their verification status
    #[command(subcommand)]
    Signatures(Box<signatures::SignaturesCommand>),
    /// Transfer all signatures of a store: to a file or a lookaside tree, and from there into a store
    #[command(subcommand)]
    Store(Box<store::StoreCommand>),
    /// Print completions for a shell
    Completions(completions::CompletionsArguments),
    /// Write the manual pages into a folder
    Man(completions::ManArguments),
}

/// The arguments of both servers.
#[derive(Args, Debug)]
struct ServerArguments {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Read and check everything that the configuration names, and stop before serving
    #[arg(long)]
    validate: bool,
    /// The format of log lines
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: logging::Format,
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let CommandLine { command } = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => return not_parsed(&error),
    };
    let status = match command {
        Command::Serve(arguments) => server(&arguments, ServerKind::Gate),
        Command::Gateway(arguments) => server(&arguments, ServerKind::Store),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Sign(arguments) => sign::run(*arguments),
        Command::Push(arguments) => push::run(*arguments),
        Command::Signatures(command) => signatures::run(*command),
        Command::Store(command) => store::run(*command),
        Command::Completions(arguments) => completions::print_completions(&arguments, CommandLine::command()),
        Command::Man(arguments) => completions::write_manual_pages(&arguments, CommandLine::command()),
    };
    match status {
        Ok(status) => status.into(),
        Err(failure) => {
            terminal::complain(&failure);
            failure.status.into()
        }
    }
}

/// Prints help and the version to standard output, with 0; usage errors to standard error, with 2. A usage error
/// repeats the arguments, except for the secrets of URLs.
fn not_parsed(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // If standard output is closed, there is no other place for the error.
        let _ = error.print();
        return ExitStatus::Done.into();
    }
    terminal::complain_of_usage(error);
    ExitStatus::Usage.into()
}

/// A server.
#[derive(Clone, Copy)]
enum ServerKind {
    Gate,
    Store,
}

fn server(arguments: &ServerArguments, server: ServerKind) -> Result<ExitStatus, CliError> {
    let ServerArguments { config, validate, log_format } = arguments;
    logging::start(*log_format, "info")?;
    let configuration = files::load_configuration(config).map_err(CliError::usage_of)?;
    let work = async {
        match server {
            ServerKind::Gate if *validate => startup::validate_gate(&configuration),
            ServerKind::Gate => startup::serve(&configuration).await,
            ServerKind::Store if *validate => startup::validate_store(&configuration).await,
            ServerKind::Store => startup::gateway(&configuration).await,
        }
    };
    block_on(work)?.map_err(CliError::usage_of)?;
    Ok(ExitStatus::Done)
}

/// The version, with the source revision if the build has one.
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
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn what_is_missing_or_unknown_is_a_usage_error() {
        for wrong in [
            &["sealgate", "serve"][..],
            &["sealgate", "verify"],
            &["sealgate", "verify", "a", "b"],
            &["sealgate", "verify", "a", "--output", "xml"],
            &["sealgate", "verify", "a", "--creds", "x", "--authfile", "y"],
            &["sealgate", "verify", "a", "--tls-verify", "false"],
            &["sealgate", "push", "oci:images", "r.example.com/acme/web"],
            &["sealgate", "push", "r.example.com/acme/web", "--sign-by", "release@example.com"],
            &["sealgate", "push", "dir:images", "r.example.com/acme/web", "--sign-by", "release@example.com"],
            &["sealgate", "verify", "a", "--expected-identity", "a", "--policy", "p"],
            &["sealgate", "verify", "a", "--expected-identity", "a", "--namespace", "n"],
            &["sealgate", "verify", "a", "--expected-identity", "a", "--save", "--remove-all"],
            &["sealgate", "verify", "a", "--expected-identity", "a", "--insecure", "--tls-verify=false"],
            &["sealgate", "verify", "a", "--expected-identity", "a", "--registry-url", "ftp://r.example.com"],
            &["sealgate", "verify", "a", "--remove-all", "--expected-identity", "a"],
            &["sealgate", "verify", "a", "--remove-all", "--public-key", "f"],
            &["sealgate", "verify", "a", "--policy", "p", "--save"],
            &["sealgate", "verify", "a", "--policy", "p", "--public-key", "f"],
            &["sealgate", "verify", "a", "--policy", "p", "--registry-url", "https://r.example.com"],
            &["sealgate", "verify", "a", "--policy", "p", "--insecure"],
            &["sealgate", "verify", "a", "--public-key", "f"],
            &["sealgate", "verify", "a", "--save"],
            &["sealgate", "signatures"],
            &["sealgate", "signatures", "list"],
            &["sealgate", "signatures", "remove", "a"],
            &["sealgate", "signatures", "remove", "a", "not-a-name"],
            &["sealgate", "signatures", "status"],
            &["sealgate", "signatures", "status", "clear"],
            &["sealgate", "signatures", "status", "clear", "a", "--expected-identity", "a"],
            &["sealgate", "store"],
            &["sealgate", "store", "export", "store.example.com"],
            &["sealgate", "store", "import", "store.example.com"],
            &["sealgate", "store", "export", "ftp://store.example.com", "backup.ndjson"],
            &["sealgate", "store", "export", "store.example.com", "backup.ndjson", "--dry-run"],
            &["sealgate", "completions"],
            &["sealgate", "completions", "rc"],
            &["sealgate", "man"],
            &["sealgate", "polish"],
        ] {
            let error = CommandLine::try_parse_from(wrong).expect_err(&wrong.join(" "));
            assert_eq!(error.exit_code(), 2, "{wrong:?}");
        }
    }
}
