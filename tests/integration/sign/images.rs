//! Images: indexes, tags that move, mirrors, and those that are not there.

use super::*;

#[tokio::test]
async fn of_an_index_everything_that_a_node_may_verify_is_signed() {
    let scenario = Scenario::new();
    let images = [
        scenario.registry.push("acme/web", "amd64", "one").await,
        scenario.registry.push("acme/web", "arm64", "two").await,
    ];
    scenario.registry.push_index("acme/web", "1", &[(&images[0], "amd64"), (&images[1], "arm64")]).await;
    let image = scenario.image("acme/web:1");
    let output = scenario.sign(&image, &["--sign-by", &scenario.key, "--index-only"]);
    assert!(output.status == 0 && output.stderr.contains("only the index is signed"), "{}", output.stderr);
    assert!(scenario.skopeo_takes(&image, &["--override-os=linux", "--override-arch=arm64"]).is_err());
    let report = scenario.signed(&image, &["--sign-by", &scenario.key]);
    let outcomes: Vec<_> = report["signatures"].as_array().unwrap().iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!(outcomes, ["present", "signed", "signed"]);
    assert_eq!(report["signatures"][2]["platform"], "linux/arm64");
    scenario.skopeo_takes(&image, &[]).unwrap();
    assert_eq!(scenario.verify(&image, "", &[])["verdict"], "verified");
}

#[test]
fn an_index_whose_entries_are_missing_is_signed_alone_or_not_at_all() {
    let gpg = Gpg::new();
    let key = gpg.generate("Release <release@example.com>");
    let kind = |kind: &str| format!("application/vnd.oci.image.{kind}.v1+json");
    let config = Digest::sha256(b"{}");
    let image = |number: usize| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{config}","size":{number}}},"layers":[]}}"#,
            kind("manifest"),
            kind("config")
        )
    };
    let images = [image(1), image(2)];
    let digests = images.each_ref().map(|image| Digest::sha256(image.as_bytes()).to_string());
    let entries: Vec<String> = [(0, "amd64"), (1, "arm64")]
        .map(|(number, architecture): (usize, &str)| {
            format!(
                r#"{{"mediaType":"{}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
                kind("manifest"),
                digests[number],
                images[number].len()
            )
        })
        .to_vec();
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#, kind("index"), entries.join(","));
    for missing in [&[1][..], &[0], &[0, 1]] {
        let mut has = vec![("1".to_owned(), index.clone(), kind("index"))];
        has.push((Digest::sha256(index.as_bytes()).to_string(), index.clone(), kind("index")));
        let there = (0..2).filter(|number| !missing.contains(number));
        has.extend(there.map(|number| (digests[number].clone(), images[number].clone(), kind("manifest"))));
        let registry = Liar::start(move |asked| {
            let name = asked.path.rsplit('/').next().unwrap_or_default();
            match has.iter().find(|(known, ..)| known == name) {
                _ if asked.path == "/v2/" => Reply::empty(200),
                Some((_, body, kind)) => Reply::new(200, &[("content-type", kind)], body),
                None => Reply::empty(404),
            }
        });
        let folder = Scratch::new();
        let to = folder.path().join("signatures").display().to_string();
        let sign = |image: &str, more: &[&str]| {
            let image = format!("{}/acme/web:{image}", registry.host());
            let arguments = ["sign", "--tls-verify=false", &image, "--sign-by", &key, "--to", &to];
            sealgate_with_keys(gpg.home(), &[&arguments, more].concat())
        };
        let output = sign("1", &[]);
        output.fails_with(1, "--index-only");
        let error = &output.stderr;
        for (number, platform) in [(0, "(linux/amd64)"), (1, "(linux/arm64)")] {
            let named = format!("{} {platform}", digests[number]);
            assert_eq!(error.contains(&named), missing.contains(&number), "{error}");
        }
        assert!(!Path::new(&to).exists(), "{error}");
        let alone = sign("1", &["--index-only"]);
        assert_eq!(alone.status, 0, "{}", alone.stderr);
        let nothing = sign("2", &[]);
        nothing.fails_with(1, "has no such image");
        assert!(!nothing.stderr.contains("--index-only"), "{}", nothing.stderr);
    }
}

/// A manifest in a registry that is none.
fn manifest(content: &str) -> (Digest, String) {
    let config = Digest::sha256(content.as_bytes());
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"x","digest":"{config}","size":1}},"layers":[]}}"#
    );
    (Digest::sha256(text.as_bytes()), text)
}

