//! HTTP/1.1: each request of a connection has the same time, and the right connection ends where there are too many.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Sends a request and reads its answer, whose body is `ok`.
async fn ask(connection: &mut (impl Connection + ?Sized)) {
    connection.write_all(GET).await.unwrap();
    read_to(connection, b"\r\n\r\nok").await;
}

/// Reads up to this.
async fn read_to(connection: &mut (impl Connection + ?Sized), end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    timeout(LONGEST, async {
        while !read.ends_with(end) {
            read.push(connection.read_u8().await.unwrap_or_else(|error| panic!("{error} behind {read:?}")));
        }
    })
    .await
    .expect("an answer");
    read
}

/// A connection over which this many requests were sent and answered, of a server with a time limit that was long enough for
/// that.
async fn connection(
    tls: bool,
    timeouts: impl Fn(Duration) -> Timeouts,
    requests: usize,
) -> (Server, Box<dyn Connection>) {
    'slower: for limit in LIMITS {
        let server = if tls { Server::tls(timeouts(limit), 64) } else { Server::plain(timeouts(limit), 64) };
        let tcp = server.connect().await;
        let mut connection: Box<dyn Connection> = if tls {
            match tls_over(tcp, &server.folder.path().join("ca.crt"), "http/1.1").await {
                Ok(tls) => Box::new(tls),
                Err(_) => continue,
            }
        } else {
            Box::new(tcp)
        };
        for _ in 0..requests {
            if !try_ask(&mut *connection).await {
                continue 'slower;
            }
        }
        return (server, connection);
    }
    panic!("this machine is too slow for any time limit");
}

/// Whether a request was answered.
async fn try_ask(connection: &mut (impl Connection + ?Sized)) -> bool {
    let mut answer = Vec::new();
    if connection.write_all(GET).await.is_err() {
        return false;
    }
    while !answer.ends_with(b"\r\n\r\nok") {
        match timeout(LONGEST, connection.read_u8()).await.expect("an answer or an end") {
            Ok(byte) => answer.push(byte),
            Err(_) => return false,
        }
    }
    true
}

fn short_head(head: Duration) -> Timeouts {
    Timeouts { head, ..PATIENT }
}

