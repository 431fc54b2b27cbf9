//! The real Docker registry (Debian's docker-registry), on a port of its own.

use std::{path::Path, process::Command};

use sealgate::image::Digest;

use super::{Process, Scratch};

/// A running registry over plain HTTP, empty at first.
pub(crate) struct DockerRegistry {
    process: Process,
    folder: Scratch,
    address: String,
}

/// An image that was pushed.
#[derive(Clone, Debug)]
pub(crate) struct Pushed {
    pub(crate) digest: Digest,
    pub(crate) manifest: Vec<u8>,
    pub(crate) media_type: &'static str,
}

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl DockerRegistry {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// Starts it with further configuration (top-level YAML, for example `auth:`).
    pub(crate) fn start_with(configuration: &str) -> Self {
        let folder = Scratch::new();
        let (process, address) = start(&folder, "127.0.0.1:0", configuration);
        Self { process, folder, address }
    }

    /// Ends it with SIGKILL; what was pushed stays in its folder.
    pub(crate) fn stop(&mut self) {
        self.process.signal("KILL");
        self.process.wait();
    }

    /// Starts it again, once stopped, at the same address, with what was pushed before and further configuration.
    pub(crate) fn restart_with(&mut self, configuration: &str) {
        let (process, address) = start(&self.folder, &self.address, configuration);
        self.process = process;
        self.address = address;
    }

    /// The same, over TLS from now on (HTTP/2 for those who offer it). What pushes here needs it without.
    pub(crate) fn restart_with_tls(&mut self, certificate: &Path, key: &Path) {
        let tls = [("REGISTRY_HTTP_TLS_CERTIFICATE", certificate), ("REGISTRY_HTTP_TLS_KEY", key)];
        let (process, address) = start_with_environment(&self.folder, &self.address, "", &tls);
        self.process = process;
        self.address = address;
    }

    /// `127.0.0.1:port`, as it stands in image references.
    pub(crate) fn host(&self) -> &str {
        &self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it has logged: a line a request, and more.
    pub(crate) fn log(&self) -> String {
        self.process.printed()
    }

    /// How many requests it has answered that have this method and this text in their path.
    pub(crate) fn requests(&self, method: &str, path: &str) -> usize {
        let method = format!("http.request.method={method} ");
        self.log()
            .lines()
            .filter(|line| line.contains("response completed") && line.contains(&method))
            .filter(|line| line.split("http.request.uri=").nth(1).is_some_and(|uri| uri.contains(path)))
            .count()
    }

    /// Pushes a small image whose digest depends on `content`.
    pub(crate) async fn push(&self, repository: &str, tag: &str, content: &str) -> Pushed {
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Labels":{{"content":"{content}"}}}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            Digest::sha256(content.as_bytes())
        );
        let config_digest = self.push_blob(repository, config.as_bytes()).await;
        // A gzip of nothing would do for a puller; the tests that run images through skopeo copy it as it is.
        let layer = content.as_bytes();
        let layer_digest = self.push_blob(repository, layer).await;
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config_digest}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer_digest}","size":{}}}]}}"#,
            config.len(),
            layer.len()
        );
        self.push_manifest(repository, tag, IMAGE, manifest.into_bytes()).await
    }

    /// Pushes an index of images that are there already.
    pub(crate) async fn push_index(&self, repository: &str, tag: &str, images: &[(&Pushed, &str)]) -> Pushed {
        let entries: Vec<String> = images
            .iter()
            .map(|(image, architecture)| {
                format!(
                    r#"{{"mediaType":"{}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
                    image.media_type,
                    image.digest,
                    image.manifest.len()
                )
            })
            .collect();
        let index = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, entries.join(","));
        self.push_manifest(repository, tag, INDEX, index.into_bytes()).await
    }

    /// Pushes any manifest.
    pub(crate) async fn push_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &'static str,
        manifest: Vec<u8>,
    ) -> Pushed {
        let digest = Digest::sha256(&manifest);
        let answer = reqwest::Client::new()
            .put(format!("{}/v2/{repository}/manifests/{tag}", self.url()))
            .header("content-type", media_type)
            .body(manifest.clone())
            .send()
            .await
            .expect("the registry answers");
        assert!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await.unwrap_or_default());
        Pushed { digest, manifest, media_type }
    }

    async fn push_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let client = reqwest::Client::new();
        let digest = Digest::sha256(content);
        let begun =
            client.post(format!("{}/v2/{repository}/blobs/uploads/", self.url())).send().await.expect("it answers");
        let location = begun.headers()["location"].to_str().expect("a URL").to_owned();
        let joint = if location.contains('?') { '&' } else { '?' };
        let done = client
            .put(format!("{location}{joint}digest={digest}"))
            .header("content-type", "application/octet-stream")
            .body(content.to_vec())
            .send()
            .await
            .expect("it answers");
        assert!(done.status().is_success(), "{}", done.status());
        digest
    }
}

fn start(folder: &Scratch, address: &str, configuration: &str) -> (Process, String) {
    start_with_environment(folder, address, configuration, &[])
}

fn start_with_environment(
    folder: &Scratch,
    address: &str,
    configuration: &str,
    environment: &[(&str, &Path)],
) -> (Process, String) {
    let data = folder.path().join("data");
    let file = folder.write(
        "registry.yml",
        format!(
            "version: 0.1\nlog: {{level: info, formatter: text, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: '{address}'}}\n{configuration}",
            data.display()
        ),
    );
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(file).env("OTEL_TRACES_EXPORTER", "none").envs(environment.iter().copied());
    let mut process = Process::start(&mut command);
    let address = process.wait_for("its address", |printed| {
        let (_, rest) = printed.split_once("listening on ")?;
        let end = rest.find(|character: char| !character.is_ascii_digit() && !matches!(character, '.' | ':'))?;
        Some(rest[..end].to_owned())
    });
    (process, address)
}
