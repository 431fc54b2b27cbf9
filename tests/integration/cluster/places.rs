//! Every place of a pod that names an image.

use std::collections::{BTreeMap, BTreeSet};

use sealgate::kubernetes::workloads::{ImageList, WORKLOADS};
use serde_json::{Value, json};

use super::{Cluster, Scenario, apiserver::failed};

#[test]
fn init_containers_are_pinned_or_refused() {
    let scenario = Scenario::start("init");
    let signed = scenario.push_signed("acme/web", "1");
    let mut pod = scenario.pod("web", &scenario.image("acme/web:1"));
    pod["spec"]["initContainers"] = json!([{"name": "first", "image": scenario.image("acme/web:1")}]);
    assert_eq!(scenario.create(&pod).trim(), format!("{signed} {signed}"));
    pod["metadata"]["name"] = "refused".into();
    for (path, code) in scenario.push_untrusted() {
        let image = scenario.image(path);
        pod["spec"]["initContainers"][0]["image"] = image.as_str().into();
        let message = failed(&scenario.try_create(&pod));
        assert!(message.contains(&format!(" init container \"first\": {image} refused [{code}]: ")), "{message}");
    }
}

#[test]
fn image_volumes_are_pinned_or_refused() {
    let scenario = Scenario::start("volume");
    let signed = scenario.push_signed("acme/data", "1");
    scenario.push_signed("acme/web", "1");
    let mut pod = scenario.pod("web", &scenario.image("acme/web:1"));
    pod["spec"]["volumes"] = json!([
        {"name": "scratch", "emptyDir": {}},
        {"name": "data", "image": {"reference": scenario.image("acme/data:1"), "pullPolicy": "Always"}},
    ]);
    let stored = scenario.create(&pod);
    assert!(stored.ends_with(&signed), "{stored}");
    pod["metadata"]["name"] = "refused".into();
    for (path, code) in scenario.push_untrusted() {
        let image = scenario.image(path);
        pod["spec"]["volumes"][1]["image"]["reference"] = image.as_str().into();
        let message = failed(&scenario.try_create(&pod));
        assert!(message.contains(&format!(" volume \"data\": {image} refused [{code}]: ")), "{message}");
    }
}

#[test]
fn kubectl_debug_gets_a_signed_image_in_and_no_other() {
    let scenario = Scenario::start("debug");
    scenario.push_signed("acme/web", "1");
    let tools = scenario.push_signed("acme/tools", "1");
    scenario.run("web", &scenario.image("acme/web:1"));
    let image = |path| format!("--image={}", scenario.image(path));
    for (path, code) in scenario.push_untrusted() {
        let refused = failed(&scenario.try_kubectl(&["debug", "web", "--container", "bad", &image(path)]));
        let expected = format!(" ephemeral container \"bad\": {} refused [{code}]: ", scenario.image(path));
        assert!(refused.contains(&expected), "{refused}");
    }
    scenario.kubectl(&["debug", "web", "--container", "good", &image("acme/tools:1")]);
    let stored = scenario.kubectl(&["get", "pod", "web", "-o", "jsonpath={.spec.ephemeralContainers[*].image}"]);
    assert_eq!(stored, tools);
}

