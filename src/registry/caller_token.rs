//! Exchanges the credentials of the gateway's callers for tokens.

use std::time::Duration;

use reqwest::{Method, header::HeaderValue};
use url::Url;

use super::{
    allowed_hosts::host_of,
    failure::Failure,
    remote_server::RemoteServer,
    time_budget::TimeBudget,
    token_realm::is_trusted,
    token_response::{MAX_ANSWER, parse},
    transport::{MAX_SHARED_BACKOFF, OutgoingRequest, Transport},
};
use crate::configuration::is_on_loopback;
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::telemetry::RequestKind;

/// Requests a token from a realm with the credentials of a caller. The token permits no more than these credentials do.
///
/// # Errors
/// [`LookupError::Unauthorized`] if the realm refuses the credentials; any other error if the realm can't be asked.
pub(crate) async fn exchange(
    transport: &Transport,
    (remote, base): (&RemoteServer, &Url),
    (realm, service): (&Url, Option<&str>),
    scopes: &[String],
    credentials: Option<HeaderValue>,
    budget: TimeBudget,
) -> Result<(HeaderValue, Duration), LookupError> {
    let failed = |failure: Failure| failure.at(&remote.registry, base, budget.total());
    if realm.scheme() != "https" && base.scheme() == "https" {
        return Err(failed(Failure::Misbehaved("its token realm is not https".to_owned())));
    }
    if realm.scheme() != "https" && !remote.settings.insecure && !is_on_loopback(realm) {
        let what = "it would be asked over plain HTTP beyond loopback; give it https, or accept that everyone on the way reads \
                    the credentials of callers, with gateway.registry.insecure: true";
        return Err(failed(Failure::Misbehaved(format!("of its token realm {}: {what}", shown(realm)))));
    }
    if credentials.is_some() && !is_trusted(realm, base, remote) {
        let what = "callers' credentials are not sent there: it is not of the registry's own host or domain; if it is right, \
                    name it in gateway.registry.tokenRealms";
        return Err(failed(Failure::Misbehaved(format!("of its token realm {}: {what}", shown(realm)))));
    }
    let mut url = realm.clone();
    let mut query = url.query_pairs_mut();
    if let Some(service) = service {
        query.append_pair("service", service);
    }
    for scope in scopes {
        query.append_pair("scope", scope);
    }
    drop(query);
    let own = host_of(realm).is_some() && host_of(realm) == host_of(base);
    let asked = RemoteServer { named: remote.named && own, ..remote.clone() };
    let with_credentials = credentials.is_some();
    let ask = OutgoingRequest {
        remote: &asked,
        url: &url,
        method: Method::GET,
        kind: RequestKind::Token,
        headers: reqwest::header::HeaderMap::new(),
        authorization: credentials,
        content: None,
        limit: MAX_ANSWER,
        repeat: true,
        longest_wait: MAX_SHARED_BACKOFF,
        budget,
    };
    let answer = transport.ask(&ask).await.map_err(|failure| {
        failed(failure.of_token_realm(|| {
            format!(
                "no public address of its token realm {} can be found; if it is right, name it in \
                 gateway.registry.tokenRealms",
                shown(realm)
            )
        }))
    })?;
    match answer.status {
        200 => parse(&answer.body)
            .ok_or_else(|| failed(Failure::Misbehaved("what its token realm sends is no token".to_owned()))),
        status @ (401 | 403) => Err(LookupError::Unauthorized {
            registry: (&*remote.registry).into(),
            url: shown(base),
            status,
            with_credentials,
            looked_in: None,
        }),
        status => Err(failed(Failure::Unavailable(format!("its token realm answers {status}")))),
    }
}
