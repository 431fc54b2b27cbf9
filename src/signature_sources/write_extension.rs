//! Writes signatures to an extension endpoint.

use aws_lc_rs::rand;
use reqwest::Method;

use super::{
    wire::WireSignature,
    write_error::{WriteError, Written},
};
use crate::image::Digest;
use crate::redact::shown;
use crate::registry::{
    Access, Client, Content, Fetched, Request, RequestSpec, ServerRefused, Target, TimeBudget, error_body,
};
use crate::telemetry::RequestKind;

/// The number of characters after the `@` of a signature's name.
const NAME_CHARACTERS: usize = 32;

/// Stores a signature under a random name.
pub(super) async fn put(
    client: &Client,
    target: &Target,
    digest: &Digest,
    signature: &[u8],
    budget: TimeBudget,
) -> Result<Written, WriteError> {
    let name = format!("{digest}@{}", name());
    // Numbers and strings always serialize to JSON.
    let bytes = serde_json::to_vec(&WireSignature::new(name.clone(), signature)).expect("strings are JSON").into();
    let path = format!("extensions/v2/{}/signatures/{digest}", target.path);
    let what =
        RequestSpec { path: &path, accept: Some("application/json"), kind: RequestKind::Signatures, limit: 64 << 10 };
    let content = Some(Content { kind: "application/json".into(), bytes, may_move: false });
    let request = Request { content, ..Request::new(Method::PUT, Access::Push) };
    let Fetched { url, answer } = client.send(target, &what, request, budget).await?;
    let at = || shown(&url);
    let place = format!("{}#{name}", at());
    match answer.status {
        200..=299 => Ok(Written { place, existed: false }),
        409 if error_body::code(&answer.body).as_deref() == Some("SIGNATURE_EXISTS") => {
            Ok(Written { place: at().into(), existed: true })
        }
        _ => Err(ServerRefused::of(target, &url, &answer).into()),
    }
}

/// Returns 32 random hexadecimal digits, as skopeo does.
fn name() -> String {
    let mut bytes = [0; NAME_CHARACTERS / 2];
    rand::fill(&mut bytes).expect("the system has random bytes");
    bytes.iter().fold(String::with_capacity(NAME_CHARACTERS), |mut name, byte| {
        use std::fmt::Write as _;
        let _ = write!(name, "{byte:02x}");
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_32_characters_and_each_is_another() {
        assert_eq!(name().len(), NAME_CHARACTERS);
        assert_ne!(name(), name());
    }
}
