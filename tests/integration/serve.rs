//! `sealgate serve`, the whole program: how it starts, why it does not, and how it ends.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use jiff::Timestamp;
use sealgate::{configuration::Certificate, tls::ServerTls};
use serde_json::Value;

use crate::support::{Process, Scratch, free_ports, review, run, wait_until};

const POLICY: &str = "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {name: cluster}\nspec:\n  rules:\n  \
    - {name: all, images: [registry.example.com/acme], allow: {reason: tests}}\n";
const ANY_PORT: &str =
    "webhook: {listen: '127.0.0.1:0'}\nmetrics: {listen: '127.0.0.1:0'}\nhealth: {listen: '127.0.0.1:0'}\n";

/// A folder with a policy and this configuration beside it.
fn folder(settings: &str) -> Scratch {
    let folder = Scratch::new();
    folder.write("policies/cluster.yaml", POLICY);
    configure(&folder, &format!("policies: policies\n{settings}"));
    folder
}

fn configure(folder: &Scratch, settings: &str) {
    folder.write("sealgate.yaml", format!("apiVersion: sealgate.dev/v1\nkind: Configuration\n{settings}"));
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealgate"));
    command.args(["serve", "--config"]).arg(folder.join("sealgate.yaml"));
    command
}

/// A gate that runs.
struct Gate {
    process: Process,
    address: String,
    metrics: String,
    health: String,
}

impl Gate {
    fn start(folder: &Scratch) -> Self {
        let mut process = Process::start(&mut command(folder.path()));
        let address = process.wait_for("the gate's address", |printed| listening(printed, "gate"));
        let metrics = process.wait_for("the address of metrics", |printed| listening(printed, "metrics"));
        let health = process.wait_for("the address of health", |printed| listening(printed, "health"));
        Self { process, address, metrics, health }
    }

    async fn readiness(&self) -> u16 {
        let answer = reqwest::get(format!("http://{}/readyz", self.health)).await;
        answer.expect("it answers").status().as_u16()
    }

    /// What it says to a pod with this image, as one who trusts the CA in this folder hears it.
    async fn says(&self, folder: &Scratch, image: &str) -> Value {
        let ca = std::fs::read(folder.path().join("certs/ca.crt")).expect("the gate made a CA");
        let ca = reqwest::Certificate::from_pem(&ca).expect("it is one");
        let client = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().build().expect("a client");
        let request =
            client.post(format!("https://{}/validate", self.address)).body(review(&[("web", image)]).to_string());
        let answer = request.header("content-type", "application/json").send().await.expect("it answers");
        serde_json::from_slice(&answer.bytes().await.expect("it has a body")).expect("it is JSON")
    }
}

fn listening(printed: &str, role: &str) -> Option<String> {
    let line = printed.lines().find(|line| line.contains("listening") && line.contains(&format!("role=\"{role}\"")))?;
    Some(line.split_once("address=")?.1.split_whitespace().next()?.to_owned())
}

/// Runs a gate that must not start; gives the one line with which it says why.
fn refuses_to_start(folder: &Scratch, arguments: &[&str]) -> String {
    let output = command(folder.path()).args(arguments).stdin(Stdio::null()).output().expect("it can be started");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty(), "{stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert!(errors.len() == 1 && errors[0].starts_with("error: "), "one line: {stderr}");
    errors[0].to_owned()
}

/// The same, of what also `--validate` has to find.
fn is_not_valid(folder: &Scratch) -> String {
    let said = refuses_to_start(folder, &[]);
    assert_eq!(refuses_to_start(folder, &["--validate"]), said);
    said
}

