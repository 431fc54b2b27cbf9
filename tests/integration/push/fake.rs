//! A registry as the distribution specification has it, in memory, that does whatever else a test wants.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use sealgate::image::Digest;

use crate::support::{Asked, Liar, Reply};

/// What it has.
#[derive(Default)]
pub(super) struct State {
    pub(super) blobs: HashMap<String, String>,
    pub(super) manifests: HashMap<String, (String, String)>,
    pub(super) uploads: HashMap<String, String>,
    /// How many uploads were begun.
    begun: usize,
    /// Bytes of blobs that came, whether or not anything became of them.
    pub(super) received: usize,
    /// In front of the addresses of uploads.
    pub(super) elsewhere: String,
    pub(super) least_chunk: Option<usize>,
}

pub(super) struct Fake {
    pub(super) server: Liar,
    pub(super) state: Arc<Mutex<State>>,
}

impl Fake {
    /// One that does what it should.
    pub(super) fn honest() -> Self {
        Self::start(|_, _| None)
    }

    /// One where `fault` may answer first.
    pub(super) fn start(fault: impl Fn(&Asked, &mut State) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let server = Liar::start(move |asked| {
            let mut state = shared.lock().expect("no panic under the lock");
            if let Some(reply) = fault(asked, &mut state) {
                return reply;
            }
            state.answer(asked)
        });
        Self { server, state }
    }

    pub(super) fn image(&self) -> String {
        format!("{}/acme/web:1", self.server.host())
    }

    /// How many requests with this method came whose path has this in it.
    pub(super) fn count(&self, method: &str, path: &str) -> usize {
        self.server.asked().iter().filter(|asked| asked.method == method && asked.path.contains(path)).count()
    }
}

pub(super) fn error(status: u16, code: &str) -> Reply {
    Reply::new(status, &[], format!(r#"{{"errors":[{{"code":"{code}","message":"no"}}]}}"#))
}

impl State {
    pub(super) fn answer(&mut self, asked: &Asked) -> Reply {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let query: HashMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let last = path.rsplit('/').next().unwrap_or_default().to_owned();
        match asked.method.as_str() {
            "GET" if path == "/v2/" => Reply::empty(200),
            "HEAD" if path.contains("/blobs/") => self.blob(&last),
            "POST" => {
                let upload = format!("u{}", self.begun);
                self.begun += 1;
                self.uploads.insert(upload.clone(), String::new());
                let mut headers = vec![("location".to_owned(), self.location(&upload))];
                headers.extend(self.least_chunk.map(|least| ("oci-chunk-min-length".to_owned(), least.to_string())));
                Reply::Http(202, headers, Vec::new())
            }
            _ if path.contains("/blobs/uploads/") => self.upload(asked, &last, query.get("digest")),
            "GET" if path.contains("/blobs/") => match self.blobs.get(&last) {
                Some(blob) => Reply::new(200, &[], blob),
                None => error(404, "BLOB_UNKNOWN"),
            },
            "GET" => match self.manifests.get(&last) {
                Some((kind, body)) => Reply::new(200, &[("content-type", kind)], body),
                None => error(404, "MANIFEST_UNKNOWN"),
            },
            "PUT" => {
                let kind = asked.header("content-type").unwrap_or_default().to_owned();
                let digest = Digest::sha256(asked.body.as_bytes()).to_string();
                for name in [last, digest.clone()] {
                    self.manifests.insert(name, (kind.clone(), asked.body.clone()));
                }
                Reply::new(201, &[("docker-content-digest", &digest)], "")
            }
            _ => error(405, "UNSUPPORTED"),
        }
    }

    fn location(&self, upload: &str) -> String {
        format!("{}/v2/acme/web/blobs/uploads/{upload}?_state=secret", self.elsewhere)
    }

    /// To a HEAD: the length of what is not sent.
    fn blob(&self, digest: &str) -> Reply {
        match self.blobs.get(digest) {
            Some(blob) => Reply::Raw(
                format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", blob.len()).into(),
            ),
            None => Reply::empty(404),
        }
    }

    fn upload(&mut self, asked: &Asked, upload: &str, digest: Option<&String>) -> Reply {
        let location = self.location(upload);
        let Some(content) = self.uploads.get_mut(upload) else { return error(404, "BLOB_UPLOAD_UNKNOWN") };
        let stands = |length: usize| [("location".to_owned(), location.clone()), ("range".to_owned(), range(length))];
        match (asked.method.as_str(), digest) {
            ("GET", _) => Reply::Http(204, stands(content.len()).to_vec(), Vec::new()),
            ("PATCH", _) => {
                // Without, it is all of a blob.
                let first = asked.header("content-range").map(|range| range.split('-').next()?.parse().ok());
                if first.is_some_and(|first| first != Some(content.len())) {
                    return error(416, "RANGE_INVALID");
                }
                content.push_str(&asked.body);
                self.received += asked.body.len();
                Reply::Http(202, stands(content.len()).to_vec(), Vec::new())
            }
            ("PUT", Some(digest)) => {
                content.push_str(&asked.body);
                self.received += asked.body.len();
                if Digest::sha256(content.as_bytes()).to_string() != *digest {
                    return error(400, "DIGEST_INVALID");
                }
                let content = self.uploads.insert(upload.to_owned(), String::new()).unwrap_or_default();
                self.blobs.insert(digest.clone(), content);
                Reply::new(201, &[("docker-content-digest", digest)], "")
            }
            ("DELETE", _) => {
                self.uploads.remove(upload);
                Reply::empty(204)
            }
            _ => error(405, "UNSUPPORTED"),
        }
    }
}

pub(super) fn range(length: usize) -> String {
    format!("0-{}", length.saturating_sub(1))
}
