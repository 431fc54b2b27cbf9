//! Header fields that pass through the gateway: the choice of fields, and the rewriting of addresses.

use actix_web::http::header::HeaderMap;
use url::Url;

use crate::configuration::is_on_loopback;

/// Fields that are not passed on: about one connection (RFC 9110, section 7.6.1), a proxy's own credentials, or
/// trailers. Those that `Connection` names are added.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Prefixes of the names of fields in which proxies describe a request: its address, URL and sender. There is one
/// standard (`Forwarded`, RFC 7239), and a name of each vendor's own.
const OF_PROXIES: [&str; 32] = [
    "cf-connecting-",
    "cf-visitor",
    "cloudfront-",
    "forwarded",
    "front-end-https",
    "remote-",
    "ssl-",
    "tailscale-user-",
    "x-amzn-mtls-",
    "x-amzn-oidc-",
    "x-appengine-",
    "x-arr-",
    "x-auth-request-",
    "x-authenticated-",
    "x-azure-",
    "x-client-",
    "x-cluster-client-",
    "x-consumer-",
    "x-envoy-",
    "x-forwarded",
    "x-goog-authenticated-",
    "x-goog-iap-",
    "x-host",
    "x-original-",
    "x-proxy",
    "x-real-",
    "x-remote-",
    "x-rewrite-",
    "x-scheme",
    "x-ssl-",
    "x-url-scheme",
    "x-webauth-",
];
/// Suffixes of the names of fields that contain an address.
const OF_ADDRESSES: [&str; 8] = ["-ip", "-ipv4", "-ipv6", "-addr", "-address", "clientip", "socketip", "-client-cert"];

/// Returns whether this field (in lower case) is one in which a proxy describes the origin of a request.
///
/// From a client that is no trusted proxy, such a field is forged, or of no use to the registry. An allow-list of
/// fields would be safer, but registries have credentials in fields of their own (`X-JFrog-Art-Api`, `Private-Token`,
/// ...), and no list has all of these.
pub(super) fn is_about_the_way(name: &str) -> bool {
    // Some interfaces (CGI, WSGI) do not distinguish the two.
    let name = name.replace('_', "-");
    OF_PROXIES.iter().any(|start| name.starts_with(start)) || OF_ADDRESSES.iter().any(|end| name.ends_with(end))
}

/// The fields of a message that concern only its connection.
pub(super) struct HopByHop(Vec<String>);

impl HopByHop {
    /// Parses the values of the message's `Connection` fields.
    pub(super) fn new<'a>(connection: impl Iterator<Item = &'a [u8]>) -> Self {
        let named = connection
            .filter_map(|value| std::str::from_utf8(value).ok())
            .flat_map(|value| value.split(','))
            .map(|name| name.trim().to_ascii_lowercase())
            .collect();
        Self(named)
    }

    /// Returns whether this field (in lower case) is not passed on.
    pub(super) fn contains(&self, name: &str) -> bool {
        HOP_BY_HOP.contains(&name) || self.0.iter().any(|named| named == name)
    }
}

/// The address by which a client knows the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct External {
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// The `host[:port]`; `None` if the client did not send it.
    pub(super) host: Option<String>,
}

impl External {
    /// Makes the address from the configured URL.
    pub(super) fn of_url(url: &Url) -> Self {
        let scheme = if url.scheme() == "https" { "https" } else { "http" };
        let host = url.host_str().map(|host| match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        });
        Self { scheme, host }
    }

    /// Returns whether secrets for this address stay confidential: over TLS, or on this machine.
    pub(super) fn keeps_secrets(&self) -> bool {
        let Some(host) = &self.host else { return true };
        // Parsed as clients do.
        let url = Url::parse(&format!("http://{host}"));
        self.scheme == "https" || url.is_ok_and(|url| is_on_loopback(&url))
    }

    /// Makes the address from the client's fields, or from those of the proxy in front if `forwarded` is set. A forged
    /// address affects only the client that sent it.
    pub(super) fn of(headers: &HeaderMap, tls: bool, forwarded: bool) -> Self {
        let first = |name: &str| {
            let value = headers.get(name)?.to_str().ok()?;
            Some(value.split(',').next()?.trim())
        };
        let told = |name: &str| if forwarded { first(name) } else { None };
        let scheme = match told("x-forwarded-proto") {
            Some("https") => "https",
            Some("http") => "http",
            _ if tls => "https",
            _ => "http",
        };
        let is_one = |host: &&str| is_host(host);
        let host = told("x-forwarded-host").filter(is_one).or_else(|| first("host").filter(is_one));
        Self { scheme, host: host.map(str::to_owned) }
    }
}

