//! Keys: named, locked, expired and revoked ones, subkeys, files, and agents that fail.

use super::*;

#[tokio::test]
async fn variables_of_a_terminal_or_display_that_are_empty_keep_nobody_from_signing() {
    let scenario = Scenario::new();
    scenario.registry.push("acme/web", "1", "one").await;
    let names = ["GPG_TTY", "DISPLAY", "TERM", "XAUTHORITY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "LC_ALL"];
    let one_by_one = names.iter().map(|name| vec![*name]);
    for empty in one_by_one.chain([names.to_vec()]) {
        let mut command = Command::new(SEALGATE);
        command.args([
            "sign",
            "--tls-verify=false",
            "--renew",
            &scenario.image("acme/web:1"),
            "--sign-by",
            &scenario.key,
        ]);
        command.env("GNUPGHOME", scenario.gpg.home());
        for name in &empty {
            command.env(name, "");
        }
        let output = Answer::of(&mut command);
        assert_eq!(output.status, 0, "{empty:?}: {}", output.stderr);
    }
    scenario.skopeo_takes(&scenario.image("acme/web:1"), &[]).unwrap();
}

#[tokio::test]
async fn keys_that_can_not_sign_are_refused_before_anything_is_written() {
    let scenario = Scenario::new();
    let pushed = scenario.registry.push("acme/web", "1", "one").await;
    let image = scenario.image("acme/web:1");
    scenario.sign(&image, &["--sign-by", expired_key(&scenario.gpg)]).fails_with(1, "expired at 2020-12-31");
    let revoked = revoked_key(&scenario.gpg);
    scenario.sign(&image, &["--sign-by", &revoked]).fails_with(1, &format!("key 0x{revoked} is revoked"));
    scenario.sign(&image, &["--sign-by", "nobody@example.com"]).fails_with(1, "no key of nobody@example.com");
    scenario.sign(&image, &["--sign-by", "DEADBEEF"]).fails_with(2, "short key ID");
    scenario.sign(&image, &["--sign-by", "release"]).fails_with(2, "expected a fingerprint");
    scenario.gpg.generate("Other <release@example.com>");
    scenario.sign(&image, &["--sign-by", "release@example.com"]).fails_with(2, "names several keys");
    // A public key alone: the agent has nothing to sign with.
    let stranger = Gpg::new();
    let theirs = stranger.generate("Stranger <stranger@example.com>");
    scenario.gpg.run(&["--import"], &stranger.export(&theirs));
    scenario.sign(&image, &["--sign-by", &theirs]).fails_with(1, "is not here");
    let missing = sealgate_with_keys(
        Path::new("/nonexistent"),
        &["sign", "--tls-verify=false", &image, "--sign-by", &scenario.key],
    );
    missing.fails_with(2, "there is no GnuPG folder /nonexistent");
    let list = scenario.list("acme/web", &pushed.digest).await;
    assert_eq!(list["signatures"].as_array().unwrap().len(), 0);
}

/// A key with the passphrase `secret`, and an agent that asks for it with this pinentry, whose answer to GETPIN is given.
fn lock(scenario: &Scenario, answer: &str) -> &'static str {
    let script = format!(
        "#!/bin/sh\necho OK\nwhile read -r line; do case $line in GETPIN*) printf '{answer}';; BYE*) echo OK; exit;; *) \
         echo OK;; esac; done\n"
    );
    let pinentry = scenario.folder.write("pinentry", script).display().to_string();
    crate::support::run("chmod", ["755", &pinentry]);
    let configuration = format!("pinentry-program {pinentry}\nallow-loopback-pinentry\nmax-cache-ttl 0\n");
    fs::write(scenario.gpg.home().join("gpg-agent.conf"), configuration).expect("a file can be written");
    let home = scenario.gpg.home().display().to_string();
    let restart = || crate::support::run("gpgconf", ["--homedir", &home, "--kill", "gpg-agent"]);
    restart();
    let passphrase = ["--pinentry-mode", "loopback", "--passphrase", "secret"];
    let make = ["--quick-generate-key", "Locked <locked@example.com>", "ed25519", "sign", "never"];
    scenario.gpg.run(&[&passphrase[..], &make].concat(), b"");
    restart();
    "locked@example.com"
}

#[tokio::test]
async fn a_locked_key_that_nobody_unlocks_does_not_sign() {
    // The pinentry is cancelled, or gets a wrong passphrase as often as it asks.
    let answers = [("ERR 83886179 cancelled\\n", "Operation cancelled"), ("D Secret\\nOK\\n", "Bad passphrase")];
    for (answer, text) in answers {
        let scenario = Scenario::new();
        let pushed = scenario.registry.push("acme/web", "1", "one").await;
        let key = lock(&scenario, answer);
        let output = scenario.sign(&scenario.image("acme/web:1"), &["--sign-by", key]);
        output.fails_with(3, "did not sign: ");
        output.fails_with(3, text);
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
        assert!(output.stderr.contains("nothing is written"), "{}", output.stderr);
        let list = scenario.list("acme/web", &pushed.digest).await;
        assert_eq!(list["signatures"], serde_json::json!([]));
    }
}

#[tokio::test]
async fn without_gnupg_there_is_one_clear_message() {
    let scenario = Scenario::new();
    scenario.registry.push("acme/web", "1", "one").await;
    let output = Answer::of(
        Command::new(SEALGATE)
            .args(["sign", "--tls-verify=false", &scenario.image("acme/web:1"), "--sign-by", &scenario.key])
            .env("GNUPGHOME", scenario.gpg.home())
            .env("PATH", scenario.folder.path()),
    );
    output.fails_with(3, "gpg-agent can't be asked: ");
    assert!(output.stderr.contains("is GnuPG installed"), "{}", output.stderr);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
}

