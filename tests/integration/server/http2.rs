//! HTTP/2: the same answers, and bounds on what only HTTP/2 can do.

use std::{future::poll_fn, sync::atomic::AtomicUsize};

use bytes::Bytes;
use futures_util::future::join_all;
use h2::{Reason, client};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `GET https://localhost/` in HPACK, of its static table and one literal.
const GET: &[u8] = b"\x82\x87\x84\x41\x09localhost";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A connection on which frames are written by hand.
async fn by_hand(server: &Server) -> TlsStream<TcpStream> {
    let mut connection = server.connect_tls("h2").await;
    assert_eq!(connection.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    connection.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).await.unwrap();
    connection
}

/// Sends frames until the server has closed the connection; gives the frames that it sent, or how often the test has sent.
async fn until_closed(connection: TlsStream<TcpStream>, mut next: impl FnMut(u32) -> Vec<u8> + Send) -> (Vec<u8>, u32) {
    let (mut read, mut write) = tokio::io::split(connection);
    let sent = AtomicUsize::new(0);
    let flood = async {
        for number in 0..1_000_000 {
            sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if write.write_all(&next(number)).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut received = Vec::new();
    let answers = async {
        let mut piece = vec![0; 64 << 10];
        while let Ok(length @ 1..) = read.read(&mut piece).await {
            if received.len() < 1 << 20 {
                received.extend_from_slice(&piece[..length]);
            }
        }
    };
    tokio::select! {
        () = flood => {}
        () = answers => {}
        () = tokio::time::sleep(LONGEST) => panic!("the server takes it for ever"),
    }
    let sent = u32::try_from(sent.into_inner()).unwrap();
    (received, sent)
}

/// The kinds of these frames.
fn kinds(mut frames: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [high, middle, low, kind, ..] = *frames {
        kinds.push(kind);
        let length = 9 + (usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low));
        frames = frames.get(length..).unwrap_or_default();
    }
    kinds
}

async fn is_served(server: &Server) {
    let response = server.client().get(server.url("/")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, reqwest::Version::HTTP_2));
    assert_eq!(response.text().await.unwrap(), "ok");
}

/// A client of the library's, whose connection is driven beside the test.
async fn client(server: &Server, builder: &client::Builder) -> client::SendRequest<Bytes> {
    let (client, connection) = builder.handshake(server.connect_tls("h2").await).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn request(server: &Server, method: &str, path: &str) -> http::Request<()> {
    http::Request::builder().method(method).uri(server.url(path)).body(()).unwrap()
}

#[tokio::test]
async fn http_2_comes_first_and_http_1_serves_who_does_not_know_it() {
    let server = Server::tls(PATIENT, 64);
    is_served(&server).await;
    let old = server.connect_tls("http/1.1").await;
    assert_eq!(old.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    let alone = Server::start(PATIENT, 64, Some(Protocols::Http1));
    let error = tls_over(alone.connect().await, &alone.folder.path().join("ca.crt"), "h2").await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[tokio::test]
async fn methods_bodies_and_headers_are_those_of_http_1() {
    let server = Server::tls(PATIENT, 64);
    let client = server.client();
    let long = "x".repeat(3 << 20);
    let response = client.post(server.url("/length")).body(long[..200_000].to_owned()).send().await.unwrap();
    assert!(response.headers().contains_key("date") && response.headers()["content-length"] == "6");
    assert_eq!(response.text().await.unwrap(), "200000");
    // Over actix-web's own limit.
    let response = client.post(server.url("/length")).body(long).send().await.unwrap();
    assert_eq!(response.status(), 413);
    let response = client.head(server.url("/nowhere")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.text().await.unwrap()), (404, String::new()));
    let response = client.request(reqwest::Method::OPTIONS, server.url("/length?a=b")).send().await.unwrap();
    assert_eq!(response.status(), 404, "{response:?}");
    let answers = join_all((0..500).map(|_| client.get(server.url("/")).send())).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == 200));
}

