//! A webhook on loopback, whose gate decides by the name of the image.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use sealgate::{
    configuration::{self, Certificate},
    gate::{Admission, CurrentPolicy, Decision, Gate, Verdict},
    image::{Digest, Reference},
    policy::{self, Mode, RuleId, SourceFile},
    refusal::Refusal,
    startup,
    telemetry::{Metrics, Readiness},
    tls::ServerTls,
    webhook::{self, Decide, Settings},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Notify, Semaphore, oneshot};

pub(super) const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Decides by the image's repository: `good` may run, pinned; `panic` panics; `hang` never ends; `wait` ends once the test
/// says so; all others are refused. Where there is a real gate behind it, that decides.
pub(super) struct FakeGate {
    real: Option<Gate>,
    /// Told when a decision about `wait` has begun.
    pub(super) begun: Notify,
    /// Gives a permit for each `wait` that may end.
    pub(super) open: Semaphore,
    /// Every image asked about: as it stands there, and whether it runs as written.
    pub(super) asked: Mutex<Vec<(String, bool)>>,
}

impl Decide for FakeGate {
    async fn decide<'a>(&'a self, admission: &'a Admission<'a>) -> Result<Vec<Decision>, Refusal> {
        assert_eq!(admission.namespace, Some("shop"));
        if let Some(gate) = &self.real {
            return gate.decide(admission).await;
        }
        let mut decisions = Vec::new();
        for image in admission.images {
            self.asked.lock().unwrap().push((image.text.to_owned(), image.runs_as_written));
            let reference = Reference::for_image(image.text).ok();
            let refused = Err(Refusal::NoPolicy);
            let verdict = match reference.as_ref().map(|reference| reference.repository().path()) {
                Some("good") => Ok(Verdict::AllowedByRule { rule: RuleId::new("p", "good"), reason: "good".into() }),
                Some("panic") => panic!("a bug"),
                Some("hang") => std::future::pending().await,
                Some("wait") => {
                    self.begun.notify_one();
                    self.open.acquire().await.unwrap().forget();
                    refused
                }
                _ => refused,
            };
            let pinned = reference.as_ref().map(|reference| reference.pinned(Digest::parse(DIGEST).unwrap()));
            let examinations = Vec::new();
            decisions.push(Decision {
                verdict,
                image: reference,
                rule: None,
                mode: Mode::Enforce,
                pinned,
                examinations,
            });
        }
        Ok(decisions)
    }
}

/// The settings, with limits under which no client is too slow, however busy the machine is.
pub(super) fn patient(settings: Settings) -> Settings {
    let long = Duration::from_mins(2);
    Settings { handshake_within: long, head_within: long, receive_within: long, ..settings }
}

/// A running webhook; stopped when dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) gate: Arc<FakeGate>,
    pub(super) tls: Arc<ServerTls>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start() -> Self {
        Self::start_with(Settings { workers: 2, ..patient(Settings::default()) }, None)
    }

    pub(super) fn start_with(settings: Settings, client_ca: Option<&str>) -> Self {
        Self::start_before(None, Arc::default(), settings, client_ca)
    }

    /// With the real gate, of this configuration and with this policy.
    pub(super) fn start_real(configuration: &str, policy: &str) -> Self {
        let file = |text: &str| SourceFile { name: "test.yaml".into(), folder: ".".into(), bytes: text.into() };
        let head = "apiVersion: sealgate.dev/v1\nkind: ";
        let configuration = file(&format!("{head}Configuration\n{configuration}"));
        let configuration = configuration::load(&configuration).unwrap();
        let policy = file(&format!("{head}ClusterSealPolicy\nmetadata: {{name: test}}\nspec:\n{policy}"));
        let policy = policy::load(&[policy], &mut |_| panic!("no key is needed")).unwrap();
        let current = Arc::new(CurrentPolicy::new(policy));
        let metrics = Arc::new(Metrics::new());
        let gate = startup::engine(&configuration, current, None, Arc::clone(&metrics)).unwrap();
        Self::start_before(Some(gate), metrics, Settings { workers: 2, ..patient(Settings::new(&configuration)) }, None)
    }

    fn start_before(real: Option<Gate>, metrics: Arc<Metrics>, settings: Settings, client_ca: Option<&str>) -> Self {
        let folder = TempDir::new().unwrap();
        let client_ca = client_ca.map(|pem| {
            let path = folder.path().join("client-ca.crt");
            fs::write(&path, pem).unwrap();
            path
        });
        let settings = Settings { client_certificates: client_ca.is_some(), ..settings };
        let certificate = Certificate::Made { folder: folder.path().to_owned() };
        ServerTls::load(&certificate, None, &[], Timestamp::now()).unwrap();
        let (chain, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let certificate = Certificate::Files { chain, key };
        let tls = Arc::new(ServerTls::load(&certificate, client_ca.as_deref(), &[], Timestamp::now()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(FakeGate { real, begun: Notify::new(), open: Semaphore::new(0), asked: Mutex::default() });
        let readiness = Arc::new(Readiness::default());
        readiness.set(true);
        let (stop, stopped) = oneshot::channel();
        let server = {
            let (gate, metrics, config) = (Arc::clone(&gate), Arc::clone(&metrics), tls.server_config());
            let readiness = Arc::clone(&readiness);
            async move {
                let stop = async move {
                    let _ = stopped.await;
                };
                webhook::run(listener, config, gate, settings, metrics, readiness, stop).await.unwrap();
            }
        };
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(server);
        });
        Self { address, gate, tls, metrics, readiness, folder, stop: Some(stop), thread: Some(thread) }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// A client that trusts this server.
    pub(super) fn client(&self) -> reqwest::Client {
        self.client_builder().build().unwrap()
    }

    pub(super) fn client_builder(&self) -> reqwest::ClientBuilder {
        let ca = reqwest::Certificate::from_pem(&fs::read(self.ca()).unwrap()).unwrap();
        reqwest::Client::builder().tls_certs_only([ca]).no_proxy().timeout(Duration::from_mins(1))
    }

    /// Sends a review, and gives back `response`.
    pub(super) async fn ask(&self, client: &reqwest::Client, path: &str, review: &Value) -> Value {
        let response = self.send(client, path, review.to_string()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/json");
        let answer: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        answer["response"].clone()
    }

    pub(super) async fn send(&self, client: &reqwest::Client, path: &str, body: String) -> reqwest::Response {
        let request = client.post(self.url(path)).header("content-type", "application/json").body(body);
        request.send().await.unwrap()
    }

    /// Tells it to stop, without waiting.
    pub(super) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits until it has stopped.
    pub(super) fn wait(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub(super) fn metrics(&self) -> String {
        String::from_utf8(self.metrics.text().unwrap()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        self.gate.open.add_permits(1000);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The operations of a patch.
pub(super) fn patch(response: &Value) -> Option<Value> {
    let patch = response.get("patch")?;
    assert_eq!(response["patchType"], "JSONPatch");
    Some(serde_json::from_slice(&STANDARD.decode(patch.as_str().unwrap()).unwrap()).unwrap())
}
