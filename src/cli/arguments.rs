//! Arguments that commands share.

use std::{fmt, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::{ArgAction, Args, ValueEnum};
use secrecy::SecretString;

use super::logins;
use crate::configuration::{Credentials, Logins, Registry};
use crate::image::Repository;
use crate::registry::{check_cas, check_login_file};

/// A command in a message, to copy into a shell.
pub(crate) struct ShellCommand(String);

impl ShellCommand {
    /// Makes a command that begins with these words, which need no quotes.
    pub(crate) fn new(start: impl fmt::Display) -> Self {
        Self(start.to_string())
    }

    /// Adds an option with a value, if there is one.
    pub(crate) fn option(&mut self, name: &str, value: Option<impl fmt::Display>) {
        let Some(value) = value.map(|value| value.to_string()) else { return };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=,+".contains(c);
        let value = if value.is_empty() || !value.chars().all(plain) {
            format!("'{}'", value.replace('\'', r"'\''"))
        } else {
            value
        };
        self.0 = format!("{} {name} {value}", self.0);
    }

    /// Adds an option without a value.
    pub(crate) fn flag(&mut self, name: &str, is_given: bool) {
        if is_given {
            self.0 = format!("{} {name}", self.0);
        }
    }
}

impl fmt::Display for ShellCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The format of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text, for a terminal
    #[default]
    Text,
    /// JSON, for programs
    Json,
}

/// Settings for the image's registry, or a store. Each overrides the configuration.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Registry")]
pub(crate) struct RegistryArguments {
    /// Credentials for the image's registry (or the store to transfer); for other stores, use registries in --config
    #[arg(long, value_name = "USER:PASSWORD", conflicts_with = "authfile", value_parser = credentials)]
    creds: Option<(String, SecretString)>,
    /// A Docker or podman login file with credentials; its credential helpers are run. Default: the files of docker
    /// login and podman login
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// A folder; its *.crt files are trusted beside the system's CAs
    #[arg(long, value_name = "FOLDER")]
    cert_dir: Option<PathBuf>,
    /// Require HTTPS and a valid certificate
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    tls_verify: Option<bool>,
}

impl RegistryArguments {
    /// Returns whether any of these arguments was given.
    pub(crate) fn is_given(&self) -> bool {
        let Self { creds, authfile, cert_dir, tls_verify } = self;
        creds.is_some() || authfile.is_some() || cert_dir.is_some() || tls_verify.is_some()
    }

    /// Returns the login files for servers without other credentials: the named file, or the caller's.
    pub(crate) fn logins(&self) -> anyhow::Result<Logins> {
        let Some(file) = &self.authfile else { return Ok(logins::of_caller()) };
        let file = std::path::absolute(file).with_context(|| format!("--authfile {}", file.display()))?;
        Ok(logins::named(file))
    }

    /// Adds these arguments to a command, except for the password.
    pub(crate) fn again(&self, command: &mut ShellCommand) {
        let Self { creds, authfile, cert_dir, tls_verify } = self;
        command.option("--creds", creds.as_ref().map(|(user, _)| format!("{user}:PASSWORD")));
        command.option("--authfile", authfile.as_ref().map(|file| file.display()));
        command.option("--cert-dir", cert_dir.as_ref().map(|folder| folder.display()));
        command.flag("--tls-verify=false", *tls_verify == Some(false));
        command.flag("--tls-verify=true", *tls_verify == Some(true));
    }

    /// Overrides an entry of the configuration with these arguments. Checks their files at once, so that an error names
    /// the option, whether or not this registry would use them.
    pub(crate) fn apply(&self, entry: &mut Registry, repository: &Repository) -> anyhow::Result<()> {
        let Self { creds, authfile, cert_dir, tls_verify } = self;
        if let Some((username, password)) = creds {
            entry.credentials =
                Some(Credentials::Given { username: username.as_str().into(), password: password.clone() });
        }
        if let Some(file) = authfile {
            // The error names the file.
            check_login_file(file, repository).context("--authfile")?;
            let file = std::path::absolute(file).with_context(|| format!("--authfile {}", file.display()))?;
            entry.credentials = Some(Credentials::Logins(logins::named(file)));
        }
        if let Some(folder) = cert_dir {
            let flag = || format!("--cert-dir {}", folder.display());
            if !folder.is_dir() {
                bail!("{}: there is no such folder", flag());
            }
            check_cas(folder).with_context(flag)?;
            entry.ca_file = Some(folder.clone());
        }
        if let Some(verify) = tls_verify {
            entry.insecure = !verify;
        }
        Ok(())
    }
}

fn credentials(text: &str) -> Result<(String, SecretString), String> {
    match text.split_once(':') {
        Some(("", _)) | None => Err("expected USER:PASSWORD".to_owned()),
        Some((user, password)) => Ok((user.to_owned(), password.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_copied_into_a_shell() {
        let mut command = ShellCommand::new("sealgate sign r.example.com/acme/web:1");
        command.option("--key-file", Some("my key's.asc"));
        command.option("--to", None::<&str>);
        command.option("--to", Some("https://store.example.com/x"));
        command.flag("--renew", true);
        command.flag("--index-only", false);
        let expected = r"sealgate sign r.example.com/acme/web:1 --key-file 'my key'\''s.asc' --to https://store.example.com/x --renew";
        assert_eq!(command.to_string(), expected);
    }
}
