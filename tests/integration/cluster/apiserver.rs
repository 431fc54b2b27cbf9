//! A real Kubernetes control plane without nodes: etcd, kube-apiserver, kube-controller-manager. Pods are stored, and never
//! run.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::{Watchdog, free_ports, run, wait_until};

/// The control plane that all tests of this process share; each has namespaces of its own.
pub(super) struct Cluster {
    binaries: PathBuf,
    folder: PathBuf,
    address: String,
    token: String,
    _watchdog: Watchdog,
}

/// Starts the three programs, and ends them with everything that they wrote when the test process has ended.
const SCRIPT: &str = r#"
cd "$1" || exit 1
"$2/etcd" --data-dir etcd --unsafe-no-fsync --logger zap --log-level warn \
    --listen-client-urls "http://127.0.0.1:$3" --advertise-client-urls "http://127.0.0.1:$3" \
    --listen-peer-urls "http://127.0.0.1:$4" --initial-advertise-peer-urls "http://127.0.0.1:$4" \
    --initial-cluster "default=http://127.0.0.1:$4" >etcd.log 2>&1 &
etcd=$!
"$2/kube-apiserver" --etcd-servers "http://127.0.0.1:$3" --bind-address 127.0.0.1 --secure-port "$5" --cert-dir certs \
    --token-auth-file tokens.csv --authorization-mode Node,RBAC --endpoint-reconciler-type none \
    --disable-admission-plugins ServiceAccount --admission-control-config-file admission.yaml \
    --service-cluster-ip-range 10.0.0.0/24 \
    --service-account-issuer https://kubernetes.default.svc \
    --service-account-key-file sa.key --service-account-signing-key-file sa.key >apiserver.log 2>&1 &
apiserver=$!
(until "$2/kubectl" --kubeconfig kubeconfig get --raw /readyz; do sleep 0.2; done >ready.log 2>&1
exec "$2/kube-controller-manager" --kubeconfig kubeconfig --leader-elect=false --secure-port 0 \
    --controllers deployment-controller,replicaset-controller,garbage-collector-controller,namespace-controller \
    --controllers resourcequota-controller \
    --kube-api-qps 500 --kube-api-burst 500 >controllers.log 2>&1) &
controllers=$!
read -r _
kill -KILL $controllers $apiserver $etcd
wait
rm -rf "$1"
"#;

/// As on GKE: pods of the highest priorities need a quota that says how many of them there may be.
const ADMISSION: &str = "
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ResourceQuota
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ResourceQuotaConfiguration
    limitedResources:
    - resource: pods
      matchScopes:
      - {scopeName: PriorityClass, operator: In, values: [system-node-critical, system-cluster-critical]}
";

/// Whether the API server is there, or why not. Waiting longer than this makes no sense on any machine.
const START: Duration = Duration::from_mins(2);