/// Adds a subkey, and gives its fingerprint.
fn add_subkey(scenario: &Scenario, algorithm: &str, usage: &str) -> String {
    let subkeys = || -> Vec<String> {
        let listed = scenario.gpg.run(&["--with-colons", "--list-keys", &scenario.key], b"");
        let listed = String::from_utf8(listed).expect("text");
        let lines = listed.lines().filter(|line| line.starts_with("fpr:"));
        lines.map(|line| line.split(':').nth(9).expect("ten fields").to_owned()).collect()
    };
    let before = subkeys();
    let loopback = ["--pinentry-mode", "loopback", "--passphrase", ""];
    scenario.gpg.run(&[&loopback[..], &["--quick-add-key", &scenario.key, algorithm, usage, "never"]].concat(), b"");
    subkeys().into_iter().find(|subkey| !before.contains(subkey)).expect("there is one more")
}

#[tokio::test]
async fn a_subkey_signs_where_it_is_named_and_none_that_can_not() {
    let scenario = Scenario::new();
    let subkeys = [add_subkey(&scenario, "ed25519", "sign"), add_subkey(&scenario, "ed25519", "sign")];
    let encryption = add_subkey(&scenario, "cv25519", "encr");
    scenario.gpg.export_to(&scenario.key, scenario.folder.path().join("release.asc"));
    for (number, subkey) in subkeys.iter().enumerate() {
        for (form, by) in [subkey.as_str(), &subkey[24..]].into_iter().enumerate() {
            let pushed = scenario.registry.push("acme/web", "1", &format!("{number} {form}")).await;
            let image = scenario.image("acme/web:1");
            let report = scenario.signed(&image, &["--sign-by", by]);
            assert_eq!(report["key"], scenario.key, "a policy names the certificate");
            let list = scenario.list("acme/web", &pushed.digest).await;
            let message = BASE64_STANDARD.decode(list["signatures"][0]["content"].as_str().unwrap()).unwrap();
            let status = scenario.gpg.run(&["--status-fd", "1", "--decrypt"], &message);
            let status = String::from_utf8_lossy(&status).into_owned();
            assert!(status.contains(&format!("[GNUPG:] VALIDSIG {subkey} ")), "{by}: {status}");
            assert_eq!(scenario.verify(&image, "", &[])["verdict"], "verified");
        }
    }
    let image = scenario.image("acme/web:1");
    for by in [encryption.as_str(), &encryption[24..]] {
        let output = scenario.sign(&image, &["--sign-by", by]);
        output.fails_with(1, &format!("key 0x{encryption} is not made for signing"));
    }
}

#[tokio::test]
async fn a_key_file_signs_without_an_agent() {
    let scenario = Scenario::new();
    scenario.registry.push("acme/web", "1", "one").await;
    let image = scenario.image("acme/web:1");
    let owner = Gpg::new();
    owner.run(
        &[
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "secret",
            "--quick-generate-key",
            "CI <ci@example.com>",
            "rsa3072",
            "sign",
            "never",
        ],
        b"",
    );
    let secret =
        owner.run(&["--pinentry-mode", "loopback", "--passphrase", "secret", "--armor", "--export-secret-keys"], b"");
    let key = scenario.folder.write("ci.key", secret).display().to_string();
    let good = scenario.folder.write("passphrase", "secret\n").display().to_string();
    let bad = scenario.folder.write("wrong", "Secret\n").display().to_string();
    scenario.sign(&image, &["--key-file", &key]).fails_with(2, "--passphrase-file");
    scenario.sign(&image, &["--key-file", &key, "--passphrase-file", &bad]).fails_with(1, "is wrong");
    assert_eq!(
        scenario.signed(&image, &["--key-file", &key, "--passphrase-file", &good])["signatures"][0]["outcome"],
        "signed"
    );
    fs::write(scenario.folder.path().join("release.asc"), owner.export("ci@example.com")).unwrap();
    scenario.skopeo_takes(&image, &[]).unwrap();
}

#[test]
fn a_keybox_that_is_cut_off_anywhere_ends_with_a_result() {
    let gpg = Gpg::new();
    let key = gpg.generate("Release <release@example.com>");
    let keybox = fs::read(gpg.home().join("pubring.kbx")).unwrap();
    let folder = Scratch::new();
    let read = |bytes: &[u8]| {
        folder.write("pubring.kbx", bytes);
        Gnupg::at(folder.path().to_owned()).unwrap().certificates()
    };
    let found = read(&keybox).unwrap();
    assert_eq!(found.iter().map(|found| found.fingerprint().0.to_string()).collect::<Vec<_>>(), [key]);
    for length in 0..keybox.len() {
        match read(&keybox[..length]) {
            Ok(certificates) => assert!(certificates.is_empty(), "{length}"),
            Err(error) => assert!(error.to_string().contains("keybox of GnuPG"), "{length}: {error}"),
        }
    }
}

#[tokio::test]
async fn an_agent_that_keeps_silent_is_not_waited_for_for_ever() {
    let scenario = Scenario::new();
    scenario.registry.push("acme/web", "1", "one").await;
    let home = scenario.gpg.home().display().to_string();
    crate::support::run("gpgconf", ["--homedir", &home, "--kill", "gpg-agent"]);
    let listed = Command::new("gpgconf").args(["--homedir", &home, "--list-dirs", "agent-socket"]).output().unwrap();
    let socket = String::from_utf8(listed.stdout).unwrap().trim().to_owned();
    let _ = fs::remove_file(&socket);
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let output = scenario.sign(&scenario.image("acme/web:1"), &["--sign-by", &scenario.key]);
    output.fails_with(3, "gpg-agent can't be asked: it has not answered within 15 s");
}