/// What a client may send behind a number of complete requests, and then no more.
const INCOMPLETE: [(&str, &[u8]); 5] = [
    ("one byte", b"G"),
    ("a line", b"GET / HTTP/1.1\r\n"),
    ("a head without its end", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: y\r\n"),
    ("an empty line", b"\r\n"),
    ("what is no request yet", b"\x16\x03\x01"),
];

#[tokio::test]
async fn the_head_of_each_request_has_a_time_limit_not_only_of_the_first() {
    let cases = [0, 1, 3].into_iter().flat_map(|requests| INCOMPLETE.map(|(name, bytes)| (requests, name, bytes)));
    let cases = cases.flat_map(|case| [(false, case), (true, case)]);
    futures_util::future::join_all(cases.map(|(tls, (requests, name, bytes))| async move {
        let (server, mut connection) = connection(tls, short_head, requests).await;
        // It may have ended before that.
        let _ = connection.write_all(bytes).await;
        let rest = closed(&mut *connection).await;
        // What can't become a request any more is told so.
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{name} behind {requests}: {rest:?}");
        drop(server);
    }))
    .await;
}

#[tokio::test]
async fn a_part_of_the_next_request_that_comes_with_one_has_a_time_limit_too() {
    let posted = "POST /length HTTP/1.1\r\nHost: localhost\r\n";
    for request in [
        String::from_utf8(GET.to_vec()).unwrap(),
        format!("{posted}Content-Length: 5\r\n\r\nhello"),
        format!("{posted}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ] {
        for (tls, further) in [(false, "G"), (true, "GET / HTTP/1.1\r\nHost: loc")] {
            let (server, mut connection) = connection(tls, short_head, 1).await;
            connection.write_all(format!("{request}{further}").as_bytes()).await.unwrap();
            let answer = closed(&mut *connection).await;
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{request}{further}: {answer:?}");
            server.ended("head_timeout", 1).await;
        }
    }
}

#[tokio::test]
async fn requests_of_every_kind_leave_a_connection_that_waits_for_the_next_one() {
    let posted = "POST /length HTTP/1.1\r\nHost: localhost\r\n";
    for tls in [false, true] {
        'slower: for limit in LIMITS {
            let (_server, mut connection) = connection(tls, |_| short_head(limit), 1).await;
            for request in [
                format!("{posted}Content-Length: 5\r\n\r\nhello"),
                format!("{posted}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
                format!("{posted}Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"),
            ] {
                connection.write_all(request.as_bytes()).await.unwrap();
                read_to(&mut *connection, b"\r\n\r\n5").await;
                // Twice the time that a head may take.
                tokio::time::sleep(limit * 2).await;
                if !try_ask(&mut *connection).await {
                    assert!(limit < LIMITS[2], "the connection has ended: {request}");
                    continue 'slower;
                }
            }
            break;
        }
    }
}

/// Sends this again and again until the server ends the connection.
async fn drip(connection: Box<dyn Connection>, bytes: &[u8]) {
    let (mut read, mut write) = tokio::io::split(connection);
    let dripping = async {
        while write.write_all(bytes).await.is_ok() && write.flush().await.is_ok() {
            tokio::time::sleep(SOON / 10).await;
        }
    };
    tokio::select! {
        () = async { while let Ok(1..) = read.read(&mut [0; 1024]).await {} } => {}
        () = dripping => {}
        () = tokio::time::sleep(LONGEST) => panic!("it drips for ever"),
    }
}

#[tokio::test]
async fn a_head_that_drips_is_not_given_more_time_with_each_byte() {
    for tls in [false, true] {
        let (server, connection) = connection(tls, short_head, 1).await;
        drip(connection, b"X").await;
        server.ended("head_timeout", 1).await;
    }
}

#[tokio::test]
async fn the_rest_of_a_body_that_nobody_reads_has_a_time_limit() {
    for tls in [false, true] {
        let (server, mut connection) = connection(tls, short_head, 1).await;
        // Answered with 404 before its body is there.
        connection
            .write_all(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .await
            .unwrap();
        drip(connection, b"1\r\nx\r\n").await;
        drop(server);
    }
}

#[tokio::test]
async fn an_idle_connection_ends_after_its_idle_time_and_a_silent_one_after_that_of_heads() {
    for tls in [false, true] {
        let (server, mut idle) = connection(tls, |idle| Timeouts { idle, ..PATIENT }, 1).await;
        assert!(closed(&mut *idle).await.is_empty());
        server.ended("idle_timeout", 1).await;
        let (server, mut silent) = connection(tls, short_head, 0).await;
        assert!(closed(&mut *silent).await.is_empty());
        server.ended("head_timeout", 1).await;
    }
}

#[tokio::test]
async fn a_request_in_flight_has_no_limit_here() {
    for tls in [false, true] {
        let timeouts = |limit| Timeouts { head: limit, write: limit, ..PATIENT };
        let (server, mut connection) = connection(tls, timeouts, 1).await;
        connection.write_all(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        server.begun.notified().await;
        tokio::time::sleep(SOON * 3).await;
        server.open.add_permits(1);
        read_to(&mut *connection, b"\r\n\r\nwaited").await;
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
    for tls in [false, true] {
        let (server, mut connection) = connection(tls, |write| Timeouts { write, ..PATIENT }, 1).await;
        connection.write_all(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        server.ended("write_timeout", 1).await;
        closed(&mut *connection).await;
    }
}

#[tokio::test]
async fn a_tls_handshake_has_a_time_limit_wherever_it_stops() {
    let server = Server::tls(Timeouts { handshake: SOON, ..PATIENT }, 64);
    for begun in [b"".as_slice(), b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut connection = server.connect().await;
        connection.write_all(begun).await.unwrap();
        closed(&mut connection).await;
    }
    server.ended("handshake_timeout", 3).await;
    ask(&mut server.connect_tls("http/1.1").await).await;
}

#[tokio::test]
async fn a_full_listener_ends_its_longest_idle_connection_and_serves_the_new_one() {
    let server = Server::plain(PATIENT, 4);
    let mut in_flight = server.connect_from(1).await;
    in_flight.write_all(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    server.begun.notified().await;
    let mut idle = Vec::new();
    for host in 2..=4 {
        let mut connection = server.connect_from(host).await;
        ask(&mut connection).await;
        // The clock of connections has milliseconds.
        tokio::time::sleep(Duration::from_millis(3)).await;
        idle.push(connection);
    }
    // The one that was idle longest is in use again.
    ask(&mut idle[0]).await;
    let mut new = server.connect_from(5).await;
    ask(&mut new).await;
    server.ended("evicted", 1).await;
    assert!(closed(&mut idle[1]).await.is_empty());
    for connection in [&mut idle[0], &mut new] {
        ask(connection).await;
    }
    server.open.add_permits(1);
    read_to(&mut in_flight, b"\r\n\r\nwaited").await;
}

#[tokio::test]
async fn a_listener_full_of_requests_in_flight_refuses_more_and_ends_none() {
    let server = Server::plain(PATIENT, 4);
    let mut in_flight = Vec::new();
    for host in 1..=4 {
        let mut connection = server.connect_from(host).await;
        connection.write_all(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        server.begun.notified().await;
        in_flight.push(connection);
    }
    closed(&mut server.connect_from(5).await).await;
    server.ended("refused_full", 1).await;
    server.open.add_permits(4);
    for connection in &mut in_flight {
        read_to(connection, b"\r\n\r\nwaited").await;
    }
}

#[tokio::test]
async fn incomplete_heads_and_handshakes_make_room_too() {
    for tls in [false, true] {
        let server = if tls { Server::tls(PATIENT, 8) } else { Server::plain(PATIENT, 8) };
        let mut slow = Vec::new();
        for host in 2..42 {
            let mut connection = server.connect_from(host).await;
            // Where the server has cut it off already, that is as good.
            let _ = connection.write_all(if tls { b"\x16\x03" } else { b"GE" }).await;
            slow.push(connection);
        }
        server.ended("evicted", 32).await;
        if tls {
            ask(&mut server.connect_tls("http/1.1").await).await;
        } else {
            ask(&mut server.connect().await).await;
        }
    }
}

#[tokio::test]
async fn one_peer_leaves_others_their_share() {
    let server = Server::plain(PATIENT, 8);
    let mut others = Vec::new();
    for host in [2, 3] {
        let mut connection = server.connect_from(host).await;
        ask(&mut connection).await;
        others.push(connection);
    }
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(server.connect_from(9).await);
    }
    server.ended("evicted", 94).await;
    for connection in &mut others {
        ask(connection).await;
    }
}

#[tokio::test]
async fn a_server_that_stops_ends_idle_connections_and_lets_a_request_in_flight_end() {
    for tls in [false, true] {
        let (mut server, mut idle) = connection(tls, |_| PATIENT, 1).await;
        let mut in_flight: Box<dyn Connection> =
            if tls { Box::new(server.connect_tls("http/1.1").await) } else { Box::new(server.connect().await) };
        in_flight.write_all(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        server.begun.notified().await;
        server.stop();
        assert!(closed(&mut *idle).await.is_empty());
        server.open.add_permits(1);
        let answer = closed(&mut *in_flight).await;
        let answer = String::from_utf8(answer).unwrap().to_lowercase();
        assert!(answer.contains("connection: close") && answer.ends_with("waited"), "{answer}");
    }
}
