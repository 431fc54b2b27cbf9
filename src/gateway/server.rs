//! The gateway's listener: HTTP/1.1, one route after the other.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::Server,
    web::{self, Payload},
};

use super::{
    extension,
    path::{Route, route},
    proxy,
    store::{ImageLimits, SignatureStore, StoreError, redb::RedbStore},
    upstream::{self, Registry, UpstreamError},
};
use crate::configuration::{Gateway, Limits};

/// How long a client may take over a request's head.
const SLOWEST_HEAD: Duration = Duration::from_secs(10);
/// How long transfers may go on after the end has begun, in seconds: below a pod's terminationGracePeriod of 30 s.
const LAST_TRANSFERS_SECONDS: u64 = 25;

/// Why the gateway does not begin to serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// Everyone who reaches the listener may add signatures, and that may be too many.
    #[error(
        "gateway.listen {0}: whoever reaches the store may add signatures to images, so it listens on a loopback address; \
         if everyone on that network may, say so: anyoneMaySign: true"
    )]
    NotLoopback(SocketAddr),
    /// Credentials would go over the network in the open.
    #[error(
        "gateway.listen {0}: without gateway.certificate the store speaks plain HTTP, and only on a loopback address"
    )]
    PlainHttp(SocketAddr),
    /// The registry's address.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The listener.
    #[error("gateway.listen: {0}")]
    Listener(#[from] io::Error),
}

/// Opens the store and gives a server that, once awaited, serves until `shutdown` is ready; transfers under way then have
/// [some seconds](LAST_TRANSFERS_SECONDS) to end.
///
/// Blocks while the store's file is read and checked. The server keeps the store open until it has ended.
pub fn serve(
    listener: TcpListener,
    tls: Option<rustls::ServerConfig>,
    settings: &Gateway,
    limits: &Limits,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Server, GatewayError> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        if !settings.anyone_may_sign {
            return Err(GatewayError::NotLoopback(address));
        }
        if tls.is_none() {
            return Err(GatewayError::PlainHttp(address));
        }
        tracing::warn!(%address, "everyone who reaches this address may add signatures to images");
    }
    let image_limits = ImageLimits { list_bytes: limits.signature_list_bytes, ..ImageLimits::default() };
    let upstream = upstream::Settings::new(&settings.registry)?;
    // Made here so that what is wrong with it is said now; a worker that can't make its own uses this one.
    let shared = upstream.client()?;
    let store: Arc<dyn SignatureStore> = Arc::new(RedbStore::open(&settings.store, image_limits)?);
    let public = upstream::public_images();
    let server = HttpServer::new(move || {
        let client = upstream.client().unwrap_or_else(|_| shared.clone());
        let registry = Registry::new(&upstream, client, public.clone());
        App::new()
            .app_data(web::Data::new(registry))
            .app_data(web::Data::from(Arc::clone(&store)))
            .default_service(web::to(answer))
    })
    .client_request_timeout(SLOWEST_HEAD)
    .tcp_nodelay(true)
    // A client that has closed its side is gone; nothing is fetched for it any more.
    .h1_allow_half_closed(false)
    .shutdown_timeout(LAST_TRANSFERS_SECONDS)
    .disable_signals()
    .shutdown_signal(shutdown);
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    };
    tracing::info!(%address, registry = %settings.registry.url, "the store serves");
    Ok(server.run())
}

async fn answer(
    request: HttpRequest,
    payload: Payload,
    registry: web::Data<Registry>,
    store: web::Data<dyn SignatureStore>,
) -> HttpResponse {
    match route(request.uri().path()) {
        Ok(Route::Registry { ping }) => proxy::pass(&registry, &request, payload, ping).await,
        Ok(Route::Signatures(image)) => extension::answer(&**store, &registry, &request, payload, &image).await,
        Ok(Route::Health) => match store.health() {
            Ok(()) => HttpResponse::Ok().body("ok\n"),
            Err(error) => HttpResponse::ServiceUnavailable().body(format!("{error}\n")),
        },
        Err(refused) => refused.into(),
    }
}
