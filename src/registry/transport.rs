//! HTTP exchanges, bounded in time and bytes. Redirects are followed by hand.

use std::{sync::Arc, time::Duration};

use reqwest::{
    Method,
    header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use tokio::time::{Instant, sleep, timeout_at};
use url::Url;

use super::{
    allowed_hosts::{AllowedHosts, HostSet, host_of},
    answer::Answer,
    body::{Body, BodyReader},
    content::{Content, Payload},
    dial_guard::is_inner_literal,
    failure::Failure,
    location::location,
    memory_budget::{FREE_BYTES, MemoryBudget},
    quota::Quota,
    remote_server::RemoteServer,
    resolver::on_behalf_of,
    time_budget::TimeBudget,
    upload_path::is_upload_path,
};
use crate::refusal::LookupError;
use crate::telemetry::{Metrics, OutboundQuota, RequestKind};

/// The maximum number of redirects.
const MAX_REDIRECTS: usize = 5;
/// The maximum number of retries after 429, 502, 503, 504 or a lost connection.
const MAX_RETRIES: u32 = 2;
/// The first back-off if the server asks for none.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The minimum time that must be left for a retry, so that its answer can still arrive.
const MIN_TIME_FOR_RETRY: Duration = Duration::from_millis(100);
/// The maximum wait between tries of a shared request: its waiters need time for an alternative after it fails.
pub(crate) const MAX_SHARED_BACKOFF: Duration = Duration::from_secs(1);
/// The maximum size of an error answer, in bytes. Its body is read only to keep the connection usable.
const MAX_ERROR_BODY: usize = FREE_BYTES;

/// A request as it is sent, with its limits.
pub(crate) struct OutgoingRequest<'a> {
    pub(crate) remote: &'a RemoteServer,
    pub(crate) url: &'a Url,
    pub(crate) method: Method,
    pub(crate) kind: RequestKind,
    pub(crate) headers: HeaderMap,
    /// The header `Authorization`, sent only to the origin of `url`.
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) content: Option<Content>,
    /// The request is idempotent: it may be sent again although the first outcome is unknown.
    pub(crate) repeat: bool,
    /// The maximum size of a successful answer, in bytes. 0: only the headers are wanted, and no body is read.
    pub(crate) limit: usize,
    /// The maximum `Retry-After` for which a retry is made.
    pub(crate) longest_wait: Duration,
    pub(crate) budget: TimeBudget,
}

/// The HTTP transport, with the guard that decides which hosts a request may reach.
pub(crate) struct Transport {
    /// The hosts that registries entries name: allowed for all requests, redirects included.
    entries: HostSet,
    /// The hosts that rules name: allowed for requests to the registry itself.
    rules: Arc<dyn AllowedHosts>,
    requests: Arc<Quota>,
    room: Arc<MemoryBudget>,
    metrics: Arc<Metrics>,
}

impl OutgoingRequest<'_> {
    /// Makes the error of a look-up from a failure of this request.
    pub(crate) fn failed(&self, failure: Failure) -> LookupError {
        failure.at(&self.remote.registry, self.url, self.budget.total())
    }
}

impl Transport {
    /// Makes a transport. `largest` is the maximum size of a single answer, in bytes.
    pub(crate) fn new(
        entries: HostSet,
        rules: Arc<dyn AllowedHosts>,
        largest: usize,
        requests: Arc<Quota>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { entries, rules, requests, room: MemoryBudget::new(largest, Arc::clone(&metrics)), metrics }
    }

    /// Returns the name by which the registry `host[:port]` is named, so that it may have a private address:
    /// `host[:port]` itself, or `*.domain`. This does not allow private addresses to the hosts that it redirects to.
    pub(crate) fn name_of_registry(&self, host: &str) -> Option<Arc<str>> {
        let all: [&dyn AllowedHosts; 2] = [&self.entries, &*self.rules];
        let mut naming = all.into_iter().filter(|some| some.allows(host)).map(|some| some.domain_of(host));
        let first = naming.next()?;
        match (first, naming.next()) {
            (Some(domain), None | Some(Some(_))) => Some(format!("*.{domain}").into()),
            (None, _) | (_, Some(None)) => Some(host.into()),
        }
    }

