//! Serves the connections of a listener.

use std::{
    fmt,
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use actix_http::{Request, Response, body::MessageBody};
use actix_server::Server;
use actix_service::{IntoServiceFactory, Service, ServiceFactory, fn_factory, fn_service};
use actix_web::dev::AppConfig;
use futures_util::future::FutureExt as _;
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_rustls::TlsAcceptor;

use super::{
    connection_end::ConnectionEnd,
    connections::Connections,
    handler::{Handler, make_handler},
    http1, http2,
    progress::Progress,
    settings::{ListenerSettings, Protocols, Tls},
    stream::Observed,
};
use crate::telemetry::{LogThrottle, Metrics};

/// The state that the connections of a worker share.
struct Worker {
    settings: ListenerSettings,
    tls: Option<TlsAcceptor>,
    connections: Arc<Connections>,
    stopped: watch::Receiver<bool>,
    handler: Handler,
    http1: http1::Http1,
    log: Arc<Log>,
}

/// Limits on the log lines that clients cause.
#[derive(Default)]
struct Log {
    handshakes: LogThrottle,
    refusals: LogThrottle,
}

/// Returns a server of an actix-web application that, once awaited, serves until `stop` is ready. Requests in flight
/// then have [some time](ListenerSettings::stop_within) to end.
///
/// # Errors
/// The listener can't be used.
pub fn serve<F, A, S, B>(
    listener: TcpListener,
    tls: Option<Tls>,
    settings: ListenerSettings,
    metrics: Option<Arc<Metrics>>,
    app: F,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Server>
where
    F: Fn() -> A + Send + Clone + 'static,
    A: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig, Error = actix_web::Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>>,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let connections = Connections::new(settings.name, settings.connections.clone(), metrics);
    let acceptor = tls.map(|Tls { mut config, protocols }| {
        config.alpn_protocols = match protocols {
            Protocols::Http1 => vec![b"http/1.1".to_vec()],
            Protocols::Http2AndHttp1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        TlsAcceptor::from(Arc::new(config))
    });
    let (tell_stopped, stopped) = watch::channel(false);
    let stop = async move {
        stop.await;
        tell_stopped.send_replace(true);
    };
    let log = Arc::new(Log::default());
    let (workers, stop_within) = (settings.workers.max(1), settings.stop_within.as_secs().max(1));
    // This module counts the connections; actix only bounds those that no worker has received yet.
    let backstop = settings.connections.total.saturating_add(BACKLOG);
    let name = settings.name;
    let factory = move || {
        let (app, settings, acceptor, stopped) = (app.clone(), settings.clone(), acceptor.clone(), stopped.clone());
        let (connections, log) = (Arc::clone(&connections), Arc::clone(&log));
        fn_factory(move || {
            let (app, settings, tls, stopped) =
                (app().into_factory(), settings.clone(), acceptor.clone(), stopped.clone());
            let (connections, log) = (Arc::clone(&connections), Arc::clone(&log));
            async move {
                let handler = make_handler(app).await?;
                let http1 = http1::Http1::new(&handler, settings.serve_half_closed).await?;
                let worker = Rc::new(Worker { settings, tls, connections, stopped, handler, http1, log });
                Ok::<_, ()>(fn_service(move |tcp: TcpStream| {
                    serve_connection(Rc::clone(&worker), tcp).map(Ok::<_, ()>)
                }))
            }
        })
    };
    let server = Server::build()
        .workers(workers)
        .max_concurrent_connections(backstop)
        .disable_signals()
        .shutdown_signal(stop)
        .shutdown_timeout(stop_within)
        .listen(name, listener, factory)?;
    Ok(server.run())
}

/// The maximum number of connections that the system has accepted and that are not counted yet.
const BACKLOG: usize = 128;

/// Serves one connection to its end.
async fn serve_connection(worker: Rc<Worker>, tcp: TcpStream) {
    let Ok(peer) = tcp.peer_addr() else { return };
    let listener = worker.settings.name;
    let Some(open) = worker.connections.accept(peer.ip()) else {
        if let Some(left_out) = worker.log.refusals.take() {
            tracing::warn!(listener, %peer, left_out, "connection refused: all connections of the listener, or of this peer, have a request in flight");
        }
        return;
    };
    let progress = Progress::new(open, worker.settings.timeouts, worker.tls.is_some());
    // Otherwise an answer may wait for a delayed acknowledgement.
    let _ = tcp.set_nodelay(true);
    let end =
        until_its_time_is_up(&progress, worker.stopped.clone(), serve_requests(&worker, tcp, peer, &progress)).await;
    if end != ConnectionEnd::Closed {
        progress.open().record(end);
        tracing::debug!(listener, %peer, end = end.label(), "connection ended");
    }
}

async fn serve_requests(worker: &Rc<Worker>, tcp: TcpStream, peer: SocketAddr, progress: &Rc<Progress>) {
    let Some(acceptor) = &worker.tls else {
        return worker.http1.serve(Observed::new(tcp, Rc::clone(progress)), peer).await;
    };
    let tls = match acceptor.accept(tcp).await {
        Ok(tls) => tls,
        Err(error) => {
            progress.open().record(ConnectionEnd::HandshakeFailed);
            if let Some(left_out) = worker.log.handshakes.take() {
                tracing::info!(listener = worker.settings.name, %peer, %error, left_out, "TLS handshake failed");
            }
            return;
        }
    };
    let session = tls.get_ref().1;
    let http2 = session.alpn_protocol() == Some(b"h2");
    let certified = session.peer_certificates().is_some_and(|chain| !chain.is_empty());
    if certified && !progress.open().certify() {
        return;
    }
    progress.handshake_complete(http2);
    let stream = Observed::new(tls, Rc::clone(progress));
    if http2 {
        http2::serve(&worker.handler, stream, peer).await;
    } else {
        worker.http1.serve(stream, peer).await;
    }
}

/// Runs a connection until it ends, reaches a time limit, or is evicted. After shutdown, runs it until no request is in
/// flight and none arrives.
async fn until_its_time_is_up(
    progress: &Rc<Progress>,
    mut stopped: watch::Receiver<bool>,
    serve: impl Future<Output = ()>,
) -> ConnectionEnd {
    let mut serve = pin!(serve);
    let mut stop = pin!(async move {
        // An error means that the server is dropped.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    });
    let mut stopping = false;
    let mut timer = pin!(sleep_until(Instant::now()));
    std::future::poll_fn(move |context| {
        if progress.open().connection().is_evicted(context.waker()) {
            // Lets HTTP/2 send GOAWAY, so that the client learns which requests were not processed, if the socket has
            // room for it.
            progress.evict();
            let _ = serve.as_mut().poll(context);
            return Poll::Ready(ConnectionEnd::Evicted);
        }
        if !stopping && stop.as_mut().poll(context).is_ready() {
            stopping = true;
            progress.close();
        }
        if serve.as_mut().poll(context).is_ready() {
            return Poll::Ready(ConnectionEnd::Closed);
        }
        // The timer may be early, but never late. The deadline is checked again then.
        while let Some((at, end)) = progress.deadline() {
            if at < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(at);
            }
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() < at {
                continue;
            }
            if end == ConnectionEnd::IdleTimeout && progress.says_goodbye() && !progress.is_closing() {
                progress.open().record(end);
                progress.close();
                if serve.as_mut().poll(context).is_ready() {
                    return Poll::Ready(ConnectionEnd::Closed);
                }
                continue;
            }
            return Poll::Ready(end);
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actix_web::{
        body::{BodyStream, BoxBody},
        web::Bytes,
    };
    use futures_util::{StreamExt as _, stream};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
        sync::Notify,
        task::LocalSet,
    };

    use super::*;
    use crate::server::{ConnectionLimits, Timeouts};

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    /// In the tests' time, which passes when nothing else happens: what was sent has been seen.
    const MOMENT: Duration = Duration::from_millis(100);

    /// Answers that end once `release` says so.
    fn slow_answers(release: &Arc<Notify>) -> Handler {
        let release = Arc::clone(release);
        Rc::new(move |_| {
            let release = Arc::clone(&release);
            let pieces =
                stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"one"))]).chain(stream::once(async move {
                    release.notified().await;
                    Ok(Bytes::from_static(b"two"))
                }));
            let body = BodyStream::new(pieces.boxed_local());
            async move { Response::ok().set_body(BoxBody::new(body)) }.boxed_local()
        })
    }

    async fn read_until(client: &mut DuplexStream, end: &str) -> String {
        let mut read = String::new();
        while !read.ends_with(end) {
            let byte = client.read_u8().await.expect("the connection is open");
            read.push(char::from(byte));
        }
        read.to_lowercase()
    }

    /// A client of a connection that is served until its end, what lets answers end, and what stops the server.
    async fn connection() -> (DuplexStream, Arc<Notify>, watch::Sender<bool>) {
        let limits = ConnectionLimits { total: 4, client_certificates: false, shared_peers: Vec::new() };
        let connections = Connections::new("test", limits, None);
        let hour = Duration::from_hours(1);
        let timeouts = Timeouts { handshake: hour, head: hour, idle: hour, write: hour };
        let peer: SocketAddr = ([127, 0, 0, 1], 9).into();
        let progress = Progress::new(connections.accept(peer.ip()).unwrap(), timeouts, false);
        let release = Arc::new(Notify::new());
        let http1 = http1::Http1::new(&slow_answers(&release), true).await.unwrap();
        let (client, server) = tokio::io::duplex(64 << 10);
        let (stop, stopped) = watch::channel(false);
        tokio::task::spawn_local(async move {
            let serve = http1.serve(Observed::new(server, Rc::clone(&progress)), peer);
            until_its_time_is_up(&progress, stopped, serve).await
        });
        (client, release, stop)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_meets_the_stop_is_answered_and_told_that_the_connection_ends() {
        LocalSet::new()
            .run_until(async {
                for in_flight in [false, true] {
                    let (mut client, release, stop) = connection().await;
                    client.write_all(GET).await.unwrap();
                    let head = read_until(&mut client, "one\r\n").await;
                    assert!(!head.contains("connection: close"), "{head}");
                    // The stop comes behind this answer, or into it: its head is sent, and says nothing of the end.
                    let finish = || release.notify_one();
                    if in_flight {
                        stop.send_replace(true);
                        tokio::time::sleep(MOMENT).await;
                        finish();
                        read_until(&mut client, "0\r\n\r\n").await;
                    } else {
                        finish();
                        read_until(&mut client, "0\r\n\r\n").await;
                        stop.send_replace(true);
                    }
                    tokio::time::sleep(MOMENT).await;
                    client.write_all(GET).await.unwrap();
                    finish();
                    let mut answer = String::new();
                    client.read_to_string(&mut answer).await.unwrap();
                    let answer = answer.to_lowercase();
                    assert!(answer.contains("connection: close") && answer.contains("two"), "{in_flight}: {answer}");
                }
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_stays_idle_ends_soon_after_the_stop() {
        LocalSet::new()
            .run_until(async {
                let (mut client, _release, stop) = connection().await;
                stop.send_replace(true);
                let mut rest = Vec::new();
                let ended = tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut rest)).await;
                assert!(ended.is_ok() && rest.is_empty());
            })
            .await;
    }
}
