//! A server that answers whatever a test wants, however wrong: registries and token realms that lie.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// How many requests came before this one.
    pub(crate) before: usize,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Status, headers, body; `Content-Length` is added.
    Http(u16, Vec<(String, String)>, Vec<u8>),
    /// These bytes, then the connection ends.
    Raw(Vec<u8>),
    /// These bytes, then these again and again for as long as somebody reads.
    Forever(Vec<u8>, Vec<u8>),
    /// These bytes, then one byte now and then for as long as somebody reads.
    Drip(Vec<u8>),
    /// The connection ends without an answer.
    HangUp,
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

/// The server. It listens on loopback, on a port of its own, until it is dropped.
pub(crate) struct Liar {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
    ca: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl Reply {
    pub(crate) fn new(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self::Http(status, headers, body.as_ref().to_vec())
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self::new(status, &[], "")
    }
}

impl Liar {
    /// Speaks plain HTTP/1.1.
    pub(crate) fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, String::new(), Arc::new(answer))
    }

    /// Speaks HTTP/1.1 over TLS, with a certificate for `localhost` and `127.0.0.1` of a CA of its own.
    pub(crate) fn start_tls(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new([]).expect("no names");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).expect("a certificate");
        let key = KeyPair::generate().expect("a key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = CertificateParams::new(names).expect("names");
        let certificate = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).expect("a certificate");
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a pair");
        Self::listen(Some(Arc::new(tls)), ca_certificate.pem(), Arc::new(answer))
    }

    fn listen(tls: Option<Arc<ServerConfig>>, ca: String, answer: Arc<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (log, ended) = (Arc::clone(&asked), Arc::clone(&over));
        let count = Arc::new(AtomicUsize::new(0));
        thread::spawn(move || {
            for connection in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                let (log, answer, count) = (Arc::clone(&log), Arc::clone(&answer), Arc::clone(&count));
                let tls = tls.clone();
                thread::spawn(move || {
                    // A client that goes away is no failure of a test.
                    let _ = match tls {
                        None => serve(connection, &answer, &log, &count),
                        Some(tls) => match ServerConnection::new(tls) {
                            Ok(session) => serve(StreamOwned::new(session, connection), &answer, &log, &count),
                            Err(error) => Err(io::Error::other(error)),
                        },
                    };
                });
            }
        });
        Self { port, asked, over, ca }
    }

    /// `127.0.0.1:port`.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `localhost:port`: the same server, for a client another host.
    pub(crate) fn other_host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The CA's certificate, PEM.
    pub(crate) fn ca(&self) -> &str {
        &self.ca
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic under the lock").clone()
    }

    /// The paths of all requests so far, without those of `/v2/`.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.path).filter(|path| path != "/v2/").collect()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the listener, so that it sees that it is over.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve<S: Read + Write>(
    stream: S,
    answer: &Arc<Handler>,
    log: &Mutex<Vec<Asked>>,
    count: &AtomicUsize,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        // Somebody tries TLS with a plain server: it would wait for the end of a line that never comes.
        if stream.fill_buf()?.first() == Some(&0x16) {
            return Ok(());
        }
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return Ok(());
        };
        let (method, path) = (method.to_owned(), path.to_owned());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
                None => break,
            }
        }
        let mut asked = Asked { method, path, headers, body: String::new(), before: 0 };
        let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        asked.body = String::from_utf8_lossy(&body).into_owned();
        asked.before = count.fetch_add(1, Ordering::SeqCst);
        log.lock().expect("no panic under the lock").push(asked.clone());
        let out = stream.get_mut();
        match answer(&asked) {
            Reply::Http(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    head += &[name.as_str(), ": ", value.as_str(), "\r\n"].concat();
                }
                head.push_str("\r\n");
                out.write_all(head.as_bytes())?;
                out.write_all(&body)?;
                out.flush()?;
            }
            Reply::Raw(bytes) => {
                out.write_all(&bytes)?;
                return out.flush();
            }
            Reply::Forever(head, again) => {
                out.write_all(&head)?;
                loop {
                    out.write_all(&again)?;
                }
            }
            Reply::Drip(head) => {
                out.write_all(&head)?;
                loop {
                    out.write_all(b"x")?;
                    out.flush()?;
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Reply::HangUp => {
                return Ok(());
            }
        }
    }
}
