//! Prints shell completions, and writes manual pages, for packages.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::exit_status::{CliError, ExitStatus};
use super::terminal;

#[derive(Args, Debug)]
pub(super) struct CompletionsArguments {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

#[derive(Args, Debug)]
pub(super) struct ManArguments {
    /// The folder; it is created if it does not exist
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Prints the completions of a command line for a shell.
///
/// # Errors
/// Standard output can't be written to.
pub(super) fn print_completions(
    arguments: &CompletionsArguments,
    mut command: clap::Command,
) -> Result<ExitStatus, CliError> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    terminal::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitStatus::Done)
}

/// Writes a manual page for a command line and for each of its subcommands into a folder.
///
/// # Errors
/// The folder can't be made or written to.
pub(super) fn write_manual_pages(arguments: &ManArguments, command: clap::Command) -> Result<ExitStatus, CliError> {
    let folder = &arguments.folder;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command, folder))
        .map_err(|error| CliError::undecided(format_args!("{}: no manual pages: {error}", folder.display())))?;
    Ok(ExitStatus::Done)
}
