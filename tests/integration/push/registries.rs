//! What registries and proxies do with the upload of a layer of more than two chunks. The specification leaves most of it open,
//! or is not followed.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use sealgate::image::Digest;

use super::{
    fake::{Fake, State, error, range},
    outcomes,
    uploads::{LARGE, Pusher, is_blob_upload},
};
use crate::support::{Asked, Reply};

const MIB: usize = 1 << 20;

/// What a registry answers first; `None`: as the specification says.
pub(super) type Fault = Box<dyn Fn(&Asked, &mut State) -> Option<Reply> + Send + Sync>;

pub(super) fn fault(fault: impl Fn(&Asked, &mut State) -> Option<Reply> + Send + Sync + 'static) -> Fault {
    Box::new(fault)
}

/// A request with a part of a blob.
pub(super) fn is_chunk(asked: &Asked) -> bool {
    is_blob_upload(asked, "PATCH") && asked.header("content-range").is_some()
}

pub(super) fn upload_of(asked: &Asked) -> String {
    let path = asked.path.split('?').next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The honest answer to a `PATCH` with this status, without these headers, and with these.
pub(super) fn patched(
    asked: &Asked,
    state: &mut State,
    status: u16,
    without: &[&str],
    with: &[(&str, String)],
) -> Option<Reply> {
    if !is_blob_upload(asked, "PATCH") {
        return None;
    }
    let Reply::Http(202, mut headers, body) = state.answer(asked) else { return Some(error(416, "RANGE_INVALID")) };
    headers.retain(|(name, _)| !without.contains(&name.as_str()));
    headers.extend(with.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Some(Reply::Http(status, headers, body))
}

/// Answers to a HEAD of a blob that is there with this length.
fn head(asked: &Asked, state: &State, length: Option<usize>) -> Option<Reply> {
    let digest = asked.path.rsplit('/').next()?;
    let is_there = asked.method == "HEAD" && state.blobs.contains_key(digest);
    let length = length.map(|length| format!("content-length: {length}\r\n")).unwrap_or_default();
    is_there.then(|| Reply::Raw(format!("HTTP/1.1 200 X\r\n{length}connection: close\r\n\r\n").into()))
}

/// How many registries are pushed to side by side: much of the time goes by in waiting.
const AT_ONCE: usize = 4;

/// Pushes a large layer into each of these registries, and looks at each afterwards.
fn are_pushed_whole(registries: Vec<(&str, Fault)>, check: impl Fn(&str, &Fake) + Sync) {
    let pusher = Pusher::new();
    let layout = pusher.large();
    let left = Mutex::new(registries.into_iter().enumerate());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = left.lock().expect("no panic under the lock").next();
                    let Some((number, (name, fault))) = next else { return };
                    let fake = Fake::start(fault);
                    let report = pusher.pushes_signing_into(&format!("signatures {number}"), &layout, &fake, &[]);
                    assert_eq!(outcomes(&report, "blobs"), ["pushed", "pushed"], "{name}");
                    assert_eq!(report["signatures"][0]["outcome"], "signed", "{name}");
                    {
                        let state = fake.state.lock().expect("no panic under the lock");
                        assert_eq!(state.blobs.len(), 2, "{name}");
                        for (digest, blob) in &state.blobs {
                            assert_eq!(Digest::sha256(blob.as_bytes()).to_string(), *digest, "{name}");
                        }
                        assert!(state.blobs.values().any(|blob| blob.len() == LARGE), "{name}");
                    }
                    check(name, &fake);
                }
            });
        }
    });
}

#[test]
fn a_registry_that_refuses_chunks_of_a_size_or_any_gets_the_layer_in_another_way() {
    let larger_than = |limit: usize, status: u16| {
        fault(move |asked, _| (is_chunk(asked) && asked.body.len() > limit).then(|| error(status, "SIZE_INVALID")))
    };
    let refuses = |status: u16| fault(move |asked, _| is_chunk(asked).then(|| error(status, "UNSUPPORTED")));
    let registries = vec![
        ("GHCR: 416 to more than 4 MiB with Content-Range", larger_than(4 * MIB, 416)),
        ("416 to more than 5 MiB", larger_than(5 * MIB, 416)),
        ("413 to more than 1 MiB", larger_than(MIB, 413)),
        ("416 to any chunk that is not tiny", larger_than(1000, 416)),
        ("Google's: 400 to any Content-Range", refuses(400)),
        ("405 to any Content-Range", refuses(405)),
        ("411 to any Content-Range", refuses(411)),
        ("415 to any Content-Range", refuses(415)),
        ("422 to any Content-Range", refuses(422)),
        ("501 to any Content-Range", refuses(501)),
    ];
    are_pushed_whole(registries, |_, _| {});
}

