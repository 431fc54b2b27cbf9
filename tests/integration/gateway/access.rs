//! Who may sign: password files as htpasswd writes them, and API servers that lie.

use std::path::Path;

use jiff::Timestamp;
use sealgate::{
    configuration::{Access as Settings, Limits, Users},
    gateway::{
        auth::{
            AccessControl, AccessError, Action, AuthBackend as _, ClientNetwork, Credentials, Principal, Rejection,
            kubernetes::{Kubernetes, KubernetesError},
        },
        store::RepositoryName,
    },
    image::Digest,
};
use serde_json::{Value, json};

use super::fake::Fake;
use crate::support::{Asked, Liar, Reply, Scratch, Store, run};

const ROLES: &str = "apiVersion: sealgate.dev/v1\nkind: StoreRoles\nroles:\n\
    - {role: 'system:image-signer', users: [robot], repositories: [acme]}\n\
    - {role: image-auditor, users: [jane]}\n";

/// Runs the real htpasswd.
fn htpasswd(file: &Path, options: &[&str], user: &str, password: &str) {
    let file = file.display().to_string();
    let mut arguments = vec!["-b"];
    arguments.extend(options);
    arguments.extend([file.as_str(), user, password]);
    run("htpasswd", arguments);
}

async fn open(folder: &Scratch) -> AccessControl {
    let path = |name: &str| folder.path().join(name);
    let users = Users::Htpasswd { file: path("htpasswd"), roles: path("roles.yaml") };
    let settings = Settings { users, token_key: Some(path("token.key")) };
    AccessControl::open(Some(&settings)).await.unwrap()
}

async fn login(control: &AccessControl, user: &str, password: &str) -> Result<Principal, AccessError> {
    let credentials = Credentials::of_user(user, password).unwrap();
    control
        .authenticate_with(credentials, ClientNetwork::default(), Timestamp::now())
        .await
        .map(|known| known.principal)
}

#[tokio::test]
async fn a_file_that_htpasswd_made_lets_its_users_in_with_their_roles() {
    let folder = Scratch::new();
    let file = folder.path().join("htpasswd");
    htpasswd(&file, &["-c", "-B"], "robot", "sesame ü");
    htpasswd(&file, &["-B", "-C", "4"], "jane", "open");
    folder.write("roles.yaml", ROLES);
    let control = open(&folder).await;
    assert_eq!(login(&control, "robot", "sesame ü").await.unwrap().name(), Some("robot"));
    assert_eq!(login(&control, "jane", "open").await.unwrap().name(), Some("jane"));
    assert_eq!(login(&control, "jane", "sesame ü").await.unwrap_err(), Rejection::Password.into());
    let may = async |user: &str, password: &str, action, repository: &str| {
        let known = control
            .authenticate_with(
                Credentials::of_user(user, password).unwrap(),
                ClientNetwork::default(),
                Timestamp::now(),
            )
            .await
            .unwrap();
        control.is_allowed(&known, action, Some(&RepositoryName::parse(repository).unwrap())).await.unwrap()
    };
    assert!(may("robot", "sesame ü", Action::CreateSignature, "acme/web").await);
    assert!(!may("robot", "sesame ü", Action::CreateSignature, "other/web").await);
    assert!(!may("robot", "sesame ü", Action::SetStatus, "acme/web").await);
    assert!(may("jane", "open", Action::SetStatus, "other/web").await);
    assert!(!may("jane", "open", Action::CreateSignature, "acme/web").await);
}

#[tokio::test]
async fn the_documented_roles_are_read() {
    let documentation = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md"));
    let documentation = documentation.unwrap();
    let (before, after) = documentation.split_once("kind: StoreRoles").unwrap();
    let begin = before.rfind("    apiVersion").unwrap();
    let (block, _) = documentation[begin..].split_once("\n\n").unwrap();
    assert!(after.contains("roles:") && block.lines().all(|line| line.starts_with("    ")), "{block}");
    let folder = Scratch::new();
    htpasswd(&folder.path().join("htpasswd"), &["-c", "-B", "-C", "4"], "robot", "x");
    folder.write("roles.yaml", block.lines().map(|line| &line[4..]).collect::<Vec<_>>().join("\n"));
    let control = open(&folder).await;
    let known = control
        .authenticate_with(Credentials::of_user("robot", "x").unwrap(), ClientNetwork::default(), Timestamp::now())
        .await
        .unwrap();
    let repository = RepositoryName::parse("payments/api").unwrap();
    assert!(control.is_allowed(&known, Action::CreateSignature, Some(&repository)).await.unwrap());
}

