//! Registers all metrics, with their names and help texts.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, process_collector::ProcessCollector,
};

use super::{
    fixed_counters::FixedCounters,
    labels::{BACKGROUND_TASKS, CACHE_REQUESTS, OUTBOUND, REVIEWS},
};

/// The metrics of this process, with a Prometheus registry of their own.
pub struct Metrics {
    pub(super) registry: Registry,
    pub(super) reviews: FixedCounters<5, 5>,
    pub(super) review_duration: Histogram,
    pub(super) images: IntCounterVec,
    pub(super) registry_requests: IntCounterVec,
    pub(super) registry_request_duration: HistogramVec,
    pub(super) outbound_waits: FixedCounters<3, 2>,
    pub(super) outbound_refusals: FixedCounters<3, 2>,
    pub(super) cache_requests: FixedCounters<4, 2>,
    pub(super) cache_entries: IntGaugeVec,
    pub(super) key_expiry: GaugeVec,
    pub(super) unusable_keys: IntGaugeVec,
    pub(super) certificate_expiry: Gauge,
    pub(super) certificate_last_reload_successful: IntGauge,
    pub(super) client_ca_last_reload_successful: IntGauge,
    pub(super) policy_info: IntGaugeVec,
    pub(super) policy_reloads: IntCounterVec,
    pub(super) policy_last_reload_successful: IntGauge,
    pub(super) policy_last_read: Gauge,
    pub(super) policy_readable: IntGauge,
    pub(super) policy_unavailable: IntGauge,
    pub(super) exemptions_used: IntCounterVec,
    pub(super) connections: IntGaugeVec,
    pub(super) connections_ended: IntCounterVec,
    pub(super) log_lines_left_out: IntCounter,
    pub(super) background_panics: IntCounterVec,
}

impl Metrics {
    /// Registers every metric of Sealgate, and those of the process.
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
                    HistogramOpts::new(
                        "sealgate_review_duration_seconds",
                        "Time from the complete review to its answer.",
                    )
                    .buckets(vec![
                        0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
                        5.0, 10.0,
                    ]),
                ),
            ),
            images: register(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "sealgate_images_total",
                        "Decisions about images. The code is empty unless the image is refused (or the refusal not enforced).",
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
                            "Requests that were not sent because they waited for a share of a quota in vain.",
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
                        "Expiry time of a certificate of the policy; +Inf: never.",
                    ),
                    &["key", "fingerprint"],
                ),
            ),
            unusable_keys: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "sealgate_unusable_key_info",
                        "A key in the policy's key files whose signatures can't be checked, beside usable keys: always 1.",
                    ),
                    &["key", "fingerprint", "reason"],
                ),
            ),
            certificate_expiry: register(
                &registry,
                Gauge::with_opts(Opts::new(
                    "sealgate_certificate_expiry_timestamp_seconds",
                    "Expiry time of the webhook's certificate.",
                )),
            ),
            certificate_last_reload_successful: register(
                &registry,
                IntGauge::with_opts(Opts::new(
                    "sealgate_certificate_last_reload_successful",
                    "1 if the webhook's certificate in force is that of its files, 0 if it is the last good one.",
                )),
            ),
            client_ca_last_reload_successful: register(
                &registry,
                IntGauge::with_opts(Opts::new(
                    "sealgate_client_ca_last_reload_successful",
                    "1 if the webhook's client CA in force is that of its file, 0 if it is the last good one.",
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
                    "1 if the policy in force is that of its files, 0 if it is the last good one.",
                )),
            ),
            policy_last_read: register(
                &registry,
                Gauge::with_opts(Opts::new(
                    "sealgate_policy_last_read_timestamp_seconds",
                    "Time of the last complete read of all policy files, valid or not.",
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
                        "Connections that the server refused or ended, by reason.",
                    ),
                    &["listener", "reason"],
                ),
            ),
            log_lines_left_out: register(
                &registry,
                IntCounter::with_opts(Opts::new(
                    "sealgate_log_lines_left_out_total",
                    "Log lines that were left out by a rate limit.",
                )),
            ),
            background_panics: register(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "sealgate_background_panics_total",
                        "Panics of background work. Each is a bug, after which the work was started again.",
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
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Panics if a metric can't be registered. Names and labels are constants of this file, and a test registers them all,
/// so this can't happen at run time.
fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("a metric's name and labels are well-formed");
    registry.register(Box::new(metric.clone())).expect("no two metrics have one name");
    metric
}
