//! The webhook over TLS.

#![allow(clippy::unwrap_used)] // In helpers too: a test is what they belong to.

mod bounds;
mod connections;
mod fixture;

use std::time::Duration;

use serde_json::json;

use crate::support::review;
use fixture::{DIGEST, Server, patch};
use sealgate::webhook::Settings;

#[tokio::test]
async fn mutate_pins_what_may_run_and_never_refuses() {
    let server = Server::start();
    let client = server.client();
    let review = review(&[("web", "example.com/good:1"), ("other", "example.com/bad:1"), ("auto", "auto")]);
    let response = server.ask(&client, "/mutate?timeout=10s", &review).await;
    assert_eq!(response["allowed"], true);
    assert_eq!(
        patch(&response).unwrap(),
        json!([{"op": "replace", "path": "/spec/containers/0/image", "value": format!("example.com/good:1@{DIGEST}")}])
    );
    let asked = server.gate.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|(_, runs_as_written)| !runs_as_written), "{asked:?}");
}

#[tokio::test]
async fn an_image_is_counted_once_however_often_mutate_sees_it_and_a_placeholder_never() {
    let policy = "  rules: [{name: all, images: [example.com], allow: {reason: tests}}]\n  exemptions:\n  \
         - {name: legacy, images: [example.org], until: 2999-01-01T00:00:00Z, approvedBy: jane, reason: tests}\n";
    let server = Server::start_real("", policy);
    let client = server.client();
    let images = ["example.com/good:1", "example.org/exempt:1", "example.net/bad:1"].map(|image| ("web", image));
    let with_placeholder = review(&[&images[..], &[("sidecar", "auto")]].concat());
    for _ in 0..2 {
        assert_eq!(server.ask(&client, "/mutate", &with_placeholder).await["allowed"], true);
    }
    assert_eq!(server.ask(&client, "/validate", &review(&images)).await["allowed"], false);
    let metrics = server.metrics();
    let counted = |name: &str| -> Vec<_> { metrics.lines().filter(|line| line.starts_with(name)).collect() };
    let counts = counted("sealgate_images_total{");
    assert!(counts.len() == 3 && counts.iter().all(|line| line.ends_with("} 1")), "{counts:?}");
    assert_eq!(counted("sealgate_exemptions_used"), ["sealgate_exemptions_used_total{exemption=\"test/legacy\"} 1"]);
    let reviews = counted("sealgate_reviews_total{");
    assert!(reviews.iter().any(|line| line.ends_with("verdict=\"patched\"} 2") || line.ends_with("\"untouched\"} 2")));
}

#[tokio::test]
async fn mutate_run_again_changes_nothing() {
    let server = Server::start();
    let pinned = format!("example.com/good:1@{DIGEST}");
    let response = server.ask(&server.client(), "/mutate", &review(&[("web", &pinned)])).await;
    assert_eq!(response, json!({"uid": response["uid"], "allowed": true}));
}

#[tokio::test]
async fn templates_are_validated_and_never_mutated() {
    let server = Server::start();
    let client = server.client();
    for image in ["example.com/good:1", "example.com/bad:1"] {
        let mut review = review(&[]);
        let request = &mut review["request"];
        request["kind"] = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
        request["resource"] = json!({"group": "apps", "version": "v1", "resource": "deployments"});
        request["object"] = json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": image}]}}}});
        let response = server.ask(&client, "/mutate", &review).await;
        assert!(response["allowed"] == true && patch(&response).is_none());
        assert_eq!(server.ask(&client, "/validate", &review).await["allowed"], image.contains("good"));
    }
    let asked = server.gate.asked.lock().unwrap().clone();
    assert!(asked.len() == 2 && asked.iter().all(|(_, runs_as_written)| !runs_as_written), "{asked:?}");
}

