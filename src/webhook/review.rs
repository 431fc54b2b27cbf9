//! Parses an `AdmissionReview` (admission.k8s.io/v1), and finds the images of its object with their places.
//!
//! Strings are borrowed from the body where JSON allows it, and members that nothing depends on are skipped. The object
//! is parsed only once its kind is known, along the path from the table of workloads. A duplicate member is an error
//! wherever it could hide an image.

use std::{borrow::Cow, collections::HashSet, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::text::EscapedText;
use crate::json::Text;
use crate::kubernetes::workloads::{ImageList, Workload};

/// The only supported version.
const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// The maximum size of a request's ID, in bytes. API servers send UUIDs.
const MAX_UID_BYTES: usize = 128;
/// The maximum number of entries in one list of a pod specification. An entry takes three bytes of a body and hundreds
/// in memory, so that a bound on bytes is not enough.
const MAX_ENTRIES: usize = 1000;

/// The members of a review that decisions and answers depend on.
#[derive(Debug)]
pub struct Review<'a> {
    /// The ID of the request, which the answer repeats.
    pub uid: Cow<'a, str>,
    /// The operation on the object.
    pub operation: Operation,
    /// The object's kind.
    pub kind: GroupVersionKind<'a>,
    /// The resource.
    pub resource: GroupVersionResource<'a>,
    /// The subresource; empty: none.
    pub subresource: Cow<'a, str>,
    /// The namespace; empty: none.
    pub namespace: Cow<'a, str>,
    /// The object's name; empty if the API server generates it later.
    pub name: Cow<'a, str>,
    object: Option<&'a RawValue>,
    old_object: Option<&'a RawValue>,
}

/// `request.operation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// The object is created.
    Create,
    /// The object is changed.
    Update,
    /// The object is deleted.
    Delete,
    /// A connection (`exec`, `attach`, `proxy`).
    Connect,
}

/// `request.kind`.
#[derive(Debug, Deserialize)]
pub struct GroupVersionKind<'a> {
    /// API group.
    #[serde(borrow, default)]
    pub group: Cow<'a, str>,
    /// API version.
    #[serde(borrow, default)]
    pub version: Cow<'a, str>,
    /// Kind.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
}

/// `request.resource`.
#[derive(Debug, Deserialize)]
pub struct GroupVersionResource<'a> {
    /// API group.
    #[serde(borrow, default)]
    pub group: Cow<'a, str>,
    /// API version.
    #[serde(borrow, default)]
    pub version: Cow<'a, str>,
    /// Resource.
    #[serde(borrow)]
    pub resource: Cow<'a, str>,
}

/// The reason why a body is no review that can be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// The body is not JSON, or lacks a member of a review.
    #[error("the body is not an AdmissionReview: {0}")]
    Malformed(String),
    /// The body has another version or kind.
    #[error("expected apiVersion {API_VERSION} and kind {KIND}, found {api_version} and {kind}")]
    Version {
        /// The member's text, escaped and bounded.
        api_version: String,
        /// The member's text, escaped and bounded.
        kind: String,
    },
    /// The body has no request.
    #[error("the AdmissionReview has no request")]
    NoRequest,
    /// The request has no ID.
    #[error("request.uid must have 1 to {MAX_UID_BYTES} characters")]
    Uid,
}

/// The reason why the images of an object can't be determined.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The kind is not in the table of workloads.
    #[error("the resource is not one that the gate reads")]
    UnknownResource,
    /// There is no object.
    #[error("the review has no object")]
    NoObject,
    /// The object has no pod specification, or one of another shape.
    #[error("the pod specification at {pointer} can't be read: {why}")]
    Shape {
        /// The JSON pointer at which it should be.
        pointer: String,
        /// The reason; escaped and bounded.
        why: String,
    },
}

/// The images that a review is about.
#[derive(Debug)]
pub enum ReviewSubject<'a> {
    /// No image, for a deletion or a connection.
    Nothing,
    /// These images.
    Images(Images<'a>),
}

