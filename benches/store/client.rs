//! The least that an HTTP client can do: it shares the machine with what is measured.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{CONNECTIONS, support::per_second};

/// A connection that is kept alive.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: vec![0; 64 << 10] }
    }

    pub(crate) fn get(&mut self, path: &str) -> (u16, &[u8]) {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
    }

    /// Sends a request, and reads its answer whole: status and body.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> (u16, &[u8]) {
        self.stream.write_all(request).unwrap();
        let mut filled = 0;
        loop {
            let count = self.stream.read(&mut self.buffer[filled..]).unwrap();
            assert!(count > 0, "the connection is closed");
            filled += count;
            let Some(head) = Head::parse(&self.buffer[..filled]) else { continue };
            let whole = head.bytes + usize::try_from(head.length).unwrap();
            if filled == whole {
                return (head.status, &self.buffer[head.bytes..whole]);
            }
        }
    }
}

struct Head {
    bytes: usize,
    status: u16,
    /// Of the body.
    length: u64,
}

impl Head {
    /// Nothing: it is not whole yet.
    fn parse(answer: &[u8]) -> Option<Self> {
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let text = std::str::from_utf8(&answer[..end]).unwrap();
        let status = text.get(9..12).unwrap().parse().unwrap();
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
        });
        Some(Self { bytes: end + 4, status, length: length.unwrap() })
    }
}

/// How a list of signatures begins that has one.
const A_LIST: &[u8] = br#"{"signatures":[{"#;

/// GETs of lists a second over [`CONNECTIONS`] connections; `path` chooses by a random number.
pub(crate) fn gets(address: SocketAddr, time: Duration, path: impl Fn(u64) -> String + Sync) -> f64 {
    let seeds = AtomicU64::new(1);
    per_second(CONNECTIONS, time, || {
        let (mut connection, path) = (Connection::to(address), &path);
        let mut random = Random(seeds.fetch_add(1, Ordering::Relaxed));
        move || {
            let (status, body) = connection.get(&path(random.next()));
            assert!(status == 200 && body.starts_with(A_LIST), "{}", String::from_utf8_lossy(body));
        }
    })
}

/// GETs each list once, over the same number of connections.
pub(crate) fn get_each(address: SocketAddr, count: u64, path: impl Fn(u64) -> String + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut connection = Connection::to(address);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let (status, body) = connection.get(&path(number));
                    assert!(status == 200 && body.starts_with(A_LIST), "{}", String::from_utf8_lossy(body));
                }
            });
        }
    });
}

/// GETs a large body and drops it; its length. `read` is told of each piece.
pub(crate) fn drop_body(address: SocketAddr, path: &str, mut read: impl FnMut(u64)) -> u64 {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut filled = 0;
    let head = loop {
        filled += stream.read(&mut buffer[filled..]).unwrap();
        if let Some(head) = Head::parse(&buffer[..filled]) {
            break head;
        }
    };
    assert_eq!(head.status, 200);
    let mut body = (filled - head.bytes) as u64;
    read(body);
    while body < head.length {
        let count = stream.read(&mut buffer).unwrap() as u64;
        assert!(count > 0, "the body broke off");
        body += count;
        read(count);
    }
    body
}

/// Numbers as good as random (`SplitMix64`).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
