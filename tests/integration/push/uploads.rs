//! Uploads that go wrong, into a registry that does it on purpose.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use super::{
    Layout,
    fake::{Fake, State},
    outcomes, push, pushed,
};
use crate::support::{Asked, Gpg, Reply, Scratch};

/// A little more than two chunks.
pub(super) const LARGE: usize = 33 << 20;
const CHUNK: usize = 16 << 20;

/// Someone who signs, an image with a small layer, and a folder for its signatures.
pub(super) struct Pusher {
    pub(super) gpg: Gpg,
    pub(super) folder: Scratch,
}

impl Pusher {
    pub(super) fn new() -> Self {
        let gpg = Gpg::new();
        gpg.generate("Release <release@example.com>");
        Self { gpg, folder: Scratch::new() }
    }

    pub(super) fn small(&self) -> Layout<'_> {
        Layout::of(&self.folder, "small", &["layer"]).0
    }

    pub(super) fn large(&self) -> Layout<'_> {
        Layout::of(&self.folder, "large", &[&"0123456789abcdef".repeat(LARGE / 16)]).0
    }

    fn signatures(&self) -> String {
        self.folder.path().join("signatures").display().to_string()
    }

    pub(super) fn pushes(&self, layout: &Layout<'_>, fake: &Fake, more: &[&str]) -> serde_json::Value {
        self.pushes_signing_into("signatures", layout, fake, more)
    }

    /// With the signatures in this folder.
    pub(super) fn pushes_signing_into(
        &self,
        folder: &str,
        layout: &Layout<'_>,
        fake: &Fake,
        more: &[&str],
    ) -> serde_json::Value {
        let to = self.folder.path().join(folder).display().to_string();
        pushed(&self.gpg, &layout.source(), &fake.image(), &[&["--to", &to], more].concat())
    }

    /// Ends with this status and this message, and nothing is signed.
    #[track_caller]
    pub(super) fn fails(&self, layout: &Layout<'_>, fake: &Fake, more: &[&str], status: i32, text: &str) {
        let output = push(&self.gpg, &layout.source(), &fake.image(), &[&["--to", &self.signatures()], more].concat());
        output.fails_after_lines(status, text);
        assert!(!std::path::Path::new(&self.signatures()).exists(), "something is signed");
    }
}

/// The answer with these values of `Docker-Content-Digest` in place of its own, or none.
pub(super) fn with_digests(reply: Reply, digests: &[&str]) -> Reply {
    let Reply::Http(status, mut headers, body) = reply else { return reply };
    headers.retain(|(name, _)| name != "docker-content-digest");
    headers.extend(digests.iter().map(|&digest| ("docker-content-digest".to_owned(), digest.to_owned())));
    Reply::Http(status, headers, body)
}

#[test]
fn an_empty_content_digest_is_as_good_as_none_and_another_is_refused() {
    let pusher = Pusher::new();
    for digests in [&[""][..], &[" ", ""], &[]] {
        let fake = Fake::start(|asked, state: &mut State| Some(with_digests(state.answer(asked), digests)));
        let report = pusher.pushes(&pusher.small(), &fake, &["--renew"]);
        assert_eq!(outcomes(&report, "blobs"), ["pushed", "pushed"], "{digests:?}");
    }
    let other = sealgate::image::Digest::sha256(b"other").to_string();
    for method in ["PUT /v2/acme/web/manifests", "PUT /v2/acme/web/blobs"] {
        let (pusher, other) = (Pusher::new(), other.clone());
        let fake = Fake::start(move |asked, state: &mut State| {
            let is_it = format!("{} {}", asked.method, asked.path).starts_with(method);
            is_it.then(|| with_digests(state.answer(asked), &["", &other]))
        });
        pusher.fails(&pusher.small(), &fake, &[], 3, "Docker-Content-Digest header is not");
    }
}

pub(super) fn is_blob_upload(asked: &Asked, method: &str) -> bool {
    asked.method == method && asked.path.contains("/blobs/uploads/u")
}

