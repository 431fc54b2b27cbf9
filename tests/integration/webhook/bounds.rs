//! What is not a review, or too much of one: refused, bounded, and the next request is served.

use std::{net::IpAddr, time::Duration};

use futures_util::{StreamExt as _, stream};
use sealgate::webhook::Settings;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::fixture::{Server, patient};
use crate::support::review;

async fn good_is_served(server: &Server, client: &reqwest::Client) {
    let review = review(&[("web", "example.com/good:1")]);
    assert_eq!(server.ask(client, "/validate", &review).await["allowed"], true);
}

#[tokio::test]
async fn what_is_not_a_review_gets_a_status_and_a_reason() {
    let server = Server::start();
    let client = server.client();
    let whole = review(&[("web", "example.com/good:1")]).to_string();
    let json = "application/json";
    for (method, path, content_type, body, status, reason) in [
        ("POST", "/validate", json, String::new(), 400, "not an AdmissionReview"),
        ("POST", "/validate", json, whole[..300].to_owned(), 400, "not an AdmissionReview"),
        ("POST", "/validate", json, "\u{0}\u{1}garbage".to_owned(), 400, "not an AdmissionReview"),
        ("POST", "/validate", json, "[".repeat(100_000), 400, "not an AdmissionReview"),
        ("POST", "/validate", json, whole.replace("k8s.io/v1\"", "k8s.io/v1beta1\""), 400, "expected apiVersion"),
        ("POST", "/mutate", json, whole.replace("AdmissionReview", "Pod"), 400, "kind AdmissionReview"),
        ("POST", "/validate", "application/yaml", whole.clone(), 415, "Content-Type application/json"),
        ("POST", "/validate", "", whole.clone(), 415, "Content-Type application/json"),
        ("GET", "/validate", "", String::new(), 405, "POST"),
        ("PUT", "/mutate", json, whole.clone(), 405, "POST"),
        ("POST", "/", json, whole.clone(), 404, "/mutate and /validate"),
        ("POST", "/validate/more", json, whole.clone(), 404, "/mutate and /validate"),
        ("GET", "/metrics", "", String::new(), 404, "/mutate and /validate"),
    ] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = client.request(method.clone(), server.url(path)).body(body);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{method} {path} {content_type}");
        if status == 405 {
            assert_eq!(response.headers()["allow"], "POST");
        }
        let text = response.text().await.unwrap();
        assert!(text.contains(reason) && text.len() < 500, "{text}");
        good_is_served(&server, &client).await;
    }
    assert!(server.metrics().contains("sealgate_reviews_total{operation=\"none\",verdict=\"malformed\"} 8"));
}

#[tokio::test]
async fn a_content_type_with_parameters_is_json_too() {
    let server = Server::start();
    let request =
        server.client().post(server.url("/validate")).header("content-type", "Application/JSON; charset=utf-8");
    let body = review(&[("web", "example.com/good:1")]).to_string();
    assert_eq!(request.body(body).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_review_of_twenty_megabytes_is_refused_whether_announced_or_not() {
    let server = Server::start();
    let client = server.client();
    let large = "x".repeat(20 << 20);
    let response = server.send(&client, "/validate", large.clone()).await;
    assert_eq!(response.status(), 413);
    assert!(response.text().await.unwrap().contains("limits.reviewBytes"));
    good_is_served(&server, &client).await;

    let chunks =
        large.into_bytes().chunks(1 << 16).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>();
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    let request = client.post(server.url("/validate")).header("content-type", "application/json").body(body);
    // The server answers and closes while the client still sends: it sees the answer, or that nobody reads any more.
    if let Ok(response) = request.send().await {
        assert_eq!(response.status(), 413);
    }
    good_is_served(&server, &client).await;
}

#[tokio::test]
async fn a_large_review_within_the_limit_is_read_whole() {
    // A body may take half of the time that a review has.
    let settings = Settings { deadline: Duration::from_mins(4), ..patient(Settings::default()) };
    let server = Server::start_with(settings, None);
    let mut review = review(&[("web", "example.com/good:1")]);
    review["request"]["object"]["metadata"]["annotations"] = serde_json::json!({"a": "x".repeat(4 << 20)});
    assert_eq!(server.ask(&server.client(), "/validate", &review).await["allowed"], true);
}

#[tokio::test]
async fn more_images_than_a_pod_has_are_refused_in_one_line_whether_different_or_not() {
    let server = Server::start_real("", "  rules: [{name: all, images: [example.com], allow: {reason: tests}}]\n");
    let client = server.client();
    let names: Vec<_> = (0..10_000).map(|count| format!("example.com/good/{count}")).collect();
    let different: Vec<_> = names.iter().map(|image| ("web", image.as_str())).collect();
    let same = vec![("web", "example.com/good:1"); 10_000];
    let expected = "pods \"web\" refused [too-many-images]: 1000 images, over the limit of 128. Use fewer images";
    for containers in [different, same] {
        let response = server.ask(&client, "/validate", &review(&containers[..1000])).await;
        assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(403)));
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.starts_with(expected) && message.lines().count() == 1, "{message}");
        let response = server.ask(&client, "/validate", &review(&containers)).await;
        assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(400)));
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains("a list has more than 1000 entries"), "{message}");
        for containers in [&containers[..1000], &containers] {
            let response = server.ask(&client, "/mutate", &review(containers)).await;
            assert_eq!(response, json!({"uid": response["uid"], "allowed": true}));
        }
        good_is_served(&server, &client).await;
    }
    assert_eq!(server.ask(&client, "/validate", &review(&[("web", "example.com/x"); 128])).await["allowed"], true);
}