    /// Sends a request, with retries where these may help, until its time is over.
    pub(crate) async fn ask(&self, ask: &OutgoingRequest<'_>) -> Result<Answer, Failure> {
        let mut tries = 0;
        loop {
            let outcome = self.ask_once(ask).await;
            let wait = match &outcome {
                Ok(answer) if answer.is_transient() => answer.retry_after().unwrap_or(FIRST_BACKOFF * 4_u32.pow(tries)),
                Err(Failure::Lost) => Duration::ZERO,
                _ => return outcome,
            };
            tries += 1;
            let next = Instant::now().checked_add(wait + MIN_TIME_FOR_RETRY);
            let too_long = wait > ask.longest_wait || next.is_none_or(|next| next > ask.budget.deadline);
            if !ask.repeat || tries > MAX_RETRIES || too_long {
                return outcome;
            }
            sleep(wait).await;
        }
    }

    /// Sends a request, and follows redirects.
    pub(crate) async fn ask_once(&self, ask: &OutgoingRequest<'_>) -> Result<Answer, Failure> {
        let mut url = ask.url.clone();
        let mut elsewhere = false;
        for _ in 0..=MAX_REDIRECTS {
            let mut answer = self.exchange(ask, &url, elsewhere).await.map_err(|failure| {
                match failure {
                Failure::NotPublic if elsewhere => Failure::Unavailable(
                    "it redirects to a host of which no public address can be found, and that no registries entry names"
                        .to_owned(),
                ),
                failure => failure,
            }
            })?;
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                answer.elsewhere = elsewhere;
                return Ok(answer);
            }
            // For the other redirects, clients disagree whether the method stays the same.
            let stays = matches!(answer.status, 307 | 308);
            if ask.content.as_ref().is_some_and(|content| !content.may_move || !stays) {
                return Err(Failure::Misbehaved("it redirects what is sent to it".to_owned()));
            }
            let next = location(&url, &answer.headers, ask.remote.settings.insecure)?;
            let is_upload = ask.kind == RequestKind::Blob && ask.content.is_some();
            if is_upload && next.origin() == ask.url.origin() && !is_upload_path(&next) {
                return Err(Failure::Misbehaved("it redirects an upload to where none can go on".to_owned()));
            }
            // After one redirect to another origin, no credentials are sent any more, even if a later redirect leads
            // back.
            elsewhere |= next.origin() != ask.url.origin();
            url = next;
        }
        Err(Failure::Misbehaved(format!("it redirects more than {MAX_REDIRECTS} times")))
    }

    /// Sends one request to one URL, and reads its answer.
    async fn exchange(&self, ask: &OutgoingRequest<'_>, url: &Url, elsewhere: bool) -> Result<Answer, Failure> {
        let RemoteServer { registry: _, settings, named, tenant } = ask.remote;
        let host = host_of(url).unwrap_or_default();
        // The same host and port, with or without TLS.
        let own = url.origin() == ask.url.origin() || host_of(ask.url).is_some_and(|asked| asked == host);
        let named = (own && *named) || self.entries.allows(&host);
        if !named && is_inner_literal(url) {
            return Err(Failure::NotPublic);
        }
        // The permit covers the connection, too, if none is idle.
        let permit = self.requests.acquire_until(1, tenant, ask.budget.deadline).await;
        let _permit = permit.map_err(|share| Failure::Exhausted(OutboundQuota::Requests, share))?;
        let client = if named { &settings.clients.open } else { &settings.clients.guarded };
        let client = client.for_host(url.authority());
        let request = client.request(ask.method.clone(), url.clone()).headers(ask.headers.clone());
        let mut request = request.header(ACCEPT_ENCODING, "identity");
        if let Some(Content { kind, bytes, may_move: _ }) = &ask.content {
            request = request.header(CONTENT_TYPE, &**kind);
            request = match bytes {
                Payload::Bytes(bytes) => request.body(bytes.clone()),
                // Some registries, and proxies in front of them, do not accept a body without a length.
                Payload::Stream { length, open } => request.header(CONTENT_LENGTH, *length).body(open()),
            };
        }
        if let Some(authorization) = &ask.authorization
            && !elsewhere
        {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let started = Instant::now();
        let mut status = None;
        let answer = timeout_at(ask.budget.deadline, async {
            let sent = on_behalf_of(tenant.clone(), request.send()).await;
            let mut response = sent.map_err(|error| Failure::of(&error))?;
            status = Some(response.status().as_u16());
            let good = response.status().as_u16() == 200;
            let limit = if good { ask.limit } else { MAX_ERROR_BODY };
            if good && ask.limit == 0 {
                let (headers, body) = (std::mem::take(response.headers_mut()), Body::default());
                return Ok(Answer { status: 200, headers, body, url: url.clone(), elsewhere, with_credentials: false });
            }
            let (room, is_head) = (&self.room, ask.method == Method::HEAD);
            let deadline = ask.budget.deadline;
            let reading = BodyReader { limit, counts: good, is_head, room, tenant, deadline };
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
                tracing::info!(%host, why, "not dialled: neither a rule nor a registries entry names this host");
                Failure::NotPublic
            }
            failure => failure,
        });
        let status = status.filter(|_| answer.is_ok());
        self.metrics.registry_request(&settings.label, ask.kind, status, started.elapsed());
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use futures_util::FutureExt;

    use super::{
        super::quota::{Exhausted, Shares},
        *,
    };
    use crate::image::Scope;

    #[tokio::test]
    async fn hosts_that_one_domain_names_have_one_share_together() {
        let mut entries = HostSet::default();
        let mut rules = HostSet::default();
        entries.add_scope(&Scope::parse("*.corp.example.com").unwrap());
        rules.add_scope(&Scope::parse("*.example.com").unwrap());
        rules.add_scope(&Scope::parse("registry.corp.example.com/acme").unwrap());
        let requests = Quota::new(OutboundQuota::Requests, MANY, Arc::default());
        let transport = Transport::new(entries, Arc::new(rules), 1 << 20, requests, Arc::default());
        for (host, name) in [
            ("registry.corp.example.com", Some("registry.corp.example.com")),
            ("a.corp.example.com", Some("*.corp.example.com")),
            ("b.corp.example.com:5000", Some("*.corp.example.com")),
            ("a.example.com", Some("*.example.com")),
            ("a.example.org", None),
        ] {
            assert_eq!(transport.name_of_registry(host).as_deref(), name, "{host}");
        }
    }

    /// A server that answers every request so, and counts them. `None`: it never answers.
    fn server(answer: Option<String>) -> (Url, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&count);
        thread::spawn(move || {
            let mut silent = Vec::new();
            for mut connection in listener.incoming().flatten() {
                let Some(answer) = &answer else {
                    silent.push(connection);
                    continue;
                };
                let lines = BufReader::new(&connection).lines();
                lines.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
                asked.fetch_add(1, Ordering::SeqCst);
                let _ = connection.write_all(answer.as_bytes());
            }
        });
        (url, count)
    }

    fn ok() -> String {
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
    }

    fn redirect(to: &str) -> String {
        format!("HTTP/1.1 307 Go\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    }

    /// Makes a transport with these entries, and rules that name every host.
    fn transport(entries: &[&Url], shares: Shares) -> Transport {
        let mut named = HostSet::default();
        for url in entries {
            named.add_url(url);
        }
        let requests = Quota::new(OutboundQuota::Requests, shares, Arc::default());
        Transport::new(named, Arc::new(|_: &str| true), 1 << 20, requests, Arc::default())
    }

    fn remote(url: &Url, named: bool) -> RemoteServer {
        let upstream = crate::registry::Upstream::new("caFile", None).unwrap();
        RemoteServer::new(&host_of(url).unwrap(), Arc::new(upstream.settings(&[], false).unwrap()), named)
    }

    fn ask<'a>(remote: &'a RemoteServer, url: &'a Url, time: Duration) -> OutgoingRequest<'a> {
        OutgoingRequest {
            remote,
            url,
            method: Method::GET,
            kind: RequestKind::Ping,
            headers: HeaderMap::new(),
            authorization: None,
            content: None,
            repeat: false,
            limit: 1 << 10,
            longest_wait: Duration::ZERO,
            budget: TimeBudget::of(time),
        }
    }

    const MANY: Shares = Shares { all: 64, each: 16, unnamed: 32, each_unnamed: 4 };
    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn a_redirect_leads_to_the_host_itself_or_to_one_that_an_entry_names() {
        let (inside, asked) = server(Some(ok()));
        let (registry, _) = server(Some(redirect(inside.as_str())));
        let remote = remote(&registry, true);
        // Rules name all hosts: for requests to them, not for what others lead to.
        let outcome =
            transport(&[&registry], MANY).ask(&ask(&remote, &registry, LONG)).await.map(|answer| answer.status);
        let Err(Failure::Unavailable(cause)) = outcome else { panic!("{outcome:?}") };
        assert!(cause.contains("no registries entry names"), "{cause}");
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        let answer = transport(&[&inside], MANY).ask(&ask(&remote, &registry, LONG)).await.unwrap();
        assert!(answer.status == 200 && answer.elsewhere);

        let (home, _) = server(Some(redirect("/again")));
        let remote = self::remote(&home, true);
        let outcome = transport(&[], MANY).ask(&ask(&remote, &home, LONG)).await.map(|answer| answer.status);
        assert!(matches!(&outcome, Err(Failure::Misbehaved(what)) if what.contains("more than")), "{outcome:?}");
    }

    #[tokio::test]
    async fn where_an_upload_goes_on_a_rule_opens_nothing() {
        let (inside, asked) = server(Some(ok()));
        let (registry, _) = server(Some(ok()));
        let stranger = RemoteServer { named: false, ..remote(&registry, true) };
        let outcome = transport(&[], MANY).ask(&ask(&stranger, &inside, LONG)).await.map(|answer| answer.status);
        assert!(matches!(outcome, Err(Failure::NotPublic)), "{outcome:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        assert!(transport(&[&inside], MANY).ask(&ask(&stranger, &inside, LONG)).await.is_ok());
    }

    #[tokio::test]
    async fn requests_beyond_a_registry_s_share_wait_and_the_others_do_not() {
        let (slow, _) = server(None);
        let (quick, _) = server(Some(ok()));
        let transport = transport(&[], Shares { each: 2, ..MANY });
        let (slow_peer, quick_peer) = (remote(&slow, true), remote(&quick, true));
        let asks: [_; 2] = std::array::from_fn(|_| ask(&slow_peer, &slow, LONG));
        let mut in_flight: Vec<_> = asks.iter().map(|ask| transport.ask(ask).boxed()).collect();
        for one in &mut in_flight {
            assert!(one.as_mut().now_or_never().is_none());
        }
        let short = ask(&slow_peer, &slow, Duration::from_millis(50));
        let outcome = transport.ask(&short).await.map(|answer| answer.status);
        let Err(failure @ Failure::Exhausted(OutboundQuota::Requests, Exhausted::OfRegistry)) = outcome else {
            panic!("{outcome:?}")
        };
        let error = short.failed(failure);
        assert_eq!(error.code().as_str(), "deadline-exceeded");
        let text = error.to_string();
        assert!(text.contains("could not be asked within") && text.contains("in flight for this registry"), "{text}");
        assert_eq!(transport.ask(&ask(&quick_peer, &quick, LONG)).await.unwrap().status, 200);
        // Who gives up gives the share back.
        drop(in_flight);
        let outcome =
            transport.ask(&ask(&slow_peer, &slow, Duration::from_millis(50))).await.map(|answer| answer.status);
        assert!(matches!(outcome, Err(Failure::TimedOut)), "{outcome:?}");
    }
}
