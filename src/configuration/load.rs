//! Reads and checks a configuration file.

mod checker;
mod gateway;
mod registries;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use url::Url;

use self::checker::{Checker, flatten};
use super::{
    document::{
        ApiVersion, Kind, RawCaches, RawCertificate, RawConfiguration, RawHealth, RawLimits, RawPin, RawSize,
        RawWebhook,
    },
    settings::{Caches, Certificate, Configuration, Limits, Webhook},
};
use crate::diagnostic::{Diagnostic, Span};
use crate::image::Repository;
use crate::policy::{API_VERSION, Mode, SourceFile};
use crate::text;
use crate::yaml::{self, Located, YamlSource};

/// The maximum `webhook.deadline`: the API server waits at most 30 s for a webhook.
const MAX_DEADLINE: Duration = Duration::from_secs(29);
/// The minimum `policyMaxStale`. A changed policy takes effect after two equal reads, two seconds apart; a shorter
/// limit would refuse every image at each change.
const MIN_POLICY_MAX_STALE: Duration = Duration::from_secs(5);
/// The maximum of each limit in bytes.
const MAX_SIZE: u64 = 1 << 30;
/// The maximum of each other limit.
const MAX_COUNT: usize = 100_000;

/// Reads and checks a configuration file.
///
/// # Errors
/// Returns every mistake that can be found in one pass, at least one.
pub fn load(file: &SourceFile) -> Result<Configuration, Vec<Diagnostic>> {
    let text = text::utf8(&file.name, &file.bytes).map_err(|mistake| vec![hide_secrets(*mistake)])?;
    load_text(YamlSource { name: &file.name, text }, &file.folder)
        .map_err(|mistakes| mistakes.into_iter().map(|mistake| hide_secrets(mistake.showing(text))).collect())
}

fn load_text(source: YamlSource<'_>, folder: &Path) -> Result<Configuration, Vec<Diagnostic>> {
    let documents = yaml::parse(source)?;
    let document = match documents.as_slice() {
        [document] => document,
        [] => {
            return Err(vec![
                Diagnostic::of_file(source.name, "the file is empty")
                    .suggest(format!("begin with: apiVersion: {API_VERSION}, kind: Configuration")),
            ]);
        }
        [_, second, ..] => {
            let message = "a configuration file has one document, here begins a second one";
            return Err(vec![source.mistake(second.place, message).suggest("policies stand in files of their own")]);
        }
    };
    if document.get("kind").and_then(yaml::Node::as_text).is_some_and(|kind| kind.ends_with("SealPolicy")) {
        let message = "this is a policy, not the configuration";
        return Err(vec![source.mistake(document.place, message).suggest("name the configuration file with --config")]);
    }
    let (raw, mistakes) = yaml::read::<RawConfiguration>(source, document);
    let mut check = Checker { source, folder, mistakes };
    let configuration = raw.and_then(|raw| check.configuration(raw));
    match configuration {
        Some(configuration) if check.mistakes.is_empty() => Ok(configuration),
        _ => {
            check.mistakes.sort_by_key(|mistake| mistake.place);
            Err(check.mistakes)
        }
    }
}

/// Removes what may be a password from a mistake, which goes to the log. Operators write passwords into the
/// configuration by mistake.
fn hide_secrets(mut diagnostic: Diagnostic) -> Diagnostic {
    let line = diagnostic.snippet.as_ref().map_or("", |snippet| &*snippet.line);
    let line = format!("{line} {} {}", diagnostic.message, diagnostic.suggestion.as_deref().unwrap_or_default());
    let line = line.to_lowercase();
    let named = ["pass", "pwd", "secret", "credential", "auth"].iter().any(|word| line.contains(word));
    // `user:password@host`, but not `repository@sha256:...`.
    let user = line.split('@').skip(1).any(|rest| !rest.starts_with("sha"));
    if named || user {
        diagnostic.snippet = None;
        diagnostic.message = without_values(&diagnostic.message);
        // A suggestion that repeats what was found would show it too.
        diagnostic.suggestion = diagnostic.suggestion.filter(|text| !text.contains(['@', '[']));
    }
    diagnostic
}

/// Removes the quoted values from a message. Quoted field names stay.
fn without_values(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((before, from)) = rest.split_once('"') {
        let mut escaped = false;
        let end = from.find(|character| {
            let ends = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            ends
        });
        let (value, after) = from.split_at(end.unwrap_or(from.len()));
        let after = after.strip_prefix('"').unwrap_or(after);
        shown.push_str(before);
        let is_field = [" should be ", " is missing", " stands twice"].iter().any(|words| after.starts_with(words))
            || before.ends_with("unknown field ") && !value.contains('@');
        shown.extend(["\"", if is_field { value } else { "..." }, "\""]);
        rest = after;
    }
    shown.push_str(rest);
    shown
}

