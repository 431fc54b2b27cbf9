//! HTTP clients with a bounded number of idle connections.
//!
//! A client keeps connections for each host that it asked, and users who may create pods choose hosts. No library
//! bounds their sum. Here, all clients are replaced after they have asked a number of hosts, which closes their idle
//! connections; those in use stay open.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

/// Makes a new client.
type Make = dyn Fn() -> Result<reqwest::Client, reqwest::Error> + Send + Sync;

/// The clients that together keep connections to a bounded number of hosts.
pub(super) struct Pools {
    most_hosts: usize,
    state: Mutex<PoolState>,
}

#[derive(Default)]
struct PoolState {
    /// The pairs of client and host that were used since the last replacement.
    hosts: HashSet<(usize, Box<str>)>,
    clients: Vec<(Box<Make>, reqwest::Client)>,
}

/// One of the clients. It is cheap to clone.
#[derive(Clone)]
pub(crate) struct PooledClient {
    pools: Arc<Pools>,
    number: usize,
}

impl Pools {
    pub(super) fn new(most_hosts: usize) -> Arc<Self> {
        Arc::new(Self { most_hosts, state: Mutex::default() })
    }

    /// Adds a client, made by `make`.
    pub(super) fn add(
        self: &Arc<Self>,
        make: impl Fn() -> Result<reqwest::Client, reqwest::Error> + Send + Sync + 'static,
    ) -> Result<PooledClient, reqwest::Error> {
        let client = make()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clients.push((Box::new(make), client));
        Ok(PooledClient { pools: Arc::clone(self), number: state.clients.len() - 1 })
    }
}

impl PooledClient {
    /// Returns the client for one request to this host. The client for the next request may be another one.
    pub(crate) fn for_host(&self, host: &str) -> reqwest::Client {
        let mut state = self.pools.state.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (self.number, Box::from(host));
        if !state.hosts.contains(&key) {
            if state.hosts.len() >= self.pools.most_hosts {
                state.replace();
            }
            state.hosts.insert(key);
        }
        state.clients[self.number].1.clone()
    }
}

impl PoolState {
    fn replace(&mut self) {
        self.hosts.clear();
        for (make, client) in &mut self.clients {
            match make() {
                Ok(new) => *client = new,
                // The first client was made in the same way, so this is unlikely. The old client's connections end by
                // their idle timeout.
                Err(error) => tracing::warn!(%error, "an HTTP client can't be made anew"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        sync::mpsc,
        thread,
    };

    use super::*;

    /// Answers what comes over a connection, and says when its client has closed it.
    fn serve(mut connection: TcpStream, closed: &mpsc::Sender<()>) {
        let mut request = [0; 4096];
        while let Ok(1..) = connection.read(&mut request) {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            if connection.write_all(answer).is_err() {
                break;
            }
        }
        let _ = closed.send(());
    }

    #[tokio::test]
    async fn connections_that_are_kept_for_hosts_of_before_are_closed() {
        let (send, closed) = mpsc::channel();
        let listen = |number: usize| {
            // All of 127.0.0.0/8 is this machine.
            let listener = TcpListener::bind(format!("127.0.0.{number}:0")).unwrap();
            let host = listener.local_addr().unwrap().to_string();
            let send = send.clone();
            thread::spawn(move || {
                for connection in listener.incoming().flatten() {
                    let send = send.clone();
                    thread::spawn(move || serve(connection, &send));
                }
            });
            host
        };
        let pools = Pools::new(3);
        let make = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(crate::registry::http_clients::tls_for_tests())
                .no_proxy()
                .build()
        };
        let clients = [pools.add(make).unwrap(), pools.add(make).unwrap()];
        for number in 1..=9 {
            let host = listen(number);
            for _ in 0..2 {
                let client = clients[number % 2].for_host(&host);
                client.get(format!("http://{host}/")).send().await.unwrap();
            }
        }
        // Nine hosts were asked, over one connection each. Of the last three, connections may be kept; the others end.
        let ended = tokio::task::spawn_blocking(move || {
            for _ in 0..6 {
                closed.recv().unwrap();
            }
            closed
        });
        let closed = ended.await.unwrap();
        assert!(closed.try_recv().is_err());
    }
}