/// Returns whether a text has only characters that `host[:port]` may have.
pub(super) fn is_host(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']' | b'_');
    !text.is_empty() && text.bytes().all(known)
}

/// Rewrites the registry's own addresses in its answers to the gateway's.
pub(super) struct Rewrite<'a> {
    /// The requested URL, at the registry.
    pub(super) requested: &'a Url,
    /// The gateway's address.
    pub(super) external: &'a External,
}

impl Rewrite<'_> {
    /// Returns the new value of a `Location`; `None` if it stays as it is.
    ///
    /// Paths that the gateway does not serve, outside of `/v2/`, stay: clients fetch them from the registry itself,
    /// blob storage for example.
    pub(super) fn location(&self, value: &str) -> Option<String> {
        let url = self.requested.join(value).ok()?;
        // Registries behind a TLS proxy often write http for https, so host and port identify the registry.
        let same = matches!(url.scheme(), "http" | "https")
            && url.host() == self.requested.host()
            && (url.port_or_known_default() == self.requested.port_or_known_default()
                || (url.port().is_none() && self.requested.port().is_none()));
        let served = url.path().strip_prefix("/v2").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let relative = !value.starts_with("//") && Url::parse(value).is_err();
        match (same && served, relative) {
            (true, true) | (false, false) => None,
            (false, true) => Some(url.into()),
            // The original text, not the normalized URL: addresses of uploads contain state.
            (true, false) => {
                let (_, after) = value.split_once("//")?;
                let rest = &after[after.find('/')?..];
                Some(match &self.external.host {
                    Some(host) => format!("{}://{host}{rest}", self.external.scheme),
                    None => rest.to_owned(),
                })
            }
        }
    }

    /// Rewrites a `Link` (RFC 8288): every target between `<` and `>`.
    pub(super) fn link(&self, value: &str) -> Option<String> {
        let mut rewritten = String::with_capacity(value.len());
        let mut changed = false;
        let mut rest = value;
        while let Some((before, after)) = rest.split_once('<') {
            let Some((target, after)) = after.split_once('>') else { break };
            rewritten.push_str(before);
            rewritten.push('<');
            match self.location(target) {
                Some(location) => {
                    rewritten.push_str(&location);
                    changed = true;
                }
                None => rewritten.push_str(target),
            }
            rewritten.push('>');
            rest = after;
        }
        rewritten.push_str(rest);
        changed.then_some(rewritten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(registry: &str, value: &str) -> Option<String> {
        let requested = Url::parse(registry).unwrap().join("/v2/a/blobs/x").unwrap();
        let external = External { scheme: "https", host: Some("store.example.com:8443".into()) };
        Rewrite { requested: &requested, external: &external }.location(value)
    }

    #[test]
    fn the_registrys_own_addresses_become_the_gateways() {
        let ours = |path: &str| Some(format!("https://store.example.com:8443{path}"));
        let registry = "http://registry.internal:5000";
        for value in ["http://registry.internal:5000", "https://registry.internal:5000", "//REGISTRY.internal:5000"] {
            let upload = "/v2/a/blobs/uploads/1?_state=a%2Fb%3D&x='";
            assert_eq!(location(registry, &format!("{value}{upload}")), ours(upload), "{value}");
        }
        assert_eq!(location("https://registry.internal", "http://registry.internal/v2/x"), ours("/v2/x"));
        assert_eq!(location(registry, "http://registry.internal:5000/v2?x=1"), ours("/v2?x=1"));
    }

    #[test]
    fn what_the_registry_has_outside_of_v2_is_fetched_from_it() {
        let registry = "https://registry.internal";
        for value in ["https://registry.internal/_storage/x?sig=%2F", "https://registry.internal:443?x=1"] {
            assert_eq!(location(registry, value), None, "{value}");
        }
        let absolute = |path: &str| Some(format!("{registry}{path}"));
        assert_eq!(location(registry, "/_storage/x?sig=%2F"), absolute("/_storage/x?sig=%2F"));
        assert_eq!(location(registry, "/v2x"), absolute("/v2x"));
        assert_eq!(location(registry, "../../../_storage/x"), absolute("/_storage/x"));
    }

    #[test]
    fn other_addresses_stay_as_they_are() {
        let registry = "http://registry.internal:5000";
        for value in [
            "/v2/a/blobs/uploads/1?_state=x",
            "uploads/1",
            "https://storage.example.com/blob?signature=x",
            "https://storage.example.com/v2/blob",
            "//storage.example.com/v2/blob",
            "http://registry.internal:5001/v2/",
            "http://registry.internal:5000.example.com/v2/",
            "http://registry.internal:5000@example.com/v2/",
            "ftp://registry.internal:5000/v2/",
            "",
        ] {
            assert_eq!(location(registry, value), None, "{value}");
        }
    }

    #[test]
    fn each_target_of_a_link_is_looked_at() {
        let requested = Url::parse("http://r:5000/v2/_catalog").unwrap();
        let external = External { scheme: "http", host: None };
        let rewrite = Rewrite { requested: &requested, external: &external };
        assert_eq!(
            rewrite.link(r#"<http://r:5000/v2/_catalog?last=a&n=1>; rel="next", <https://x/>; rel="help""#).unwrap(),
            r#"</v2/_catalog?last=a&n=1>; rel="next", <https://x/>; rel="help""#
        );
        assert_eq!(rewrite.link(r#"</v2/_catalog?n=1>; rel="next""#), None);
        assert_eq!(rewrite.link("<http://r:5000/"), None);
    }

    #[test]
    fn what_connection_names_stays_on_the_connection() {
        let hops = HopByHop::new([b"close, X-Own".as_slice(), b"keep-alive"].into_iter());
        for name in ["connection", "x-own", "close", "transfer-encoding", "te", "upgrade", "proxy-authorization"] {
            assert!(hops.contains(name), "{name}");
        }
        for name in ["accept", "authorization", "range", "content-length"] {
            assert!(!hops.contains(name), "{name}");
        }
    }

    #[test]
    fn what_proxies_say_of_a_request_is_told_from_what_clients_say() {
        for name in [
            "forwarded",
            "x-forwarded",
            "x-forwarded-for",
            "x-forwarded-user",
            "x-forwarded-client-cert",
            "x_forwarded_for",
            "x-original-forwarded-for",
            "x-original-url",
            "x-rewrite-url",
            "x-real-ip",
            "x_real_ip",
            "true-client-ip",
            "client-ip",
            "x-client-ip",
            "x-cluster-client-ip",
            "x-remote-ip",
            "x-remote-addr",
            "x-remote-user",
            "remote-user",
            "remote_addr",
            "x-originating-ip",
            "x-proxyuser-ip",
            "wl-proxy-client-ip",
            "cf-connecting-ip",
            "cf-connecting-ipv6",
            "cf-pseudo-ipv4",
            "fastly-client-ip",
            "x-azure-clientip",
            "x-azure-socketip",
            "x-appengine-user-ip",
            "x-envoy-external-address",
            "x-nf-client-connection-ip",
            "cloudfront-viewer-address",
            "x-auth-request-email",
            "x-webauth-user",
            "x-goog-authenticated-user-email",
            "x-ssl-client-cert",
            "ssl-client-verify",
            "x-scheme",
        ] {
            assert!(is_about_the_way(name), "{name}");
        }
        for name in [
            "accept",
            "accept-encoding",
            "authorization",
            "cache-control",
            "content-length",
            "content-range",
            "content-type",
            "cookie",
            "docker-distribution-api-version",
            "host",
            "if-match",
            "if-none-match",
            "job-token",
            "oci-chunk-min-length",
            "origin",
            "private-token",
            "range",
            "traceparent",
            "user-agent",
            "via",
            "x-docker-token",
            "x-harbor-csrf-token",
            "x-jfrog-art-api",
            "x-meta-source-tag",
            "x-request-id",
        ] {
            assert!(!is_about_the_way(name), "{name}");
        }
    }

    #[test]
    fn the_gateways_address_is_what_the_client_calls_it() {
        let of = |fields: &[(&str, &str)], tls| {
            let fields = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            External::of(&fields.collect(), tls, true)
        };
        let external = |scheme, host: &str| External { scheme, host: Some(host.to_owned()) };
        assert_eq!(of(&[("host", "a:5000")], false), external("http", "a:5000"));
        assert_eq!(of(&[("host", "[::1]:5000")], true), external("https", "[::1]:5000"));
        let proxied = [("host", "a"), ("x-forwarded-host", "b, c"), ("x-forwarded-proto", "https")];
        assert_eq!(of(&proxied, false), external("https", "b"));
        assert_eq!(of(&[("host", "a/b\\")], false).host, None);
    }
}
