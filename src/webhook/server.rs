//! The HTTPS server: bounds on bytes, time and number, and one handler for `/mutate` and `/validate`.
//!
//! A request that is no review gets a 4xx and a reason. A review always gets an answer with its uid, even if the gate
//! is overloaded, late or at fault: the API server passes only such answers on to its client, with their status.

use std::{future::Future, net::TcpListener, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use actix_web::{
    App, HttpRequest, HttpResponse,
    http::{ConnectionType, Method, StatusCode, header},
    web::{self, Bytes, BytesMut},
};
use futures_util::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::time::{Instant, timeout_at};

use super::{
    decide::Decide,
    patch,
    response::{self, ReviewAnswer},
    review::{Images, Review, ReviewSubject},
    settings::Settings,
    text::EscapedText,
};
use crate::fair_quota::{Lease, Quota};
use crate::gate::deadline::{DECISION_GRACE, receive_time, review_time};
use crate::gate::{Admission, Decision, ImageUse};
use crate::kubernetes::webhooks::{MUTATE, VALIDATE};
use crate::refusal::Refusal;
use crate::server::{self, ConnectionLimits, Peer, Protocols, Timeouts, Tls};
use crate::telemetry::{LogThrottle, Metrics, Readiness};

/// The time for which a caller may accept nothing of an answer, which has a few KiB.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until `stop`, then lets reviews in flight end for at most [`Settings::stop_within`]. While `readiness` is
/// false, each answer closes its connection: on a connection that will soon be cut off, a review that is being sent
/// would be lost, and Go's clients don't retry it.
///
/// # Errors
/// The listener can't be used.
pub async fn run<D: Decide>(
    listener: TcpListener,
    tls: ServerConfig,
    gate: Arc<D>,
    settings: Settings,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let server = server(listener, tls, gate, settings, metrics, readiness, stop)?;
    server.await
}

/// Builds the server. (Apart from its future, no part of it can be sent between threads.)
fn server<D: Decide>(
    listener: TcpListener,
    tls: ServerConfig,
    gate: Arc<D>,
    mut settings: Settings,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<actix_web::dev::Server> {
    let connections = ConnectionLimits {
        total: settings.connections,
        client_certificates: settings.client_certificates,
        shared_peers: Vec::new(),
    };
    // A review can take its whole deadline.
    settings.reviews_at_once = settings.reviews_at_once.min(connections.requests());
    let listener_settings = server::ListenerSettings {
        name: "webhook",
        connections,
        timeouts: Timeouts {
            handshake: settings.handshake_within,
            head: settings.head_within,
            idle: settings.idle_within,
            write: WRITE_TIMEOUT,
        },
        serve_half_closed: true,
        workers: settings.workers,
        stop_within: settings.stop_within,
    };
    let state = web::Data::new(WebhookState {
        gate,
        settings,
        metrics: Arc::clone(&metrics),
        readiness,
        running: Arc::default(),
        bytes: Arc::default(),
        malformed_log: LogThrottle::default(),
    });
    let app = move || {
        App::new()
            .app_data(state.clone())
            .service(endpoint::<D>(MUTATE, AdmissionPhase::Mutate))
            .service(endpoint::<D>(VALIDATE, AdmissionPhase::Validate))
            .default_service(web::to(|| async { refuse(StatusCode::NOT_FOUND, NOT_HERE) }))
    };
    let tls = Tls { config: tls, protocols: Protocols::Http2AndHttp1 };
    server::serve(listener, Some(tls), listener_settings, Some(metrics), app, stop)
}

const JSON: &str = "application/json";
const NOT_HERE: &str = "reviews are taken at /mutate and /validate";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AdmissionPhase {
    Mutate,
    Validate,
}

struct WebhookState<D> {
    gate: Arc<D>,
    settings: Settings,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    /// The quota of reviews in flight.
    running: Arc<Quota<Peer>>,
    /// The quota of bytes of requests and answers.
    bytes: Arc<Quota<Peer>>,
    malformed_log: LogThrottle,
}

fn endpoint<D: Decide>(path: &str, phase: AdmissionPhase) -> actix_web::Resource {
    web::resource(path)
        .route(web::post().to(
            move |state: web::Data<WebhookState<D>>, request: HttpRequest, payload: web::Payload| async move {
                let mut response = answer(phase, &state, request, payload).await;
                if !state.readiness.get() {
                    response.head_mut().set_connection_type(ConnectionType::Close);
                }
                response
            },
        ))
        .default_service(web::to(|request: HttpRequest| async move {
            let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, "a review is sent with POST");
            response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("POST"));
            if request.method() == Method::HEAD { response.drop_body().map_into_boxed_body() } else { response }
        }))
}

