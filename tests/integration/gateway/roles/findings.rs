//! The findings of auditors, beside signatures.

use super::*;

#[tokio::test]
async fn an_auditors_finding_is_kept_beside_a_signature_and_taken_back_without_it() {
    let scenario = Scenario::new().await;
    let (name, message) = scenario.message(1);
    assert_eq!(status(scenario.put(&message).basic_auth("robot", Some("robot"))).await, 201);
    let finding = json!({
        "key": scenario.key, "signer": "Release <release@example.com>",
        "identity": "registry.example.com/acme/web:1", "digest": scenario.pushed.digest.to_string(),
    });
    let url = scenario.own(&format!("/{name}/status"));
    let set =
        |user: &str, body: &Value| status(Client::new().put(&url).basic_auth(user, Some(user)).body(body.to_string()));
    assert_eq!(status(Client::new().put(&url).body(finding.to_string())).await, 401);
    assert_eq!(set("robot", &finding).await, 403);
    let mut other = finding.clone();
    other["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
    assert_eq!(set("jane", &other).await, 400);
    assert_eq!(set("jane", &json!({"key": "x"})).await, 400);
    assert_eq!(set("jane", &finding).await, 204);
    let before = scenario.inspect().await["signatures"][0].clone();
    assert_eq!(before["status"]["verifiedBy"], "jane");
    assert_eq!(before["status"]["key"], scenario.key);
    let unset = |url: String| Client::new().delete(url).basic_auth("jane", Some("jane"));
    assert_eq!(status(unset(url.clone())).await, 204);
    let mut after = before.clone();
    after.as_object_mut().unwrap().remove("status");
    assert_eq!(scenario.inspect().await["signatures"][0], after, "all else is as it was");
    assert_eq!(set("jane", &finding).await, 204);
    assert_eq!(status(unset(scenario.own("/status"))).await, 204);
    assert_eq!(scenario.inspect().await["signatures"][0], after);
    let missing = scenario.own(&format!("/{}/status", "f".repeat(32)));
    assert_eq!(status(unset(missing)).await, 404);
}

#[tokio::test]
async fn a_finding_is_kept_of_the_very_signature_that_was_looked_at_alone() {
    let scenario = Scenario::new().await;
    let (name, message) = scenario.message(1);
    assert_eq!(status(scenario.put(&message).basic_auth("robot", Some("robot"))).await, 201);
    let content = BASE64_STANDARD.decode(message["content"].as_str().unwrap()).unwrap();
    let url = scenario.own(&format!("/{name}/status"));
    let finding =
        json!({"key": scenario.key, "identity": "x", "digest": scenario.pushed.digest.to_string()}).to_string();
    let set = |tag: &str| {
        let request = Client::new().put(&url).basic_auth("jane", Some("jane"));
        request.header("if-match", tag).body(finding.clone()).send()
    };
    let unset = |tag: &str| {
        status(Client::new().delete(&url).basic_auth("jane", Some("jane")).header("if-match", tag.to_owned()))
    };
    let (looked_at, other) = (Digest::sha256(&content), Digest::sha256(b"another"));
    let refused = set(&format!("\"{other}\"")).await.unwrap();
    assert_eq!(refused.status(), 412);
    let text = refused.text().await.unwrap();
    assert!(text.contains("SIGNATURE_CHANGED") && text.contains("look again"), "{text}");
    for malformed in [looked_at.to_string(), "*".to_owned(), format!("W/\"{looked_at}\""), "\"x\"".to_owned()] {
        assert_eq!(set(&malformed).await.unwrap().status(), 400, "{malformed}");
    }
    assert!(scenario.inspect().await["signatures"][0].get("status").is_none());
    assert_eq!(set(&format!("\"{looked_at}\"")).await.unwrap().status(), 204);
    assert_eq!(unset(&format!("\"{other}\"")).await, 412);
    assert!(scenario.inspect().await["signatures"][0].get("status").is_some());
    assert_eq!(unset(&format!("\"{looked_at}\"")).await, 204);
}
