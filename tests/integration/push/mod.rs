//! `sealgate push` as its users see it: from skopeo's and hand-made sources into real registries and into one that fails.

mod beside_skopeo;
mod fake;
mod registries;
mod sources;
mod through_store;
mod uploads;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
};

use sealgate::configuration::{Access, Limits, Users};
use sealgate::image::Digest;
use serde_json::Value;

use crate::sign::{Scenario, expired_key, revoked_key};
use crate::support::{
    Answer, DockerRegistry, Gpg, Liar, Proxy, Reply, Scratch, Store, accept_anything, error_of, run,
    sealgate_with_keys, skopeo, wait_until,
};

/// Pushes, and signs with this key.
fn push(gpg: &Gpg, source: &str, image: &str, more: &[&str]) -> Answer {
    let arguments = ["push", "--tls-verify=false", source, image, "--sign-by", "release@example.com"];
    sealgate_with_keys(gpg.home(), &[&arguments, more].concat())
}

fn pushed(gpg: &Gpg, source: &str, image: &str, more: &[&str]) -> Value {
    push(gpg, source, image, &[&["-o", "json"], more].concat()).json(0)
}

/// What became of the blobs, or of the manifests.
fn outcomes(report: &Value, parts: &str) -> Vec<String> {
    let outcome = |part: &Value| part["outcome"].as_str().expect("an outcome").to_owned();
    report[parts].as_array().expect("a list").iter().map(outcome).collect()
}

/// Copies with skopeo, whatever the signatures.
fn copy(folder: &Scratch, gpg: &Gpg, options: &[&str], from: &str, to: &str) {
    let policy = accept_anything(folder).display().to_string();
    let start = ["--policy", &policy, "copy", "--src-tls-verify=false"];
    let output = skopeo(gpg.home(), &[&start, options, &[from, to]].concat());
    assert!(output.status.success(), "{}", error_of(&output));
}

/// Requests that change something in the registry, once it has logged at least `reads` requests that don't.
fn writes(registry: &DockerRegistry, reads: usize) -> usize {
    flush(registry);
    let count = |method: &str| registry.requests(method, "/v2/acme/web");
    wait_until("the registry's log", || (count("GET") + count("HEAD") >= reads).then_some(()));
    ["POST", "PATCH", "PUT", "DELETE"].into_iter().map(count).sum()
}

/// Waits until the registry has logged what it was asked before: a request that comes after all of it is in the log.
fn flush(registry: &DockerRegistry) {
    let path = "/v2/acme/last/tags/list";
    let before = registry.requests("GET", path);
    let mut connection = TcpStream::connect(registry.host()).expect("the registry listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", registry.host());
    connection.write_all(request.as_bytes()).expect("the registry reads");
    connection.read_to_end(&mut Vec::new()).expect("the registry answers");
    wait_until("the last request in the registry's log", || (registry.requests("GET", path) > before).then_some(()));
}

/// An OCI layout made by hand.
struct Layout<'a> {
    folder: &'a Scratch,
    name: &'a str,
}

impl<'a> Layout<'a> {
    fn new(folder: &'a Scratch, name: &'a str) -> Self {
        folder.write(&format!("{name}/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
        Self { folder, name }
    }

    fn source(&self) -> String {
        format!("oci:{}", self.path().display())
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join(self.name)
    }

    fn blob(&self, content: &str) -> Digest {
        let digest = Digest::sha256(content.as_bytes());
        self.folder.write(&format!("{}/blobs/sha256/{}", self.name, digest.hex()), content);
        digest
    }

    /// An image with these layers; gives its manifest.
    fn image(&self, layers: &[&str]) -> (Digest, String) {
        let descriptor = |kind: &str, content: &str| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{}","size":{}}}"#,
                self.blob(content),
                content.len()
            )
        };
        let layers: Vec<String> = layers.iter().map(|layer| descriptor("layer.v1.tar", layer)).collect();
        let config = descriptor("config.v1+json", r#"{"architecture":"amd64","os":"linux"}"#);
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{config},"layers":[{}]}}"#,
            layers.join(",")
        );
        (self.blob(&manifest), manifest)
    }

    fn index(&self, manifests: &[(&Digest, usize)]) {
        let entries: Vec<String> = manifests
            .iter()
            .map(|(digest, size)| {
                format!(
                    r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size}}}"#
                )
            })
            .collect();
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        self.folder.write(&format!("{}/index.json", self.name), index);
    }

    /// A layout with one image.
    fn of(folder: &'a Scratch, name: &'a str, layers: &[&str]) -> (Self, Digest) {
        let layout = Self::new(folder, name);
        let (digest, manifest) = layout.image(layers);
        layout.index(&[(&digest, manifest.len())]);
        (layout, digest)
    }
}

