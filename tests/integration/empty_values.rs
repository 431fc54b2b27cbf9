//! Values that are there and say nothing, as a user meets them: a manifest's media type, a registry's header.

use crate::{
    sign::Scenario,
    support::{Pushed, sealgate_with_keys},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_whose_media_type_is_empty_is_signed_and_verified() {
    let scenario = Scenario::new();
    for (number, media_type) in [r#""""#, "null"].into_iter().enumerate() {
        let repository = format!("acme/web{number}");
        let usual = scenario.registry.push(&repository, "usual", "one").await;
        let emptied = |pushed: &Pushed| {
            let text = String::from_utf8(pushed.manifest.clone()).unwrap();
            let emptied = text.replacen(&format!("\"{}\"", pushed.media_type), media_type, 1);
            assert_ne!(text, emptied);
            emptied.into_bytes()
        };
        let image = scenario.registry.push_manifest(&repository, "1", usual.media_type, emptied(&usual)).await;
        let index = scenario.registry.push_index(&repository, "usual-index", &[(&image, "amd64")]).await;
        let index = scenario.registry.push_manifest(&repository, "2", index.media_type, emptied(&index)).await;
        for (tag, pushed, signatures) in [("1", &image, 1), ("2", &index, 2)] {
            let name = scenario.image(&format!("{repository}:{tag}"));
            assert_eq!(scenario.verify(&name, "", &[])["verdict"], "refused", "{media_type} {tag}");
            let report = scenario.signed(&name, &["--sign-by", &scenario.key]);
            assert_eq!(report["digest"], pushed.digest.to_string(), "{media_type} {tag}");
            assert_eq!(report["signatures"].as_array().map(Vec::len), Some(signatures), "{media_type} {report}");
            let repository = scenario.image(&repository);
            for name in
                [name, format!("{repository}:{tag}@{}", pushed.digest), format!("{repository}@{}", pushed.digest)]
            {
                let verdict = scenario.verify(&name, "", &[]);
                assert_eq!(verdict["verdict"], "verified", "{media_type} {name}: {verdict}");
            }
            scenario.skopeo_takes(&scenario.image(&format!("acme/web{number}:{tag}")), &[]).unwrap();
        }
    }
    // One that is unknown stays refused.
    let usual = scenario.registry.push("acme/other", "usual", "one").await;
    let text = String::from_utf8(usual.manifest).unwrap().replacen(usual.media_type, "application/x", 1);
    let unknown = crate::support::Liar::start(move |asked| match asked.path.as_str() {
        "/v2/" => crate::support::Reply::empty(200),
        _ => crate::support::Reply::new(200, &[("content-type", usual.media_type)], &text),
    });
    let image = format!("{}/acme/other:1", unknown.host());
    let to = scenario.folder.path().join("signatures").display().to_string();
    let output = sealgate_with_keys(
        scenario.gpg.home(),
        &["sign", "--tls-verify=false", &image, "--sign-by", &scenario.key, "--to", &to],
    );
    assert!(output.status != 0 && !std::path::Path::new(&to).exists(), "{}", output.stderr);
}
