//! One exchange over HTTP, bounded in time and bytes, with redirects followed by hand.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{
    Method,
    header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER},
};
use tokio::time::{Instant, sleep, timeout_at};
use url::Url;

use super::{
    body::{Body, Reading},
    failure::Failure,
    guard::{HostSet, NamesHosts, host_of, is_inner_literal},
    room::{FREE, Room},
    settings::Settings,
    upload::is_for_uploads,
};
use crate::operations::{Metrics, RequestKind};
use crate::verdict::LookupError;

/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// The longest `Location` that is read.
const LONGEST_LOCATION: usize = 8 << 10;
/// Further tries after 429, 502, 503, 504 or a lost connection.
const RETRIES: u32 = 2;
/// The first wait between tries where the registry names none.
const BACKOFF: Duration = Duration::from_millis(100);
/// The time that must be left for a try, so that its answer can still be heard.
const LEFT_FOR_A_TRY: Duration = Duration::from_millis(100);
/// The longest wait between tries of what many wait for: they should hear of it while they have time for another way.
pub(crate) const LONGEST_WAIT_OF_A_FLIGHT: Duration = Duration::from_secs(1);
/// Bytes of an answer that is no success. They are read only to keep the connection.
const ERROR_BODY: usize = FREE;

/// The time that a look-up has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    started: Instant,
    pub(crate) deadline: Instant,
}

impl Budget {
    pub(crate) fn until(deadline: Instant) -> Self {
        Self { started: Instant::now(), deadline }
    }

    pub(crate) fn of(time: Duration) -> Self {
        Self::until(Instant::now() + time)
    }

    /// Half of what is left, for one of several who can answer.
    pub(crate) fn half(self) -> Self {
        let left = self.deadline.saturating_duration_since(Instant::now());
        Self::until(self.deadline.checked_sub(left / 2).unwrap_or(self.deadline))
    }

    /// All the time that there was.
    pub(crate) fn total(self) -> Duration {
        self.deadline.saturating_duration_since(self.started)
    }
}

/// Who is asked.
#[derive(Clone)]
pub(crate) struct Peer {
    /// Its name in messages: the canonical host.
    pub(crate) registry: Arc<str>,
    pub(crate) settings: Arc<Settings>,
    /// Whether somebody named this host, so that its address may be a private one.
    pub(crate) named: bool,
}

/// What is asked.
pub(crate) struct Ask<'a> {
    pub(crate) peer: &'a Peer,
    pub(crate) url: &'a Url,
    pub(crate) method: Method,
    pub(crate) kind: RequestKind,
    pub(crate) headers: HeaderMap,
    /// Sent to the origin of `url` alone.
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) content: Option<Content>,
    /// Whether it may be sent again as it is, where nothing says what became of the first time.
    pub(crate) repeat: bool,
    /// Bytes that a good answer may have.
    pub(crate) limit: usize,
    /// Who asks for more patience than this is not asked again.
    pub(crate) longest_wait: Duration,
    pub(crate) budget: Budget,
}

/// What a request carries.
#[derive(Clone)]
pub(crate) struct Content {
    /// `Content-Type`.
    pub(crate) kind: Cow<'static, str>,
    pub(crate) bytes: Bytes,
    /// Whether it is sent on to where the server redirects: layers, but never what has secrets in it.
    pub(crate) may_move: bool,
}

/// What was answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// Of a 200 everything, of anything else perhaps not; decoded.
    pub(crate) body: Body,
    /// Who gave it: what was asked, or where redirects led to in the end.
    pub(crate) url: Url,
    /// Whether the way there led over another origin than the one asked.
    pub(crate) elsewhere: bool,
    /// Whether credentials stood behind the request.
    pub(crate) with_credentials: bool,
}

/// Sends requests where they may go.
pub(crate) struct Transport {
    /// Named by registries entries.
    entries: HostSet,
    /// Named by the policy.
    named: Arc<dyn NamesHosts>,
    room: Arc<Room>,
    metrics: Arc<Metrics>,
}

impl Answer {
    /// How long the other side asks us to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse::<u32>() {
            return Some(Duration::from_secs(seconds.into()));
        }
        let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        let wait = date.duration_since(jiff::Timestamp::now());
        Some(Duration::try_from(wait).unwrap_or_default())
    }

    fn is_transient(&self) -> bool {
        matches!(self.status, 429 | 502..=504)
    }
}

