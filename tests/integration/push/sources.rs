//! Sources made by hand: odd ones that are good, and bad ones, of which nothing is pushed.

use std::{io::Write as _, os::unix::fs::symlink, process::Command};

use flate2::{Compression, write::GzEncoder};
use sealgate::image::{Digest, digest::Algorithm};
use tar::{Builder, EntryType, Header};

use super::{Layout, flush, outcomes, push, pushed, writes};
use crate::sign::Scenario;
use crate::support::{Answer, SEALGATE};

/// A docker-archive.
struct Archive(Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn file(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, name, content).expect("memory");
        self
    }

    fn link(mut self, name: &str, target: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        self.0.append_link(&mut header, name, target).expect("memory");
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("memory")
    }
}

fn config(layers: &[&[u8]]) -> (String, String) {
    let ids: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", Digest::sha256(layer))).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    );
    (format!("{}.json", Digest::sha256(config.as_bytes()).hex()), config)
}

fn manifest(config: &str, layers: &[&str]) -> String {
    serde_json::json!([{"Config": config, "RepoTags": ["acme/web:1"], "Layers": layers}]).to_string()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn a_folder_that_can_not_keep_compressed_layers_is_named_and_not_the_source() {
    let scenario = Scenario::new();
    let (name, json) = config(&[b"layer"]);
    let archive = Archive::new().file("manifest.json", manifest(&name, &["layer.tar"]));
    let archive = archive.file(&name, json).file("layer.tar", "layer");
    let file = scenario.folder.write("web.tar", archive.bytes()).display().to_string();
    let output = Answer::of(
        Command::new(SEALGATE)
            .args([
                "push",
                &format!("docker-archive:{file}"),
                &scenario.image("acme/web:1"),
                "--sign-by",
                &scenario.key,
            ])
            .arg("--tls-verify=false")
            .env("GNUPGHOME", scenario.gpg.home())
            .env("TMPDIR", "/nonexistent"),
    );
    output.fails_with(3, "/nonexistent: layers can't be kept here while they are compressed: No such file");
    output.fails_with(3, "TMPDIR names another folder");
}

#[test]
fn every_form_of_docker_save_is_understood() {
    let scenario = Scenario::new();
    let push = |number: usize, archive: Archive| {
        let file = scenario.folder.write(&format!("{number}.tar"), archive.bytes());
        let image = scenario.image(&format!("acme/form{number}:1"));
        let report = pushed(&scenario.gpg, &format!("docker-archive:{}", file.display()), &image, &[]);
        scenario.skopeo_takes(&image, &[]).unwrap();
        report
    };
    // Docker until 24: a folder a layer, one that is there already as a link.
    let (name, text) = config(&[b"one", b"two", b"one"]);
    let old = push(
        1,
        Archive::new()
            .file("aa/layer.tar", "one")
            .file("bb/layer.tar", "two")
            .link("cc/layer.tar", "../aa/layer.tar")
            .file(&name, &text)
            .file("manifest.json", manifest(&name, &["aa/layer.tar", "bb/layer.tar", "cc/layer.tar"])),
    );
    assert_eq!(outcomes(&old, "blobs").len(), 3, "a layer that is there twice is pushed once");
    // Docker since 25: an OCI layout as well, layers as blobs. The image is the same.
    let blob = |content: &[u8]| format!("blobs/sha256/{}", Digest::sha256(content).hex());
    let config_blob = blob(text.as_bytes());
    let layers = [blob(b"one"), blob(b"two"), blob(b"one")];
    let new = push(
        2,
        Archive::new()
            .file(&layers[0], "one")
            .file(&layers[1], "two")
            .file(&config_blob, &text)
            .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("manifest.json", manifest(&config_blob, &[&layers[0], &layers[1], &layers[2]])),
    );
    assert_eq!(new["digest"], old["digest"]);
    // Docker with containerd's store: layers are compressed already, and stay as they are.
    let compressed = gzip(b"one");
    let (name, text) = config(&[b"one"]);
    let containerd = push(
        3,
        Archive::new()
            .file("blobs/one", &compressed)
            .file(&name, &text)
            .file("manifest.json", manifest(&name, &["blobs/one"])),
    );
    assert_eq!(containerd["blobs"][1]["digest"], Digest::sha256(&compressed).to_string());
}

#[test]
fn an_image_is_chosen_by_its_name_where_there_are_several() {
    let scenario = Scenario::new();
    let ((one, one_text), (two, two_text)) = (config(&[b"one"]), config(&[b"two"]));
    let list = serde_json::json!([
        {"Config": one, "RepoTags": ["acme/web:1", "localhost/web:latest"], "Layers": ["one.tar"]},
        {"Config": two, "RepoTags": null, "Layers": ["two.tar"]},
    ]);
    let archive = Archive::new()
        .file("one.tar", "one")
        .file("two.tar", "two")
        .file(&one, one_text)
        .file(&two, two_text)
        .file("manifest.json", list.to_string());
    let file = scenario.folder.write("several.tar", archive.bytes()).display().to_string();
    let image = scenario.image("acme/web:1");
    for name in ["acme/web:1", "docker.io/acme/web:1", "localhost/web"] {
        pushed(&scenario.gpg, &format!("docker-archive:{file}:{name}"), &image, &[]);
    }
    let failed = |source: &str, text: &str| push(&scenario.gpg, source, &image, &[]).fails_with(1, text);
    failed(&format!("docker-archive:{file}"), r#"say which one behind a colon: there are "acme/web:1""#);
    failed(&format!("docker-archive:{file}:acme/web:2"), r#"not exactly one image of the name "acme/web:2""#);
    let layout = Layout::new(&scenario.folder, "layout");
    let (a, b) = (layout.image(&["a"]), layout.image(&["b"]));
    layout.index(&[(&a.0, a.1.len()), (&b.0, b.1.len())]);
    failed(&layout.source(), "say which one behind a colon: it has no names");
    failed(&format!("{}:1", layout.source()), r#"not exactly one image of the name "1""#);
}

#[test]
fn bad_docker_archives_are_refused_before_anything_is_pushed() {
    let scenario = Scenario::new();
    let (name, text) = config(&[b"one"]);
    let with = |archive: Archive, layer: &str| {
        archive.file(&name, &text).file("manifest.json", manifest(&name, &[layer])).bytes()
    };
    let good = with(Archive::new().file("one.tar", "one"), "one.tar");
    let other_config = manifest("other.json", &["one.tar"]);
    let half = good.len() / 2;
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("traversal", with(Archive::new(), "../../../../etc/passwd"), "leads out of it"),
        ("absolute", with(Archive::new(), "/etc/passwd"), "leads out of it"),
        ("link", with(Archive::new().link("one.tar", "/etc/passwd"), "one.tar"), "leads out of it"),
        ("up", with(Archive::new().link("a/one.tar", "../../one.tar"), "a/one.tar"), "leads out of it"),
        ("missing", with(Archive::new(), "one.tar"), r#"has no "one.tar""#),
        ("twice", with(Archive::new().file("one.tar", "one").file("./one.tar", "two"), "one.tar"), "is there twice"),
        ("another layer", with(Archive::new().file("one.tar", "two"), "one.tar"), r#""one.tar" is damaged"#),
        ("gzip of another", with(Archive::new().file("one.tar", gzip(b"two")), "one.tar"), "is damaged"),
        ("zstd", with(Archive::new().file("one.tar", b"\x28\xb5\x2f\xfdxxx"), "one.tar"), "push it as oci-archive:"),
        ("truncated", good[..half].to_vec(), "it is incomplete"),
        ("compressed", gzip(&good), "gunzip"),
        ("no archive", b"hello".to_vec(), "is no tar archive"),
        ("empty", Vec::new(), r#"has no "manifest.json""#),
        (
            "too few layers",
            Archive::new().file(&name, &text).file("manifest.json", manifest(&name, &[])).bytes(),
            "it has 0 layers, and its configuration speaks of 1",
        ),
        (
            "configuration",
            Archive::new().file("one.tar", "one").file("other.json", "[]").file("manifest.json", &other_config).bytes(),
            "is no image's configuration",
        ),
        (
            "damaged configuration",
            Archive::new()
                .file(&name, text.replace("amd64", "arm64"))
                .file("manifest.json", manifest(&name, &[]))
                .bytes(),
            "is damaged: it should be sha256:",
        ),
        (
            "huge list",
            Archive::new().file("manifest.json", vec![b' '; 5 << 20]).bytes(),
            r#""manifest.json" has 5242880 bytes, over the limit of 4194304"#,
        ),
        ("no list", Archive::new().file("manifest.json", "{}").bytes(), "is no list of images"),
    ];
    let image = scenario.image("acme/web:1");
    for (what, bytes, text) in cases {
        let file = scenario.folder.write("bad.tar", bytes).display().to_string();
        println!("{what}");
        push(&scenario.gpg, &format!("docker-archive:{file}"), &image, &[]).fails_with(1, text);
    }
    push(&scenario.gpg, "docker-archive:/nonexistent.tar", &image, &[]).fails_with(1, "/nonexistent.tar: No such");
    push(&scenario.gpg, "docker-archive:/dev/null", &image, &[]).fails_with(1, "it is no file");
    assert_eq!(writes(&scenario.registry, 0), 0);
}

#[test]
fn bad_layouts_are_refused_before_anything_is_pushed() {
    let scenario = Scenario::new();
    let image = scenario.image("acme/web:1");
    let failed = |layout: &Layout<'_>, text: &str| {
        push(&scenario.gpg, &layout.source(), &image, &[]).fails_with(1, text);
    };
    let blob_of = |layout: &Layout<'_>, digest: &Digest| layout.path().join("blobs/sha256").join(digest.hex());
    let layer = Digest::sha256(b"layer");

    let (layout, digest) = Layout::of(&scenario.folder, "manifest", &["layer"]);
    let path = blob_of(&layout, &digest);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("tar", "tax")).unwrap();
    failed(&layout, "is damaged: it should be sha256:");

    let (layout, _) = Layout::of(&scenario.folder, "size", &["layer"]);
    std::fs::write(blob_of(&layout, &layer), "layers").unwrap();
    failed(&layout, "should have 5 bytes and has 6");

    let (layout, _) = Layout::of(&scenario.folder, "missing", &["layer"]);
    std::fs::remove_file(blob_of(&layout, &layer)).unwrap();
    failed(&layout, "has no \"blobs/sha256/");

    let (layout, _) = Layout::of(&scenario.folder, "outside", &["layer"]);
    std::fs::remove_file(blob_of(&layout, &layer)).unwrap();
    symlink(scenario.folder.write("secret", "layer"), blob_of(&layout, &layer)).unwrap();
    failed(&layout, "leads out of it");

    let layout = Layout::new(&scenario.folder, "version");
    scenario.folder.write("version/oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#);
    failed(&layout, "imageLayoutVersion 1.0.0");

    let layout = Layout::new(&scenario.folder, "both");
    let (digest, manifest) = layout.image(&["layer"]);
    let both = manifest.replacen('{', r#"{"manifests":[],"#, 1);
    let digest = if both == manifest { digest } else { layout.blob(&both) };
    layout.index(&[(&digest, both.len())]);
    failed(&layout, "both an index's members and an image's");
    assert_eq!(writes(&scenario.registry, 0), 0);
}

/// A layout whose image is this index.
fn index_layout(layout: &Layout<'_>, index: &str, descriptor: &str) {
    let list = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{descriptor}","size":{}}}]}}"#,
        index.len()
    );
    layout.folder.write(&format!("{}/index.json", layout.name), list);
}

#[test]
fn an_index_with_more_manifests_than_are_signed_is_not_pushed() {
    let scenario = Scenario::new();
    let layout = Layout::new(&scenario.folder, "large");
    let entries: Vec<String> = (0..129)
        .map(|number| {
            let (digest, manifest) = layout.image(&[&number.to_string()]);
            let kind = "application/vnd.oci.image.manifest.v1+json";
            format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{}}}"#, manifest.len())
        })
        .collect();
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    index_layout(&layout, &index, &layout.blob(&index).to_string());
    let output = push(&scenario.gpg, &layout.source(), &scenario.image("acme/web:1"), &[]);
    output.fails_with(1, "the index has more than 128 manifests");
    assert_eq!(writes(&scenario.registry, 0), 0);
}

#[test]
fn what_a_layout_calls_by_its_sha_512_is_pushed_and_signed_as_the_registry_calls_it() {
    let scenario = Scenario::new();
    let layout = Layout::new(&scenario.folder, "layout");
    let (digest, manifest) = layout.image(&["layer"]);
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{},"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
        manifest.len()
    );
    let long = Digest::of(Algorithm::Sha512, index.as_bytes());
    let name = format!("layout/blobs/sha512/{}", long.hex());
    scenario.folder.write(&name, &index);
    index_layout(&layout, &index, &long.to_string());
    let image = scenario.image("acme/web:1");
    let report = pushed(&scenario.gpg, &layout.source(), &image, &[]);
    assert_eq!(report["digest"], Digest::sha256(index.as_bytes()).to_string());
    scenario.skopeo_takes(&image, &["--override-os=linux", "--override-arch=amd64"]).unwrap();
    // Under another digest there is nothing to push.
    let other = Digest::of(Algorithm::Sha512, b"other");
    let repository = scenario.image("acme/other");
    let output = push(&scenario.gpg, &layout.source(), &format!("{repository}@{other}"), &[]);
    output.fails_with(1, &format!("the source is {long}, not {other}"));
    // It is the layout's name all the same: what is damaged is noticed.
    scenario.folder.write(&name, index.replace("amd64", "arm64"));
    let output = push(&scenario.gpg, &layout.source(), &image, &[]);
    output.fails_with(1, &format!("is damaged: it should be {long}"));
}

#[test]
fn a_layer_that_is_damaged_is_never_completed() {
    let scenario = Scenario::new();
    let (layout, _) = Layout::of(&scenario.folder, "layout", &["layer"]);
    let layer = Digest::sha256(b"layer");
    std::fs::write(layout.path().join("blobs/sha256").join(layer.hex()), "LAYER").unwrap();
    let image = scenario.image("acme/web:1");
    let output = push(&scenario.gpg, &layout.source(), &image, &[]);
    output.fails_after_lines(1, &format!("is damaged: it should be {layer}"));
    flush(&scenario.registry);
    assert!(scenario.registry.requests("HEAD", &layer.hex()) > 0, "the log has it");
    assert_eq!(scenario.registry.requests("PUT", "/manifests/"), 0);
    // In the log the colon in front of it is %3A.
    assert_eq!(scenario.registry.requests("PUT", &layer.hex()), 0);
}