#[test]
fn an_upload_that_breaks_is_taken_up_where_the_registry_says_that_it_stands() {
    let pusher = Pusher::new();
    let patches = AtomicUsize::new(0);
    // Of the second chunk the first 5 MiB arrive.
    let fake = Fake::start(move |asked, state: &mut State| {
        if is_blob_upload(asked, "PATCH") && patches.fetch_add(1, Ordering::SeqCst) == 1 {
            let upload = asked.path.rsplit('/').next()?.split('?').next()?.to_owned();
            state.uploads.get_mut(&upload)?.push_str(&asked.body[..5 << 20]);
            state.received += 5 << 20;
            return Some(Reply::HangUp);
        }
        None
    });
    let report = pusher.pushes(&pusher.large(), &fake, &[]);
    assert_eq!(outcomes(&report, "blobs"), ["pushed", "pushed"]);
    let received = fake.state.lock().unwrap().received;
    assert!((LARGE..LARGE + 1000).contains(&received), "nothing that had arrived is sent again: {received}");
    assert_eq!(fake.count("POST", "/uploads/"), 2);
}

#[test]
fn an_upload_that_went_wrong_where_it_was_taken_up_is_begun_anew() {
    let pusher = Pusher::new();
    let patches = AtomicUsize::new(0);
    let fake = Fake::start(move |asked, state: &mut State| {
        if is_blob_upload(asked, "PATCH") && patches.fetch_add(1, Ordering::SeqCst) == 1 {
            let upload = asked.path.rsplit('/').next()?.split('?').next()?.to_owned();
            state.uploads.get_mut(&upload)?.push_str("garbage");
            return Some(Reply::HangUp);
        }
        None
    });
    pusher.pushes(&pusher.large(), &fake, &[]);
    assert_eq!(fake.count("POST", "/uploads/"), 3);
}

#[test]
fn an_upload_that_the_registry_has_forgotten_is_begun_anew() {
    let pusher = Pusher::new();
    let patches = AtomicUsize::new(0);
    let fake = Fake::start(move |asked, state| {
        if is_blob_upload(asked, "PATCH") && patches.fetch_add(1, Ordering::SeqCst) == 1 {
            state.uploads.clear();
            return Some(Reply::HangUp);
        }
        None
    });
    pusher.pushes(&pusher.large(), &fake, &[]);
    assert_eq!(fake.count("PATCH", "/uploads/"), 5);
}

#[test]
fn an_answer_that_is_lost_does_not_make_the_blob_go_twice() {
    let pusher = Pusher::new();
    let fake = Fake::start(|asked, state| {
        if is_blob_upload(asked, "PUT") {
            state.answer(asked);
            return Some(Reply::HangUp);
        }
        None
    });
    pusher.pushes(&pusher.small(), &fake, &[]);
    assert_eq!(fake.count("POST", "/uploads/"), 2);
}

#[test]
fn a_connection_that_always_breaks_is_given_up() {
    let pusher = Pusher::new();
    let fake = Fake::start(|asked, _| is_blob_upload(asked, "PUT").then_some(Reply::HangUp));
    pusher.fails(&pusher.small(), &fake, &[], 3, "the connection ended");
    // Two blobs at once, each with six tries.
    assert!(fake.count("PUT", "/uploads/") <= 12);
}

#[test]
fn a_registry_that_is_busy_is_asked_again() {
    let pusher = Pusher::new();
    let fake = Fake::start(|asked, _| {
        (asked.before < 12 && asked.method != "GET").then(|| Reply::new(503, &[("retry-after", "0")], ""))
    });
    pusher.pushes(&pusher.small(), &fake, &[]);
}

