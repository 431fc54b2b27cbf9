//! The table of resources that contain images.
//!
//! The webhook's rules, its match conditions, and the code that reads reviews are all derived from this table, so that
//! they can't differ. A test compares it with the API server's own OpenAPI document.

/// A kind of object that contains a pod specification.
#[derive(Debug, PartialEq, Eq)]
pub struct Workload {
    /// The API group; empty: the core group.
    pub group: &'static str,
    /// The API version. The API server converts objects of other versions to this one (`matchPolicy: Equivalent`).
    pub version: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// The resource.
    pub resource: &'static str,
    /// The subresources that can bring images into the object.
    pub subresources: &'static [&'static str],
    /// The path to the pod specification, member by member.
    pub pod_spec: &'static [&'static str],
    /// The object is a pod. All others are templates of pods, each of which is reviewed by itself.
    pub is_pod: bool,
}

/// Every resource of Kubernetes that contains a pod specification.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        group: "",
        version: "v1",
        kind: "Pod",
        resource: "pods",
        subresources: &["ephemeralcontainers"],
        pod_spec: &["spec"],
        is_pod: true,
    },
    template("", "PodTemplate", "podtemplates", &["template", "spec"]),
    template("", "ReplicationController", "replicationcontrollers", IN_SPEC),
    template("apps", "DaemonSet", "daemonsets", IN_SPEC),
    template("apps", "Deployment", "deployments", IN_SPEC),
    template("apps", "ReplicaSet", "replicasets", IN_SPEC),
    template("apps", "StatefulSet", "statefulsets", IN_SPEC),
    template("batch", "CronJob", "cronjobs", &["spec", "jobTemplate", "spec", "template", "spec"]),
    template("batch", "Job", "jobs", IN_SPEC),
];

const IN_SPEC: &[&str] = &["spec", "template", "spec"];

const fn template(
    group: &'static str,
    kind: &'static str,
    resource: &'static str,
    pod_spec: &'static [&'static str],
) -> Workload {
    Workload { group, version: "v1", kind, resource, subresources: &[], pod_spec, is_pod: false }
}

/// A list in a pod specification whose entries name images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ImageList {
    /// `containers`.
    Containers,
    /// `initContainers`, sidecars among them.
    InitContainers,
    /// `ephemeralContainers` (`kubectl debug`).
    EphemeralContainers,
    /// `volumes`, for those with an image as their content.
    Volumes,
}

impl ImageList {
    /// Every list.
    pub const ALL: [Self; 4] = [Self::Containers, Self::InitContainers, Self::EphemeralContainers, Self::Volumes];

    /// Returns the list's member of the pod specification.
    pub fn member(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::InitContainers => "initContainers",
            Self::EphemeralContainers => "ephemeralContainers",
            Self::Volumes => "volumes",
        }
    }

    /// Returns the path from an entry to the image.
    pub fn image(self) -> &'static [&'static str] {
        match self {
            Self::Containers | Self::InitContainers | Self::EphemeralContainers => &["image"],
            Self::Volumes => &["image", "reference"],
        }
    }

    /// Returns the word for an entry in messages.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Containers => "container",
            Self::InitContainers => "init container",
            Self::EphemeralContainers => "ephemeral container",
            Self::Volumes => "volume",
        }
    }
}

impl Workload {
    /// Returns the workload of this resource, if the object is of the workload's kind. A subresource that the table
    /// does not list is found as well if it carries the whole object (`pods/status`, `pods/resize`). Objects of another
    /// kind (`pods/eviction`, `deployments/scale`) have no images in a known place.
    pub fn find(group: &str, version: &str, resource: &str, kind: &str) -> Option<&'static Self> {
        WORKLOADS.iter().find(|workload| {
            workload.group == group
                && workload.version == version
                && workload.resource == resource
                && workload.kind == kind
        })
    }

    /// Returns the JSON pointer (RFC 6901) to an image. No member of the table needs escaping.
    pub fn pointer(&self, list: ImageList, index: usize) -> String {
        let mut pointer = String::with_capacity(64);
        for member in self.pod_spec.iter().copied().chain([list.member()]) {
            pointer.push('/');
            pointer.push_str(member);
        }
        pointer.push('/');
        pointer.push_str(&index.to_string());
        for member in list.image() {
            pointer.push('/');
            pointer.push_str(member);
        }
        pointer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_lead_to_images() {
        let pod = Workload::find("", "v1", "pods", "Pod").unwrap();
        assert_eq!(pod.pointer(ImageList::InitContainers, 3), "/spec/initContainers/3/image");
        assert_eq!(pod.pointer(ImageList::Volumes, 0), "/spec/volumes/0/image/reference");
        let cron = Workload::find("batch", "v1", "cronjobs", "CronJob").unwrap();
        assert_eq!(cron.pointer(ImageList::Containers, 1), "/spec/jobTemplate/spec/template/spec/containers/1/image");
    }

    #[test]
    fn what_is_not_in_the_table_is_no_workload() {
        for (group, version, resource, kind) in [
            ("apps", "v1beta1", "deployments", "Deployment"),
            ("apps", "v1", "deployments", "Scale"),
            ("", "v1", "pods", "Eviction"),
            ("example.com", "v1", "pods", "Pod"),
        ] {
            assert_eq!(Workload::find(group, version, resource, kind), None);
        }
    }

    #[test]
    fn no_member_of_the_table_needs_escaping_in_a_pointer() {
        let lists = ImageList::ALL.iter().flat_map(|list| list.image().iter().copied().chain([list.member()]));
        for member in WORKLOADS.iter().flat_map(|workload| workload.pod_spec.iter().copied()).chain(lists) {
            assert!(member.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{member}");
        }
    }
}
