//! Registries that follow the specification in their own way: what skopeo pushes there, `sealgate push` does, too.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::{
    Layout, accept_anything,
    fake::{Fake, State, error, range},
    outcomes,
    registries::{Fault, fault, is_chunk, patched, upload_of},
    skopeo,
    uploads::{LARGE, Pusher, is_blob_upload},
};
use crate::support::{Asked, Reply};

/// What comes of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Pushed,
    /// It ends with this message.
    Fails(&'static str),
}

use Outcome::{Fails, Pushed};

struct Odd {
    name: &'static str,
    /// Made anew for each push.
    fault: Box<dyn Fn() -> Fault + Send + Sync>,
    by_skopeo: bool,
    by_us: Outcome,
}

fn odd(name: &'static str, by_skopeo: bool, by_us: Outcome, fault: impl Fn() -> Fault + Send + Sync + 'static) -> Odd {
    Odd { name, fault: Box::new(fault), by_skopeo, by_us }
}

/// The honest answer to a `POST` with this status, without these headers, and with these.
fn begun(asked: &Asked, state: &mut State, status: u16, without: &[&str], with: &[(&str, String)]) -> Option<Reply> {
    if asked.method != "POST" {
        return None;
    }
    let Reply::Http(202, mut headers, body) = state.answer(asked) else { return None };
    headers.retain(|(name, _)| !without.contains(&name.as_str()));
    headers.extend(with.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Some(Reply::Http(status, headers, body))
}

/// Refuses a `PATCH` of any kind.
fn no_patch(status: u16) -> impl Fn() -> Fault + Send + Sync {
    move || fault(move |asked, _| (asked.method == "PATCH").then(|| error(status, "UNSUPPORTED")))
}

/// Answers a `PATCH` that it took so.
fn patch_status(status: u16) -> impl Fn() -> Fault + Send + Sync {
    move || fault(move |asked, state| patched(asked, state, status, &[], &[]))
}

/// Says this of how large chunks have to be, and refuses those that are larger than it takes.
fn least_chunk(least: &'static str, most: usize) -> impl Fn() -> Fault + Send + Sync {
    move || {
        fault(move |asked, state| {
            if is_chunk(asked) && asked.body.len() > most {
                return Some(error(413, "SIZE_INVALID"));
            }
            begun(asked, state, 202, &[], &[("oci-chunk-min-length", least.to_owned())])
        })
    }
}

/// Has every upload go on at this address, in which `{}` stands for its name, and does not know it by another one.
fn location(address: &'static str) -> impl Fn() -> Fault + Send + Sync {
    move || {
        fault(move |asked, state| {
            let host = asked.header("host")?.to_owned();
            let of = |upload: &str| address.replace("{}", upload).replace("HOST", &host);
            if asked.method == "POST" {
                let Reply::Http(202, headers, _) = state.answer(asked) else { return None };
                let upload = headers.iter().find(|(name, _)| name == "location")?.1.clone();
                let upload = upload.split('?').next()?.rsplit('/').next()?.to_owned();
                return Some(Reply::new(202, &[("location", &*of(&upload))], ""));
            }
            if !matches!(asked.method.as_str(), "PATCH" | "PUT" | "DELETE") || asked.path.contains("/manifests/") {
                return None;
            }
            let whole = url::Url::parse(&format!("http://{host}/v2/acme/web/blobs/uploads/")).expect("a URL");
            let asked_for = whole.join(&asked.path).expect("a URL");
            let pairs: Vec<_> = asked_for.query_pairs().into_owned().collect();
            // In any order: skopeo sorts what a query has.
            let upload = state.uploads.keys().find(|upload| {
                let expected = whole.join(&of(upload)).expect("a URL");
                expected.path() == asked_for.path()
                    && expected.query_pairs().into_owned().all(|pair| pairs.contains(&pair))
            });
            let Some(upload) = upload.cloned() else { return Some(error(404, "BLOB_UPLOAD_UNKNOWN")) };
            let digest = pairs.iter().find(|(name, _)| name == "digest").map(|(_, digest)| format!("?digest={digest}"));
            let query = digest.unwrap_or_default();
            let known = Asked { path: format!("/v2/acme/web/blobs/uploads/{upload}{query}"), ..asked.clone() };
            let Reply::Http(status, mut headers, body) = state.answer(&known) else { return None };
            for (_, value) in headers.iter_mut().filter(|(name, _)| name == "location") {
                *value = of(&upload);
            }
            Some(Reply::Http(status, headers, body))
        })
    }
}

/// Of a registry whose `PUT` takes the digest alone: what comes with it is passed over, or refused in this way.
fn empty_put(refusal: Option<Reply>) -> impl Fn() -> Fault + Send + Sync {
    move || {
        let refusal = refusal.clone();
        fault(move |asked, state| {
            if !is_blob_upload(asked, "PUT") || asked.body.is_empty() {
                return None;
            }
            refusal.clone().or_else(|| Some(state.answer(&Asked { body: String::new(), ..asked.clone() })))
        })
    }
}

#[allow(clippy::too_many_lines, reason = "one table")]
fn registries() -> Vec<Odd> {
    const NO_LOCATION: &str = "it begins an upload and does not say where that goes on: its answer has no Location";
    vec![
        odd("as it should be", true, Pushed, || fault(|_, _| None)),
        odd("no PATCH: 400", false, Pushed, no_patch(400)),
        odd("no PATCH: 404", false, Pushed, no_patch(404)),
        odd("no PATCH: 405", false, Pushed, no_patch(405)),
        odd("no PATCH: 501", false, Pushed, no_patch(501)),
        odd("204 to a PATCH", true, Pushed, patch_status(204)),
        odd("no Location in the answer to a POST", false, Fails(NO_LOCATION), || {
            fault(|asked, state| begun(asked, state, 202, &["location"], &[]))
        }),
        odd("an empty Location in the answer to a POST", false, Fails(NO_LOCATION), || {
            fault(|asked, state| begun(asked, state, 202, &["location"], &[("location", String::new())]))
        }),
        odd("an empty Location in the answer to a PATCH", false, Pushed, || {
            fault(|asked, state| patched(asked, state, 202, &["location"], &[("location", String::new())]))
        }),
        odd("the same Location in the answer to a PATCH", true, Pushed, || {
            fault(|asked, state| patched(asked, state, 202, &["location"], &[("location", asked.path.clone())]))
        }),
        odd("no Location in the answer to a PATCH", false, Pushed, || {
            fault(|asked, state| patched(asked, state, 202, &["location"], &[]))
        }),
        odd("chunks of 20 MiB or more", true, Pushed, least_chunk("20971520", usize::MAX)),
        odd("chunks of 1 MiB or more", true, Pushed, least_chunk("1048576", usize::MAX)),
        odd("chunks of nothing or more", true, Pushed, least_chunk("0", usize::MAX)),
        odd("chunks of 1 TiB or more", true, Pushed, least_chunk("1099511627776", usize::MAX)),
        odd("chunks of more than any number or more", true, Pushed, least_chunk("99999999999999999999999", usize::MAX)),
        odd("chunks of -1 or more", true, Pushed, least_chunk("-1", usize::MAX)),
        odd("chunks of many or more", true, Pushed, least_chunk("many", usize::MAX)),
        odd("chunks of 20 MiB or more, and of 10 MiB at most", true, Pushed, least_chunk("20971520", 10 << 20)),
        odd("a Location by its path", true, Pushed, location("/v2/acme/web/blobs/uploads/{}")),
        odd("a Location that is whole", true, Pushed, location("http://HOST/v2/acme/web/blobs/uploads/{}")),
        odd("a Location without a scheme", true, Pushed, location("//HOST/v2/acme/web/blobs/uploads/{}")),
        odd("a Location from where it was asked", true, Pushed, location("{}")),
        odd("a Location one up", true, Pushed, location("../uploads/{}")),
        odd(
            "a Location with a query",
            true,
            Pushed,
            location("/v2/acme/web/blobs/uploads/{}?_state=a%2Fb+c%3D%3D&x=y"),
        ),
        odd("a Location with an empty query", true, Pushed, location("/v2/acme/web/blobs/uploads/{}?")),
        odd("a Location with a name in its query", true, Pushed, location("/v2/acme/web/blobs/uploads/?upload={}")),
        odd(
            "a Location at another path",
            true,
            Pushed,
            location("/artifacts-uploads/namespaces/p/repositories/r/uploads/{}"),
        ),
        odd("a Location in the singular", true, Pushed, location("/v2/acme/web/blobs/upload/{}")),
        odd("a PUT takes no content: it is passed over", true, Pushed, empty_put(None)),
        odd("a PUT takes no content: 400", true, Pushed, empty_put(Some(error(400, "UNSUPPORTED")))),
        odd("a PUT takes no content: 413", true, Pushed, empty_put(Some(error(413, "SIZE_INVALID")))),
        odd("a PUT takes no content: 500", true, Pushed, empty_put(Some(error(500, "UNKNOWN")))),
        odd("a PUT takes no content: it hangs up", true, Pushed, empty_put(Some(Reply::HangUp))),
        odd("each PATCH takes the place of what was there", true, Pushed, || {
            fault(|asked, state| {
                if asked.method != "PATCH" {
                    return None;
                }
                state.uploads.get_mut(&upload_of(asked))?.clone_from(&asked.body);
                Some(Reply::new(202, &[("location", &*asked.path), ("range", &range(asked.body.len()))], ""))
            })
        }),
        odd("the second PATCH of an upload is refused: 400", true, Pushed, || {
            fault(|asked, state| {
                let is_second = asked.method == "PATCH" && !state.uploads.get(&upload_of(asked))?.is_empty();
                is_second.then(|| error(400, "UNSUPPORTED"))
            })
        }),
        odd("200 to a POST", false, Pushed, || fault(|asked, state| begun(asked, state, 200, &[], &[]))),
        odd("201 to a POST", false, Pushed, || fault(|asked, state| begun(asked, state, 201, &[], &[]))),
    ]
}

/// Returns what skopeo says where it fails.
fn skopeo_pushes(pusher: &Pusher, layout: &Layout<'_>, fake: &Fake) -> Result<(), String> {
    let policy = accept_anything(&pusher.folder).display().to_string();
    let (from, to) = (layout.source(), format!("docker://{}", fake.image()));
    let copy = ["--policy", &policy, "copy", "--preserve-digests", "--dest-tls-verify=false", &from, &to];
    let output = skopeo(pusher.gpg.home(), &copy);
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn what_skopeo_pushes_is_pushed_and_more() {
    let pusher = Pusher::new();
    let (small, large) = (pusher.small(), pusher.large());
    let registries = registries();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(Odd { name, fault, by_skopeo, by_us }) =
                    registries.get(next.fetch_add(1, Ordering::SeqCst))
                {
                    let by_theirs = skopeo_pushes(&pusher, &small, &Fake::start(fault()));
                    assert_eq!(by_theirs.is_ok(), *by_skopeo, "{name}: skopeo: {by_theirs:?}");
                    assert!(!by_skopeo || *by_us == Pushed, "{name}: what skopeo pushes fails");
                    for (layout, size) in [(&small, "layer".len()), (&large, LARGE)] {
                        let fake = Fake::start(fault());
                        let folder = format!("{name} {size}").replace(['/', ':', '-'], "");
                        match by_us {
                            Pushed => {
                                let report = pusher.pushes_signing_into(&folder, layout, &fake, &[]);
                                assert_eq!(outcomes(&report, "blobs"), ["pushed", "pushed"], "{name}");
                                let state = fake.state.lock().expect("no panic under the lock");
                                assert!(state.blobs.values().any(|blob| blob.len() == size), "{name}");
                            }
                            Fails(text) => pusher.fails(layout, &fake, &[], 3, text),
                        }
                    }
                }
            });
        }
    });
}

