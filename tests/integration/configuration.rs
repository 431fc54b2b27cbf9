//! The configuration: its documented examples, and what is refused.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use sealgate::{
    configuration::{Access, Certificate, Configuration, Credentials, Network, SignatureSource, Store, Users, load},
    diagnostic::Diagnostics,
    files::load_configuration,
    image::{Repository, Scope},
    policy::{Mode, SourceFile},
};

use crate::support::{Scratch, code_blocks};

const SMALLEST: &str = "apiVersion: sealgate.dev/v1\nkind: Configuration\n";

fn try_load(text: &str) -> Result<Configuration, String> {
    let file = SourceFile { name: "sealgate.yaml".into(), folder: "/etc/sealgate".into(), bytes: text.into() };
    load(&file).map_err(|mistakes| {
        assert!(!mistakes.is_empty());
        Diagnostics(&mistakes).to_string()
    })
}

fn loaded(text: &str) -> Configuration {
    try_load(text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"))
}

fn refused(rest: &str) -> String {
    try_load(&format!("{SMALLEST}{rest}")).expect_err(rest)
}

fn documented() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    code_blocks(&fs::read_to_string(path).expect("docs/configuration.md"), "yaml")
}

fn complete() -> String {
    documented().into_iter().max_by_key(String::len).expect("an example")
}

