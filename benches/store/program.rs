//! The store as it is used, in this process and as a program; and registries.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use sealgate::{files::load_configuration, gateway::Prepared};

use crate::support::Server;

/// Writes the configuration of a store in front of a registry; its file is `signatures.redb` beside it.
pub(crate) fn configuration(folder: &Path, registry: SocketAddr) -> PathBuf {
    let file = folder.join("sealgate.yaml");
    let text = format!(
        "apiVersion: sealgate.dev/v1\nkind: Configuration\ngateway:\n  listen: 127.0.0.1:0\n  registry: {{url: \
         \"http://{registry}\"}}\n  store: {{redb: {{file: signatures.redb}}}}\n"
    );
    fs::write(&file, text).unwrap();
    file
}

/// The store, in this process.
pub(crate) fn gateway(configuration: &Path) -> Server {
    let configuration = load_configuration(configuration).unwrap();
    Server::start(|listener, stopped| async move {
        let settings = configuration.gateway.as_ref().unwrap();
        let prepared = Prepared::new(settings, &configuration.limits).await.unwrap();
        let stop = async move { stopped.await.unwrap_or(()) };
        prepared.serve(listener, None, stop).await.unwrap().await.unwrap();
    })
}

/// A registry that has every image, in memory; and how often it was asked.
pub(crate) fn registry_of_all() -> (Server, Arc<AtomicU64>) {
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    let serve = |listener: TcpListener, stopped: tokio::sync::oneshot::Receiver<()>| async move {
        let server = HttpServer::new(move || {
            let counted = Arc::clone(&counted);
            App::new().default_service(web::to(move |request: HttpRequest| {
                counted.fetch_add(1, Ordering::Relaxed);
                // The digest that is asked for, as registries say it of a manifest that they have.
                let digest = request.path().rsplit('/').next().unwrap_or_default().to_owned();
                async { HttpResponse::Ok().insert_header(("Docker-Content-Digest", digest)).finish() }
            }))
        });
        let server = server.workers(1).tcp_nodelay(true).shutdown_timeout(1);
        let server = server.shutdown_signal(async move { stopped.await.unwrap_or(()) });
        server.listen(listener).unwrap().run().await.unwrap();
    };
    (Server::start(serve), asked)
}

/// A program, ended when dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Program {
    /// Starts it, and waits for the line in which it says where it listens, behind `before`.
    pub(crate) fn start(command: &mut Command, before: &str) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.find_map(|line| {
            let (_, rest) = line.split_once(before)?;
            let end = rest.find(|character: char| !character.is_ascii_digit() && !matches!(character, '.' | ':'));
            rest[..end.unwrap_or(rest.len())].parse().ok()
        });
        // What it says further is of no interest; but it must not wait until somebody reads it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.expect("it says where it listens") }
    }

    /// `sealgate gateway`.
    pub(crate) fn gateway(configuration: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealgate"));
        Self::start(command.args(["gateway", "--config"]).arg(configuration), " address=")
    }

    /// Memory that it has now, and the most that it had, in KiB.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            value.trim().trim_end_matches(" kB").parse().unwrap()
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