/// What a flood sends, one after the other.
type Next = Box<dyn FnMut(u32) -> Vec<u8> + Send>;

#[tokio::test]
async fn floods_of_frames_end_the_connection_whatever_they_are_of() {
    let server = Server::tls(PATIENT, 64);
    let block = |number: u32, flags| frame(HEADERS, flags, 2 * number + 1, GET);
    let floods: Vec<(&str, Next)> = vec![
        (
            "rapid reset",
            Box::new(move |number| {
                let reset = frame(RST_STREAM, 0, 2 * number + 1, &8_u32.to_be_bytes());
                [block(number, END_HEADERS | END_STREAM), reset].concat()
            }),
        ),
        ("pings", Box::new(|_| frame(PING, 0, 0, &[0; 8]).repeat(16))),
        ("settings", Box::new(|_| frame(SETTINGS, 0, 0, b"").repeat(16))),
        ("priorities", Box::new(|_| frame(PRIORITY, 0, 1, &[0; 5]).repeat(16))),
        ("unknown frames", Box::new(|_| frame(99, 0, 0, b"x").repeat(16))),
        (
            "continuations",
            Box::new(move |number| match number {
                0 => block(0, 0),
                _ => frame(CONTINUATION, 0, 1, b""),
            }),
        ),
        (
            "a header block without an end",
            Box::new(move |number| match number {
                0 => block(0, 0),
                _ => frame(CONTINUATION, 0, 1, &b"\x40\x01a\x01b".repeat(3_000)),
            }),
        ),
        (
            "empty data",
            Box::new(|number| match number {
                0 => frame(HEADERS, END_HEADERS, 1, b"\x83\x87\x44\x07/length\x41\x09localhost"),
                _ => frame(DATA, 0, 1, b"").repeat(16),
            }),
        ),
        (
            "data in single bytes",
            Box::new(|number| match number {
                0 => frame(HEADERS, END_HEADERS, 1, b"\x83\x87\x44\x08/nowhere\x41\x09localhost"),
                _ => frame(DATA, 0, 1, b"x").repeat(16),
            }),
        ),
    ];
    for (name, next) in floods {
        let connection = by_hand(&server).await;
        let (_, sent) = until_closed(connection, next).await;
        assert!(sent < 1_000_000, "{name}");
        is_served(&server).await;
    }
}

#[tokio::test]
async fn a_header_list_is_bounded_and_its_connection_goes_on() {
    let server = Server::tls(PATIENT, 64);
    let mut client = client(&server, &client::Builder::new()).await;
    // One field that is too long, many that are, and compressed ones that become so.
    for (fields, length) in [(1, 20_000), (2_000, 10), (300, 200)] {
        let mut large = request(&server, "GET", "/");
        for number in 0..fields {
            let name = http::HeaderName::try_from(format!("x-{}", number % 50)).unwrap();
            large.headers_mut().append(name, http::HeaderValue::try_from("y".repeat(length)).unwrap());
        }
        let (answer, _) = client.send_request(large, true).unwrap();
        match answer.await {
            Ok(answer) => assert_eq!(answer.status(), 431, "{fields} of {length}"),
            Err(error) => assert!(error.is_remote() || error.is_io() || error.is_go_away(), "{error}"),
        }
        is_served(&server).await;
        client = super::http2::client(&server, &client::Builder::new()).await;
    }
}

