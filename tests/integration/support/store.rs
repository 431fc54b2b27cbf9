//! The store (`sealgate gateway`), in this process, in front of a registry.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    thread,
};

use sealgate::{
    configuration::{self, Gateway, Limits, Upstream},
    gateway::Prepared,
};
use tokio::sync::oneshot;

use super::Scratch;

/// A running store over plain HTTP, with a file of its own.
pub(crate) struct Store {
    _folder: Scratch,
    address: String,
    running: Option<(oneshot::Sender<()>, thread::JoinHandle<io::Result<()>>)>,
}

impl Store {
    /// Starts it in front of the registry at this URL.
    pub(crate) fn start(registry: &str) -> Self {
        Self::start_with(registry, &Limits::default())
    }

    pub(crate) fn start_with(registry: &str, limits: &Limits) -> Self {
        Self::start_set(registry, limits, |_| {})
    }

    /// With further settings.
    pub(crate) fn start_set(registry: &str, limits: &Limits, set: impl FnOnce(&mut Gateway)) -> Self {
        let folder = Scratch::new();
        let mut settings = Gateway {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            certificate: None,
            anyone_may_sign: false,
            registry: Upstream {
                url: registry.parse().expect("a URL"),
                ca_file: None,
                token_realms: Vec::new(),
                insecure: false,
            },
            store: configuration::Store::Redb(folder.path().join("data/signatures.redb")),
            access: None,
            external_url: None,
            trusted_proxies: Vec::new(),
        };
        set(&mut settings);
        let listener = TcpListener::bind(settings.listen).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let server = {
            let limits = limits.clone();
            // A thread of its own: tests may block theirs.
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async move {
                    let prepared = Prepared::new(&settings, &limits).await.expect("it is configured well");
                    prepared.serve(listener, None, shutdown).await.expect("the store starts").await
                })
            })
        };
        let running = Some((stop, server));
        Self { _folder: folder, address: format!("127.0.0.1:{port}"), running }
    }

    /// `127.0.0.1:port`, as it stands in image references.
    pub(crate) fn host(&self) -> &str {
        &self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where an image's signatures are.
    pub(crate) fn signatures_url(&self, repository: &str, digest: impl std::fmt::Display) -> String {
        format!("{}/extensions/v2/{repository}/signatures/{digest}", self.url())
    }

    /// Tells it to end, as SIGTERM does.
    pub(crate) fn stop(&mut self) -> Stopping {
        let (stop, server) = self.running.take().expect("it runs");
        stop.send(()).expect("it runs");
        Stopping(server)
    }
}

/// A store that was told to end.
pub(crate) struct Stopping(thread::JoinHandle<io::Result<()>>);

impl Stopping {
    /// Waits for its end.
    pub(crate) fn wait(self) {
        self.0.join().expect("it does not panic").expect("it ends well");
    }
}
