//! Settings of registries, from the configuration's `registries` entries: clients, credentials, and named hosts.

use std::sync::Arc;

use url::Url;

use super::{
    allowed_hosts::HostSet,
    http_clients::{ClientFactory, HttpClients},
    setup_error::SetupError,
};
use crate::configuration::{Credentials, Registries, Scheme, SignatureSource};
use crate::image::{Repository, Scope, ScopeMap};
use crate::telemetry::Metrics;

/// The label of metrics for registries without an entry.
const OTHER: &str = "other";

/// The settings for the registries below a scope.
pub(crate) struct RegistrySettings {
    /// The number of the settings; 0 if there is no entry.
    pub(crate) number: usize,
    /// The scope, or `other`.
    pub(crate) label: Box<str>,
    pub(crate) scope: Scope,
    pub(crate) clients: HttpClients,
    pub(crate) insecure: bool,
    pub(crate) scheme: Option<Scheme>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) token_realms: Vec<Url>,
    pub(crate) signatures: Option<Vec<SignatureSource>>,
    pub(crate) mirrors: Vec<Box<str>>,
    /// The settings are for a command. Errors then tell the caller what is wrong with credentials.
    pub(crate) is_for_command: bool,
}

impl RegistrySettings {
    /// Returns whether the credentials, if there are any, are those of the user who calls a command.
    pub(crate) fn is_asked_by_a_person(&self) -> bool {
        matches!(self.credentials, Some(Credentials::Logins(_)))
    }

    /// Returns the settings of registries without an entry.
    pub(super) fn without_entry(clients: HttpClients) -> Self {
        Self {
            number: 0,
            label: OTHER.into(),
            scope: Scope::Everything,
            clients,
            insecure: false,
            scheme: None,
            credentials: None,
            token_realms: Vec::new(),
            signatures: None,
            mirrors: Vec::new(),
            is_for_command: false,
        }
    }
}

/// The settings of all registries.
pub(crate) struct AllSettings {
    entries: ScopeMap<Arc<RegistrySettings>>,
    default: Arc<RegistrySettings>,
    /// The hosts that entries name.
    pub(crate) named: HostSet,
}

impl AllSettings {
    pub(crate) fn new(registries: &Registries, metrics: &Arc<Metrics>) -> Result<Self, SetupError> {
        let mut maker = ClientFactory::new(metrics);
        let logins = registries.logins.clone().map(Credentials::Logins);
        // Servers read no login files.
        let is_for_command = logins.is_some();
        let mut entries = ScopeMap::default();
        let mut named = HostSet::default();
        for (number, (scope, entry)) in registries.entries.iter().enumerate() {
            let crate::configuration::Registry {
                scope: _,
                ca_file,
                insecure,
                scheme,
                credentials,
                token_realms,
                signatures,
                mirrors,
            } = &**entry;
            named.add_scope(&scope);
            for url in token_realms {
                named.add_url(url);
            }
            for source in signatures.iter().flatten() {
                match source {
                    SignatureSource::RegistryExtension => {}
                    SignatureSource::Extension(url) | SignatureSource::Lookaside(url) => named.add_url(url),
                }
            }
            let mut prefixes = Vec::new();
            for mirror in mirrors {
                let refuse =
                    |source| SetupError::Mirror { scope: scope.to_string().into(), mirror: mirror.clone(), source };
                match Scope::parse(mirror) {
                    Ok(Scope::Prefix(prefix)) => {
                        named.add_prefix(&prefix);
                        prefixes.push(prefix);
                    }
                    Ok(_) => return Err(refuse(None)),
                    Err(error) => return Err(refuse(Some(Box::new(error)))),
                }
            }
            let settings = RegistrySettings {
                number: number + 1,
                label: scope.to_string().into(),
                scope: scope.clone(),
                clients: maker.clients(&scope, ca_file.as_deref(), *insecure)?,
                insecure: *insecure,
                scheme: *scheme,
                credentials: credentials.clone().or_else(|| logins.clone()),
                token_realms: token_realms.clone(),
                signatures: signatures.clone(),
                mirrors: prefixes,
                is_for_command,
            };
            // The scopes of a map are distinct.
            let _ = entries.insert(scope, Arc::new(settings));
        }
        let clients = maker.clients(&Scope::Everything, None, false)?;
        let default =
            RegistrySettings { credentials: logins, is_for_command, ..RegistrySettings::without_entry(clients) };
        Ok(Self { entries, default: Arc::new(default), named })
    }

    /// Returns the settings of the most specific scope that covers a repository.
    pub(crate) fn of(&self, repository: &Repository) -> &Arc<RegistrySettings> {
        self.entries.get_repository(repository).unwrap_or(&self.default)
    }
}