/// The images of an object.
#[derive(Debug)]
pub struct Images<'a> {
    /// The object's kind of workload.
    pub workload: &'static Workload,
    /// The images that are new or changed, in the order of the object.
    pub to_decide: Vec<ImagePlace<'a>>,
    /// The number of images that the update does not change.
    pub unchanged: usize,
}

impl Images<'_> {
    /// Removes these texts from the images of a template; returns how many were removed. The pods of the template are
    /// reviewed themselves, with the images that replaced the placeholders, so that no image runs because of this. In a
    /// pod, no text is a placeholder.
    pub fn take_placeholders(&mut self, placeholders: &[Box<str>]) -> usize {
        if self.workload.is_pod {
            return 0;
        }
        let before = self.to_decide.len();
        self.to_decide.retain(|place| placeholders.iter().all(|placeholder| **placeholder != *place.image));
        before - self.to_decide.len()
    }
}

/// An image with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePlace<'a> {
    /// The list.
    pub list: ImageList,
    /// The index in the list.
    pub index: usize,
    /// The container's or volume's name.
    pub name: Cow<'a, str>,
    /// The image as the object has it; empty if there is none.
    pub image: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    // Parsed after version and kind, since the request of another version may differ.
    #[serde(borrow)]
    request: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    operation: Operation,
    #[serde(borrow)]
    kind: GroupVersionKind<'a>,
    #[serde(borrow)]
    resource: GroupVersionResource<'a>,
    #[serde(borrow, default)]
    sub_resource: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    #[serde(borrow)]
    old_object: Option<&'a RawValue>,
}

impl<'a> Review<'a> {
    /// Parses the body of a request.
    pub fn parse(body: &'a [u8]) -> Result<Self, ReviewError> {
        let malformed = |error: serde_json::Error| ReviewError::Malformed(bounded(&error));
        let body: Body<'a> = serde_json::from_slice(body).map_err(malformed)?;
        if body.api_version != API_VERSION || body.kind != KIND {
            let shown = |text: &str| EscapedText(text, 64).to_string();
            return Err(ReviewError::Version { api_version: shown(&body.api_version), kind: shown(&body.kind) });
        }
        let request = body.request.ok_or(ReviewError::NoRequest)?;
        let Request { uid, operation, kind, resource, sub_resource, namespace, name, object, old_object } =
            serde_json::from_str(request.get()).map_err(malformed)?;
        if uid.is_empty() || uid.len() > MAX_UID_BYTES {
            return Err(ReviewError::Uid);
        }
        Ok(Self { uid, operation, kind, resource, subresource: sub_resource, namespace, name, object, old_object })
    }

    /// Returns the images to decide about: on an update, those that changed.
    ///
    /// An image is unchanged if the old object has the same image under the same name in the same list. If no old
    /// object can be read, every image is new.
    pub fn subject(&self) -> Result<ReviewSubject<'a>, ObjectError> {
        if matches!(self.operation, Operation::Delete | Operation::Connect) {
            return Ok(ReviewSubject::Nothing);
        }
        let same_group = self.kind.group == self.resource.group && self.kind.version == self.resource.version;
        let workload =
            Workload::find(&self.resource.group, &self.resource.version, &self.resource.resource, &self.kind.kind)
                .filter(|_| same_group)
                .ok_or(ObjectError::UnknownResource)?;
        let mut to_decide = places(workload, self.object.ok_or(ObjectError::NoObject)?)?;
        let all = to_decide.len();
        if self.operation == Operation::Update {
            let old = self.old_object.and_then(|object| places(workload, object).ok()).unwrap_or_default();
            let old: HashSet<(ImageList, &str, &str)> =
                old.iter().map(|place| (place.list, &*place.name, &*place.image)).collect();
            to_decide.retain(|place| !old.contains(&(place.list, &*place.name, &*place.image)));
        }
        Ok(ReviewSubject::Images(Images { workload, unchanged: all - to_decide.len(), to_decide }))
    }
}

impl Operation {
    /// Returns the metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Connect => "connect",
        }
    }
}

/// Returns a parser's message, shortened: it may repeat a text of any length.
fn bounded(error: &serde_json::Error) -> String {
    EscapedText(&error.to_string(), 200).to_string()
}

