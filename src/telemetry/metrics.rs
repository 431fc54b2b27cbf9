//! Prometheus metrics.
//!
//! No label takes a value from a request that an attacker can multiply: `registry` is a configured scope or `other`, and
//! image names are in logs and audit annotations only.

use std::{sync::OnceLock, time::Duration};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, process_collector::ProcessCollector,
};

use crate::gate::{CacheResult, GateMetrics};

/// The tasks of a gate that are counted when they panic.
const BACKGROUND_TASKS: [&str; 3] = ["certificates", "policy-watcher", "policy-monitor"];

/// All metrics of the process, with a registry of their own.
pub struct Metrics {
    registry: Registry,
    reviews: FixedCounters<5, 5>,
    review_duration: Histogram,
    images: IntCounterVec,
    registry_requests: IntCounterVec,
    registry_request_duration: HistogramVec,
    outbound_waits: FixedCounters<3, 2>,
    outbound_refusals: FixedCounters<3, 2>,
    cache_requests: FixedCounters<4, 2>,
    cache_entries: IntGaugeVec,
    key_expiry: GaugeVec,
    unusable_keys: IntGaugeVec,
    certificate_expiry: Gauge,
    certificate_last_reload_successful: IntGauge,
    client_ca_last_reload_successful: IntGauge,
    policy_info: IntGaugeVec,
    policy_reloads: IntCounterVec,
    policy_last_reload_successful: IntGauge,
    policy_last_read: Gauge,
    policy_readable: IntGauge,
    policy_unavailable: IntGauge,
    exemptions_used: IntCounterVec,
    connections: IntGaugeVec,
    connections_ended: IntCounterVec,
    log_lines_left_out: IntCounter,
    background_panics: IntCounterVec,
}

/// What a request to a registry is for: the label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// `GET /v2/`.
    Ping,
    /// A token.
    Token,
    /// A manifest.
    Manifest,
    /// A layer or configuration that is pushed.
    Blob,
    /// Signatures, from an extension or a lookaside.
    Signatures,
}

/// What all requests to registries and signature sources share: the label `quota`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundQuota {
    /// Requests in flight, with their connections.
    Requests,
    /// Memory for large answers.
    Memory,
    /// Threads that resolve names.
    Lookups,
}

/// The labels of reviews: operations, `none` for what is no review, and verdicts.
const REVIEWS: ([&str; 5], [&str; 5]) =
    (["create", "update", "delete", "connect", "none"], ["allowed", "refused", "patched", "untouched", "malformed"]);
/// The labels of waits for what outbound requests share.
const OUTBOUND: ([&str; 3], [&str; 2]) = (["requests", "memory", "lookups"], ["named", "unnamed"]);
/// The labels of look-ups in caches.
const CACHE_REQUESTS: ([&str; 4], [&str; 2]) = (["tag", "manifest", "signatures", "verdict"], ["hit", "miss"]);

/// A counter with two labels of known values. The child of two values is looked up once (it costs a hash and a lock), when it
/// is first needed: what never happened is not there.
struct FixedCounters<const N: usize, const M: usize> {
    all: IntCounterVec,
    labels: ([&'static str; N], [&'static str; M]),
    children: [[OnceLock<IntCounter>; M]; N],
}

impl<const N: usize, const M: usize> FixedCounters<N, M> {
    fn new(all: IntCounterVec, labels: ([&'static str; N], [&'static str; M])) -> Self {
        Self { all, labels, children: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())) }
    }

    /// Counts from zero what has not happened yet: an alert on an increase does not see the first one otherwise.
    fn show_all(&self) {
        for first in self.labels.0 {
            for second in self.labels.1 {
                self.all.with_label_values(&[first, second]);
            }
        }
    }

    fn inc(&self, first: &'static str, second: &'static str) {
        let child = || self.all.with_label_values(&[first, second]);
        let place = |all: &[&str], one: &str| all.iter().position(|label| *label == one);
        match (place(&self.labels.0, first), place(&self.labels.1, second)) {
            (Some(row), Some(column)) => self.children[row][column].get_or_init(child).inc(),
            _ => child().inc(),
        }
    }
}

