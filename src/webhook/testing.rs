//! Reviews as an API server sends them.

use serde_json::{Value, json};

use crate::kubernetes::workloads::Workload;

/// Returns an `AdmissionReview` of an object of this workload with this pod specification, and with this one before the change.
pub(super) fn review(workload: &Workload, operation: &str, pod_spec: Option<Value>, old: Option<Value>) -> Value {
    let object =
        |pod_spec: Value| workload.pod_spec.iter().rev().fold(pod_spec, |inner, member| json!({*member: inner}));
    let resource = json!({"group": workload.group, "version": workload.version, "resource": workload.resource});
    let kind = json!({"group": workload.group, "version": workload.version, "kind": workload.kind});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "kind": kind, "resource": resource,
        "requestKind": kind, "requestResource": resource, "name": "web", "namespace": "shop", "operation": operation,
        "userInfo": {"username": "admin", "groups": ["system:masters"]},
        "object": pod_spec.map(object), "oldObject": old.map(object), "dryRun": false,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
    }})
}

/// Returns the workload that is a pod itself.
pub(super) fn pod() -> &'static Workload {
    Workload::find("", "v1", "pods", "Pod").unwrap()
}
