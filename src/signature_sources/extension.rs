//! The extension endpoint: `GET /extensions/v2/<name>/signatures/<digest>`, a registry's own or a store's.

use std::{borrow::Cow, sync::Arc};

use futures_util::FutureExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::{
    format::{SignatureFormat, detect_format},
    source_answer::SourceAnswer,
};
use crate::base64_text;
use crate::image::{Digest, Repository};
use crate::json::{Array, Text};
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::registry::{Client, Extension, Fetched, RequestSpec, Target, TimeBudget, join};
use crate::signature::UntrustedSignature;
use crate::telemetry::RequestKind;
use crate::verification::AskedSource;

/// The maximum number of entries of a list that are parsed: a list of 4 MiB holds fewer signatures.
const MAX_ENTRIES: usize = 10_000;
/// The maximum length of a signature's name that messages repeat.
const MAX_NAME: usize = 200;

/// Asks the repository's own registry, if it announces the extension; its mirrors if it can't be asked.
pub(super) async fn own(
    client: &Client,
    repository: &Repository,
    digest: &Digest,
    budget: TimeBudget,
) -> Result<SourceAnswer, LookupError> {
    let primary = client.target(repository)?;
    let ask = |target: Target, budget| {
        async move {
            let mirrored = target.repository != *repository;
            let found = announced(client, &target, digest, budget).await?;
            if mirrored && found.signatures.is_empty() {
                // The registry that can't be asked may have signatures that a mirror lacks.
                let registry = (&*target.remote.registry).into();
                return Err(LookupError::ManifestUnknown { registry, url: shown(&target.base) });
            }
            Ok(found)
        }
        .boxed()
    };
    client.with_mirrors(primary, budget, ask).await
}

/// Asks a store at a URL of its own.
pub(super) async fn at(
    client: &Client,
    url: &Url,
    repository: &Repository,
    digest: &Digest,
    budget: TimeBudget,
) -> Result<SourceAnswer, LookupError> {
    let target = client.target_at(url, repository)?;
    list(client, &target, digest, budget).await
}

async fn announced(
    client: &Client,
    target: &Target,
    digest: &Digest,
    budget: TimeBudget,
) -> Result<SourceAnswer, LookupError> {
    let origin = client.origin(target, budget).await?;
    let ping = join(&origin.base, "v2/");
    match origin.extension {
        Extension::Announced => return list(client, target, digest, budget).await,
        Extension::NotAnnounced => {}
        // It is unknown whether there are signatures: an ingress may have answered in place of the registry.
        Extension::Unknown(status) => {
            let what = format!(
                "it answers {status} at /v2/, which does not say whether it has the signature extension (an entry's \
                 signatures say where else to look)"
            );
            return Err(client.misbehaved(target, &ping, what, budget));
        }
    }
    let url = Arc::from(shown(&ping));
    Ok(SourceAnswer { signatures: Vec::new(), asked: vec![AskedSource { url, outcome: Ok(0) }] })
}

async fn list(
    client: &Client,
    target: &Target,
    digest: &Digest,
    budget: TimeBudget,
) -> Result<SourceAnswer, LookupError> {
    let path = format!("extensions/v2/{}/signatures/{digest}", target.path);
    let what = RequestSpec {
        path: &path,
        accept: Some("application/json"),
        kind: RequestKind::Signatures,
        limit: client.signature_list_bytes(),
    };
    let Fetched { url, answer } = client.fetch(target, &what, budget).await?;
    let shown: Arc<str> = Arc::from(shown(&url));
    let misbehaved = |what: &str| client.misbehaved(target, &url, what.to_owned(), budget);
    if answer.status == 404 {
        // A store that does not know the image answers with the distribution specification's error code. Any other 404
        // comes from a URL that is not the endpoint's, so nothing is known about signatures.
        if !says_unknown(&answer.body) {
            return Err(misbehaved("it answers 404 where its signature extension should be"));
        }
        return Ok(SourceAnswer { signatures: Vec::new(), asked: vec![AskedSource { url: shown, outcome: Ok(0) }] });
    }
    let at = Arc::clone(&shown);
    let list = client.read_body(answer.body, budget, move |body| parse(body, &at)).await;
    let list = list
        .map_err(|failure| failure.at(&target.remote.registry, &url, budget.total()))?
        .ok_or_else(|| misbehaved("what it sends is no list of signatures"))?;
    let mut asked = vec![AskedSource { url: Arc::clone(&shown), outcome: Ok(list.signatures.len()) }];
    if list.skipped > 0 {
        tracing::debug!(url = %shown, skipped = list.skipped, "entries of other versions or types are left out");
    }
    if list.broken > 0 {
        let what = format!("{} of the entries in its list of signatures can't be read", list.broken);
        asked.push(AskedSource { url: Arc::clone(&shown), outcome: Err(misbehaved(&what)) });
    }
    if list.left > 0 {
        let what = format!("there are more than {MAX_ENTRIES} entries in its list of signatures");
        asked.push(AskedSource { url: shown, outcome: Err(misbehaved(&what)) });
    }
    Ok(SourceAnswer { signatures: list.signatures, asked })
}

