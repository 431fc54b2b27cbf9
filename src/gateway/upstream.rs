//! The registry behind the gateway.

use std::{fs, io, path::PathBuf, time::Duration};

use actix_web::http::{StatusCode, header::HeaderValue};
use moka::future::Cache;
use reqwest::{Client, Method, header, redirect};
use url::Url;

use super::{answer::Refused, store::ImageId};
use crate::configuration::Upstream;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the registry may take to say whether an image exists.
const LOOK: Duration = Duration::from_secs(20);
/// How long it is remembered that everyone may pull an image. Whoever makes a repository private waits this long until
/// its signatures, which were public until then, are private too.
const PUBLIC_FOR: Duration = Duration::from_mins(1);
/// How many images that everyone may pull are remembered.
const PUBLIC_IMAGES: u64 = 100_000;
/// CA files are longer than this only by mistake.
const LARGEST_CA_FILE: u64 = 4 << 20;

/// All that a signature can belong to; without these in `Accept`, old registries convert what they have.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v1+prettyjws";

/// Why the registry's address or CA can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// Not a URL of a registry.
    #[error(
        "gateway.registry.url must be http://host[:port] or https://host[:port], without credentials, query and fragment: {0}"
    )]
    Url(String),
    /// The CA file can't be read.
    #[error("gateway.registry.caFile {}: {source}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The CA file has no certificate in it, or TLS can't be set up with it.
    #[error("gateway.registry.caFile: a PEM file with CA certificates is expected: {0}")]
    Ca(reqwest::Error),
    /// TLS can't be set up.
    #[error("the connection to the registry can't be set up: {0}")]
    Client(reqwest::Error),
}

/// The registry's address, and what its certificate is verified with; checked.
#[derive(Clone)]
pub(super) struct Settings {
    url: Url,
    ca: Vec<reqwest::Certificate>,
}

impl Settings {
    pub(super) fn new(upstream: &Upstream) -> Result<Self, UpstreamError> {
        let url = upstream.url.clone();
        let good = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if !good {
            // Not the whole: credentials may stand in it.
            return Err(UpstreamError::Url(format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default())));
        }
        let ca = match &upstream.ca_file {
            Some(path) => {
                let pem = read_bounded(path).map_err(|source| UpstreamError::CaFile { path: path.clone(), source })?;
                reqwest::Certificate::from_pem_bundle(&pem).map_err(UpstreamError::Ca)?
            }
            None => Vec::new(),
        };
        Ok(Self { url, ca })
    }

    /// A client. One drives its connections on the runtime that uses it first, so each worker has its own.
    pub(super) fn client(&self) -> Result<Client, UpstreamError> {
        let builder = Client::builder()
            // What redirects lead to is the client's to fetch, with or without its credentials.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT)
            .pool_idle_timeout(Duration::from_secs(30));
        let builder = if self.url.scheme() == "http" {
            // Nothing to verify: a system without CA certificates is no obstacle.
            builder.tls_certs_only([])
        } else {
            builder.tls_certs_merge(self.ca.iter().cloned())
        };
        builder.build().map_err(UpstreamError::Client)
    }
}

/// The registry, as one worker sees it.
pub(super) struct Registry {
    url: Url,
    client: Client,
    public: PublicImages,
}

/// Images that everyone may pull, shared by all workers.
pub(super) type PublicImages = Cache<ImageId, ()>;

/// Room for [`PublicImages`].
pub(super) fn public_images() -> PublicImages {
    Cache::builder().max_capacity(PUBLIC_IMAGES).time_to_live(PUBLIC_FOR).build()
}

/// Whether a caller may pull an image.
#[derive(Debug)]
pub(super) enum Pull {
    /// Yes, so it exists.
    Yes,
    /// There is no such image, or the registry says so to this caller.
    Unknown,
    /// No. The registry's challenges go with it.
    No(Refused, Vec<HeaderValue>),
    /// It can't be said; `Retry-After` of the registry goes with it.
    Undecided(Refused, Option<HeaderValue>),
}

