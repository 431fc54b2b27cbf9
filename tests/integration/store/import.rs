//! Imports of good and bad lines, over connections that break, and from streams that stand still.

use super::*;

#[test]
fn an_import_bears_connections_that_break_and_can_be_repeated_at_any_time() {
    let scenario = Scenario::new();
    let lines = scenario.lines(3000);
    let file = scenario.folder.write("backup.ndjson", &lines).display().to_string();
    let running = open_store();
    let proxy = Proxy::start(running.host(), &[200_000, 900_000, 1_500_000]);
    let imported = sealgate_store(&["import", INSECURE, &format!("http://{}", proxy.host()), &file]).json(0);
    assert_eq!(proxy.cuts(), 3);
    // Of a batch whose answer was lost, it is not known whether it was new.
    let all = imported["created"].as_u64().unwrap() + imported["present"].as_u64().unwrap();
    assert_eq!((all, &imported["refused"]), (3000, &json!(0)));
    let exported = with_input(&["export", INSECURE, &running.url(), "-"], b"");
    assert!(exported.stdout == lines);
    // One that is killed has left what it had brought.
    let other = open_store();
    let proxy = Proxy::start(other.host(), &[700_000, 700_000, 700_000, 700_000, 700_000, 700_000, 700_000, 700_000]);
    let url = format!("http://{}", proxy.host());
    let mut import = Process::start(Command::new(SEALGATE).args(["store", "import", INSECURE, &url, &file]));
    wait_until("some batches", || (proxy.cuts() > 0).then_some(()));
    import.signal("INT");
    let ended = import.wait();
    assert!(matches!(ended.code(), Some(0 | 3)), "{ended}");
    let imported = sealgate_store(&["import", INSECURE, &other.url(), &file]).json(0);
    assert!(imported["present"].as_u64().unwrap() >= 256, "{imported}");
    assert!(with_input(&["export", INSECURE, &other.url(), "-"], b"").stdout == lines);
}

#[test]
fn a_stream_that_stands_still_can_be_left() {
    let scenario = Scenario::new();
    // More than a batch, and than any pipe holds.
    let lines = scenario.lines(1500);
    let stopped = scenario.stopped("stopped.redb", &lines).display().to_string();
    let left = |mut child: Child| {
        run("kill", ["-INT", &child.id().to_string()]);
        let ended = wait_until("its end", || child.try_wait().unwrap());
        let mut printed = String::new();
        child.stderr.take().unwrap().read_to_string(&mut printed).unwrap();
        assert_eq!(ended.code(), Some(3), "{printed}");
        assert!(printed.contains("interrupted"), "{printed}");
    };
    let start = |arguments: &[&str]| {
        let mut command = Command::new(SEALGATE);
        command.arg("store").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut export = start(&["export", &stopped, "-"]);
    // The rest nobody reads.
    export.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    left(export);

    let store = Liar::start(|asked| {
        let count = asked.body.lines().count();
        let answer = json!({"created": count, "present": 0, "refused": 0, "reasons": []});
        Reply::new(200, &[("content-type", "application/json")], answer.to_string())
    });
    let mut import = start(&["import", INSECURE, &format!("http://{}", store.host()), "-"]);
    // Behind these, nothing comes.
    let first: String = lines.split_inclusive('\n').take(300).collect();
    import.stdin.as_mut().unwrap().write_all(first.as_bytes()).unwrap();
    wait_until("a batch", || store.paths().contains(&"/sealgate/v1/import".to_owned()).then_some(()));
    left(import);
}

#[test]
fn what_is_no_line_is_named_by_its_number_and_the_rest_is_in() {
    let scenario = Scenario::new();
    let lines = scenario.lines(3);
    let of = |number: usize| lines.lines().nth(number).unwrap();
    let other = Digest::sha256(b"other").to_string();
    let bad = [
        of(0).to_owned(),
        "{\"repository\": 1}".to_owned(),
        String::new(),
        of(1).replace(&digest().to_string(), &other),
        "x".repeat(export_format::MAX_LINE_BYTES + 1),
        of(1).replacen("\"content\":\"", "\"content\":\"!", 1),
        of(1).to_owned(),
        of(2)[..200].to_owned(),
    ]
    .join("\n");
    let file = scenario.folder.write("bad.ndjson", &bad).display().to_string();
    let check = |imported: &Value| {
        let lines: Vec<u64> =
            imported["reasons"].as_array().unwrap().iter().map(|reason| reason["line"].as_u64().unwrap()).collect();
        assert_eq!(lines, [2, 4, 5, 6, 8], "{imported}");
        let reason = |number: usize| imported["reasons"][number]["reason"].as_str().unwrap();
        assert!(reason(1).contains("another digest") && reason(2).contains("more than"), "{imported}");
        assert!(reason(3).contains("base64") && reason(4).contains("cut off"), "{imported}");
        assert_eq!(imported["refused"], 5);
    };
    let running = open_store();
    let stopped = format!("redb:{}", scenario.path("stopped.redb"));
    let dry = sealgate_store(&["import", &stopped, &file, "--dry-run"]).json(1);
    assert_eq!(dry["good"], 2);
    check(&dry);
    assert!(!Path::new(&scenario.path("stopped.redb")).exists(), "nothing is made");
    for store in [&[running.url().as_str(), INSECURE][..], &[stopped.as_str()]] {
        let imported = sealgate_store(&[&["import"][..], store, &[&file]].concat()).json(1);
        assert_eq!(imported["created"], 2);
        check(&imported);
    }
    // What a store refuses is named by its line, too.
    let content =
        BASE64_STANDARD.encode(scenario.gpg.sign_image(&scenario.key, &digest(), "registry.example.com/other:1"));
    let mut changed: Value = serde_json::from_str(of(0)).unwrap();
    changed["content"] = content.into();
    let text = format!("{}\n\n{changed}\n", of(1));
    for store in [&[running.url().as_str(), INSECURE][..], &[stopped.as_str()]] {
        let imported = with_input(&[&["import"][..], store, &["-"]].concat(), text.as_bytes()).json(1);
        assert_eq!((&imported["present"], &imported["reasons"][0]["line"]), (&json!(1), &json!(3)), "{imported}");
        assert!(imported["reasons"][0]["reason"].as_str().unwrap().contains("of this name"), "{imported}");
    }
}

#[test]
fn what_is_no_export_is_refused_whole_and_makes_no_store() {
    let scenario = Scenario::new();
    let stopped = scenario.stopped("other.redb", "");
    let redb = fs::read(stopped).unwrap();
    for (content, why) in [
        (&b"\x1f\x8b\x08\x00rest"[..], "gunzip"),
        (&redb, "a store's own file"),
        (b"apiVersion: v1\n", "no JSON object"),
        (b"", "it has no bytes"),
        (b"{\n\"signatures\": []\n}\n", "no JSON object"),
        (&vec![0; 300_000], "no JSON object"),
    ] {
        let file = scenario.folder.write("something", content).display().to_string();
        let store = format!("redb:{}", scenario.path("store.redb"));
        sealgate_store(&["import", &store, &file]).fails(1, why);
        assert!(!Path::new(&scenario.path("store.redb")).exists());
    }
    let store = format!("redb:{}", scenario.path("store.redb"));
    sealgate_store(&["import", &store, &scenario.path("none")]).fails(1, "none: No such file");
    sealgate_store(&["import", &store, "/dev/null"]).fails(1, "not a regular file");
    sealgate_store(&["import", &store, &scenario.path("none"), "--dry-run"]).fails(1, "none: No such file");
}