impl RequestKind {
    fn label(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Token => "token",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Signatures => "signatures",
        }
    }
}

impl OutboundQuota {
    fn label(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Memory => "memory",
            Self::Lookups => "lookups",
        }
    }
}

impl Metrics {
    /// Registers every metric, and those of the process.
    pub fn new() -> Self {
        let registry = Registry::new();
        let metrics = Self {
            reviews: FixedCounters::new(
                register(
                    &registry,
                    IntCounterVec::new(
                        Opts::new("sealgate_reviews_total", "Admission reviews answered."),
                        &["operation", "verdict"],
                    ),
                ),
                REVIEWS,
            ),
            review_duration: register(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new("sealgate_review_duration_seconds", "Time from a whole review to its answer.")
                        .buckets(vec![
                            0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
                            2.5, 5.0, 10.0,
                        ]),
                ),
            ),
            images: register(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "sealgate_images_total",
                        "Images decided about. The code is empty unless refused (or not enforced).",
                    ),
                    &["verdict", "code", "rule", "mode"],
                ),
            ),
            registry_requests: register(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "sealgate_registry_requests_total",
                        "Requests to registries and signature sources, by configured scope and HTTP status (or error).",
                    ),
                    &["registry", "kind", "status"],
                ),
            ),
            registry_request_duration: register(
                &registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "sealgate_registry_request_duration_seconds",
                        "Time of requests to registries and signature sources.",
                    ),
                    &["registry", "kind"],
                ),
            ),
            outbound_waits: FixedCounters::new(
                register(
                    &registry,
                    IntCounterVec::new(
                        Opts::new(
                            "sealgate_outbound_waits_total",
                            "Requests to registries and signature sources that had to wait for a share of a quota.",
                        ),
                        &["quota", "share"],
                    ),
                ),
                OUTBOUND,
            ),
            outbound_refusals: FixedCounters::new(
                register(
                    &registry,
                    IntCounterVec::new(
                        Opts::new(
                            "sealgate_outbound_refusals_total",
                            "Requests that were not made since they waited for a share of a quota in vain.",
                        ),
                        &["quota", "share"],
                    ),
                ),
                OUTBOUND,
            ),
            cache_requests: FixedCounters::new(
                register(
                    &registry,
                    IntCounterVec::new(
                        Opts::new("sealgate_cache_requests_total", "Look-ups in caches."),
                        &["cache", "result"],
                    ),
                ),
                CACHE_REQUESTS,
            ),
            cache_entries: register(
                &registry,
                IntGaugeVec::new(Opts::new("sealgate_cache_entries", "Entries in caches."), &["cache"]),
            ),
            key_expiry: register(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "sealgate_key_expiry_timestamp_seconds",
                        "When a certificate of the policy expires; +Inf: never.",
                    ),
                    &["key", "fingerprint"],
                ),
            ),
            unusable_keys: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "sealgate_unusable_key_info",
                        "A key in the policy's key files whose signatures can't be checked, beside others: always 1.",
                    ),
                    &["key", "fingerprint", "reason"],
                ),
            ),
            certificate_expiry: register(
                &registry,
                Gauge::with_opts(Opts::new(
                    "sealgate_certificate_expiry_timestamp_seconds",
                    "When the webhook's certificate expires.",
                )),
            ),
            certificate_last_reload_successful: register(
                &registry,
                IntGauge::with_opts(Opts::new(
                    "sealgate_certificate_last_reload_successful",
                    "1 if the files of the webhook's certificate as they are now are in force, 0 if the last good ones are.",
                )),
            ),
            client_ca_last_reload_successful: register(
                &registry,
                IntGauge::with_opts(Opts::new(
                    "sealgate_client_ca_last_reload_successful",
                    "1 if the file of the webhook's client CA as it is now is in force, 0 if the last good one is.",
                )),
            ),
            policy_info: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new("sealgate_policy_info", "The policy in force: always 1."),
                    &["generation", "digest"],
                ),
            ),
            policy_reloads: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("sealgate_policy_reloads_total", "Policy loads, by result (success, failure)."),
                    &["result"],
                ),
            ),
            policy_last_reload_successful: register(
                &registry,
                IntGauge::with_opts(Opts::new(
                    "sealgate_policy_last_reload_successful",
                    "1 if the files as they are now are in force, 0 if the last good ones are.",
                )),
            ),
            policy_last_read: register(
                &registry,
                Gauge::with_opts(Opts::new(
                    "sealgate_policy_last_read_timestamp_seconds",
                    "When all policy files were last read whole, valid or not.",
                )),
            ),
            policy_readable: register(
                &registry,
                IntGauge::with_opts(Opts::new(
                    "sealgate_policy_readable",
                    "0 if the policy files could not be read for longer than the polling interval, else 1.",
                )),
            ),
            policy_unavailable: register(
                &registry,
                IntGauge::with_opts(Opts::new(
                    "sealgate_policy_unavailable",
                    "1 if every image is refused because the policy could not be loaded for longer than policyMaxStale.",
                )),
            ),
            exemptions_used: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("sealgate_exemptions_used_total", "Images that run only by an exemption."),
                    &["exemption"],
                ),
            ),
            connections: register(
                &registry,
                IntGaugeVec::new(Opts::new("sealgate_connections", "Open connections of clients."), &["listener"]),
            ),
            connections_ended: register(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "sealgate_connections_ended_total",
                        "Connections that were refused, or ended before the client did, by reason.",
                    ),
                    &["listener", "reason"],
                ),
            ),
            log_lines_left_out: register(
                &registry,
                IntCounter::with_opts(Opts::new(
                    "sealgate_log_lines_left_out_total",
                    "Log lines that were not written, since there were too many of their kind.",
                )),
            ),
            background_panics: register(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "sealgate_background_panics_total",
                        "Panics of background work, each a bug: it was begun anew.",
                    ),
                    &["task"],
                ),
            ),
            registry,
        };
        for task in BACKGROUND_TASKS {
            // An alert on an increase does not see the first one otherwise.
            metrics.background_panics.with_label_values(&[task]);
        }
        let build: IntGaugeVec = register(
            &metrics.registry,
            IntGaugeVec::new(Opts::new("sealgate_build_info", "The version that runs: always 1."), &["version"]),
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.policy_readable.set(1);
        metrics.outbound_refusals.show_all();
        metrics.certificate_reloads(true, true);
        let process = metrics.registry.register(Box::new(ProcessCollector::for_self()));
        process.expect("no metric of ours has the name of a process metric");
        metrics
    }

    /// A review was answered.
    pub fn review(&self, operation: &'static str, verdict: &'static str, took: Duration) {
        self.reviews.inc(operation, verdict);
        self.review_duration.observe(took.as_secs_f64());
    }

    /// Something came that is no review. It took no time that says anything.
    pub fn malformed_review(&self) {
        self.reviews.inc("none", "malformed");
    }

    /// An image was decided about. `rule` is a rule of the policy, or empty.
    pub fn image(&self, verdict: &str, code: &str, rule: &str, mode: &str) {
        self.images.with_label_values(&[verdict, code, rule, mode]).inc();
    }

    /// A request went to a registry or signature source. `registry` is a configured scope or `other`; without a status, the
    /// request failed before there was one.
    pub fn registry_request(&self, registry: &str, kind: RequestKind, status: Option<u16>, took: Duration) {
        let mut digits = String::new();
        let status = status_label(status, &mut digits);
        self.registry_requests.with_label_values(&[registry, kind.label(), status]).inc();
        self.registry_request_duration.with_label_values(&[registry, kind.label()]).observe(took.as_secs_f64());
    }

    /// A request waits for a share of a quota. `named`: whether a rule or a registries entry names its registry.
    pub fn outbound_wait(&self, quota: OutboundQuota, named: bool) {
        self.outbound_waits.inc(quota.label(), share(named));
    }

    /// A request waited for a share of a quota in vain.
    pub fn outbound_refusal(&self, quota: OutboundQuota, named: bool) {
        self.outbound_refusals.inc(quota.label(), share(named));
    }

    /// The expiry times (seconds since 1970) of all certificates of the policy, in place of those before.
    pub fn key_expiries<'a>(&self, keys: impl Iterator<Item = (&'a str, String, Option<i64>)>) {
        self.key_expiry.reset();
        for (name, fingerprint, expiry) in keys {
            #[allow(clippy::cast_precision_loss)] // Exact until the year 285 million.
            let expiry = expiry.map_or(f64::INFINITY, |seconds| seconds as f64);
            self.key_expiry.with_label_values(&[name, fingerprint.as_str()]).set(expiry);
        }
    }

    /// The keys of the policy that are passed over, and why, in place of those before.
    pub fn unusable_keys<'a>(&self, keys: impl Iterator<Item = (&'a str, String, String)>) {
        self.unusable_keys.reset();
        for (name, fingerprint, reason) in keys {
            self.unusable_keys.with_label_values(&[name, fingerprint.as_str(), reason.as_str()]).set(1);
        }
    }

    /// The webhook's certificate expires then (seconds since 1970).
    pub fn certificate_expiry(&self, seconds: i64) {
        #[allow(clippy::cast_precision_loss)] // As above.
        self.certificate_expiry.set(seconds as f64);
    }

    /// Whether the files of the webhook's certificate and of its client CA are those in force.
    pub fn certificate_reloads(&self, certificate: bool, client_ca: bool) {
        self.certificate_last_reload_successful.set(certificate.into());
        self.client_ca_last_reload_successful.set(client_ca.into());
    }

    /// A policy came into force.
    pub fn policy_loaded(&self, generation: u64, digest: &str) {
        self.policy_info.reset();
        self.policy_info.with_label_values(&[generation.to_string().as_str(), digest]).set(1);
        self.policy_reloads.with_label_values(&["success"]).inc();
        self.policy_last_reload_successful.set(1);
    }

    /// The policy files could not be loaded; the last good ones stay in force.
    pub fn policy_refused(&self) {
        self.policy_reloads.with_label_values(&["failure"]).inc();
        self.policy_last_reload_successful.set(0);
    }

    /// All policy files were read whole at this time (seconds since 1970).
    pub fn policy_read(&self, seconds: i64) {
        #[allow(clippy::cast_precision_loss)] // As above.
        self.policy_last_read.set(seconds as f64);
    }

    /// Whether the policy files could be read within the polling interval.
    pub fn policy_readable(&self, readable: bool) {
        self.policy_readable.set(readable.into());
    }

    /// Whether every image is refused for want of a policy that is known to be current.
    pub fn policy_unavailable(&self, unavailable: bool) {
        self.policy_unavailable.set(unavailable.into());
    }

    /// A listener is about to serve, and may end connections for these reasons. Each counts from zero.
    pub(crate) fn listener_opened(&self, listener: &'static str, reasons: impl IntoIterator<Item = &'static str>) {
        self.connections.with_label_values(&[listener]);
        for reason in reasons {
            self.connections_ended.with_label_values(&[listener, reason]);
        }
    }

    /// A client has connected.
    pub(crate) fn connection_opened(&self, listener: &'static str) {
        self.connections.with_label_values(&[listener]).inc();
    }

    /// A client's connection is closed.
    pub(crate) fn connection_closed(&self, listener: &'static str) {
        self.connections.with_label_values(&[listener]).dec();
    }

    /// A connection was refused, or ended by the server.
    pub(crate) fn connection_ended(&self, listener: &'static str, reason: &'static str) {
        self.connections_ended.with_label_values(&[listener, reason]).inc();
    }

    /// Background work panicked.
    pub(crate) fn background_panic(&self, task: &str) {
        self.background_panics.with_label_values(&[task]).inc();
    }

    /// All metrics in the text exposition format.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        // Counted for the whole process, where lines are written.
        self.log_lines_left_out.reset();
        self.log_lines_left_out.inc_by(super::log_limit::lines_left_out());
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn share(named: bool) -> &'static str {
    if named { "named" } else { "unnamed" }
}

