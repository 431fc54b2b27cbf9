//! How much of a bare server's speed is left when the gate decides: reviews a second of the warm gate (its verdict is
//! cached), and of a handler that parses the same review with the same structs and allows it, over TLS on connections that
//! are kept alive. Both run in one process and take turns, so that whatever else the machine does hits both.
//!
//! `cargo bench --bench webhook`. docs/performance.md has the method and figures.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    hint::black_box,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, web};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use sealgate::{
    configuration,
    gate::{
        CpuBudgets, CurrentPolicy, FindSignatures, Gate, ResolveDigest, Settings, SignatureSnapshot,
        SignatureSnapshots,
        cache::{CacheTimes, CachedResolve, CachedSignatures},
    },
    image::{Digest, Hashed, HashedManifest, Reference, Repository},
    policy::{self, Mode, SourceFile},
    refusal::LookupError,
    signature::UntrustedSignature,
    telemetry::{Metrics, Readiness},
    tls::ServerTls,
    verification::{AskedSource, FoundSignatures},
    webhook::{
        self, response,
        review::{Review, ReviewSubject},
    },
};
use sequoia_openpgp::{
    cert::CertBuilder,
    policy::StandardPolicy,
    serialize::{
        SerializeInto as _,
        stream::{LiteralWriter, Message, Signer},
    },
};
use serde_json::json;
use support::{Server, Turns, per_second};

/// Connections kept alive, as many as an API server under load opens.
const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);
const ROUND: Duration = Duration::from_secs(1);
/// Rounds, each of both in turn.
const ROUNDS: usize = 15;
/// The ratio to meet.
const TARGET: f64 = 0.8;

const IMAGE: &str = "registry.example.com/acme/web:1.2";

fn main() {
    // `cargo test --benches` builds and runs this too; there it measures nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let certificate = configuration::Certificate::Made { folder: folder.path().to_owned() };
    let tls = ServerTls::load(&certificate, None, &[], Timestamp::now()).unwrap();
    let workers = std::thread::available_parallelism().unwrap().get();
    let digest = Digest::sha256(MANIFEST);
    let body = review(&format!("{IMAGE}@{digest}"));
    println!("a review of {} bytes, {CONNECTIONS} connections, {workers} workers", body.len());

    let gate = Server::start(|listener, stopped| {
        let config = tls.server_config();
        async move {
            let (gate, metrics) = warm_gate(digest);
            let settings = webhook::Settings { workers, ..webhook::Settings::default() };
            let stop = async move { stopped.await.unwrap_or(()) };
            let readiness = Arc::new(Readiness::default());
            readiness.set(true);
            webhook::run(listener, config, Arc::new(gate), settings, metrics, readiness, stop).await.unwrap();
        }
    });
    let bare = Server::start(|listener, stopped| {
        let config = tls.server_config();
        async move { bare_server(listener, config, workers, stopped).await.unwrap() }
    });

    let client = client_config(&std::fs::read(tls.made_ca().unwrap()).unwrap());
    let load = |server: &Server, time| load(server.address, &client, &body, time);
    load(&gate, WARM_UP);
    load(&bare, WARM_UP);
    let turns = Turns { sides: ["bare", "gate"], unit: "/s", rounds: ROUNDS, target: TARGET };
    assert!(turns.take(|| load(&bare, ROUND), || load(&gate, ROUND)), "the gate is slower than it should be");
}

