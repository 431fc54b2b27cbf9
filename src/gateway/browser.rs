//! Detects requests that a web page makes a browser send.
//!
//! A browser on the store's machine reaches a store on loopback, and so does any page that is open in it: at the
//! store's own address, or at a name of the page's own that its DNS server resolves to loopback (DNS rebinding).

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderMap},
};
use url::Url;

use super::headers::{External, is_host};
use crate::configuration::is_on_loopback;

/// Returns whether a request is addressed to this machine: it has one `Host`, which is `localhost` or a loopback
/// address, with any port. A name that a DNS server resolves to loopback is not accepted.
pub(super) fn is_for_loopback(request: &HttpRequest) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).map(|host| host.to_str().ok());
    // With HTTP/2, and with an absolute URL in the request line, the authority is in the URI.
    let authority = request.uri().authority().map(|authority| Some(authority.as_str()));
    let named = [hosts.next(), hosts.next(), authority];
    let is_local = |host: Option<&str>| host.is_some_and(is_loopback_host);
    match named {
        [None, None, None] | [_, Some(_), _] => false,
        named => named.into_iter().flatten().all(is_local),
    }
}

fn is_loopback_host(host: &str) -> bool {
    is_host(host) && Url::parse(&format!("http://{host}")).is_ok_and(|url| is_on_loopback(&url))
}

/// Returns whether a browser sends this for the page of another site, by `Sec-Fetch-Site`, or by `Origin`, which every
/// browser sends with requests that may change something. `scheme_is_known`: `own` has the scheme that clients use for
/// certain.
pub(super) fn is_cross_site(headers: &HeaderMap, own: &External, scheme_is_known: bool) -> bool {
    let is_own = |origin: &str| {
        let (Ok(origin), Some(host)) = (Url::parse(origin), &own.host) else { return false };
        let is_web = matches!(origin.scheme(), "http" | "https");
        let own_scheme = if scheme_is_known { own.scheme } else { origin.scheme() };
        is_web && Url::parse(&format!("{own_scheme}://{host}")).is_ok_and(|own| own.origin() == origin.origin())
    };
    let cross_fetch =
        headers.get_all("sec-fetch-site").any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    cross_fetch || headers.get_all(header::ORIGIN).any(|origin| !origin.to_str().is_ok_and(is_own))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn only_localhost_and_loopback_addresses_are_for_this_machine() {
        let is = |uri: &str, hosts: &[&str]| {
            let request = TestRequest::with_uri(uri);
            let request = hosts.iter().fold(request, |request, host| request.append_header(("host", *host)));
            is_for_loopback(&request.to_http_request())
        };
        for host in ["localhost", "LocalHost:5000", "127.0.0.1", "127.0.0.1:5000", "127.9.8.7:1", "[::1]", "[::1]:5000"]
        {
            assert!(is("/sealgate/v1/export", &[host]), "{host}");
            assert!(is(&format!("http://{host}/sealgate/v1/export"), &[host]), "{host}");
            assert!(is(&format!("http://{host}/sealgate/v1/export"), &[]), "{host}");
            assert!(!is(&format!("http://{host}/sealgate/v1/export"), &["evil.example.com"]), "{host}");
            assert!(!is(&format!("http://evil.example.com/{host}"), &[host]), "{host}");
        }
        for host in [
            "",
            "evil.example.com",
            "evil.example.com:5000",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "127.0.0.1.nip.io:5000",
            "localhost@evil.example.com",
            "evil.example.com@localhost",
            "localhost:5000:1",
            "localhost/",
            "0.0.0.0",
            "[::]:5000",
            "[::2]",
            "10.0.0.1:5000",
            "128.0.0.1",
            "store",
        ] {
            assert!(!is("/sealgate/v1/export", &[host]), "{host:?}");
        }
        assert!(!is("/sealgate/v1/export", &[]), "nothing is said");
        assert!(!is("/sealgate/v1/export", &["localhost", "localhost"]), "there is one");
        assert!(!is("/sealgate/v1/export", &["localhost", "evil.example.com"]));
    }

    #[test]
    fn a_page_of_another_site_is_told_from_the_stores_own_and_from_tools() {
        let cross = |fields: &[(&str, &str)], scheme, host: Option<&str>, known| {
            let fields = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            is_cross_site(&fields, &External { scheme, host: host.map(str::to_owned) }, known)
        };
        let at_home = |fields: &[(&str, &str)]| cross(fields, "http", Some("localhost:5000"), true);
        for own in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("origin", "http://localhost:5000")],
            &[("origin", "http://LOCALHOST:5000"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(!at_home(own), "{own:?}");
        }
        for other in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "Cross-Site")],
            &[("sec-fetch-site", "")],
            &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "http://localhost")],
            &[("origin", "http://localhost:5001")],
            &[("origin", "https://localhost:5000")],
            &[("origin", "http://127.0.0.1:5000")],
            &[("origin", "http://evil.example.com")],
            &[("origin", "file://")],
            &[("origin", "chrome-extension://abcdef")],
            &[("origin", "http://localhost:5000"), ("origin", "http://evil.example.com")],
            &[("origin", "http://localhost:5000"), ("sec-fetch-site", "cross-site")],
        ] {
            assert!(at_home(other), "{other:?}");
        }
        let https = &[("origin", "https://store.example.com")][..];
        assert!(!cross(https, "http", Some("store.example.com"), false), "TLS ends at a proxy that says nothing of it");
        assert!(cross(https, "http", Some("store.example.com"), true));
        assert!(!cross(https, "https", Some("store.example.com:443"), true));
        assert!(cross(https, "https", None, true), "nobody knows what its own is");
    }
}