#[test]
fn an_upload_that_breaks_where_the_registry_says_nothing_to_stand_on_is_begun_anew() {
    let ranges = [
        None,
        Some(range(0)),
        Some(format!("{}-0", (16 << 20) - 1)),
        Some("0-18446744073709551614".to_owned()),
        Some(format!("0-{}", LARGE * 2)),
        Some("all of it".to_owned()),
        Some(String::new()),
        Some("9".repeat(4000)),
    ];
    let pusher = Pusher::new();
    let layout = pusher.large();
    thread::scope(|scope| {
        for ranges in ranges.chunks(2) {
            let (pusher, layout) = (&pusher, &layout);
            scope.spawn(move || {
                for range in ranges {
                    let patches = AtomicUsize::new(0);
                    let said = range.clone();
                    let fake = Fake::start(move |asked, state: &mut State| {
                        if is_blob_upload(asked, "PATCH") && patches.fetch_add(1, Ordering::SeqCst) == 1 {
                            // A part of it arrives.
                            state.uploads.get_mut(&upload_of(asked))?.push_str(&asked.body[..5 << 20]);
                            return Some(Reply::HangUp);
                        }
                        let headers: Vec<(&str, &str)> = said.iter().map(|range| ("range", range.as_str())).collect();
                        is_blob_upload(asked, "GET").then(|| Reply::new(204, &headers, ""))
                    });
                    let folder = format!("signatures {range:?}").chars().take(60).collect::<String>();
                    let report = pusher.pushes_signing_into(&folder, layout, &fake, &[]);
                    assert_eq!(outcomes(&report, "blobs"), ["pushed", "pushed"], "{range:?}");
                    let state = fake.state.lock().expect("no panic under the lock");
                    assert!(state.blobs.values().any(|blob| blob.len() == LARGE), "{range:?}");
                }
            });
        }
    });
}