#[tokio::test]
async fn what_skopeo_puts_into_files_is_pushed_signed_and_not_pushed_again() {
    let scenario = Scenario::new();
    let origin = scenario.registry.push("origin/web", "1", "one").await;
    let from = format!("docker://{}/origin/web:1", scenario.registry.host());
    let at = |name: &str| scenario.folder.path().join(name).display().to_string();
    let sources = [
        format!("oci:{}:1", at("layout")),
        format!("oci-archive:{}:1", at("oci.tar")),
        format!("docker-archive:{}:acme/web:1", at("docker.tar")),
    ];
    for (number, source) in sources.iter().enumerate() {
        // Skopeo compresses layers on its way, unless it has a reason not to.
        let options: &[&str] = if source.starts_with("docker") { &[] } else { &["--preserve-digests"] };
        copy(&scenario.folder, &scenario.gpg, options, &from, source);
        let image = scenario.image(&format!("acme/web{number}:1"));
        let report = pushed(&scenario.gpg, source, &image, &[]);
        assert_eq!(outcomes(&report, "blobs"), ["pushed", "pushed"], "{source}");
        assert_eq!(outcomes(&report, "manifests"), ["pushed"], "{source}");
        assert_eq!(report["identity"], image);
        assert_eq!(report["signatures"][0]["outcome"], "signed");
        if !source.starts_with("docker") {
            assert_eq!(report["digest"], origin.digest.to_string());
        }
        scenario.skopeo_takes(&image, &[]).unwrap();

        let path = format!("/v2/acme/web{number}");
        let reads = |registry: &DockerRegistry| registry.requests("GET", &path) + registry.requests("HEAD", &path);
        let (before, sent) = (reads(&scenario.registry), writes(&scenario.registry, 0));
        let again = pushed(&scenario.gpg, source, &image, &[]);
        assert_eq!(outcomes(&again, "blobs"), ["present", "present"], "{source}");
        assert_eq!(outcomes(&again, "manifests"), ["present"], "{source}");
        assert_eq!(again["signatures"][0]["outcome"], "present");
        assert_eq!(again["digest"], report["digest"]);
        // Two blobs are looked for twice, the manifest three times at least.
        wait_until("the registry's log", || (reads(&scenario.registry) >= before + 7).then_some(()));
        assert_eq!(writes(&scenario.registry, 0), sent, "{source}");
    }
}

#[tokio::test]
async fn an_index_is_pushed_and_signed_with_all_its_manifests() {
    let scenario = Scenario::new();
    let images = [
        scenario.registry.push("origin/web", "amd64", "one").await,
        scenario.registry.push("origin/web", "arm64", "two").await,
    ];
    let index = scenario.registry.push_index("origin/web", "1", &[(&images[0], "amd64"), (&images[1], "arm64")]).await;
    let from = format!("docker://{}/origin/web:1", scenario.registry.host());
    let source = format!("oci-archive:{}:1", scenario.folder.path().join("oci.tar").display());
    copy(&scenario.folder, &scenario.gpg, &["--all", "--preserve-digests"], &from, &source);
    let image = scenario.image("acme/web:1");
    let report = pushed(&scenario.gpg, &source, &image, &[]);
    assert_eq!(report["digest"], index.digest.to_string());
    assert_eq!(outcomes(&report, "manifests"), ["pushed", "pushed", "pushed"]);
    assert_eq!(report["signatures"].as_array().unwrap().len(), 3);
    scenario.skopeo_takes(&image, &["--override-os=linux", "--override-arch=arm64"]).unwrap();
    // Under a digest alone there is no tag; under another one than the source's there is nothing to push.
    let repository = scenario.image("acme/other");
    let report = pushed(&scenario.gpg, &source, &format!("{repository}@{}", index.digest), &[]);
    assert_eq!(report["identity"], format!("{repository}@{}", index.digest));
    let wrong = format!("{repository}@{}", images[0].digest);
    push(&scenario.gpg, &source, &wrong, &[]).fails_after_lines(1, "the source is sha256:");
}