/// Returns every image of an object.
fn places<'a>(workload: &Workload, object: &'a RawValue) -> Result<Vec<ImagePlace<'a>>, ObjectError> {
    let shape = |why| ObjectError::Shape { pointer: format!("/{}", workload.pod_spec.join("/")), why };
    let mut parser = serde_json::Deserializer::from_str(object.get());
    let pod_spec = PodSpecAtPath(workload.pod_spec).deserialize(&mut parser).map_err(|error| shape(bounded(&error)))?;
    let Some(PodSpec { containers, init_containers, ephemeral_containers, volumes }) = pod_spec else {
        return Err(shape("there is none".to_owned()));
    };
    let mut places = Vec::with_capacity(4);
    let lists = [
        (ImageList::Containers, containers),
        (ImageList::InitContainers, init_containers),
        (ImageList::EphemeralContainers, ephemeral_containers),
    ];
    for (list, containers) in lists {
        for (index, Container { name, image }) in containers.unwrap_or_default().0.into_iter().enumerate() {
            places.push(ImagePlace { list, index, name: text(name), image: text(image) });
        }
    }
    for (index, Volume { name, image }) in volumes.unwrap_or_default().0.into_iter().enumerate() {
        if let Some(ImageVolume { reference }) = image {
            places.push(ImagePlace { list: ImageList::Volumes, index, name: text(name), image: text(reference) });
        }
    }
    Ok(places)
}

fn text(text: Option<Text<'_>>) -> Cow<'_, str> {
    text.map(|Text(text)| text).unwrap_or_default()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec<'a> {
    #[serde(borrow)]
    containers: Option<BoundedList<Container<'a>>>,
    #[serde(borrow)]
    init_containers: Option<BoundedList<Container<'a>>>,
    #[serde(borrow)]
    ephemeral_containers: Option<BoundedList<Container<'a>>>,
    #[serde(borrow)]
    volumes: Option<BoundedList<Volume<'a>>>,
}

/// A list of at most [`MAX_ENTRIES`].
struct BoundedList<T>(Vec<T>);

impl<T> Default for BoundedList<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for BoundedList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedListVisitor(PhantomData)).map(Self)
    }
}

struct BoundedListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BoundedListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX_ENTRIES} entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            if entries.len() == MAX_ENTRIES {
                return Err(A::Error::custom(format_args!("a list has more than {MAX_ENTRIES} entries")));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

#[derive(Deserialize)]
struct Container<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    image: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Volume<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    image: Option<ImageVolume<'a>>,
}

#[derive(Deserialize)]
struct ImageVolume<'a> {
    #[serde(borrow)]
    reference: Option<Text<'a>>,
}

/// Deserializes the pod specification at this path, and skips everything else. Gives `None` if a member of the path is
/// absent or null.
struct PodSpecAtPath<'p>(&'p [&'static str]);

impl<'de> DeserializeSeed<'de> for PodSpecAtPath<'_> {
    type Value = Option<PodSpec<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.0 {
            [] => Option::deserialize(deserializer),
            [member, rest @ ..] => deserializer.deserialize_option(PodSpecVisitor { member, rest }),
        }
    }
}

struct PodSpecVisitor<'p> {
    member: &'static str,
    rest: &'p [&'static str],
}

