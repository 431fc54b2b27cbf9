//! The members of an etcd cluster, and the choice of one that works.
//!
//! Each member has a connection of its own, instead of one balanced over all: a member that is paused, or cut off from
//! the others, is then passed over after one failed request, and not with every third one.

use std::{
    error::Error,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions, Txn, TxnResponse};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{
    sync::Mutex,
    task::spawn_blocking,
    time::{Instant, sleep, timeout_at},
};

use super::history::ChangeId;
use crate::{
    configuration::{ClientCertificate, Etcd, EtcdUser},
    files::read_bounded,
    gateway::store::StoreError,
    tls,
};

/// The time limit of one member for an answer, before the next member is asked.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1500);
/// The maximum back-off after no member answered.
const MAX_BACKOFF: Duration = Duration::from_millis(200);
/// The `Retry-After` of a store that is not available.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// The interval of keep-alive probes on connections in use, and their time limit. etcd treats less than 5 s as an
/// attack.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3));
/// The maximum size of a PEM or password file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The maximum number of characters of etcd's messages that are repeated.
const MAX_CAUSE_CHARACTERS: usize = 300;

/// The reason why a member has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another member may answer, or this one later. It is unknown whether a transaction was committed.
    Unanswered {
        /// The cause.
        cause: Box<str>,
        /// The connection is good.
        connected: bool,
    },
    /// etcd refuses, and would refuse a retry.
    Refused(Box<str>),
}

impl Failure {
    pub(super) fn late() -> Self {
        Self::Unanswered { cause: "no answer in time".into(), connected: false }
    }

    pub(super) fn ended(cause: &str) -> Self {
        Self::Unanswered { cause: cause.into(), connected: true }
    }

    pub(super) fn cause(&self) -> &str {
        let (Self::Unanswered { cause, .. } | Self::Refused(cause)) = self;
        cause
    }
}

impl From<etcd_client::Error> for Failure {
    fn from(error: etcd_client::Error) -> Self {
        let etcd_client::Error::GRpcStatus(status) = &error else {
            return Self::Unanswered { cause: bounded(&error.to_string()), connected: false };
        };
        let mut cause = status.message().to_owned();
        let mut source = status.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !cause.ends_with(&text) {
                cause = format!("{cause}: {text}");
            }
            source = error.source();
        }
        let cause = bounded(&cause);
        // Codes of gRPC. RESOURCE_EXHAUSTED means both a full quota, which stays full, and too many requests.
        match i32::from(status.code()) {
            // INVALID_ARGUMENT (a wrong password, too), NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION, OUT_OF_RANGE (an
            // answer that is too long), UNIMPLEMENTED, DATA_LOSS, UNAUTHENTICATED.
            3 | 5 | 7 | 9 | 11 | 12 | 15 | 16 => Self::Refused(cause),
            8 if cause.contains("space") => Self::Refused(cause),
            _ => Self::Unanswered { connected: cause.starts_with("etcdserver:"), cause },
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { cause, .. } => Self::Unanswered { cause, connected: true },
            error => Self::Refused(error.to_string().into()),
        }
    }
}

fn bounded(text: &str) -> Box<str> {
    text.chars().take(MAX_CAUSE_CHARACTERS).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().into()
}

pub(super) struct Members {
    all: Vec<Member>,
    /// The member to ask first: the last one that answered.
    preferred: AtomicUsize,
    settings: Etcd,
    name: Box<str>,
    largest_answer: usize,
}

struct Member {
    endpoint: String,
    /// The client; `None` if a new connection, with newly read files, is needed.
    client: Mutex<Option<Client>>,
    failing: AtomicBool,
}

impl Members {
    pub(super) fn new(settings: &Etcd, largest_answer: usize) -> Self {
        let all: Vec<Member> = settings
            .endpoints
            .iter()
            .map(|endpoint| Member {
                endpoint: endpoint.as_str().trim_end_matches('/').to_owned(),
                client: Mutex::default(),
                failing: AtomicBool::new(false),
            })
            .collect();
        // Gateways begin with different members.
        let first = ChangeId::new().below(all.len());
        Self {
            all,
            preferred: AtomicUsize::new(first),
            settings: settings.clone(),
            name: format!("etcd {}", settings.prefix).into(),
            largest_answer,
        }
    }