#[test]
fn a_registry_that_has_no_good_answer_to_chunks_gets_the_layer_in_another_way() {
    let answers = |reply: Reply| fault(move |asked, _| is_chunk(asked).then(|| reply.clone()));
    let registries = vec![
        ("404: the path is not known with this method", answers(error(404, "NOT_FOUND"))),
        ("500 to any Content-Range", answers(error(500, "UNKNOWN"))),
        ("the connection ends at any Content-Range", answers(Reply::HangUp)),
    ];
    are_pushed_whole(registries, |_, _| {});
}

#[test]
fn a_registry_that_knows_only_one_way_to_send_a_layer_gets_it_so() {
    let registries = vec![
        (
            "no content in PUT, and no chunks: what skopeo does is all there is",
            fault(|asked, _| {
                let has_content = is_blob_upload(asked, "PUT") && !asked.body.is_empty();
                (has_content || is_chunk(asked)).then(|| error(400, "UNSUPPORTED"))
            }),
        ),
        (
            "a proxy that limits every request to 5 MiB",
            fault(|asked, _| (asked.body.len() > 5 * MIB).then(|| error(413, "TOO_LARGE"))),
        ),
        (
            "a proxy that limits every request to 1 MiB",
            fault(|asked, _| (asked.body.len() > MIB).then(|| Reply::new(413, &[], "<html>too large</html>"))),
        ),
    ];
    are_pushed_whole(registries, |_, _| {});
}

#[test]
fn answers_in_the_middle_of_an_upload_are_not_relied_on() {
    let ranges = |range_of: fn(usize, usize) -> String| {
        fault(move |asked, state| {
            let upload = upload_of(asked);
            let before = state.uploads.get(&upload).map_or(0, String::len);
            let range = range_of(before, before + asked.body.len());
            patched(asked, state, 202, &["range"], &[("range", range)])
        })
    };
    let status = |status| fault(move |asked, state| patched(asked, state, status, &[], &[]));
    let put = |status: u16| {
        fault(move |asked, state| {
            let is_put = is_blob_upload(asked, "PUT");
            is_put.then(|| match state.answer(asked) {
                Reply::Http(201, headers, body) => Reply::Http(status, headers, body),
                other => other,
            })
        })
    };
    let registries = vec![
        ("ECR: 201 to a PATCH", status(201)),
        ("Pulp: 204 to a PATCH", status(204)),
        ("200 to a PATCH", status(200)),
        ("no Range", fault(|asked, state| patched(asked, state, 202, &["range"], &[]))),
        ("no Location", fault(|asked, state| patched(asked, state, 202, &["location"], &[]))),
        ("neither", fault(|asked, state| patched(asked, state, 204, &["location", "range"], &[]))),
        ("ECR: the Range of the first chunk", ranges(|_, sent| range(sent.min(16 * MIB)))),
        ("a Range one too many", ranges(|_, sent| format!("0-{sent}"))),
        ("the Range of nothing", ranges(|_, _| "0-0".to_owned())),
        ("the Range of this chunk", ranges(|before, sent| format!("{before}-{}", sent.saturating_sub(1)))),
        ("a Range from its end", ranges(|_, sent| format!("{}-0", sent.saturating_sub(1)))),
        ("a Range without an end", ranges(|_, _| "0-".to_owned())),
        ("a Range below nothing", ranges(|_, _| "0--1".to_owned())),
        ("a Content-Range in place of a Range", ranges(|_, sent| format!("bytes 0-{}/*", sent.saturating_sub(1)))),
        ("a Range longer than any number", ranges(|_, _| format!("0-{}", "9".repeat(2000)))),
        ("two Ranges", fault(|asked, state| patched(asked, state, 202, &[], &[("range", "0-7".to_owned())]))),
        ("far too much of a Range", ranges(|_, _| "0-18446744073709551614".to_owned())),
        ("a Range with its unit", ranges(|_, sent| format!("bytes=0-{}", sent.saturating_sub(1)))),
        ("a Range that is none", ranges(|_, _| "all of it".to_owned())),
        ("200 to the last PUT", put(200)),
        ("202 to the last PUT", put(202)),
        ("204 to the last PUT", put(204)),
    ];
    are_pushed_whole(registries, |name, fake| {
        assert_eq!(fake.count("POST", "/uploads/"), 2, "{name}: nothing is begun twice");
    });
}