#[tokio::test]
async fn a_body_full_of_empty_entries_is_given_up_at_the_first_too_many() {
    let server = Server::start_real("", "  rules: [{name: all, images: [example.com], allow: {reason: tests}}]\n");
    let client = server.client();
    let review = review(&[("web", "example.com/good:1")]).to_string();
    let entries = format!("{}{{}}", "{},".repeat(2_700_000));
    for list in ["containers", "initContainers", "ephemeralContainers", "volumes"] {
        let body = review.replace("\"spec\":{", &format!("\"spec\":{{\"{list}\":[{entries}],"));
        assert!(body.len() > 8_000_000 && body.len() < 8 << 20);
        let response = server.send(&client, "/validate", body).await;
        assert_eq!(response.status(), 200);
        let text = response.text().await.unwrap();
        assert!(text.contains("a list has more than 1000 entries") && text.len() < 1000, "{list}: {text}");
    }
    good_is_served(&server, &client).await;
}

#[tokio::test]
async fn more_bytes_at_once_than_there_is_room_for_are_told_to_come_again() {
    let server = Server::start_with(Settings { bytes_at_once: 10_000, ..Settings::default() }, None);
    let client = server.client();
    assert_eq!(server.send(&client, "/validate", " ".repeat(20_000)).await.status(), 429);
    good_is_served(&server, &client).await;
}

#[tokio::test]
async fn large_slow_bodies_leave_room_for_usual_reviews_and_end_before_the_deadline() {
    let (receive_within, deadline) = (Duration::from_secs(3), Duration::from_hours(1));
    let settings = Settings { bytes_at_once: 4 << 20, receive_within, deadline, ..Settings::default() };
    let server = Server::start_with(settings, None);
    let client = server.client();
    // More than there is room for: of a room without a reserve they would take all.
    let dripping = futures_util::future::join_all((0..5).map(|_| {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Result<Vec<u8>, std::io::Error>>();
        sender.send(Ok(vec![b' '; 1 << 20])).unwrap();
        let drip = futures_util::stream::unfold((receiver, sender), |(mut receiver, sender)| async move {
            receiver.recv().await.map(|chunk| (chunk, (receiver, sender)))
        });
        let body = reqwest::Body::wrap_stream(drip);
        let request = client.post(server.url("/validate")).header("content-type", "application/json").body(body);
        async move { request.send().await.map(|response| response.status().as_u16()) }
    }));
    let usual = async {
        // One of them learns that there is no more room.
        while !server.metrics().contains("verdict=\"malformed\"") {
            tokio::task::yield_now().await;
        }
        good_is_served(&server, &client).await;
    };
    let (dripping, ()) = tokio::join!(dripping, usual);
    let statuses: Vec<_> = dripping.into_iter().flatten().collect();
    assert!(statuses.iter().all(|status| [408, 429].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&408), "{statuses:?}");
    good_is_served(&server, &client).await;
}

