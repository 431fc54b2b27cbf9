//! Credentials of the person who calls: where login tools put them, and from credential helpers.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sealgate::{
    configuration::{Credentials, Registry},
    refusal::LookupError,
};

use crate::{
    registry::{client, plain, resolve},
    support::{Answer, DockerRegistry, Gpg, Liar, Reply, SEALGATE, Scratch, run},
};

/// A real registry that wants a password, with an image in it, and a home of somebody's.
struct Scenario {
    registry: DockerRegistry,
    home: Scratch,
}

const GOOD: &str = "robot:right";

fn auths(host: &str, login: &str) -> String {
    format!(r#"{{"auths": {{"{host}": {{"auth": "{}"}}}}}}"#, BASE64_STANDARD.encode(login))
}

impl Scenario {
    async fn new() -> Self {
        let home = Scratch::new();
        let htpasswd = home.write("htpasswd", run("htpasswd", ["-nbB", "-C4", "robot", "right"]).stdout);
        let mut registry = DockerRegistry::start();
        registry.push("acme/web", "1", "one").await;
        registry.stop();
        registry.restart_with(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}", htpasswd.display()));
        home.write("policy.yaml", format!(
            "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {{name: p}}\nspec:\n  keys: {{}}\n  rules:\n  - \
             {{name: all, images: ['{}'], allow: {{reason: test}}}}\n",
            registry.host()
        ));
        Self { registry, home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn auths(&self, login: &str) -> String {
        auths(self.registry.host(), login)
    }

    /// `signatures list` of the image, with these variables and nothing else of the environment.
    fn list(&self, variables: &[(&str, &Path)], more: &[&str]) -> Answer {
        Answer::of(
            Command::new(SEALGATE)
                .args(["signatures", "list", "--tls-verify=false", &format!("{}/acme/web:1", self.registry.host())])
                .args(more)
                .env_clear()
                .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
                .envs(variables.iter().copied()),
        )
    }

    /// A credential helper that notes what it is asked, and runs these lines.
    fn helper(&self, name: &str, lines: &str) {
        let asked = self.path("asked");
        let script = format!(
            "#!/bin/sh\nserver=$(cat)\necho \"{name} $1 $server\" >>{asked}\n{lines}\n",
            asked = asked.display()
        );
        let path = self.home.write(&format!("bin/docker-credential-{name}"), script);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }

    /// What helpers were asked.
    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

const KNOWS: &str = r#"printf '{"ServerURL":"%s","Username":"robot","Secret":"right"}' "$server""#;
const NOT_FOUND: &str = "echo 'credentials not found in native keychain'; exit 1";

#[tokio::test]
async fn credentials_are_found_where_login_tools_put_them() {
    let scenario = Scenario::new().await;
    let home = scenario.home.path();
    let (runtime, docker) = (scenario.path("run"), scenario.path("docker"));
    let old = format!(r#"{{"{}": {{"auth": "{}"}}}}"#, scenario.registry.host(), BASE64_STANDARD.encode(GOOD));
    for (file, variables) in [
        ("run/containers/auth.json", &[("XDG_RUNTIME_DIR", runtime.as_path())][..]),
        (".config/containers/auth.json", &[("HOME", home), ("XDG_RUNTIME_DIR", &runtime)]),
        (".docker/config.json", &[("HOME", home)]),
        ("docker/config.json", &[("HOME", home), ("DOCKER_CONFIG", &docker)]),
        ("named.json", &[("HOME", home), ("REGISTRY_AUTH_FILE", &scenario.path("named.json"))]),
        (".dockercfg", &[("HOME", home)]),
    ] {
        let without = scenario.list(variables, &[]);
        assert_eq!(without.status, 1, "{file}: {}", without.text);
        // Every place that was looked at is named.
        let path = scenario.path(file).display().to_string();
        assert!(without.text.contains("answers 401") && without.text.contains(&path), "{file}: {}", without.text);
        let text = if file == ".dockercfg" { old.clone() } else { scenario.auths(GOOD) };
        let written = scenario.home.write(file, text);
        let with = scenario.list(variables, &[]);
        assert_eq!(with.status, 0, "{file}: {}", with.text);
        fs::remove_file(written).unwrap();
    }
}

#[tokio::test]
async fn what_skopeo_login_writes_is_found() {
    let scenario = Scenario::new().await;
    let runtime = scenario.path("run");
    fs::create_dir(&runtime).unwrap();
    let variables = [("HOME", scenario.home.path()), ("XDG_RUNTIME_DIR", runtime.as_path())];
    let login = Command::new("skopeo")
        .args(["login", "--tls-verify=false", "--username", "robot", "--password", "right", scenario.registry.host()])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(variables)
        .output()
        .expect("skopeo can be started");
    assert!(login.status.success(), "{}", String::from_utf8_lossy(&login.stderr));
    assert!(runtime.join("containers/auth.json").exists());
    let answer = scenario.list(&variables, &[]);
    assert_eq!(answer.status, 0, "{}", answer.text);
}

#[tokio::test]
async fn the_first_file_that_has_credentials_decides_and_what_is_given_goes_before_all() {
    let scenario = Scenario::new().await;
    let home = scenario.home.path();
    let runtime = scenario.path("run");
    let both = [("HOME", home), ("XDG_RUNTIME_DIR", runtime.as_path())];
    scenario.home.write(".docker/config.json", scenario.auths(GOOD));
    scenario.home.write("run/containers/auth.json", auths("other.example.com", "x:y"));
    assert_eq!(scenario.list(&both, &[]).status, 0, "a file without this registry is passed over");
    scenario.home.write("run/containers/auth.json", scenario.auths("robot:wrong"));
    let wrong = scenario.list(&both, &[]);
    assert_eq!(wrong.status, 1);
    assert!(wrong.text.contains("do not suffice"), "{}", wrong.text);
    assert_eq!(scenario.list(&both, &["--creds", GOOD]).status, 0);
    let named = scenario.home.write("named.json", scenario.auths(GOOD)).display().to_string();
    assert_eq!(scenario.list(&both, &["--authfile", &named]).status, 0);
    let empty = scenario.home.write("empty.json", "{}").display().to_string();
    let only = scenario.list(&[("HOME", home)], &["--authfile", &empty]);
    assert_eq!(only.status, 1, "the others are not looked at");
    assert!(only.text.contains(&empty) && !only.text.contains(".docker"), "{}", only.text);
    let password = scenario.home.write("password", "right");
    let config = format!(
        "apiVersion: sealgate.dev/v1\nkind: Configuration\nregistries:\n- scope: '{}'\n  insecure: true\n  credentials: {{username: \
         robot, passwordFile: {}}}\n",
        scenario.registry.host(),
        password.display()
    );
    let config = scenario.home.write("sealgate.yaml", config).display().to_string();
    assert_eq!(scenario.list(&both, &["--config", &config]).status, 0, "so does a configuration's entry");
    // What can't be read is not passed over: it may be what was meant.
    scenario.home.write("run/containers/auth.json", "{");
    let broken = scenario.list(&both, &[]);
    assert_eq!(broken.status, 3);
    assert!(broken.text.contains("run/containers/auth.json is not a Docker configuration file"), "{}", broken.text);
}

#[tokio::test]
async fn credential_helpers_are_asked() {
    let scenario = Scenario::new().await;
    let host = scenario.registry.host().to_owned();
    let home = [("HOME", scenario.home.path())];
    scenario.helper("knows", KNOWS);
    scenario.helper("none", NOT_FOUND);
    for (config, asked) in [
        (r#"{"credsStore": "knows"}"#.to_owned(), vec![format!("knows get {host}")]),
        (format!(r#"{{"auths": {{"{host}": {{}}}}, "credsStore": "knows"}}"#), vec![format!("knows get {host}")]),
        (
            format!(r#"{{"credHelpers": {{"{host}": "knows"}}, "credsStore": "none"}}"#),
            vec![format!("knows get {host}")],
        ),
        (
            r#"{"credHelpers": {"other.example.com": "none"}, "credsStore": "knows"}"#.to_owned(),
            vec![format!("knows get {host}")],
        ),
    ] {
        scenario.home.write(".docker/config.json", &config);
        let answer = scenario.list(&home, &[]);
        assert_eq!(answer.status, 0, "{config}: {}", answer.text);
        assert_eq!(scenario.asked(), asked, "once, whatever it is needed for: {config}");
        fs::remove_file(scenario.path("asked")).unwrap();
        let named = scenario.path(".docker/config.json").display().to_string();
        assert_eq!(scenario.list(&[], &["--authfile", &named]).status, 0, "{config}");
        fs::remove_file(scenario.path("asked")).unwrap();
    }
    // One that has none leaves it to the next file.
    scenario.home.write(".docker/config.json", r#"{"credsStore": "none"}"#);
    let none = scenario.list(&home, &[]);
    assert_eq!(none.status, 1);
    assert!(none.text.contains("credentials are needed") && none.text.contains(".docker/config.json"), "{}", none.text);
    scenario.home.write(".config/containers/auth.json", r#"{"credsStore": "none"}"#);
    scenario.home.write(".docker/config.json", scenario.auths(GOOD));
    assert_eq!(scenario.list(&home, &[]).status, 0);
}

/// Runs a command with the home of the scenario, this folder of GnuPG, and nothing else of the environment.
fn command(scenario: &Scenario, arguments: &[&str], gnupg: &Path) -> Answer {
    Answer::of(
        Command::new(SEALGATE)
            .args(arguments)
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", scenario.path("bin").display()))
            .env("HOME", scenario.home.path())
            .env("GNUPGHOME", gnupg),
    )
}

const REMEDY: &str = "log in again (docker login, podman login), or give other credentials (--creds, --authfile)";

#[tokio::test]
async fn a_helper_that_fails_says_which_one_and_why_and_no_name_is_a_command() {
    let scenario = Scenario::new().await;
    let home = [("HOME", scenario.home.path())];
    scenario.helper("fails", "echo 'the keyring is locked'; exit 5");
    scenario.helper("leaks", r#"printf '{"Username":"robot","Secret":"s3cret"}'; exit 1"#);
    scenario.helper("turns", r"printf 'no \033[31mkeyring \342\200\256'; exit 1");
    scenario.helper("tells", "echo 'https://robot:s3cret@vault.example.com/?token=s3cret is sealed'; exit 2");
    scenario.helper("other", "echo s3cret");
    let file = scenario.path(".docker/config.json").display().to_string();
    let evil = scenario.path("evil").display().to_string();
    for (name, words) in [
        ("fails".to_owned(), "docker-credential-fails fails (exit status: 5): the keyring is locked"),
        ("leaks".to_owned(), "docker-credential-leaks fails (exit status: 1), and what it says is not repeated"),
        ("turns".to_owned(), r"docker-credential-turns fails (exit status: 1): no \u{1b}[31mkeyring \u{202e}"),
        ("tells".to_owned(), "docker-credential-tells fails (exit status: 2): https://"),
        ("other".to_owned(), "docker-credential-other answers something else than credentials"),
        ("gone".to_owned(), "docker-credential-gone can't be started from the PATH: No such file"),
        (format!("x; touch {evil}"), "has no name of letters"),
        ("../bin/docker-credential-fails".to_owned(), "has no name of letters"),
    ] {
        scenario.home.write(".docker/config.json", serde_json::json!({"credsStore": name}).to_string());
        let answer = scenario.list(&home, &[]);
        assert_eq!(answer.status, 3, "{name}: {}", answer.text);
        for words in [words, &file, scenario.registry.host(), REMEDY] {
            assert!(answer.text.contains(words), "{name}: {words}: {}", answer.text);
        }
        assert!(!answer.text.contains("s3cret") && !answer.text.contains("the log says"), "{name}: {}", answer.text);
        assert_eq!(answer.text.trim_end().lines().count(), 1, "{name}: {}", answer.text);
    }
    assert!(!Path::new(&evil).exists());
}

#[tokio::test]
async fn every_command_says_in_its_error_which_login_file_or_helper_fails() {
    let scenario = Scenario::new().await;
    let image = format!("{}/acme/web:1", scenario.registry.host());
    scenario.helper("fails", "echo 'the keyring is locked'; exit 5");
    let layout = scenario.path("layout");
    let copied = Command::new("skopeo")
        .args(["copy", "--insecure-policy", "--src-tls-verify=false", "--src-creds", GOOD])
        .args([format!("docker://{image}"), format!("oci:{}:1", layout.display())])
        .output()
        .expect("skopeo can be started");
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let source = format!("oci:{}:1", layout.display());
    let policy = scenario.home.write(
        "require.yaml",
        format!(
            "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {{name: p}}\nspec:\n  keys: {{k: {{file: k.asc}}}}\n  \
             rules:\n  - {{name: all, images: ['{}'], require: [{{signedBy: [k]}}]}}\n",
            scenario.registry.host()
        ),
    );
    let gpg = Gpg::new();
    let key = gpg.generate("Release <release@example.com>");
    scenario.home.write("k.asc", gpg.export(&key));
    let to = scenario.path("signatures").display().to_string();
    let policy = policy.display().to_string();
    let file = scenario.path(".docker/config.json");
    let shown = file.display().to_string();
    for (name, content, words) in [
        (
            "a helper",
            br#"{"credsStore": "fails"}"#.to_vec(),
            "docker-credential-fails fails (exit status: 5): the keyring is locked",
        ),
        ("no JSON", b"{".to_vec(), "is not a Docker configuration file"),
        ("no text", vec![0xff; 9], "must hold text"),
        ("too much", vec![b' '; 2 << 20], "it has more than 1048576 bytes"),
        ("a folder", Vec::new(), "this is not a file"),
        (
            "no base64",
            format!(r#"{{"auths": {{"{}": {{"auth": "s3cret!"}}}}}}"#, scenario.registry.host()).into_bytes(),
            "the entry for this registry is not base64 of name:password",
        ),
    ] {
        let _ = fs::remove_file(&file);
        if name == "a folder" {
            fs::create_dir(&file).unwrap();
        } else {
            scenario.home.write(".docker/config.json", content);
        }
        for arguments in [
            &["signatures", "list", &image][..],
            &["verify", &image, "--policy", &policy],
            &["verify", &image, "--policy", &policy, "-o", "json"],
            &["sign", &image, "--sign-by", "release@example.com", "--to", &to],
            &["push", &source, &image, "--sign-by", "release@example.com", "--to", &to],
        ] {
            let answer = command(&scenario, &[arguments, &["--tls-verify=false"]].concat(), gpg.home());
            assert_eq!(answer.status, 3, "{name} {arguments:?}: {}", answer.text);
            for words in [words, &shown, REMEDY] {
                assert!(answer.text.contains(words), "{name} {arguments:?}: {words}: {}", answer.text);
            }
            assert!(!answer.text.contains("s3cret") && !answer.text.contains("the log"), "{name}: {}", answer.text);
            if arguments.contains(&"json") {
                assert!(answer.text.contains(r#""code": "registry-unauthorized""#), "{name}: {}", answer.text);
            }
        }
        if name == "a folder" {
            fs::remove_dir(&file).unwrap();
        }
    }
    assert_eq!(scenario.asked().len(), 5, "no command asks a helper again that failed");
}

#[tokio::test]
async fn a_file_that_a_configuration_names_is_named_where_a_command_can_not_use_it() {
    let scenario = Scenario::new().await;
    let gone = scenario.path("gone").display().to_string();
    let broken = scenario.home.write("broken.json", "{").display().to_string();
    for (credentials, words) in [
        (format!("{{username: robot, passwordFile: {gone}}}"), format!("{gone}: there is no such file")),
        (format!("{{dockerConfig: {broken}}}"), format!("{broken} is not a Docker configuration file")),
    ] {
        let config = format!(
            "apiVersion: sealgate.dev/v1\nkind: Configuration\nregistries:\n- {{scope: '{}', insecure: true, credentials: \
             {credentials}}}\n",
            scenario.registry.host()
        );
        let config = scenario.home.write("sealgate.yaml", config).display().to_string();
        let answer = scenario.list(&[("HOME", scenario.home.path())], &["--config", &config]);
        assert_eq!(answer.status, 3, "{}", answer.text);
        assert!(answer.text.contains(&words) && !answer.text.contains("the log says"), "{}", answer.text);
    }
    // A denial of the gate goes to those who create pods: its log has the file.
    let gate = Registry {
        credentials: Some(Credentials::DockerConfig(broken.clone().into())),
        ..plain(scenario.registry.host())
    };
    let outcome = resolve(&client(vec![gate]), &format!("{}/acme/web:1", scenario.registry.host())).await.unwrap_err();
    assert!(matches!(outcome, LookupError::Unavailable { .. }) && !outcome.to_string().contains(&broken), "{outcome}");
}

#[tokio::test]
async fn a_helper_that_fails_is_named_where_a_token_is_to_be_asked_for() {
    let scenario = Scenario::new().await;
    scenario.helper("fails", "echo 'the keyring is locked'; exit 5");
    scenario.home.write(".docker/config.json", r#"{"credsStore": "fails"}"#);
    let registry = Liar::start(|asked| {
        let realm = format!("Bearer realm=\"http://{}/token\"", asked.header("host").unwrap_or_default());
        Reply::new(401, &[("www-authenticate", realm.as_str())], "")
    });
    let image = format!("{}/acme/web:1", registry.host());
    let answer = command(&scenario, &["signatures", "list", &image, "--tls-verify=false"], scenario.home.path());
    assert_eq!(answer.status, 3, "{}", answer.text);
    assert!(
        answer.text.contains("docker-credential-fails fails (exit status: 5): the keyring is locked"),
        "{}",
        answer.text
    );
    assert!(registry.asked().iter().all(|asked| !asked.path.contains("token")), "nothing is asked without credentials");
}

/// What an operator configures is read as it is: no program is run, and nobody's login files are looked at.
#[tokio::test]
async fn the_gate_reads_configured_files_alone_and_executes_nothing() {
    let scenario = Scenario::new().await;
    let host = scenario.registry.host().to_owned();
    scenario.helper("knows", KNOWS);
    let config = scenario.home.write(
        "config.json",
        format!(r#"{{"auths": {{"{host}": {{}}}}, "credHelpers": {{"{host}": "knows"}}, "credsStore": "knows"}}"#),
    );
    // In this process, a helper that is run would be found.
    let helper = scenario.path("bin/docker-credential-knows");
    let found = run("sh", ["-c", &format!("echo {host} | {} get", helper.display())]);
    assert!(String::from_utf8_lossy(&found.stdout).contains("robot"));
    fs::remove_file(scenario.path("asked")).unwrap();
    let with = client(vec![Registry { credentials: Some(Credentials::DockerConfig(config.clone())), ..plain(&host) }]);
    let outcome = resolve(&with, &format!("{host}/acme/web:1")).await;
    assert!(
        matches!(outcome, Err(LookupError::Unauthorized { with_credentials: false, looked_in: None, .. })),
        "{outcome:?}"
    );

    // The program itself, with everything around that would lead it astray: `verify` with a configuration is the gate's engine
    // with a person's login files, `serve` has none.
    scenario.home.write(".docker/config.json", scenario.auths(GOOD));
    let password = scenario.home.write("sealgate.yaml", format!(
        "apiVersion: sealgate.dev/v1\nkind: Configuration\npolicies: policy.yaml\nregistries:\n- scope: '{host}'\n  insecure: true\n  \
         credentials: {{dockerConfig: {}}}\n",
        config.display()
    ));
    let configuration = sealgate::files::load_configuration(&password).unwrap();
    assert_eq!(configuration.registries.logins, None);
    let entries: Vec<_> = configuration.registries.entries.iter().map(|(_, entry)| entry.credentials.clone()).collect();
    assert!(matches!(entries[..], [Some(Credentials::DockerConfig(_))]), "{entries:?}");
    let answer = scenario.list(&[("HOME", scenario.home.path())], &["--config", &password.display().to_string()]);
    assert_eq!(answer.status, 1, "what a configuration names has no helpers run: {}", answer.text);
    assert!(scenario.asked().is_empty(), "{:?}", scenario.asked());
}