impl Registry {
    pub(super) fn new(settings: &Settings, client: Client, public: PublicImages) -> Self {
        Self { url: settings.url.clone(), client, public }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The registry's URL of a raw path and query, neither touched. Nothing: they mean something else in a URL.
    pub(super) fn url_of(&self, path_and_query: &str) -> Option<Url> {
        // A registry's address has no path of its own; the configuration takes none.
        let url = Url::parse(&format!("{}{path_and_query}", self.url.origin().ascii_serialization())).ok()?;
        let path = path_and_query.split(['?', '#']).next()?;
        (url.path() == path && url.fragment().is_none()).then_some(url)
    }

    /// Whether a caller with these `Authorization` fields may pull the image; that everyone may is remembered.
    pub(super) async fn may_pull(&self, image: &ImageId, authorization: &[HeaderValue]) -> Pull {
        if self.public.get(image).await.is_some() {
            return Pull::Yes;
        }
        self.may_pull_now(image, authorization).await
    }

    /// The same, asked of the registry in any case: the image may be gone.
    ///
    /// That everyone may pull an image is learned here alone, from an answer to a request that this program made, without
    /// anything of the caller's. In what passes through there are paths that the registry reads in another way, and
    /// credentials of kinds that nobody knows here (cookies, header fields, queries). What the registry says to credentials
    /// is not kept: they may be withdrawn.
    pub(super) async fn may_pull_now(&self, image: &ImageId, authorization: &[HeaderValue]) -> Pull {
        let path = format!("/v2/{}/manifests/{}", image.repository.as_str(), image.digest);
        let Some(url) = self.url_of(&path) else { return Pull::Unknown };
        let mut request = self.client.request(Method::HEAD, url).header(header::ACCEPT, MANIFEST_TYPES).timeout(LOOK);
        for value in authorization {
            request = request.header(header::AUTHORIZATION, value.as_bytes());
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the registry can't be asked for a manifest");
                return Pull::Undecided(failure(&error), None);
            }
        };
        let copied = |name| -> Vec<HeaderValue> {
            let values = answer.headers().get_all(name).iter();
            values.filter_map(|value| HeaderValue::from_bytes(value.as_bytes()).ok()).collect()
        };
        match StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY) {
            StatusCode::OK => {
                if authorization.is_empty() {
                    self.public.insert(image.clone(), ()).await;
                }
                Pull::Yes
            }
            StatusCode::NOT_FOUND => Pull::Unknown,
            StatusCode::UNAUTHORIZED => Pull::No(Refused::unauthorized(), copied(header::WWW_AUTHENTICATE)),
            StatusCode::FORBIDDEN => Pull::No(Refused::denied(), Vec::new()),
            StatusCode::TOO_MANY_REQUESTS => {
                Pull::Undecided(Refused::too_many_requests(), copied(header::RETRY_AFTER).pop())
            }
            status if status.is_server_error() => {
                tracing::warn!(%status, "the registry is in trouble");
                Pull::Undecided(Refused::unavailable(), copied(header::RETRY_AFTER).pop())
            }
            status => {
                tracing::warn!(%status, "the registry's answer to HEAD of a manifest can't be used");
                Pull::Undecided(Refused::bad_gateway(), None)
            }
        }
    }
}

/// What a client is told of a failed request.
pub(super) fn failure(error: &reqwest::Error) -> Refused {
    if error.is_connect() {
        Refused::unavailable()
    } else if error.is_timeout() {
        Refused::timed_out()
    } else {
        Refused::bad_gateway()
    }
}

fn read_bounded(path: &std::path::Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LARGEST_CA_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(url: &str) -> Result<Registry, UpstreamError> {
        let settings = Settings::new(&Upstream { url: url.parse().unwrap(), ca_file: None })?;
        Ok(Registry::new(&settings, settings.client()?, public_images()))
    }

    #[test]
    fn paths_and_queries_stay_as_they_were_sent() {
        let registry = registry("http://r:5000").unwrap();
        for path in
            ["/v2/", "/v2/a/blobs/sha256%3A00?x=%2F%20&y=a+b&_state=A%3D", "/v2/a//b", "/v2/?", "/v2/a~b?n=1&n=2"]
        {
            assert_eq!(registry.url_of(path).unwrap().as_str(), format!("http://r:5000{path}"));
        }
        for path in ["/v2/../x", "/v2/%2e%2e/x", "/v2/a\\..\\x", "/v2/#/x"] {
            assert!(registry.url_of(path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_registrys_address_has_no_secrets_in_it() {
        let error = registry("https://robot:secret@r.example.com/").err().unwrap().to_string();
        assert!(error.ends_with("https://r.example.com") && !error.contains("secret"), "{error}");
        for url in ["ftp://r/", "http://r/?x", "http://r/#x"] {
            assert!(registry(url).is_err(), "{url}");
        }
    }
}