impl<'de> Visitor<'de> for PodSpecVisitor<'_> {
    type Value = Option<PodSpec<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the member `{}`", self.member)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Text(key)) = map.next_key()? {
            if key != self.member {
                map.next_value::<IgnoredAny>()?;
            } else if found.is_some() {
                return Err(A::Error::duplicate_field(self.member));
            } else {
                found = Some(map.next_value_seed(PodSpecAtPath(self.rest))?);
            }
        }
        Ok(found.flatten())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::workloads::WORKLOADS;
    use crate::webhook::testing::{pod, review};

    /// Each image to decide about: its pointer, name, and text.
    fn asked(review: &Value) -> Result<Vec<(String, String, String)>, ObjectError> {
        asked_in(&review.to_string())
    }

    fn asked_in(body: &str) -> Result<Vec<(String, String, String)>, ObjectError> {
        let review = Review::parse(body.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        match review.subject()? {
            ReviewSubject::Nothing => Ok(Vec::new()),
            ReviewSubject::Images(Images { workload, to_decide, .. }) => Ok(to_decide
                .into_iter()
                .map(|place| {
                    (workload.pointer(place.list, place.index), place.name.into_owned(), place.image.into_owned())
                })
                .collect()),
        }
    }

    fn pointers(review: &Value) -> Vec<String> {
        asked(review).unwrap().into_iter().map(|(pointer, ..)| pointer).collect()
    }

    fn containers(all: &[(&str, &str)]) -> Value {
        all.iter().map(|(name, image)| json!({"name": name, "image": image})).collect()
    }

    #[test]
    fn every_image_of_every_workload_is_found_where_its_pointer_says() {
        let pod_spec = json!({
            "volumes": [
                {"name": "data", "emptyDir": {}},
                {"name": "model", "image": {"reference": "example.com/model:1", "pullPolicy": "Always"}},
                {"name": "old", "rbd": {"image": "not-a-container-image", "monitors": []}},
            ],
            "initContainers": [{"name": "init", "image": "example.com/init:1"}],
            "containers": [{"name": "web", "image": "example.com/web:1"}, {"name": "log", "image": "example.com/log:1"}],
            "ephemeralContainers": [{"name": "debug", "image": "example.com/debug:1"}],
            "nodeName": "n1",
        });
        for workload in WORKLOADS {
            let review = review(workload, "CREATE", Some(pod_spec.clone()), None);
            let found = asked(&review).unwrap();
            let names: Vec<_> = found.iter().map(|(_, name, _)| name.as_str()).collect();
            assert_eq!(names, ["web", "log", "init", "debug", "model"]);
            for (pointer, _, image) in &found {
                assert_eq!(review["request"]["object"].pointer(pointer).unwrap(), image, "{pointer}");
            }
        }
    }

    #[test]
    fn an_update_asks_only_about_what_changed() {
        let spec = |web: &str, sidecar: &str, volume: &str| {
            json!({
                "containers": containers(&[("web", web), ("side", sidecar)]),
                "volumes": [{"name": "model", "image": {"reference": volume}}],
            })
        };
        let old = || Some(spec("example.com/a", "example.com/b", "example.com/v"));
        let changed = |new: Value| pointers(&review(pod(), "UPDATE", Some(new), old()));
        assert_eq!(changed(spec("example.com/a", "example.com/b", "example.com/v")), Vec::<String>::new());
        assert_eq!(changed(spec("example.com/x", "example.com/b", "example.com/v")), ["/spec/containers/0/image"]);
        assert_eq!(
            changed(spec("example.com/a", "example.com/b", "example.com/x")),
            ["/spec/volumes/0/image/reference"]
        );
        // Two containers that swap their images both changed.
        assert_eq!(
            changed(spec("example.com/b", "example.com/a", "example.com/v")),
            ["/spec/containers/0/image", "/spec/containers/1/image"]
        );
        // The same image under another name, or in another list, is new.
        for new in [
            json!({"containers": containers(&[("other", "example.com/a")])}),
            json!({"initContainers": containers(&[("web", "example.com/a")])}),
            json!({"ephemeralContainers": containers(&[("web", "example.com/a")])}),
            json!({"volumes": [{"name": "web", "image": {"reference": "example.com/a"}}]}),
        ] {
            assert_eq!(changed(new.clone()).len(), 1, "{new}");
        }
        // The place in the list does not matter.
        assert!(
            changed(json!({"containers": containers(&[("side", "example.com/b"), ("web", "example.com/a")])}))
                .is_empty()
        );
    }

    #[test]
    fn images_that_did_not_change_and_placeholders_are_counted() {
        let spec = |first: &str| json!({"containers": containers(&[("a", first), ("b", "example.com/b"), ("c", "example.com/c"), ("d", "auto")])});
        let deployment = Workload::find("apps", "v1", "deployments", "Deployment").unwrap();
        let counts = |workload: &Workload, old: Option<Value>, placeholders: &[Box<str>]| {
            let review = review(workload, "UPDATE", Some(spec("example.com/new")), old).to_string();
            let ReviewSubject::Images(mut images) = Review::parse(review.as_bytes()).unwrap().subject().unwrap() else {
                panic!()
            };
            (images.unchanged, images.take_placeholders(placeholders), images.to_decide.len())
        };
        assert_eq!(counts(deployment, Some(spec("example.com/old")), &[]), (3, 0, 1));
        assert_eq!(counts(deployment, None, &["auto".into()]), (0, 1, 3));
        assert_eq!(counts(pod(), None, &["auto".into()]), (0, 0, 4));
    }

    #[test]
    fn operations_have_labels() {
        use Operation::{Connect, Create, Delete, Update};
        assert_eq!([Create, Update, Delete, Connect].map(Operation::label), ["create", "update", "delete", "connect"]);
    }

    #[test]
    fn an_update_without_a_readable_old_object_asks_about_every_image() {
        let new = || Some(json!({"containers": containers(&[("web", "example.com/a")])}));
        for old in [None, Some(json!(null)), Some(json!(5)), Some(json!({"containers": "example.com/a"}))] {
            assert_eq!(pointers(&review(pod(), "UPDATE", new(), old)), ["/spec/containers/0/image"]);
        }
    }

    #[test]
    fn deletions_and_connections_ask_about_nothing_whatever_they_are_about() {
        for operation in ["DELETE", "CONNECT"] {
            assert!(pointers(&review(pod(), operation, None, Some(json!({"containers": 5})))).is_empty());
        }
        let mut exec = review(pod(), "CONNECT", None, None);
        exec["request"]["kind"]["kind"] = json!("PodExecOptions");
        assert!(pointers(&exec).is_empty());
    }

    #[test]
    fn what_is_not_in_the_table_is_unknown() {
        let good = || review(pod(), "CREATE", Some(json!({"containers": []})), None);
        for (member, name, value) in [
            ("resource", "resource", "widgets"),
            ("resource", "group", "example.com"),
            ("resource", "version", "v2"),
            ("kind", "kind", "Eviction"),
            ("kind", "group", "policy"),
            ("kind", "version", "v1beta1"),
        ] {
            let mut review = good();
            review["request"][member][name] = json!(value);
            assert_eq!(asked(&review), Err(ObjectError::UnknownResource), "{member}.{name}: {value}");
        }
    }

    #[test]
    fn a_subresource_that_carries_the_object_is_read_like_it() {
        for subresource in ["ephemeralcontainers", "status", "resize"] {
            let mut review = review(pod(), "UPDATE", Some(json!({"containers": containers(&[("web", "a")])})), None);
            review["request"]["subResource"] = json!(subresource);
            assert_eq!(pointers(&review), ["/spec/containers/0/image"]);
        }
    }

    #[test]
    fn an_object_of_another_shape_is_refused_and_not_skipped() {
        assert_eq!(asked(&review(pod(), "CREATE", None, None)), Err(ObjectError::NoObject));
        for pod_spec in [
            json!(null),
            json!("containers"),
            json!([]),
            json!({"containers": {"name": "web", "image": "example.com/a"}}),
            json!({"containers": [null]}),
            json!({"containers": ["example.com/a"]}),
            json!({"containers": [{"name": "web", "image": 5}]}),
            json!({"containers": [{"name": "web", "image": ["example.com/a"]}]}),
            json!({"initContainers": [{"name": {}, "image": "example.com/a"}]}),
            json!({"volumes": [{"name": "v", "image": "example.com/a"}]}),
            json!({"volumes": [{"name": "v", "image": {"reference": {}}}]}),
        ] {
            for workload in [pod(), Workload::find("batch", "v1", "cronjobs", "CronJob").unwrap()] {
                let error = asked(&review(workload, "CREATE", Some(pod_spec.clone()), None)).unwrap_err();
                let expected = format!("/{}", workload.pod_spec.join("/"));
                assert!(
                    matches!(&error, ObjectError::Shape { pointer, .. } if *pointer == expected),
                    "{pod_spec}: {error}"
                );
            }
        }
    }

    #[test]
    fn an_entry_without_an_image_is_asked_about_as_empty() {
        let spec = json!({"containers": [{"name": "web"}, {"name": "b", "image": null}], "volumes": [{"name": "v", "image": {}}]});
        let found = asked(&review(pod(), "CREATE", Some(spec), None)).unwrap();
        assert!(found.len() == 3 && found.iter().all(|(.., image)| image.is_empty()), "{found:?}");
    }

    #[test]
    fn a_list_without_end_is_given_up_and_one_that_is_merely_long_is_read() {
        for (member, entry) in [
            ("containers", json!({})),
            ("initContainers", json!({"image": "example.com/a"})),
            ("ephemeralContainers", json!({})),
            ("volumes", json!({"emptyDir": {}})),
        ] {
            let of = |entries: usize| Some(json!({member: vec![entry.clone(); entries]}));
            assert!(asked(&review(pod(), "CREATE", of(MAX_ENTRIES), None)).is_ok(), "{member}");
            let error = asked(&review(pod(), "CREATE", of(MAX_ENTRIES + 1), None)).unwrap_err().to_string();
            assert!(error.contains("/spec can't be read: a list has more than 1000 entries"), "{member}: {error}");
            // An old object like that makes nothing unchanged.
            let new = Some(json!({"containers": [{"image": "example.com/a"}]}));
            assert_eq!(pointers(&review(pod(), "UPDATE", new, of(MAX_ENTRIES + 1))).len(), 1, "{member}");
        }
    }

    #[test]
    fn a_member_that_stands_there_twice_hides_no_image() {
        let good = r#"{"containers":[{"name":"web","image":"example.com/a"}]}"#;
        let body =
            |object: &str| review(pod(), "CREATE", Some(json!({})), None).to_string().replace(r#"{"spec":{}}"#, object);
        assert!(asked_in(&body(&format!(r#"{{"spec":{good}}}"#))).is_ok());
        for object in [
            format!(r#"{{"spec":{good},"spec":{{"containers":[]}}}}"#),
            format!(r#"{{"spec":{{"containers":[]}},"sp\u0065c":{good}}}"#),
            r#"{"spec":{"containers":[{"name":"web","image":"a","image":"b"}]}}"#.to_owned(),
            r#"{"spec":{"containers":[{"name":"web","image":"a","im\u0061ge":"b"}]}}"#.to_owned(),
            r#"{"spec":{"containers":[],"containers":[]}}"#.to_owned(),
            r#"{"spec":{"volumes":[{"name":"v","image":{},"image":{}}]}}"#.to_owned(),
        ] {
            assert!(matches!(asked_in(&body(&object)), Err(ObjectError::Shape { .. })), "{object}");
        }
        let twice = review(pod(), "CREATE", Some(json!({})), None)
            .to_string()
            .replace(r#""object":"#, r#""object":{},"object":"#);
        assert!(matches!(Review::parse(twice.as_bytes()), Err(ReviewError::Malformed(_))));
    }

    #[test]
    fn a_uid_has_1_to_128_characters() {
        for (length, good) in [(0, false), (1, true), (MAX_UID_BYTES, true), (MAX_UID_BYTES + 1, false)] {
            let mut review = review(pod(), "CREATE", Some(json!({"containers": []})), None);
            review["request"]["uid"] = json!("u".repeat(length));
            assert_eq!(Review::parse(review.to_string().as_bytes()).is_ok(), good, "{length}");
        }
    }

    #[test]
    fn a_placeholder_is_left_out_of_a_template_by_its_whole_text_and_never_out_of_a_pod() {
        let spec = json!({"containers": containers(&[("a", "auto"), ("b", "Auto"), ("c", "auto "), ("d", "")])});
        let placeholders: [Box<str>; 2] = ["auto".into(), "other".into()];
        for (workload, taken) in [(Workload::find("apps", "v1", "deployments", "Deployment").unwrap(), 1), (pod(), 0)] {
            let body = review(workload, "CREATE", Some(spec.clone()), None).to_string();
            let review = Review::parse(body.as_bytes()).unwrap();
            let ReviewSubject::Images(mut images) = review.subject().unwrap() else { panic!() };
            assert_eq!(images.take_placeholders(&placeholders), taken, "{workload:?}");
            assert_eq!(images.to_decide.len(), 4 - taken);
            assert_eq!(images.to_decide.iter().any(|place| place.image == "auto"), taken == 0);
        }
    }

    #[test]
    fn what_is_no_review_says_why() {
        let refused = |body: &str| Review::parse(body.as_bytes()).unwrap_err().to_string();
        let whole = review(pod(), "CREATE", Some(json!({"containers": []})), None);
        assert!(refused("").contains("EOF"));
        assert!(refused(&whole.to_string()[..200]).contains("not an AdmissionReview"));
        assert!(refused(&format!("{whole} garbage")).contains("trailing"));
        assert!(refused("[]").contains("not an AdmissionReview"));
        assert!(refused("{}").contains("expected apiVersion admission.k8s.io/v1"));
        let with = |change: &dyn Fn(&mut Value)| {
            let mut review = whole.clone();
            change(&mut review);
            refused(&review.to_string())
        };
        assert!(
            with(&|review| review["apiVersion"] = json!("admission.k8s.io/v1beta1"))
                .contains("found admission.k8s.io/v1beta1")
        );
        assert!(
            with(&|review| review["kind"] = json!("Pod\u{1b}[2J")).contains("found admission.k8s.io/v1 and Pod\\u{1b}")
        );
        assert!(with(&|review| review["request"] = json!(null)).contains("no request"));
        assert!(with(&|review| review["request"]["uid"] = json!("")).contains("uid"));
        assert!(with(&|review| review["request"]["uid"] = json!("x".repeat(129))).contains("uid"));
        assert!(with(&|review| review["request"]["operation"] = json!("PATCH")).contains("PATCH"));
        assert!(with(&|review| review["request"]["operation"] = json!("x".repeat(9000))).len() < 300);
        assert!(with(&|review| review["request"]["kind"] = json!(5)).contains("invalid type"));
    }

    #[test]
    fn strings_are_borrowed_unless_they_have_escapes() {
        let spec = json!({"containers": containers(&[("web", "example.com/a"), ("quoted", "a\"b")])});
        let body = review(pod(), "CREATE", Some(spec), None).to_string();
        let review = Review::parse(body.as_bytes()).unwrap();
        let ReviewSubject::Images(images) = review.subject().unwrap() else { panic!() };
        assert!(matches!(images.to_decide[0].image, Cow::Borrowed("example.com/a")));
        assert!(matches!(&images.to_decide[1].image, Cow::Owned(text) if text == "a\"b"));
        assert!(matches!(review.uid, Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Review::parse(&body).map(|review| review.subject().map(|_| ()));
        }

        #[test]
        fn a_review_with_a_byte_changed_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let spec = json!({"containers": containers(&[("web", "example.com/a")])});
            let mut body = review(pod(), "UPDATE", Some(spec.clone()), Some(spec)).to_string().into_bytes();
            let at = at.index(body.len());
            body[at] = byte;
            let _ = Review::parse(&body).map(|review| review.subject().map(|_| ()));
        }

        #[test]
        fn every_new_or_changed_image_is_asked_about_and_no_other(
            old in proptest::collection::vec(("[ab]", "[xyz]"), 0..5),
            new in proptest::collection::vec(("[ab]", "[xyz]"), 0..5),
        ) {
            let list = |all: &[(String, String)]| {
                json!({"containers": all.iter().map(|(name, image)| json!({"name": name, "image": image})).collect::<Vec<_>>()})
            };
            let found = pointers(&review(pod(), "UPDATE", Some(list(&new)), Some(list(&old))));
            let expected: Vec<_> = (0..new.len())
                .filter(|&index| !old.contains(&new[index]))
                .map(|index| format!("/spec/containers/{index}/image"))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