/// The least that a webhook can do: the same server, the same structs, and yes.
fn bare_server(
    listener: TcpListener,
    tls: ServerConfig,
    workers: usize,
    stopped: tokio::sync::oneshot::Receiver<()>,
) -> impl Future<Output = std::io::Result<()>> {
    let handler = async |body: web::Bytes| {
        let review = Review::parse(&body).unwrap();
        let ReviewSubject::Images(images) = review.subject().unwrap() else { panic!("a pod has images") };
        black_box(images);
        HttpResponse::Ok().content_type("application/json").body(response::allowed(&review).body)
    };
    HttpServer::new(move || {
        App::new().app_data(web::PayloadConfig::new(8 << 20)).route("/validate", web::post().to(handler))
    })
    .workers(workers)
    .tcp_nodelay(true)
    .keep_alive(Duration::from_mins(3))
    .shutdown_signal(async move { stopped.await.unwrap_or(()) })
    .shutdown_timeout(1)
    .listen_rustls_0_23(listener, tls)
    .unwrap()
    .run()
}

/// The gate as it runs, with its caches, over a registry and a signature source that answer from memory.
fn warm_gate(digest: Digest) -> (Gate, Arc<Metrics>) {
    let (certificate, signature) = signed(digest);
    let policy = "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {name: production}\nspec:\n  keys:\n    \
         acme-release: {file: acme.pgp}\n  rules:\n  - name: acme\n    images: [registry.example.com/acme]\n    \
         require:\n    - signedBy: [acme-release]\n";
    let file = SourceFile { name: "production.yaml".into(), folder: ".".into(), bytes: policy.as_bytes().to_vec() };
    let policy = policy::load(&[file], &mut |_| Ok(certificate.clone())).unwrap();
    let metrics = Arc::new(Metrics::new());
    let times = CacheTimes {
        tag: Duration::from_secs(30),
        signatures: Duration::from_mins(10),
        lookup: Duration::from_secs(8),
    };
    let manifest = Hashed::sha256(MANIFEST).manifest(None).expect("a manifest").into();
    let registry = Arc::new(Registry { manifest, signature });
    let resolve = Arc::new(CachedResolve::new(Arc::clone(&registry) as _, times, Arc::clone(&metrics) as _));
    let signatures = Arc::new(CachedSignatures::new(registry, times, Arc::clone(&metrics) as _));
    let settings = Settings {
        mode: Mode::Enforce,
        pin_required: true,
        images_per_review: 128,
        signatures_per_image: 64,
        budgets: CpuBudgets::default(),
        lookup: times.lookup,
        last_known_good: Duration::ZERO,
    };
    let policy = Arc::new(CurrentPolicy::new(policy));
    (Gate::new(settings, policy, resolve, signatures, Arc::clone(&metrics) as _), metrics)
}

/// What the reviewed image is.
const MANIFEST: &[u8] = br#"{"schemaVersion": 2, "config": {}, "layers": []}"#;

struct Registry {
    manifest: Arc<HashedManifest>,
    signature: Arc<[u8]>,
}

#[async_trait]
impl ResolveDigest for Registry {
    async fn resolve(&self, _: &Reference, _: tokio::time::Instant) -> Result<Arc<HashedManifest>, LookupError> {
        Ok(Arc::clone(&self.manifest))
    }
}

impl FindSignatures for Registry {
    fn find<'a>(&'a self, _: &'a Repository, _: Digest, _: tokio::time::Instant) -> SignatureSnapshots<'a> {
        let source: Arc<str> = "https://registry.example.com/extensions/v2/acme/web/signatures".into();
        let signature =
            UntrustedSignature { content: Arc::clone(&self.signature), source: Arc::clone(&source), number: 1 };
        let asked = vec![AskedSource { url: source, outcome: Ok(1) }];
        let found = FoundSignatures { signatures: vec![signature], asked };
        stream::once(std::future::ready(SignatureSnapshot::complete(found))).boxed()
    }
}

