//! Generates the webhook configurations for the API server from the table of workloads.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;

use super::workloads::{ImageList, WORKLOADS, Workload};

/// The namespace of the gate.
pub const NAMESPACE: &str = "sealgate";
/// The gate's Service.
pub const SERVICE: &str = "sealgate-webhook";
/// The path of the mutating webhook, which pins images to digests.
pub const MUTATE: &str = "/mutate";
/// The path of the validating webhook, which allows or refuses.
pub const VALIDATE: &str = "/validate";
/// Namespaces that the webhooks leave out: a cluster whose gate is down must be able to start what the gate needs.
const LEFT_OUT: &[&str] = &["kube-system", NAMESPACE];
/// The timeout of the API server's calls, in seconds; the gate's own deadline is shorter.
const TIMEOUT_SECONDS: u8 = 10;

/// The address at which the API server reaches the gate.
#[derive(Clone, Copy, Debug)]
pub enum Endpoint<'a> {
    /// The gate's Service; cert-manager or kustomize fills in the CA.
    Service,
    /// A URL, for an API server outside of the cluster, and for tests.
    Url {
        /// The URL: `https://host:port`.
        base: &'a str,
        /// The CA that signed the gate's certificate, in PEM.
        ca: &'a str,
    },
}

/// Returns both configurations, as the documents of one YAML file.
pub fn yaml(endpoint: Endpoint<'_>) -> String {
    let documents =
        [configuration(AdmissionPhase::Mutate, endpoint), configuration(AdmissionPhase::Validate, endpoint)];
    let documents = documents.map(|document| {
        serde_saphyr::to_string(&document).expect("the configurations are plain maps, lists and strings")
    });
    format!(
        "# Generated from the table of workloads (src/kubernetes/workloads.rs). Do not edit.\n{}",
        documents.join("---\n")
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AdmissionPhase {
    Mutate,
    Validate,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    webhooks: Vec<Webhook>,
}

#[derive(Serialize)]
struct Metadata {
    name: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    name: String,
    client_config: ClientConfig,
    admission_review_versions: [&'static str; 1],
    side_effects: &'static str,
    failure_policy: &'static str,
    match_policy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reinvocation_policy: Option<&'static str>,
    timeout_seconds: u8,
    namespace_selector: Selector,
    rules: Vec<Rule>,
    match_conditions: [Condition; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClientConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Service>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_bundle: Option<String>,
}

#[derive(Serialize)]
struct Service {
    namespace: &'static str,
    name: &'static str,
    path: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Selector {
    match_expressions: [Expression; 1],
}

#[derive(Serialize)]
struct Expression {
    key: &'static str,
    operator: &'static str,
    values: &'static [&'static str],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    operations: [&'static str; 2],
    api_groups: [&'static str; 1],
    api_versions: [&'static str; 1],
    resources: Vec<String>,
    scope: &'static str,
}

#[derive(Serialize)]
struct Condition {
    name: &'static str,
    expression: serde_saphyr::LitString,
}

fn configuration(phase: AdmissionPhase, endpoint: Endpoint<'_>) -> Configuration {
    let kind = match phase {
        AdmissionPhase::Mutate => "MutatingWebhookConfiguration",
        AdmissionPhase::Validate => "ValidatingWebhookConfiguration",
    };
    // One entry for each place of a pod specification, since the match conditions name the place.
    let mut places: Vec<(&[&str], Vec<&Workload>)> = Vec::new();
    for workload in WORKLOADS.iter().filter(|workload| phase == AdmissionPhase::Validate || workload.is_pod) {
        match places.iter_mut().find(|(place, _)| *place == workload.pod_spec) {
            Some((_, workloads)) => workloads.push(workload),
            None => places.push((workload.pod_spec, vec![workload])),
        }
    }
    let webhooks = places.iter().map(|(_, workloads)| webhook(phase, endpoint, workloads)).collect();
    let metadata = Metadata { name: "sealgate" };
    Configuration { api_version: "admissionregistration.k8s.io/v1", kind, metadata, webhooks }
}

fn webhook(phase: AdmissionPhase, endpoint: Endpoint<'_>, workloads: &[&Workload]) -> Webhook {
    let name = match workloads {
        [workload] => workload.resource,
        _ => "workloads",
    };
    let mut rules: Vec<Rule> = Vec::new();
    for workload in workloads {
        let mut resources = vec![workload.resource.to_owned()];
        resources
            .extend(workload.subresources.iter().map(|subresource| format!("{}/{subresource}", workload.resource)));
        let same = |rule: &&mut Rule| rule.api_groups == [workload.group] && rule.api_versions == [workload.version];
        match rules.iter_mut().find(same) {
            Some(rule) => rule.resources.extend(resources),
            None => rules.push(Rule {
                operations: ["CREATE", "UPDATE"],
                api_groups: [workload.group],
                api_versions: [workload.version],
                resources,
                scope: "Namespaced",
            }),
        }
    }
    Webhook {
        name: format!("{name}.sealgate.dev"),
        client_config: client_config(phase, endpoint),
        admission_review_versions: ["v1"],
        side_effects: "None",
        failure_policy: "Fail",
        match_policy: "Equivalent",
        reinvocation_policy: (phase == AdmissionPhase::Mutate).then_some("IfNeeded"),
        timeout_seconds: TIMEOUT_SECONDS,
        namespace_selector: Selector {
            match_expressions: [Expression { key: "kubernetes.io/metadata.name", operator: "NotIn", values: LEFT_OUT }],
        },
        rules,
        match_conditions: [Condition {
            name: "images-changed",
            expression: serde_saphyr::LitString(images_changed(workloads[0].pod_spec)),
        }],
    }
}

fn client_config(phase: AdmissionPhase, endpoint: Endpoint<'_>) -> ClientConfig {
    let path = match phase {
        AdmissionPhase::Mutate => MUTATE,
        AdmissionPhase::Validate => VALIDATE,
    };
    match endpoint {
        Endpoint::Service => ClientConfig {
            service: Some(Service { namespace: NAMESPACE, name: SERVICE, path }),
            url: None,
            ca_bundle: None,
        },
        Endpoint::Url { base, ca } => ClientConfig {
            service: None,
            url: Some(format!("{}{path}", base.trim_end_matches('/'))),
            ca_bundle: Some(STANDARD.encode(ca)),
        },
    }
}

/// Returns a CEL expression that is false only for an update in which every list of the pod specification names the
/// same images under the same names in the same order. An error in CEL would refuse the request, so the expression
/// tests first that an optional member exists.
fn images_changed(pod_spec: &[&str]) -> String {
    let steps: Vec<_> = (1..=pod_spec.len()).map(|depth| format!("has(o.{})", pod_spec[..depth].join("."))).collect();
    let lists: Vec<_> = ImageList::ALL.into_iter().map(images).collect();
    format!(
        "request.operation != 'UPDATE' ||\n\
         [object, oldObject].exists(o, !({})) ||\n\
         [[object, oldObject].map(o, o.{}).map(s, [\n  {}\n])].exists(both, both[0] != both[1])",
        steps.join(" && "),
        pod_spec.join("."),
        lists.join(",\n  "),
    )
}

/// Returns a CEL expression for the names and images of one list of the pod specification `s`.
fn images(list: ImageList) -> String {
    let member = list.member();
    // A list without entries is null if its Go type has no omitempty.
    let there = format!("has(s.{member}) && s.{member} != null");
    let entries = match list {
        ImageList::Volumes => {
            "filter(e, has(e.image)).map(e, [e.name, has(e.image.reference) ? e.image.reference : ''])"
        }
        _ => "map(e, [e.name, has(e.image) ? e.image : ''])",
    };
    format!("{there} ? s.{member}.{entries} : []")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// `UPDATE=1 cargo test` writes the file.
    #[test]
    fn the_shipped_file_is_the_generated_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/base/webhooks.yaml");
        let generated = yaml(Endpoint::Service);
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &generated).unwrap();
        }
        let shipped = fs::read_to_string(&path).unwrap_or_default();
        assert!(shipped == generated, "{} is not current; run: UPDATE=1 cargo test webhooks", path.display());
    }

    #[test]
    fn both_configurations_have_every_safeguard() {
        let text = yaml(Endpoint::Service);
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(documents.len(), 2);
        for document in &documents {
            let kind = document["kind"].as_str().unwrap();
            assert_eq!(document["metadata"]["name"], "sealgate");
            for webhook in document["webhooks"].as_array().unwrap() {
                assert_eq!(webhook["failurePolicy"], "Fail");
                assert_eq!(webhook["sideEffects"], "None");
                assert_eq!(webhook["matchPolicy"], "Equivalent");
                assert_eq!(webhook["timeoutSeconds"], 10);
                assert_eq!(webhook["admissionReviewVersions"], serde_json::json!(["v1"]));
                assert_eq!(webhook.get("reinvocationPolicy").is_some(), kind.starts_with("Mutating"));
                assert_eq!(
                    webhook["namespaceSelector"],
                    serde_json::json!({"matchExpressions": [{
                        "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "sealgate"],
                    }]})
                );
            }
        }
        assert_eq!(documents[0]["webhooks"].as_array().unwrap().len(), 1, "only pods are mutated");
        let rules: Vec<_> =
            documents[1]["webhooks"].as_array().unwrap().iter().map(|webhook| &webhook["rules"]).collect();
        let rules = serde_json::to_string(&rules).unwrap();
        for workload in WORKLOADS {
            assert!(rules.contains(&format!("\"{}\"", workload.resource)), "{}", workload.resource);
        }
        assert!(rules.contains("\"pods/ephemeralcontainers\""));
    }

    #[test]
    fn a_url_takes_the_place_of_the_service() {
        let text = yaml(Endpoint::Url { base: "https://127.0.0.1:8443/", ca: "PEM" });
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(
            documents[1]["webhooks"][0]["clientConfig"],
            serde_json::json!({"url": "https://127.0.0.1:8443/validate", "caBundle": "UEVN"})
        );
    }
}