#[test]
fn an_upload_goes_on_at_the_address_that_each_answer_names() {
    let goes_on = |prefix: &'static str| {
        let patches = AtomicUsize::new(0);
        fault(move |asked, state| {
            let (state_of, upload) = (asked.path.split_once("?_state=")?.1.to_owned(), upload_of(asked));
            if !asked.path.contains("/blobs/uploads/u") {
                return None;
            }
            let expected = match patches.load(Ordering::SeqCst) {
                0 => "secret".to_owned(),
                number => format!("s{number}"),
            };
            let is_large =
                state.uploads.get(&upload).is_some_and(|content| !content.is_empty()) || asked.method == "PATCH";
            if is_large && state_of.split('&').next() != Some(&expected) {
                return Some(error(404, "BLOB_UPLOAD_UNKNOWN"));
            }
            if asked.method != "PATCH" {
                return None;
            }
            let number = patches.fetch_add(1, Ordering::SeqCst) + 1;
            let path = format!("{upload}?_state=s{number}");
            let location = match prefix {
                "http" => format!("http://{}/v2/acme/web/blobs/uploads/{path}", asked.header("host")?),
                "/v2" => format!("/v2/acme/web/blobs/uploads/{path}"),
                _ => path,
            };
            patched(asked, state, 202, &["location"], &[("location", location)])
        })
    };
    let registries = vec![("whole", goes_on("http")), ("without a host", goes_on("/v2")), ("relative", goes_on(""))];
    are_pushed_whole(registries, |name, fake| assert_eq!(fake.count("PATCH", "/uploads/"), 3, "{name}"));
}

#[test]
fn a_head_that_says_nothing_of_a_blob_is_asked_again_by_get() {
    let pusher = Pusher::new();
    for (name, fault) in [
        ("Content-Length 0", fault(|asked, state| head(asked, state, Some(0)))),
        ("no Content-Length", fault(|asked, state| head(asked, state, None))),
        (
            "405",
            fault(|asked, _| (asked.method == "HEAD" && asked.path.contains("/blobs/")).then(|| Reply::empty(405))),
        ),
        (
            "an empty Docker-Content-Digest",
            fault(|asked, state| {
                let is_put = is_blob_upload(asked, "PUT");
                is_put.then(|| match state.answer(asked) {
                    Reply::Http(201, _, _) => Reply::new(201, &[("docker-content-digest", "")], ""),
                    other => other,
                })
            }),
        ),
    ] {
        let fake = Fake::start(fault);
        let layout = pusher.small();
        pusher.pushes(&layout, &fake, &[]);
        let again = pusher.pushes(&layout, &fake, &[]);
        assert_eq!(outcomes(&again, "blobs"), ["present", "present"], "{name}");
        assert_eq!(fake.count("POST", "/uploads/"), 2, "{name}");
    }
}

/// A registry that keeps nothing of the second chunk that it is sent.
fn loses_a_chunk(says: bool, checks_ranges: bool) -> impl Fn(&Asked, &mut State) -> Option<Reply> + Send + Sync {
    let chunks = AtomicUsize::new(0);
    move |asked, state| {
        if !is_chunk(asked) {
            return None;
        }
        let upload = upload_of(asked);
        let stands_at = state.uploads.get(&upload)?.len();
        let first = asked.header("content-range")?.split('-').next()?.parse::<usize>().ok()?;
        if checks_ranges && first != stands_at {
            return None;
        }
        if chunks.fetch_add(1, Ordering::SeqCst) != 1 {
            state.uploads.get_mut(&upload)?.push_str(&asked.body);
        }
        let stands_at = if says { state.uploads[&upload].len() } else { first + asked.body.len() };
        Some(Reply::new(202, &[("location", &*asked.path), ("range", &range(stands_at))], ""))
    }
}

