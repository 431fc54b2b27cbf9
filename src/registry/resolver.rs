//! Name resolution with the system's resolver: bounded, shared fairly, and cached for seconds.
//!
//! `getaddrinfo` can't be cancelled: a look-up blocks its thread until the system gives up, even if no caller waits. So
//! threads have a quota (`quota`), and look-ups of one name are a single flight.
//!
//! The dial guard checks the addresses here, before they are dialled, whether they are cached or not.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::Shared};
use moka::{Expiry, sync::Cache};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    dial_guard::is_public,
    quota::{Exhausted, Quota, QuotaPermit, Shares, Tenant},
};
use crate::telemetry::{Metrics, OutboundQuota};

/// The time limit of a look-up. It is part of a connection's time limit, and less than that.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);
/// The lifetime of addresses in the cache. The system's resolver does not return a TTL.
const ANSWER_TTL: Duration = Duration::from_secs(10);
/// The lifetime of a failure in the cache.
const FAILURE_TTL: Duration = Duration::from_secs(2);
/// The maximum number of names in the cache, once for named registries and once for the others.
const MAX_NAMES: u64 = 1024;
/// The threads that look names up.
const LOOKUP_THREADS: Shares = Shares { all: 64, each: 8, unnamed: 32, each_unnamed: 4 };
/// The maximum number of addresses of one name in the cache.
const MAX_ADDRESSES: usize = 64;
/// The maximum number of addresses of one name that are tried.
const MAX_TRIED: usize = 8;

tokio::task_local! {
    /// The registry that the requests of this task count for.
    static TENANT: Tenant;
}

/// Runs a request whose look-ups count for this registry.
pub(super) async fn on_behalf_of<F: Future>(tenant: Tenant, request: F) -> F::Output {
    TENANT.scope(tenant, request).await
}

/// The error if a name has no address that may be dialled.
#[derive(Debug)]
pub(super) struct NotPublic;

/// The error if the system's resolver could not be asked, or was too slow.
#[derive(Debug)]
pub(super) struct LookupFailed;

/// The error if no thread was free to ask the system's resolver.
#[derive(Debug)]
pub(super) struct LookupsExhausted(pub(super) Exhausted);

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name has no public address")
    }
}

impl std::error::Error for NotPublic {}

impl fmt::Display for LookupFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name can't be resolved")
    }
}

impl std::error::Error for LookupFailed {}

impl fmt::Display for LookupsExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name was not looked up: too many others were")
    }
}

impl std::error::Error for LookupsExhausted {}

type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// The addresses of a name; `None` if the look-up failed.
type ResolvedAddresses = Option<Arc<[IpAddr]>>;

/// A name, and whether it is looked up for a named registry. Named and other registries share only the threads.
type LookupKey = (Box<str>, bool);

/// The cache of names, and the look-ups in flight.
pub(super) struct NameCache {
    look_up: Box<LookUp>,
    threads: Arc<Quota>,
    named: Cache<Box<str>, ResolvedAddresses>,
    unnamed: Cache<Box<str>, ResolvedAddresses>,
    flights: Mutex<HashMap<LookupKey, Shared<oneshot::Receiver<ResolvedAddresses>>>>,
}

struct AddressTtl;

impl Expiry<Box<str>, ResolvedAddresses> for AddressTtl {
    fn expire_after_create(&self, _: &Box<str>, answer: &ResolvedAddresses, _: std::time::Instant) -> Option<Duration> {
        Some(if answer.is_some() { ANSWER_TTL } else { FAILURE_TTL })
    }

    fn expire_after_update(
        &self,
        name: &Box<str>,
        answer: &ResolvedAddresses,
        now: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(name, answer, now)
    }
}

/// Ends a look-up in flight, also if its thread panics.
struct LookupGuard {
    names: Arc<NameCache>,
    key: LookupKey,
    _thread: QuotaPermit,
}

impl Drop for LookupGuard {
    fn drop(&mut self) {
        self.names.flights().remove(&self.key);
    }
}

impl NameCache {
    /// Makes a cache over the system's resolver.
    pub(super) fn of_system(metrics: &Arc<Metrics>) -> Arc<Self> {
        Self::new(metrics, |name| {
            Ok((name, 0).to_socket_addrs()?.take(MAX_ADDRESSES).map(|address| address.ip()).collect())
        })
    }

    fn new(
        metrics: &Arc<Metrics>,
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let cache = || Cache::builder().max_capacity(MAX_NAMES).expire_after(AddressTtl).build();
        Arc::new(Self {
            look_up: Box::new(look_up),
            threads: Quota::new(OutboundQuota::Lookups, LOOKUP_THREADS, Arc::clone(metrics)),
            named: cache(),
            unnamed: cache(),
            flights: Mutex::default(),
        })
    }

