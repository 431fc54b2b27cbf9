//! What goes through to the registry, and how.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::Duration,
};

use sealgate::configuration::{Limits, Network};

use super::fake::{Fake, closed_by_peer, get, send, signal};
use crate::support::{DockerRegistry, Store};

const LONG: Duration = Duration::from_mins(1);

fn header<'a>(answer: &'a str, name: &str) -> Vec<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn code(answer: &str) -> String {
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert!(body["errors"][0]["message"].is_string());
    body["errors"][0]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_ping_announces_signatures_whether_it_is_allowed_or_challenged() {
    let registry = DockerRegistry::start();
    let store = Store::start(&registry.url());
    let answer = get(store.host(), "/v2/");
    assert_eq!((status(&answer), header(&answer, "x-registry-supports-signatures")), ("200", vec!["1"]));
    assert_eq!(header(&answer, "docker-distribution-api-version"), ["registry/2.0"]);
    let challenge = r#"Bearer realm="https://auth.example.com/token",service="r""#;
    let body = r#"{"errors":[]}"#;
    let fake = Fake::says(&format!(
        "HTTP/1.1 401 Unauthorized\r\nWww-Authenticate: {challenge}\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 13\r\n\r\n{body}"
    ));
    let store = Store::start(&fake.url());
    let answer = get(store.host(), "/v2/");
    assert_eq!((status(&answer), header(&answer, "x-registry-supports-signatures")), ("401", vec!["1"]));
    assert_eq!(header(&answer, "www-authenticate"), [challenge, "Basic realm=x"]);
    assert!(answer.ends_with(body));
    assert!(header(&get(store.host(), "/v2/_catalog"), "x-registry-supports-signatures").is_empty());
}

#[tokio::test]
async fn headers_go_through_but_for_those_of_one_connection() {
    let fake = Fake::says(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         X-End: 1\r\nX-End: 2\r\nContent-Encoding: gzip\r\n\r\nok",
    );
    let store = Store::start(&fake.url());
    let answer = send(
        store.host(),
        "GET /v2/a/manifests/%31?x=%2F&y=a+b HTTP/1.1\r\nHost: store.example.com:5000\r\nAccept: a/b\r\naccept: c/d, e/f\r\n\
         Authorization: Basic eDp5\r\nConnection: close, X-Own\r\nX-Own: 1\r\nTE: trailers\r\nProxy-Authorization: secret\r\n\
         Range: bytes=0-1\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Port: 1\r\nForwarded: for=192.0.2.1\r\n\
         User-Agent: test\r\n\r\n",
    );
    let heads = fake.heads();
    assert_eq!(heads.len(), 1);
    assert!(heads[0].starts_with("GET /v2/a/manifests/%31?x=%2F&y=a+b HTTP/1.1\r\n"), "{}", heads[0]);
    for (name, values) in [
        ("host", vec![fake.address()]),
        ("accept", vec!["a/b", "c/d, e/f"]),
        ("authorization", vec!["Basic eDp5"]),
        ("range", vec!["bytes=0-1"]),
        ("user-agent", vec!["test"]),
        ("x-forwarded-host", vec!["store.example.com:5000"]),
        ("x-forwarded-proto", vec!["http"]),
        ("x-forwarded-for", vec!["127.0.0.1"]),
        ("x-forwarded-port", vec![]),
        ("forwarded", vec![]),
        ("x-own", vec![]),
        ("te", vec![]),
        ("proxy-authorization", vec![]),
        ("connection", vec![]),
        ("accept-encoding", vec![]),
    ] {
        assert_eq!(header(&heads[0], name), values, "{name}");
    }
    assert_eq!(header(&answer, "x-end"), ["1", "2"]);
    assert_eq!(header(&answer, "content-encoding"), ["gzip"]);
    assert_eq!(header(&answer, "content-length"), ["2"]);
    assert!(header(&answer, "x-hop").is_empty() && header(&answer, "keep-alive").is_empty());
    assert!(answer.ends_with("\r\n\r\nok"));
}

#[tokio::test]
async fn what_a_client_says_in_a_proxys_fields_ends_at_the_store() {
    let fields = [
        "X-Real-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "Fastly-Client-IP",
        "X-Original-Forwarded-For",
        "X-Forwarded",
        "X-Forwarded-User",
        "X-Envoy-External-Address",
        "X_Real_IP",
        "X-Remote-User",
        "Remote-Addr",
        "X-Original-URL",
    ];
    let lines = fields.join(": 192.0.2.1\r\n") + ": 192.0.2.1\r\n";
    let request = format!(
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}X-JFrog-Art-Api: key\r\nPrivate-Token: token\r\n\r\n"
    );
    for trusted in [false, true] {
        let fake = Fake::says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let store = Store::start_set(&fake.url(), &Limits::default(), |settings| {
            settings.trusted_proxies = if trusted { vec![Network::parse("127.0.0.1").unwrap()] } else { Vec::new() };
        });
        send(store.host(), &request);
        let head = &fake.heads()[0];
        for name in fields {
            let passed = header(head, &name.to_lowercase());
            assert_eq!(passed.len(), usize::from(trusted), "{name}: {head}");
        }
        assert_eq!((header(head, "x-jfrog-art-api"), header(head, "private-token")), (vec!["key"], vec!["token"]));
    }
}