#[tokio::test]
async fn blobs_of_another_repository_are_mounted() {
    let scenario = Scenario::new();
    let (layout, _) = Layout::of(&scenario.folder, "layout", &["base", "top"]);
    let store = format!("{}/acme", scenario.store.host());
    pushed(&scenario.gpg, &layout.source(), &format!("{store}/base:1"), &[]);
    let from = format!("{store}/base");
    let report = pushed(&scenario.gpg, &layout.source(), &format!("{store}/web:1"), &["--mount-from", &from]);
    assert_eq!(outcomes(&report, "blobs"), ["mounted", "mounted", "mounted"]);
    scenario.skopeo_takes(&format!("{store}/web:1"), &[]).unwrap();
    // Where there is nothing to mount, it is sent.
    let nowhere = format!("{store}/nothing");
    let (other, _) = Layout::of(&scenario.folder, "other", &["something else"]);
    let report = pushed(&scenario.gpg, &other.source(), &format!("{store}/web:2"), &["--mount-from", &nowhere]);
    assert_eq!(outcomes(&report, "blobs"), ["present", "pushed"]);
    let elsewhere = push(
        &scenario.gpg,
        &layout.source(),
        &format!("{store}/web:1"),
        &["--mount-from", "registry.example.com/acme/base"],
    );
    elsewhere.fails_with(2, "--mount-from registry.example.com/acme/base: blobs are mounted");
}

#[tokio::test]
async fn a_large_layer_comes_through_a_connection_that_breaks() {
    let scenario = Scenario::new();
    let large = "0123456789abcdef".repeat(40 << 16);
    let (layout, _) = Layout::of(&scenario.folder, "layout", &[&large]);
    let signatures = scenario.folder.path().join("signatures").display().to_string();
    // In the middle of a chunk, once in the first and once in the third.
    let proxy = Proxy::start(scenario.registry.host(), &[8 << 20, 36 << 20]);
    let image = format!("{}/acme/web:1", proxy.host());
    let report = pushed(&scenario.gpg, &layout.source(), &image, &["--to", &signatures]);
    assert_eq!(outcomes(&report, "blobs"), ["pushed", "pushed"]);
    assert_eq!(proxy.cuts(), 2);
    let target = Scratch::new();
    let to = format!("dir:{}", target.path().display());
    copy(&scenario.folder, &scenario.gpg, &[], &format!("docker://{}/acme/web:1", scenario.registry.host()), &to);
    let layer = target.path().join(Digest::sha256(large.as_bytes()).hex());
    assert_eq!(fs::read(layer).unwrap(), large.as_bytes());
}

#[tokio::test]
async fn who_may_not_push_gets_a_clear_answer_and_nothing_is_signed() {
    let folder = Scratch::new();
    let gpg = Gpg::new();
    gpg.generate("Release <release@example.com>");
    let htpasswd = folder.write("htpasswd", run("htpasswd", ["-nbB", "robot", "right"]).stdout);
    let configuration = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}", htpasswd.display());
    let registry = DockerRegistry::start_with(&configuration);
    let (layout, _) = Layout::of(&folder, "layout", &["layer"]);
    let image = format!("{}/acme/web:1", registry.host());
    let signatures = folder.path().join("signatures").display().to_string();
    let to = ["--to", signatures.as_str()];
    push(&gpg, &layout.source(), &image, &to).fails_with(1, "credentials are needed (--creds, --authfile");
    let wrong = push(&gpg, &layout.source(), &image, &[&to[..], &["--creds", "robot:wrong"]].concat());
    wrong.fails_with(1, "these credentials do not suffice");
    assert!(!Path::new(&signatures).exists());
    pushed(&gpg, &layout.source(), &image, &[&to[..], &["--creds", "robot:right"]].concat());
}

#[tokio::test]
async fn what_can_not_be_signed_is_not_pushed() {
    let scenario = Scenario::new();
    let (layout, _) = Layout::of(&scenario.folder, "layout", &["layer"]);
    let source = layout.source();
    let image = scenario.image("acme/web:1");
    let sign_by = |key: &str| {
        sealgate_with_keys(scenario.gpg.home(), &["push", "--tls-verify=false", &source, &image, "--sign-by", key])
    };
    sign_by("nobody@example.com").fails_with(1, "no key of nobody@example.com");
    sign_by("DEADBEEF").fails_with(2, "short key ID");
    sign_by(expired_key(&scenario.gpg)).fails_with(1, "expired at 2020-12-31");
    sign_by(&revoked_key(&scenario.gpg)).fails_with(1, "is revoked");
    // The registry itself has no extension for signatures.
    let bare = format!("{}/acme/web:1", scenario.registry.host());
    push(&scenario.gpg, &source, &bare, &[]).fails_with(1, "does not announce a signature extension");
    push(&scenario.gpg, &source, "127.0.0.1:1/acme/web:1", &[]).fails_with(3, "127.0.0.1:1");
    assert_eq!(writes(&scenario.registry, 0), 0);
}

