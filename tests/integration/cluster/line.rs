//! A way to the API server that can be cut.

#![allow(clippy::unwrap_used)] // All of this is tests.

use std::net::SocketAddr;

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Passes bytes on while it is not cut.
pub(super) struct Line {
    server: String,
    own: SocketAddr,
    address: String,
    connections: JoinSet<()>,
}

impl Line {
    pub(super) async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let server = server.trim_start_matches("https://").to_owned();
        let mut line = Self { server, own, address: format!("https://{own}"), connections: JoinSet::new() };
        line.pass(listener);
        line
    }

    /// Its end here.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// No connection goes on, and none is taken.
    pub(super) async fn cut(&mut self) {
        self.connections.shutdown().await;
    }

    /// Takes connections again.
    pub(super) async fn mend(&mut self) {
        let listener = TcpListener::bind(self.own).await.unwrap();
        self.pass(listener);
    }

    fn pass(&mut self, listener: TcpListener) {
        let server = self.server.clone();
        self.connections.spawn(async move {
            let mut passed = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let server = server.clone();
                passed.spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    // Whoever ends it first, it has ended.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
    }
}