/// A parsed list.
#[derive(Default)]
pub(super) struct SignatureList {
    pub(super) signatures: Vec<UntrustedSignature>,
    /// The number of entries of another version or type, which are left out.
    skipped: usize,
    /// The number of entries that are malformed signatures.
    broken: usize,
    /// The number of entries beyond the limit, which are not parsed.
    left: usize,
}

#[derive(Deserialize)]
struct RawList<'a> {
    #[serde(borrow, default)]
    signatures: Option<Array<'a, MAX_ENTRIES>>,
}

/// One entry. skopeo writes `schemaVersion`, the original registry's documentation says `version`. A member of the
/// wrong type takes no memory, however large it is.
#[derive(Deserialize)]
struct ListEntry<'a> {
    #[serde(rename = "schemaVersion", borrow)]
    schema_version: Option<&'a RawValue>,
    #[serde(borrow)]
    version: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(rename = "type", borrow)]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

/// Returns the text of a member; `None` if it is no string.
fn text_of(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|Text(text)| text)
}

/// Parses a list; returns `None` if the body is no list. Entries are independent: a malformed one does not affect the
/// others.
pub(super) fn parse(body: &[u8], url: &str) -> Option<SignatureList> {
    // serde would accept an array for a structure, too.
    let text = std::str::from_utf8(body).ok().filter(|text| text.trim_ascii_start().starts_with('{'))?;
    let raw: RawList<'_> = serde_json::from_str(text).ok()?;
    let Array { first, found } = raw.signatures.unwrap_or(Array { first: Vec::new(), found: 0 });
    let mut list = SignatureList { left: found - first.len(), ..SignatureList::default() };
    for (index, raw) in first.into_iter().enumerate() {
        let raw = raw.get();
        let Some(entry) = raw.starts_with('{').then(|| serde_json::from_str::<ListEntry<'_>>(raw).ok()).flatten()
        else {
            list.broken += 1;
            continue;
        };
        let version = entry.schema_version.or(entry.version);
        let is_two = |version: &RawValue| serde_json::from_str::<u64>(version.get()).is_ok_and(|version| version == 2);
        let is_ours = version.is_some_and(is_two) && entry.kind.and_then(text_of).is_some_and(|kind| kind == "atomic");
        if !is_ours {
            list.skipped += 1;
            continue;
        }
        let content = entry.content.and_then(text_of).and_then(|content| base64_text::decode(&content).ok());
        let Some(content) = content else {
            list.broken += 1;
            continue;
        };
        let content = match detect_format(&content) {
            SignatureFormat::SimpleSigning(content) => content,
            SignatureFormat::Sigstore => {
                list.skipped += 1;
                continue;
            }
            // The client that stored it made a mistake; verification says which.
            SignatureFormat::Page | SignatureFormat::Unknown => &content,
        };
        let number = index + 1;
        let name = entry.name.and_then(text_of).filter(|name| is_plain(name));
        let source = match name {
            Some(name) => format!("{url}#{name}"),
            None => format!("{url}#{number}"),
        };
        list.signatures.push(UntrustedSignature { content: content.into(), source: source.into(), number });
    }
    Some(list)
}

/// Returns whether a name is `<digest>@<32 characters>`, without characters that could mislead in a terminal or log.
/// Names are text of the source.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":@._-=+/".contains(&byte);
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(plain)
}

