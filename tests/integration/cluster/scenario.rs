//! A test's own registry, store, signers and gate, and webhook configurations that hold in the test's namespace alone.

use std::{
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use sealgate::{
    image::Digest,
    kubernetes::webhooks::{Endpoint, yaml},
};
use serde_json::{Value, json};

use super::{
    Cluster,
    apiserver::{failed, succeeded},
};
use crate::support::{DockerRegistry, Gpg, Process, Pushed, Scratch, accept_anything, skopeo, wait_until};

pub(super) struct Scenario {
    pub(super) cluster: &'static Cluster,
    pub(super) namespace: String,
    pub(super) registry: DockerRegistry,
    pub(super) gpg: Gpg,
    /// Fingerprints of the signer that the policy trusts, and of one that it does not.
    pub(super) release: String,
    pub(super) stranger: String,
    pub(super) gate: Process,
    folder: Scratch,
    store: Process,
    /// `127.0.0.1:port` of the store: the host of every image.
    pub(super) host: String,
    metrics: String,
    runtime: tokio::runtime::Runtime,
    versions: AtomicU32,
}

/// What differs between tests.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScenarioOptions {
    /// Begins the namespace's name.
    pub(super) name: &'static str,
    /// What the configuration's `webhook` says besides.
    pub(super) webhook: &'static str,
    /// The configuration's `caches`.
    pub(super) caches: &'static str,
    /// Further namespaces that the webhook configurations reach, as far as the shipped ones do.
    pub(super) namespaces: &'static [&'static str],
}

impl Default for ScenarioOptions {
    fn default() -> Self {
        Self { name: "scenario", webhook: "", caches: "{tag: 30s, signatures: 10m}", namespaces: &[] }
    }
}

impl Scenario {
    pub(super) fn start(name: &'static str) -> Self {
        Self::with(ScenarioOptions { name, ..ScenarioOptions::default() })
    }

    pub(super) fn with(options: ScenarioOptions) -> Self {
        let cluster = Cluster::get();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let namespace = cluster.namespace(options.name);
        let gpg = Gpg::new();
        let release = gpg.generate("Release <release@example.com>");
        let stranger = gpg.generate("Stranger <stranger@example.com>");
        let registry = DockerRegistry::start();
        let folder = Scratch::new();
        let (store, host) = start_store(&folder, &registry);
        folder.write(
            "sealgate.yaml",
            format!(
                "apiVersion: sealgate.dev/v1\nkind: Configuration\npolicies: policies\n\
                 webhook: {{listen: '127.0.0.1:0', {}}}\nmetrics: {{listen: '127.0.0.1:0'}}\ncaches: {}\n\
                 registries:\n- {{scope: '{host}', insecure: true}}\n",
                options.webhook, options.caches
            ),
        );
        let versions = AtomicU32::new(0);
        gpg.export_to(&release, folder.path().join("release.asc"));
        gpg.export_to(&stranger, folder.path().join("stranger.asc"));
        write_policy(&folder, &versions, &policy(&host, "release"));
        let mut gate = Process::start(
            Command::new(env!("CARGO_BIN_EXE_sealgate"))
                .args(["serve", "--config"])
                .arg(folder.path().join("sealgate.yaml")),
        );
        let address = gate.wait_for("the gate's address", |printed| listening(printed, "gate"));
        let metrics = gate.wait_for("the address of metrics", |printed| listening(printed, "metrics"));
        let scenario = Self {
            cluster,
            namespace,
            registry,
            gpg,
            release,
            stranger,
            gate,
            folder,
            store,
            host,
            metrics,
            runtime,
            versions,
        };
        scenario.register(&address, options.namespaces);
        scenario
    }