#[tokio::test]
async fn replicas_with_one_key_file_share_tokens_and_a_removed_users_token_is_worthless() {
    let folder = Scratch::new();
    let file = folder.path().join("htpasswd");
    htpasswd(&file, &["-c", "-B"], "robot", "sesame");
    folder.write("roles.yaml", ROLES);
    let (first, second) = (open(&folder).await, open(&folder).await);
    let now = Timestamp::now();
    let known = first
        .authenticate_with(Credentials::of_user("robot", "sesame").unwrap(), ClientNetwork::default(), now)
        .await
        .unwrap();
    let scopes = sealgate::gateway::auth::scope::Scopes::parse(["repository:acme/web:pull,push"]).unwrap();
    let token = first.issue_token(&known, scopes, None, now).unwrap().token;
    let known = second.authenticate_with(Credentials::Bearer(token), ClientNetwork::default(), now).await.unwrap();
    let repository = RepositoryName::parse("acme/web").unwrap();
    let may = async || second.is_allowed(&known, Action::CreateSignature, Some(&repository)).await.unwrap();
    assert!(may().await);
    htpasswd(&file, &["-D"], "robot", "");
    let begun = std::time::Instant::now();
    while may().await {
        assert!(begun.elapsed().as_secs() < 120, "the user is still there");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[test]
fn other_hashes_of_htpasswd_are_refused_with_what_to_do() {
    for (option, expected) in [("-m", "MD5"), ("-s", "SHA-1"), ("-d", "not hashed with bcrypt"), ("-p", "not hashed")] {
        let folder = Scratch::new();
        let file = folder.path().join("htpasswd");
        htpasswd(&file, &["-c", option], "robot", "hunter2");
        folder.write("roles.yaml", ROLES);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let users = Users::Htpasswd { file: file.clone(), roles: folder.path().join("roles.yaml") };
        let settings = Settings { users, token_key: None };
        let error = runtime.block_on(AccessControl::open(Some(&settings))).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("htpasswd -B"), "{option}: {error}");
        assert!(error.contains("htpasswd:1:1: ") && !error.contains("hunter2"), "{option}: {error}");
    }
}

/// A kubeconfig for a server at this address.
fn kubeconfig(folder: &Scratch, server: &str) -> std::path::PathBuf {
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "store", "user": {"token": "store-token"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "store"}}],
    });
    folder.write("kubeconfig", text.to_string())
}

async fn connect(server: &str, audiences: &[&str]) -> Kubernetes {
    let folder = Scratch::new();
    let audiences: Vec<Box<str>> = audiences.iter().map(|&audience| audience.into()).collect();
    Kubernetes::connect(Some(&kubeconfig(&folder, server)), &audiences).await.unwrap()
}

fn status(asked: &Asked, status: &Value) -> Reply {
    let mut review: Value = serde_json::from_str(&asked.body).unwrap();
    review["status"] = status.clone();
    Reply::new(201, &[("content-type", "application/json")], review.to_string())
}

fn jane(audiences: &[&str]) -> Value {
    json!({"authenticated": true, "user": {"username": "jane", "groups": ["a"]}, "audiences": audiences})
}

/// A caller as the API server made one.
async fn jane_of(access: &Kubernetes) -> Result<Principal, AccessError> {
    access.authenticate(&Credentials::Bearer("hers".into()), ClientNetwork::default()).await
}

const UNAVAILABLE: &str = "permissions can't be checked now; try again in 5 s";