#[test]
fn chunks_are_as_large_as_the_registry_wants_them() {
    let pusher = Pusher::new();
    let fake = Fake::honest();
    fake.state.lock().unwrap().least_chunk = Some(CHUNK + 1);
    pusher.pushes(&pusher.large(), &fake, &[]);
    let sizes: Vec<usize> = {
        let asked = fake.server.asked();
        asked.iter().filter(|asked| asked.method == "PATCH").map(|asked| asked.body.len()).collect()
    };
    assert_eq!(sizes, [CHUNK + 1, CHUNK + 1, LARGE - 2 * (CHUNK + 1)]);
    // More than there is goes in one request.
    let greedy = Fake::honest();
    greedy.state.lock().unwrap().least_chunk = Some(1 << 30);
    let other = Pusher::new();
    other.pushes(&other.large(), &greedy, &[]);
    assert_eq!((greedy.count("PATCH", ""), greedy.count("PUT", "/uploads/")), (0, 2));
}

#[test]
fn a_registry_that_says_another_digest_gets_nothing_signed() {
    let other = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    for (method, path) in [("PUT", "/blobs/uploads/"), ("PUT", "/manifests/")] {
        let pusher = Pusher::new();
        let fake = Fake::start(move |asked, state| {
            if asked.method != method || !asked.path.contains(path) {
                return None;
            }
            state.answer(asked);
            Some(Reply::new(201, &[("docker-content-digest", other)], ""))
        });
        pusher.fails(&pusher.small(), &fake, &[], 3, "its Docker-Content-Digest header is not sha256:");
    }
}

#[test]
fn a_registry_that_loses_a_part_gets_nothing_signed() {
    let lost = Pusher::new();
    let fake = Fake::start(|asked, state| {
        if asked.path.contains("/manifests/") {
            state.blobs.clear();
        }
        None
    });
    lost.fails(&lost.small(), &fake, &[], 3, "the registry accepted sha256:");

    let changed = Pusher::new();
    let fake = Fake::start(|asked, state| {
        if asked.method == "GET" && asked.path.contains("/manifests/sha256") {
            let body = state.manifests.get("1")?.1.clone() + " ";
            return Some(Reply::new(200, &[("content-type", "application/vnd.oci.image.manifest.v1+json")], body));
        }
        None
    });
    changed.fails(&changed.small(), &fake, &[], 3, "does not have it as it was pushed");

    let moved = Pusher::new();
    let fake = Fake::start(|asked, state| {
        if asked.method == "GET" && asked.path.contains("/manifests/1") && state.manifests.contains_key("1") {
            return Some(Reply::new(200, &[], "{}"));
        }
        None
    });
    moved.fails(&moved.small(), &fake, &[], 1, "the tag 1 names another image");
}

#[test]
fn uploads_go_on_at_a_named_host_only_and_without_credentials() {
    let pusher = Pusher::new();
    let fake = Fake::start(|asked, _| {
        let here = asked.header("host").is_some_and(|host| host.starts_with("127.0.0.1"));
        let open = !here || asked.header("authorization").is_some();
        (!open).then(|| Reply::new(401, &[("www-authenticate", "Basic realm=\"x\"")], ""))
    });
    fake.state.lock().unwrap().elsewhere = format!("http://{}", fake.server.other_host());
    let creds = ["--creds", "robot:secret"];
    pusher.fails(&pusher.small(), &fake, &creds, 3, "no public address of it can be found");
    let configuration = format!(
        "apiVersion: sealgate.dev/v1\nkind: Configuration\nregistries:\n- scope: {}\n  insecure: true\n",
        fake.server.other_host()
    );
    let configuration = pusher.folder.write("sealgate.yaml", configuration).display().to_string();
    pusher.pushes(&pusher.small(), &fake, &[&creds[..], &["--config", &configuration]].concat());
    let elsewhere = fake.server.asked();
    let elsewhere = elsewhere.iter().filter(|asked| asked.header("host").is_some_and(|host| host.starts_with("local")));
    let with: Vec<_> = elsewhere.map(|asked| asked.header("authorization").is_some()).collect();
    assert!(!with.is_empty() && with.iter().all(|with| !with), "{with:?}");
}