#[test]
fn of_a_tag_that_moves_while_it_is_signed_nothing_is_written() {
    let gpg = Gpg::new();
    let key = gpg.generate("Release <release@example.com>");
    let (one, two) = (manifest("one"), manifest("two"));
    let (first, texts) = (one.0, [one.1, two.1]);
    let asked_for = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked_for);
    let server = Liar::start(move |asked| match asked.path.as_str() {
        "/v2/" => Reply::empty(200),
        "/v2/acme/web/manifests/1" => {
            let text = &texts[count.fetch_add(1, Ordering::SeqCst).min(1)];
            Reply::new(200, &[("content-type", "application/vnd.oci.image.manifest.v1+json")], text)
        }
        path if path.starts_with("/extensions/") && asked.method == "GET" => {
            Reply::new(200, &[], r#"{"signatures":[]}"#)
        }
        _ => Reply::empty(404),
    });
    let folder = Scratch::new();
    let image = format!("{}/acme/web:1", server.host());
    let store = format!("http://{}", server.host());
    let tree = folder.path().join("tree").display().to_string();
    let text = format!("{image} names {} now, not {first}, which was to be signed: nothing is written", two.0);
    for to in [&tree, &store] {
        asked_for.store(0, Ordering::SeqCst);
        let output =
            sealgate_with_keys(gpg.home(), &["sign", "--tls-verify=false", &image, "--sign-by", &key, "--to", to]);
        output.fails_with(1, &text);
    }
    assert!(!Path::new(&tree).exists());
    assert!(server.asked().iter().all(|asked| matches!(asked.method.as_str(), "GET" | "HEAD")));
}

#[tokio::test]
async fn what_is_not_there_can_not_be_signed() {
    let scenario = Scenario::new();
    let image = scenario.image("acme/none:1");
    scenario.sign(&image, &["--sign-by", &scenario.key]).fails_with(1, "acme/none");
    let gone = "127.0.0.1:1/acme/web:1";
    scenario.sign(gone, &["--sign-by", &scenario.key]).fails_with(3, "127.0.0.1:1");
}

#[tokio::test]
async fn a_mirror_does_not_say_what_is_signed() {
    let scenario = Scenario::new();
    scenario.registry.push("acme/web", "1", "one").await;
    let tree = scenario.folder.path().join("tree").display().to_string();
    let configuration = format!(
        "apiVersion: sealgate.dev/v1\nkind: Configuration\nregistries:\n- scope: 127.0.0.1:1\n  insecure: true\n  \
         signatures: [{{lookaside: {{url: 'file://{tree}'}}}}]\n  mirrors: ['{host}']\n- scope: '{host}'\n  \
         insecure: true\n",
        host = scenario.registry.host()
    );
    let configuration = scenario.folder.write("sealgate.yaml", configuration).display().to_string();
    let image = "127.0.0.1:1/acme/web:1";
    let config = ["--config", configuration.as_str()];
    assert_eq!(scenario.verify(image, "", &config)["code"], "unsigned", "the mirror answers");
    let sign = [&config[..], &["--sign-by", &scenario.key]].concat();
    scenario.sign(image, &sign).fails_with(3, "127.0.0.1:1");
    assert!(!Path::new(&tree).exists(), "nothing is written");
}

#[tokio::test]
async fn a_digest_is_signed_under_a_tag_that_names_another_only_where_that_is_said() {
    let scenario = Scenario::new();
    let old = scenario.registry.push("acme/web", "1", "one").await.digest;
    let new = scenario.registry.push("acme/web", "1", "two").await.digest;
    let image = scenario.image("acme/web:1");
    let by = ["--sign-by", scenario.key.as_str()];
    scenario.signed(&format!("{image}@{new}"), &by);
    let moved = format!("{image}@{old}");
    let advice = format!("or sign {}@{old} (with --sign-identity {image} only if", scenario.image("acme/web"));
    for more in [&by[..], &[&by[..], &["--dry-run"]].concat()] {
        scenario.sign(&moved, more).fails_with(1, &advice);
    }
    let report = scenario.signed(&moved, &[&by[..], &["--sign-identity", &image]].concat());
    assert_eq!(report["signatures"][0]["outcome"], "signed");
}
