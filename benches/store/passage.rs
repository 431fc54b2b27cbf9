//! A large blob from a real registry, with and without the store's program between.

use std::{fs, process::Command, time::Instant};

use crate::{
    ROUNDS,
    client::{Random, drop_body},
    folder,
    program::{Program, configuration},
    support::Turns,
};

const MIB: usize = 1 << 20;
const BLOB: usize = if cfg!(debug_assertions) { 64 * MIB } else { 512 * MIB };

pub(crate) fn measure() -> bool {
    let folder = folder();
    let registry = docker_registry(&folder);
    let gateway = Program::gateway(&configuration(folder.path(), registry.address));
    let mut random = Random(1);
    let blob: Vec<u8> = (0..BLOB / 8).flat_map(|_| random.next().to_le_bytes()).collect();
    let path = push(&registry, blob);
    println!("a blob of {} MiB from docker-registry", BLOB / MIB);
    #[allow(clippy::cast_precision_loss)] // Far below 2^52.
    let mib_per_second = |program: &Program| {
        let started = Instant::now();
        let bytes = drop_body(program.address, &path, |_| ());
        bytes as f64 / MIB as f64 / started.elapsed().as_secs_f64()
    };
    for program in [&registry, &gateway] {
        mib_per_second(program);
    }
    let turns = Turns { sides: ["registry", "gateway"], unit: " MiB/s", rounds: ROUNDS, target: 0.9 };
    turns.take(|| mib_per_second(&registry), || mib_per_second(&gateway))
}

fn docker_registry(folder: &tempfile::TempDir) -> Program {
    let (file, data) = (folder.path().join("registry.yml"), folder.path().join("registry"));
    let text = format!(
        "version: 0.1\nlog: {{level: info, formatter: text, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: \
         {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
        data.display()
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new("docker-registry");
    Program::start(command.arg("serve").arg(file).env("OTEL_TRACES_EXPORTER", "none"), "listening on ")
}

/// Pushes a blob to the registry itself; its path.
fn push(registry: &Program, blob: Vec<u8>) -> String {
    let digest = sealgate::image::Digest::sha256(&blob);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::new();
        let begun =
            client.post(format!("http://{}/v2/acme/web/blobs/uploads/", registry.address)).send().await.unwrap();
        let location = begun.headers()["location"].to_str().unwrap();
        let pushed = client.put(format!("{location}&digest={digest}")).body(blob).send().await.unwrap();
        assert_eq!(pushed.status(), 201);
    });
    format!("/v2/acme/web/blobs/{digest}")
}