/// A certificate, and a signature of it on the image.
fn signed(digest: Digest) -> (Vec<u8>, Arc<[u8]>) {
    let cert = CertBuilder::new().add_userid("Acme <release@example.com>").add_signing_subkey().generate().unwrap().0;
    let policy = StandardPolicy::new();
    let key = cert.keys().with_policy(&policy, None).for_signing().secret().next().unwrap();
    let pair = key.key().clone().into_keypair().unwrap();
    let payload = json!({
        "critical": {
            "type": "atomic container signature",
            "image": {"docker-manifest-digest": digest.to_string()},
            "identity": {"docker-reference": IMAGE},
        },
        "optional": {},
    });
    let mut sink = Vec::new();
    let message = Signer::new(Message::new(&mut sink), pair).unwrap().build().unwrap();
    let mut message = LiteralWriter::new(message).build().unwrap();
    message.write_all(payload.to_string().as_bytes()).unwrap();
    message.finalize().unwrap();
    (cert.to_vec().unwrap(), sink.into())
}

/// A review as an API server sends it for a pod of a Deployment, about 4 KB.
fn review(image: &str) -> Vec<u8> {
    let probe = |path| json!({"httpGet": {"path": path, "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1});
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let mount = json!({"name": "kube-api-access-x7k2p", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true});
    let environment: Vec<_> =
        (0..12).map(|count| json!({"name": format!("SETTING_{count}"), "value": STANDARD.encode(format!("the value of setting {count}"))})).collect();
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "kind": kind, "resource": resource,
            "requestKind": kind, "requestResource": resource, "namespace": "shop", "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "uid": "a7e0ab33-5f29-11e8-8a3c-36e6bb280816",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"]},
            "object": {
                "kind": "Pod", "apiVersion": "v1",
                "metadata": {
                    "generateName": "web-6d4cf56db6-", "creationTimestamp": null,
                    "labels": {"app": "web", "pod-template-hash": "6d4cf56db6", "app.kubernetes.io/part-of": "shop"},
                    "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6d4cf56db6",
                        "uid": "16ad5f2b-8f2d-4b0b-8f4e-5bb9c7a3f3d1", "controller": true, "blockOwnerDeletion": true}],
                },
                "spec": {
                    "volumes": [{"name": "kube-api-access-x7k2p", "projected": {"defaultMode": 420, "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]}}],
                    "containers": [{
                        "name": "web", "image": image, "args": ["--listen=:8080", "--log=json"], "env": environment,
                        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                        "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
                        "livenessProbe": probe("/healthz"), "readinessProbe": probe("/readyz"), "volumeMounts": [mount],
                        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                        "imagePullPolicy": "IfNotPresent",
                        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true},
                    }],
                    "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                    "serviceAccountName": "web", "serviceAccount": "web", "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "schedulerName": "default-scheduler", "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
                    "tolerations": [
                        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
                },
                "status": {},
            },
            "oldObject": null, "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
    .to_string()
    .into_bytes()
}

fn client_config(ca: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Sends reviews over [`CONNECTIONS`] connections, each waiting for its answer, and gives back how many a second were allowed.
fn load(address: SocketAddr, client: &Arc<ClientConfig>, body: &[u8], time: Duration) -> f64 {
    let mut request = format!(
        "POST /validate?timeout=10s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    per_second(CONNECTIONS, time, || {
        let (mut connection, mut buffer) = (connect(address, client), vec![0; 16 << 10]);
        let request = &request;
        move || {
            connection.write_all(request).unwrap();
            answer(&mut connection, &mut buffer);
        }
    })
}

fn connect(address: SocketAddr, client: &Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let tls = ClientConnection::new(Arc::clone(client), ServerName::try_from("localhost").unwrap()).unwrap();
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_nodelay(true).unwrap();
    StreamOwned::new(tls, tcp)
}

/// Reads one answer, which must allow.
fn answer(connection: &mut StreamOwned<ClientConnection, TcpStream>, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        filled += connection.read(&mut buffer[filled..]).unwrap();
        let Some(end) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&buffer[..end]).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let whole = end + 4 + length.parse::<usize>().unwrap();
        if filled == whole {
            let body = std::str::from_utf8(&buffer[end + 4..whole]).unwrap();
            assert!(body.contains("\"allowed\":true"), "{body}");
            return;
        }
    }
}