#[test]
fn a_layer_of_which_a_registry_loses_a_chunk_is_pushed_whole_all_the_same() {
    let loses = |says: bool, checks_ranges: bool| -> Fault { Box::new(loses_a_chunk(says, checks_ranges)) };
    let registries = vec![
        ("it says so, and looks at where chunks begin", loses(true, true)),
        ("it says so", loses(true, false)),
        ("it looks at where chunks begin", loses(false, true)),
        ("it does neither", loses(false, false)),
    ];
    are_pushed_whole(registries, |_, _| {});
}

#[test]
fn a_layer_that_a_registry_does_not_have_whole_in_the_end_is_never_called_pushed() {
    // It says so, and calls complete what is not, under whatever digest.
    let accept = |asked: &Asked, state: &mut State| {
        let (_, digest) = asked.path.split_once("digest=")?;
        let digest = digest.replace("%3A", ":");
        let mut content = std::mem::take(state.uploads.get_mut(&upload_of(asked))?);
        content.push_str(&asked.body);
        content.truncate(LARGE - MIB);
        state.blobs.insert(digest, content);
        Some(Reply::empty(201))
    };
    for (name, length_of_head, text) in
        [("the length", false, format!("bytes, not {LARGE}")), ("by GET alone", true, format!("bytes, not {LARGE}"))]
    {
        let pusher = Pusher::new();
        let lose = loses_a_chunk(true, false);
        let fake = Fake::start(move |asked, state| {
            if is_blob_upload(asked, "PUT") {
                return accept(asked, state);
            }
            let head = if length_of_head { head(asked, state, Some(0)) } else { None };
            head.or_else(|| lose(asked, state))
        });
        pusher.fails(&pusher.large(), &fake, &[], 3, &text);
        assert_eq!(fake.count("PUT", "/manifests/"), 0, "{name}");
    }
}

#[test]
fn an_upload_in_small_chunks_that_breaks_is_resumed() {
    let pusher = Pusher::new();
    let layout = pusher.large();
    let lost = AtomicUsize::new(0);
    let fake = Fake::start(move |asked, state| {
        if !is_chunk(asked) {
            return None;
        }
        if asked.body.len() > 4 * MIB {
            return Some(error(416, "SIZE_INVALID"));
        }
        // Of the third small chunk the first MiB arrives.
        if lost.fetch_add(1, Ordering::SeqCst) == 2 {
            state.uploads.get_mut(&upload_of(asked))?.push_str(&asked.body[..MIB]);
            state.received += MIB;
            return Some(Reply::HangUp);
        }
        None
    });
    pusher.pushes(&layout, &fake, &[]);
    let received = fake.state.lock().unwrap().received;
    assert!((LARGE..LARGE + 1000).contains(&received), "nothing that had arrived is sent again: {received}");
    let sizes: Vec<usize> =
        fake.server.asked().iter().filter(|asked| is_chunk(asked)).map(|asked| asked.body.len()).collect();
    assert_eq!(sizes.iter().filter(|&&size| size > 4 * MIB).count(), 1, "{sizes:?}");
}

#[test]
fn what_the_registry_says_to_skopeos_way_is_what_is_told_where_none_works() {
    let pusher = Pusher::new();
    let fake = Fake::start(|asked, _| {
        let upload = asked.path.contains("/blobs/uploads/u") && matches!(asked.method.as_str(), "PATCH" | "PUT");
        let words = if is_chunk(asked) { "no chunks here" } else { "quota exceeded" };
        upload.then(|| Reply::new(400, &[], format!(r#"{{"errors":[{{"code":"DENIED","message":"{words}"}}]}}"#)))
    });
    pusher.fails(&pusher.large(), &fake, &[], 1, "quota exceeded (DENIED)");
    assert!(fake.count("POST", "/uploads/") <= 10, "there is an end");
}