#[test]
fn servers_raise_the_soft_limit_of_descriptors_to_the_hard_one() {
    let [registry] = free_ports();
    for (role, settings) in [
        ("gate", format!("policies: policies\n{ANY_PORT}")),
        (
            "gateway",
            format!(
                "gateway:\n  listen: 127.0.0.1:0\n  store: {{redb: {{file: data/signatures.redb}}}}\n  registry: {{url: \
                 'http://127.0.0.1:{registry}'}}\n"
            ),
        ),
    ] {
        let folder = folder("");
        configure(&folder, &settings);
        let subcommand = if role == "gate" { "serve" } else { "gateway" };
        let mut command = Command::new("prlimit");
        command.args(["--nofile=64:700", env!("CARGO_BIN_EXE_sealgate"), subcommand, "--config"]);
        let mut process = Process::start(command.arg(folder.path().join("sealgate.yaml")));
        process.wait_for("its address", |printed| listening(printed, role));
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).expect("it runs");
        let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit of open files");
        assert_eq!(line.split_whitespace().nth(3), Some("700"), "{line}");
        let logged = process.printed();
        assert!(logged.contains("limit of file descriptors limit=700 was=64"), "{logged}");
    }
}

#[tokio::test]
async fn health_has_a_listener_of_its_own_or_is_beside_metrics() {
    let own = folder(ANY_PORT);
    let beside = folder("webhook: {listen: '127.0.0.1:0'}\nmetrics: {listen: '127.0.0.1:0'}\n");
    for (folder, roles) in [(&own, ["metrics", "health"]), (&beside, ["metrics", "metrics"])] {
        let mut process = Process::start(&mut command(folder.path()));
        let [metrics, health] = roles.map(|role| process.wait_for("an address", |printed| listening(printed, role)));
        process.wait_for("the gate", |printed| listening(printed, "gate"));
        let status = async |address: &str, path: &str| {
            reqwest::get(format!("http://{address}/{path}")).await.expect("it answers").status().as_u16()
        };
        assert_eq!(status(&metrics, "metrics").await, 200);
        for path in ["healthz", "readyz"] {
            assert_eq!(status(&health, path).await, 200);
            assert_eq!(status(&metrics, path).await, if metrics == health { 200 } else { 404 });
        }
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_its_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound");
    for setting in ["webhook", "metrics", "health"] {
        let settings = ["webhook", "metrics", "health"].map(|name| {
            let listen = if name == setting { address.to_string() } else { "127.0.0.1:0".into() };
            format!("{name}: {{listen: '{listen}'}}\n")
        });
        let folder = folder(&settings.concat());
        let said = refuses_to_start(&folder, &[]);
        assert!(said.contains(&format!("{setting}.listen {address}: Address already in use")), "{said}");
    }
}

#[test]
fn files_that_are_no_certificate_pair_are_named() {
    let pair = "webhook: {listen: '127.0.0.1:0', certificate: {file: tls.crt, key: tls.key}}\n";
    let folder = folder(pair);
    let said = is_not_valid(&folder);
    assert!(said.contains("tls.crt") && said.contains("No such file"), "{said}");
    let made = |name: &str| {
        let path = folder.path().join(name);
        ServerTls::load(&Certificate::Made { folder: path.clone() }, None, &[], Timestamp::now()).expect("it is made");
        path
    };
    let (one, two) = (made("one"), made("two"));
    std::fs::copy(one.join("tls.crt"), folder.path().join("tls.crt")).expect("a file can be copied");
    std::fs::copy(two.join("tls.key"), folder.path().join("tls.key")).expect("a file can be copied");
    let said = is_not_valid(&folder);
    assert!(said.contains("tls.key do not belong together"), "{said}");
    folder.write("tls.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let said = is_not_valid(&folder);
    assert!(said.contains("tls.key: not a usable private key"), "{said}");
}

#[test]
fn without_a_policy_there_is_no_gate() {
    let folder = folder(ANY_PORT);
    let policies = folder.path().join("policies");
    std::fs::remove_file(policies.join("cluster.yaml")).expect("it is there");
    folder.write("policies/README.md", "Nothing here yet.\n");
    let said = is_not_valid(&folder);
    assert!(said.contains(&format!("{}: the folder has no policy file", policies.display())), "{said}");

    std::fs::remove_dir_all(&policies).expect("it is there");
    let said = is_not_valid(&folder);
    assert!(said.contains(&format!("{}: there is no such file", policies.display())), "{said}");

    configure(&folder, ANY_PORT);
    let said = is_not_valid(&folder);
    assert!(said.contains("the configuration has no `policies`"), "{said}");
}

#[test]
fn a_mistake_in_a_file_is_shown_where_it_stands() {
    let folder = folder(ANY_PORT);
    folder.write("policies/cluster.yaml", POLICY.replace("allow", "alow"));
    let output = command(folder.path()).stdin(Stdio::null()).output().expect("it can be started");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("cluster.yaml:6:") && stderr.contains("did you mean") && stderr.contains("^^^^"),
        "{stderr}"
    );
    configure(&folder, "policy: policies\n");
    let output = command(folder.path()).stdin(Stdio::null()).output().expect("it can be started");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("sealgate.yaml:3:1") && stderr.contains("policies"), "{stderr}");
}