fn says_unknown(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        code: String,
    }
    serde_json::from_slice::<Errors>(body).is_ok_and(|body| {
        body.errors.iter().any(|error| matches!(error.code.as_str(), "MANIFEST_UNKNOWN" | "NAME_UNKNOWN"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &str) -> (Vec<String>, usize, usize) {
        let list = parse(body.as_bytes(), "u").unwrap();
        let sources = list.signatures.iter().map(|signature| signature.source.to_string()).collect();
        (sources, list.skipped, list.broken)
    }

    #[test]
    fn both_spellings_of_the_version_are_read() {
        let body = r#"{"signatures": [
            {"schemaVersion": 2, "name": "sha256:00@a1", "type": "atomic", "content": "owE=", "later": {}},
            {"version": 2, "type": "atomic", "content": "owE="},
            {"schemaVersion": 2, "version": 2, "name": "bad\nname", "type": "atomic", "content": "owE="}
        ], "later": 1}"#;
        assert_eq!(read(body), (vec!["u#sha256:00@a1".into(), "u#2".into(), "u#3".into()], 0, 0));
        assert_eq!(&*parse(body.as_bytes(), "u").unwrap().signatures[0].content, b"\xa3\x01");
    }

    #[test]
    fn content_may_be_wrapped() {
        let content: Vec<u8> = (0..200).map(|number| 0x80 | number).collect();
        let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &content);
        let lines: Vec<&str> = text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
        for text in [lines.join("\n"), lines.join("\r\n"), format!("{text}\n"), format!("{text}\r\n")] {
            let entry = serde_json::json!({"schemaVersion": 2, "type": "atomic", "content": text});
            let list = parse(serde_json::json!({"signatures": [entry]}).to_string().as_bytes(), "u").unwrap();
            assert_eq!(list.broken, 0, "{text:?}");
            assert_eq!(&*list.signatures[0].content, content);
        }
        for text in
            [lines.join(" "), lines.join("\t"), format!("{text} "), lines[1..].join("\n"), text[..30].to_owned()]
        {
            let entry = serde_json::json!({"schemaVersion": 2, "type": "atomic", "content": text});
            let list = parse(serde_json::json!({"signatures": [entry]}).to_string().as_bytes(), "u").unwrap();
            // What begins elsewhere may be base64 all the same, and is another message then.
            assert!(list.signatures.iter().all(|signature| *signature.content != *content), "{text:?}");
        }
    }

    #[test]
    fn a_bad_entry_takes_nothing_from_the_others() {
        let body = r#"{"signatures": [
            {"schemaVersion": 1, "type": "atomic", "content": "owE="},
            {"schemaVersion": "2", "type": "atomic", "content": "owE="},
            {"schemaVersion": 2, "type": "molecular", "content": "owE="},
            {"schemaVersion": 2, "content": "owE="},
            {"schemaVersion": 2, "type": "atomic", "content": "not base64!"},
            {"schemaVersion": 2, "type": "atomic", "content": ""},
            {"schemaVersion": 2, "type": "atomic", "content": 7},
            {"schemaVersion": 2, "type": "atomic"},
            7, null, "x",
            {"schemaVersion": 2, "type": "atomic", "content": "owE="}
        ]}"#;
        assert_eq!(read(body), (vec!["u#6".into(), "u#12".into()], 4, 6));
    }

    #[test]
    fn an_empty_list_has_several_shapes() {
        for body in [r#"{"signatures": []}"#, r#"{"signatures": null}"#, "{}"] {
            assert_eq!(read(body), (vec![], 0, 0));
        }
        for body in ["", "[]", "null", "<html>", r#"{"signatures": {}}"#, r#"{"signatures": []} x"#] {
            assert!(parse(body.as_bytes(), "u").is_none(), "{body}");
        }
    }

    #[test]
    fn ten_thousand_entries_are_read_and_the_rest_is_counted() {
        let entry = r#"{"schemaVersion":2,"type":"atomic","content":"owE="}"#;
        let body = format!(r#"{{"signatures":[{},{{}},0,""]}}"#, vec![entry; MAX_ENTRIES].join(","));
        let list = parse(body.as_bytes(), "u").unwrap();
        assert_eq!((list.signatures.len(), list.skipped, list.broken, list.left), (MAX_ENTRIES, 0, 0, 3));
    }

    #[test]
    fn what_is_no_string_is_none_however_deep_it_is() {
        let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
        let body = format!(
            r#"{{"signatures": [
                {{"schemaVersion": 2, "type": "atomic", "name": {nested}, "content": "owE="}},
                {{"schemaVersion": {nested}, "version": 2, "type": "atomic", "content": "owE="}},
                {{"schemaVersion": 2, "type": {nested}, "content": "owE="}},
                {{"schemaVersion": 2, "type": "at\u006fmic", "content": "ow\u0045="}}
            ]}}"#
        );
        assert_eq!(read(&body), (vec!["u#1".into(), "u#4".into()], 2, 0));
    }

    #[test]
    fn only_the_registrys_word_for_it_makes_a_404_none() {
        assert!(says_unknown(br#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "x"}]}"#));
        for body in ["404 page not found", "{}", r#"{"errors": []}"#, r#"{"errors": [{"code": "UNSUPPORTED"}]}"#] {
            assert!(!says_unknown(body.as_bytes()), "{body}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(body in "\\PC{0,60}|\\{\"signatures\": ?\\[[\\{\\}\":a-z0-9, ]{0,40}\\]\\}") {
            let _ = parse(body.as_bytes(), "u");
        }
    }
}