impl Cluster {
    /// The control plane, started by whoever is first to ask.
    pub(super) fn get() -> &'static Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        CLUSTER.get_or_init(Self::start)
    }

    fn start() -> Self {
        let binaries = binaries(&["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"]);
        for _ in 0..5 {
            if let Some(cluster) = Self::start_on_free_ports(&binaries) {
                return cluster;
            }
        }
        panic!("no free ports for a control plane after five attempts");
    }

    /// None where another program took one of the ports first.
    fn start_on_free_ports(binaries: &Path) -> Option<Self> {
        let folder =
            tempfile::Builder::new().prefix("sgcluster").tempdir().expect("a temporary folder can be made").keep();
        let [client, peer, api] = free_ports();
        let token = random_token();
        write(&folder.join("tokens.csv"), &format!("{token},admin,1,system:masters\n"));
        write(&folder.join("sa.key"), &elliptic_key());
        write(&folder.join("admission.yaml"), ADMISSION);
        let address = format!("https://127.0.0.1:{api}");
        write(&folder.join("kubeconfig"), &kubeconfig(&folder, &address, &token));
        let ports = [client, peer, api].map(|port| port.to_string());
        let arguments = [folder.display().to_string(), binaries.display().to_string()];
        let arguments: Vec<&str> = arguments.iter().chain(&ports).map(String::as_str).collect();
        let cluster = Self {
            address,
            token,
            binaries: binaries.to_owned(),
            folder,
            _watchdog: Watchdog::start(SCRIPT, &arguments),
        };
        let begun = Instant::now();
        loop {
            let ready = cluster.try_kubectl(["get", "--raw", "/readyz"]);
            if ready.status.success() {
                break;
            }
            let log = |name| std::fs::read_to_string(cluster.folder.join(name)).unwrap_or_default();
            let (etcd, apiserver) = (log("etcd.log"), log("apiserver.log"));
            if etcd.contains("address already in use") || apiserver.contains("address already in use") {
                return None;
            }
            assert!(!apiserver.contains("command failed"), "the API server ended:\n{apiserver}");
            assert!(
                begun.elapsed() < START,
                "no API server after {START:?}: {}\n{etcd}\n{apiserver}",
                String::from_utf8_lossy(&ready.stderr)
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        // The namespace controller and the API server's own start-up make this one.
        wait_until("the namespace default", || {
            cluster.try_kubectl(["get", "namespace", "default", "kube-system"]).status.success().then_some(())
        });
        Some(cluster)
    }

    /// Makes a namespace with a name that no other test has.
    pub(super) fn namespace(&self, purpose: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{purpose}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.kubectl(["create", "namespace", &name]);
        name
    }

    /// `https://127.0.0.1:port`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A kubeconfig for whoever has this token; with an address, for whatever passes bytes on from there.
    pub(super) fn kubeconfig(&self, token: &str, address: Option<&str>) -> String {
        kubeconfig(&self.folder, address.unwrap_or(&self.address), token)
    }

    /// Runs kubectl; it has to succeed; gives what it prints.
    pub(super) fn kubectl<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> String {
        succeeded(self.try_kubectl(arguments))
    }

    /// Runs kubectl; it may fail.
    pub(super) fn try_kubectl<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("kubectl can be run")
    }

    /// Runs kubectl with this input (`-f -`); it may fail.
    pub(super) fn try_kubectl_with<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(
        &self,
        arguments: I,
        input: &str,
    ) -> Output {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl can be run");
        // Where it ends before it reads, what it says is of more interest than that.
        let _ = child.stdin.take().expect("stdin is a pipe").write_all(input.as_bytes());
        child.wait_with_output().expect("kubectl ends")
    }

    /// Creates or changes these objects (YAML or JSON).
    pub(super) fn apply(&self, objects: &str) -> String {
        succeeded(self.try_kubectl_with(["apply", "-f", "-"], objects))
    }

    /// Posts JSON to the API server, without what kubectl makes of its answer.
    pub(super) async fn post(&self, path: &str, body: String) -> reqwest::Response {
        let client = reqwest::Client::builder().danger_accept_invalid_certs(true).build().expect("a client");
        let request = client.post(format!("{}{path}", self.address)).bearer_auth(&self.token);
        request.header("content-type", "application/json").body(body).send().await.expect("it answers")
    }

    fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Command {
        let mut command = Command::new(self.binaries.join("kubectl"));
        command.arg("--kubeconfig").arg(self.folder.join("kubeconfig")).args(arguments);
        // Discovery is cached there; the user's own is none of ours.
        command.env("KUBECACHEDIR", self.folder.join("kubectl-cache"));
        command
    }
}

fn kubeconfig(folder: &Path, address: &str, token: &str) -> String {
    let ca = folder.join("certs/apiserver.crt");
    format!(
        "{{apiVersion: v1, kind: Config, current-context: test, \
         clusters: [{{name: test, cluster: {{server: '{address}', certificate-authority: '{}'}}}}], \
         users: [{{name: test, user: {{token: '{token}'}}}}], \
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]}}\n",
        ca.display()
    )
}

/// What it printed; it has to have succeeded.
pub(super) fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "kubectl failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("kubectl prints UTF-8")
}

/// What it printed on stderr; it has to have failed.
pub(super) fn failed(output: &Output) -> String {
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "kubectl succeeded, and should not: {printed}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Where these programs are: `KUBEBUILDER_ASSETS`, or where `make binaries` puts them.
pub(super) fn binaries(programs: &[&str]) -> PathBuf {
    let folder = std::env::var_os("KUBEBUILDER_ASSETS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/.cache/bin"), PathBuf::from);
    for program in programs {
        let path = folder.join(program);
        assert!(
            path.is_file(),
            "there is no {}: run `make binaries` first, or leave these tests out with `cargo test -- --skip cluster::`",
            path.display()
        );
    }
    folder
}

fn random_token() -> String {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("there is randomness");
    bytes.iter().fold(String::new(), |mut token, byte| {
        write!(token, "{byte:02x}").expect("a string can be written to");
        token
    })
}

/// A key for service accounts' tokens, in the SEC 1 form that the API server reads.
fn elliptic_key() -> String {
    let output = run("openssl", ["ecparam", "-genkey", "-name", "prime256v1", "-noout"]);
    String::from_utf8(output.stdout).expect("PEM is text")
}

fn write(path: &Path, content: &str) {
    std::fs::write(path, content).expect("a file can be written");
}