#[test]
fn an_upload_follows_redirects_under_the_same_rules() {
    let pusher = Pusher::new();
    let there = Arc::new(OnceLock::<String>::new());
    let other = Arc::clone(&there);
    let fake = Fake::start(move |asked, _| {
        let here = asked.header("host").is_some_and(|host| host.starts_with("127.0.0.1"));
        let to = format!("http://{}{}", other.get()?, asked.path);
        (here && is_blob_upload(asked, "PUT")).then(|| Reply::new(307, &[("location", &*to)], ""))
    });
    there.set(fake.server.other_host()).unwrap();
    pusher.fails(&pusher.small(), &fake, &[], 3, "it redirects to a host of which no public address can be found");
    let configuration = format!(
        "apiVersion: sealgate.dev/v1\nkind: Configuration\nregistries:\n- scope: {}\n",
        fake.server.other_host()
    );
    let configuration = pusher.folder.write("sealgate.yaml", configuration).display().to_string();
    pusher.pushes(&pusher.small(), &fake, &["--config", &configuration]);
    let see_other =
        Fake::start(|asked, _| is_blob_upload(asked, "PUT").then(|| Reply::new(303, &[("location", "/x")], "")));
    let other = Pusher::new();
    other.fails(&other.small(), &see_other, &[], 3, "it redirects what is sent to it");
}

/// A configuration that names the server's other host, too.
fn naming_both_hosts(pusher: &Pusher, fake: &Fake) -> String {
    let configuration = format!(
        "apiVersion: sealgate.dev/v1\nkind: Configuration\nregistries:\n- scope: {}\n- scope: {}\n  insecure: true\n",
        fake.server.host(),
        fake.server.other_host()
    );
    pusher.folder.write("sealgate.yaml", configuration).display().to_string()
}

/// Wants credentials at the registry's own host, but for uploads, and none at the other one.
fn is_refused(asked: &Asked) -> bool {
    let here = asked.header("host").is_some_and(|host| host.starts_with("127.0.0.1"));
    here && !asked.path.contains("/blobs/uploads/u") && asked.header("authorization").is_none()
}

fn please() -> Reply {
    Reply::new(401, &[("www-authenticate", "Basic realm=\"x\"")], "")
}

#[test]
fn an_upload_that_another_host_leads_back_to_the_registry_gets_no_credentials_there() {
    let pusher = Pusher::new();
    let hosts = Arc::new(OnceLock::<[String; 2]>::new());
    let known = Arc::clone(&hosts);
    let fake = Fake::start(move |asked, state| {
        if is_refused(asked) {
            return Some(please());
        }
        let [here, there] = known.get()?;
        // The first chunk goes elsewhere, and all that follows goes back, at first by a whole URL and then by a path.
        state.elsewhere = match asked.method.as_str() {
            "POST" => format!("http://{there}"),
            "PATCH" if asked.header("host") == Some(there) => format!("http://{here}"),
            _ => String::new(),
        };
        None
    });
    hosts.set([fake.server.host(), fake.server.other_host()]).unwrap();
    let configuration = naming_both_hosts(&pusher, &fake);
    pusher.pushes(&pusher.large(), &fake, &["--creds", "robot:secret", "--config", &configuration]);
    let asked = fake.server.asked();
    let back: Vec<_> = asked
        .iter()
        .filter(|asked| is_blob_upload(asked, "PATCH") && asked.header("host") == Some(&fake.server.host()))
        .map(|asked| asked.header("authorization"))
        .collect();
    assert_eq!(back, [None, None], "two more chunks");
    let with =
        asked.iter().filter(|asked| asked.path.contains("/manifests/") && asked.header("authorization").is_some());
    assert!(with.count() > 0, "all else goes with credentials as before");
}

