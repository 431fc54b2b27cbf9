//! The helpers themselves.

use super::{DockerRegistry, Gpg, Scratch, accept_anything, follow, skopeo};

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

/// Types the lines of a console block.
fn type_lines(lines: &str) {
    follow(&format!("```console\n{lines}```\n"), Scratch::new().path(), &[]);
}

#[test]
fn a_session_answers_line_by_line_with_any_text_where_the_page_has_dots() {
    type_lines(
        "$ cat >file <<'EOF'\n> one\n> two\n> EOF\n$ cat file\none\ntwo\n$ seq 9\n1\n...\n9\n\
         $ x=5; echo \"at $x o'clock\"; false || echo $?\nat ... o'clock\n1\n$ true\n",
    );
}

#[test]
#[should_panic(expected = "$ seq 2\n--- expected:\n1\n--- printed:\n1\n2\n")]
fn a_session_that_prints_more_than_its_page_says_fails() {
    type_lines("$ true\n$ seq 2\n1\n");
}

#[test]
#[should_panic(expected = "$ ls nothing\n--- expected:\n--- printed:\nls: ")]
fn a_session_whose_command_complains_fails() {
    type_lines("$ ls nothing\n");
}