#[tokio::test]
async fn a_placeholder_passes_in_a_template_and_never_in_a_pod() {
    let placeholders = vec!["auto".into()];
    let server = Server::start_with(Settings { placeholders, ..Settings::default() }, None);
    let client = server.client();
    let template = |images: &[&str]| {
        let containers: Vec<_> = images.iter().map(|image| json!({"name": "web", "image": image})).collect();
        let mut review = review(&[]);
        review["request"]["kind"] = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
        review["request"]["resource"] = json!({"group": "apps", "version": "v1", "resource": "deployments"});
        review["request"]["object"] = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        review
    };
    let allowed = async |review| server.ask(&client, "/validate", &review).await["allowed"] == true;
    assert!(allowed(template(&["auto"])).await);
    assert!(allowed(template(&["auto", "example.com/good:1"])).await);
    assert_eq!(server.gate.asked.lock().unwrap().len(), 1, "about the other image alone");
    let metrics = server.metrics();
    assert!(
        metrics.contains("sealgate_images_total{code=\"\",mode=\"\",rule=\"\",verdict=\"placeholder\"} 2"),
        "{metrics}"
    );
    // What stands beside it is judged, and only this very text is one.
    assert!(!allowed(template(&["auto", "example.com/bad:1"])).await);
    for other in ["auto:latest", "docker.io/library/auto", "Auto", " auto", ""] {
        assert!(!allowed(template(&[other])).await, "{other:?}");
    }
    assert!(!allowed(review(&[("web", "auto")])).await);
}

