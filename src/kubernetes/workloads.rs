//! The one table of resources that carry images.
//!
//! The webhook's rules, the conditions under which the API server calls it, and the code that reads reviews all come from
//! this table, so that they can't differ. A test holds it against the API server's own OpenAPI.

/// A kind of object that has a pod specification in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Workload {
    /// API group; empty: the core group.
    pub group: &'static str,
    /// API version. Others of the same group are converted to this one by the API server (`matchPolicy: Equivalent`).
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Resource.
    pub resource: &'static str,
    /// Subresources through which images get into it.
    pub subresources: &'static [&'static str],
    /// The way to the pod specification, member by member.
    pub pod_spec: &'static [&'static str],
    /// Whether it runs as it stands there. What is no pod is a template of pods, each of which is reviewed by itself.
    pub is_pod: bool,
}

/// Every resource of Kubernetes with a pod specification in it.
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
    /// Containers.
    Containers,
    /// Init containers, sidecars among them.
    InitContainers,
    /// Ephemeral containers (`kubectl debug`).
    EphemeralContainers,
    /// Volumes whose content is an image's.
    Volumes,
}

impl ImageList {
    /// Every list.
    pub const ALL: [Self; 4] = [Self::Containers, Self::InitContainers, Self::EphemeralContainers, Self::Volumes];

    /// The member of the pod specification.
    pub fn member(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::InitContainers => "initContainers",
            Self::EphemeralContainers => "ephemeralContainers",
            Self::Volumes => "volumes",
        }
    }

    /// The way from an entry to the image.
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
    /// Returns the workload of this resource, if its object is of this kind. Other subresources than those of the table are read too
    /// if they carry the whole object (`pods/status`, `pods/resize`); what is of another kind (`pods/eviction`,
    /// `deployments/scale`) has no images in a place known here.
    pub fn find(group: &str, version: &str, resource: &str, kind: &str) -> Option<&'static Self> {
        WORKLOADS.iter().find(|workload| {
            workload.group == group
                && workload.version == version
                && workload.resource == resource
                && workload.kind == kind
        })
    }

    /// JSON pointer (RFC 6901) to an image. No member of the table needs escaping.
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