#[tokio::test]
async fn usual_bodies_of_one_client_that_never_end_leave_room_for_others() {
    const PIECE: usize = 64 << 10;
    const ROOM: usize = 16;
    let (receive_within, deadline) = (Duration::from_hours(1), Duration::from_hours(2));
    let settings = Settings { bytes_at_once: ROOM * PIECE, receive_within, deadline, ..Settings::default() };
    let server = Server::start_with(settings, None);
    let greedy = server.client_builder().local_address(IpAddr::from([127, 0, 0, 2])).http1_only().build().unwrap();
    let mut bodies = tokio::task::JoinSet::new();
    for _ in 0..2 * ROOM {
        let piece = stream::iter([Ok::<_, std::io::Error>(vec![b' '; PIECE])]);
        let body = reqwest::Body::wrap_stream(piece.chain(stream::pending()));
        let request = greedy.post(server.url("/validate")).header("content-type", "application/json").body(body);
        bodies.spawn(async move { request.send().await.map(|response| response.status().as_u16()) });
    }
    // The others hold all that one client gets.
    for _ in 0..ROOM {
        if let Ok(status) = bodies.join_next().await.unwrap().unwrap() {
            assert_eq!(status, 429);
        }
    }
    good_is_served(&server, &server.client()).await;
}

#[tokio::test]
async fn answers_that_a_client_does_not_take_count_as_its_own_and_leave_room_for_others() {
    let server = Server::start_with(Settings { bytes_at_once: 60_000, ..Settings::default() }, None);
    let builder = server.client_builder().local_address(IpAddr::from([127, 0, 0, 2]));
    let idle = builder.http2_initial_stream_window_size(0).build().unwrap();
    let review = review(&[("web", "example.com/good:1")]).to_string();
    let mut untaken = Vec::new();
    let told = timeout(Duration::from_mins(1), async {
        while untaken.last().is_none_or(|answer: &reqwest::Response| answer.status() != 429) {
            untaken.push(server.send(&idle, "/validate", review.clone()).await);
        }
    });
    told.await.expect("there is an end to what one client gets");
    good_is_served(&server, &server.client()).await;
}

#[tokio::test]
async fn slow_reviews_of_two_peers_leave_a_third_one_a_connection_and_a_review() {
    for http1 in [true, false] {
        let deadline = Duration::from_hours(1);
        let server = Server::start_with(Settings { connections: 16, deadline, ..Settings::default() }, None);
        let slow = review(&[("web", "example.com/wait:1")]).to_string();
        let mut reviews = tokio::task::JoinSet::new();
        let (mut sent, mut answered) = (0, Vec::new());
        for (peer, count) in [(2, 12), (3, 16)] {
            for _ in 0..count {
                let builder = server.client_builder().local_address(IpAddr::from([127, 0, 0, peer]));
                let client = if http1 { builder.http1_only() } else { builder }.build().unwrap();
                let request = client.post(server.url("/validate")).header("content-type", "application/json");
                let request = request.body(slow.clone());
                // With its client, so that the connection stays.
                reviews.spawn(async move { (request.send().await.is_ok(), client) });
                sent += 1;
            }
            // Each one is being decided about, or has its answer.
            let settled = timeout(Duration::from_mins(1), async {
                while server.gate.asked.lock().unwrap().len() + answered.len() < sent {
                    answered.extend(reviews.try_join_next().map(Result::unwrap));
                    tokio::task::yield_now().await;
                }
            });
            settled.await.expect("each review is decided about or refused");
        }
        good_is_served(&server, &server.client()).await;
        server.gate.open.add_permits(sent);
    }
}

#[tokio::test]
async fn what_is_not_tls_is_cut_off_and_the_next_client_served() {
    let server = Server::start();
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"POST /validate HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Ends, by a TLS alert or a reset, without an HTTP answer.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
    good_is_served(&server, &server.client()).await;
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let settings = Settings { workers: 1, handshake_within: Duration::from_hours(1), ..Settings::default() };
    let server = Server::start_with(settings, None);
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    good_is_served(&server, &server.client()).await;
}
