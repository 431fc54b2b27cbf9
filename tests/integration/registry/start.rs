//! What the program says of its registries when it starts.

use std::process::Command;

use crate::support::Scratch;

const POLICY: &str = r"
apiVersion: sealgate.dev/v1
kind: ClusterSealPolicy
metadata: {name: test}
spec:
  rules:
  - {name: test, images: [registry.example.com], allow: {reason: test}}
";

const CONFIGURATION: &str = r"
apiVersion: sealgate.dev/v1
kind: Configuration
policies: policies
registries:
- {scope: open.example.com, insecure: true}
- {scope: closed.example.com}
- {scope: 'lab.example.com:5000/acme', insecure: true}
";

#[test]
fn each_insecure_entry_is_warned_of() {
    let folder = Scratch::new();
    folder.write("policies/policy.yaml", POLICY);
    let configuration = folder.write("sealgate.yaml", CONFIGURATION);
    let mut sealgate = Command::new(env!("CARGO_BIN_EXE_sealgate"));
    sealgate.args(["serve", "--validate", "--config"]).arg(configuration).env_remove("SEALGATE_LOG");
    let output = sealgate.output().expect("it runs");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("insecure: true")).collect();
    let [first, second] = &warnings[..] else { panic!("{log}") };
    assert!(warnings.iter().all(|line| line.contains("WARN")), "{log}");
    assert!(first.contains("lab.example.com:5000/acme") && second.contains("open.example.com"), "{log}");
}
