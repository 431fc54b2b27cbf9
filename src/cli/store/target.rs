//! The store that a command is about: its name on the command line, and where it is.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use clap::Args;

use crate::cli::arguments::{Format, RegistryArguments};
use crate::cli::exit_status::CliError;
use crate::cli::image_arguments::{self, RegistryOverride};
use crate::cli::terminal::plain;
use crate::configuration::{self, Configuration};
use crate::gateway::store::ImageLimits;
use crate::image::Repository;
use crate::registry::{Client, HostSet};
use crate::store_transfer::{RemoteStore, TransferStore};
use crate::telemetry::Metrics;

#[derive(Args, Debug)]
pub(in crate::cli) struct CommonArguments {
    /// The configuration file: how a running store is asked, and limits
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The format of the result
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Format,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// A store as it is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoreName {
    /// `redb:FILE`.
    Redb(PathBuf),
    /// `config:FILE`.
    Configured(PathBuf),
    /// A URL with its scheme.
    Url(RegistryOverride),
    /// A host, or a file, whatever is there.
    Plain(String),
}

impl FromStr for StoreName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("redb" | "config", "")) => Err("a file's name follows".to_owned()),
            Some(("redb", file)) => Ok(Self::Redb(file.into())),
            Some(("config", file)) => Ok(Self::Configured(file.into())),
            _ if text.contains("://") => text.parse().map(Self::Url),
            _ if text.is_empty() => {
                Err("expected HOST[:PORT], https://HOST[:PORT], redb:FILE or config:FILE".to_owned())
            }
            _ => Ok(Self::Plain(text.to_owned())),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreAccess {
    Read,
    Write,
}

/// The store that a command works on, found and named.
pub(super) struct StoreTarget {
    place: StoreLocation,
    /// For people, and to tell it from others.
    pub(super) name: String,
    configuration: Configuration,
}

enum StoreLocation {
    Running { repository: Repository, url: Option<url::Url> },
    Redb(PathBuf),
    Etcd(configuration::Etcd),
}

impl CommonArguments {
    /// Finds the store that is named, without a request.
    pub(super) fn find(&self, store: &StoreName) -> Result<StoreTarget, CliError> {
        let configuration = image_arguments::configuration(self.config.as_deref())?;
        let here = |place, name, configuration| {
            if self.registry.is_given() {
                let text = "--creds, --authfile, --cert-dir and --tls-verify are for running stores, which are given by their URL";
                return Err(CliError::usage(text));
            }
            Ok(StoreTarget { place, name, configuration })
        };
        let redb = |file: PathBuf, configuration| {
            // One file is one store, by whatever path it is named.
            let name = file.canonicalize().unwrap_or_else(|_| file.clone()).display().to_string();
            here(StoreLocation::Redb(file), name, configuration)
        };
        match store {
            StoreName::Redb(file) => redb(file.clone(), configuration),
            StoreName::Configured(file) => {
                let configuration = image_arguments::configuration(Some(file))?;
                let none =
                    || CliError::usage(format_args!("{}: there is no gateway in this configuration", file.display()));
                match configuration.gateway.as_ref().ok_or_else(none)?.store.clone() {
                    configuration::Store::Redb(file) => redb(file, configuration),
                    configuration::Store::Etcd(etcd) => {
                        let endpoints: Vec<&str> = etcd.endpoints.iter().map(url::Url::as_str).collect();
                        let name = format!("{} {}", endpoints.join(","), etcd.prefix);
                        here(StoreLocation::Etcd(etcd), name, configuration)
                    }
                }
            }
            StoreName::Url(elsewhere) => self.running(elsewhere, configuration),
            StoreName::Plain(text) if Path::new(text).exists() => redb(text.into(), configuration),
            StoreName::Plain(text) if text.contains('/') => Err(CliError::refused(format_args!(
                "{}: there is no such file (redb:FILE makes one for an import)",
                plain(text)
            ))),
            StoreName::Plain(text) => {
                let elsewhere =
                    text.parse().map_err(|error| CliError::usage(format_args!("{}: {error}", plain(text))))?;
                self.running(&elsewhere, configuration)
            }
        }
    }

    fn running(
        &self,
        RegistryOverride { url, scheme }: &RegistryOverride,
        mut configuration: Configuration,
    ) -> Result<StoreTarget, CliError> {
        // Settings of the host hold for the store, which is in no repository.
        let repository = Repository::at(url, "signatures");
        let repository = repository.ok_or_else(|| CliError::usage(format_args!("{url}: no store can be there")))?;
        configuration.registries.logins = Some(self.registry.logins()?);
        let mut entry = image_arguments::entry_for(&configuration.registries, &repository);
        self.registry.apply(&mut entry, &repository)?;
        if url.scheme() == "http" && !entry.insecure {
            return Err(CliError::usage(format_args!("{url}: plain HTTP needs --tls-verify=false")));
        }
        // Of a host alone it is not known whether it speaks TLS, and that is only asked where it need not.
        let url = (scheme.is_some() || !entry.insecure).then(|| url.clone());
        image_arguments::put(&mut configuration.registries, entry);
        let name = match &url {
            Some(url) => url.to_string(),
            None => repository.host().to_owned(),
        };
        Ok(StoreTarget { place: StoreLocation::Running { repository, url }, name, configuration })
    }
}

impl StoreTarget {
    pub(super) async fn open(&self, to: StoreAccess) -> Result<TransferStore, CliError> {
        let Configuration { registries, limits, .. } = &self.configuration;
        let writing = (to == StoreAccess::Write).then(|| ImageLimits::with_lists_of(limits.signature_list_bytes));
        Ok(match &self.place {
            StoreLocation::Running { repository, url } => {
                let client = Client::new(registries, limits, Arc::new(HostSet::default()), Arc::new(Metrics::new()));
                let running = RemoteStore::at(client.map_err(CliError::usage_of)?, repository, url.as_ref())?;
                TransferStore::Running(Box::new(running))
            }
            StoreLocation::Redb(file) => tokio::task::block_in_place(|| TransferStore::redb(file, writing))?,
            StoreLocation::Etcd(etcd) => TransferStore::etcd(etcd, writing).await?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_told_apart_by_their_names() {
        let url = |text: &str| StoreName::Url(text.parse().unwrap());
        for (text, name) in [
            ("store.example.com", StoreName::Plain("store.example.com".to_owned())),
            ("store.example.com:5000", StoreName::Plain("store.example.com:5000".to_owned())),
            ("https://store.example.com", url("https://store.example.com")),
            ("redb:data/signatures.redb", StoreName::Redb("data/signatures.redb".into())),
            ("config:sealgate.yaml", StoreName::Configured("sealgate.yaml".into())),
            ("data/signatures.redb", StoreName::Plain("data/signatures.redb".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(name), "{text}");
        }
        for text in ["", "redb:", "config:", "https://", "https://store.example.com/path", "ftp://store.example.com"] {
            assert!(text.parse::<StoreName>().is_err(), "{text}");
        }
    }
}
