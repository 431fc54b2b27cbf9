//! `/metrics`, `/healthz` and `/readyz`, on listeners of their own. They answer while reviews are refused because of
//! overload, and probes while a client fills `/metrics` with connections.

use std::{future::Future, io, net::TcpListener, sync::Arc, time::Duration};

use actix_web::{App, HttpResponse, dev::Server, http::header, web};

use super::{ConnectionLimits, ListenerSettings, Timeouts};
use crate::telemetry::{Metrics, Readiness};

/// The maximum number of connections of each of these listeners, for a few scrapers or probes and some stray clients.
const CONNECTIONS: usize = 64;
/// The time limits. These requests are small, and are answered at once.
const TIMEOUTS: Timeouts = Timeouts {
    handshake: Duration::from_secs(5),
    head: Duration::from_secs(5),
    // Longer than the usual interval of scrapes and probes.
    idle: Duration::from_mins(2),
    write: Duration::from_secs(10),
};

/// The paths that a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// `/metrics`, `/healthz` and `/readyz`, if health has no listener of its own.
    All,
    /// `/metrics`.
    Metrics,
    /// `/healthz` and `/readyz`.
    Health,
}

/// Returns a server that, once awaited, serves until `shutdown` is ready.
///
/// # Errors
/// The listener can't be used.
pub fn serve(
    listener: TcpListener,
    pages: Pages,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Server> {
    let settings = ListenerSettings {
        name: if pages == Pages::Health { "health" } else { "metrics" },
        connections: ConnectionLimits { total: CONNECTIONS, client_certificates: false, shared_peers: Vec::new() },
        timeouts: TIMEOUTS,
        serve_half_closed: true,
        workers: 1,
        stop_within: Duration::from_secs(1),
    };
    let (shown, readiness) = (web::Data::from(Arc::clone(&metrics)), web::Data::from(readiness));
    let app = move || {
        let mut app = App::new().app_data(shown.clone()).app_data(readiness.clone());
        if pages != Pages::Health {
            app = app.route("/metrics", web::get().to(text));
        }
        if pages != Pages::Metrics {
            app = app.route("/healthz", web::get().to(|| async { "ok\n" })).route("/readyz", web::get().to(ready));
        }
        app
    };
    super::serve(listener, None, settings, Some(metrics), app, shutdown)
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
        for pages in [Pages::All, Pages::Metrics, Pages::Health] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let readiness = Arc::new(Readiness::default());
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let server = serve(listener, pages, Arc::default(), Arc::clone(&readiness), async move {
                let _ = stopped.await;
            });
            let server = tokio::spawn(server.unwrap());
            let status =
                async |path: &str| reqwest::get(format!("http://{address}{path}")).await.unwrap().status().as_u16();
            let has = |shown: bool, status: u16| if shown { status } else { 404 };
            let (metrics, health) = (pages != Pages::Health, pages != Pages::Metrics);
            assert_eq!(status("/healthz").await, has(health, 200));
            assert_eq!(status("/readyz").await, has(health, 503));
            readiness.set(true);
            assert_eq!(status("/readyz").await, has(health, 200));
            assert_eq!(status("/metrics").await, has(metrics, 200));
            assert_eq!(status("/other").await, 404);
            stop.send(()).unwrap();
            server.await.unwrap().unwrap();
        }
    }
}