/// Reads a review and answers it.
async fn answer<D: Decide>(
    phase: AdmissionPhase,
    state: &WebhookState<D>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let WebhookState { settings, metrics, bytes, .. } = state;
    let time = time_for(settings.deadline, request.query_string());
    let deadline = Instant::now() + time;
    let peer = Peer::of(request.peer_addr().map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |address| address.ip()));
    // Held until the client has received the answer.
    let mut held = Lease::new(bytes, peer);
    let malformed = |status: StatusCode, why: &str| {
        metrics.malformed_review();
        if let Some(left_out) = state.malformed_log.take() {
            tracing::warn!(peer = ?request.peer_addr(), status = status.as_u16(), why, left_out, "not a review");
        }
        refuse(status, why)
    };
    if !held.take(bytes_of_head(&request), settings.bytes_at_once) {
        let (status, why) = BodyError::Overloaded.answer(settings);
        return malformed(status, &why);
    }
    if !is_json(&request) {
        return malformed(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a review has the Content-Type application/json");
    }
    // An API server sends a review at once. A slow client must not hold memory for as long as a review may take.
    let arrived = Instant::now() + receive_time(settings.receive_within, time);
    let body = match timeout_at(arrived, receive(&request, payload, settings, &mut held)).await {
        Ok(Ok(body)) => body,
        Ok(Err(problem)) => {
            let (status, why) = problem.answer(settings);
            return malformed(status, &why);
        }
        Err(_) => return malformed(StatusCode::REQUEST_TIMEOUT, "the review did not arrive in time"),
    };
    let started = Instant::now();
    let review = match Review::parse(&body) {
        Ok(review) => review,
        Err(error) => return malformed(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    // A panic is a bug. It must neither end the other reviews of this connection nor allow anything.
    let decided = AssertUnwindSafe(decide(phase, state, &review, peer, deadline, time)).catch_unwind().await;
    let mut answer = decided.unwrap_or_else(|_| {
        tracing::error!(uid = %EscapedText(&review.uid, 128), "the gate panicked; the review is refused");
        match phase {
            AdmissionPhase::Mutate => response::mutation(&review, &[]),
            AdmissionPhase::Validate => response::internal_error(&review),
        }
    });
    if !held.take(answer.body.len(), settings.bytes_at_once) {
        answer = match phase {
            AdmissionPhase::Mutate => response::mutation(&review, &[]),
            AdmissionPhase::Validate => response::refused(&review, &Refusal::Overloaded),
        };
    }
    let ReviewAnswer { body, verdict } = answer;
    metrics.review(review.operation.label(), verdict, started.elapsed());
    if verdict == "refused" {
        // The gate logs images; this line says which object would have run them.
        tracing::info!(
            uid = %EscapedText(&review.uid, 128),
            resource = %EscapedText(&review.resource.resource, 64),
            namespace = %EscapedText(&review.namespace, 64),
            name = %EscapedText(&review.name, 256),
            "object refused"
        );
    }
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, header::HeaderValue::from_static(JSON)))
        .body(Bytes::from_owner(CountedBytes { bytes: body, _held: held }))
}

/// An answer whose bytes count against the quota until it is sent.
struct CountedBytes {
    bytes: Vec<u8>,
    _held: Lease<Peer>,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Decides about a review. If anything keeps `/mutate` from deciding, it leaves the object as it is: `/validate`
/// decides.
async fn decide<D: Decide>(
    phase: AdmissionPhase,
    state: &WebhookState<D>,
    review: &Review<'_>,
    peer: Peer,
    deadline: Instant,
    time: Duration,
) -> ReviewAnswer {
    let mut images = match (review.subject(), phase) {
        (Ok(ReviewSubject::Images(images)), AdmissionPhase::Mutate) if !images.workload.is_pod => {
            return response::mutation(review, &[]);
        }
        (Ok(ReviewSubject::Images(images)), _) => images,
        (Ok(ReviewSubject::Nothing) | Err(_), AdmissionPhase::Mutate) => return response::mutation(review, &[]),
        (Ok(ReviewSubject::Nothing), AdmissionPhase::Validate) => return response::allowed(review),
        (Err(why), AdmissionPhase::Validate) => {
            tracing::warn!(uid = %EscapedText(&review.uid, 128), %why, "object can't be read");
            return response::unreadable(review, &why);
        }
    };
    if phase == AdmissionPhase::Validate {
        for _ in 0..images.unchanged {
            state.metrics.image("unchanged", "", "", "");
        }
        for _ in 0..images.take_placeholders(&state.settings.placeholders) {
            state.metrics.image("placeholder", "", "", "");
        }
    }
    let running = Lease::new(&state.running, peer);
    let decisions = match admit(phase, state, review, &images, running, deadline, time).await {
        Ok(decisions) => decisions,
        Err(refusal) => {
            return match phase {
                AdmissionPhase::Mutate => response::mutation(review, &[]),
                AdmissionPhase::Validate => response::refused(review, &refusal),
            };
        }
    };
    match phase {
        AdmissionPhase::Mutate => response::mutation(review, &patch::operations(&images, &decisions)),
        AdmissionPhase::Validate => response::validation(review, &images, &decisions),
    }
}

/// Asks the gate, within the limits on reviews in flight and time.
async fn admit<D: Decide>(
    phase: AdmissionPhase,
    state: &WebhookState<D>,
    review: &Review<'_>,
    images: &Images<'_>,
    mut running: Lease<Peer>,
    deadline: Instant,
    time: Duration,
) -> Result<Vec<Decision>, Refusal> {
    if images.to_decide.is_empty() {
        return Ok(Vec::new());
    }
    let undecided = |refusal: Refusal| {
        tracing::warn!(uid = %EscapedText(&review.uid, 128), code = refusal.code().as_str(), ?phase, "review not decided");
        Err(refusal)
    };
    if !running.take(1, state.settings.reviews_at_once) {
        return undecided(Refusal::Overloaded);
    }
    let runs_as_written = phase == AdmissionPhase::Validate && images.workload.is_pod;
    let uses: Vec<_> = images.to_decide.iter().map(|place| ImageUse { text: &place.image, runs_as_written }).collect();
    let admission = Admission {
        namespace: Some(&*review.namespace).filter(|namespace| !namespace.is_empty()),
        images: &uses,
        now: Timestamp::now(),
        deadline,
        is_final: phase == AdmissionPhase::Validate,
    };
    timeout_at(deadline + DECISION_GRACE, state.gate.decide(&admission))
        .await
        .unwrap_or_else(|_| undecided(Refusal::DeadlineExceeded { after: time }))
}

/// Returns the time for a review: the configured deadline, or less if the caller (`?timeout=10s`) waits less.
fn time_for(deadline: Duration, query: &str) -> Duration {
    let timeout = query.split('&').find_map(|pair| pair.strip_prefix("timeout="));
    review_time(deadline, timeout.and_then(|timeout| humantime::parse_duration(timeout).ok()))
}

fn is_json(request: &HttpRequest) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(JSON)
}