    /// Registers the shipped webhook configurations, with a URL in place of the service, and waits until they are in force.
    fn register(&self, address: &str, others: &[&str]) {
        let ca = std::fs::read_to_string(self.folder.path().join("certs/ca.crt")).expect("the gate made a CA");
        let shipped = yaml(Endpoint::Url { base: &format!("https://{address}"), ca: &ca });
        let mut configurations: Vec<Value> = serde_saphyr::from_multiple(&shipped).expect("it is YAML");
        let mut namespaces = vec![self.namespace.as_str()];
        namespaces.extend(others);
        for configuration in &mut configurations {
            configuration["metadata"]["name"] = self.configuration_name().into();
            for webhook in configuration["webhooks"].as_array_mut().expect("there are webhooks") {
                let expressions = webhook["namespaceSelector"]["matchExpressions"].as_array_mut();
                expressions
                    .expect("kube-system is left out")
                    .push(json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces}));
            }
        }
        self.apply_and_wait(&configurations);
    }

    /// The name of both webhook configurations.
    pub(super) fn configuration_name(&self) -> String {
        format!("sealgate-{}", self.namespace)
    }

    /// Applies webhook configurations, and waits until every one is in force. The API server does not say when: a
    /// configuration of the same kind, applied last, with a name that sorts last, refuses a probe.
    pub(super) fn apply_and_wait(&self, configurations: &[Value]) {
        for configuration in configurations {
            self.cluster.apply(&configuration.to_string());
        }
        wait_until("webhook configurations that are in force", || {
            let mutated = self.dry_run("probe", "probe");
            let validated = self.dry_run("probe", "registry.example.com/nobody/trusts:this");
            let mutated = String::from_utf8_lossy(&mutated.stdout).contains("docker.io/");
            (mutated && String::from_utf8_lossy(&validated.stderr).contains("no-policy")).then_some(())
        });
    }

    fn dry_run(&self, name: &str, image: &str) -> Output {
        let arguments = ["run", name, "--image", image, "--dry-run=server", "-o", IMAGES];
        self.try_kubectl(&arguments)
    }

    /// Runs kubectl in the test's namespace; it may fail.
    pub(super) fn try_kubectl(&self, arguments: &[&str]) -> Output {
        self.cluster.try_kubectl(["-n", &self.namespace].iter().chain(arguments))
    }

    /// Runs kubectl in the test's namespace; it has to succeed.
    pub(super) fn kubectl(&self, arguments: &[&str]) -> String {
        succeeded(self.try_kubectl(arguments))
    }

    /// Creates an object in the test's namespace; it may fail.
    pub(super) fn try_create(&self, object: &Value) -> Output {
        let arguments = ["-n", &self.namespace, "create", "-o", IMAGES, "-f", "-"];
        self.cluster.try_kubectl_with(arguments, &object.to_string())
    }

    /// Creates an object; gives the images of its pod as they were stored.
    pub(super) fn create(&self, object: &Value) -> String {
        succeeded(self.try_create(object))
    }

    /// `kubectl run` with this image; gives the image that was stored.
    pub(super) fn run(&self, name: &str, image: &str) -> String {
        succeeded(self.try_run(name, image))
    }

    pub(super) fn try_run(&self, name: &str, image: &str) -> Output {
        self.try_kubectl(&["run", name, "--image", image, "-o", IMAGES])
    }

    /// What the user of `kubectl run` with this image reads; it has to be refused.
    pub(super) fn refused(&self, name: &str, image: &str) -> String {
        failed(&self.try_run(name, image))
    }

    /// The API server's own answer to a pod with this image: status, `Retry-After`, body. kubectl would try again ten times
    /// where that is asked for.
    pub(super) fn post_pod(&self, name: &str, image: &str) -> (u16, Option<String>, Value) {
        self.post(&self.pod(name, image))
    }

    /// The same to this pod.
    pub(super) fn post(&self, pod: &Value) -> (u16, Option<String>, Value) {
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        let pod = pod.to_string();
        self.runtime.block_on(async {
            let answer = self.cluster.post(&path, pod).await;
            let status = answer.status().as_u16();
            let after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(str::to_owned);
            let body = answer.text().await.expect("it is text");
            (status, after, serde_json::from_str(&body).expect("the API server answers JSON"))
        })
    }

    /// `host/path`, as it stands in pods.
    pub(super) fn image(&self, path: &str) -> String {
        format!("{}/{path}", self.host)
    }

    /// Pushes an image that nobody signed; its digest depends on `content`.
    pub(super) fn push(&self, repository: &str, tag: &str, content: &str) -> Pushed {
        self.runtime.block_on(self.registry.push(repository, tag, content))
    }

    /// Pushes an image and signs it with the trusted key; gives `host/repository:tag@digest`.
    pub(super) fn push_signed(&self, repository: &str, tag: &str) -> String {
        self.push_signed_by(&self.release, repository, tag, None)
    }

    /// Pushes an image and signs it through the store, as skopeo does, for this identity or for its own name.
    pub(super) fn push_signed_by(&self, key: &str, repository: &str, tag: &str, identity: Option<&str>) -> String {
        let pushed = self.push(repository, tag, &format!("{repository}:{tag}"));
        self.sign(key, repository, tag, identity);
        self.pinned(repository, tag, &pushed.digest)
    }

    /// Pushes images that the policy does not let run; gives each with the code of its refusal.
    pub(super) fn push_untrusted(&self) -> [(&'static str, &'static str); 5] {
        self.push("acme/unsigned", "1", "nobody signed this");
        self.push_signed_by(&self.stranger, "acme/stranger", "1", None);
        self.push_signed_by(&self.release, "acme/repository", "1", Some(&self.image("acme/other:1")));
        self.push_signed_by(&self.release, "acme/tag", "1", Some(&self.image("acme/tag:2")));
        self.push_signed("acme/moved", "1");
        self.push("acme/moved", "1", "what the tag was moved to");
        [
            ("acme/unsigned:1", "unsigned"),
            ("acme/stranger:1", "untrusted-key"),
            ("acme/repository:1", "wrong-identity"),
            ("acme/tag:1", "wrong-identity"),
            ("acme/moved:1", "unsigned"),
        ]
    }

    pub(super) fn sign(&self, key: &str, repository: &str, tag: &str, identity: Option<&str>) {
        let policy = accept_anything(&self.folder).display().to_string();
        let source = format!("docker://{}/{repository}:{tag}", self.registry.host());
        let target = format!("docker://{}/{repository}:{tag}", self.host);
        let mut arguments = vec!["--policy", &policy, "copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
        arguments.extend(["--sign-by", key]);
        if let Some(identity) = identity {
            arguments.extend(["--sign-identity", identity]);
        }
        arguments.extend([source.as_str(), target.as_str()]);
        let output = skopeo(self.gpg.home(), &arguments);
        assert!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// How the image is written once its digest is verified.
    pub(super) fn pinned(&self, repository: &str, tag: &str, digest: &Digest) -> String {
        format!("{}/{repository}:{tag}@{digest}", self.host)
    }

    /// Replaces the policy, as the kubelet does in a volume of a ConfigMap.
    pub(super) fn write_policy(&self, text: &str) {
        write_policy(&self.folder, &self.versions, text);
    }

    /// The usual policy, with these keys trusted for `acme`: `release`, `stranger`.
    pub(super) fn policy(&self, trusted: &str) -> String {
        policy(&self.host, trusted)
    }

    /// `/metrics`, whole.
    pub(super) fn metrics(&self) -> String {
        self.get(&format!("http://{}/metrics", self.metrics)).1
    }

    /// The sum over every sample of a counter (or whole gauge) that has all of these labels (`kind="manifest"`).
    pub(super) fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        self.metrics()
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|rest| rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label)))
            .filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<u64>().ok())
            .sum()
    }

    /// All reviews that the gate has answered.
    pub(super) fn reviews(&self) -> u64 {
        self.metric("sealgate_reviews_total", &[])
    }

    fn get(&self, url: &str) -> (u16, String) {
        self.runtime.block_on(async {
            let answer = reqwest::get(url).await.expect("it answers");
            (answer.status().as_u16(), answer.text().await.expect("it is text"))
        })
    }

    /// A pod with one container of this image.
    pub(super) fn pod(&self, name: &str, image: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"containers": [{"name": name, "image": image}]},
        })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the store, and the registry behind it.
    pub(super) fn stop_registries(&mut self) {
        self.registry.stop();
        self.store.signal("KILL");
        self.store.wait();
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        // They would only slow down what comes after. Where the test fails anyway, its own message is the one to read.
        for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
            let _ = self.cluster.try_kubectl(["delete", kind, &self.configuration_name()]);
        }
    }
}