impl Ask<'_> {
    /// A failure of this request as those who ask see it.
    pub(crate) fn failed(&self, failure: Failure) -> LookupError {
        failure.at(&self.peer.registry, self.url, self.budget.total())
    }
}

impl Transport {
    /// `largest` is the most bytes that a single answer may have.
    pub(crate) fn new(entries: HostSet, named: Arc<dyn NamesHosts>, largest: usize, metrics: Arc<Metrics>) -> Self {
        Self { entries, named, room: Room::new(largest), metrics }
    }

    /// Whether `host[:port]` may have a private address.
    pub(crate) fn is_named(&self, host: &str) -> bool {
        self.entries.names(host) || self.named.names(host)
    }

    /// Asks, and asks again where that may help, until the time is over.
    pub(crate) async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        let mut tries = 0;
        loop {
            let outcome = self.ask_once(ask).await;
            let wait = match &outcome {
                Ok(answer) if answer.is_transient() => answer.retry_after().unwrap_or(BACKOFF * 4_u32.pow(tries)),
                Err(Failure::Lost) => Duration::ZERO,
                _ => return outcome,
            };
            tries += 1;
            let next = Instant::now().checked_add(wait + LEFT_FOR_A_TRY);
            let too_long = wait > ask.longest_wait || next.is_none_or(|next| next > ask.budget.deadline);
            if !ask.repeat || tries > RETRIES || too_long {
                return outcome;
            }
            sleep(wait).await;
        }
    }

    /// Asks, and follows redirects.
    pub(crate) async fn ask_once(&self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        let mut url = ask.url.clone();
        let mut elsewhere = false;
        for _ in 0..=REDIRECTS {
            let mut answer = self.exchange(ask, &url, elsewhere).await.map_err(|failure| match failure {
                Failure::NotPublic if elsewhere => Failure::Unavailable(
                    "it redirects to a host of which no public address can be found, and that neither a rule (but *) nor a registries entry names"
                        .to_owned(),
                ),
                failure => failure,
            })?;
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                answer.elsewhere = elsewhere;
                return Ok(answer);
            }
            // Of the others, clients don't agree whether the method stays.
            let stays = matches!(answer.status, 307 | 308);
            if ask.content.as_ref().is_some_and(|content| !content.may_move || !stays) {
                return Err(Failure::Misbehaved("it redirects what is sent to it".to_owned()));
            }
            let next = location(&url, &answer.headers, ask.peer.settings.insecure)?;
            let is_upload = ask.kind == RequestKind::Blob && ask.content.is_some();
            if is_upload && next.origin() == ask.url.origin() && !is_for_uploads(&next) {
                return Err(Failure::Misbehaved("it redirects an upload to where none can go on".to_owned()));
            }
            // Once away, credentials stay away, even if the way leads back.
            elsewhere |= next.origin() != ask.url.origin();
            url = next;
        }
        Err(Failure::Misbehaved(format!("it redirects more than {REDIRECTS} times")))
    }

    /// One request and its answer.
    async fn exchange(&self, ask: &Ask<'_>, url: &Url, elsewhere: bool) -> Result<Answer, Failure> {
        let Peer { registry: _, settings, named } = ask.peer;
        let own = url.origin() == ask.url.origin();
        let host = host_of(url).unwrap_or_default();
        let named = (own && *named) || self.is_named(&host);
        if !named && is_inner_literal(url) {
            return Err(Failure::NotPublic);
        }
        let client = if named { &settings.clients.open } else { &settings.clients.guarded };
        let request = client.request(ask.method.clone(), url.clone()).headers(ask.headers.clone());
        let mut request = request.header(ACCEPT_ENCODING, "identity");
        if let Some(Content { kind, bytes, may_move: _ }) = &ask.content {
            request = request.header(CONTENT_TYPE, &**kind).body(bytes.clone());
        }
        if let Some(authorization) = &ask.authorization
            && !elsewhere
        {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let started = Instant::now();
        let mut status = None;
        let answer = timeout_at(ask.budget.deadline, async {
            let mut response = request.send().await.map_err(|error| Failure::of(&error))?;
            status = Some(response.status().as_u16());
            let good = response.status().as_u16() == 200;
            let limit = if good { ask.limit } else { ERROR_BODY };
            let (room, is_head) = (&self.room, ask.method == Method::HEAD);
            let reading = Reading { limit, counts: good, is_head, room, host: &host, named };
            let body = reading.read(&mut response).await?;
            let headers = std::mem::take(response.headers_mut());
            let status = response.status().as_u16();
            Ok(Answer { status, headers, body, url: url.clone(), elsewhere, with_credentials: false })
        });
        let answer = answer.await.unwrap_or(Err(Failure::TimedOut)).map_err(|failure| match failure {
            Failure::Unresolved | Failure::NotPublic if !named => {
                let why = if matches!(failure, Failure::Unresolved) {
                    "its name can't be resolved"
                } else {
                    "it leads inside"
                };
                tracing::info!(%host, why, "a host that nobody named is not dialled");
                Failure::NotPublic
            }
            failure => failure,
        });
        let status = status.filter(|_| answer.is_ok());
        self.metrics.registry_request(&settings.label, ask.kind, status, started.elapsed());
        answer
    }
}