#[tokio::test]
async fn validate_refuses_with_the_container_the_code_and_a_status() {
    let server = Server::start();
    let client = server.client();
    let good = server.ask(&client, "/validate", &review(&[("web", "example.com/good:1")])).await;
    assert_eq!(good["allowed"], true);
    assert!(good.get("status").is_none() && good.get("patch").is_none());
    let review = review(&[("web", "example.com/good:1"), ("log", "example.com/bad:1")]);
    let bad = server.ask(&client, "/validate", &review).await;
    assert_eq!(bad["allowed"], false);
    assert_eq!(bad["status"]["code"], 403);
    let message = bad["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("container \"log\": example.com/bad:1 refused [no-policy]: "), "{message}");
    assert!(message.ends_with("See docs/refusals.md#no-policy"), "{message}");
    assert_eq!(bad["auditAnnotations"]["verdict"], "refused");
    let metrics = server.metrics();
    assert!(metrics.contains("sealgate_reviews_total{operation=\"create\",verdict=\"allowed\"} 1"), "{metrics}");
    assert!(metrics.contains("sealgate_reviews_total{operation=\"create\",verdict=\"refused\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_pod_must_name_its_registry_despite_layers_and_exemptions_and_mutate_writes_it() {
    let hub = "  rules: [{name: hub, images: [docker.io], allow: {reason: tests}}]\n";
    let exemption = |scope: &str| {
        format!(
            "  exemptions:\n  - {{name: legacy, images: [{scope}], until: 2999-01-01T00:00:00Z, approvedBy: jane, \
             reason: tests}}\n"
        )
    };
    let namespace = |mode: &str, exempt: bool| {
        let exemption = if exempt { exemption("docker.io/library") } else { String::new() };
        format!(
            "---\napiVersion: sealgate.dev/v1\nkind: SealPolicy\nmetadata: {{name: shop, namespace: shop}}\nspec:\n  \
             mode: {mode}\n  rules: [{{name: none, images: [docker.io], deny: {{reason: tests}}}}]\n{exemption}"
        )
    };
    for policy in [
        hub.to_owned(),
        format!("{hub}{}", exemption("docker.io/library")),
        format!("{hub}{}", exemption("example.com")),
        format!("{hub}{}", namespace("audit", false)),
        format!("{hub}{}", namespace("warn", false)),
        format!("{hub}{}", namespace("enforce", true)),
        format!("{hub}{}{}", exemption("docker.io"), namespace("audit", true)),
        format!("  rules: [{{name: none, images: [docker.io], deny: {{reason: tests}}}}]\n{}", exemption("docker.io")),
    ] {
        let server = Server::start_real("", &policy);
        let client = server.client();
        let refused = server.ask(&client, "/validate", &review(&[("web", "nginx")])).await;
        assert_eq!(refused["allowed"], false, "{policy}");
        let message = refused["status"]["message"].as_str().unwrap();
        assert!(message.contains("refused [not-pinned]: its registry is not written"), "{message}");
        let mutated = server.ask(&client, "/mutate", &review(&[("web", "nginx")])).await;
        let whole = "docker.io/library/nginx:latest";
        let expected = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": whole}]);
        assert_eq!(patch(&mutated), Some(expected), "{policy}");
        assert_eq!(server.ask(&client, "/validate", &review(&[("web", whole)])).await["allowed"], true, "{policy}");
    }
}

#[tokio::test]
async fn an_update_that_changes_no_image_asks_nobody() {
    let server = Server::start();
    let client = server.client();
    let mut review = review(&[("web", "example.com/bad:1")]);
    review["request"]["operation"] = json!("UPDATE");
    review["request"]["oldObject"] = review["request"]["object"].clone();
    assert_eq!(server.ask(&client, "/validate", &review).await["allowed"], true);
    assert!(server.gate.asked.lock().unwrap().is_empty());
    review["request"]["object"]["spec"]["containers"][0]["image"] = json!("example.com/worse:1");
    assert_eq!(server.ask(&client, "/validate", &review).await["allowed"], false);
}

#[tokio::test]
async fn deletions_and_connections_pass() {
    let server = Server::start();
    let client = server.client();
    for operation in ["DELETE", "CONNECT"] {
        for path in ["/mutate", "/validate"] {
            let mut review = review(&[("web", "example.com/bad:1")]);
            review["request"]["operation"] = json!(operation);
            let response = server.ask(&client, path, &review).await;
            assert!(response["allowed"] == true && patch(&response).is_none());
        }
    }
    assert!(server.gate.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_by_validate_and_left_alone_by_mutate() {
    let server = Server::start();
    let client = server.client();
    let mut unknown = review(&[("web", "example.com/good:1")]);
    unknown["request"]["resource"]["resource"] = json!("widgets");
    let mut no_object = review(&[]);
    no_object["request"]["object"] = json!(null);
    let mut number = review(&[]);
    number["request"]["object"]["spec"]["containers"] = json!([{"name": "web", "image": 5}]);
    for (review, code, expected) in [
        (unknown, 403, "refused [unknown-resource]"),
        (no_object, 400, "the review has no object"),
        (number, 400, "the pod specification at /spec can't be read: invalid type: integer `5`, expected a string"),
    ] {
        let response = server.ask(&client, "/validate", &review).await;
        assert_eq!(response["allowed"], false);
        assert_eq!(response["status"]["code"], code);
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
        let response = server.ask(&client, "/mutate", &review).await;
        assert!(response["allowed"] == true && patch(&response).is_none());
    }
}

#[tokio::test]
async fn a_bug_in_the_gate_refuses_and_the_next_review_is_served() {
    let server = Server::start();
    let client = server.client();
    let review_ = review(&[("web", "example.com/panic:1")]);
    let response = server.ask(&client, "/validate", &review_).await;
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(500)));
    let response = server.ask(&client, "/mutate", &review_).await;
    assert!(response["allowed"] == true && patch(&response).is_none());
    assert_eq!(server.ask(&client, "/validate", &review(&[("web", "example.com/good:1")])).await["allowed"], true);
}

#[tokio::test]
async fn a_gate_that_does_not_end_is_refused_at_the_deadline() {
    let server = Server::start_with(Settings { deadline: Duration::from_millis(50), ..Settings::default() }, None);
    let client = server.client();
    let review = review(&[("web", "example.com/hang:1")]);
    let response = server.ask(&client, "/validate?timeout=10s", &review).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 503);
    assert!(response["status"]["details"]["retryAfterSeconds"].as_u64().unwrap() > 0);
    assert!(response["status"]["message"].as_str().unwrap().starts_with("pods \"web\" refused [deadline-exceeded]"));
    let response = server.ask(&client, "/mutate", &review).await;
    assert!(response["allowed"] == true && patch(&response).is_none());
}

#[tokio::test]
async fn more_reviews_than_the_gate_takes_are_told_to_come_again() {
    let server = Server::start_with(Settings { reviews_at_once: 1, ..Settings::default() }, None);
    let client = server.client();
    let slow_review = review(&[("web", "example.com/wait:1")]);
    let slow = server.ask(&client, "/validate", &slow_review);
    let others = async {
        server.gate.begun.notified().await;
        let review = review(&[("web", "example.com/good:1")]);
        let response = server.ask(&client, "/validate", &review).await;
        assert_eq!(response["allowed"], false);
        assert_eq!(response["status"]["code"], 429);
        assert_eq!(response["status"]["details"]["retryAfterSeconds"], 1);
        assert!(response["status"]["message"].as_str().unwrap().contains("refused [overloaded]"));
        let response = server.ask(&client, "/mutate", &review).await;
        assert!(response["allowed"] == true && patch(&response).is_none());
        server.gate.open.add_permits(1);
    };
    let (slow, ()) = tokio::join!(slow, others);
    assert_eq!(slow["status"]["code"], 403, "the running one is decided");
    let review = review(&[("web", "example.com/good:1")]);
    assert_eq!(server.ask(&client, "/validate", &review).await["allowed"], true, "there is room again");
}