impl Checker<'_> {
    fn configuration(&mut self, raw: RawConfiguration) -> Option<Configuration> {
        let RawConfiguration {
            api_version: ApiVersion::V1,
            kind: Kind::Configuration,
            policies,
            policy_max_stale,
            accept_anything_by_default,
            webhook,
            metrics,
            health,
            registries,
            caches,
            gateway,
            limits,
        } = raw;
        let policies = policies.map(|path| self.path(&path));
        let policy_max_stale = policy_max_stale.map(|duration| {
            if duration.value.0 < MIN_POLICY_MAX_STALE {
                let message = "a change of the policy files takes longer to settle than this";
                self.mistake_with_help(duration.place, message, "write 5s or more; 1h, say, leaves time to mend them");
            }
            duration.value.0
        });
        let place_of = |listen: &Option<Located<Box<str>>>| listen.as_ref().map(|listen| listen.place);
        let webhook_place = place_of(&webhook.listen);
        let webhook = self.webhook(webhook);
        let metrics_place = place_of(&metrics.listen);
        let metrics = match metrics.listen {
            Some(listen) if &*listen.value == "off" => Some(None),
            listen => self.listen(listen.as_ref(), 9090).map(Some),
        };
        let health_place = health.as_ref().and_then(|health| place_of(&health.listen));
        let health = match health {
            Some(RawHealth { listen }) => self.listen(listen.as_ref(), 9091).map(Some),
            None => Some(None),
        };
        let listeners = [
            ("webhook", webhook.as_ref().map(|webhook| webhook.listen), webhook_place),
            ("metrics", metrics.flatten(), metrics_place),
            ("health", health.flatten(), health_place),
        ];
        for (index, later) in listeners.iter().enumerate() {
            for earlier in &listeners[..index] {
                self.one_port(*earlier, *later);
            }
        }
        let registries = self.registries(registries);
        let caches = caches_of(&caches);
        let gateway = gateway.map(|gateway| self.gateway(gateway));
        let limits = self.limits(&limits);
        Some(Configuration {
            policies: flatten(policies)?,
            policy_max_stale,
            accept_anything_by_default,
            webhook: webhook?,
            metrics: metrics?,
            health: health?,
            registries,
            caches,
            gateway: flatten(gateway)?,
            limits: limits?,
        })
    }

    /// Reports two listeners on one port. Each has a name, an address, and its place in the file, if it is written
    /// there.
    fn one_port(
        &mut self,
        (one, first, first_place): (&str, Option<SocketAddr>, Option<Span>),
        (other, second, second_place): (&str, Option<SocketAddr>, Option<Span>),
    ) {
        let (Some(first), Some(second), Some(place)) = (first, second, second_place.or(first_place)) else { return };
        let one_host = first.ip() == second.ip() || first.ip().is_unspecified() || second.ip().is_unspecified();
        if first.port() != 0 && first.port() == second.port() && one_host {
            let message = format!("{one} and {other} both listen on port {}", first.port());
            self.mistake_with_help(place, message, "give each a port of its own");
        }
    }

    /// Resolves a path, from the folder of the configuration file.
    fn path(&mut self, path: &Located<Box<str>>) -> Option<PathBuf> {
        if path.is_empty() {
            self.mistake(path.place, "a path is expected, found nothing");
            return None;
        }
        Some(self.folder.join(&*path.value))
    }

    fn listen(&mut self, text: Option<&Located<Box<str>>>, default_port: u16) -> Option<SocketAddr> {
        let Some(text) = text else { return Some((Ipv4Addr::UNSPECIFIED, default_port).into()) };
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(address);
        }
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let suggestion = if text.parse::<IpAddr>().is_ok() || port.is_empty() {
            format!(
                "add a port: {}",
                SocketAddr::new(text.parse().unwrap_or(Ipv4Addr::UNSPECIFIED.into()), default_port)
            )
        } else if port.parse::<u16>().is_err() {
            "a port is a number up to 65535".to_owned()
        } else if host.is_empty() || host == "*" {
            format!("write 0.0.0.0:{port}, or [::]:{port}")
        } else if host.eq_ignore_ascii_case("localhost") {
            format!("write 127.0.0.1:{port}")
        } else {
            "write an IP address, not a name; an IPv6 address stands in brackets".to_owned()
        };
        self.mistake_with_help(text.place, format!("{:?} is not an address with a port", text.value), suggestion);
        None
    }

    fn certificate(&mut self, raw: &RawCertificate) -> Option<Certificate> {
        let (chain, key) = (self.path(&raw.file), self.path(&raw.key));
        Some(Certificate::Files { chain: chain?, key: key? })
    }

    fn webhook(&mut self, raw: RawWebhook) -> Option<Webhook> {
        let RawWebhook { listen, certificate, client_ca, deadline, mode, pin, placeholders } = raw;
        let listen = self.listen(listen.as_ref(), 8443);
        let certificate = match certificate {
            Some(certificate) => self.certificate(&certificate),
            None => Some(Certificate::Made { folder: self.folder.join("certs") }),
        };
        let client_ca = client_ca.map(|path| self.path(&path));
        let place = deadline.as_ref().map(|deadline| deadline.place);
        let deadline = deadline.map_or(Duration::from_secs(8), |deadline| deadline.value.0);
        if let Some(place) = place {
            if deadline < Duration::from_millis(100) {
                self.mistake_with_help(place, "no image can be checked within this deadline", "8s is the default");
            } else if deadline > MAX_DEADLINE {
                let message = "the deadline must be below the webhook's timeoutSeconds, which is 30 at the most";
                self.mistake_with_help(place, message, "8s goes with timeoutSeconds: 10");
            }
        }
        for placeholder in placeholders.iter().filter(|placeholder| placeholder.is_empty()) {
            let message = "a placeholder is a text that stands in place of an image, found nothing";
            self.mistake_with_help(placeholder.place, message, "Istio's is auto");
        }
        Some(Webhook {
            listen: listen?,
            certificate: certificate?,
            client_ca: flatten(client_ca)?,
            deadline,
            mode: mode.map_or(Mode::Enforce, Into::into),
            pin_required: pin != Some(RawPin::Off),
            placeholders: placeholders.into_iter().map(|placeholder| placeholder.value).collect(),
        })
    }

    /// Checks a URL. If it has a host, a registries entry must be able to name it: the entry says how to reach the
    /// server, and with which credentials.
    fn server(&mut self, text: &Located<Box<str>>, schemes: &[&str]) -> Option<Url> {
        let url = self.url(text, schemes)?;
        if url.scheme() != "file" && Repository::at(&url, "name").is_none() {
            let message = "no image can be at this URL's host and port, and so no registries entry can be about it";
            let help = "write a DNS name without '_' and without a dot at its end, or an IP address; \
                        no host of Docker Hub's, and not port 443 for plain HTTP";
            self.mistake_with_help(text.place, message, help);
            return None;
        }
        Some(url)
    }

    /// Checks that a URL has one of these schemes, a host (except for `file`), and no user, query or fragment.
    fn url(&mut self, text: &Located<Box<str>>, schemes: &[&str]) -> Option<Url> {
        let known: Vec<String> = schemes
            .iter()
            .map(|scheme| if *scheme == "file" { "file:///path".to_owned() } else { format!("{scheme}://host") })
            .collect();
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => {
                self.mistake_with_help(
                    text.place,
                    format!("this is not a URL: {error}"),
                    format!("write {}", known.join(" or ")),
                );
                return None;
            }
        };
        if !schemes.contains(&url.scheme()) {
            let message = format!("a URL with the scheme {:?} is not taken here", url.scheme());
            self.mistake_with_help(text.place, message, format!("write {}", known.join(" or ")));
            return None;
        }
        let message = if !url.username().is_empty() || url.password().is_some() {
            "a URL has no user and no password here"
        } else if url.query().is_some() || url.fragment().is_some() {
            "a URL has no query and no fragment here"
        } else if url.scheme() == "file" && url.host().is_some() {
            "a file URL has three slashes: file:///path"
        } else {
            return Some(url);
        };
        self.mistake(text.place, message);
        None
    }

    fn limits(&mut self, raw: &RawLimits) -> Option<Limits> {
        let RawLimits { review_bytes, manifest_bytes, signature_list_bytes, signatures_per_image, images_per_review } =
            raw;
        let default = Limits::default();
        let review_bytes = self.size(review_bytes.as_ref(), default.review_bytes);
        let manifest_bytes = self.size(manifest_bytes.as_ref(), default.manifest_bytes);
        let signature_list_bytes = self.size(signature_list_bytes.as_ref(), default.signature_list_bytes);
        let signatures_per_image = self.count(signatures_per_image.as_ref(), default.signatures_per_image);
        let images_per_review = self.count(images_per_review.as_ref(), default.images_per_review);
        Some(Limits {
            review_bytes: review_bytes?,
            manifest_bytes: manifest_bytes?,
            signature_list_bytes: signature_list_bytes?,
            signatures_per_image: signatures_per_image?,
            images_per_review: images_per_review?,
        })
    }

    fn size(&mut self, size: Option<&Located<RawSize>>, default: usize) -> Option<usize> {
        let Some(size) = size else { return Some(default) };
        let bytes = size.value.0;
        if bytes == 0 || bytes > MAX_SIZE {
            self.mistake(size.place, format!("a size is more than 0 and at most 1GiB, found {bytes} bytes"));
            return None;
        }
        usize::try_from(bytes).ok()
    }

    fn count(&mut self, count: Option<&Located<i64>>, default: usize) -> Option<usize> {
        let Some(count) = count else { return Some(default) };
        let number = usize::try_from(count.value).ok().filter(|number| (1..=MAX_COUNT).contains(number));
        if number.is_none() {
            self.mistake(count.place, format!("a number from 1 to {MAX_COUNT} is expected, found {}", count.value));
        }
        number
    }
}

fn caches_of(raw: &RawCaches) -> Caches {
    let RawCaches { tag, signatures, last_known_good } = raw;
    let default = Caches::default();
    Caches {
        tag: tag.as_ref().map_or(default.tag, |tag| tag.value.0),
        signatures: signatures.as_ref().map_or(default.signatures, |signatures| signatures.value.0),
        last_known_good: last_known_good.as_ref().map_or(default.last_known_good, |kept| kept.value.0),
    }
}
