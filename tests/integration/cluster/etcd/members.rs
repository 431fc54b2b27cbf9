//! Three real members of etcd.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use etcd_client::{Certificate, Client, ConnectOptions, TlsOptions};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use sealgate::{
    configuration::Etcd,
    gateway::store::{ImageLimits, etcd::EtcdStore},
};

use super::{super::apiserver::binaries, wait_for};
use crate::support::{Process, Scratch, free_ports};

/// Three members.
pub(super) struct Members {
    folder: Scratch,
    binary: PathBuf,
    sites: [Site; 3],
    running: [Option<Process>; 3],
    /// The CA of their certificates, where they have any.
    ca: Option<PathBuf>,
    /// Further arguments of each.
    arguments: Vec<String>,
}

/// Where one listens.
pub(super) struct Site {
    pub(super) address: String,
    /// For clients, and for other members.
    pub(super) ports: [u16; 2],
    /// What starts a program there, before its name.
    pub(super) launch: Vec<String>,
}

impl Members {
    /// On loopback.
    pub(super) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(super) async fn start_with(arguments: &[&str]) -> Self {
        static COUNT: AtomicU8 = AtomicU8::new(1);
        // An address of their own, so that nobody takes their ports while they are dead.
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = format!("127.{}.{low}.{}", 128 | high, COUNT.fetch_add(1, Ordering::Relaxed));
        for _ in 0..5 {
            let ports: [u16; 6] = free_ports();
            let site = |number| Site {
                address: address.clone(),
                ports: [ports[number], ports[3 + number]],
                launch: Vec::new(),
            };
            let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
            if let Some(members) = Self::start_at([0, 1, 2].map(site), arguments, None).await {
                return members;
            }
        }
        panic!("no free ports for etcd after five attempts");
    }

    /// None: another program has one of the ports. With a CA, clients speak TLS.
    pub(super) async fn start_at(sites: [Site; 3], arguments: Vec<String>, ca: Option<PathBuf>) -> Option<Self> {
        let mut members = Self {
            folder: Scratch::new(),
            binary: binaries(&["etcd"]).join("etcd"),
            sites,
            running: [None, None, None],
            ca,
            arguments,
        };
        for number in 0..3 {
            members.start_one(number);
        }
        for number in 0..3 {
            while !members.is_healthy(number).await {
                if members.running[number].as_ref().unwrap().printed().contains("address already in use") {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Some(members)
    }

    pub(super) fn start_one(&mut self, number: usize) {
        let peer_of = |site: &Site| format!("http://{}:{}", site.address, site.ports[1]);
        let peers = self.sites.iter().enumerate().map(|(number, site)| format!("m{number}={}", peer_of(site)));
        let peers = peers.collect::<Vec<_>>().join(",");
        let (client, peer) = (self.endpoint(number), peer_of(&self.sites[number]));
        let launch = &self.sites[number].launch;
        let mut command = match launch.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        command
            .args(["--name", &format!("m{number}"), "--logger", "zap", "--log-level", "error", "--data-dir"])
            .arg(self.folder.path().join(format!("m{number}")))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &peers, "--initial-cluster-state", "new"])
            .args(&self.arguments);
        self.running[number] = Some(Process::start(&mut command));
    }

    pub(super) fn endpoint(&self, number: usize) -> String {
        let Site { address, ports: [port, _], .. } = &self.sites[number];
        format!("{}://{address}:{port}", if self.ca.is_some() { "https" } else { "http" })
    }

    async fn is_healthy(&self, number: usize) -> bool {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).danger_accept_invalid_certs(true);
        let client = client.build().unwrap();
        let answer = client.get(format!("{}/health", self.endpoint(number))).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    pub(super) async fn healthy(&self, number: usize) {
        wait_for("a healthy member", async || self.is_healthy(number).await.then_some(())).await;
    }

    /// Which one leads.
    pub(super) async fn leader(&self) -> usize {
        let mut options = ConnectOptions::new();
        if let Some(ca) = &self.ca {
            let ca = Certificate::from_pem(std::fs::read(ca).unwrap());
            options = options.with_tls(TlsOptions::new().ca_certificate(ca));
        }
        wait_for("a leader", async || {
            for number in 0..3 {
                let connected = Client::connect([self.endpoint(number)], Some(options.clone())).await;
                let Ok(mut client) = connected else {
                    continue;
                };
                let status = tokio::time::timeout(Duration::from_secs(2), client.status()).await;
                let Ok(Ok(status)) = status else { continue };
                if status.leader() != 0 && status.header().is_some_and(|header| header.member_id() == status.leader()) {
                    return Some(number);
                }
            }
            None
        })
        .await
    }

    pub(super) fn kill(&mut self, number: usize) {
        self.running[number].take().expect("it runs").kill();
    }

    pub(super) fn signal(&self, number: usize, signal: &str) {
        self.running[number].as_ref().expect("it runs").signal(signal);
    }

    pub(super) fn settings(&self, prefix: &str) -> Etcd {
        let endpoints = (0..3).map(|number| self.endpoint(number).parse().expect("a URL")).collect();
        Etcd { endpoints, prefix: prefix.into(), ca_file: self.ca.clone(), certificate: None, user: None }
    }

    /// A gateway's store.
    pub(super) async fn open(&self, prefix: &str) -> EtcdStore {
        self.open_with(prefix, ImageLimits::default()).await
    }

    pub(super) async fn open_with(&self, prefix: &str, limits: ImageLimits) -> EtcdStore {
        EtcdStore::open(&self.settings(prefix), limits).await.unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A CA with certificates for a server at these addresses and for a client.
pub(super) fn certificates(folder: &Scratch, addresses: &[String]) -> [PathBuf; 5] {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let make = |file: &str, names: &[String]| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        (folder.write(&format!("{file}.crt"), certificate), folder.write(&format!("{file}.key"), key.serialize_pem()))
    };
    let (server, server_key) = make("server", addresses);
    let (client, client_key) = make("client", &["gateway".to_owned()]);
    [folder.write("ca.crt", ca_pem), server, server_key, client, client_key]
}