#[tokio::test]
async fn streams_of_a_connection_are_bounded_and_further_requests_wait() {
    let server = Server::tls(PATIENT, 64);
    let (client, mut connection) = client::handshake(server.connect_tls("h2").await).await.unwrap();
    let mut client = client.ready().await.unwrap();
    let (answer, _) = client.send_request(request(&server, "GET", "/"), true).unwrap();
    let answer = tokio::select! {
        answer = answer => answer.unwrap(),
        outcome = poll_fn(|context| std::pin::Pin::new(&mut connection).poll(context)) => panic!("{outcome:?}"),
    };
    assert_eq!(answer.status(), 200);
    assert_eq!(connection.max_concurrent_send_streams(), 250);
    // Who does not keep to it is refused, and nothing else of the connection ends.
    let mut unruly = by_hand(&server).await;
    let waiting = b"\x82\x87\x44\x05/wait\x41\x09localhost";
    for number in 0..300 {
        unruly.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, waiting)).await.unwrap();
    }
    unruly.flush().await.unwrap();
    let mut received = Vec::new();
    // REFUSED_STREAM: such a request may be sent again.
    let refused = frame(RST_STREAM, 0, 2 * 299 + 1, &7_u32.to_be_bytes());
    let outcome = timeout(LONGEST, async {
        while !received.ends_with(&refused) {
            received.push(unruly.read_u8().await.unwrap());
        }
    });
    assert!(outcome.await.is_ok(), "the last stream is refused: {:?}", kinds(&received));
}

/// Reads frames (kind, stream and payload) until one of them is the last.
async fn read_frames(connection: &mut (impl AsyncRead + Unpin), mut is_last: impl FnMut(u8, u32, &[u8]) -> bool) {
    let outcome = timeout(LONGEST, async {
        loop {
            let mut head = [0; 9];
            connection.read_exact(&mut head).await.unwrap();
            let [high, middle, low, kind, _, stream @ ..] = head;
            let mut payload = vec![0; usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)];
            connection.read_exact(&mut payload).await.unwrap();
            if is_last(kind, u32::from_be_bytes(stream), &payload) {
                break;
            }
        }
    });
    outcome.await.expect("the frame comes");
}

#[tokio::test]
async fn a_connection_with_many_requests_at_once_gets_a_wide_window_and_others_do_not() {
    const FEW: u32 = 31;
    let server = Server::tls(PATIENT, 64);
    let mut connection = by_hand(&server).await;
    let waiting = b"\x82\x87\x44\x05/wait\x41\x09localhost";
    let request = |number: u32| frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, waiting);
    for number in 0..FEW {
        connection.write_all(&request(number)).await.unwrap();
    }
    connection.write_all(&frame(PING, 0, 0, &[0; 8])).await.unwrap();
    connection.flush().await.unwrap();
    // What every connection has by the specification.
    let mut window = 65_535;
    let mut add = |kind: u8, stream: u32, payload: &[u8]| {
        if (kind, stream) == (WINDOW_UPDATE, 0) {
            window += u32::from_be_bytes(payload.try_into().unwrap());
        }
        window
    };
    let mut answered = false;
    read_frames(&mut connection, |kind, stream, payload| {
        let window = add(kind, stream, payload);
        assert!(window <= 256 << 10, "{window}");
        answered |= kind == PING;
        answered && window == 256 << 10
    })
    .await;
    connection.write_all(&request(FEW)).await.unwrap();
    connection.flush().await.unwrap();
    read_frames(&mut connection, |kind, stream, payload| add(kind, stream, payload) == 2 << 20).await;
}

#[tokio::test]
async fn each_part_of_a_request_has_its_time_limit_behind_requests_that_were_served() {
    let server = Server::tls(Timeouts { head: LIMITS[1], ..PATIENT }, 64);
    let complete = frame(HEADERS, END_HEADERS | END_STREAM, 1, GET);
    for (name, bytes) in [
        ("one byte of a frame", vec![0]),
        ("half of a frame's header", frame(PING, 0, 0, &[0; 8])[..5].to_vec()),
        ("half of a frame", frame(HEADERS, END_HEADERS | END_STREAM, 3, GET)[..12].to_vec()),
        ("a header block without its end", frame(HEADERS, 0, 3, GET)),
    ] {
        let mut connection = by_hand(&server).await;
        connection.write_all(&complete).await.unwrap();
        let mut answer = Vec::new();
        timeout(LONGEST, async {
            while !answer.ends_with(b"ok") {
                answer.push(connection.read_u8().await.unwrap());
            }
        })
        .await
        .expect("an answer");
        connection.write_all(&bytes).await.unwrap();
        closed(&mut connection).await;
        is_served(&server).await;
        let _ = name;
    }
    server.ended("head_timeout", 4).await;
    let mut silent = server.connect_tls("h2").await;
    closed(&mut silent).await;
}

