//! Writes the answer to a review: an `AdmissionReview`, with a patch, or with a denial that says what to do.
//!
//! All parts of an answer are bounded, and each image has one line.

use std::{fmt::Write as _, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;

use super::{
    patch::ReplaceOperation,
    review::{ImagePlace, Images, ObjectError, Review},
    text::{EscapedText, is_plain, one_line},
};
use crate::gate::{Decision, Verdict};
use crate::policy::Mode;
use crate::refusal::{Code, LookupError, Refusal};

/// The maximum number of lines of a denial. The others are counted.
const MAX_LINES: usize = 16;
/// The maximum size of a line, and of each part without a bound of its own, in bytes: no part may push the next step
/// out of the line.
const MAX_LINE_BYTES: usize = 3072;
const MAX_REASON_BYTES: usize = 768;
const MAX_STEP_BYTES: usize = 1024;
/// The maximum size of a warning, in bytes. The API server truncates longer ones, and drops all beyond 4,096 characters
/// in total.
const MAX_WARNING_BYTES: usize = 256;
const MAX_WARNINGS: usize = 15;
/// The maximum size of the audit annotation `images`, in bytes; the audit log has one line a record.
const MAX_ANNOTATION_BYTES: usize = 4096;
/// The initial capacity of an answer about one image that may run, in bytes. Longer answers grow.
const USUAL_ANSWER: usize = 768;
/// The maximum number of characters of an object's name or image that are repeated.
const MAX_NAME_CHARS: usize = 80;
const MAX_IMAGE_CHARS: usize = 300;
/// The back-off that an overloaded gate asks for. client-go retries ten times, so that a user waits at most ten times
/// as long.
const OVERLOAD_BACKOFF: Duration = Duration::from_secs(1);
const NOT_PINNED_BACKOFF: Duration = Duration::from_secs(1);
const LOOKUP_BACKOFF: Duration = Duration::from_secs(3);
/// The maximum back-off that a registry's wish can cause.
const MAX_BACKOFF: Duration = Duration::from_secs(10);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<ResponseStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_annotations: Option<AuditAnnotations>,
}

/// Audit annotations. The API server expects the second part of a qualified name as the key.
#[derive(Serialize)]
struct AuditAnnotations {
    verdict: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    images: String,
}