    /// Returns the name of the store for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn unavailable(&self, cause: &str) -> StoreError {
        StoreError::Unavailable { store: self.name.clone(), cause: cause.into(), retry_after: RETRY_AFTER }
    }

    /// Returns the member to ask first.
    pub(super) fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    /// Runs a transaction on the first member that answers before the deadline. A member without an answer may have
    /// committed it, so that the next member's answer may be that its comparison fails.
    pub(super) async fn ask(&self, deadline: Instant, transaction: &Txn) -> Result<TxnResponse, StoreError> {
        let mut failures = 0;
        let mut refused = false;
        loop {
            let number = self.preferred();
            let attempt = deadline.min(Instant::now() + ATTEMPT_TIMEOUT);
            let answer = timeout_at(attempt, Box::pin(self.try_one(number, transaction.clone()))).await;
            let failure = match answer.unwrap_or_else(|_| Err(Failure::late())) {
                Ok(answer) => {
                    self.works(number);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            self.failed(number, &failure).await;
            if let Failure::Refused(cause) = failure {
                // A changed password is read with the next connection.
                if std::mem::replace(&mut refused, true) {
                    return Err(StoreError::Refused { store: self.name.clone(), cause });
                }
                continue;
            }
            failures += 1;
            if Instant::now() >= deadline {
                return Err(self.unavailable(failure.cause()));
            }
            if failures % self.all.len() == 0 {
                sleep(MAX_BACKOFF / 4 + ChangeId::new().of_up_to(MAX_BACKOFF * 3 / 4)).await;
            }
        }
    }

    async fn try_one(&self, number: usize, transaction: Txn) -> Result<TxnResponse, Failure> {
        let client = self.client(number).await?;
        let mut client = client.kv_client().max_decoding_message_size(self.largest_answer);
        Ok(client.txn(transaction).await?)
    }

    /// Returns a connection to a member.
    pub(super) async fn client(&self, number: usize) -> Result<Client, Failure> {
        let member = &self.all[number];
        let mut client = member.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let settings = self.settings.clone();
        let options = spawn_blocking(move || options(&settings)).await;
        let options = options.map_err(|_| Failure::ended("the program ends"))?;
        // The files may be about to be replaced.
        let options = options.map_err(|error| Failure::ended(&error.to_string()))?;
        Ok(client.insert(Client::connect([&member.endpoint], Some(options)).await?).clone())
    }

    /// Prefers another member from now on.
    pub(super) async fn failed(&self, number: usize, failure: &Failure) {
        let member = &self.all[number];
        if !matches!(failure, Failure::Unanswered { connected: true, .. }) {
            member.client.lock().await.take();
        }
        let next = (number + 1) % self.all.len();
        let _ = self.preferred.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
        if !member.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(member = member.endpoint, cause = failure.cause(), "etcd does not answer");
        }
    }

    fn works(&self, number: usize) {
        let member = &self.all[number];
        if member.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(member = member.endpoint, "etcd answers again");
        }
    }
}

/// Reads the files that the settings name.
pub(super) fn options(settings: &Etcd) -> Result<ConnectOptions, StoreError> {
    let Etcd { endpoints: _, prefix: _, ca_file, certificate, user } = settings;
    let mut options = ConnectOptions::new()
        .with_connect_timeout(ATTEMPT_TIMEOUT)
        .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
        .with_keep_alive_while_idle(false)
        .with_require_leader(true);
    if let Some(path) = ca_file {
        let field = "gateway.store.etcd.caFile";
        let pem = read(field, path)?;
        if !matches!(CertificateDer::pem_slice_iter(&pem).next(), Some(Ok(_))) {
            return Err(setting(field, &format!("{} must have PEM certificates", path.display())));
        }
        let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(pem));
        if let Some(ClientCertificate { chain, key }) = certificate {
            let field = "gateway.store.etcd.certificate";
            tls::check_pair(chain, key).map_err(|error| setting(field, &error.to_string()))?;
            tls = tls.identity(Identity::from_pem(read(field, chain)?, read(field, key)?));
        }
        options = options.with_tls(tls);
    }
    if let Some(EtcdUser { name, password_file }) = user {
        let field = "gateway.store.etcd.passwordFile";
        let password = String::from_utf8(read(field, password_file)?)
            .map_err(|_| setting(field, &format!("{} is not UTF-8", password_file.display())))?;
        let password = password.strip_suffix('\n').unwrap_or(&password);
        let password = password.strip_suffix('\r').unwrap_or(password);
        if password.is_empty() {
            return Err(setting(field, &format!("{} has no password", password_file.display())));
        }
        options = options.with_user(&**name, password).with_auto_token_refresh(true);
    }
    Ok(options)
}

fn read(field: &str, path: &Path) -> Result<Vec<u8>, StoreError> {
    read_bounded(path, MAX_FILE_BYTES).map_err(|error| setting(field, &format!("{}: {error}", path.display())))
}

fn setting(field: &str, what: &str) -> StoreError {
    StoreError::Setting { field: field.into(), what: what.into() }
}
