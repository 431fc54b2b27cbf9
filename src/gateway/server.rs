//! The gateway's listener, and the dispatch of requests.

use std::{future::Future, io, net::TcpListener, sync::Arc, time::Duration};

use actix_web::{
    App, HttpRequest, HttpResponse,
    dev::Server,
    http::ConnectionType,
    web::{self, Payload},
};

use super::{
    answer_memory::AnswerMemory,
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

/// The maximum number of connections, if memory and descriptors allow it. Nodes that pull have a few each.
const MAX_CONNECTIONS: usize = 4096;
/// The time limits of clients. A body in transfer has a limit of its own.
const TIMEOUTS: Timeouts = Timeouts {
    handshake: Duration::from_secs(10),
    head: Duration::from_secs(10),
    // Longer than the 90 s after which Go's clients close an idle connection.
    idle: Duration::from_mins(2),
    write: STALL_TIMEOUT,
};
/// The time limit of transfers after shutdown. Together with the 5 s in which requests are still accepted, it is below
/// a pod's terminationGracePeriod of 30 s.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// The reason why the gateway does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The settings of the registry can't be used.
    #[error(transparent)]
    Registry(#[from] SetupError),
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Access control can't be set up.
    #[error(transparent)]
    Access(#[from] AccessSetupError),
    /// The listener can't be used.
    #[error("gateway.listen: {0}")]
    Listener(#[from] io::Error),
}

/// A gateway that is ready to serve: everything is read and checked.
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
    /// Reads the CA file and the access control, and checks the store's file without a change: the file may be in use,
    /// and etcd is not asked. Call it on the runtime that outlives the server.
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

    /// Returns the readiness. While it is false, each answer closes its connection: on a connection that will soon be
    /// cut off, a request that is being sent would be lost, and clients don't retry one that changes something.
    pub fn readiness(&self) -> Arc<Readiness> {
        Arc::clone(&self.readiness)
    }

    /// Checks what [`Prepared::new`] needs, and makes no file.
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

    /// Opens the store, and returns a server that, once awaited, serves until `shutdown` is ready. Transfers in flight
    /// then have [some seconds](SHUTDOWN_TIMEOUT) to end.
    ///
    /// Blocks while the store's file is read and checked; waits some seconds for etcd. The server keeps the store open
    /// until it has ended.
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
        // The check of the configuration made sure that an open store is intended.
        let auth = auth.at(address, tls.is_some());
        let shared_peers = auth.trusted_proxies().to_vec();
        if anyone && !auth.is_on_loopback() {
            tracing::warn!(%address, "every client that reaches this address, or a proxy in front of it, may add signatures to images");
        }
        let store: Arc<dyn SignatureStore> = match store {
            Store::Redb(file) => Arc::new(RedbStore::open(&file, limits)?),
            Store::Etcd(etcd) => Arc::new(EtcdStore::open(&etcd, limits).await?),
        };
        let (auth, rate_limit) = (web::Data::new(auth), web::Data::new(RateLimit::new()));
        let answers = web::Data::new(AnswerMemory::for_lists_of(limits.list_bytes));
        let (asked, asking) = (registry.clone(), Arc::clone(&auth));
        tokio::spawn(async move {
            supervise("access-check", None, || RequestAuth::warn_of_mismatch(Arc::clone(&asking), asked.clone())).await;
        });
        // TCP_USER_TIMEOUT ends the connection of a client that stops reading. A slow reader must not be
        // mistaken for one, so the system accepts no more unsent bytes than such a client reads in that time. Connections
        // inherit both options from their listener.
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
            // A client that has closed its side is gone, so that nothing more is fetched for it.
            serve_half_closed: false,
            workers: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            stop_within: SHUTDOWN_TIMEOUT,
        };
        let app = move || {
            // If a worker can't make clients of its own, it uses the first ones.
            let registry = upstream.registry(registry.cache().clone()).unwrap_or_else(|_| registry.clone());
            App::new()
                .app_data(web::Data::new(registry))
                .app_data(web::Data::new(Arc::clone(&store)))
                .app_data(auth.clone())
                .app_data(rate_limit.clone())
                .app_data(answers.clone())
                .app_data(readiness.clone())
                .default_service(web::to(answer))
        };
        // HTTP/1.1 alone: clients open a few connections and keep them for a whole push or pull, so HTTP/2 would save
        // no handshakes. It would put all layers of a client into one connection, with its windows, on one worker
        // (measured: docs/performance.md).
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
    (rate_limit, answers): (web::Data<RateLimit>, web::Data<AnswerMemory>),
    readiness: web::Data<Readiness>,
) -> HttpResponse {
    let mut response = answer_by_route(request, payload, registry, store, auth, (rate_limit, answers)).await;
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
    (rate_limit, answers): (web::Data<RateLimit>, web::Data<AnswerMemory>),
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
        answers: &answers,
        caller: &caller,
        request: &request,
    };
    match route {
        Route::Registry { ping } => proxy::pass(&registry, (&auth, &caller), &request, payload, ping).await,
        Route::Signatures(image) => extension::answer(&context, payload, &image).await,
        Route::ApiRoute(own) => api::answer(&context, payload, own).await,
        // Answered above.
        Route::Health => HttpResponse::Ok().finish(),
    }
}
