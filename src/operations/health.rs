//! `/metrics`, `/healthz` and `/readyz`, on a listener of their own: they answer while reviews are refused for overload.

use std::{
    future::Future,
    io,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, dev::Server, http::header, web};

use super::Metrics;

/// Whether reviews should be sent here: policies and certificates are loaded, and the end has not begun.
///
/// Registries play no part in it. Were they to, one that is down would take every replica out of service, and with them
/// each image that needs no registry.
#[derive(Debug, Default)]
pub struct Readiness(AtomicBool);

impl Readiness {
    /// From now on, ready or not.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// Ready or not.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How long a client may take over its request. These answers are small and made at once.
const SLOWEST_CLIENT: Duration = Duration::from_secs(5);

/// A server that, once awaited, serves until `shutdown` is ready.
///
/// # Errors
/// The listener can't be used.
pub fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Server> {
    let metrics = web::Data::from(metrics);
    let readiness = web::Data::from(readiness);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(metrics.clone())
            .app_data(readiness.clone())
            .route("/metrics", web::get().to(text))
            .route("/healthz", web::get().to(|| async { "ok\n" }))
            .route("/readyz", web::get().to(ready))
    })
    .workers(1)
    .max_connections(64)
    .client_request_timeout(SLOWEST_CLIENT)
    .shutdown_timeout(1)
    .disable_signals()
    .shutdown_signal(shutdown)
    .listen(listener)?;
    Ok(server.run())
}

async fn text(metrics: web::Data<Metrics>) -> HttpResponse {
    match metrics.text() {
        Ok(text) => HttpResponse::Ok().insert_header((header::CONTENT_TYPE, prometheus::TEXT_FORMAT)).body(text),
        Err(error) => HttpResponse::InternalServerError().body(format!("metrics can't be written: {error}\n")),
    }
}

async fn ready(readiness: web::Data<Readiness>) -> HttpResponse {
    if readiness.get() {
        HttpResponse::Ok().body("ok\n")
    } else {
        HttpResponse::ServiceUnavailable().body("starting or stopping\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_follows_the_flag_and_health_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Arc::new(Readiness::default());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = serve(listener, Arc::default(), Arc::clone(&readiness), async move {
            let _ = stopped.await;
        });
        let server = tokio::spawn(server.unwrap());
        let status =
            async |path: &str| reqwest::get(format!("http://{address}{path}")).await.unwrap().status().as_u16();
        assert_eq!(status("/healthz").await, 200);
        assert_eq!(status("/readyz").await, 503);
        readiness.set(true);
        assert_eq!(status("/readyz").await, 200);
        assert_eq!(status("/metrics").await, 200);
        assert_eq!(status("/other").await, 404);
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    }
}
