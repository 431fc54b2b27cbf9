//! The image of a command, and the settings for its registry.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use clap::Args;
use url::Url;

use super::arguments::{RegistryArguments, ShellCommand};
use super::exit_status::CliError;
use crate::configuration::{self, Configuration, Registries, Registry, Scheme, SignatureSource};
use crate::diagnostic::Diagnostics;
use crate::files;
use crate::image::{Reference, Repository, Scope, ScopeMap};
use crate::policy::SourceFile;
use crate::registry::{Client, HostSet};
use crate::signature_sources::registries_d::Lookasides;
use crate::telemetry::Metrics;

/// The arguments about an image.
#[derive(Args, Debug)]
pub(super) struct ImageArguments {
    /// The image; docker:// in front is allowed
    image: String,
    /// The configuration file: registries, credentials, signature sources, limits
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A folder of containers-registries.d(5): its lookasides are signature sources beside the registry's own extension
    #[arg(long, value_name = "FOLDER")]
    registries_d: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// The use of mirrors by a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mirrors {
    /// Mirrors are asked as the gate asks them.
    Asked,
    /// Only the registry itself is asked: otherwise a mirror would decide which image is signed or audited.
    LeftOut,
}

/// The image, and the configuration with the command line's settings for its registry.
pub(super) struct ImageContext {
    pub(super) image: Reference,
    pub(super) configuration: Configuration,
    /// The folder for new signatures, if registries.d names another one than for reading.
    pub(super) staging: Option<Url>,
}

/// The address of a registry (`--registry-url`) in place of the one in the image's name, or of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RegistryOverride {
    pub(super) url: Url,
    /// The scheme, if the user wrote one; no other is tried then.
    pub(super) scheme: Option<Scheme>,
}

impl FromStr for RegistryOverride {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected https://HOST[:PORT], http://HOST[:PORT] or HOST[:PORT]".to_owned();
        let is_whole = text.contains("://");
        let text = if is_whole { text.to_owned() } else { format!("https://{text}") };
        let url: Url = text.parse().map_err(|error: url::ParseError| format!("{error}; {}", expected()))?;
        let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        let is_open = url.username().is_empty() && url.password().is_none();
        if !matches!(url.scheme(), "https" | "http") || !url.has_host() || !is_bare || !is_open {
            return Err(expected());
        }
        let scheme = if url.scheme() == "http" { Scheme::Http } else { Scheme::Https };
        Ok(Self { url, scheme: is_whole.then_some(scheme) })
    }
}

impl ImageArguments {
    /// Returns the image by its name on the command line.
    pub(super) fn named(&self) -> Result<Reference, CliError> {
        reference(&self.image)
    }

    /// Adds these arguments to a command, except for the image.
    pub(super) fn again(&self, command: &mut ShellCommand) {
        let Self { image: _, config, registries_d, registry } = self;
        command.option("--config", config.as_ref().map(|file| file.display()));
        command.option("--registries-d", registries_d.as_ref().map(|folder| folder.display()));
        registry.again(command);
    }

    pub(super) fn read(&self, mirrors: Mirrors) -> Result<ImageContext, CliError> {
        self.read_at(None, false, mirrors)
    }

    /// Reads the arguments as [`ImageArguments::read`] does, with the image at another host. The configuration's
    /// settings are those of that host; only registries.d is looked up by the image's own name.
    pub(super) fn read_at(
        &self,
        elsewhere: Option<&RegistryOverride>,
        insecure: bool,
        mirrors: Mirrors,
    ) -> Result<ImageContext, CliError> {
        let Self { image: _, config, registries_d, registry } = self;
        let named = self.named()?;
        let mut configuration = configuration(config.as_deref())?;
        configuration.registries.logins = Some(registry.logins()?);
        let image = match elsewhere {
            None => named.clone(),
            Some(RegistryOverride { url, .. }) => {
                let repository = Repository::at(url, named.repository().path())
                    .ok_or_else(|| CliError::usage(format_args!("--registry-url {url}: no registry can be there")))?;
                Reference::from_parts(repository, named.tag().cloned(), named.digest().copied())
            }
        };
        let mut staging = None;
        let mut entry = entry_for(&configuration.registries, image.repository());
        registry.apply(&mut entry, image.repository())?;
        entry.insecure |= insecure;
        if let Some(RegistryOverride { url, scheme }) = elsewhere {
            if url.scheme() == "http" && !entry.insecure {
                return Err(CliError::usage(format_args!("--registry-url {url}: plain HTTP needs --insecure")));
            }
            entry.scheme = *scheme;
        }
        if let Some(folder) = registries_d {
            let lookasides = Lookasides::read(folder).map_err(|mistakes| CliError::usage(Diagnostics(&mistakes)))?;
            for warning in lookasides.warnings() {
                tracing::warn!("{warning}");
            }
            if let Some(url) = lookasides.of(named.repository()) {
                let sources = entry.signatures.get_or_insert_with(|| vec![SignatureSource::RegistryExtension]);
                sources.push(SignatureSource::Lookaside(url.clone()));
            }
            staging = lookasides.staging_of(named.repository()).cloned();
        }
        if mirrors == Mirrors::LeftOut {
            entry.mirrors.clear();
        }
        put(&mut configuration.registries, entry);
        Ok(ImageContext { image, configuration, staging })
    }
}