/// Where a `Location` leads: that of a redirect, or of an upload that goes on there.
pub(crate) fn location(from: &Url, headers: &HeaderMap, insecure: bool) -> Result<Url, Failure> {
    let bad = || Failure::Misbehaved("it redirects to nowhere".to_owned());
    let mut locations = headers.get_all(LOCATION).iter();
    let (Some(location), None) = (locations.next(), locations.next()) else { return Err(bad()) };
    if location.len() > LONGEST_LOCATION {
        return Err(bad());
    }
    let mut url = from.join(location.to_str().map_err(|_| bad())?).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(Failure::Misbehaved("it redirects to something else than http or https".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Failure::Misbehaved("it redirects to a URL with a user name or password".to_owned()));
    }
    if from.scheme() == "https" && url.scheme() != "https" && !insecure {
        return Err(Failure::Misbehaved("it redirects from https to plain http".to_owned()));
    }
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry_after(value: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).unwrap())]);
        let url = Url::parse("https://r.example.com/").unwrap();
        Answer { status: 429, headers, body: Body::default(), url, elsewhere: false, with_credentials: false }
            .retry_after()
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        assert_eq!(retry_after("120"), Some(Duration::from_mins(2)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert!(retry_after("Thu, 06 Nov 2994 08:49:37 GMT").unwrap() > Duration::from_hours(24 * 365));
        for value in ["", "-1", "soon", "99999999999999"] {
            assert_eq!(retry_after(value), None, "{value}");
        }
    }

    #[test]
    fn the_time_of_one_of_several_is_half_of_what_is_left() {
        let budget = Budget::of(Duration::from_secs(10));
        let half = budget.half();
        assert!(half.deadline < budget.deadline && half.deadline > budget.started);
        assert!(half.total() <= Duration::from_secs(5));
        assert_eq!(Budget::of(Duration::ZERO).half().total(), Duration::ZERO);
    }

    #[test]
    fn a_redirect_leads_to_a_web_server_or_nowhere() {
        let from = Url::parse("https://r.example.com/v2/a/manifests/1").unwrap();
        let to = |to: &str| {
            let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_bytes(to.as_bytes()).unwrap())]);
            location(&from, &headers, false).ok().map(String::from)
        };
        assert_eq!(to("/x?y#z").as_deref(), Some("https://r.example.com/x?y"));
        assert_eq!(to("//s.example.com").as_deref(), Some("https://s.example.com/"));
        for bad in [
            "file:///x",
            "https://user@s.example.com/",
            "https://:p@s.example.com/",
            "data:,x",
            "http://é:x/",
            "http://s.example.com/",
        ] {
            assert_eq!(to(bad), None, "{bad}");
        }
        assert_eq!(to(&"a".repeat(LONGEST_LOCATION + 1)), None);
        assert!(location(&from, &HeaderMap::new(), true).is_err());
        let plain = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static("http://s.example.com/"))]);
        assert!(location(&from, &plain, true).is_ok(), "where the registry is insecure, it may");
    }
}