/// A `ResponseStatus` of meta/v1, with its own names.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
struct ResponseStatus {
    status: &'static str,
    code: u16,
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<StatusDetails>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusDetails {
    retry_after_seconds: u64,
}

/// The answer to a review, with its metric label.
#[derive(Debug)]
pub struct ReviewAnswer {
    /// The JSON body.
    pub body: Vec<u8>,
    /// The metric label: `allowed` or `refused` by `/validate`, `patched` or `untouched` by `/mutate`.
    pub verdict: &'static str,
}

/// Allows a review without changes, as `/validate` does if no image has to be decided about.
pub fn allowed(review: &Review<'_>) -> ReviewAnswer {
    answer("allowed", Response { uid: &review.uid, allowed: true, ..Response::default() })
}

/// Makes the answer of `/mutate`, which always allows.
pub fn mutation(review: &Review<'_>, operations: &[ReplaceOperation]) -> ReviewAnswer {
    let response = Response { uid: &review.uid, allowed: true, ..Response::default() };
    if operations.is_empty() {
        return answer("untouched", response);
    }
    let patch = serde_json::to_vec(operations).expect("operations are plain strings");
    answer("patched", Response { patch_type: Some("JSONPatch"), patch: Some(STANDARD.encode(patch)), ..response })
}

/// Makes the answer of `/validate` from the decisions about [`Images::to_decide`]. It refuses if any image is refused.
///
/// If there are fewer decisions than images, it refuses, since nothing is known of the others.
pub fn validation(review: &Review<'_>, images: &Images<'_>, decisions: &[Decision]) -> ReviewAnswer {
    if decisions.len() != images.to_decide.len() {
        return internal_error(review);
    }
    let decided = || images.to_decide.iter().zip(decisions);
    let refusals: Vec<_> =
        decided().filter_map(|(place, decision)| Some((place, decision, decision.verdict.as_ref().err()?))).collect();
    let verdict = if refusals.is_empty() { "allowed" } else { "refused" };
    let status = (!refusals.is_empty()).then(|| {
        let codes = refusals.iter().map(|(.., refusal)| *refusal);
        let lines = refusals.iter().map(|(place, decision, refusal)| denial_line(place, decision, refusal));
        status(Severity::of(codes), lines_of(lines, refusals.len()))
    });
    let response = Response {
        uid: &review.uid,
        allowed: refusals.is_empty(),
        status,
        warnings: warnings(decided()),
        audit_annotations: (!decisions.is_empty()).then(|| AuditAnnotations { verdict, images: annotation(decided()) }),
        ..Response::default()
    };
    answer(verdict, response)
}

/// Makes the answer of `/validate` to a review that is refused as a whole.
pub fn refused(review: &Review<'_>, refusal: &Refusal) -> ReviewAnswer {
    let mut line = String::with_capacity(256);
    let _ = write!(line, "{}", EscapedText(&review.resource.resource, MAX_NAME_CHARS));
    if !review.name.is_empty() {
        let _ = write!(line, " \"{}\"", EscapedText(&review.name, MAX_NAME_CHARS));
    }
    finish_denial(&mut line, refusal, "");
    denied(review, status(Severity::of([refusal].into_iter()), one_line(line, MAX_LINE_BYTES)))
}

/// Makes the answer of `/validate` to an object whose images can't be read.
pub fn unreadable(review: &Review<'_>, why: &ObjectError) -> ReviewAnswer {
    if *why == ObjectError::UnknownResource {
        return refused(review, &unknown_resource(review));
    }
    let message = format!("{} refused: {why}", EscapedText(&review.resource.resource, MAX_NAME_CHARS));
    let message = one_line(message, MAX_LINE_BYTES);
    denied(review, ResponseStatus { status: "Failure", code: 400, reason: "BadRequest", message, details: None })
}

/// Makes the answer of `/validate` if the gate itself is at fault.
pub fn internal_error(review: &Review<'_>) -> ReviewAnswer {
    let message = "the gate failed to decide; its log says more".to_owned();
    denied(review, ResponseStatus { status: "Failure", code: 500, reason: "InternalError", message, details: None })
}

fn unknown_resource(review: &Review<'_>) -> Refusal {
    let shown = |text: &str| EscapedText(text, MAX_NAME_CHARS).to_string().into_boxed_str();
    let resource = match &*review.subresource {
        "" => shown(&review.resource.resource),
        subresource => format!("{}/{}", shown(&review.resource.resource), shown(subresource)).into(),
    };
    Refusal::UnknownResource {
        group: shown(&review.resource.group),
        version: shown(&review.resource.version),
        resource,
    }
}

fn denied(review: &Review<'_>, status: ResponseStatus) -> ReviewAnswer {
    let annotations = AuditAnnotations { verdict: "refused", images: String::new() };
    let response = Response {
        uid: &review.uid,
        status: Some(status),
        audit_annotations: Some(annotations),
        ..Response::default()
    };
    answer("refused", response)
}

fn answer(verdict: &'static str, response: Response<'_>) -> ReviewAnswer {
    let envelope = Envelope { api_version: "admission.k8s.io/v1", kind: "AdmissionReview", response };
    let mut body = Vec::with_capacity(USUAL_ANSWER);
    serde_json::to_writer(&mut body, &envelope).expect("an answer is plain strings and numbers");
    ReviewAnswer { body, verdict }
}

/// The severity of a denial: that of the most severe refusal in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    /// The gate is overloaded: another replica may answer, or this one a little later.
    Overloaded,
    /// A registry failed, or the mutation did; a retry makes sense after this time.
    Trouble(Duration),
    /// A retry makes no sense.
    Permanent,
}

