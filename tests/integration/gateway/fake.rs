//! A registry that answers what a test tells it to, byte by byte; and a client that sends what no library would.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

/// What a registry does with a connection after it has read a request's head.
type Answer = dyn Fn(&str, &mut TcpStream) -> io::Result<()> + Send + Sync;

pub(crate) struct Fake {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Answers each connection's first request and closes it.
    pub(super) fn start(answer: impl Fn(&str, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::listen("127.0.0.1:0", answer)
    }

    fn listen(address: &str, answer: impl Fn(&str, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer): (_, Arc<Answer>) = (Arc::clone(&heads), Arc::new(answer));
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                thread::spawn(move || {
                    let head = head(&mut stream);
                    kept.lock().unwrap().push(head.clone());
                    // The client may be gone: that is what some tests are about.
                    let _ = answer(&head, &mut stream);
                    let _ = stream.shutdown(Shutdown::Write);
                });
            }
        });
        Self { address, heads }
    }

    /// Answers every request with these bytes.
    pub(crate) fn says(answer: &str) -> Self {
        Self::says_at("127.0.0.1:0", answer)
    }

    pub(crate) fn says_at(address: &str, answer: &str) -> Self {
        let answer = answer.to_owned();
        Self::listen(address, move |_, stream| stream.write_all(answer.as_bytes()))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The heads of all requests so far.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Reads a head, byte by byte: what follows is for others.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Sends bytes as they are, and gives all that comes back until the other side closes.
pub(super) fn send(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A reset is an end as well; what was read before it counts.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A GET of a raw path, on a connection of its own.
pub(super) fn get(address: &str, path: &str) -> String {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

/// Waits until the peer of this connection has closed it; false: it sent something instead.
pub(super) fn closed_by_peer(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock && error.kind() != io::ErrorKind::TimedOut,
    }
}

/// A channel to tell a test that something happened on a connection.
pub(super) fn signal<T: Send + 'static>() -> (impl Fn(T) + Send + Sync + 'static, mpsc::Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    (
        move |value| {
            // The test may be over.
            let _ = sender.lock().unwrap().send(value);
        },
        receiver,
    )
}