impl ImageContext {
    /// Makes a client for the image's registry, and for the other hosts of the configuration.
    pub(super) fn client(&self) -> Result<Arc<Client>, CliError> {
        let Configuration { registries, limits, .. } = &self.configuration;
        // The image's own host is named by its registries entry.
        let client = Client::new(registries, limits, Arc::new(HostSet::default()), Arc::new(Metrics::new()));
        Ok(Arc::new(client.map_err(CliError::usage_of)?))
    }
}

/// Parses an image reference, with or without `docker://`.
pub(super) fn reference(text: &str) -> Result<Reference, CliError> {
    let text = text.strip_prefix("docker://").unwrap_or(text);
    Reference::for_image(text).map_err(|error| CliError::usage(format_args!("{text:?}: {error}")))
}

/// Loads the configuration, or returns the default one without a file.
pub(super) fn configuration(file: Option<&Path>) -> Result<Configuration, CliError> {
    if let Some(file) = file {
        return files::load_configuration(file).map_err(CliError::usage_of);
    }
    let defaults = SourceFile {
        name: "(defaults)".into(),
        folder: PathBuf::new(),
        bytes: b"apiVersion: sealgate.dev/v1\nkind: Configuration\n".to_vec(),
    };
    configuration::load(&defaults).map_err(|mistakes| CliError::usage(Diagnostics(&mistakes)))
}

/// Returns the registries entry that covers a repository, narrowed to it, so that the command line's settings apply to
/// no other repository.
pub(super) fn entry_for(registries: &Registries, repository: &Repository) -> Registry {
    let narrow = Scope::Prefix(repository.as_str().into());
    let Some(entry) = registries.entries.get_repository(repository) else {
        return Registry {
            scope: narrow,
            ca_file: None,
            insecure: false,
            scheme: None,
            credentials: None,
            token_realms: Vec::new(),
            signatures: None,
            mirrors: Vec::new(),
        };
    };
    let mut entry = Registry::clone(entry);
    // A mirror has a copy of everything below the entry's scope. The scope becomes narrower, and the mirror with it.
    let rest = match &entry.scope {
        Scope::Prefix(prefix) => repository.as_str().strip_prefix(&**prefix).unwrap_or_default(),
        // Entries with other scopes have no mirrors: `configuration` refuses them.
        _ => "",
    };
    entry.mirrors = entry.mirrors.iter().map(|mirror| format!("{mirror}{rest}").into()).collect();
    entry.scope = narrow;
    entry
}

/// Replaces the entry with the same scope.
pub(super) fn put(registries: &mut Registries, entry: Registry) {
    let mut entries = ScopeMap::default();
    for (scope, other) in registries.entries.iter().filter(|(scope, _)| *scope != entry.scope) {
        // The scopes of a map are distinct.
        let _ = entries.insert(scope, Arc::clone(other));
    }
    let _ = entries.insert(entry.scope.clone(), Arc::new(entry));
    registries.entries = entries;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(scope: &str, mirrors: &[&str]) -> Registries {
        let mut registries = Registries::default();
        let mut entry = entry_for(&registries, &Repository::parse("nginx").unwrap());
        entry.scope = Scope::parse(scope).unwrap();
        entry.insecure = true;
        entry.mirrors = mirrors.iter().map(|&mirror| mirror.into()).collect();
        put(&mut registries, entry);
        registries
    }

    #[test]
    fn what_the_command_line_says_holds_for_the_images_repository_alone() {
        let mut registries = registries("r.example.com/acme", &["mirror.example.com/copies"]);
        let repository = Repository::parse("r.example.com/acme/web").unwrap();
        let mut entry = entry_for(&registries, &repository);
        assert!(entry.insecure);
        assert_eq!(&*entry.mirrors, &[Box::from("mirror.example.com/copies/web")]);
        entry.insecure = false;
        put(&mut registries, entry);
        let insecure = |name: &str| {
            let repository = Repository::parse(name).unwrap();
            registries.entries.get_repository(&repository).map(|entry| entry.insecure)
        };
        assert_eq!(insecure("r.example.com/acme/web"), Some(false));
        assert_eq!(insecure("r.example.com/acme/db"), Some(true));
        assert_eq!(insecure("r.example.com/web"), None);
    }

    #[test]
    fn a_registry_is_elsewhere_at_a_host_and_nothing_more() {
        for (text, url, scheme) in [
            ("registry.example.com", "https://registry.example.com/", None),
            ("registry.example.com:5000", "https://registry.example.com:5000/", None),
            ("http://127.0.0.1:5000/", "http://127.0.0.1:5000/", Some(Scheme::Http)),
            ("https://[::1]:5000", "https://[::1]:5000/", Some(Scheme::Https)),
        ] {
            assert_eq!(text.parse(), Ok(RegistryOverride { url: url.parse().unwrap(), scheme }), "{text}");
        }
        for text in [
            "",
            "https://",
            "ftp://r.example.com",
            "r.example.com/acme",
            "https://u@r.example.com",
            "https://r?x",
            "a b",
        ] {
            assert!(text.parse::<RegistryOverride>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_entry_takes_the_place_of_the_one_with_its_scope() {
        let mut registries = registries("r.example.com/acme/web", &[]);
        let mut entry = entry_for(&registries, &Repository::parse("r.example.com/acme/web").unwrap());
        entry.insecure = false;
        put(&mut registries, entry);
        assert_eq!(registries.entries.iter().count(), 1);
        assert!(registries.entries.iter().all(|(_, entry)| !entry.insecure));
    }
}
