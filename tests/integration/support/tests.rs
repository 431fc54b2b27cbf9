//! The helpers themselves.

use super::{DockerRegistry, Gpg, Scratch, accept_anything, skopeo};

#[tokio::test]
async fn a_pushed_image_is_what_skopeo_copies_and_gpg_signs() {
    let registry = DockerRegistry::start();
    let pushed = registry.push("acme/web", "1", "one").await;
    let gpg = Gpg::new();
    let key = gpg.generate("Release <release@example.com>");
    let folder = Scratch::new();
    let policy = accept_anything(&folder);
    let target = format!("dir:{}", folder.path().join("copy").display());
    let identity = "registry.example.com/acme/web:1";
    let source = format!("docker://{}/acme/web:1", registry.host());
    let output = skopeo(
        gpg.home(),
        &[
            "--policy",
            &policy.display().to_string(),
            "copy",
            "--src-tls-verify=false",
            "--sign-by",
            &key,
            "--sign-identity",
            identity,
            &source,
            &target,
        ],
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(folder.path().join("copy/manifest.json")).unwrap(), pushed.manifest);
    assert!(folder.path().join("copy/signature-1").exists());
    assert!(registry.requests("GET", "/v2/acme/web/manifests/1") >= 1);
}