#[tokio::test]
async fn an_idle_connection_is_told_that_it_ends() {
    let server = Server::tls(Timeouts { idle: LIMITS[1], ..PATIENT }, 64);
    let mut connection = by_hand(&server).await;
    connection.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, GET)).await.unwrap();
    let frames = closed(&mut connection).await;
    assert!(kinds(&frames).contains(&GOAWAY), "{:?}", kinds(&frames));
    server.ended("idle_timeout", 1).await;
}

#[tokio::test]
async fn pings_of_a_client_that_looks_after_its_connection_end_nothing() {
    let server = Server::tls(Timeouts { head: LIMITS[1], ..PATIENT }, 64);
    let mut connection = by_hand(&server).await;
    connection.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, GET)).await.unwrap();
    // For longer than the head of a request may take.
    for _ in 0..5 {
        connection.write_all(&frame(PING, 0, 0, &[7; 8])).await.unwrap();
        tokio::time::sleep(LIMITS[1] / 2).await;
    }
    connection.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 3, GET)).await.unwrap();
    let mut answers = Vec::new();
    timeout(LONGEST, async {
        while answers.windows(2).filter(|window| *window == b"ok").count() < 2 {
            answers.push(connection.read_u8().await.unwrap());
        }
    })
    .await
    .expect("both answers");
}