#[test]
fn the_documented_examples_load() {
    let examples = documented();
    assert!(examples.len() >= 2);
    for example in examples {
        loaded(&example);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    load_configuration(&root.join("manifests/base/configuration/sealgate.yaml"))
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_complete_example_says_what_it_seems_to_say() {
    let configuration = loaded(&complete());
    let file = |path: &str| PathBuf::from("/etc/sealgate").join(path);
    assert_eq!(configuration.policies, Some(file("policies")));
    assert_eq!(configuration.policy_max_stale, Some(Duration::from_hours(1)));
    assert_eq!(configuration.webhook.client_ca, Some(file("certs/apiserver-ca.crt")));
    assert_eq!(configuration.webhook.deadline, Duration::from_secs(8));
    assert_eq!(configuration.webhook.placeholders, ["auto".into()]);
    assert_eq!(configuration.metrics, Some(SocketAddr::from(([0, 0, 0, 0], 9090))));
    assert_eq!(configuration.health, Some(SocketAddr::from(([0, 0, 0, 0], 9091))));
    let repository = Repository::parse("registry.example.com/acme/web").expect("a repository");
    let registry = configuration.registries.entries.get_repository(&repository).expect("an entry");
    assert!(matches!(&registry.credentials, Some(Credentials::Password { username, password_file })
        if &**username == "robot" && *password_file == file("secrets/robot")));
    assert_eq!(registry.token_realms[0].as_str(), "https://login.example.com/");
    let sources = registry.signatures.as_deref().expect("sources");
    assert!(matches!(
        sources,
        [SignatureSource::RegistryExtension, SignatureSource::Extension(_), SignatureSource::Lookaside(_)]
    ));
    assert_eq!(&*registry.mirrors[0], "mirror.example.com/acme");
    let quay =
        configuration.registries.entries.get_exact(&Scope::parse("quay.io").expect("a scope")).expect("an entry");
    assert!(matches!(&quay.credentials, Some(Credentials::DockerConfig(path)) if *path == file("secrets/config.json")));
    let gateway = configuration.gateway.expect("a gateway");
    assert_eq!(gateway.store, Store::Redb(file("data/signatures.redb")));
    assert_eq!(gateway.registry.url.as_str(), "https://registry.example.com:5000/");
    let users = Users::Htpasswd { file: file("secrets/htpasswd"), roles: file("secrets/roles.yaml") };
    assert_eq!(gateway.access, Some(Access { users, token_key: Some(file("secrets/token.key")) }));
    assert_eq!(gateway.external_url.expect("an address").as_str(), "https://store.example.com/");
    assert_eq!(
        gateway.trusted_proxies,
        ["192.0.2.10", "2001:db8::10"].map(|text| Network::parse(text).expect("a network"))
    );
    assert_eq!(configuration.limits.review_bytes, 8 << 20);
}

#[test]
fn what_is_left_out_is_what_the_documentation_calls_the_default() {
    let default = loaded(SMALLEST);
    assert_eq!(default.policies, None);
    assert_eq!(default.policy_max_stale, None);
    assert!(!default.accept_anything_by_default);
    assert_eq!(default.webhook.listen, SocketAddr::from(([0, 0, 0, 0], 8443)));
    assert_eq!(default.webhook.certificate, Certificate::Made { folder: "/etc/sealgate/certs".into() });
    assert_eq!(default.webhook.client_ca, None);
    assert_eq!(default.webhook.deadline, Duration::from_secs(8));
    assert_eq!(default.webhook.mode, Mode::Enforce);
    assert!(default.webhook.pin_required);
    assert!(default.webhook.placeholders.is_empty());
    assert_eq!(default.metrics, Some(SocketAddr::from(([0, 0, 0, 0], 9090))));
    assert_eq!(loaded(&format!("{SMALLEST}metrics: {{listen: off}}\n")).metrics, None);
    assert_eq!(default.health, None);
    let health = loaded(&format!("{SMALLEST}health: {{}}\n")).health;
    assert_eq!(health, Some(SocketAddr::from(([0, 0, 0, 0], 9091))));
    assert!(default.gateway.is_none());
    assert_eq!(default.caches.tag, Duration::from_secs(30));
    assert_eq!(default.caches.signatures, Duration::from_mins(10));
    assert_eq!(default.caches.last_known_good, Duration::ZERO);
    assert_eq!(
        (default.limits.review_bytes, default.limits.manifest_bytes, default.limits.signature_list_bytes),
        (8 << 20, 4 << 20, 4 << 20)
    );
    assert_eq!((default.limits.signatures_per_image, default.limits.images_per_review), (256, 128));
    let gateway = loaded(&format!("{SMALLEST}gateway: {{registry: {{url: \"http://127.0.0.1:5001\"}}}}\n"));
    let gateway = gateway.gateway.expect("a gateway");
    assert_eq!(gateway.listen, SocketAddr::from(([127, 0, 0, 1], 5000)));
    assert_eq!(gateway.certificate, None);
    assert_eq!(gateway.store, Store::Redb("/etc/sealgate/data/signatures.redb".into()));
    assert_eq!(gateway.access, None);
    assert_eq!(gateway.external_url, None);
    assert!(gateway.trusted_proxies.is_empty());
    let gateway = loaded(&format!(
        "{SMALLEST}gateway: {{registry: {{url: \"https://r.example.com\"}}, access: {{kubernetes: {{}}}}}}\n"
    ));
    let users = Users::Kubernetes { kubeconfig: None, audiences: Vec::new() };
    assert_eq!(gateway.gateway.expect("a gateway").access, Some(Access { users, token_key: None }));
}

/// Every field name of the complete example, misspelt, is refused where it stands: none is read without being checked.
#[test]
fn each_field_of_the_complete_example_is_refused_when_misspelt() {
    let text = complete();
    let mut mutated = 0;
    for (number, line) in text.lines().enumerate() {
        let code = line.split('#').next().unwrap_or_default();
        for (colon, _) in code.match_indices(':') {
            let after = code[colon + 1..].chars().next();
            let name_start = code[..colon].rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |before| before + 1);
            if after.is_some_and(|character| character != ' ') || name_start == colon {
                continue;
            }
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines[number].insert(colon, 'x');
            let error = try_load(&lines.join("\n")).expect_err(line);
            let name = &code[name_start..colon];
            let place = format!("sealgate.yaml:{}:{}: unknown field \"{name}x\"", number + 1, name_start + 1);
            assert!(error.contains(&place), "{place} is not in:\n{error}");
            assert!(error.contains(&format!("did you mean {name}?")), "{name} is not suggested in:\n{error}");
            mutated += 1;
        }
    }
    assert!(mutated >= 50, "only {mutated} fields were found");
}

#[test]
fn what_contradicts_itself_or_can_not_be_is_refused_with_what_to_do() {
    for (rest, expected, help) in [
        ("webhook: {listen: \"8443\"}\n", "3:19: \"8443\" is not an address with a port", "add a port"),
        ("webhook: {listen: 0.0.0.0}\n", "3:19: \"0.0.0.0\" is not an address with a port", "add a port: 0.0.0.0:8443"),
        ("webhook: {listen: \":8443\"}\n", "3:19: ", "write 0.0.0.0:8443"),
        ("webhook: {listen: \"localhost:8443\"}\n", "3:19: ", "write 127.0.0.1:8443"),
        ("webhook: {listen: \"0.0.0.0:70000\"}\n", "3:19: ", "a port is a number up to 65535"),
        ("policyMaxStale: 4s\n", "3:17: a change of the policy files takes longer to settle", "write 5s or more"),
        ("policyMaxStale: 0s\n", "3:17: a change of the policy files takes longer to settle", "write 5s or more"),
        ("policyMaxStale: off\n", "3:17: \"off\" is not a duration like 30s", ""),
        ("webhook: {deadline: 0s}\n", "3:21: no image can be checked", "8s is the default"),
        ("webhook: {deadline: 30s}\n", "3:21: the deadline must be below", "timeoutSeconds: 10"),
        ("webhook: {deadline: 8}\n", "3:21: a duration like 30s or 10m is expected, found integer `8`", ""),
        ("webhook: {deadline: soon}\n", "3:21: \"soon\" is not a duration like 30s", ""),
        ("webhook: {mode: enforced}\n", "3:17: \"enforced\" is not known here", "did you mean enforce?"),
        ("webhook: {pin: true}\n", "3:16: ", ""),
        ("webhook: {placeholders: [auto, \"\"]}\n", "3:32: a placeholder is a text", "Istio's is auto"),
        ("webhook: {placeholders: auto}\n", "3:25: ", ""),
        ("webhook: {certificate: {file: a}}\n", "3:24: the field \"key\" is missing", ""),
        (
            "webhook: {listen: \"0.0.0.0:9090\"}\nmetrics: {}\n",
            "3:19: webhook and metrics both listen on port 9090",
            "a port of its own",
        ),
        (
            "health: {listen: \"0.0.0.0:8443\"}\n",
            "3:18: webhook and health both listen on port 8443",
            "a port of its own",
        ),
        (
            "metrics: {listen: \"127.0.0.1:9091\"}\nhealth: {}\n",
            "3:19: metrics and health both listen on port 9091",
            "a port of its own",
        ),
        ("health: {listen: off}\n", "3:18: \"off\" is not an address", ""),
        ("policies: \"\"\n", "3:11: a path is expected", ""),
        ("policies:\n", "3:1: \"policies\" should be a text, found nothing", "or leave it out"),
        ("registries: [{scope: nginx}]\n", "3:22: this is not a scope", ""),
        ("registries: [{scope: \"r.example.com/x:1\"}]\n", "3:22: ", ""),
        (
            "registries: [{scope: \"r.example.com/x@sha256:4028782c08eae4a8c9a28bf661c0a8d1c2fc8e19dbaae2b018b21011197e1484\"}]\n",
            "3:22: an entry is about a registry",
            "write r.example.com/x",
        ),
        (
            "registries: [{scope: a.example.com}, {scope: \"A.example.com:443\"}]\n",
            "3:46: two entries have the scope a.example.com\n",
            "put them together",
        ),
        ("registries: [{scope: a.example.com, mirrors: [\"*.example.com\"]}]\n", "3:47: this is not a mirror", ""),
        (
            "registries: [{scope: \"*\", mirrors: [m.example.com]}]\n",
            "3:22: mirrors hold copies",
            "give each host an entry",
        ),
        ("registries: [{scope: a.example.com, signatures: []}]\n", "3:37: signatures names no source", "leave it out"),
        (
            "registries: [{scope: a.example.com, signatures: [{extension: {}}, {extension: {}}]}]\n",
            "3:67: this source stands twice",
            "",
        ),
        (
            "registries: [{scope: a.example.com, signatures: [{lookaside: {url: \"ftp://x\"}}]}]\n",
            "3:68: a URL with the scheme \"ftp\"",
            "file:///path",
        ),
        (
            "registries: [{scope: a.example.com, signatures: [{extension: {url: \"https://store_1.example.com\"}}]}]\n",
            "3:68: no image can be at this URL's host and port",
            "without '_'",
        ),
        (
            "registries: [{scope: a.example.com, signatures: [{extension: {url: \"https://store.example.com.\"}}]}]\n",
            "3:68: no image can be at this URL's host and port",
            "without a dot at its end",
        ),
        (
            "registries: [{scope: a.example.com, signatures: [{lookaside: {url: \"https://index.docker.io/x\"}}]}]\n",
            "3:68: no image can be at this URL's host and port",
            "no host of Docker Hub's",
        ),
        (
            "registries: [{scope: a.example.com, tokenRealms: [\"http://a.example.com\"]}]\n",
            "3:51: a URL with the scheme \"http\"",
            "https://host",
        ),
        (
            "registries: [{scope: a.example.com, tokenRealms: [\"https://a.example.com/token\"]}]\n",
            "3:51: a token realm is named by its origin",
            "write https://a.example.com",
        ),
        (
            "registries: [{scope: a.example.com, credentials: {username: u}}]\n",
            "3:37: credentials are either",
            "dockerConfig: PATH",
        ),
        (
            "registries: [{scope: a.example.com, credentials: {username: u, passwordFile: f, dockerConfig: g}}]\n",
            "3:37: credentials are either",
            "",
        ),
        ("caches: {tag: -1s}\n", "3:15: ", ""),
        ("caches: {tag: 500000000000y}\n", "3:15: a duration is at most a year (1y)", ""),
        ("caches: {lastKnownGood: 367d}\n", "3:25: a duration is at most a year (1y)", ""),
        ("limits: {reviewBytes: 0}\n", "3:23: a size is more than 0", ""),
        ("limits: {reviewBytes: 2GiB}\n", "3:23: a size is more than 0 and at most 1GiB", ""),
        ("limits: {reviewBytes: much}\n", "3:23: \"much\" is not a size like 8MiB", ""),
        ("limits: {imagesPerReview: 0}\n", "3:27: a number from 1 to 100000", ""),
        ("gateway: {}\n", "3:10: the field \"registry\" is missing", ""),
        ("gateway: {registry: {url: \"registry.example.com\"}}\n", "3:27: this is not a URL", "https://host"),
        (
            "gateway: {registry: {url: \"https://registry.example.com/v2/\"}}\n",
            "3:27: a registry is named by scheme, host and port",
            "",
        ),
        (
            "gateway: {listen: \"0.0.0.0:5000\", anyoneMaySign: true, registry: {url: \"https://r.example.com\"}}\n",
            "3:19: without a certificate the store listens on loopback only",
            "certificate:",
        ),
        (
            "gateway: {listen: \"0.0.0.0:5000\", certificate: {file: a, key: b}, registry: {url: \"https://r.example.com\"}}\n",
            "3:19: everyone who reaches this listener may store signatures",
            "anyoneMaySign: true",
        ),
        (
            "gateway: {registry: {url: \"https://r.example.com\"}, externalUrl: \"https://store.example.com\"}\n",
            "3:66: everyone who reaches the store at this address may store signatures",
            "anyoneMaySign: true",
        ),
        (
            "gateway: {registry: {url: \"https://r.example.com\"}, trustedProxies: [127.0.0.1]}\n",
            "3:70: everyone who reaches the store through this proxy may store signatures",
            "anyoneMaySign: true",
        ),
        (
            "gateway: {registry: {url: \"https://r.example.com\"}, access: {kubernetes: {}, htpasswd: {file: a, roles: b}}}\n",
            "3:53: users and roles come either from files or from Kubernetes",
            "{kubernetes: {}}",
        ),
        (
            "gateway: {registry: {url: \"https://r.example.com\"}, access: {tokenKey: a}}\n",
            "3:53: users and roles come either from files or from Kubernetes",
            "htpasswd",
        ),
        (
            "gateway: {registry: {url: \"https://r.example.com\"}, access: {htpasswd: {file: a}}}\n",
            "3:72: the field \"roles\" is missing",
            "",
        ),
        (
            "gateway: {registry: {url: \"https://r.example.com\"}, access: {kubernetes: {audiences: []}}}\n",
            "3:75: audiences names none",
            "leave it out",
        ),
        (
            "gateway: {registry: {url: \"https://r.example.com\"}, access: {kubernetes: {audiences: [a, a]}}}\n",
            "3:90: this audience stands twice",
            "",
        ),
        (
            "gateway: {anyoneMaySign: true, registry: {url: \"https://r.example.com\"}, access: {kubernetes: {}}}\n",
            "3:74: access says who may sign",
            "leave out one",
        ),
        (
            "gateway: {registry: {url: \"https://r.example.com\"}, externalUrl: \"http://store.example.com\"}\n",
            "3:66: clients would send their passwords over plain HTTP",
            "https://",
        ),
        (
            "gateway: {registry: {url: \"https://r.example.com\"}, externalUrl: \"https://store.example.com/v2/\"}\n",
            "3:66: the store is known by scheme, host and port alone",
            "write https://store.example.com",
        ),
        (
            "gateway: {registry: {url: \"https://r.example.com\"}, trustedProxies: [10.0.0.1/8]}\n",
            "3:70: the address has bits behind the first 8",
            "10.0.0.0/8",
        ),
        (
            "gateway: {registry: {url: \"https://r.example.com\"}, trustedProxies: [proxy.example.com]}\n",
            "3:70: this is not an IP address",
            "names don't count",
        ),
        (
            "gateway: {registry: {url: \"http://registry.example.com:5000\"}}\n",
            "3:27: plain HTTP beyond loopback",
            "insecure: true",
        ),
        (
            "gateway: {registry: {url: \"http://10.0.0.5\", insecure: false}}\n",
            "3:27: plain HTTP beyond loopback",
            "write https://",
        ),
        (
            "gateway: {registry: {url: \"http://127.0.0.1.example.com:5000\"}}\n",
            "3:27: plain HTTP beyond loopback",
            "insecure: true",
        ),
        (
            "gateway: {registry: {url: \"http://[::1]:5000\", tokenRealms: [\"http://localhost:5001\", \"http://auth.example.com\"]}}\n",
            "3:87: plain HTTP beyond loopback",
            "insecure: true",
        ),
        (
            "gateway: {registry: {url: \"https://r.example.com\", insecure: true}}\n",
            "3:52: insecure says that the registry is asked over plain HTTP",
            "caFile",
        ),
        ("---\nkind: x\n", "4:1: a configuration file has one document", ""),
        ("policies: a\npolicies: b\n", "4:1: \"policies\" stands twice", ""),
        ("webhook:\n\tlisten: x\n", "4:1: a tab stands in the indentation", "spaces"),
    ] {
        let error = refused(rest);
        assert!(error.starts_with(&format!("sealgate.yaml:{expected}")), "{rest}expected {expected}\nfound {error}");
        assert!(error.contains(help), "{rest}expected {help}\nfound {error}");
    }
    let open = "gateway: {listen: \"0.0.0.0:5000\", certificate: {file: a, key: b}, anyoneMaySign: true, registry: {url: \"https://r.example.com\"}}\n";
    assert!(try_load(&format!("{SMALLEST}{open}")).is_ok());
    let restricted = open.replace("anyoneMaySign: true", "access: {kubernetes: {}}");
    assert!(try_load(&format!("{SMALLEST}{restricted}")).is_ok());
    let local = "gateway: {registry: {url: \"https://r.example.com\"}, externalUrl: \"http://127.0.0.1:5000\"}\n";
    assert!(try_load(&format!("{SMALLEST}{local}")).is_ok());
    for registry in [
        "url: \"http://127.0.0.1:5000\"",
        "url: \"http://localhost:5000\", tokenRealms: [\"http://127.8.9.1:1\"]",
        "url: \"http://[::1]\"",
        "url: \"http://registry.example.com\", insecure: true, tokenRealms: [\"http://auth.example.com\"]",
        "url: \"https://registry.example.com\", insecure: false",
    ] {
        assert!(try_load(&format!("{SMALLEST}gateway: {{registry: {{{registry}}}}}\n")).is_ok(), "{registry}");
    }
    // TLS ends at the proxy, and what is behind it stays on the machine.
    let proxied = "gateway: {anyoneMaySign: true, externalUrl: \"https://s.example.com\", trustedProxies: [127.0.0.1], registry: {url: \"https://r.example.com\"}}\n";
    assert!(try_load(&format!("{SMALLEST}{proxied}")).is_ok());
    let restricted = proxied.replace("anyoneMaySign: true", "access: {kubernetes: {}}");
    assert!(try_load(&format!("{SMALLEST}{restricted}")).is_ok());
}

fn etcd(fields: &str) -> String {
    format!("gateway:\n  registry: {{url: \"https://r.example.com\"}}\n  store:\n    etcd: {{{fields}}}\n")
}

#[test]
fn an_etcd_cluster_is_read_with_its_defaults() {
    let store = |fields: &str| {
        let gateway = loaded(&format!("{SMALLEST}{}", etcd(fields))).gateway.expect("a gateway");
        let Store::Etcd(etcd) = gateway.store else { panic!("{:?}", gateway.store) };
        etcd
    };
    let plain = store("endpoints: [\"http://127.0.0.1:2379\", \"http://[::1]:2379\", \"http://localhost:1\"]");
    assert_eq!((plain.endpoints.len(), &*plain.prefix), (3, "/sealgate"));
    assert_eq!((plain.ca_file, plain.certificate, plain.user), (None, None, None));
    let full = store(
        "endpoints: [\"https://etcd.example.com:2379\"], prefix: /a/b, caFile: ca.crt, \
         certificate: {file: a.crt, key: a.key}, username: sealgate, passwordFile: secrets/etcd",
    );
    assert_eq!((full.endpoints[0].as_str(), &*full.prefix), ("https://etcd.example.com:2379/", "/a/b"));
    assert_eq!(full.ca_file, Some("/etc/sealgate/ca.crt".into()));
    let certificate = full.certificate.expect("a certificate");
    assert_eq!((certificate.chain, certificate.key), ("/etc/sealgate/a.crt".into(), "/etc/sealgate/a.key".into()));
    let user = full.user.expect("a user");
    assert_eq!((&*user.name, user.password_file), ("sealgate", "/etc/sealgate/secrets/etcd".into()));
}

#[test]
fn an_etcd_cluster_that_can_not_be_used_is_refused_where_it_stands() {
    let endpoint = "endpoints: [\"https://e.example.com:2379\"]";
    let secure = format!("{endpoint}, caFile: ca.crt");
    for (fields, expected, help) in [
        ("", "6:11: the field \"endpoints\" is missing", ""),
        ("endpoints: []", "6:12: endpoints names no member", "https://"),
        ("endpoints: [e]", "6:24: this is not a URL", "https://host"),
        (
            "endpoints: [\"https://e.example.com/x\"], caFile: a",
            "6:24: an endpoint is named by scheme, host and port",
            "",
        ),
        ("endpoints: [\"http://e.example.com:2379\"]", "6:24: plain HTTP to etcd is for loopback only", "caFile"),
        ("endpoints: [\"http://192.0.2.1:2379\"]", "6:24: plain HTTP to etcd is for loopback only", ""),
        (endpoint, "6:12: caFile is missing", "the system's own"),
        (
            "endpoints: [\"https://localhost:1\", \"http://localhost:2\"], caFile: a",
            "6:12: all endpoints are https, or",
            "",
        ),
        ("endpoints: [\"http://localhost:1\", \"http://localhost:1\"]", "6:46: this endpoint stands twice", ""),
        ("endpoints: [\"http://localhost:1\"], caFile: a", "6:55: there are no certificates with http", "https"),
        (&format!("{secure}, prefix: sealgate"), "6:79: a prefix is a path", "/sealgate"),
        (&format!("{secure}, prefix: /a/"), "6:79: a prefix is a path", ""),
        (&format!("{secure}, prefix: \"/a@b\""), "6:79: a prefix is a path", ""),
        (&format!("{secure}, username: u"), "6:71: username and passwordFile go together", ""),
        (&format!("{secure}, username: u, password: x"), "6:84: a password does not stand", "passwordFile"),
    ] {
        let error = refused(&etcd(fields));
        assert!(error.contains(&format!("sealgate.yaml:{expected}")), "{fields}\n{error}");
        assert!(error.contains(help), "{fields}\n{error}");
    }
}

#[test]
fn other_files_are_told_apart() {
    assert!(try_load("").expect_err("empty").contains("the file is empty"));
    let policy = try_load("apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\n").expect_err("a policy");
    assert!(policy.contains("this is a policy, not the configuration"), "{policy}");
    let version = try_load("apiVersion: sealgate.dev/v2\nkind: Configuration\n").expect_err("another version");
    assert!(version.contains("sealgate.yaml:1:13: \"sealgate.dev/v2\" is not known here"), "{version}");
    assert!(try_load("kind: Configuration\n").expect_err("no version").contains("the field \"apiVersion\" is missing"));
}

#[test]
fn a_secret_that_was_written_into_the_file_is_not_shown() {
    for rest in [
        "registries: [{scope: a.example.com, credentials: {username: u, password: hunter2}}]\n",
        "registries:\n- scope: a.example.com\n  credentials: {username: u, pasword: hunter2}\n",
        "registries:\n- scope: a.example.com\n  credentials: hunter2\n",
        "registries:\n- scope: a.example.com\n  credentials:\n    username: u\n    passwordFile: [hunter2]\n",
        "registries:\n- scope: a.example.com\n  signatures: [{extension: {url: \"https://u:hunter2@r.example.com\"}}]\n",
        "gateway: {registry: {url: \"https://u:hunter2@r.example.com\"}}\n",
        "gateway: {registry: {url: \"https://u:hunter2@r.example.com:x\"}}\n",
        "registries:\n- scope: a.example.com\n  tokenRealms: [\"http://u:hunter2@r.example.com\"]\n",
        "registries:\n- scope: a.example.com\n  mirrors: [\"https://u:hunter2@r.example.com\"]\n",
        "registries:\n- scope: \"u:hunter2@r.example.com\"\n",
        "registries: [{scope: a.example.com, signatures: [\"https://u:hunter2@r.example.com\"]}]\n",
        "registries:\n- scope: a.example.com\n  signatures:\n  - https://u:hunter2@r.example.com\n",
        "registries:\n- scope: a.example.com\n  signatures: \"u:hunter2@r.example.com\"\n",
        "registries:\n- scope: a.example.com\n  signatures: \"hunter2@r.example.com\"\n",
        "webhook: {listen: \"u:hunter2@r.example.com:1\"}\n",
        "caches: {tag: \"hunter2@x\"}\n",
    ] {
        let error = refused(rest);
        assert!(!error.contains("hunter2"), "{rest}{error}");
    }
}

#[test]
fn paths_start_at_the_file_s_folder() {
    let folder = Scratch::new();
    let path = folder.write("sub/sealgate.yaml", format!("{SMALLEST}policies: ../policies\n"));
    let configuration = load_configuration(&path).unwrap_or_else(|error| panic!("{error}"));
    let policies = configuration.policies.expect("policies");
    assert!(policies.is_absolute());
    assert_eq!(policies, folder.path().join("sub/../policies"));
    let missing = load_configuration(&folder.path().join("missing.yaml")).expect_err("no file").to_string();
    assert!(missing.ends_with("missing.yaml: there is no such file"), "{missing}");
    assert!(load_configuration(folder.path()).expect_err("a folder").to_string().ends_with("this is not a file"));
}