    async fn resolve(self: &Arc<Self>, name: &str, tenant: &Tenant) -> Result<ResolvedAddresses, LookupsExhausted> {
        let known = if tenant.named { &self.named } else { &self.unnamed };
        if let Some(answer) = known.get(name) {
            return Ok(answer);
        }
        let deadline = Instant::now() + LOOKUP_TIMEOUT;
        let key = (name.into(), tenant.named);
        let under_way = self.flights().get(&key).cloned();
        let flight = if let Some(flight) = under_way {
            flight
        } else {
            let thread = self.threads.acquire_until(1, tenant, deadline).await.map_err(LookupsExhausted)?;
            // Another look-up that waited for a thread may have finished first.
            if let Some(answer) = known.get(name) {
                return Ok(answer);
            }
            self.start(key, thread)
        };
        Ok(timeout_at(deadline, flight).await.ok().and_then(Result::ok).flatten())
    }

    /// Looks a name up on a thread of its own, unless a look-up is in flight.
    fn start(self: &Arc<Self>, key: LookupKey, thread: QuotaPermit) -> Shared<oneshot::Receiver<ResolvedAddresses>> {
        let (found, flight) = oneshot::channel();
        let flight = flight.shared();
        {
            let mut flights = self.flights();
            if let Some(flight) = flights.get(&key) {
                return flight.clone();
            }
            flights.insert(key.clone(), flight.clone());
        }
        let landing = LookupGuard { names: Arc::clone(self), key, _thread: thread };
        // If no thread can be started, the guard is dropped, and the waiters get no answer.
        let _ = std::thread::Builder::new().name("lookup".to_owned()).spawn(move || {
            let LookupGuard { names, key: (name, named), _thread } = &landing;
            let answer: ResolvedAddresses = (names.look_up)(name).ok().map(Into::into);
            let known = if *named { &names.named } else { &names.unnamed };
            known.insert(name.clone(), answer.clone());
            // Dropped before the answer is sent: the next caller then finds the name in the cache, and the thread is
            // free.
            drop(landing);
            let _ = found.send(answer);
        });
        flight
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<LookupKey, Shared<oneshot::Receiver<ResolvedAddresses>>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves the names that clients dial. On guard, it returns public addresses only.
pub(super) struct Resolver {
    on_guard: bool,
    names: Arc<NameCache>,
}

impl Resolver {
    pub(super) fn new(on_guard: bool, names: &Arc<NameCache>) -> Self {
        Self { on_guard, names: Arc::clone(names) }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (on_guard, names) = (self.on_guard, Arc::clone(&self.names));
        let unknown = |_| Tenant { registry: name.as_str().into(), named: false };
        let tenant = TENANT.try_with(Clone::clone).unwrap_or_else(unknown);
        Box::pin(async move {
            let answer = names.resolve(name.as_str(), &tenant).await?.ok_or(LookupFailed)?;
            let may_be_dialled = |address: &IpAddr| !on_guard || is_public(*address);
            let addresses: Vec<SocketAddr> = answer
                .iter()
                .copied()
                .filter(may_be_dialled)
                .take(MAX_TRIED)
                .map(|address| SocketAddr::new(address, 0))
                .collect();
            if addresses.is_empty() {
                return Err(if on_guard { NotPublic.into() } else { LookupFailed.into() });
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::{super::failure::Failure, *};

    /// A system whose resolver never answers for names that begin with `hung`, until the sender is dropped.
    struct System {
        names: Arc<NameCache>,
        lookups: Arc<AtomicUsize>,
        hung: mpsc::Sender<()>,
    }

    fn system() -> System {
        let (hung, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let lookups = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&lookups);
        let names = NameCache::new(&Arc::default(), move |name| {
            count.fetch_add(1, Ordering::SeqCst);
            match name {
                _ if name.starts_with("hung") => {
                    let _ = wait.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    Ok(vec![IpAddr::from([192, 88, 100, 1])])
                }
                "missing.example.com" => Err(io::ErrorKind::NotFound.into()),
                "inside.example.com" => Ok(vec![[10, 0, 0, 1].into(), [127, 0, 0, 1].into()]),
                "both.example.com" => Ok(vec![[10, 0, 0, 1].into(), [192, 88, 100, 1].into()]),
                _ => Ok(vec![[192, 88, 100, 1].into()]),
            }
        });
        System { names, lookups, hung }
    }

    fn tenant(registry: &str, named: bool) -> Tenant {
        Tenant { registry: registry.into(), named }
    }

    /// Starts a look-up, and leaves it.
    fn leave(names: &Arc<NameCache>, name: &str, tenant: &Tenant) {
        let _ = names.resolve(name, tenant).now_or_never();
    }

    async fn dialled(names: &Arc<NameCache>, on_guard: bool, name: &str) -> Result<Vec<String>, String> {
        let addresses = Resolver::new(on_guard, names).resolve(name.parse().expect("a name")).await;
        addresses.map(|all| all.map(|one| one.ip().to_string()).collect()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn names_that_never_resolve_keep_no_named_registry_from_its_token_realm() {
        let System { names, lookups, hung } = system();
        for number in 0..1000 {
            let registry = format!("hung{number}.example.org");
            leave(&names, &registry, &tenant(&registry, false));
        }
        // One that was broken into leads to hosts, one after the other.
        for number in 0..1000 {
            leave(&names, &format!("hung{number}.example.net"), &tenant("bad.example.com", true));
        }
        assert!(names.resolve("auth.example.net", &tenant("r.example.com", true)).await.unwrap().is_some());
        assert!(lookups.load(Ordering::SeqCst) <= LOOKUP_THREADS.unnamed + LOOKUP_THREADS.each + 1);
        drop(hung);
    }

    #[tokio::test]
    async fn one_registry_takes_a_few_threads_and_the_others_have_theirs() {
        let System { names, hung, .. } = system();
        for number in 0..1000 {
            leave(&names, &format!("hung{number}.example.net"), &tenant("bad.example.org", false));
        }
        assert!(names.resolve("r.example.org", &tenant("r.example.org", false)).await.unwrap().is_some());
        drop(hung);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_thread_in_vain_is_told_so() {
        let System { names, hung, .. } = system();
        let bad = tenant("bad.example.org", false);
        for number in 0..LOOKUP_THREADS.each_unnamed {
            leave(&names, &format!("hung{number}.example.net"), &bad);
        }
        let error = names.resolve("more.example.net", &bad).await.unwrap_err();
        assert_eq!(error.0, Exhausted::OfRegistry);
        // A name that is being looked up needs no other thread.
        assert!(names.resolve("hung0.example.net", &bad).await.unwrap().is_none());
        drop(hung);
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_for_all_and_what_came_of_it_is_remembered() {
        let System { names, lookups, hung } = system();
        let registry = tenant("r.example.com", true);
        let flight = || names.resolve("hung.example.com", &registry);
        let mut waiting: Vec<_> = (0..50).map(|_| Box::pin(flight())).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        drop(hung);
        for one in waiting {
            assert!(one.await.unwrap().is_some());
        }
        assert!(flight().await.unwrap().is_some());
        assert_eq!(lookups.load(Ordering::SeqCst), 1);
        for _ in 0..2 {
            assert!(names.resolve("missing.example.com", &registry).await.unwrap().is_none());
        }
        assert_eq!(lookups.load(Ordering::SeqCst), 2, "failures are remembered, too");
    }

    #[tokio::test]
    async fn an_answer_that_comes_too_late_serves_those_who_ask_next() {
        let System { names, lookups, hung } = system();
        let registry = tenant("r.example.com", true);
        leave(&names, "hung.example.com", &registry);
        let flight = names.flights().values().next().cloned().expect("it goes on");
        drop(hung);
        assert!(flight.await.unwrap().is_some());
        assert!(names.resolve("hung.example.com", &registry).now_or_never().unwrap().unwrap().is_some());
        assert_eq!(lookups.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn what_is_known_of_registries_that_nobody_names_pushes_out_nothing_of_the_others() {
        let System { names, lookups, .. } = system();
        let registry = tenant("r.example.com", true);
        assert!(names.resolve("r.example.com", &registry).await.unwrap().is_some());
        for number in 0..2 * MAX_NAMES {
            names.unnamed.insert(format!("{number}.example.org").into(), None);
        }
        names.unnamed.run_pending_tasks();
        assert!(names.unnamed.entry_count() <= MAX_NAMES);
        assert!(names.resolve("r.example.com", &registry).await.unwrap().is_some());
        assert_eq!(lookups.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn on_guard_only_public_addresses_are_given_out_remembered_or_not() {
        let System { names, .. } = system();
        for _ in 0..2 {
            assert_eq!(dialled(&names, false, "inside.example.com").await.unwrap(), ["10.0.0.1", "127.0.0.1"]);
            assert_eq!(dialled(&names, true, "inside.example.com").await.unwrap_err(), NotPublic.to_string());
            assert_eq!(dialled(&names, true, "both.example.com").await.unwrap(), ["192.88.100.1"]);
            assert_eq!(dialled(&names, true, "missing.example.com").await.unwrap_err(), LookupFailed.to_string());
        }
    }

    #[tokio::test]
    async fn on_guard_a_name_of_this_machine_is_not_given_out() {
        let names = NameCache::of_system(&Arc::default());
        assert!(dialled(&names, false, "localhost").await.is_ok());
        assert_eq!(dialled(&names, true, "localhost").await.unwrap_err(), NotPublic.to_string());
    }

    #[tokio::test]
    async fn a_client_s_look_ups_count_for_the_registry_that_its_request_is_for() {
        let System { names, hung, .. } = system();
        for number in 0..1000 {
            let registry = format!("hung{number}.example.org");
            leave(&names, &registry, &tenant(&registry, false));
        }
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(crate::registry::http_clients::tls_for_tests())
            .no_proxy()
            .dns_resolver(Arc::new(Resolver::new(true, &names)))
            .build()
            .unwrap();
        let failure = async |named| {
            let request = client.get("http://inside.example.com/").send();
            Failure::of(&on_behalf_of(tenant("r.example.com", named), request).await.unwrap_err())
        };
        // It is looked up, and leads inside; or it waits with the others.
        let named = failure(true).await;
        assert!(matches!(named, Failure::NotPublic), "{named:?}");
        let unnamed = failure(false).await;
        assert!(matches!(unnamed, Failure::Exhausted(OutboundQuota::Lookups, Exhausted::OfUnnamed)), "{unnamed:?}");
        drop(hung);
    }
}
