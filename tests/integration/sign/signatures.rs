//! Signatures: renewed, under another identity, in another place, and several of which some fail.

use super::*;

#[tokio::test]
async fn a_renewed_signature_is_another_one_and_an_old_one_stays() {
    let scenario = Scenario::new();
    let pushed = scenario.registry.push("acme/web", "1", "one").await;
    let image = scenario.image("acme/web:1");
    for _ in 0..2 {
        assert_eq!(
            scenario.signed(&image, &["--sign-by", &scenario.key, "--renew"])["signatures"][0]["outcome"],
            "signed"
        );
    }
    let list = scenario.list("acme/web", &pushed.digest).await;
    assert_eq!(list["signatures"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn another_identity_is_signed_when_it_is_asked_for() {
    let scenario = Scenario::new();
    scenario.registry.push("copies/web", "1", "one").await;
    let image = scenario.image("copies/web:1");
    let identity = "registry.example.com/acme/web:1";
    let dry = scenario.sign(&image, &["--sign-by", &scenario.key, "--sign-identity", identity, "--dry-run"]);
    let payload: Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!(payload["critical"]["identity"]["docker-reference"], identity);
    assert_eq!(scenario.verify(&image, "", &[])["code"], "unsigned", "a dry run signs nothing");
    scenario.signed(&image, &["--sign-by", &scenario.key, "--sign-identity", identity]);
    assert_eq!(scenario.verify(&image, "", &[])["code"], "wrong-identity");
    let rule = format!(", identity: {{exactReference: '{identity}'}}");
    assert_eq!(scenario.verify(&image, &rule, &[])["verdict"], "verified");
}

#[tokio::test]
async fn signatures_go_into_a_lookaside_folder_or_another_store() {
    let scenario = Scenario::new();
    let pushed = scenario.registry.push("acme/web", "1", "one").await;
    let image = format!("{}/acme/web:1", scenario.registry.host());
    let tree = scenario.folder.path().join("tree").display().to_string();
    // The registry itself has no extension.
    scenario.sign(&image, &["--sign-by", &scenario.key]).fails_with(1, "does not announce a signature extension");
    scenario.signed(&image, &["--sign-by", &scenario.key, "--to", &tree]);
    let place = format!("{tree}/acme/web@sha256={}/signature-1", pushed.digest.hex());
    assert!(fs::metadata(&place).is_ok(), "{place}");
    let registries = format!("default-docker: {{lookaside: 'file://{tree}'}}\n");
    scenario.folder.write("registries.d/default.yaml", registries);
    let registries = scenario.folder.path().join("registries.d").display().to_string();
    scenario.skopeo_takes(&image, &["--registries.d", &registries]).unwrap();
    let report = scenario.signed(&image, &["--sign-by", &scenario.key, "--to", &scenario.store.url()]);
    assert!(report["signatures"][0]["place"].as_str().unwrap().starts_with(&scenario.store.url()), "{report}");
}

#[tokio::test]
async fn what_is_written_of_several_signatures_is_told_and_the_rest_follows() {
    let scenario = Scenario::new();
    let images = [
        scenario.registry.push("acme/web", "amd64", "one").await,
        scenario.registry.push("acme/web", "arm64", "two").await,
    ];
    let index = scenario.registry.push_index("acme/web", "1", &[(&images[0], "amd64"), (&images[1], "arm64")]).await;
    // A store that has room for one, until it has room for all.
    let stored = Arc::new(Mutex::new(Vec::<(String, String)>::new()));
    let room = Arc::new(AtomicUsize::new(1));
    let (kept, left) = (Arc::clone(&stored), Arc::clone(&room));
    let store = Liar::start(move |asked| {
        let mut kept = kept.lock().unwrap();
        if asked.method == "PUT" {
            if kept.len() >= left.load(Ordering::SeqCst) {
                let full = r#"{"errors":[{"code":"SIZE_INVALID","message":"there is no room"}]}"#;
                return Reply::new(413, &[], full);
            }
            kept.push((asked.path.clone(), asked.body.clone()));
            return Reply::empty(201);
        }
        let entries = kept.iter().filter(|(path, _)| *path == asked.path).map(|(_, body)| body.as_str());
        Reply::new(200, &[], format!(r#"{{"signatures":[{}]}}"#, entries.collect::<Vec<_>>().join(",")))
    });
    let image = format!("{}/acme/web:1", scenario.registry.host());
    let to = format!("http://{}", store.host());
    let by = ["--sign-by", &scenario.key, "--to", &to];
    let output = scenario.sign(&image, &by);
    let [amd64, arm64] = images.map(|image| image.digest);
    output.fails_with(1, "there is no room (SIZE_INVALID)");
    output.fails_with(
        1,
        &format!(
            "(of 3 signatures 1 is there: {}; not there, or not for certain: {amd64} (linux/amd64), {arm64} \
             (linux/arm64); the same command writes the rest)",
            index.digest
        ),
    );
    assert_eq!(stored.lock().unwrap().len(), 1);
    room.store(usize::MAX, Ordering::SeqCst);
    let report = scenario.signed(&image, &by);
    let outcomes: Vec<_> = report["signatures"].as_array().unwrap().iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!(outcomes, ["present", "signed", "signed"]);
    assert_eq!(stored.lock().unwrap().len(), 3);
    let verdict = scenario.verify(&image, "", &["--config", &{
        let host = scenario.registry.host();
        let configuration = format!(
            "apiVersion: sealgate.dev/v1\nkind: Configuration\npolicies: policy.yaml\nregistries:\n- scope: '{host}'\n  insecure: true\n  \
             signatures: [{{extension: {{url: '{to}'}}}}]\n- scope: '{}'\n  insecure: true\n",
            store.host()
        );
        scenario.folder.write("sealgate.yaml", configuration).display().to_string()
    }]);
    assert_eq!(verdict["verdict"], "verified", "{verdict}");
}