#[tokio::test]
async fn whatever_the_api_server_does_but_say_yes_lets_nobody_in() {
    let reply = |status: u16, body: &str| Reply::new(status, &[], body);
    for (what, answer, expected) in [
        ("no", reply(201, r#"{"spec":{},"status":{"authenticated":false}}"#), "the token is not known"),
        ("an empty status", reply(201, r#"{"spec":{"token":""},"status":{}}"#), "the token is not known"),
        ("a yes without a user", reply(201, r#"{"spec":{"token":""},"status":{"authenticated":true}}"#), "not known"),
        ("no status", reply(201, r#"{"spec":{"token":""}}"#), UNAVAILABLE),
        ("something else", reply(200, "<html>"), UNAVAILABLE),
        ("nothing", reply(201, ""), UNAVAILABLE),
        ("that the store may not ask", reply(403, "{}"), UNAVAILABLE),
        ("that it does not know the store", reply(401, "{}"), UNAVAILABLE),
        ("trouble", reply(500, "{}"), UNAVAILABLE),
        ("that it is busy", reply(429, "{}"), UNAVAILABLE),
        ("to ask elsewhere", Reply::new(302, &[("location", "http://127.0.0.1:1/")], ""), UNAVAILABLE),
        ("too much", reply(201, &" ".repeat(3 << 20)), UNAVAILABLE),
        ("and hangs up", Reply::HangUp, UNAVAILABLE),
        ("no end of it", Reply::Forever(b"HTTP/1.1 201 Created\r\n\r\n".to_vec(), vec![b' '; 1 << 16]), UNAVAILABLE),
        ("next to nothing", Reply::Drip(b"HTTP/1.1 201 Created\r\ncontent-length: 9999\r\n\r\n".to_vec()), UNAVAILABLE),
    ] {
        let liar = Liar::start(move |_| answer.clone());
        let access = connect(&format!("http://{}", liar.host()), &[]).await;
        let error = jane_of(&access).await.unwrap_err().to_string();
        assert!(error.contains(expected), "it answers {what}: {error}");
    }
    let nobody = connect("http://127.0.0.1:1", &[]).await;
    assert_eq!(jane_of(&nobody).await.unwrap_err().to_string(), UNAVAILABLE);
}

#[tokio::test]
async fn permission_is_only_what_the_api_server_allows() {
    for (answer, expected) in [
        (json!({"allowed": true}), Ok(true)),
        (json!({"allowed": false}), Ok(false)),
        (json!({"allowed": true, "denied": true}), Ok(false)),
        (json!({"allowed": false, "evaluationError": "a role is missing"}), Ok(false)),
        (json!({"reason": "x"}), Err(())),
        (Value::Null, Err(())),
    ] {
        let answered = answer.clone();
        let liar = Liar::start(move |asked| {
            if asked.path.contains("tokenreviews") { status(asked, &jane(&[])) } else { status(asked, &answered) }
        });
        let access = connect(&format!("http://{}", liar.host()), &[]).await;
        let caller = jane_of(&access).await.unwrap();
        let repository = RepositoryName::parse("acme/web").unwrap();
        let may = access.is_allowed(&caller, Action::CreateSignature, Some(&repository)).await;
        match expected {
            Ok(expected) => assert_eq!(may, Ok(expected), "{answer}"),
            // A status without `allowed` says no, or can't be read: never yes.
            Err(()) => assert!(may != Ok(true), "{answer}"),
        }
    }
}

#[tokio::test]
async fn a_token_for_another_audience_is_not_taken() {
    for (meant, taken) in [(vec!["store", "other"], true), (vec!["other"], false), (vec![], false)] {
        let answer = jane(&meant);
        let liar = Liar::start(move |asked| status(asked, &answer));
        let access = connect(&format!("http://{}", liar.host()), &["store"]).await;
        assert_eq!(jane_of(&access).await.is_ok(), taken, "{meant:?}");
        let asked: Value = serde_json::from_str(&liar.asked()[0].body).unwrap();
        assert_eq!(asked["spec"]["audiences"], json!(["store"]));
    }
}

#[tokio::test]
async fn the_same_question_is_asked_once() {
    let liar = Liar::start(|asked| {
        if asked.path.contains("tokenreviews") {
            status(asked, &jane(&[]))
        } else {
            status(asked, &json!({"allowed": true}))
        }
    });
    let access = connect(&format!("http://{}", liar.host()), &[]).await;
    let repository = |name| RepositoryName::parse(name).unwrap();
    let many = (0..50).map(async |number| {
        // docker login sends a name that does not count.
        let basic = Credentials::of_user(&format!("any-{number}"), "hers").unwrap();
        let caller = access.authenticate(&basic, ClientNetwork::default()).await.unwrap();
        access.is_allowed(&caller, Action::CreateSignature, Some(&repository("acme/web"))).await.unwrap()
    });
    assert!(futures_util::future::join_all(many).await.into_iter().all(|may| may));
    assert_eq!(liar.asked().len(), 2);
    let caller = jane_of(&access).await.unwrap();
    assert!(access.is_allowed(&caller, Action::CreateSignature, Some(&repository("acme/api"))).await.unwrap());
    assert_eq!(liar.asked().len(), 2, "it is in the same namespace");
    assert!(access.is_allowed(&caller, Action::CreateSignature, Some(&repository("other/web"))).await.unwrap());
    assert!(access.is_allowed(&caller, Action::Import, None).await.unwrap());
    let asked: Vec<Value> = liar.asked().iter().map(|asked| serde_json::from_str(&asked.body).unwrap()).collect();
    let about = |review: &Value| {
        let about = &review["spec"]["resourceAttributes"];
        ["verb", "resource", "namespace"].map(|field| about[field].as_str().unwrap_or_default().to_owned()).join(" ")
    };
    let about: Vec<String> = asked.iter().skip(1).map(about).collect();
    let expected =
        ["create imagesignatures acme", "create imagesignatures other", "create imagesignatures ", "update images "];
    assert_eq!(about, expected);
}

#[tokio::test]
async fn our_own_tokens_and_nothing_at_all_are_never_sent_to_the_api_server() {
    let liar = Liar::start(|asked| status(asked, &jane(&[])));
    let access = connect(&format!("http://{}", liar.host()), &[]).await;
    for credentials in [
        Credentials::Bearer("sealgate_AAAA".into()),
        Credentials::of_user("x", "sealgate_AAAA").unwrap(),
        Credentials::of_user("x", "").unwrap(),
    ] {
        assert_eq!(
            access.authenticate(&credentials, ClientNetwork::default()).await.unwrap_err(),
            Rejection::Unknown.into()
        );
    }
    let nobody = access.authenticate(&Credentials::None, ClientNetwork::default()).await.unwrap();
    assert!(nobody.is_anonymous());
    assert!(!access.is_allowed(&nobody, Action::CreateSignature, None).await.unwrap());
    assert!(liar.asked().is_empty());
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_is_named() {
    let missing = Path::new("/nowhere/kubeconfig");
    let error = Kubernetes::connect(Some(missing), &[]).await.unwrap_err();
    assert!(
        matches!(error, KubernetesError::Kubeconfig(_)) && error.to_string().contains("/nowhere/kubeconfig"),
        "{error}"
    );
}

#[tokio::test]
async fn kubernetes_callers_are_told_why_a_registry_can_not_want_passwords() {
    let api = Liar::start(|asked| {
        let token = serde_json::from_str::<Value>(&asked.body).unwrap()["spec"]["token"].clone();
        let nobody = json!({"authenticated": false});
        if token == "hers" { status(asked, &jane(&[])) } else { status(asked, &nobody) }
    });
    let folder = Scratch::new();
    let kubeconfig = kubeconfig(&folder, &format!("http://{}", api.host()));
    let users = Users::Kubernetes { kubeconfig: Some(kubeconfig), audiences: Vec::new() };
    let registry = Fake::start(|head, stream| {
        use std::io::Write;
        let status = if head.contains("/v2/public/") {
            "200 OK"
        } else {
            "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"registry\""
        };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    });
    let store = Store::start_set(&registry.url(), &Limits::default(), |settings| {
        settings.access = Some(Settings { users, token_key: None });
    });
    let client = reqwest::Client::new();
    let signatures = || client.get(store.signatures_url("acme/web", Digest::sha256(b"")));
    for (request, explained) in [
        // A password of the registry's is not asked for: it would go to the API server, as a token.
        (client.get(format!("{}/v2/", store.url())), false),
        (signatures(), true),
        (signatures().bearer_auth("hers"), true),
        (signatures().basic_auth("jane", Some("password")), true),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
        assert!(challenge.starts_with("Bearer realm="), "{challenge}");
        let text = answer.text().await.unwrap();
        assert_eq!(text.contains("takes tokens of its cluster, and the registry"), explained, "{text}");
    }
    let public = client.get(format!("{}/v2/public/web/tags/list", store.url())).send().await.unwrap();
    assert_eq!((public.status().as_u16(), public.headers().get("www-authenticate")), (200, None));
    let put = client.put(store.signatures_url("acme/web", Digest::sha256(b""))).body("{}").send().await.unwrap();
    assert!(put.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer realm="), "{put:?}");
}
