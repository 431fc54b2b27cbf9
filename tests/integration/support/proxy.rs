//! A way to a registry that breaks.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Passes bytes on, and cuts the connection on which the next limit is reached. It lasts as long as the test's process.
pub(crate) struct Proxy {
    host: String,
    cuts: Arc<AtomicUsize>,
}

impl Proxy {
    /// `limits`: bytes sent to the registry, in all, after which a connection breaks.
    pub(crate) fn start(registry: &str, limits: &'static [usize]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let host = listener.local_addr().expect("it is bound").to_string();
        let cuts = Arc::new(AtomicUsize::new(0));
        let (registry, counted) = (registry.to_owned(), Arc::clone(&cuts));
        let passed = Arc::new(AtomicUsize::new(0));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&registry) else { continue };
                let (mut from, mut to) = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
                // What ends on one side ends on the other; a client that goes away is no failure.
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
                let (cuts, passed) = (Arc::clone(&counted), Arc::clone(&passed));
                thread::spawn(move || up(client, server, limits, &cuts, &passed));
            }
        });
        Self { host, cuts }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Connections that were cut.
    pub(crate) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }
}

fn up(mut client: TcpStream, mut server: TcpStream, limits: &[usize], cuts: &AtomicUsize, passed: &AtomicUsize) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        let sum = passed.fetch_add(read, Ordering::SeqCst) + read;
        let cut = cuts.load(Ordering::SeqCst);
        if limits.get(cut).is_some_and(|limit| sum > *limit) {
            cuts.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if server.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