#[tokio::test]
async fn how_a_request_came_is_passed_on_as_trusted_proxies_have_it() {
    let fake = Fake::says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let store = Store::start_set(&fake.url(), &Limits::default(), |settings| {
        settings.trusted_proxies = vec![Network::parse("127.0.0.1").unwrap()];
    });
    send(
        store.host(),
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Port: 1\r\n\
         Forwarded: for=192.0.2.1\r\n\r\n",
    );
    let head = &fake.heads()[0];
    for (name, value) in
        [("x-forwarded-for", "192.0.2.1, 127.0.0.1"), ("x-forwarded-port", "1"), ("forwarded", "for=192.0.2.1")]
    {
        assert_eq!(header(head, name), [value], "{head}");
    }
}

#[tokio::test]
async fn redirects_and_addresses_are_the_clients_business() {
    let fake = Fake::start(|head, stream| {
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let location = match head {
            head if head.contains("/blobs/") => "https://storage.example.com/x?sig=%2F".to_owned(),
            _ => format!("http://{host}/v2/a/blobs/uploads/1?_state=x%3D"),
        };
        write!(
            stream,
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nLink: <http://{host}/v2/x?n=1>; rel=\"next\"\r\nContent-Length: 0\r\n\r\n"
        )
    });
    let store = Store::start(&fake.url());
    let answer = get(store.host(), "/v2/a/blobs/1");
    assert_eq!((status(&answer), header(&answer, "location")), ("307", vec!["https://storage.example.com/x?sig=%2F"]));
    let answer = get(store.host(), "/v2/a/x");
    assert_eq!(header(&answer, "location"), [format!("{}/v2/a/blobs/uploads/1?_state=x%3D", store.url())]);
    assert_eq!(header(&answer, "link"), [format!("<{}/v2/x?n=1>; rel=\"next\"", store.url())]);
    assert_eq!(fake.heads().len(), 2, "nothing is followed");
}

#[tokio::test]
async fn nothing_but_v2_reaches_the_registry() {
    let fake = Fake::says("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret");
    let store = Store::start(&fake.url());
    for path in ["/", "/v1/", "/metrics", "/debug/pprof", "/sealgate/v1/", "/v2x", "//v2/", "/extensions/v2/x"] {
        let answer = get(store.host(), path);
        assert_eq!((status(&answer), code(&answer).as_str()), ("404", "NOT_FOUND"), "{path}");
    }
    for path in ["/v2/../debug", "/v2/%2e%2e/debug", "/v2/a/..%2f..%2fdebug", "/v2/..\\debug", "/v2/./x"] {
        let answer = get(store.host(), path);
        assert_eq!(status(&answer), "400", "{path}: {answer}");
    }
    for request in [
        format!("CONNECT {} HTTP/1.1\r\nHost: x\r\n\r\n", fake.address()),
        "TRACE /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned(),
    ] {
        let mut stream = TcpStream::connect(store.host()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer[..10], b"HTTP/1.1 4", "{request}");
    }
    let answer = send(store.host(), "PROPFIND /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!((status(&answer), header(&answer, "allow").len()), ("405", 1), "{answer}");
    assert_eq!(fake.heads(), Vec::<String>::new());
    assert_eq!(status(&get(store.host(), "/healthz")), "200");
}

#[tokio::test]
async fn head_keeps_the_length_and_ranges_work() {
    let registry = DockerRegistry::start();
    let pushed = registry.push("acme/web", "1", "one").await;
    let store = Store::start(&registry.url());
    let url = format!("{}/v2/acme/web/manifests/1", store.url());
    let client = reqwest::Client::new();
    let head = client.head(&url).header("accept", pushed.media_type).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["content-length"], pushed.manifest.len().to_string().as_str());
    assert_eq!(head.headers()["docker-content-digest"], pushed.digest.to_string().as_str());
    let layer = sealgate::image::Digest::sha256(b"one");
    let part = client.get(format!("{}/v2/acme/web/blobs/{layer}", store.url())).header("range", "bytes=1-");
    let part = part.send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.headers()["content-range"].to_str().unwrap()), (206, "bytes 1-2/3"));
    assert_eq!(part.text().await.unwrap(), "ne");
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_ends_as_if_it_were_whole() {
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let body = if head.starts_with('C') { "half" } else { "4\r\nhalf\r\n" };
        let fake = Fake::says(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}"));
        let store = Store::start(&fake.url());
        let answer = reqwest::get(format!("{}/v2/a/blobs/x", store.url())).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.bytes().await.is_err(), "{head}");
    }
}

