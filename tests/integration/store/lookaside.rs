//! Lookaside trees, written and read.

use super::*;

#[test]
fn a_tree_with_a_name_that_is_no_utf_8_is_reported_as_any_other() {
    use std::os::unix::ffi::OsStringExt as _;
    let folder = Scratch::new();
    let odd = std::ffi::OsString::from_vec(b"tree/web\xff".to_vec());
    fs::create_dir_all(folder.path().join(odd)).unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let import = ["import", &format!("redb:{}", at("new.redb")), &at("tree")];
    let report = sealgate_store(&import).json(1);
    assert_eq!(report["refused"], 1, "{report}");
    assert!(report["reasons"][0].to_string().contains("tree/web"), "{report}");
}

#[tokio::test]
async fn signatures_go_into_a_lookaside_tree_where_skopeo_finds_them_and_come_back() {
    let scenario = Scenario::new();
    let registry = DockerRegistry::start();
    let pushed = registry.push("acme/web", "1", "one").await;
    let image = ImageId { repository: RepositoryName::parse("acme/web").unwrap(), digest: pushed.digest };
    let reference = format!("{}/acme/web:1", registry.host());
    let sign = |reference: &str| scenario.gpg.sign_image(&scenario.key, &pushed.digest, reference);
    let contents = [sign("registry.example.com/acme/web:1"), sign(&reference)];
    let file = scenario.folder.path().join("store.redb");
    let store = RedbStore::open(&file, ImageLimits::default()).unwrap();
    for (number, content) in contents.iter().enumerate() {
        let record = Record { status: None, ..record(number + 1, content) };
        store.change(Change::Import(image.clone(), record)).await.unwrap();
    }
    drop(store);
    let (file, tree) = (file.display().to_string(), scenario.path("a/new/tree"));
    for (created, present) in [(2, 0), (0, 2)] {
        let exported = sealgate_store(&["export", &file, &format!("lookaside:{tree}")]).json(0);
        assert_eq!((&exported["created"], &exported["present"]), (&json!(created), &json!(present)), "{exported}");
        assert_eq!((&exported["origins"], &exported["statuses"]), (&json!(2), &json!(0)), "{exported}");
    }
    let place =
        |number: usize| Path::new(&tree).join(format!("acme/web@sha256={}/signature-{number}", pushed.digest.hex()));
    assert_eq!([1, 2].map(|number| fs::read(place(number)).unwrap()), contents);

    let key = scenario.gpg.export_to(&scenario.key, scenario.folder.path().join("release.asc"));
    let policy = format!(r#"{{"default":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{}"}}]}}"#, key.display());
    let policy = scenario.folder.write("policy.json", policy).display().to_string();
    scenario.folder.write("registries.d/default.yaml", format!("default-docker: {{lookaside: 'file://{tree}'}}\n"));
    let registries = scenario.path("registries.d");
    let (from, to) = (format!("docker://{reference}"), format!("dir:{}", scenario.path("copy")));
    let copy = ["--policy", &policy, "copy", "--src-tls-verify=false", "--registries.d", &registries, &from, &to];
    let output = skopeo(scenario.gpg.home(), &copy);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Into a store that has one of them, under its old name.
    let running = open_store();
    let one = Record { origin: None, status: None, ..record(7, &contents[0]) };
    let one = lines_of([(image.clone(), one)]);
    assert_eq!(with_input(&["import", INSECURE, &running.url(), "-"], one.as_bytes()).json(0)["created"], 1);
    for (created, present) in [(1, 1), (0, 2)] {
        let imported = sealgate_store(&["import", INSECURE, &running.url(), &tree]).json(0);
        assert_eq!((&imported["created"], &imported["present"]), (&json!(created), &json!(present)), "{imported}");
    }
    let known = lines_of([(image.clone(), Record { status: None, ..record(7, &contents[0]) })]);
    let imported = with_input(&["import", INSECURE, &running.url(), "-"], known.as_bytes()).json(0);
    assert_eq!((&imported["completed"], &imported["present"]), (&json!(1), &json!(0)), "{imported}");
    let back = with_input(&["export", INSECURE, &running.url(), "-"], b"").stdout;
    let back: Vec<Value> = back.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let derived = &Digest::sha256(&contents[1]).hex()[..32];
    let found = back.iter().find(|line| line["name"] == *derived).unwrap();
    assert_eq!(found["origin"]["issuers"], json!([scenario.key]), "{found}");

    // A gap, junk, and what would never end.
    fs::rename(place(2), place(3)).unwrap();
    fs::write(place(4), "junk").unwrap();
    std::os::unix::fs::symlink("/dev/zero", place(5)).unwrap();
    let imported = sealgate_store(&["import", INSECURE, &running.url(), &tree]).json(1);
    assert_eq!((&imported["present"], &imported["refused"]), (&json!(2), &json!(2)), "{imported}");
    assert_eq!(imported["gaps"], json!([place(2)]));
    assert_eq!(imported["reasons"][0]["path"], json!(place(5)));
    assert_eq!(
        imported["reasons"][1],
        json!({"path": place(4), "reason": "content is not a signature: it does not begin as a binary OpenPGP message does"})
    );
}

#[tokio::test]
async fn a_tree_takes_no_more_signatures_of_an_image_than_its_readers_do() {
    let scenario = Scenario::new();
    let file = scenario.folder.path().join("store.redb");
    let store = RedbStore::open(&file, ImageLimits::default()).unwrap();
    let puts = (0..130).map(|number| {
        let record = Record { origin: None, status: None, ..record(number, format!("content {number}").as_bytes()) };
        store.change(Change::Import(image(0), record))
    });
    futures_util::future::try_join_all(puts).await.unwrap();
    drop(store);
    let tree = scenario.path("tree");
    fs::create_dir(&tree).unwrap();
    let exported = sealgate_store(&["export", &file.display().to_string(), &tree]).json(1);
    assert_eq!((&exported["created"], &exported["refused"]), (&json!(127), &json!(3)), "{exported}");
    assert!(exported["reasons"][0]["reason"].as_str().unwrap().contains("127 signatures already"), "{exported}");
}
