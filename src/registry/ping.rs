//! `GET /v2/`: learns how a registry is reached.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout_at;
use url::Url;

use super::{
    answer::Answer,
    authorization::Authorization,
    client::Client,
    failure::Failure,
    origin::{Extension, Origin, OriginKey, challenge},
    request::{Request, RequestSpec, join},
    target::Target,
    time_budget::TimeBudget,
};
use crate::configuration::Scheme;
use crate::refusal::LookupError;
use crate::telemetry::RequestKind;

/// The time limit of one ping, which all waiting callers share.
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// The time limit for TLS if plain HTTP is allowed as well: a server without TLS may stay silent.
const TLS_BEFORE_PLAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// The path of a ping below a registry's base.
const PING_PATH: &str = "v2/";
/// The header by which a registry announces the signature extension.
const EXTENSION: &str = "x-registry-supports-signatures";

impl Client {
    /// Returns the origin of a server: from the cache, or by one ping that all waiting callers share.
    pub(crate) async fn origin(&self, target: &Target, budget: TimeBudget) -> Result<Arc<Origin>, LookupError> {
        if target.fixed {
            let base = target.base.clone();
            return Ok(Arc::new(Origin { base, extension: Extension::Announced, challenge: None }));
        }
        let key = OriginKey { settings: target.remote.settings.number, base: target.base.clone() };
        match timeout_at(budget.deadline, self.origins.origins.try_get_with(key, self.ping(target))).await {
            Ok(Ok(origin)) => Ok(origin),
            Ok(Err(error)) => Err((*error).clone()),
            Err(_) => Err(Failure::TimedOut.at(&target.remote.registry, &target.base, budget.total())),
        }
    }

    async fn ping(&self, target: &Target) -> Result<Arc<Origin>, LookupError> {
        let budget = TimeBudget::of(PING_TIMEOUT);
        let told = |base, answer: Result<Answer, LookupError>| self.told(target, base, &answer?, budget);
        let secure = target.base.clone();
        let mut plain = secure.clone();
        match (target.remote.settings.insecure, target.remote.settings.scheme) {
            (true, None) => {}
            (true, Some(Scheme::Http)) if plain.set_scheme("http").is_ok() => {
                let answer = self.ping_at(target, &plain, budget).await;
                return told(plain, answer);
            }
            _ => {
                let answer = self.ping_at(target, &secure, budget).await;
                return told(secure, answer);
            }
        }
        let first = self.ping_at(target, &secure, TimeBudget::of(TLS_BEFORE_PLAIN_TIMEOUT)).await;
        let failed = |answer: &Result<Answer, LookupError>| {
            matches!(answer, Err(LookupError::Unavailable { .. } | LookupError::TimedOut { .. }))
        };
        // A server that answers over TLS, even with an error, is never asked without TLS.
        if !(failed(&first) || matches!(first, Err(LookupError::Misbehaved { .. })))
            || plain.set_scheme("http").is_err()
        {
            return told(secure, first);
        }
        let second = self.ping_at(target, &plain, budget).await;
        if failed(&second) { told(secure, first) } else { told(plain, second) }
    }

    async fn ping_at(&self, target: &Target, base: &Url, budget: TimeBudget) -> Result<Answer, LookupError> {
        let what = RequestSpec { path: PING_PATH, accept: None, kind: RequestKind::Ping, limit: 64 << 10 };
        self.ask(target, &join(base, what.path), &what, &Request::GET, None, budget).await
    }

    /// Interprets the answer to a ping.
    fn told(
        &self,
        target: &Target,
        base: Url,
        answer: &Answer,
        budget: TimeBudget,
    ) -> Result<Arc<Origin>, LookupError> {
        let announced = !answer.elsewhere && answer.headers.get(EXTENSION).is_some_and(|value| value == "1");
        let extension = if announced { Extension::Announced } else { Extension::NotAnnounced };
        match answer.status {
            200 => Ok(Arc::new(Origin { base, extension, challenge: None })),
            // A malformed challenge is an error only when it is needed: the requested resource may be public.
            401 => Ok(Arc::new(Origin { base, extension, challenge: challenge(answer).ok() })),
            429 | 500.. => {
                let url = join(&base, PING_PATH);
                Err(self.status(target, &url, answer, &Authorization::NONE, budget))
            }
            // Some registries answer 404 here, and have manifests all the same.
            status => Ok(Arc::new(Origin { base, extension: Extension::Unknown(status), challenge: None })),
        }
    }
}