#[tokio::test]
async fn who_may_push_and_not_sign_pushes_nothing() {
    let folder = Scratch::new();
    let gpg = Gpg::new();
    gpg.generate("Release <release@example.com>");
    let registry = DockerRegistry::start();
    let htpasswd = folder.write("htpasswd", run("htpasswd", ["-nbB", "-C4", "dev", "dev"]).stdout);
    let roles = |roles: &str| {
        folder.write("roles.yaml", format!("apiVersion: sealgate.dev/v1\nkind: StoreRoles\nroles: [{roles}]\n"))
    };
    let store = |roles| {
        let users = Users::Htpasswd { file: htpasswd.clone(), roles };
        let access = Access { users, token_key: None };
        Store::start_set(&registry.url(), &Limits::default(), |settings| settings.access = Some(access))
    };
    let (layout, _) = Layout::of(&folder, "layout", &["layer"]);
    let creds = ["--creds", "dev:dev"];
    let image = |store: &Store| format!("{}/acme/web:1", store.host());
    let other = store(roles("{role: 'system:image-signer', users: [dev], repositories: [other]}"));
    let denied = push(&gpg, &layout.source(), &image(&other), &creds);
    denied.fails_with(1, "/acme/web/signatures/ answers 403: these credentials do not suffice: dev may");
    assert!(denied.stderr.contains("(nothing is pushed)"), "{}", denied.stderr);
    let nobody = push(&gpg, &layout.source(), &image(&other), &[]);
    nobody.fails_with(1, "answers 401: credentials are needed (--creds, --authfile");
    // Whatever else would keep it from being signed, here a store without TLS that nobody said may be asked like this.
    let bare = format!("{}/acme/web:1", registry.host());
    let to = push(&gpg, &layout.source(), &bare, &["--to", &other.url()]);
    to.fails_with(3, "its token realm is not https (nothing is pushed)");
    assert_eq!(writes(&registry, 0), 0);
    let signers = store(roles("{role: 'system:image-signer', users: [dev], repositories: [acme]}"));
    pushed(&gpg, &layout.source(), &image(&signers), &creds);
}

#[test]
fn an_extension_that_does_not_know_the_question_is_no_reason_not_to_push() {
    let scenario = Scenario::new();
    let (layout, _) = Layout::of(&scenario.folder, "layout", &["layer"]);
    for (number, reply) in [
        Reply::empty(405),
        Reply::empty(404),
        Reply::new(403, &[], "<html>this method is not allowed</html>"),
        Reply::new(401, &[("www-authenticate", "Basic realm=\"x\"")], ""),
    ]
    .into_iter()
    .enumerate()
    {
        let store = Liar::start(move |asked| match asked.method.as_str() {
            "OPTIONS" => reply.clone(),
            "PUT" => Reply::empty(201),
            _ => Reply::new(200, &[], r#"{"signatures":[]}"#),
        });
        let image = format!("{}/acme/web{number}:1", scenario.registry.host());
        pushed(&scenario.gpg, &layout.source(), &image, &["--to", &format!("http://{}", store.host())]);
    }
}

#[test]
fn a_line_a_blob_says_what_became_of_it_where_nobody_watches() {
    let scenario = Scenario::new();
    let (layout, digest) = Layout::of(&scenario.folder, "layout", &["layer"]);
    let image = scenario.image("acme/web:1");
    let output = push(&scenario.gpg, &layout.source(), &image, &[]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    let layer = Digest::sha256(b"layer").to_string();
    let lines = &output.stderr;
    assert!(lines.contains(&format!("{} pushed (5 B)", &layer[..19])), "{lines}");
    assert!(!lines.contains('\u{1b}'), "{lines}");
    let text = &output.stdout;
    assert!(text.starts_with(&format!("pushed {}\n", layout.source())), "{text}");
    assert!(text.contains("3 sent, 0 mounted, 0 there already") && text.contains(&digest.to_string()), "{text}");
}

#[test]
fn an_image_that_is_pushed_and_not_signed_is_signed_by_the_command_in_the_message() {
    let scenario = Scenario::new();
    let (layout, digest) = Layout::of(&scenario.folder, "layout", &["layer"]);
    let image = scenario.image("acme/web:1");
    let output = push(&scenario.gpg, &layout.source(), &image, &["--to", "/dev/null/tree", "--renew"]);
    let command = format!(
        "the image is pushed; sign it with: sealgate sign {}@{digest} --sign-identity {image} --sign-by 0x{} \
         --to /dev/null/tree --renew --tls-verify=false",
        scenario.image("acme/web"),
        scenario.key
    );
    assert!(output.status != 0 && output.stderr.contains(&command), "{}", output.stderr);
}