impl Severity {
    fn of<'a>(refusals: impl Iterator<Item = &'a Refusal>) -> Self {
        let of = |refusal: &Refusal| match (refusal.code(), refusal) {
            (Code::Overloaded, _) => Self::Overloaded,
            (Code::NotPinned, _) => Self::Trouble(NOT_PINNED_BACKOFF),
            (_, Refusal::Lookup(LookupError::Unavailable { retry_after: Some(after), .. })) => {
                Self::Trouble((*after).clamp(LOOKUP_BACKOFF, MAX_BACKOFF))
            }
            (code, _) if code.is_transient() => Self::Trouble(LOOKUP_BACKOFF),
            _ => Self::Permanent,
        };
        refusals.map(of).max().unwrap_or(Self::Permanent)
    }
}

fn status(severity: Severity, message: String) -> ResponseStatus {
    let (code, reason, retry_after) = match severity {
        Severity::Overloaded => (429, "TooManyRequests", Some(OVERLOAD_BACKOFF)),
        Severity::Trouble(after) => (503, "ServiceUnavailable", Some(after)),
        Severity::Permanent => (403, "Forbidden", None),
    };
    let details = retry_after.map(|after| StatusDetails { retry_after_seconds: after.as_secs().max(1) });
    ResponseStatus { status: "Failure", code, reason, message, details }
}

/// Writes `container "web": registry.example.com/acme/web:1.2`. Returns the position of the image in it.
fn write_subject(text: &mut String, place: &ImagePlace<'_>, decision: &Decision) -> usize {
    let _ = write!(text, "{} \"{}\": ", place.list.noun(), EscapedText(&place.name, MAX_NAME_CHARS));
    let image = text.len();
    let _ = match &decision.image {
        Some(image) => write!(text, "{image}"),
        None if place.image.is_empty() => text.write_str("(no image)"),
        None => write!(text, "{}", EscapedText(&place.image, MAX_IMAGE_CHARS)),
    };
    image
}

fn denial_line(place: &ImagePlace<'_>, decision: &Decision, refusal: &Refusal) -> String {
    let mut line = String::new();
    let image = write_subject(&mut line, place, decision);
    let image = line[image..].to_owned();
    finish_denial(&mut line, refusal, &image);
    one_line(line, MAX_LINE_BYTES)
}

/// Writes ` refused [code]: why. What to do. See docs/refusals.md#code`.
fn finish_denial(line: &mut String, refusal: &Refusal, image: &str) {
    let code = refusal.code();
    let why = one_line(refusal.to_string(), MAX_REASON_BYTES);
    let next_step = one_line(refusal.next_step(image), MAX_STEP_BYTES);
    let _ = write!(line, " refused [{code}]: {}. {next_step} See docs/refusals.md#{code}", why.trim_end_matches('.'));
}

fn lines_of(lines: impl Iterator<Item = String>, all: usize) -> String {
    let mut lines: Vec<_> = lines.take(MAX_LINES).collect();
    if all > MAX_LINES {
        lines.push(format!("... and {} more", all - MAX_LINES));
    }
    lines.join("\n")
}

/// Returns the warnings about images that run although something is wrong with them.
fn warnings<'a>(decided: impl Iterator<Item = (&'a ImagePlace<'a>, &'a Decision)>) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut more = 0;
    for (place, decision) in decided {
        let what = match &decision.verdict {
            Ok(Verdict::NotEnforced { mode: Mode::Warn, refusal, .. }) => {
                format!("would be refused [{}]: {refusal}", refusal.code())
            }
            Ok(Verdict::Exempted { exemption, refusal }) => {
                format!("runs only by exemption {} until {}: [{}]", exemption.id, exemption.until, refusal.code())
            }
            _ => continue,
        };
        if warnings.len() == MAX_WARNINGS {
            more += 1;
        } else {
            let mut warning = String::new();
            write_subject(&mut warning, place, decision);
            let _ = write!(warning, " {what}");
            warnings.push(one_line(warning, MAX_WARNING_BYTES));
        }
    }
    if more > 0 {
        warnings.push(format!("... and {more} more images with warnings"));
    }
    warnings
}

