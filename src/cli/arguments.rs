//! Arguments that commands share.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{ArgAction, Args, ValueEnum};
use secrecy::SecretString;

use crate::configuration::{Credentials, Registry};
use crate::image::Repository;
use crate::registry::{check_cas, check_docker_config};

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
    /// Writes what was given over an entry of the configuration. Files are looked at here, so that an error names the flag,
    /// and comes whether or not this registry would ask for what is in them.
    pub(crate) fn apply(&self, entry: &mut Registry, repository: &Repository) -> anyhow::Result<()> {
        let Self { creds, authfile, cert_dir, tls_verify } = self;
        if let Some((username, password)) = creds {
            entry.credentials =
                Some(Credentials::Given { username: username.as_str().into(), password: password.clone() });
        }
        if let Some(file) = authfile {
            let flag = || format!("--authfile {}", file.display());
            check_docker_config(file, repository).with_context(flag)?;
            let file = std::path::absolute(file).with_context(flag)?;
            entry.credentials = Some(Credentials::DockerConfig(file));
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
