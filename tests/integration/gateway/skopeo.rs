//! Debian's skopeo, as it is, signs and verifies through the store.

use crate::support::{DockerRegistry, Gpg, Scratch, Store, accept_anything, skopeo};

/// Runs skopeo; it has to succeed, unless `refused`.
fn run(gpg: &Gpg, arguments: &[&str]) -> Result<(), String> {
    let output = skopeo(gpg.home(), arguments);
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// A policy.json that wants this key's signatures below this host.
pub(crate) fn signed_by(folder: &Scratch, host: &str, key: &str) -> String {
    let policy = format!(
        r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"{host}":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}"}}]}}}}}}"#
    );
    folder.write("policy.json", policy).display().to_string()
}

#[tokio::test]
async fn an_image_signed_through_the_store_verifies_from_it_and_an_unsigned_one_does_not() {
    let registry = DockerRegistry::start();
    registry.push("acme/source", "1", "one").await;
    registry.push("acme/web", "unsigned", "two").await;
    let store = Store::start(&registry.url());
    let (gpg, folder) = (Gpg::new(), Scratch::new());
    let key = gpg.generate("Release <release@example.com>");
    let key_file = gpg.export_to(&key, folder.path().join("release.asc")).display().to_string();
    let any = accept_anything(&folder).display().to_string();
    let source = format!("docker://{}/acme/source:1", registry.host());
    let target = format!("docker://{}/acme/web:1", store.host());
    let copy = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    let second = gpg.generate("Security <security@example.com>");
    for key in [&key, &second] {
        // The second time the image is there and signed: another signature joins the first.
        run(&gpg, &[["--policy", &any].as_slice(), &copy, &["--sign-by", key, &source, &target]].concat()).unwrap();
    }
    let policy = signed_by(&folder, store.host(), &key_file);
    let back = |tag: &str| {
        let from = format!("docker://{}/acme/web:{tag}", store.host());
        let to = format!("dir:{}", folder.path().join(tag).display());
        run(&gpg, &["--policy", &policy, "copy", "--src-tls-verify=false", &from, &to])
    };
    back("1").unwrap();
    assert!(folder.path().join("1/signature-2").exists());
    let refusal = back("unsigned").unwrap_err();
    assert!(refusal.contains("no signature exists"), "{refusal}");
    assert!(registry.requests("GET", "/extensions/") == 0, "the registry hears nothing of signatures");
}

#[tokio::test]
async fn an_index_is_signed_with_all_its_images() {
    let registry = DockerRegistry::start();
    let images =
        [registry.push("acme/source", "amd64", "one").await, registry.push("acme/source", "arm64", "two").await];
    let index = registry.push_index("acme/source", "1", &[(&images[0], "amd64"), (&images[1], "arm64")]).await;
    let store = Store::start(&registry.url());
    let (gpg, folder) = (Gpg::new(), Scratch::new());
    let key = gpg.generate("Release <release@example.com>");
    let key_file = gpg.export_to(&key, folder.path().join("release.asc")).display().to_string();
    let any = accept_anything(&folder).display().to_string();
    let source = format!("docker://{}/acme/source:1", registry.host());
    let target = format!("docker://{}/acme/web:1", store.host());
    let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    let sign = ["--sign-by", &key, source.as_str(), &target];
    run(&gpg, &[["--policy", &any, "copy", "--all", "--preserve-digests"].as_slice(), &tls, &sign].concat()).unwrap();
    for digest in [index.digest, images[0].digest, images[1].digest] {
        let list = reqwest::get(store.signatures_url("acme/web", digest)).await.unwrap().text().await.unwrap();
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        assert_eq!(list["signatures"].as_array().unwrap().len(), 1, "{digest}");
    }
    let policy = signed_by(&folder, store.host(), &key_file);
    let copied = format!("dir:{}", folder.path().join("copied").display());
    run(&gpg, &["--policy", &policy, "copy", "--all", "--src-tls-verify=false", &target, &copied]).unwrap();
    let manifest = std::fs::read(folder.path().join("copied/manifest.json")).unwrap();
    assert_eq!(manifest, index.manifest);
}