#[tokio::test]
async fn a_stream_whose_client_opens_no_window_is_reset_and_the_others_go_on() {
    let server = Server::tls(Timeouts { write: SOON, ..PATIENT }, 64);
    let mut builder = client::Builder::new();
    builder.initial_window_size(10).initial_connection_window_size(1 << 20);
    let mut client = client(&server, &builder).await;
    let (stalled, _) = client.send_request(request(&server, "GET", "/endless"), true).unwrap();
    let mut body = stalled.await.unwrap().into_body();
    let outcome = timeout(LONGEST, async {
        // What comes is not given back to the window.
        while let Some(piece) = body.data().await {
            piece?;
        }
        Ok::<_, h2::Error>(())
    });
    let error = outcome.await.expect("it ends").expect_err("it is reset");
    assert_eq!(error.reason(), Some(Reason::CANCEL), "{error}");
    let (answer, _) = client.ready().await.unwrap().send_request(request(&server, "GET", "/"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_stream_whose_client_takes_single_bytes_is_reset() {
    const WINDOW: u32 = 10;
    let server = Server::tls(Timeouts { write: SOON, ..PATIENT }, 64);
    let mut builder = client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(1 << 20);
    let mut client = client(&server, &builder).await;
    let (slow, _) = client.send_request(request(&server, "GET", "/endless"), true).unwrap();
    let mut body = slow.await.unwrap().into_body();
    let outcome = timeout(LONGEST, async {
        while let Some(piece) = body.data().await {
            let length = piece?.len();
            // The pace of the client: something each time before the limit is over.
            tokio::time::sleep(SOON / 10).await;
            let _ = body.flow_control().release_capacity(length);
        }
        Ok::<_, h2::Error>(())
    });
    let error = outcome.await.expect("it ends").expect_err("it is reset");
    assert_eq!(error.reason(), Some(Reason::CANCEL), "{error}");
}

#[tokio::test]
async fn a_request_that_its_client_gives_up_is_given_up() {
    let server = Server::tls(PATIENT, 64);
    let mut client = client(&server, &client::Builder::new()).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let (answer, mut stream) = client.send_request(request(&server, "GET", "/wait"), true).unwrap();
        client = client.ready().await.unwrap();
        server.begun.notified().await;
        stream.send_reset(Reason::CANCEL);
        streams.push(answer);
    }
    // Nobody of them waits for a permit any more: the one that there is goes to the next request.
    let (answer, _) = client.send_request(request(&server, "GET", "/"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    let (answer, _) = client.ready().await.unwrap().send_request(request(&server, "GET", "/wait"), true).unwrap();
    server.begun.notified().await;
    server.open.add_permits(1);
    assert_eq!(timeout(LONGEST, answer).await.expect("it is the only one").unwrap().status(), 200);
}

#[tokio::test]
async fn an_answer_that_closes_sends_goaway_and_lets_what_is_in_flight_end() {
    let server = Server::tls(PATIENT, 64);
    let client = client(&server, &client::Builder::new()).await;
    let (waiting, _) = client.clone().send_request(request(&server, "GET", "/wait"), true).unwrap();
    server.begun.notified().await;
    let (closing, _) = client.clone().send_request(request(&server, "GET", "/close"), true).unwrap();
    assert_eq!(closing.await.unwrap().status(), 200);
    // Nothing new is sent on it, and what was sent is answered.
    let refused = timeout(LONGEST, async {
        loop {
            let Ok(mut ready) = client.clone().ready().await else { break };
            match ready.send_request(request(&server, "GET", "/"), true) {
                Ok((answer, _)) => {
                    let _ = answer.await;
                }
                Err(_) => break,
            }
        }
    });
    refused.await.expect("GOAWAY comes");
    server.open.add_permits(1);
    assert_eq!(waiting.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_full_listener_tells_the_connection_that_it_ends() {
    let server = Server::tls(PATIENT, 4);
    let mut idle = by_hand(&server).await;
    idle.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, GET)).await.unwrap();
    let mut answer = Vec::new();
    timeout(LONGEST, async {
        while !answer.ends_with(b"ok") {
            answer.push(idle.read_u8().await.unwrap());
        }
    })
    .await
    .expect("an answer");
    let mut others = Vec::new();
    for host in 2..=5 {
        others.push(server.connect_from(host).await);
    }
    let frames = closed(&mut idle).await;
    assert!(kinds(&frames).contains(&GOAWAY), "{:?}", kinds(&frames));
}

#[tokio::test]
async fn a_stop_under_load_loses_no_request() {
    let mut server = Server::tls(PATIENT, 256);
    server.open.add_permits(1_000_000);
    let client = server.client();
    let (answered, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let load = (0..64).map(|_| {
        let (client, url) = (client.clone(), server.url("/wait"));
        let (answered, refused) = (Arc::clone(&answered), Arc::clone(&refused));
        tokio::spawn(async move {
            loop {
                match client.get(&url).send().await {
                    Ok(response) => {
                        assert_eq!(response.text().await.unwrap(), "waited");
                        answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                    // The server takes no more connections: this request was never sent.
                    Err(error) if error.is_connect() => break,
                    // A request that the server did not look at, as it said, may be sent again.
                    Err(error) if was_not_processed(&error) => {
                        refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                    Err(error) => panic!("a request is lost: {error:?}"),
                }
            }
        })
    });
    let load: Vec<_> = load.collect();
    timeout(LONGEST, async {
        while answered.load(std::sync::atomic::Ordering::Relaxed) < 1_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the load begins");
    server.stop();
    for task in load {
        timeout(LONGEST, task).await.expect("it ends").unwrap();
    }
}

/// Whether the server said that it did not process a request: it stood behind the last stream of a GOAWAY without an error, or was
/// refused.
fn was_not_processed(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away() && error.reason() == Some(Reason::NO_ERROR)
                || error.reason() == Some(Reason::REFUSED_STREAM);
        }
        source = error.source();
    }
    false
}
