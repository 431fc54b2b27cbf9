//! Records events in the metrics, and renders them as text.

use std::time::Duration;

use prometheus::{Encoder, TextEncoder};

use super::{
    labels::{OutboundQuota, RequestKind, share, status_label},
    registration::Metrics,
};
use crate::gate::{CacheResult, GateMetrics};
use crate::telemetry::log_throttle::lines_left_out;

impl Metrics {
    /// Counts an answered review, and its duration.
    pub fn review(&self, operation: &'static str, verdict: &'static str, took: Duration) {
        self.reviews.inc(operation, verdict);
        self.review_duration.observe(took.as_secs_f64());
    }

    /// Counts a request that is no review. Its duration is not recorded, since it would say nothing about reviews.
    pub fn malformed_review(&self) {
        self.reviews.inc("none", "malformed");
    }

    /// Counts a decision about an image. `rule` is a rule of the policy, or empty.
    pub fn image(&self, verdict: &str, code: &str, rule: &str, mode: &str) {
        self.images.with_label_values(&[verdict, code, rule, mode]).inc();
    }

    /// Counts a request to a registry or signature source, and its duration. `registry` is a configured scope or
    /// `other`. `status` is `None` if the request failed before there was one.
    pub fn registry_request(&self, registry: &str, kind: RequestKind, status: Option<u16>, took: Duration) {
        let mut digits = String::new();
        let status = status_label(status, &mut digits);
        self.registry_requests.with_label_values(&[registry, kind.label(), status]).inc();
        self.registry_request_duration.with_label_values(&[registry, kind.label()]).observe(took.as_secs_f64());
    }

    /// Counts a request that waits for a share of a quota. `named`: a rule or a registries entry names its registry.
    pub fn outbound_wait(&self, quota: OutboundQuota, named: bool) {
        self.outbound_waits.inc(quota.label(), share(named));
    }

    /// Counts a request that waited for a share of a quota in vain.
    pub fn outbound_refusal(&self, quota: OutboundQuota, named: bool) {
        self.outbound_refusals.inc(quota.label(), share(named));
    }

    /// Replaces the expiry times (seconds since 1970) of all certificates of the policy.
    pub fn key_expiries<'a>(&self, keys: impl Iterator<Item = (&'a str, String, Option<i64>)>) {
        self.key_expiry.reset();
        for (name, fingerprint, expiry) in keys {
            #[allow(clippy::cast_precision_loss)] // Exact until the year 285 million.
            let expiry = expiry.map_or(f64::INFINITY, |seconds| seconds as f64);
            self.key_expiry.with_label_values(&[name, fingerprint.as_str()]).set(expiry);
        }
    }

    /// Replaces the list of the policy's keys that can't be used, each with the reason.
    pub fn unusable_keys<'a>(&self, keys: impl Iterator<Item = (&'a str, String, String)>) {
        self.unusable_keys.reset();
        for (name, fingerprint, reason) in keys {
            self.unusable_keys.with_label_values(&[name, fingerprint.as_str(), reason.as_str()]).set(1);
        }
    }

    /// Sets the expiry time of the webhook's certificate (seconds since 1970).
    pub fn certificate_expiry(&self, seconds: i64) {
        #[allow(clippy::cast_precision_loss)] // As above.
        self.certificate_expiry.set(seconds as f64);
    }

    /// Records whether the certificate and client CA in force are those that the files hold now.
    pub fn certificate_reloads(&self, certificate: bool, client_ca: bool) {
        self.certificate_last_reload_successful.set(certificate.into());
        self.client_ca_last_reload_successful.set(client_ca.into());
    }

    /// Counts a policy that came into force, and sets its generation and digest.
    pub fn policy_loaded(&self, generation: u64, digest: &str) {
        self.policy_info.reset();
        self.policy_info.with_label_values(&[generation.to_string().as_str(), digest]).set(1);
        self.policy_reloads.with_label_values(&["success"]).inc();
        self.policy_last_reload_successful.set(1);
    }

    /// Counts a failed load of the policy; the last good policy stays in force.
    pub fn policy_refused(&self) {
        self.policy_reloads.with_label_values(&["failure"]).inc();
        self.policy_last_reload_successful.set(0);
    }

    /// Sets the time (seconds since 1970) of the last complete read of all policy files.
    pub fn policy_read(&self, seconds: i64) {
        #[allow(clippy::cast_precision_loss)] // As above.
        self.policy_last_read.set(seconds as f64);
    }

    /// Records whether all policy files could be read within the polling interval.
    pub fn policy_readable(&self, readable: bool) {
        self.policy_readable.set(readable.into());
    }

    /// Records whether the gate refuses every image because it does not know a current policy.
    pub fn policy_unavailable(&self, unavailable: bool) {
        self.policy_unavailable.set(unavailable.into());
    }

    /// Shows the counters of a listener that is about to serve, at zero: one for each reason to end a connection.
    pub(crate) fn listener_opened(&self, listener: &'static str, reasons: impl IntoIterator<Item = &'static str>) {
        self.connections.with_label_values(&[listener]);
        for reason in reasons {
            self.connections_ended.with_label_values(&[listener, reason]);
        }
    }

    /// Counts a connection that a client opened.
    pub(crate) fn connection_opened(&self, listener: &'static str) {
        self.connections.with_label_values(&[listener]).inc();
    }

    /// Counts a connection that was closed.
    pub(crate) fn connection_closed(&self, listener: &'static str) {
        self.connections.with_label_values(&[listener]).dec();
    }

    /// Counts a connection that the server refused or ended.
    pub(crate) fn connection_ended(&self, listener: &'static str, reason: &'static str) {
        self.connections_ended.with_label_values(&[listener, reason]).inc();
    }

    /// Counts a panic of background work.
    pub(crate) fn background_panic(&self, task: &str) {
        self.background_panics.with_label_values(&[task]).inc();
    }

    /// Renders all metrics in Prometheus' text format.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        // The log counts left-out lines for the whole process.
        self.log_lines_left_out.reset();
        self.log_lines_left_out.inc_by(lines_left_out());
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
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
