//! Exports that are interrupted, taken up, or meet connections that break.

use super::*;

#[test]
fn an_export_that_was_interrupted_goes_on_behind_the_last_line_that_is_whole() {
    let scenario = Scenario::new();
    let lines = scenario.lines(5);
    let all: Vec<String> = lines.split_inclusive('\n').map(str::to_owned).collect();
    let hangs = Arc::new(AtomicBool::new(true));
    let store = {
        let (all, hangs) = (all.clone(), Arc::clone(&hangs));
        Liar::start(move |asked| {
            let behind = |line: &String| {
                let name = &line.split("\"name\":\"").nth(1).unwrap()[..32];
                asked.path.contains(&format!("%2F{name}"))
            };
            let next = all.iter().position(behind).map_or(0, |last| last + 1);
            match all.get(next..(next + 2).min(all.len())) {
                _ if next == 2 && hangs.load(Ordering::SeqCst) => Reply::Drip(
                    b"HTTP/1.1 200 X\r\ncontent-type: application/x-ndjson\r\ncontent-length: 99999\r\n\r\n".to_vec(),
                ),
                page => Reply::new(200, &[NDJSON], page.unwrap_or_default().concat()),
            }
        })
    };
    let (url, backup) = (format!("http://{}", store.host()), scenario.path("backup.ndjson"));
    let export = ["store", "export", INSECURE, &url, &backup];
    let mut interrupted = Process::start(Command::new(SEALGATE).args(export));
    let partial = wait_until("two lines", || {
        let mut there = fs::read_dir(scenario.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        there.find(|path| {
            let is_partial = path.extension().is_some_and(|extension| extension == "partial");
            is_partial && fs::read_to_string(path).unwrap() == all[..2].concat()
        })
    });
    // One at a time.
    sealgate_store(&export[1..]).fails(3, "another export writes this file");
    interrupted.signal("INT");
    assert_eq!(interrupted.wait().code(), Some(3));
    interrupted
        .wait_for("how far it came", |printed| printed.contains("interrupted (2 signatures are in").then_some(()));
    assert!(!Path::new(&backup).exists(), "half of a store does not look like all of it");
    // A part of a line, as a crash leaves it.
    fs::OpenOptions::new().append(true).open(&partial).unwrap().write_all(&all[2].as_bytes()[..99]).unwrap();
    hangs.store(false, Ordering::SeqCst);
    // Another store does not go on with it.
    let other = scenario.stopped("other.redb", "");
    assert_eq!(sealgate_store(&["export", &other.display().to_string(), &backup]).json(0)["signatures"], 0);
    fs::remove_file(&backup).unwrap();
    let exported = sealgate_store(&export[1..]).json(0);
    assert_eq!((&exported["signatures"], &exported["resumed"]), (&json!(5), &json!(2)));
    assert_eq!(fs::read_to_string(&backup).unwrap(), lines);
    assert!(!partial.exists());
    // What is there is not replaced.
    sealgate_store(&export[1..]).fails(1, "backup.ndjson: this is there already");
}

#[test]
fn an_export_that_was_begun_long_ago_is_not_taken_up_unasked() {
    let scenario = Scenario::new();
    let lines = scenario.lines(3);
    let stopped = scenario.stopped("stopped.redb", &lines);
    let (store, backup) = (stopped.display().to_string(), scenario.path("backup.ndjson"));
    // One signature that was removed since, and one before which others were added.
    let left = lines_of([(image(1), record(0, &scenario.content())), (image(1), record(1, &scenario.content()))]);
    let partial_of_store = &Digest::sha256(stopped.canonicalize().unwrap().display().to_string().as_bytes()).hex()[..8];
    let partial = |begun: &str| scenario.path(&format!("backup.ndjson.{partial_of_store}.{begun}.partial"));
    let old = partial("20260101T000000Z");
    fs::write(&old, &left).unwrap();
    let answer = sealgate_store(&["export", &store, &backup]);
    assert_eq!(answer.json(0)["resumed"], 0);
    assert!(
        answer.stderr.contains("begins anew: an earlier export, begun at 2026-01-01T00:00:00Z"),
        "{}",
        answer.stderr
    );
    assert_eq!(fs::read_to_string(&backup).unwrap(), lines);
    assert!(!Path::new(&old).exists());
    fs::remove_file(&backup).unwrap();
    fs::write(&old, &left).unwrap();
    let resumed = sealgate_store(&["export", &store, &backup, "--resume"]).json(0);
    assert_eq!((&resumed["resumed"], &resumed["begun"]), (&json!(2), &json!("2026-01-01T00:00:00Z")));
    assert_eq!(fs::read_to_string(&backup).unwrap(), left + lines.split_inclusive('\n').next_back().unwrap());
    for to in ["-", scenario.folder.path().to_str().unwrap()] {
        sealgate_store(&["export", &store, to, "--resume"]).fails(2, "--resume goes on with a file");
    }
    // What somebody else has put there stays as it is.
    fs::remove_file(&backup).unwrap();
    let theirs = scenario.folder.write("theirs", "theirs");
    std::os::unix::fs::symlink(&theirs, partial("20260101T000000Z")).unwrap();
    sealgate_store(&["export", &store, &backup]).fails(1, "this is no unfinished export; move it away");
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
}

#[test]
fn a_store_that_another_process_has_leaves_no_file() {
    let scenario = Scenario::new();
    let stopped = scenario.stopped("stopped.redb", "");
    let _running = RedbStore::open(&stopped, ImageLimits::default()).unwrap();
    let folder = scenario.folder.path().join("backups");
    fs::create_dir(&folder).unwrap();
    let backup = folder.join("backup.ndjson").display().to_string();
    sealgate_store(&["export", &stopped.display().to_string(), &backup]).fails(3, "give the store's URL");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn an_export_bears_connections_that_break_as_long_as_it_moves_and_no_longer() {
    let scenario = Scenario::new();
    let lines = scenario.lines(2);
    let broken = Arc::new(AtomicUsize::new(0));
    let store = {
        let (lines, broken) = (lines.clone(), Arc::clone(&broken));
        Liar::start(move |asked| {
            let (first, second) = lines.split_at(lines.find('\n').unwrap() + 1);
            let behind = |number: usize| asked.path.contains(&format!("%2F{number:032}"));
            let page = if behind(1) {
                ""
            } else if behind(0) {
                second
            } else {
                first
            };
            // Each page comes whole at the seventh try only.
            if broken.fetch_add(1, Ordering::SeqCst) % 7 < 6 {
                let head =
                    format!("HTTP/1.1 200 X\r\ncontent-type: {}\r\ncontent-length: 5000\r\n\r\n{page}", NDJSON.1);
                return Reply::Raw(head.into_bytes());
            }
            Reply::new(200, &[NDJSON], page)
        })
    };
    let exported = with_input(&["export", INSECURE, &format!("http://{}", store.host()), "-"], b"");
    assert_eq!((exported.status, exported.stdout), (0, lines.clone()), "{}", exported.stderr);
    assert!(exported.stderr.contains("\"signatures\": 2"), "{}", exported.stderr);
    let store = Liar::start(|_| Reply::HangUp);
    let backup = scenario.path("backup.ndjson");
    sealgate_store(&["export", INSECURE, &format!("http://{}", store.host()), &backup])
        .fails(3, "the connection ended");
    assert!(store.asked().len() < 30, "{}", store.asked().len());
    assert!(!Path::new(&backup).exists());
}
