//! Into a store in front of a registry whose headers say nothing.

use super::{
    fake::{Fake, State},
    outcomes, pushed,
    uploads::{Pusher, with_digests},
};
use crate::support::{Asked, Reply, Store, error_of, sealgate_with_keys, skopeo};

/// The honest answer, also to a HEAD of a manifest, with these values of `Docker-Content-Digest`.
fn answer(asked: &Asked, state: &mut State, digests: &[&str]) -> Reply {
    let is_head = asked.method == "HEAD" && asked.path.contains("/manifests/");
    let reply = match asked.path.rsplit('/').next().and_then(|name| state.manifests.get(name)) {
        Some((kind, body)) if is_head => Reply::Raw(
            format!(
                "HTTP/1.1 200 X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n{}\r\n",
                body.len(),
                digests.iter().map(|digest| ["Docker-Content-Digest: ", digest, "\r\n"].concat()).collect::<String>()
            )
            .into(),
        ),
        _ if is_head => Reply::empty(404),
        _ => state.answer(asked),
    };
    with_digests(reply, digests)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_passes_a_push_to_a_registry_with_empty_digest_headers() {
    for digests in [&[""][..], &["", " "], &[]] {
        let pusher = Pusher::new();
        let fake = Fake::start(move |asked, state: &mut State| Some(answer(asked, state, digests)));
        let store = Store::start(&format!("http://{}", fake.server.host()));
        let image = format!("{}/acme/web:1", store.host());
        let report = pushed(&pusher.gpg, &pusher.small().source(), &image, &[]);
        assert_eq!(outcomes(&report, "blobs"), ["pushed", "pushed"], "{digests:?}");
        assert_eq!(report["signatures"][0]["outcome"], "signed", "{digests:?}");
        let digest = report["digest"].as_str().unwrap();

        let key = pusher.folder.path().join("release.asc");
        pusher.gpg.export_to("release@example.com", key.clone());
        let policy =
            format!(r#"{{"default":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{}"}}]}}"#, key.display());
        let policy = pusher.folder.write("policy.json", policy).display().to_string();
        for image in [image.clone(), format!("{}/acme/web@{digest}", store.host())] {
            let verified =
                sealgate_with_keys(pusher.gpg.home(), &["verify", "--tls-verify=false", "--policy", &policy, &image]);
            assert_eq!(verified.status, 0, "{digests:?} {image}: {}", verified.stderr);
            let to = format!("dir:{}", pusher.folder.path().join("copy").display());
            let copy = ["--policy", &policy, "copy", "--src-tls-verify=false", &format!("docker://{image}"), &to];
            let copied = skopeo(pusher.gpg.home(), &copy);
            assert!(copied.status.success(), "{digests:?} {image}: {}", error_of(&copied));
        }
        // Again: what is there is found.
        let again = pushed(&pusher.gpg, &pusher.small().source(), &image, &[]);
        assert_eq!(outcomes(&again, "manifests"), ["present"], "{digests:?}");
        assert_eq!(again["signatures"][0]["outcome"], "present", "{digests:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_refuses_a_digest_header_of_another_image_beside_an_empty_one() {
    let other = sealgate::image::Digest::sha256(b"other").to_string();
    let pusher = Pusher::new();
    let fake = Fake::start(move |asked, state: &mut State| {
        let is_read = matches!(asked.method.as_str(), "GET" | "HEAD") && asked.path.contains("/manifests/");
        let both = ["", &other];
        Some(answer(asked, state, if is_read { &both } else { &both[..1] }))
    });
    let store = Store::start(&format!("http://{}", fake.server.host()));
    let image = format!("{}/acme/web:1", store.host());
    let source = pusher.small().source();
    let arguments = ["push", "--tls-verify=false", &source, &image, "--sign-by", "release@example.com"];
    let output = sealgate_with_keys(pusher.gpg.home(), &arguments);
    assert_ne!(output.status, 0, "{}", output.stderr);
    let report = fake.state.lock().unwrap().manifests.keys().find(|name| name.starts_with("sha256")).cloned();
    let digest = report.expect("the manifest is pushed before it is signed");
    let list = reqwest::get(store.signatures_url("acme/web", digest)).await.unwrap();
    assert!(!list.status().is_success(), "{}", list.status());
}
