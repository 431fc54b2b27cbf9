//! What the store's program takes of memory while a hundred clients pull large blobs through it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::drop_body,
    folder,
    program::{Program, configuration},
};

const MIB: u64 = 1 << 20;
const PULLS: u64 = 100;
const BLOB: u64 = if cfg!(debug_assertions) { 32 * MIB } else { 1024 * MIB };
/// The most that it may have, in KiB.
const MOST: u64 = 128 << 10;
/// What it may have more in the last quarter than in the first, in KiB: room for the allocator's moods.
const GROWTH: u64 = 4 << 10;

pub(crate) fn measure() -> bool {
    let folder = folder();
    let gateway = Program::gateway(&configuration(folder.path(), generator()));
    let (idle, _) = gateway.memory();
    println!("{PULLS} pulls at once, {} MiB each; {} KiB when idle", BLOB / MIB, idle);
    let pulled = AtomicU64::new(0);
    let started = Instant::now();
    // The most in each tenth of the bytes.
    let mut tenths = [0; 10];
    thread::scope(|scope| {
        for _ in 0..PULLS {
            scope.spawn(|| {
                let bytes = drop_body(gateway.address, "/v2/acme/web/blobs/generated", |bytes| {
                    pulled.fetch_add(bytes, Ordering::Relaxed);
                });
                assert_eq!(bytes, BLOB);
            });
        }
        loop {
            let tenth = usize::try_from(pulled.load(Ordering::Relaxed) * 10 / (PULLS * BLOB)).unwrap();
            let Some(most) = tenths.get_mut(tenth) else { break };
            *most = gateway.memory().0.max(*most);
            thread::sleep(Duration::from_millis(50));
        }
    });
    let (after, peak) = gateway.memory();
    println!(
        "pulled in {:.0?}; KiB in each tenth: {tenths:?}; after it {after}, at the most {peak} (may be {MOST})",
        started.elapsed()
    );
    let most = |tenths: &[u64]| tenths.iter().copied().max().unwrap_or_default();
    let (first, last) = (most(&tenths[..3]), most(&tenths[7..]));
    println!("first three tenths {first} KiB, last three {last} KiB");
    peak <= MOST && last <= first + GROWTH
}

/// A registry whose blobs are made while they are sent.
fn generator() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // Ends with its connection.
            thread::spawn(move || generate(&mut stream));
        }
    });
    address
}

/// Answers requests of one connection, until it is closed.
fn generate(stream: &mut TcpStream) -> std::io::Result<()> {
    let piece = vec![0x5a; 256 << 10];
    let mut request = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        request.push(byte[0]);
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        request.clear();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {BLOB}\r\n\r\n")?;
        let mut left = BLOB;
        while left > 0 {
            let count = left.min(piece.len() as u64);
            stream.write_all(&piece[..usize::try_from(count).unwrap()])?;
            left -= count;
        }
    }
    Ok(())
}