/// The label of a status: itself if it is one that registries give; else its class, for a registry may send any number.
fn status_label(status: Option<u16>, digits: &mut String) -> &str {
    match status {
        None => "error",
        Some(
            status @ (200..=206
            | 300..=304
            | 307
            | 308
            | 400..=406
            | 408..=417
            | 422
            | 426
            | 429
            | 431
            | 451
            | 500..=505
            | 507
            | 520..=526),
        ) => {
            *digits = status.to_string();
            digits
        }
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(500..=599) => "5xx",
        Some(_) => "other",
    }
}

/// Names and labels are constants of this file, and the test below makes them all: a failure here is no run-time state.
fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("a metric's name and labels are well-formed");
    registry.register(Box::new(metric.clone())).expect("no two metrics have one name");
    metric
}

impl GateMetrics for Metrics {
    fn image_decided(&self, verdict: &str, code: &str, rule: &str, mode: &str) {
        self.image(verdict, code, rule, mode);
    }

    fn exemption_used(&self, exemption: &str) {
        self.exemptions_used.with_label_values(&[exemption]).inc();
    }

    fn cache_request(&self, cache: &'static str, result: CacheResult) {
        let result = match result {
            CacheResult::Hit => "hit",
            CacheResult::Miss => "miss",
        };
        self.cache_requests.inc(cache, result);
    }

