//! Arguments that commands share.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{ArgAction, Args, ValueEnum};
use secrecy::SecretString;

use crate::configuration::{Credentials, Registry};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// How the image's registry is talked to. Each goes before what the configuration says of it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Registry")]
pub(crate) struct RegistryArguments {
    /// Credentials for the image's registry
    #[arg(long, value_name = "USER:PASSWORD", conflicts_with = "authfile", value_parser = credentials)]
    creds: Option<(String, SecretString)>,
    /// A Docker or podman login file with credentials (`auths`; credential helpers are not run)
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// A folder whose *.crt files are trusted beside the system's CAs
    #[arg(long, value_name = "FOLDER")]
    cert_dir: Option<PathBuf>,
    /// Whether HTTPS and a good certificate are required
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
    /// Writes what was given over an entry of the configuration.
    pub(crate) fn apply(&self, entry: &mut Registry) -> anyhow::Result<()> {
        let Self { creds, authfile, cert_dir, tls_verify } = self;
        if let Some((username, password)) = creds {
            entry.credentials =
                Some(Credentials::Given { username: username.as_str().into(), password: password.clone() });
        }
        if let Some(file) = authfile {
            let file = std::path::absolute(file).with_context(|| format!("--authfile {}", file.display()))?;
            entry.credentials = Some(Credentials::DockerConfig(file));
        }
        if let Some(folder) = cert_dir {
            if !folder.is_dir() {
                bail!("--cert-dir {}: there is no such folder", folder.display());
            }
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
