//! The gateway's listener: HTTP/1.1, one route after the other.

use std::{future::Future, io, net::TcpListener, sync::Arc, time::Duration};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::Server,
    web::{self, Payload},
};

use super::{
    access::{AccessControl, AccessSetupError},
    desk::Desk,
    extension::{self, Context},
    own,
    path::{Own, Route, route},
    proxy,
    store::{ImageLimits, SignatureStore, StoreError, etcd::EtcdStore, redb::RedbStore},
    tokens,
    upstream::{self, Learned, Registry},
};
use crate::configuration::{Gateway, Limits, Store};
use crate::registry::SetupError;

/// How long a client may take over a request's head.
const SLOWEST_HEAD: Duration = Duration::from_secs(10);
/// How many clients a worker (a processor's thread) has at once; further ones wait to be taken.
const CONNECTIONS_OF_A_WORKER: usize = 1024;
/// How long transfers may go on after the end has begun, in seconds: together with the time that
/// requests are still taken (5 s) below a pod's terminationGracePeriod of 30 s.
const LAST_TRANSFERS_SECONDS: u64 = 20;

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
    desk: Desk,
    anyone: bool,
}

impl Prepared {
    /// Reads the CA file and whatever says who may do what, looks at the store's file, and changes nothing of it: the file
    /// may be in use, and etcd is not asked. To be called on the runtime that outlives the server.
    pub async fn new(settings: &Gateway, limits: &Limits) -> Result<Self, GatewayError> {
        let (upstream, registry) = Self::look(settings, limits)?;
        let limits = ImageLimits::with_lists_of(limits.signature_list_bytes);
        let access = AccessControl::open(settings.access.as_ref()).await?;
        let anyone = !access.asks_who();
        let desk = Desk::new(Arc::new(access), settings);
        Ok(Self { upstream, registry, store: settings.store.clone(), limits, desk, anyone })
    }

    /// Finds what would keep [`Prepared::new`] from its end, and makes no file at all.
    pub async fn check(settings: &Gateway, limits: &Limits) -> Result<(), GatewayError> {
        Self::look(settings, limits)?;
        Ok(AccessControl::check(settings.access.as_ref()).await?)
    }

    fn look(settings: &Gateway, limits: &Limits) -> Result<(upstream::Settings, Registry), GatewayError> {
        let upstream = upstream::Settings::new(&settings.registry, limits.manifest_bytes)?;
        let registry = upstream.registry(Learned::new())?;
        match &settings.store {
            Store::Redb(file) => RedbStore::check(file)?,
            Store::Etcd(etcd) => EtcdStore::check(etcd)?,
        }
        Ok((upstream, registry))
    }

    /// Opens the store and gives a server that, once awaited, serves until `shutdown` is ready; transfers under way then
    /// have [some seconds](LAST_TRANSFERS_SECONDS) to end.
    ///
    /// Blocks while the store's file is read and checked; waits some seconds for etcd. The server keeps the store open until
    /// it has ended.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<rustls::ServerConfig>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Server, GatewayError> {
        let Self { upstream, registry, store, limits, desk, anyone } = self;
        let upstream = Arc::new(upstream);
        let address = listener.local_addr()?;
        // That this is meant was asked when the configuration was read.
        let desk = desk.at(address);
        if anyone && !desk.is_on_loopback() {
            tracing::warn!(%address, "everyone who reaches this address, or a proxy in front of it, may add signatures to images");
        }
        let store: Arc<dyn SignatureStore> = match store {
            Store::Redb(file) => Arc::new(RedbStore::open(&file, limits)?),
            Store::Etcd(etcd) => Arc::new(EtcdStore::open(&etcd, limits).await?),
        };
        let desk = web::Data::new(desk);
        tokio::spawn(Desk::warn_of(Arc::clone(&desk), registry.clone()));
        let server = HttpServer::new(move || {
            // A worker that can't make clients of its own uses the ones that were made first.
            let registry = upstream.registry(registry.learned().clone()).unwrap_or_else(|_| registry.clone());
            App::new()
                .app_data(web::Data::new(registry))
                .app_data(web::Data::new(Arc::clone(&store)))
                .app_data(desk.clone())
                .default_service(web::to(answer))
        })
        .max_connections(CONNECTIONS_OF_A_WORKER)
        .client_request_timeout(SLOWEST_HEAD)
        .tcp_nodelay(true)
        // A client that has closed its side is gone; nothing is fetched for it any more.
        .h1_allow_half_closed(false)
        .shutdown_timeout(LAST_TRANSFERS_SECONDS)
        .disable_signals()
        .shutdown_signal(shutdown);
        // Whoever stops reading is not waited for: the system ends a connection on which nothing could be sent for so long.
        // Whoever reads slowly is not taken for one of them, as he would be if the system took megabytes from us that take him
        // longer than that to read. Connections inherit both from their listener.
        #[cfg(target_os = "linux")]
        {
            use super::transfer::{PIECE, STANDSTILL};
            let socket = socket2::SockRef::from(&listener);
            socket.set_tcp_user_timeout(Some(STANDSTILL))?;
            socket.set_tcp_notsent_lowat(u32::try_from(PIECE).unwrap_or(u32::MAX))?;
        }
        let server = match tls {
            Some(tls) => server.listen_rustls_0_23(listener, tls)?,
            None => server.listen(listener)?,
        };
        Ok(server.run())
    }
}

async fn answer(
    request: HttpRequest,
    payload: Payload,
    registry: web::Data<Registry>,
    store: web::Data<Arc<dyn SignatureStore>>,
    desk: web::Data<Desk>,
) -> HttpResponse {
    let route = match route(request.uri().path()) {
        Ok(Route::Health) => {
            return match store.health().await {
                Ok(()) => HttpResponse::Ok().body("ok\n"),
                Err(error) => HttpResponse::ServiceUnavailable().body(format!("{error}\n")),
            };
        }
        Ok(Route::Own(Own::Token)) => return tokens::answer(&registry, &desk, &request, payload).await,
        Ok(route) => route,
        Err(refused) => return refused.into(),
    };
    let visitor = match desk.receive(&registry, &request).await {
        Ok(visitor) => visitor,
        Err(refused) => return refused.into(),
    };
    let context = Context { store: &store, registry: &registry, desk: &desk, visitor: &visitor, request: &request };
    match route {
        Route::Registry { ping } => proxy::pass(&registry, (&desk, &visitor), &request, payload, ping).await,
        Route::Signatures(image) => extension::answer(&context, payload, &image).await,
        Route::Own(own) => own::answer(&context, payload, own).await,
        // It was answered above.
        Route::Health => HttpResponse::Ok().finish(),
    }
}
