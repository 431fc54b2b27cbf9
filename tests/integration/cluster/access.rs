//! Who may sign, as a real API server with RBAC says.

#![allow(clippy::unwrap_used)] // All of this is tests.

use std::{
    sync::Once,
    time::{Duration, Instant},
};

use sealgate::gateway::{
    auth::{
        AccessError, Action, AuthBackend as _, ClientNetwork, Credentials, Principal, Rejection, kubernetes::Kubernetes,
    },
    store::RepositoryName,
};
use serde_json::{Value, json};

use super::{
    Cluster,
    line::Line,
    manifests::{make_namespace, shipped},
};
use crate::support::Scratch;

/// The shipped roles and the store's service account, in the cluster for as long as it lives.
pub(super) fn install(cluster: &Cluster) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        make_namespace(cluster);
        cluster.kubectl(["apply".as_ref(), "-k".as_ref(), shipped("store").as_os_str()]);
    });
}

/// The store's access, as the service account of the shipped manifests.
async fn store(cluster: &Cluster) -> Kubernetes {
    store_as(cluster, &token_of(cluster, "sealgate", "sealgate-store", &[]), &[], None).await
}

async fn store_as(cluster: &Cluster, token: &str, audiences: &[&str], address: Option<&str>) -> Kubernetes {
    let folder = Scratch::new();
    let kubeconfig = folder.write("kubeconfig", cluster.kubeconfig(token, address));
    let audiences: Vec<Box<str>> = audiences.iter().map(|&audience| audience.into()).collect();
    Kubernetes::connect(Some(&kubeconfig), &audiences).await.unwrap()
}

pub(super) fn token_of(cluster: &Cluster, namespace: &str, account: &str, options: &[&str]) -> String {
    let mut arguments = vec!["-n", namespace, "create", "token", account];
    arguments.extend(options);
    cluster.kubectl(arguments)
}

/// Makes a service account, and gives a token of it.
pub(super) fn account(cluster: &Cluster, namespace: &str, name: &str) -> String {
    cluster.kubectl(["-n", namespace, "create", "serviceaccount", name]);
    token_of(cluster, namespace, name, &[])
}

/// Binds a role of the whole cluster to a service account everywhere, or in one namespace. The binding has the account's name behind its
/// namespace's.
pub(super) fn bind(cluster: &Cluster, role: &str, namespace: &str, account: &str, place: Option<&str>) -> [String; 4] {
    let (kind, within) = match place {
        None => ("ClusterRoleBinding", Value::Null),
        Some(place) => ("RoleBinding", place.into()),
    };
    let name = format!("{namespace}-{account}");
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name, "namespace": within},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": account}],
    });
    cluster.apply(&binding.to_string());
    ["-n", place.unwrap_or("default"), kind, &name].map(str::to_owned)
}

async fn login(access: &Kubernetes, token: &str) -> Principal {
    access.authenticate(&Credentials::Bearer(token.into()), ClientNetwork::default()).await.unwrap()
}

async fn may(access: &Kubernetes, caller: &Principal, action: Action, repository: &str) -> bool {
    let repository = RepositoryName::parse(repository).unwrap();
    access.is_allowed(caller, action, Some(&repository)).await.unwrap()
}

/// Waits: the API server's authorizer learns of a binding a moment after it was stored, and what was asked is remembered
/// for seconds.
pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_mins(1), "{what} did not come");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

const ALL: [Action; 5] =
    [Action::CreateSignature, Action::DeleteSignature, Action::SetStatus, Action::Export, Action::Import];

#[tokio::test]
async fn each_role_lets_do_what_it_is_for_and_no_other_account_anything() {
    let cluster = Cluster::get();
    install(cluster);
    let namespace = cluster.namespace("roles");
    let access = store(cluster).await;
    let tokens = ["signer", "auditor", "admin", "other"].map(|name| account(cluster, &namespace, name));
    bind(cluster, "system:image-signer", &namespace, "signer", None);
    bind(cluster, "image-auditor", &namespace, "auditor", None);
    bind(cluster, "sealgate-store-admin", &namespace, "admin", None);
    let expected: [&[Action]; 4] = [
        &[Action::CreateSignature, Action::DeleteSignature],
        &[Action::SetStatus],
        &[Action::CreateSignature, Action::SetStatus, Action::Export, Action::Import],
        &[],
    ];
    for (token, expected) in tokens.iter().zip(expected) {
        let caller = login(&access, token).await;
        for repository in [Some("acme/web"), Some("web"), None] {
            let repository = repository.map(|name| RepositoryName::parse(name).unwrap());
            for action in ALL {
                until(&format!("{caller} {action} {repository:?}"), async || {
                    access.is_allowed(&caller, action, repository.as_ref()).await.unwrap() == expected.contains(&action)
                })
                .await;
            }
        }
    }
    let caller = login(&access, &tokens[0]).await;
    assert_eq!(caller.name(), Some(format!("system:serviceaccount:{namespace}:signer").as_str()));
    // As docker login sends it.
    let basic = Credentials::of_user("anything", &tokens[0]).unwrap();
    assert_eq!(access.authenticate(&basic, ClientNetwork::default()).await.unwrap(), caller);
}

