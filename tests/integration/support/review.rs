//! Reviews as an API server sends them.

use serde_json::{Value, json};

/// Returns an `AdmissionReview` of a new pod with these containers, each a name and an image.
pub(crate) fn review(containers: &[(&str, &str)]) -> Value {
    let containers: Vec<_> = containers.iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": resource, "requestResource": resource, "name": "web", "namespace": "shop", "operation": "CREATE",
        "userInfo": {"username": "admin"}, "oldObject": null, "dryRun": false, "options": null,
        "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": containers}},
    }})
}