#[test]
fn validate_ends_with_0_and_takes_no_port() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound");
    let folder = folder(&format!("webhook: {{listen: '{address}'}}\n"));
    let output = command(folder.path()).arg("--validate").stdin(Stdio::null()).output().expect("it can be started");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test]
async fn once_it_listens_it_is_ready_whatever_the_registries_are() {
    // Nobody listens at port 1.
    let registries = "registries: [{scope: registry.example.com, mirrors: ['127.0.0.1:1'], insecure: true}]\n";
    let folder = folder(&format!("{ANY_PORT}{registries}"));
    let gate = Gate::start(&folder);
    assert_eq!(gate.readiness().await, 200);
    let answer = gate.says(&folder, "registry.example.com/acme/web:1").await;
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
}

/// The soft limit of descriptors is lowered to what the gate has open: every connection and every file fails with EMFILE.
#[tokio::test]
async fn a_rule_that_was_removed_takes_effect_while_no_descriptor_is_left() {
    let folder = folder(ANY_PORT);
    let gate = Gate::start(&folder);
    let image = "registry.example.com/acme/web:1";
    assert_eq!(gate.says(&folder, image).await["response"]["allowed"], true);
    let open = || -> BTreeSet<u32> {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", gate.process.id())).expect("it runs");
        descriptors.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    };
    let limit = |soft: &str| run("prlimit", [format!("--pid={}", gate.process.id()), format!("--nofile={soft}:")]);
    let before = std::fs::read_to_string(format!("/proc/{}/limits", gate.process.id())).expect("it runs");
    let before = before.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
    let before = before.split_whitespace().next().expect("a soft limit");
    // The watcher may have a file open at this moment, whose number is free again in the next.
    let lowest_free = (0..100).map(|_| (0..=u32::MAX).find(|number| !open().contains(number)).expect("a number")).min();
    limit(&lowest_free.expect("many looks").to_string());
    let idle: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(&gate.address).expect("a backlog")).collect();
    for version in 1..=3 {
        folder.write(
            "policies/cluster.yaml",
            POLICY.replace("registry.example.com/acme", &format!("v{version}.example.com")),
        );
        let in_force = format!("generation={}", version + 1);
        wait_until("the changed policy is in force", || {
            let printed = gate.process.printed();
            printed.lines().any(|line| line.contains("in force") && line.contains(&in_force)).then_some(())
        });
    }
    limit(before);
    drop(idle);
    let answer = gate.says(&folder, image).await;
    assert!(answer["response"]["status"]["message"].as_str().unwrap_or_default().contains("[no-policy]"), "{answer}");
}

