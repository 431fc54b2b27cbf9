//! Listeners and their connections, whatever is served on them: time limits, bounds, HTTP/2, and the end.

#![allow(clippy::unwrap_used)] // In helpers too: a test is what they belong to.

mod crowd;
mod http1;
mod http2;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use actix_web::{App, HttpResponse, web};
use futures_util::stream;
use jiff::Timestamp;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use sealgate::{
    configuration::Certificate,
    server::{self, ConnectionLimits, ListenerSettings, Protocols, Timeouts, Tls},
    telemetry::Metrics,
    tls::ServerTls,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpSocket, TcpStream},
    sync::{Notify, Semaphore, oneshot},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What no step of a test takes on any machine.
const LONGEST: Duration = Duration::from_mins(1);
/// A time limit that nobody waits for in vain.
const NEVER: Duration = Duration::from_hours(1);
/// Time limits that a test waits for, each for a machine that was too slow for the one before.
const LIMITS: [Duration; 4] =
    [Duration::from_millis(300), Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(30)];
/// The first of them, where a machine can't be too slow.
const SOON: Duration = LIMITS[0];

/// Time limits none of which ends.
const PATIENT: Timeouts = Timeouts { handshake: NEVER, head: NEVER, idle: NEVER, write: NEVER };

/// A server in this process, stopped when dropped.
struct Server {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    /// Told when a request for `/wait` has come.
    begun: Arc<Notify>,
    /// Gives a permit for each such request that may end.
    open: Arc<Semaphore>,
    folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn plain(timeouts: Timeouts, total: usize) -> Self {
        Self::start(timeouts, total, None)
    }

    fn tls(timeouts: Timeouts, total: usize) -> Self {
        Self::start(timeouts, total, Some(Protocols::Http2AndHttp1))
    }

    fn start(timeouts: Timeouts, total: usize, protocols: Option<Protocols>) -> Self {
        let folder = TempDir::new().unwrap();
        let tls = protocols.map(|protocols| {
            let certificate = Certificate::Made { folder: folder.path().to_owned() };
            let config = ServerTls::load(&certificate, None, &[], Timestamp::now()).unwrap().server_config();
            Tls { config, protocols }
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, begun, open) = (Arc::new(Metrics::new()), Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
        let (stop, stopped) = oneshot::channel::<()>();
        let settings = ListenerSettings {
            name: "test",
            connections: ConnectionLimits { total, client_certificates: false, shared_peers: Vec::new() },
            timeouts,
            serve_half_closed: true,
            workers: 2,
            stop_within: Duration::from_secs(20),
        };
        let shared = (Arc::clone(&metrics), Arc::clone(&begun), Arc::clone(&open));
        let thread = std::thread::spawn(move || {
            let (metrics, begun, open) = shared;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let stop = async move {
                    let _ = stopped.await;
                };
                let app = move || app(Arc::clone(&begun), Arc::clone(&open));
                server::serve(listener, tls, settings, Some(metrics), app, stop).unwrap().await.unwrap();
            });
        });
        Self { address, metrics, begun, open, folder, stop: Some(stop), thread: Some(thread) }
    }

    /// Waits until the server has ended this many connections for this reason.
    async fn ended(&self, reason: &str, count: u64) {
        let line = format!("sealgate_connections_ended_total{{listener=\"test\",reason=\"{reason}\"}} ");
        let counted = || -> Option<u64> {
            let text = String::from_utf8(self.metrics.text().unwrap()).unwrap();
            text.lines().find_map(|found| found.strip_prefix(&line)).map(|number| number.parse().unwrap())
        };
        let waited = timeout(LONGEST, async {
            while counted().unwrap_or(0) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "{reason}: {:?} of {count}", counted());
    }

    fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// A connection from another address of this machine: `127.0.0.<host>`.
    async fn connect_from(&self, host: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, host], 0))).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    async fn connect(&self) -> TcpStream {
        self.connect_from(1).await
    }

    async fn connect_tls(&self, alpn: &str) -> TlsStream<TcpStream> {
        tls_over(self.connect().await, &self.folder.path().join("ca.crt"), alpn).await.unwrap()
    }

    /// A client that trusts this server.
    fn client(&self) -> reqwest::Client {
        let ca = std::fs::read(self.folder.path().join("ca.crt")).unwrap();
        let ca = reqwest::Certificate::from_pem(&ca).unwrap();
        reqwest::Client::builder().tls_certs_only([ca]).no_proxy().timeout(LONGEST).build().unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        self.open.add_permits(100_000);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn app(
    begun: Arc<Notify>,
    open: Arc<Semaphore>,
) -> App<
    impl actix_web::dev::ServiceFactory<
        actix_web::dev::ServiceRequest,
        Config = (),
        Response = actix_web::dev::ServiceResponse,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    App::new()
        .route("/", web::get().to(|| async { "ok" }))
        .route("/length", web::post().to(async |body: web::Bytes| body.len().to_string()))
        .route(
            "/wait",
            web::get().to(move || {
                let (begun, open) = (Arc::clone(&begun), Arc::clone(&open));
                async move {
                    begun.notify_one();
                    open.acquire().await.unwrap().forget();
                    // What the server was told since `begun` is looked at before the answer is there.
                    tokio::task::yield_now().await;
                    "waited"
                }
            }),
        )
        .route(
            "/endless",
            web::get().to(|| async {
                let piece = || Some((Ok::<_, std::io::Error>(web::Bytes::from(vec![b'x'; 16 << 10])), ()));
                HttpResponse::Ok().streaming(stream::unfold((), move |()| async move { piece() }))
            }),
        )
        .route("/close", web::get().to(|| async { HttpResponse::Ok().force_close().body("closed") }))
}

async fn tls_over(tcp: TcpStream, ca: &std::path::Path, alpn: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await
}

/// A connection, plain or over TLS.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// Waits until the server has closed a connection; gives what it sent before.
async fn closed(connection: &mut (impl Connection + ?Sized)) -> Vec<u8> {
    let mut rest = Vec::new();
    let mut piece = vec![0; 64 << 10];
    timeout(LONGEST, async {
        // A reset says the same as an end.
        while let Ok(length @ 1..) = connection.read(&mut piece).await {
            if rest.len() < 1 << 20 {
                rest.extend_from_slice(&piece[..length]);
            }
        }
    })
    .await
    .expect("the server closes the connection");
    rest
}
