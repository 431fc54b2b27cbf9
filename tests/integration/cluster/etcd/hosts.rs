//! Hosts that have a network of their own each, and a router between them that drops what it is told to.
//!
//! Each host is a network namespace; the test's process is the router, in a namespace of its own. Packets between two hosts
//! that are cut off from each other vanish: connections are neither closed nor refused, they hang.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::support::{Process, run, wait_until};

/// Says that this is the run within.
const INSIDE: &str = "SEALGATE_TEST_INSIDE_NETWORK";

/// Runs a test again, in a network of its own. False: this is that run.
pub(super) fn outside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let may = Command::new("unshare").args(["--net", "true"]).stderr(Stdio::null()).status().unwrap().success();
    let mut command = Command::new("unshare");
    // Where users may make namespaces, nobody needs to be root.
    command.args(if may { &["--net"][..] } else { &["--map-root-user", "--net"] });
    let (_, module) = module_path!().split_once("::").expect("it is in a crate");
    let module = module.rsplit_once("::").expect("it is in a module").0;
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("{module}::network::{test}"), "--nocapture"]).env(INSIDE, "1");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    eprintln!("{stdout}{stderr}");
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "the run in a network of its own failed. Where namespaces can't be made, leave these tests out: cargo test -- --skip \
         cluster::etcd::network"
    );
    true
}

/// A host, for as long as this is there.
pub(super) struct Host {
    device: String,
    network: u8,
    /// Keeps the namespace.
    holder: Process,
}

impl Host {
    pub(super) fn new(network: u8) -> Self {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("packets can be forwarded");
        let holder = Process::start(Command::new("unshare").args(["--net", "sleep", "infinity"]));
        let host = Self { device: format!("host{network}"), network, holder };
        let (own, id) = (fs::read_link("/proc/self/ns/net").unwrap(), host.holder.id());
        wait_until("a namespace", || {
            fs::read_link(format!("/proc/{id}/ns/net")).is_ok_and(|namespace| namespace != own).then_some(())
        });
        let (device, router) = (host.device.as_str(), host.router());
        ip(&["link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", &id.to_string()]);
        ip(&["address", "add", &format!("{router}/24"), "dev", device]);
        ip(&["link", "set", device, "up"]);
        for arguments in [
            &["link", "set", "lo", "up"][..],
            &["address", "add", &format!("{}/24", host.address()), "dev", "eth0"],
            &["link", "set", "eth0", "up"],
            &["route", "add", "default", "via", &router],
        ] {
            let output = host.command("ip").args(arguments).output().unwrap();
            assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        host
    }

    pub(super) fn address(&self) -> String {
        format!("10.99.{}.2", self.network)
    }

    /// The test's own address, as the host sees it.
    pub(super) fn router(&self) -> String {
        format!("10.99.{}.1", self.network)
    }

    /// What starts a program on this host, before its name.
    pub(super) fn launch(&self) -> Vec<String> {
        ["nsenter", "--net", "--target", &self.holder.id().to_string(), "--"].map(str::to_owned).into()
    }

    pub(super) fn command(&self, program: &str) -> Command {
        let launch = self.launch();
        let mut command = Command::new(&launch[0]);
        command.args(&launch[1..]).arg(program);
        command
    }
}

/// No packet gets from one host to some others, or back, until this is dropped.
pub(super) struct Cut {
    rules: Vec<[String; 7]>,
}

impl Cut {
    pub(super) fn off(one: &Host, from: &[Host]) -> Self {
        let others = from.iter().filter(|other| other.network != one.network);
        let rule = |from: &Host, to: &Host| {
            ["iif", &from.device, "to", &to.address(), "priority", "1", "blackhole"].map(str::to_owned)
        };
        let rules: Vec<_> = others.flat_map(|other| [rule(one, other), rule(other, one)]).collect();
        for rule in &rules {
            run("ip", ["rule", "add"].into_iter().chain(rule.iter().map(String::as_str)));
        }
        Self { rules }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        for rule in &self.rules {
            run("ip", ["rule", "delete"].into_iter().chain(rule.iter().map(String::as_str)));
        }
    }
}

fn ip(arguments: &[&str]) {
    run("ip", arguments);
}
