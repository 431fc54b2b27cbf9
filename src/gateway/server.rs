//! The gateway's listener: HTTP/1.1, one route after the other.

use std::{future::Future, io, net::TcpListener, sync::Arc, time::Duration};

use actix_web::{
    App, HttpRequest, HttpResponse,
    dev::Server,
    http::ConnectionType,
    web::{self, Payload},
};

use super::{
    api,
    auth::{AccessControl, AccessSetupError, RequestAuth},
    extension,
    path::{ApiRoute, Route, route},
    proxy,
    rate_limit::RateLimit,
    request::RequestContext,
    stall_guard::STALL_TIMEOUT,
    store::{ImageLimits, SignatureStore, StoreError, etcd::EtcdStore, redb::RedbStore},
    token_endpoint,
    upstream::{self, Registry, UpstreamCache},
};
use crate::configuration::{Gateway, Limits, Store};
use crate::registry::SetupError;
use crate::server::{self, ConnectionLimits, Protocols, Timeouts, Tls};
use crate::telemetry::{Readiness, supervise};

/// Connections, where memory and descriptors allow it. Nodes that pull have a few each.
const MAX_CONNECTIONS: usize = 4096;
/// How long clients may take. A body that comes has a time of its own.
const TIMEOUTS: Timeouts = Timeouts {
    handshake: Duration::from_secs(10),
    head: Duration::from_secs(10),
    // Longer than the 90 s after which Go's clients give up an idle connection.
    idle: Duration::from_mins(2),
    write: STALL_TIMEOUT,
};
/// How long transfers may go on after the end has begun: together with the time that requests are still taken (5 s) below a
/// pod's terminationGracePeriod of 30 s.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// Why the gateway does not begin to serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The registry can't be asked as configured.
    #[error(transparent)]
    Registry(#[from] SetupError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Who may do what.
    #[error(transparent)]
    Access(#[from] AccessSetupError),
    /// The listener.
    #[error("gateway.listen: {0}")]
    Listener(#[from] io::Error),
}

/// All that serving takes, read and checked.
pub struct Prepared {
    upstream: upstream::Settings,
    registry: Registry,
    store: Store,
    limits: ImageLimits,
    auth: RequestAuth,
    anyone: bool,
    readiness: Arc<Readiness>,
}

impl Prepared {
    /// Reads the CA file and whatever says who may do what, looks at the store's file, and changes nothing of it: the file
    /// may be in use, and etcd is not asked. To be called on the runtime that outlives the server.
    pub async fn new(settings: &Gateway, limits: &Limits) -> Result<Self, GatewayError> {
        let (upstream, registry) = Self::look(settings, limits)?;
        let limits = ImageLimits::with_lists_of(limits.signature_list_bytes);
        let access = AccessControl::open(settings.access.as_ref()).await?;
        let anyone = !access.is_enabled();
        let auth = RequestAuth::new(Arc::new(access), settings);
        let readiness = Arc::new(Readiness::default());
        readiness.set(true);
        Ok(Self { upstream, registry, store: settings.store.clone(), limits, auth, anyone, readiness })
    }

    /// While this says no, each answer closes its connection: what will be cut off soon must not be used again, or a request
    /// that is just being sent is lost, which clients don't repeat where it changes something.
    pub fn readiness(&self) -> Arc<Readiness> {
        Arc::clone(&self.readiness)
    }

    /// Finds what would keep [`Prepared::new`] from its end, and makes no file at all.
    pub async fn check(settings: &Gateway, limits: &Limits) -> Result<(), GatewayError> {
        Self::look(settings, limits)?;
        Ok(AccessControl::check(settings.access.as_ref()).await?)
    }

    fn look(settings: &Gateway, limits: &Limits) -> Result<(upstream::Settings, Registry), GatewayError> {
        let upstream = upstream::Settings::new(&settings.registry, limits.manifest_bytes)?;
        let registry = upstream.registry(UpstreamCache::new())?;
        match &settings.store {
            Store::Redb(file) => RedbStore::check(file)?,
            Store::Etcd(etcd) => EtcdStore::check(etcd)?,
        }
        Ok((upstream, registry))
    }

    /// Opens the store and gives a server that, once awaited, serves until `shutdown` is ready; transfers under way then
    /// have [some seconds](LAST_TRANSFERS) to end.
    ///
    /// Blocks while the store's file is read and checked; waits some seconds for etcd. The server keeps the store open until
    /// it has ended.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<rustls::ServerConfig>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Server, GatewayError> {
        let Self { upstream, registry, store, limits, auth, anyone, readiness } = self;
        let readiness = web::Data::from(readiness);
        let upstream = Arc::new(upstream);
        let address = listener.local_addr()?;
        // That this is meant was asked when the configuration was read.
        let auth = auth.at(address, tls.is_some());
        let shared_peers = auth.trusted_proxies().to_vec();
        if anyone && !auth.is_on_loopback() {
            tracing::warn!(%address, "everyone who reaches this address, or a proxy in front of it, may add signatures to images");
        }
        let store: Arc<dyn SignatureStore> = match store {
            Store::Redb(file) => Arc::new(RedbStore::open(&file, limits)?),
            Store::Etcd(etcd) => Arc::new(EtcdStore::open(&etcd, limits).await?),
        };
        let (auth, rate_limit) = (web::Data::new(auth), web::Data::new(RateLimit::new()));
        let (asked, asking) = (registry.clone(), Arc::clone(&auth));
        tokio::spawn(async move {
            supervise("access-check", None, || RequestAuth::warn_of_mismatch(Arc::clone(&asking), asked.clone())).await;
        });
        // The system ends the connection of a client that stops reading, once nothing could be sent for so long. A client that
        // reads slowly must not be taken for one, so the system takes no more from us than such a client reads in that time. Connections inherit both from their listener.
        #[cfg(target_os = "linux")]
        {
            use super::stall_guard::MAX_PIECE_BYTES;
            let socket = socket2::SockRef::from(&listener);
            socket.set_tcp_user_timeout(Some(STALL_TIMEOUT))?;
            socket.set_tcp_notsent_lowat(u32::try_from(MAX_PIECE_BYTES).unwrap_or(u32::MAX))?;
        }
        let settings = server::ListenerSettings {
            name: "gateway",
            connections: ConnectionLimits {
                total: server::capacity::connections(MAX_CONNECTIONS),
                client_certificates: false,
                shared_peers,
            },
            timeouts: TIMEOUTS,
            // A client that has closed its side is gone; nothing is fetched for it any more.
            serve_half_closed: false,
            workers: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            stop_within: SHUTDOWN_TIMEOUT,
        };
        let app = move || {
            // A worker that can't make clients of its own uses the ones that were made first.
            let registry = upstream.registry(registry.cache().clone()).unwrap_or_else(|_| registry.clone());
            App::new()
                .app_data(web::Data::new(registry))
                .app_data(web::Data::new(Arc::clone(&store)))
                .app_data(auth.clone())
                .app_data(rate_limit.clone())
                .app_data(readiness.clone())
                .default_service(web::to(answer))
        };
        // HTTP/1.1 alone: clients open a few connections and keep them for a whole push or pull, so HTTP/2 would save no
        // handshakes; it would put the layers that a client moves side by side into one connection, with its windows, on one
        // worker (measured: docs/performance.md).
        let tls = tls.map(|config| Tls { config, protocols: Protocols::Http1 });
        Ok(server::serve(listener, tls, settings, None, app, shutdown)?)
    }
}

async fn answer(
    request: HttpRequest,
    payload: Payload,
    registry: web::Data<Registry>,
    store: web::Data<Arc<dyn SignatureStore>>,
    auth: web::Data<RequestAuth>,
    rate_limit: web::Data<RateLimit>,
    readiness: web::Data<Readiness>,
) -> HttpResponse {
    let mut response = answer_by_route(request, payload, registry, store, auth, rate_limit).await;
    if !readiness.get() {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    response
}

async fn answer_by_route(
    request: HttpRequest,
    payload: Payload,
    registry: web::Data<Registry>,
    store: web::Data<Arc<dyn SignatureStore>>,
    auth: web::Data<RequestAuth>,
    rate_limit: web::Data<RateLimit>,
) -> HttpResponse {
    let route = match route(request.uri().path()) {
        Ok(Route::Health) => {
            return match store.health().await {
                Ok(()) => HttpResponse::Ok().body("ok\n"),
                Err(error) => HttpResponse::ServiceUnavailable().body(format!("{error}\n")),
            };
        }
        Ok(Route::ApiRoute(ApiRoute::Token)) => {
            return token_endpoint::answer(&registry, &auth, &request, payload).await;
        }
        Ok(route) => route,
        Err(refused) => return refused.into(),
    };
    let caller = match auth.authenticate(&registry, &request).await {
        Ok(caller) => caller,
        Err(refused) => return refused.into(),
    };
    let context = RequestContext {
        store: &store,
        registry: &registry,
        auth: &auth,
        rate_limit: &rate_limit,
        caller: &caller,
        request: &request,
    };
    match route {
        Route::Registry { ping } => proxy::pass(&registry, (&auth, &caller), &request, payload, ping).await,
        Route::Signatures(image) => extension::answer(&context, payload, &image).await,
        Route::ApiRoute(own) => api::answer(&context, payload, own).await,
        // It was answered above.
        Route::Health => HttpResponse::Ok().finish(),
    }
}