/// What [`every_resource_with_a_pod_in_it_is_in_the_table`] takes for harmless is.
#[test]
fn subresources_that_the_gate_is_not_asked_about_change_no_image() {
    let scenario = Scenario::start("harmless");
    let pinned = scenario.push_signed("acme/web", "1");
    scenario.push("acme/unsigned", "1", "unsigned");
    scenario.run("web", &scenario.image("acme/web:1"));
    let tag = scenario.image("acme/web:1");
    scenario.kubectl(&["create", "deployment", "web", "--replicas=0", "--image", &tag]);
    let containers = json!({"containers": [{"name": "web", "image": scenario.image("acme/unsigned:1")}]});
    let template = json!({"spec": {"template": {"spec": containers}}});
    for (resource, subresource, patch, image, before) in [
        ("pod", "resize", json!({"spec": containers}), "{.spec.containers[*].image}", &pinned),
        ("pod", "status", json!({"spec": containers}), "{.spec.containers[*].image}", &pinned),
        ("deployment", "status", template, "{.spec.template.spec.containers[*].image}", &tag),
    ] {
        let (subresource, patch) = (format!("--subresource={subresource}"), patch.to_string());
        let patched = scenario.try_kubectl(&["patch", resource, "web", &subresource, "-p", &patch]);
        let said = [patched.stdout, patched.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        // Taken and put back, or refused by the API server itself; not unknown to it.
        let known = patched.status.success() || said.contains("is invalid");
        assert!(known, "{resource} {subresource}: {said}");
        let stored = scenario.kubectl(&["get", resource, "web", "-o", &format!("jsonpath={image}")]);
        assert_eq!(stored, *before, "{resource} {subresource}: {said}");
    }
}

#[test]
fn templates_are_refused_before_a_controller_tries_them() {
    let scenario = Scenario::start("templates");
    scenario.push_signed("acme/web", "1");
    scenario.push("acme/unsigned", "1", "unsigned");
    let object = |workload: &sealgate::kubernetes::workloads::Workload, image: &str| {
        let mut inner = json!({"containers": [{"name": "web", "image": image}]});
        if workload.resource == "jobs" || workload.resource == "cronjobs" {
            inner["restartPolicy"] = "Never".into();
        }
        let mut value = json!({"spec": inner, "metadata": {"labels": {"app": "web"}}});
        for member in workload.pod_spec.iter().rev().skip(1) {
            value = json!({*member: value});
        }
        value["apiVersion"] = match workload.group {
            "" => workload.version.into(),
            group => format!("{group}/{}", workload.version).into(),
        };
        value["kind"] = workload.kind.into();
        value["metadata"] = json!({"name": "web", "namespace": scenario.namespace});
        match workload.resource {
            "cronjobs" => value["spec"]["schedule"] = "0 0 1 1 *".into(),
            "replicationcontrollers" => value["spec"]["selector"] = json!({"app": "web"}),
            "podtemplates" | "jobs" => {}
            _ => value["spec"]["selector"] = json!({"matchLabels": {"app": "web"}}),
        }
        value
    };
    for workload in WORKLOADS.iter().filter(|workload| !workload.is_pod) {
        let message = failed(&scenario.try_create(&object(workload, &scenario.image("acme/unsigned:1"))));
        assert!(message.contains("[unsigned]"), "{}: {message}", workload.kind);
        let signed = object(workload, &scenario.image("acme/web:1"));
        let created = scenario.try_create(&signed);
        assert!(created.status.success(), "{}: {}", workload.kind, String::from_utf8_lossy(&created.stderr));
        // Templates stay as their authors wrote them, or whoever applies them from git would see them differ.
        let stored = scenario.kubectl(&["get", workload.resource, "web", "-o", "json"]);
        assert!(!stored.contains("@sha256:"), "{}: {stored}", workload.kind);
    }
}

/// What the API server says of itself: every group's schemas and paths.
fn openapi() -> Vec<Value> {
    let cluster = Cluster::get();
    let read = |path: &str| -> Value {
        serde_json::from_str(&cluster.kubectl(["get", "--raw", path])).expect("the API server answers JSON")
    };
    let index = read("/openapi/v3");
    let paths = index["paths"].as_object().expect("there are paths");
    paths
        .iter()
        .filter(|(path, _)| path.starts_with("api/") || path.starts_with("apis/"))
        .map(|(_, entry)| read(entry["serverRelativeURL"].as_str().expect("each has a URL")))
        .collect()
}

/// The schemas that a schema points to directly.
fn references(schema: &Value) -> Vec<String> {
    match schema {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| match value {
                Value::String(reference) if name == "$ref" => {
                    vec![reference.trim_start_matches("#/components/schemas/").to_owned()]
                }
                other => references(other),
            })
            .collect(),
        Value::Array(entries) => entries.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";

/// All paths (member by member) below a schema to members which may name an image.
fn image_like(schemas: &Value, schema: &str, path: &str, above: &mut Vec<String>, found: &mut BTreeSet<String>) {
    let Some(members) = schemas[schema]["properties"].as_object() else { return };
    above.push(schema.to_owned());
    for (name, member) in members {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let lower = name.to_lowercase();
        let below = references(member);
        let names_one = ["image", "artifact", "registry"].iter().any(|word| lower.contains(word))
            || lower == "reference"
            || name.ends_with("Reference")
            || member["description"].as_str().is_some_and(|text| {
                let text = text.to_lowercase();
                ["image name", "image reference", "artifact reference", "oci object"]
                    .iter()
                    .any(|words| text.contains(words))
            });
        if names_one {
            found.insert(path.clone());
        }
        for schema in below {
            if !above.contains(&schema) {
                image_like(schemas, &schema, &path, above, found);
            }
        }
    }
    above.pop();
}

#[test]
fn every_member_of_a_pod_that_names_an_image_is_in_the_table() {
    let groups = openapi();
    let schemas = groups
        .iter()
        .map(|group| &group["components"]["schemas"])
        .find(|schemas| schemas.get(POD_SPEC).is_some())
        .expect("pods are known");
    let mut found = BTreeSet::new();
    image_like(schemas, POD_SPEC, "", &mut Vec::new(), &mut found);
    let mut known: BTreeSet<String> =
        ImageList::ALL.iter().map(|list| format!("{}.{}", list.member(), list.image().join("."))).collect();
    for list in &known {
        assert!(found.contains(list), "{list} is in the table, and not in the API");
    }
    known.extend(
        [
            // How and with what to pull, not what.
            "containers.imagePullPolicy",
            "initContainers.imagePullPolicy",
            "ephemeralContainers.imagePullPolicy",
            "imagePullSecrets",
            "volumes.image.pullPolicy",
            // The object around `reference`.
            "volumes.image",
            // A block device of Ceph, and a service of Quobyte: no image of a registry, nothing that runs.
            "volumes.rbd.image",
            "volumes.quobyte.registry",
        ]
        .map(str::to_owned),
    );
    assert_eq!(found, known, "is a new place for images in the API? Then it belongs into ImageList");
}

#[test]
fn every_resource_with_a_pod_in_it_is_in_the_table() {
    // Subresources that take a whole object and can't change its images: the API server puts the old ones back.
    let harmless = ["status", "resize"];
    let mut found: BTreeMap<(String, String, String), BTreeSet<String>> = BTreeMap::new();
    for group in openapi() {
        let schemas = &group["components"]["schemas"];
        for (path, operations) in group["paths"].as_object().expect("there are paths") {
            for operation in ["post", "put"] {
                let operation = &operations[operation];
                let Some(kind) = operation["x-kubernetes-group-version-kind"].as_object() else { continue };
                let mut reached = BTreeSet::new();
                let mut next = references(&operation["requestBody"]);
                while let Some(schema) = next.pop() {
                    if reached.insert(schema.clone()) {
                        next.extend(references(&schemas[&schema]));
                    }
                }
                if !reached.contains(POD_SPEC) {
                    continue;
                }
                let (_, resource) = path.split_once("{namespace}/").expect("what has pods in it has a namespace");
                let mut segments = resource.split('/').filter(|segment| !segment.starts_with('{'));
                let resource = segments.next().expect("a path ends in a resource").to_owned();
                let version = kind["version"].as_str().unwrap().to_owned();
                let subresources = found.entry((kind["group"].as_str().unwrap().to_owned(), version, resource));
                let subresource = segments.next().map(str::to_owned);
                subresources.or_default().extend(subresource.filter(|name| !harmless.contains(&name.as_str())));
            }
        }
    }
    let table: BTreeMap<_, BTreeSet<String>> = WORKLOADS
        .iter()
        .map(|workload| {
            (
                (workload.group.to_owned(), workload.version.to_owned(), workload.resource.to_owned()),
                workload.subresources.iter().map(|&name| name.to_owned()).collect(),
            )
        })
        .collect();
    assert_eq!(found, table);
}