/// All images of a pod: containers, init containers, ephemeral containers, volumes.
pub(super) const IMAGES: &str = "jsonpath={.spec.containers[*].image} {.spec.initContainers[*].image} \
    {.spec.ephemeralContainers[*].image} {.spec.volumes[*].image.reference}";

/// `acme` has to be signed; what is `docker.io/library/probe` may run, so that tests see when webhooks are in force.
fn policy(host: &str, trusted: &str) -> String {
    format!(
        "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {{name: cluster}}\nspec:\n  keys:\n    \
         release: {{file: ../release.asc}}\n    stranger: {{file: ../stranger.asc}}\n  rules:\n  \
         - name: acme\n    images: ['{host}/acme']\n    require: [{{signedBy: [{trusted}]}}]\n  \
         - name: probe\n    images: [docker.io/library/probe]\n    allow: {{reason: tests}}\n"
    )
}

/// As the kubelet writes a ConfigMap: a new folder, a link `..data` that is exchanged, and links through it.
fn write_policy(folder: &Scratch, versions: &AtomicU32, text: &str) {
    let version = format!("..version-{}", versions.fetch_add(1, Ordering::Relaxed));
    folder.write(&format!("policies/{version}/cluster.yaml"), text);
    let policies = folder.path().join("policies");
    symlink(&version, policies.join("..data_tmp")).expect("a link can be made");
    std::fs::rename(policies.join("..data_tmp"), policies.join("..data")).expect("a link can be exchanged");
    if !policies.join("cluster.yaml").is_symlink() {
        symlink("..data/cluster.yaml", policies.join("cluster.yaml")).expect("a link can be made");
    }
}

fn start_store(folder: &Scratch, registry: &DockerRegistry) -> (Process, String) {
    let configuration = folder.write(
        "store.yaml",
        format!(
            "apiVersion: sealgate.dev/v1\nkind: Configuration\ngateway:\n  listen: 127.0.0.1:0\n  \
             registry: {{url: '{}'}}\n  store: {{redb: {{file: signatures.redb}}}}\n",
            registry.url()
        ),
    );
    let mut store =
        Process::start(Command::new(env!("CARGO_BIN_EXE_sealgate")).args(["gateway", "--config"]).arg(configuration));
    let host = store.wait_for("its address", |printed| listening(printed, "gateway"));
    (store, host)
}

/// The address in the log line that says where a role listens.
fn listening(printed: &str, role: &str) -> Option<String> {
    let line = printed
        .lines()
        .filter(|line| line.contains("listening"))
        .find(|line| line.replace('"', "").split_whitespace().any(|word| word == format!("role={role}")))?;
    let (_, rest) = line.split_once("address=")?;
    rest.split_whitespace().next().map(|address| address.trim_matches('"').to_owned())
}