/// The reason why a body did not arrive.
enum BodyError {
    TooLarge,
    Overloaded,
    Broken,
}

impl BodyError {
    fn answer(&self, settings: &Settings) -> (StatusCode, String) {
        match self {
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a review has at most {} bytes (limits.reviewBytes)", settings.review_bytes),
            ),
            Self::Overloaded => (StatusCode::TOO_MANY_REQUESTS, "too many reviews at once".to_owned()),
            Self::Broken => (StatusCode::BAD_REQUEST, "the body broke off".to_owned()),
        }
    }
}

/// The memory that a request takes beside its body, in bytes: for its stream, its state in the server, and the
/// decision.
const REQUEST_BYTES: usize = 4 << 10;

/// Returns the memory that a request takes before its body arrives, in bytes.
fn bytes_of_head(request: &HttpRequest) -> usize {
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    REQUEST_BYTES + request.query_string().len() + fields.sum::<usize>()
}

/// The maximum size of a usual review, in bytes. A part of the memory for all reviews is reserved for these.
const USUAL_BYTES: usize = 256 << 10;

/// Receives a body within the limits of one review and of all.
async fn receive(
    request: &HttpRequest,
    mut payload: web::Payload,
    settings: &Settings,
    held: &mut Lease<Peer>,
) -> Result<Bytes, BodyError> {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > settings.review_bytes) {
        return Err(BodyError::TooLarge);
    }
    // Most reviews arrive in one piece, and need no copy.
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut length = 0;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| BodyError::Broken)?;
        length += chunk.len();
        if length > settings.review_bytes {
            return Err(BodyError::TooLarge);
        }
        let room = if length > USUAL_BYTES { settings.bytes_at_once / 4 * 3 } else { settings.bytes_at_once };
        if !held.take(chunk.len(), room) {
            return Err(BodyError::Overloaded);
        }
        if first.is_empty() {
            first = chunk;
        } else {
            if whole.is_empty() {
                whole.reserve(announced.unwrap_or(length).max(length));
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&chunk);
        }
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// Refuses a request that is no review, and closes the connection: its client is no API server, or is at fault.
fn refuse(status: StatusCode, why: &str) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    response.force_close().content_type("text/plain; charset=utf-8").body(format!("{why}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_timeout_shortens_the_deadline_and_never_lengthens_it() {
        let time = |query| time_for(Duration::from_secs(8), query);
        assert_eq!(time(""), Duration::from_secs(8));
        assert_eq!(time("timeout=10s"), Duration::from_secs(8));
        assert_eq!(time("timeout=30s"), Duration::from_secs(8));
        assert_eq!(time("a=b&timeout=5s"), Duration::from_millis(4500));
        assert_eq!(time("timeout=1s"), Duration::from_millis(750));
        assert_eq!(time("timeout=0s"), Duration::ZERO);
        assert_eq!(time("timeout=soon"), Duration::from_secs(8));
    }
}
