//! The target of requests: a repository on a server.

use std::sync::Arc;

use url::Url;

use super::{
    remote_server::RemoteServer,
    settings::{AllSettings, RegistrySettings},
    transport::Transport,
};
use crate::image::{Repository, Scope, host::DOCKER_HUB};

/// The host of Docker Hub's API.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// A repository on a server.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) remote: RemoteServer,
    /// The repository whose credentials are used; its host is the server's.
    pub(crate) repository: Repository,
    /// The repository's path.
    pub(crate) path: Box<str>,
    /// The server's https URL, with a slash at the end.
    pub(crate) base: Url,
    /// The configuration gives `base` as a URL and not a host, so that its scheme is fixed.
    pub(crate) fixed: bool,
}

impl Target {
    /// Returns the registry of a repository; `None` if no URL can have its host.
    pub(crate) fn of(repository: &Repository, settings: &AllSettings, transport: &Transport) -> Option<Self> {
        let host = repository.host();
        let name = transport.name_of_registry(host);
        let mut target = Self::with(repository, Arc::clone(settings.of(repository)), name.is_some())?;
        if let Some(name) = name {
            target.remote = target.remote.counted_for(name);
        }
        Some(target)
    }

    fn with(repository: &Repository, settings: Arc<RegistrySettings>, named: bool) -> Option<Self> {
        let host = repository.host();
        let api = if host == DOCKER_HUB { DOCKER_HUB_API } else { host };
        Some(Self {
            remote: RemoteServer::new(host, settings, named),
            repository: repository.clone(),
            path: repository.path().into(),
            base: Url::parse(&format!("https://{api}/")).ok()?,
            fixed: false,
        })
    }

    /// Returns the repository on a server whose URL is in the configuration, and which is thereby named. TLS and
    /// credentials are those of the registries entry that covers the server, not those of the repository's registry.
    /// Returns `None` if no entry could cover the server, since its credentials would be undefined.
    pub(crate) fn at_url(url: &Url, repository: &Repository, settings: &AllSettings) -> Option<Self> {
        let here = Repository::at(url, repository.path())?;
        let mut base = url.clone();
        base.set_query(None);
        base.set_fragment(None);
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let found = settings.of(&here);
        Some(Self {
            remote: RemoteServer::new(here.host(), Arc::clone(found), true),
            path: repository.path().into(),
            repository: here,
            base,
            fixed: true,
        })
    }

    /// Returns the mirrors of the repository, in order.
    pub(crate) fn mirrors(&self, settings: &AllSettings) -> Vec<Self> {
        let RegistrySettings { scope, mirrors, .. } = &*self.remote.settings;
        // Scopes of another kind have no mirrors: `configuration` refuses them.
        let Scope::Prefix(prefix) = scope else { return Vec::new() };
        let Some(rest) = self.repository.as_str().strip_prefix(&**prefix) else { return Vec::new() };
        let mirrors = mirrors.iter().filter_map(|mirror| {
            let repository = Repository::parse(&format!("{mirror}{rest}")).ok()?;
            // The entry that has the mirror names its host.
            Self::with(&repository, Arc::clone(settings.of(&repository)), true)
        });
        mirrors.collect()
    }

    #[cfg(test)]
    pub(crate) fn for_tests(repository: &Repository, realms: &[Url]) -> Self {
        let mut registries = crate::configuration::Registries::default();
        let scope = Scope::parse(repository.host()).expect("a host");
        let entry = crate::configuration::Registry {
            scope: scope.clone(),
            ca_file: None,
            insecure: false,
            scheme: None,
            credentials: None,
            token_realms: realms.to_vec(),
            signatures: None,
            mirrors: Vec::new(),
        };
        registries.entries.insert(scope, Arc::new(entry)).expect("the first");
        let settings = AllSettings::new(&registries, &Arc::default()).expect("no files");
        Self::with(repository, Arc::clone(settings.of(repository)), true).expect("a host")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::{Credentials, Registries, Registry};

    fn mirrors_of(scope: &str, mirrors: &[&str], repository: &str) -> Vec<String> {
        let scope = Scope::parse(scope).unwrap();
        let mut registries = Registries::default();
        let entry = Registry {
            scope: scope.clone(),
            ca_file: None,
            insecure: false,
            scheme: None,
            credentials: None,
            token_realms: Vec::new(),
            signatures: None,
            mirrors: mirrors.iter().map(|&mirror| mirror.into()).collect(),
        };
        registries.entries.insert(scope, Arc::new(entry)).unwrap();
        let settings = AllSettings::new(&registries, &Arc::default()).unwrap();
        let repository = Repository::parse(repository).unwrap();
        let target = Target::with(&repository, Arc::clone(settings.of(&repository)), true).unwrap();
        target.mirrors(&settings).iter().map(|target| target.repository.to_string()).collect()
    }

    /// Settings whose entry for `scope` has credentials.
    fn with_credentials(scope: &str) -> AllSettings {
        let scope = Scope::parse(scope).unwrap();
        let mut registries = Registries::default();
        let entry = Registry {
            scope: scope.clone(),
            ca_file: None,
            insecure: false,
            scheme: None,
            credentials: Some(Credentials::DockerConfig("config.json".into())),
            token_realms: Vec::new(),
            signatures: None,
            mirrors: Vec::new(),
        };
        registries.entries.insert(scope, Arc::new(entry)).unwrap();
        AllSettings::new(&registries, &Arc::default()).unwrap()
    }

    #[test]
    fn a_store_with_a_one_label_host_gets_no_credentials_of_docker_hub() {
        let repository = Repository::parse("r.example.com/acme/web").unwrap();
        let at = |url: &str, scope: &str| {
            Target::at_url(&Url::parse(url).unwrap(), &repository, &with_credentials(scope))
                .map(|target| (target.repository.to_string(), target.remote.settings.credentials.is_some()))
        };
        let here = "signatures:443/acme/web".to_owned();
        assert_eq!(at("https://signatures", "docker.io"), Some((here.clone(), false)));
        assert_eq!(at("https://signatures", "docker.io/signatures"), Some((here.clone(), false)));
        assert_eq!(at("https://signatures", "signatures:443"), Some((here, true)));
        // Whose they would be, nothing can say.
        for url in ["https://index.docker.io", "https://store_1.example.com", "https://store.example.com."] {
            assert_eq!(at(url, "*"), None, "{url}");
        }
    }

    #[test]
    fn a_mirror_with_a_one_label_host_is_not_on_docker_hub() {
        assert_eq!(mirrors_of("r.example.com", &["mirror:443/acme"], "r.example.com/web"), ["mirror:443/acme/web"]);
        assert_eq!(mirrors_of("registry:443", &["mirror:443"], "REGISTRY/web"), ["mirror:443/web"]);
    }

    #[test]
    fn docker_hub_is_asked_where_its_api_is() {
        let target = Target::for_tests(&Repository::parse("nginx").unwrap(), &[]);
        assert_eq!(target.base.as_str(), "https://registry-1.docker.io/");
        assert_eq!(&*target.remote.registry, "docker.io");
        assert_eq!(&*target.path, "library/nginx");
    }

    #[test]
    fn a_mirror_has_what_lies_below_the_scope() {
        let mirrors = ["mirror.example.com/acme", "other.example.com:5000"];
        assert_eq!(
            mirrors_of("r.example.com/team", &mirrors, "r.example.com/team/web"),
            ["mirror.example.com/acme/web", "other.example.com:5000/web"]
        );
        assert!(mirrors_of("r.example.com", &mirrors, "s.example.com/team/web").is_empty());
    }
}