#[tokio::test]
async fn a_policy_that_can_not_be_loaded_decides_nothing_after_policy_max_stale() {
    let folder = folder(ANY_PORT);
    configure(&folder, &format!("policies: policies\npolicyMaxStale: 10s\n{ANY_PORT}"));
    let gate = Gate::start(&folder);
    let image = "registry.example.com/acme/web:1";
    let until = async |what: &str, holds: &dyn Fn(&Value) -> bool| {
        let begun = std::time::Instant::now();
        loop {
            let answer = gate.says(&folder, image).await;
            if holds(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < std::time::Duration::from_mins(1), "{what} did not come: {answer}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let metrics = async || {
        let answer = reqwest::get(format!("http://{}/metrics", gate.metrics)).await.expect("it answers");
        answer.text().await.expect("metrics")
    };
    let allowed = |answer: &Value| answer["response"]["allowed"] == true;
    let unavailable = |answer: &Value| {
        let message = answer["response"]["status"]["message"].as_str().unwrap_or_default();
        message.contains("refused [policy-unavailable]") && answer["response"]["status"]["code"] == 503
    };
    let policies = folder.path().join("policies");
    for spoil in [0, 1] {
        until("a decision", &allowed).await;
        if spoil == 0 {
            std::fs::rename(&policies, folder.path().join("elsewhere")).expect("a lost volume");
        } else {
            folder.write("policies/cluster.yaml", POLICY.replace("allow", "alow"));
        }
        let answer = until("policy-unavailable", &unavailable).await;
        assert_eq!(answer["response"]["status"]["details"]["retryAfterSeconds"], 3, "{answer}");
        assert_eq!(gate.readiness().await, 200, "without endpoints, failurePolicy: Ignore would let everything in");
        let states = ["sealgate_policy_unavailable 1".to_owned(), format!("sealgate_policy_readable {spoil}")];
        let begun = std::time::Instant::now();
        loop {
            let text = metrics().await;
            assert!(text.contains("code=\"policy-unavailable\",mode=\"enforce\""), "{text}");
            if states.iter().all(|state| text.contains(state)) {
                break;
            }
            assert!(begun.elapsed() < std::time::Duration::from_mins(1), "{states:?} did not come: {text}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        if spoil == 0 {
            std::fs::rename(folder.path().join("elsewhere"), &policies).expect("it is back");
        } else {
            folder.write("policies/cluster.yaml", POLICY);
        }
    }
    until("a decision", &allowed).await;
}

#[tokio::test]
async fn a_gate_that_is_told_to_end_first_says_so_and_still_answers() {
    let folder = folder(ANY_PORT);
    let mut gate = Gate::start(&folder);
    assert_eq!(gate.readiness().await, 200);
    gate.process.signal("TERM");
    gate.process.wait_for("that it was told", |printed| printed.contains("shutdown requested").then_some(()));
    assert_eq!(gate.readiness().await, 503);
    let answer = gate.says(&folder, "registry.example.com/other:1").await;
    assert_eq!(answer["response"]["status"]["code"], 403, "{answer}");
    // Who does not want to wait says it again.
    gate.process.signal("TERM");
    assert_eq!(gate.process.wait().code(), Some(0), "{}", gate.process.printed());
}

#[tokio::test]
async fn ctrl_c_ends_it_at_once_and_in_good_order() {
    let mut gate = Gate::start(&folder(ANY_PORT));
    gate.process.signal("INT");
    assert_eq!(gate.process.wait().code(), Some(0), "{}", gate.process.printed());
    assert!(!gate.process.printed().contains("shutdown requested"), "{}", gate.process.printed());
}

#[tokio::test]
async fn a_second_gate_shares_the_certificate_and_not_the_port() {
    let folder = folder(ANY_PORT);
    let first = Gate::start(&folder);
    let second = Gate::start(&folder);
    for gate in [&first, &second] {
        let answer = gate.says(&folder, "registry.example.com/acme/web:1").await;
        assert_eq!(answer["response"]["allowed"], true, "{answer}");
    }
    drop(second);
    configure(&folder, &format!("policies: policies\n{}", ANY_PORT.replacen("127.0.0.1:0", &first.address, 1)));
    let said = refuses_to_start(&folder, &[]);
    assert!(said.contains(&format!("webhook.listen {}", first.address)) && said.contains("another Sealgate"), "{said}");
    assert_eq!(first.says(&folder, "registry.example.com/acme/web:1").await["response"]["allowed"], true);
}