/// Returns the annotation for the audit log: each image with its digest, and the reason why it may run or not. Nearly
/// every allowed review has one, so it is written into one buffer.
fn annotation<'a>(decided: impl Iterator<Item = (&'a ImagePlace<'a>, &'a Decision)>) -> String {
    let mut text = String::with_capacity(USUAL_ANSWER / 2);
    let mut more = 0;
    for (place, decision) in decided {
        if more > 0 {
            more += 1;
            continue;
        }
        let before = text.len();
        if before > 0 {
            text.push_str("; ");
        }
        let begin = text.len();
        let entry = &mut text;
        write_subject(entry, place, decision);
        let _ = match &decision.verdict {
            Ok(Verdict::Verified(verified)) => {
                let _ = write!(entry, " verified {}", verified.digest());
                verified.keys().iter().try_for_each(|key| write!(entry, " by {} {}", key.signer, key.fingerprint))
            }
            Ok(Verdict::Exempted { exemption, refusal }) => {
                write!(entry, " exempted by {} [{}]", exemption.id, refusal.code())
            }
            Ok(Verdict::NotEnforced { mode, refusal, .. }) => {
                write!(entry, " not enforced ({mode}) [{}]: {refusal}", refusal.code())
            }
            Ok(verdict @ Verdict::AllowedByRule { .. }) => write!(entry, " {}", verdict.label()),
            Err(refusal) => write!(entry, " refused [{}]: {refusal}", refusal.code()),
        };
        if let Some(rule) = &decision.rule {
            let _ = write!(entry, " (rule {rule})");
        }
        let written = &text[begin..];
        if written.len() > MAX_LINE_BYTES || !is_plain(written) {
            let entry = one_line(text.split_off(begin), MAX_LINE_BYTES);
            text.push_str(&entry);
        }
        if text.len() > MAX_ANNOTATION_BYTES {
            text.truncate(before);
            more = 1;
        }
    }
    if more > 0 {
        let _ = write!(text, "; and {more} more");
    }
    text
}
#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::image::{Digest, Reference};
    use crate::policy::{Exemption, RuleId};
    use crate::webhook::{
        patch,
        review::ReviewSubject,
        testing::{pod, review},
    };

    const PIN: &str = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn body(images: &[(&str, &str)], subresource: &str) -> String {
        let containers: Vec<_> = images.iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
        let mut review = review(pod(), "CREATE", Some(json!({"containers": containers})), None);
        let request = review["request"].as_object_mut().unwrap();
        request.remove("namespace");
        for (member, value) in [("uid", "u-1"), ("name", "shop"), ("subResource", subresource)] {
            request.insert(member.to_owned(), value.into());
        }
        review.to_string()
    }

    fn decision(image: &str, verdict: Result<Verdict, Refusal>) -> Decision {
        let image = Reference::for_image(image).ok();
        let rule = Some(RuleId::new("production", "acme"));
        Decision { verdict, pinned: image.clone(), image, rule, mode: Mode::Enforce, examinations: Vec::new() }
    }

    fn no_policy() -> Refusal {
        Refusal::NoPolicy
    }

    fn unavailable(retry_after: Option<u64>) -> Refusal {
        let retry_after = retry_after.map(Duration::from_secs);
        LookupError::Unavailable { registry: "r".into(), url: "u".into(), cause: "down".into(), retry_after }.into()
    }

    fn not_pinned() -> Refusal {
        Refusal::NotPinned {
            why: crate::refusal::Unpinned::Verified { rule: RuleId::new("production", "acme") },
            digest: None,
        }
    }

    fn unauthorized() -> Refusal {
        LookupError::Unauthorized {
            registry: "r".into(),
            url: "u".into(),
            status: 401,
            with_credentials: false,
            looked_in: None,
        }
        .into()
    }

    fn allow() -> Verdict {
        Verdict::AllowedByRule { rule: RuleId::new("production", "acme"), reason: "trusted".into() }
    }

    /// Returns the answer of `/validate` to these images, each with its verdict.
    fn validated(images: &[(&str, &str)], verdicts: Vec<Result<Verdict, Refusal>>) -> Value {
        let body = body(images, "");
        let review = Review::parse(body.as_bytes()).unwrap();
        let Ok(ReviewSubject::Images(asked)) = review.subject() else { panic!() };
        let decisions: Vec<_> =
            images.iter().zip(verdicts).map(|((_, image), verdict)| decision(image, verdict)).collect();
        let answer = validation(&review, &asked, &decisions);
        let json: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(json["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(json["kind"], "AdmissionReview");
        assert_eq!(json["response"]["uid"], "u-1");
        assert_eq!(answer.verdict == "allowed", json["response"]["allowed"] == true);
        json["response"].clone()
    }

    #[test]
    fn a_denial_names_container_image_code_and_what_to_do() {
        let response = validated(&[("web", "acme/web:1")], vec![Err(no_policy())]);
        assert_eq!(response["allowed"], false);
        let status = &response["status"];
        assert_eq!((&status["code"], &status["reason"]), (&json!(403), &json!("Forbidden")));
        assert!(status.get("details").is_none());
        let message = status["message"].as_str().unwrap();
        let next_step = no_policy().next_step("docker.io/acme/web:1");
        assert_eq!(
            message,
            format!(
                "container \"web\": docker.io/acme/web:1 refused [no-policy]: {}. {next_step} \
                 See docs/refusals.md#no-policy",
                no_policy()
            )
        );
    }

    #[test]
    fn the_most_severe_refusal_gives_the_status() {
        let status = |verdicts: Vec<Refusal>| {
            let images: Vec<_> = verdicts.iter().map(|_| ("web", "acme/web:1")).collect();
            let status = validated(&images, verdicts.into_iter().map(Err).collect())["status"].clone();
            (status["code"].as_u64().unwrap(), status["details"]["retryAfterSeconds"].as_u64())
        };
        assert_eq!(status(vec![Refusal::Overloaded]), (429, Some(1)));
        assert_eq!(status(vec![unavailable(None), Refusal::Overloaded]), (503, Some(3)));
        assert_eq!(status(vec![unavailable(Some(8)), unavailable(None)]), (503, Some(8)));
        assert_eq!(status(vec![unavailable(Some(86_400))]), (503, Some(10)));
        assert_eq!(status(vec![Refusal::DeadlineExceeded { after: Duration::from_secs(8) }]), (503, Some(3)));
        assert_eq!(status(vec![Refusal::PolicyUnavailable { limit: Duration::from_hours(1) }]), (503, Some(3)));
        assert_eq!(status(vec![unavailable(None), no_policy(), Refusal::Overloaded]), (403, None));
        // Whatever kept the mutation from pinning may be over; credentials don't come by waiting.
        assert_eq!(status(vec![not_pinned()]), (503, Some(1)));
        assert_eq!(status(vec![not_pinned(), Refusal::Overloaded, unavailable(None)]), (503, Some(3)));
        assert_eq!(status(vec![not_pinned(), no_policy()]), (403, None));
        assert_eq!(status(vec![unauthorized()]), (403, None));
    }

    #[test]
    fn one_refused_image_of_many_refuses_and_only_it_is_named() {
        let response = validated(
            &[("a", "acme/a"), ("b", "acme/b"), ("c", "acme/c")],
            vec![Ok(allow()), Err(no_policy()), Ok(allow())],
        );
        assert_eq!(response["allowed"], false);
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains("container \"b\"") && !message.contains("container \"a\""), "{message}");
        let audit = &response["auditAnnotations"];
        assert_eq!(audit["verdict"], "refused");
        let images = audit["images"].as_str().unwrap();
        assert!(images.contains("\"a\": docker.io/acme/a:latest allowed_by_rule (rule production/acme)"), "{images}");
        assert!(images.contains("\"b\": docker.io/acme/b:latest refused [no-policy]"), "{images}");
    }

    #[test]
    fn a_missing_decision_refuses() {
        let body = body(&[("a", "acme/a"), ("b", "acme/b")], "");
        let review = Review::parse(body.as_bytes()).unwrap();
        let Ok(ReviewSubject::Images(asked)) = review.subject() else { panic!() };
        for decisions in [vec![], vec![decision("acme/a", Ok(allow()))]] {
            let answer: Value = serde_json::from_slice(&validation(&review, &asked, &decisions).body).unwrap();
            assert_eq!(answer["response"]["allowed"], false);
            assert_eq!(answer["response"]["status"]["code"], 500);
        }
    }

    #[test]
    fn an_answer_is_bounded_however_many_images_and_whatever_their_names() {
        let name = format!("\u{1b}[2J\n{}", "n".repeat(200));
        let image = "Ünicode\n".repeat(100);
        let images: Vec<_> = (0..1000).map(|_| (name.as_str(), image.as_str())).collect();
        let refusals = (0..1000)
            .map(|_| {
                Err(Refusal::InvalidReference(
                    Reference::for_image("UPPER/x").err().unwrap_or(crate::image::ReferenceError::Empty),
                ))
            })
            .collect();
        let response = validated(&images, refusals);
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.len() < 40_000, "{}", message.len());
        assert!(message.ends_with("... and 984 more"), "{message}");
        assert_eq!(message.lines().count(), 17);
        assert!(message.chars().all(|character| character == '\n' || !character.is_control()));
        assert!(response["auditAnnotations"]["images"].as_str().unwrap().len() < 5000);

        let refusal = || Box::new(no_policy());
        let warned = (0..1000)
            .map(|_| Ok(Verdict::NotEnforced { mode: Mode::Warn, refusal: refusal(), digest: None }))
            .collect();
        let response = validated(&images, warned);
        assert_eq!(response["allowed"], true);
        let warnings: Vec<_> =
            response["warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        assert!(warnings.iter().all(|warning| warning.len() <= 256));
        assert!(warnings.iter().map(|warning| warning.len()).sum::<usize>() <= 4096);
        assert_eq!(*warnings.last().unwrap(), "... and 985 more images with warnings");
    }

    #[test]
    fn what_runs_all_the_same_is_warned_about_or_only_recorded() {
        let not_enforced = |mode| Ok(Verdict::NotEnforced { mode, refusal: Box::new(no_policy()), digest: None });
        let exemption = Exemption {
            id: RuleId::new("production", "legacy"),
            images: crate::image::ScopeMap::default(),
            namespaces: Vec::new(),
            until: "2027-01-31T00:00:00Z".parse().unwrap(),
            approved_by: "jane@example.com".into(),
            reason: "INC-1234".into(),
        };
        let exempted = Ok(Verdict::Exempted { exemption: Arc::new(exemption), refusal: Box::new(no_policy()) });
        let response = validated(
            &[("w", "acme/w"), ("a", "acme/a"), ("e", "acme/e")],
            vec![not_enforced(Mode::Warn), not_enforced(Mode::Audit), exempted],
        );
        assert_eq!(response["allowed"], true);
        assert_eq!(
            response["warnings"],
            json!([
                format!("container \"w\": docker.io/acme/w:latest would be refused [no-policy]: {}", no_policy()),
                "container \"e\": docker.io/acme/e:latest runs only by exemption production/legacy \
                 until 2027-01-31T00:00:00Z: [no-policy]",
            ])
        );
        let audit = response["auditAnnotations"]["images"].as_str().unwrap();
        assert!(audit.contains("\"a\": docker.io/acme/a:latest not enforced (audit) [no-policy]"), "{audit}");
    }

    /// Returns a number of images, each with this verdict.
    fn validated_alike(count: usize, verdict: impl Fn() -> Result<Verdict, Refusal>) -> Value {
        validated(&vec![("web", "acme/web:1"); count], (0..count).map(|_| verdict()).collect())
    }

    #[test]
    fn what_is_left_out_of_a_denial_or_of_warnings_is_counted_from_the_first_one_on() {
        let lines = |count: usize| {
            let message = validated_alike(count, || Err(no_policy()))["status"]["message"].clone();
            let lines: Vec<String> = message.as_str().unwrap().lines().map(str::to_owned).collect();
            (lines.len(), lines.last().unwrap().clone())
        };
        assert_eq!(lines(MAX_LINES).0, MAX_LINES);
        assert!(lines(MAX_LINES).1.starts_with("container \"web\": "));
        assert_eq!(lines(MAX_LINES + 1), (MAX_LINES + 1, "... and 1 more".to_owned()));
        let warnings = |count: usize| {
            let refusal = || Box::new(no_policy());
            let warn = || Ok(Verdict::NotEnforced { mode: Mode::Warn, refusal: refusal(), digest: None });
            let warnings = validated_alike(count, warn)["warnings"].as_array().unwrap().clone();
            (warnings.len(), warnings.last().unwrap().as_str().unwrap().to_owned())
        };
        assert_eq!(warnings(MAX_WARNINGS).0, MAX_WARNINGS);
        assert!(warnings(MAX_WARNINGS).1.starts_with("container \"web\": "));
        let more = "... and 1 more images with warnings".to_owned();
        assert_eq!(warnings(MAX_WARNINGS + 1), (MAX_WARNINGS + 1, more));
    }

    #[test]
    fn an_annotation_names_images_as_long_as_they_fit_and_counts_the_rest() {
        for count in 1..200 {
            let response = validated_alike(count, || Ok(allow()));
            let text = response["auditAnnotations"]["images"].as_str().unwrap();
            let (named, more) = match text.rsplit_once("; and ") {
                Some((named, more)) => (named, more.strip_suffix(" more").unwrap().parse().unwrap()),
                None => (text, 0),
            };
            assert_eq!(named.split("; ").count() + more, count, "{text}");
            assert!(named.len() <= MAX_ANNOTATION_BYTES, "{}", named.len());
            // The next one would not have fitted.
            let one = named.split("; ").next().unwrap().len();
            assert!(more == 0 || named.len() + "; ".len() + one > MAX_ANNOTATION_BYTES, "{}", named.len());
        }
        assert_eq!(validated_alike(0, || Ok(allow())).get("auditAnnotations"), None);
    }

    #[test]
    fn a_registry_s_wish_to_be_asked_later_counts_within_bounds() {
        for (wish, expected) in [(0, 3), (2, 3), (3, 3), (4, 4), (9, 9), (10, 10), (11, 10)] {
            let response = validated(&[("web", "acme/web:1")], vec![Err(unavailable(Some(wish)))]);
            assert_eq!(response["status"]["details"]["retryAfterSeconds"], expected, "{wish}");
        }
    }

    #[test]
    fn nothing_is_written_into_what_is_no_pod_nor_where_nothing_changes() {
        let digest = Digest::parse(&PIN[1..]).unwrap();
        let operations = |kind: &str, image: &str, verdict: Result<Verdict, Refusal>, pinned: bool| {
            let spec = json!({"containers": [{"name": "web", "image": image}]});
            let (group, resource, object) = match kind {
                "Pod" => ("", "pods", json!({"spec": spec})),
                _ => ("apps", "deployments", json!({"spec": {"template": {"spec": spec}}})),
            };
            let mut body: Value = serde_json::from_str(&body(&[], "")).unwrap();
            body["request"]["kind"] = json!({"group": group, "version": "v1", "kind": kind});
            body["request"]["resource"] = json!({"group": group, "version": "v1", "resource": resource});
            body["request"]["object"] = object;
            let body = body.to_string();
            let review = Review::parse(body.as_bytes()).unwrap();
            let Ok(ReviewSubject::Images(asked)) = review.subject() else { panic!() };
            let decision = decision(image, verdict);
            let pinned = decision.image.as_ref().filter(|_| pinned).map(|image| image.pinned(digest));
            patch::operations(&asked, &[Decision { pinned, ..decision }]).len()
        };
        assert_eq!(operations("Pod", "acme/web:1", Ok(allow()), true), 1);
        assert_eq!(operations("Deployment", "acme/web:1", Ok(allow()), true), 0, "its pods are pinned");
        assert_eq!(operations("Pod", "acme/web:1", Err(no_policy()), true), 0, "a refused image stays as it is");
        assert_eq!(operations("Pod", "acme/web:1", Ok(allow()), false), 0, "there is nothing to write");
        assert_eq!(operations("Pod", &format!("docker.io/acme/web:1{PIN}"), Ok(allow()), true), 0, "it stands there");
    }

    #[test]
    fn a_resource_that_is_not_read_is_refused_with_its_name() {
        let body = body(&[], "evic\ntion");
        let review = Review::parse(body.as_bytes()).unwrap();
        let answer: Value = serde_json::from_slice(&unreadable(&review, &ObjectError::UnknownResource).body).unwrap();
        assert_eq!(answer["response"]["allowed"], false);
        assert_eq!(answer["response"]["status"]["code"], 403);
        let message = answer["response"]["status"]["message"].as_str().unwrap();
        assert!(message.starts_with("pods \"shop\" refused [unknown-resource]"), "{message}");
        assert!(message.contains("pods/evic\\u{a}tion"), "{message}");
    }

    /// Applies operations as the API server would, `replace` alone: the member must be there.
    fn applied(mut object: Value, answer: &[u8]) -> Value {
        let answer: Value = serde_json::from_slice(answer).unwrap();
        assert_eq!(answer["response"]["allowed"], true);
        let Some(patch) = answer["response"].get("patch") else { return object };
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
        let patch: Value = serde_json::from_slice(&STANDARD.decode(patch.as_str().unwrap()).unwrap()).unwrap();
        for operation in patch.as_array().unwrap() {
            assert_eq!(operation["op"], "replace");
            *object.pointer_mut(operation["path"].as_str().unwrap()).unwrap() = operation["value"].clone();
        }
        object
    }

    #[test]
    fn a_patch_pins_what_may_run_leaves_the_rest_and_changes_nothing_the_second_time() {
        let mut object = json!({"spec": {
            "containers": [{"name": "web", "image": "acme/web:1", "args": ["x"]}, {"name": "sidecar", "image": "auto"}],
            "initContainers": [{"name": "init", "image": format!("docker.io/acme/init:1{PIN}")}],
            "volumes": [{"name": "e", "emptyDir": {}}, {"name": "v", "image": {"reference": "acme/model"}}],
        }});
        let mut expected = object.clone();
        expected["spec"]["containers"][0]["image"] = json!(format!("docker.io/acme/web:1{PIN}"));
        expected["spec"]["volumes"][1]["image"]["reference"] = json!(format!("docker.io/acme/model:latest{PIN}"));
        let digest = Digest::parse(&PIN[1..]).unwrap();
        for (pass, patches) in [("first", true), ("second", false)] {
            let mut body: Value = serde_json::from_str(&body(&[], "")).unwrap();
            body["request"]["object"] = object.clone();
            let body = body.to_string();
            let review = Review::parse(body.as_bytes()).unwrap();
            let Ok(ReviewSubject::Images(asked)) = review.subject() else { panic!() };
            let decisions: Vec<_> = asked
                .to_decide
                .iter()
                .map(|place| match &*place.image {
                    "auto" => decision("auto", Err(no_policy())),
                    image => {
                        let decision = decision(image, Ok(allow()));
                        Decision { pinned: decision.image.as_ref().map(|image| image.pinned(digest)), ..decision }
                    }
                })
                .collect();
            let answer = mutation(&review, &patch::operations(&asked, &decisions));
            assert_eq!(answer.verdict == "patched", patches, "{pass}");
            object = applied(object, &answer.body);
            assert_eq!(object, expected, "{pass}");
        }
    }

    #[test]
    fn a_long_reason_does_not_push_the_next_step_out() {
        let rule = RuleId::new("production", "acme");
        let refusal = Refusal::DeniedByPolicy { rule, reason: "because\n".repeat(1000).into() };
        let next_step = refusal.next_step("docker.io/acme/web:latest");
        let message = validated(&[("web", "acme/web")], vec![Err(refusal)])["status"]["message"].clone();
        let message = message.as_str().unwrap();
        assert!(
            message.ends_with(&format!("…. {next_step} See docs/refusals.md#denied-by-policy")) && message.len() < 3072
        );
        assert!(message.contains("because because because"), "{message}");
    }
}