    fn cache_entries(&self, cache: &'static str, entries: u64) {
        self.cache_entries.with_label_values(&[cache]).set(i64::try_from(entries).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_alerts_count_is_there_before_it_happens() {
        let metrics = Metrics::new();
        metrics.listener_opened("webhook", ["evicted", "refused_full"]);
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        for line in [
            "sealgate_outbound_refusals_total{quota=\"lookups\",share=\"named\"} 0",
            "sealgate_outbound_refusals_total{quota=\"requests\",share=\"unnamed\"} 0",
            "sealgate_connections{listener=\"webhook\"} 0",
            "sealgate_connections_ended_total{listener=\"webhook\",reason=\"refused_full\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }

    #[test]
    fn a_registry_that_makes_up_statuses_makes_no_more_than_a_few_labels() {
        let metrics = Metrics::new();
        for status in 100..=999 {
            metrics.registry_request("other", RequestKind::Manifest, Some(status), Duration::ZERO);
        }
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        let labels = text.lines().filter(|line| line.starts_with("sealgate_registry_requests_total{")).count();
        assert!(labels < 64, "{labels}");
        for (status, count) in [("200", 1), ("429", 1), ("503", 1), ("4xx", 78), ("other", 500)] {
            let line = format!("kind=\"manifest\",registry=\"other\",status=\"{status}\"}} {count}");
            assert!(text.contains(&line), "{line} is missing in:\n{text}");
        }
    }

    #[test]
    fn what_is_no_review_says_nothing_of_how_long_reviews_take() {
        let metrics = Metrics::new();
        metrics.malformed_review();
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(text.contains("sealgate_reviews_total{operation=\"none\",verdict=\"malformed\"} 1"), "{text}");
        assert!(text.contains("sealgate_review_duration_seconds_count 0"), "{text}");
    }

    #[test]
    fn counters_of_fixed_labels_count_what_has_other_labels_too() {
        let metrics = Metrics::new();
        for _ in 0..2 {
            metrics.review("create", "allowed", Duration::ZERO);
            metrics.review("new", "allowed", Duration::ZERO);
        }
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        for operation in ["create", "new"] {
            let line = format!("sealgate_reviews_total{{operation=\"{operation}\",verdict=\"allowed\"}} 2");
            assert!(text.contains(&line), "{text}");
        }
        assert_eq!(text.matches("sealgate_reviews_total{").count(), 2, "{text}");
    }

    #[test]
    fn every_metric_of_the_design_is_there_once_it_was_used() {
        let metrics = Metrics::new();
        metrics.review("create", "allowed", Duration::from_millis(1));
        metrics.image("verified", "", "production/acme", "enforce");
        metrics.registry_request("other", RequestKind::Manifest, None, Duration::from_millis(1));
        metrics.cache_request("tag", CacheResult::Hit);
        metrics.cache_entries("tag", 1);
        metrics.outbound_wait(OutboundQuota::Requests, false);
        metrics.outbound_refusal(OutboundQuota::Lookups, true);
        metrics.key_expiries([("acme", "AB".to_owned(), None)].into_iter());
        metrics.certificate_reloads(true, false);
        metrics.unusable_keys([("acme", "CD".to_owned(), "curve secp256k1".to_owned())].into_iter());
        metrics.policy_loaded(1, "sha256:00");
        metrics.policy_refused();
        metrics.policy_read(1);
        metrics.policy_readable(true);
        metrics.policy_unavailable(true);
        metrics.exemption_used("production/legacy");
        metrics.connection_opened("webhook");
        metrics.connection_ended("webhook", "evicted");
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        for line in [
            "sealgate_reviews_total{operation=\"create\",verdict=\"allowed\"} 1",
            "sealgate_review_duration_seconds_count 1",
            "sealgate_images_total{code=\"\",mode=\"enforce\",rule=\"production/acme\",verdict=\"verified\"} 1",
            "sealgate_registry_requests_total{kind=\"manifest\",registry=\"other\",status=\"error\"} 1",
            "sealgate_registry_request_duration_seconds_count{kind=\"manifest\",registry=\"other\"} 1",
            "sealgate_cache_requests_total{cache=\"tag\",result=\"hit\"} 1",
            "sealgate_cache_entries{cache=\"tag\"} 1",
            "sealgate_outbound_waits_total{quota=\"requests\",share=\"unnamed\"} 1",
            "sealgate_outbound_refusals_total{quota=\"lookups\",share=\"named\"} 1",
            "sealgate_key_expiry_timestamp_seconds{fingerprint=\"AB\",key=\"acme\"} inf",
            "sealgate_unusable_key_info{fingerprint=\"CD\",key=\"acme\",reason=\"curve secp256k1\"} 1",
            "sealgate_certificate_expiry_timestamp_seconds 0",
            "sealgate_certificate_last_reload_successful 1",
            "sealgate_client_ca_last_reload_successful 0",
            "sealgate_policy_info{digest=\"sha256:00\",generation=\"1\"} 1",
            "sealgate_policy_reloads_total{result=\"failure\"} 1",
            "sealgate_policy_last_reload_successful 0",
            "sealgate_policy_last_read_timestamp_seconds 1",
            "sealgate_policy_readable 1",
            "sealgate_policy_unavailable 1",
            "sealgate_exemptions_used_total{exemption=\"production/legacy\"} 1",
            "sealgate_connections{listener=\"webhook\"} 1",
            "sealgate_connections_ended_total{listener=\"webhook\",reason=\"evicted\"} 1",
            "sealgate_log_lines_left_out_total",
            "sealgate_background_panics_total{task=\"policy-monitor\"} 0",
            "sealgate_build_info{version=",
            "process_open_fds",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
