//! Checks the `gateway` section.

use std::net::Ipv4Addr;

use url::Url;

use super::checker::{Checker, flatten};
use crate::configuration::{
    Access, ClientCertificate, Etcd, EtcdUser, Gateway, Network, Store, Upstream, Users,
    document::{RawAccess, RawCertificate, RawEtcd, RawGateway, RawKubernetes, RawRedb, RawStore, RawUpstream},
    is_on_loopback,
};
use crate::yaml::Located;

impl Checker<'_> {
    pub(super) fn gateway(&mut self, raw: RawGateway) -> Option<Gateway> {
        let RawGateway { listen, certificate, anyone_may_sign, registry, store, access, external_url, trusted_proxies } =
            raw;
        let before = self.mistakes.len();
        if let Some(access) = access.as_ref().filter(|_| anyone_may_sign) {
            let message = "access says who may sign, and anyoneMaySign that everyone may";
            self.mistake_with_help(access.key, message, "leave out one of the two");
        }
        let restricted = access.is_some();
        let access = access.map(|access| self.access(access));
        let known_as = external_url.as_ref().map(|url| url.place);
        let external_url = external_url.map(|url| self.external_url(&url));
        let first_proxy = trusted_proxies.first().map(|proxy| proxy.place);
        let trusted_proxies: Vec<_> = trusted_proxies.iter().filter_map(|proxy| self.network(proxy)).collect();
        let place = listen.as_ref().map(|listen| listen.place);
        let listen = match listen {
            Some(listen) => self.listen(Some(&listen), 5000),
            None => Some((Ipv4Addr::LOCALHOST, 5000).into()),
        };
        let open = listen.is_some_and(|listen| !listen.ip().is_loopback());
        if let Some(place) = place.filter(|_| open)
            && certificate.is_none()
        {
            self.mistake_with_help(
                place,
                "without a certificate the store listens on loopback only: plain HTTP would show credentials to the network",
                "add certificate: {file: ..., key: ...}, or listen on 127.0.0.1",
            );
        }
        // TLS may end at a proxy on this machine, so a listener on loopback needs no certificate. Because the proxy
        // lets every client in, `access` or `anyoneMaySign` is needed as if the store listened beyond loopback.
        let known_abroad = external_url.as_ref().and_then(Option::as_ref).is_some_and(|url| !is_on_loopback(url));
        let reached = [
            (place.filter(|_| open), "reaches this listener", "listen on 127.0.0.1"),
            (known_as.filter(|_| known_abroad), "reaches the store at this address", "leave out externalUrl"),
            (
                first_proxy.filter(|_| !trusted_proxies.is_empty()),
                "reaches the store through this proxy",
                "leave out trustedProxies",
            ),
        ];
        if !restricted
            && !anyone_may_sign
            && let Some((place, who, instead)) =
                reached.into_iter().find_map(|(place, who, instead)| Some((place?, who, instead)))
        {
            self.mistake_with_help(
                place,
                format!("everyone who {who} may store signatures, because access says nothing else"),
                format!(
                    "add access: {{htpasswd: ...}} or {{kubernetes: {{}}}}, {instead}, or say that you know it: anyoneMaySign: true"
                ),
            );
        }
        let certificate = certificate.map(|certificate| self.certificate(&certificate));
        let registry = self.upstream(registry);
        let store = match store {
            None | Some(RawStore::Redb(RawRedb { file: None })) => {
                Some(Store::Redb(self.folder.join("data/signatures.redb")))
            }
            Some(RawStore::Redb(RawRedb { file: Some(file) })) => self.path(&file).map(Store::Redb),
            Some(RawStore::Etcd(etcd)) => self.etcd(*etcd).map(Store::Etcd),
        };
        if self.mistakes.len() > before {
            return None;
        }
        Some(Gateway {
            listen: listen?,
            certificate: flatten(certificate)?,
            anyone_may_sign,
            registry: registry?,
            store: store?,
            access: flatten(access)?,
            external_url: flatten(external_url)?,
            trusted_proxies,
        })
    }

    fn upstream(&mut self, raw: RawUpstream) -> Option<Upstream> {
        let RawUpstream { url, ca_file, token_realms, insecure } = raw;
        let ca_file = ca_file.map(|path| self.path(&path));
        let place = url.place;
        let url = self.url(&url, &["https", "http"]);
        if url.as_ref().is_some_and(|url| url.path() != "/") {
            self.mistake(place, "a registry is named by scheme, host and port alone; it serves /v2/");
        }
        let is_plain = url.as_ref().is_some_and(|url| url.scheme() == "http");
        // If the registry uses plain HTTP, its token servers may use it, too.
        let places = token_realms.iter().map(|realm| realm.place);
        let realms = token_realms.iter().map(|realm| self.token_realm(realm, is_plain)).collect::<Vec<_>>();
        let named = [(place, &url)].into_iter().chain(places.zip(&realms));
        let beyond = |url: &Option<Url>| url.as_ref().is_some_and(|url| url.scheme() == "http" && !is_on_loopback(url));
        let unsafe_place = named.into_iter().find_map(|(place, url)| beyond(url).then_some(place));
        match (insecure, unsafe_place) {
            (Some(Located { value: true, key, .. }), _) if !is_plain && url.is_some() => {
                let message = "insecure says that the registry is asked over plain HTTP, and its url is https";
                self.mistake_with_help(key, message, "leave it out; caFile names a CA that the system does not know");
            }
            (None | Some(Located { value: false, .. }), Some(place)) => self.mistake_with_help(
                place,
                "plain HTTP beyond loopback: everyone on the way reads the credentials of callers, and can change the answers",
                "write https:// (and name its CA in caFile), or say that you know it: insecure: true, beside url",
            ),
            _ => {}
        }
        Some(Upstream {
            url: url?,
            ca_file: flatten(ca_file)?,
            token_realms: realms.into_iter().flatten().collect(),
            insecure: insecure.is_some_and(|insecure| insecure.value),
        })
    }

    fn access(&mut self, raw: Located<RawAccess>) -> Option<Access> {
        let Located { value: RawAccess { htpasswd, kubernetes, token_key }, key, .. } = raw;
        let token_key = token_key.map(|path| self.path(&path));
        let users = match (htpasswd, kubernetes) {
            (Some(htpasswd), None) => {
                let (file, roles) = (self.path(&htpasswd.file), self.path(&htpasswd.roles));
                Some(Users::Htpasswd { file: file?, roles: roles? })
            }
            (None, Some(kubernetes)) => self.kubernetes(kubernetes.value),
            _ => {
                self.mistake_with_help(
                    key,
                    "users and roles come either from files or from Kubernetes",
                    "write {htpasswd: {file: PATH, roles: PATH}} or {kubernetes: {}}",
                );
                None
            }
        };
        Some(Access { users: users?, token_key: flatten(token_key)? })
    }

    fn kubernetes(&mut self, raw: RawKubernetes) -> Option<Users> {
        let RawKubernetes { kubeconfig, audiences } = raw;
        let kubeconfig = kubeconfig.map(|path| self.path(&path));
        let mut wanted = Vec::new();
        if let Some(audiences) = audiences {
            if audiences.is_empty() {
                let message = "audiences names none, so no token would count";
                self.mistake_with_help(
                    audiences.key,
                    message,
                    "leave it out for tokens that are meant for the API server",
                );
            }
            for audience in audiences.value {
                if audience.is_empty() {
                    self.mistake(audience.place, "an audience is expected, found nothing");
                } else if wanted.contains(&audience.value) {
                    self.mistake(audience.place, "this audience stands twice");
                } else {
                    wanted.push(audience.value);
                }
            }
        }
        Some(Users::Kubernetes { kubeconfig: flatten(kubeconfig)?, audiences: wanted })
    }

    /// Checks `externalUrl`. Clients send their passwords to this address: it is https, or on loopback.
    fn external_url(&mut self, text: &Located<Box<str>>) -> Option<Url> {
        let url = self.url(text, &["https", "http"])?;
        if url.path() != "/" {
            let message = "the store is known by scheme, host and port alone; it serves /v2/";
            self.mistake_with_help(text.place, message, format!("write {}", url.origin().ascii_serialization()));
            return None;
        }
        if url.scheme() == "http" && !is_on_loopback(&url) {
            let message = "clients would send their passwords over plain HTTP to this address";
            self.mistake_with_help(
                text.place,
                message,
                "write https://host, and give the store or its proxy a certificate",
            );
            return None;
        }
        Some(url)
    }

    fn network(&mut self, text: &Located<Box<str>>) -> Option<Network> {
        match Network::parse(text) {
            Ok(network) => Some(network),
            Err(error) => {
                self.mistake_with_help(text.place, error.to_string(), error.suggestion());
                None
            }
        }
    }

    fn etcd(&mut self, raw: RawEtcd) -> Option<Etcd> {
        let RawEtcd { endpoints, prefix, ca_file, certificate, username, password_file, password } = raw;
        if endpoints.is_empty() {
            let message = "endpoints names no member of etcd";
            self.mistake_with_help(endpoints.key, message, "write endpoints: [\"https://etcd.example.com:2379\"]");
        }
        let urls: Vec<Url> = endpoints.iter().filter_map(|endpoint| self.endpoint(endpoint)).collect();
        for (number, endpoint) in endpoints.iter().enumerate() {
            if endpoints[..number].iter().any(|earlier| earlier.value == endpoint.value) {
                self.mistake(endpoint.place, "this endpoint stands twice");
            }
        }
        let https = urls.iter().filter(|url| url.scheme() == "https").count();
        if https != 0 && https != urls.len() {
            self.mistake(endpoints.key, "all endpoints are https, or all are http");
        } else if https != 0 && ca_file.is_none() {
            let message = "caFile is missing: it names the CA that vouches for etcd's members";
            self.mistake_with_help(endpoints.key, message, "for the system's own, name the file with all of them");
        } else if https == 0
            && let Some(place) = ca_file.as_ref().map(|path| path.place).or(certificate.as_ref().map(|pair| pair.key))
        {
            self.mistake_with_help(place, "there are no certificates with http", "write https:// endpoints");
        }
        let prefix = match prefix {
            None => "/sealgate".into(),
            Some(prefix) => {
                let segments = prefix.strip_prefix('/').filter(|rest| rest.len() < 128);
                let good = |segment: &str| {
                    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
                    !segment.is_empty() && segment.bytes().all(known)
                };
                if !segments.is_some_and(|segments| segments.split('/').all(good)) {
                    let message = "a prefix is a path of A-Z a-z 0-9 - _ . with a slash in front and none at its end";
                    self.mistake_with_help(prefix.place, message, "/sealgate is the default");
                }
                prefix.value
            }
        };
        let ca_file = ca_file.map(|path| self.path(&path));
        let certificate = certificate.map(|Located { value: RawCertificate { file, key }, .. }| {
            let (chain, key) = (self.path(&file), self.path(&key));
            Some(ClientCertificate { chain: chain?, key: key? })
        });
        if let Some(password) = &password {
            let message = "a password does not stand in the configuration";
            self.mistake_with_help(password.key, message, "put it into a file, and write passwordFile: PATH");
        }
        let user = match (username, password_file) {
            (None, None) => None,
            (Some(username), Some(path)) => {
                if username.is_empty() {
                    self.mistake(username.place, "a user name is not empty");
                }
                let path = self.path(&path);
                Some(path.map(|password_file| EtcdUser { name: username.value, password_file }))
            }
            (Some(Located { key, .. }), None) | (None, Some(Located { key, .. })) => {
                if password.is_none() {
                    let message = "username and passwordFile go together, and one of them is missing";
                    self.mistake(key, message);
                }
                None
            }
        };
        Some(Etcd {
            endpoints: urls,
            prefix,
            ca_file: flatten(ca_file)?,
            certificate: flatten(certificate)?,
            user: flatten(user)?,
        })
    }

    fn endpoint(&mut self, text: &Located<Box<str>>) -> Option<Url> {
        let url = self.url(text, &["https", "http"])?;
        if url.path() != "/" {
            self.mistake(text.place, "an endpoint is named by scheme, host and port alone");
            return None;
        }
        if url.scheme() == "http" && !is_on_loopback(&url) {
            let message = "plain HTTP to etcd is for loopback only: on a network, everyone could write signatures";
            self.mistake_with_help(text.place, message, "write https://, and name the CA in caFile");
            return None;
        }
        Some(url)
    }
}