#[tokio::test]
async fn a_request_that_breaks_off_never_reaches_the_registry_as_a_whole() {
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let (tell, told) = signal();
        let fake = Fake::start(move |_, stream| {
            let mut body = Vec::new();
            let end = stream.read_to_end(&mut body);
            tell((String::from_utf8_lossy(&body).into_owned(), end.is_ok()));
            Ok(())
        });
        let store = Store::start(&fake.url());
        let mut client = TcpStream::connect(store.host()).unwrap();
        let body = if framing.starts_with('C') { "half" } else { "4\r\nhalf\r\n" };
        write!(client, "PUT /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{body}").unwrap();
        crate::support::wait_until("the request at the registry", || (!fake.heads().is_empty()).then_some(()));
        drop(client);
        let (body, _) = told.recv_timeout(LONG).unwrap();
        assert!(!body.contains("0\r\n\r\n"), "{body}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_request_at_the_registry() {
    // While the registry has not answered, and while it sends.
    for begin in ["", "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegin"] {
        let (tell, told) = signal();
        let (asked, was_asked) = signal();
        let fake = Fake::start(move |_, stream| {
            stream.write_all(begin.as_bytes())?;
            asked(());
            tell(closed_by_peer(stream));
            Ok(())
        });
        let store = Store::start(&fake.url());
        let mut client = TcpStream::connect(store.host()).unwrap();
        write!(client, "GET /v2/a/blobs/x HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        was_asked.recv_timeout(LONG).unwrap();
        if !begin.is_empty() {
            client.read_exact(&mut [0; 20]).unwrap();
        }
        drop(client);
        assert!(told.recv_timeout(LONG).unwrap(), "{begin}");
    }
}

#[tokio::test]
async fn a_registry_that_is_down_or_talks_nonsense_is_said_to_be_so() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = Store::start(&format!("http://{free}"));
    for path in ["/v2/", &format!("/extensions/v2/a/signatures/sha256:{}", "0".repeat(64))] {
        let answer = get(store.host(), path);
        assert_eq!((status(&answer), code(&answer).as_str()), ("503", "UNAVAILABLE"), "{path}");
        assert!(!header(&answer, "retry-after").is_empty());
    }
    assert_eq!(status(&get(store.host(), "/healthz")), "200");
    let fake = Fake::says("220 smtp.example.com ESMTP\r\n");
    let store = Store::start(&fake.url());
    let answer = get(store.host(), "/v2/");
    assert_eq!((status(&answer), code(&answer).as_str()), ("502", "UNAVAILABLE"));
    assert!(!header(&answer, "retry-after").is_empty());
}

#[tokio::test]
async fn uploads_through_the_store_lead_back_to_it() {
    let registry = DockerRegistry::start();
    registry.push("acme/base", "1", "one").await;
    let store = Store::start(&registry.url());
    let client = reqwest::Client::new();
    let begun = client.post(format!("{}/v2/acme/web/blobs/uploads/", store.url())).send().await.unwrap();
    assert_eq!(begun.status(), 202);
    let location = begun.headers()["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with(&store.url()), "{location}");
    let next = client.patch(&location).header("content-range", "0-2").body("abc").send().await.unwrap();
    assert_eq!(next.status(), 202);
    let location = next.headers()["location"].to_str().unwrap().to_owned();
    let digest = sealgate::image::Digest::sha256(b"abc");
    let done = client.put(format!("{location}&digest={digest}")).send().await.unwrap();
    assert_eq!(done.status(), 201);
    assert_eq!(done.headers()["location"], format!("{}/v2/acme/web/blobs/{digest}", store.url()).as_str());
    let layer = sealgate::image::Digest::sha256(b"one");
    let mounted = client.post(format!("{}/v2/acme/web/blobs/uploads/?mount={layer}&from=acme/base", store.url()));
    let mounted = mounted.send().await.unwrap();
    assert_eq!(mounted.status(), 201);
    assert_eq!(mounted.headers()["location"], format!("{}/v2/acme/web/blobs/{layer}", store.url()).as_str());
}

#[tokio::test]
async fn transfers_under_way_end_well_when_the_store_stops() {
    let (go, wait_go) = mpsc::channel::<()>();
    let wait_go = std::sync::Mutex::new(wait_go);
    let fake = Fake::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")?;
        let _ = wait_go.lock().unwrap().recv_timeout(LONG);
        stream.write_all(b"cd")
    });
    let mut store = Store::start(&fake.url());
    let mut answer = reqwest::get(format!("{}/v2/a/blobs/x", store.url())).await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "ab");
    let stopping = store.stop();
    go.send(()).unwrap();
    let rest = answer.chunk().await.unwrap().unwrap();
    assert_eq!(rest, "cd");
    stopping.wait();
}