#[test]
fn a_relative_location_starts_from_who_gave_it() {
    let pusher = Pusher::new();
    let there = Arc::new(OnceLock::<String>::new());
    let other = Arc::clone(&there);
    let fake = Fake::start(move |asked, state| {
        let there = other.get()?;
        let upload = state.uploads.len();
        match (asked.method.as_str(), asked.path.as_str()) {
            ("POST", "/v2/acme/web/blobs/uploads/") => {
                Some(Reply::new(307, &[("location", &*format!("http://{there}/inner/v2/acme/web/begin/"))], ""))
            }
            ("POST", _) => {
                state.uploads.insert(format!("u{upload}"), String::new());
                Some(Reply::new(202, &[("location", &*format!("../blobs/uploads/u{upload}"))], ""))
            }
            _ => None,
        }
    });
    there.set(fake.server.other_host()).unwrap();
    let configuration = naming_both_hosts(&pusher, &fake);
    pusher.pushes(&pusher.small(), &fake, &["--config", &configuration]);
    let asked = fake.server.asked();
    let puts: Vec<_> = asked.iter().filter(|asked| is_blob_upload(asked, "PUT")).collect();
    assert_eq!(puts.len(), 2);
    for put in puts {
        assert_eq!(put.header("host"), Some(&*fake.server.other_host()));
        assert!(put.path.starts_with("/inner/v2/acme/web/blobs/uploads/u"), "{}", put.path);
    }
}

#[test]
fn an_upload_does_not_go_on_at_another_endpoint_of_the_registry() {
    let pusher = Pusher::new();
    let layout = pusher.small();
    for path in ["/v2/acme/web/manifests/1", "/v2/acme/other/blobs/uploads/../../manifests/1?x=y", "/extensions/v2/x"] {
        let fake =
            Fake::start(move |asked, _| (asked.method == "POST").then(|| Reply::new(202, &[("location", path)], "")));
        pusher.fails(&layout, &fake, &["--creds", "robot:secret"], 3, "it has an upload go on where none can");
        assert_eq!(fake.count("PUT", ""), 0, "{path}");
        // The same by a redirect.
        let fake = Fake::start(move |asked, _| {
            is_blob_upload(asked, "PUT").then(|| Reply::new(307, &[("location", path)], ""))
        });
        let text = "it redirects an upload to where none can go on";
        pusher.fails(&layout, &fake, &["--creds", "robot:secret"], 3, text);
        assert_eq!(fake.count("PUT", "manifests") + fake.count("PUT", "extensions"), 0, "{path}");
    }
}

#[test]
fn a_token_is_for_pushing_and_for_reading_where_blobs_are_mounted_from() {
    let pusher = Pusher::new();
    let fake = Fake::start(|asked, _| {
        if asked.path.starts_with("/token") {
            return Some(Reply::new(200, &[], r#"{"token": "t"}"#));
        }
        let realm = format!("Bearer realm=\"http://{}/token\"", asked.header("host")?);
        let open = asked.header("authorization").is_some();
        (!open).then(|| Reply::new(401, &[("www-authenticate", realm.as_str())], ""))
    });
    let from = format!("{}/acme/base", fake.server.host());
    pusher.pushes(&pusher.small(), &fake, &["--mount-from", &from]);
    let paths = fake.server.paths();
    let tokens: Vec<&String> = paths.iter().filter(|path| path.starts_with("/token")).collect();
    let has = |scopes: &[&str]| {
        let query = scopes.iter().map(|scope| format!("scope={scope}")).collect::<Vec<_>>().join("&");
        tokens.iter().any(|path| path.ends_with(&format!("?{query}")))
    };
    let push = "repository%3Aacme%2Fweb%3Apull%2Cpush";
    assert!(has(&[push]), "{tokens:?}");
    assert!(has(&[push, "repository%3Aacme%2Fbase%3Apull"]), "{tokens:?}");
    let mount = paths.iter().find(|path| path.contains("mount=")).expect("a mount is tried");
    assert!(mount.contains("&from=acme%2Fbase"), "{mount}");
}

#[test]
fn a_registrys_refusal_is_told_in_its_own_words() {
    let pusher = Pusher::new();
    let words = r#"{"errors":[{"code":"DENIED","message":"quota exceeded"}]}"#;
    let fake = Fake::start(move |asked, _| (asked.method == "POST").then(|| Reply::new(403, &[], words)));
    pusher.fails(&pusher.small(), &fake, &[], 1, "quota exceeded (DENIED)");
}
