//! The key that signs: in GnuPG's keyring, or in a file.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;

use crate::cli::arguments::ShellCommand;
use crate::cli::exit_status::CliError;
use crate::signing::{self, Gnupg, KeyError, KeyQuery, SigningKey};

/// Which key signs.
#[derive(Args, Debug)]
#[command(next_help_heading = "Key")]
pub(in crate::cli) struct KeyArguments {
    /// The key, in GnuPG's keyring ($GNUPGHOME, or ~/.gnupg): fingerprint, key ID (16 digits) or e-mail address. gpg-agent
    /// signs with it, and asks for its passphrase or card
    #[arg(long, value_name = "KEY", required_unless_present = "key_file")]
    sign_by: Option<String>,
    /// A file with the secret key, in place of GnuPG's keyring and agent
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A file with the passphrase of the key in --key-file
    #[arg(long, value_name = "FILE", requires = "key_file")]
    passphrase_file: Option<PathBuf>,
}

impl KeyArguments {
    /// These arguments again, for another command.
    pub(in crate::cli) fn again(&self, key: &SigningKey, command: &mut ShellCommand) {
        let Self { sign_by: _, key_file, passphrase_file } = self;
        command.option("--sign-by", Some(key.certificate.fingerprint()));
        command.option("--key-file", key_file.as_ref().map(|file| file.display()));
        command.option("--passphrase-file", passphrase_file.as_ref().map(|file| file.display()));
    }

    pub(in crate::cli) fn query(&self) -> Result<Option<KeyQuery>, CliError> {
        Ok(self.sign_by.as_deref().map(str::parse).transpose().map_err(KeyError::from)?)
    }

    pub(in crate::cli) async fn open(&self, query: Option<&KeyQuery>) -> Result<SigningKey, CliError> {
        let now = Timestamp::now();
        match (&self.key_file, query) {
            (Some(file), query) => Ok(signing::key_file(file, self.passphrase_file.as_deref(), query, now)?),
            (None, Some(query)) => {
                let home = signing::home().ok_or_else(|| CliError::usage("there is no home folder: set GNUPGHOME"))?;
                Ok(Gnupg::at(home)?.signing_key(query, now).await?)
            }
            // The arguments' own rules leave no other case.
            (None, None) => Err(CliError::usage("say which key with --sign-by or --key-file")),
        }
    }
}