#[tokio::test]
async fn a_role_binding_holds_for_the_repositories_of_its_namespace_alone() {
    let cluster = Cluster::get();
    install(cluster);
    let (namespace, other) = (cluster.namespace("bound"), cluster.namespace("unbound"));
    let access = store(cluster).await;
    let caller = login(&access, &account(cluster, &namespace, "robot")).await;
    bind(cluster, "system:image-signer", &namespace, "robot", Some(&namespace));
    let inside = format!("{namespace}/web");
    until("the binding", async || may(&access, &caller, Action::CreateSignature, &inside).await).await;
    assert!(may(&access, &caller, Action::DeleteSignature, &format!("{namespace}/web/deep")).await);
    // A repository that is called like the namespace is not below it.
    for repository in [format!("{other}/web"), namespace.clone(), format!("{namespace}-2/web")] {
        assert!(!may(&access, &caller, Action::CreateSignature, &repository).await, "{repository}");
    }
    assert!(!access.is_allowed(&caller, Action::CreateSignature, None).await.unwrap());
    assert!(!may(&access, &caller, Action::SetStatus, &inside).await);
}

#[tokio::test]
async fn a_binding_that_is_deleted_ends_within_what_is_remembered() {
    let cluster = Cluster::get();
    install(cluster);
    let namespace = cluster.namespace("deleted");
    let access = store(cluster).await;
    let caller = login(&access, &account(cluster, &namespace, "robot")).await;
    let binding = bind(cluster, "system:image-signer", &namespace, "robot", None);
    until("the binding", async || may(&access, &caller, Action::CreateSignature, "acme/web").await).await;
    cluster.kubectl(["delete"].into_iter().map(str::to_owned).chain(binding));
    until("the end of the role", async || !may(&access, &caller, Action::CreateSignature, "acme/web").await).await;
}

#[tokio::test]
async fn a_deleted_account_and_what_is_no_token_are_nobody() {
    let cluster = Cluster::get();
    install(cluster);
    let namespace = cluster.namespace("tokens");
    let access = store(cluster).await;
    let token = account(cluster, &namespace, "robot");
    login(&access, &token).await;
    let (head, _) = token.rsplit_once('.').unwrap();
    for other in ["nonsense".to_owned(), "a.b.c".to_owned(), format!("{head}.AAAA")] {
        let error = access
            .authenticate(&Credentials::Bearer(other.as_str().into()), ClientNetwork::default())
            .await
            .unwrap_err();
        assert_eq!(error, Rejection::Unknown.into(), "{other}");
    }
    cluster.kubectl(["-n", &namespace, "delete", "serviceaccount", "robot"]);
    until("the end of the account", async || {
        access.authenticate(&Credentials::Bearer(token.as_str().into()), ClientNetwork::default()).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn with_audiences_only_tokens_that_are_meant_for_the_store_count() {
    let cluster = Cluster::get();
    install(cluster);
    let namespace = cluster.namespace("audience");
    let own = token_of(cluster, "sealgate", "sealgate-store", &[]);
    let access = store_as(cluster, &own, &["store.example.com"], None).await;
    let usual = account(cluster, &namespace, "robot");
    let meant = token_of(cluster, &namespace, "robot", &["--audience", "store.example.com"]);
    assert!(login(&access, &meant).await.name().is_some());
    let error =
        access.authenticate(&Credentials::Bearer(usual.as_str().into()), ClientNetwork::default()).await.unwrap_err();
    assert_eq!(error, Rejection::Unknown.into());
    let error = store(cluster)
        .await
        .authenticate(&Credentials::Bearer(meant.as_str().into()), ClientNetwork::default())
        .await
        .unwrap_err();
    assert_eq!(error, Rejection::Unknown.into(), "and without, only those that are meant for the API server");
}

#[tokio::test]
async fn a_store_that_may_not_ask_lets_nobody_in() {
    let cluster = Cluster::get();
    let namespace = cluster.namespace("undelegated");
    let token = account(cluster, &namespace, "store");
    let access = store_as(cluster, &token, &[], None).await;
    let error =
        access.authenticate(&Credentials::Bearer(token.as_str().into()), ClientNetwork::default()).await.unwrap_err();
    assert!(matches!(error, AccessError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn without_the_api_server_nothing_new_is_allowed_and_afterwards_it_is_again() {
    let cluster = Cluster::get();
    install(cluster);
    let namespace = cluster.namespace("gone");
    let mut line = Line::to(cluster.address()).await;
    let own = token_of(cluster, "sealgate", "sealgate-store", &[]);
    let access = store_as(cluster, &own, &[], Some(line.address())).await;
    let tokens = ["robot", "second"].map(|name| account(cluster, &namespace, name));
    let caller = login(&access, &tokens[0]).await;
    bind(cluster, "system:image-signer", &namespace, "robot", None);
    until("the binding", async || may(&access, &caller, Action::CreateSignature, "acme/web").await).await;

    line.cut().await;
    let unavailable = |error: AccessError| matches!(error, AccessError::Unavailable { .. });
    let repository = RepositoryName::parse("other/web").unwrap();
    let error = access.is_allowed(&caller, Action::CreateSignature, Some(&repository)).await.unwrap_err();
    assert!(unavailable(error), "what was never asked can't be told");
    let error = access
        .authenticate(&Credentials::Bearer(tokens[1].as_str().into()), ClientNetwork::default())
        .await
        .unwrap_err();
    assert!(unavailable(error), "nor who that is");
    let repository = RepositoryName::parse("acme/web").unwrap();
    until("the end of what is remembered", async || {
        access.is_allowed(&caller, Action::CreateSignature, Some(&repository)).await.is_err()
    })
    .await;

    line.mend().await;
    until("the API server", async || {
        let repository = RepositoryName::parse("other/web").unwrap();
        access.is_allowed(&caller, Action::CreateSignature, Some(&repository)).await.unwrap_or(false)
    })
    .await;
}
