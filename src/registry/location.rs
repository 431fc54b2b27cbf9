//! Parses `Location` headers, of redirects and of uploads.

use reqwest::header::{HeaderMap, LOCATION};
use url::Url;

use super::failure::Failure;

/// The maximum size of a `Location`, in bytes.
const MAX_LOCATION: usize = 8 << 10;

/// Returns the URL of a `Location` header: the target of a redirect, or the next step of an upload.
pub(crate) fn location(from: &Url, headers: &HeaderMap, insecure: bool) -> Result<Url, Failure> {
    let bad = || Failure::Misbehaved("it redirects to nowhere".to_owned());
    let mut locations = headers.get_all(LOCATION).iter();
    let (Some(location), None) = (locations.next(), locations.next()) else { return Err(bad()) };
    if location.len() > MAX_LOCATION {
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
    use reqwest::header::HeaderValue;

    use super::*;

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
        assert_eq!(to(&"a".repeat(MAX_LOCATION + 1)), None);
        assert!(location(&from, &HeaderMap::new(), true).is_err());
        let plain = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static("http://s.example.com/"))]);
        assert!(location(&from, &plain, true).is_ok(), "where the registry is insecure, it may");
    }
}
