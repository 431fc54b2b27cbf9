//! Reads and changes of the store, each a transaction of etcd.

use std::{
    collections::BTreeMap,
    hash::BuildHasher as _,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, ResponseHeader, Txn, TxnOp, TxnOpResponse};
use tokio::{
    sync::Mutex,
    task::spawn_blocking,
    time::{Instant, sleep, timeout_at},
};

use super::{
    error::{FORMAT, check_format, lossy, malformed},
    history::{ChangeId, History},
    keys::{Keys, Table, get_all_below, just_behind},
    members::Members,
    plan::{self, ImageState, Plan},
    watched_lists::WatchedLists,
};
use crate::configuration::Etcd;
use crate::gateway::store::{
    Change, Changed, ImageId, ImageLimits, Position, Record, SignatureList, StoreError, StoredSignature,
};

/// The time limit of a request. etcd replaces a leader that died within two or three seconds; the gate asks for
/// signatures with a deadline of 8 s.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(6);
/// The lifetime of a health check's result: any client may ask for it, and as often as it likes.
const HEALTH_TTL: Duration = Duration::from_secs(1);
/// The maximum number of times that a change decides anew because of concurrent changes of the image.
const MAX_CONFLICTS: u32 = 32;
/// The number of queues for the changes of this process. Changes of one image wait for each other in a queue, instead
/// of conflicting in etcd.
const QUEUES: usize = 64;
/// The maximum number of signatures in a page of a scan: 4 MiB for the largest ones.
const MAX_PAGE: usize = 64;
/// The maximum size of an answer of etcd beside an image's signatures, in bytes: their origins and statuses, or a page
/// of a scan.
const MAX_REST_BYTES: usize = 8 << 20;

/// The cluster, and this process's knowledge of it.
pub(super) struct Operations {
    pub(super) members: Members,
    pub(super) keys: Keys,
    pub(super) limits: ImageLimits,
    pub(super) lists: WatchedLists,
    queues: [Mutex<()>; QUEUES],
    hasher: std::hash::RandomState,
    /// This process has seen the store's format key, so that it can't be missing any more.
    seen: AtomicBool,
    /// The result of the last health check, and its time.
    health: Mutex<Option<(Instant, Result<(), StoreError>)>>,
    /// The store may be made if it does not exist.
    may_create: bool,
}

impl Operations {
    pub(super) fn new(settings: &Etcd, limits: ImageLimits, may_create: bool) -> Self {
        Self {
            members: Members::new(settings, limits.list_bytes.saturating_add(MAX_REST_BYTES)),
            keys: Keys::new(&settings.prefix),
            limits,
            lists: WatchedLists::new(),
            queues: std::array::from_fn(|_| Mutex::new(())),
            hasher: std::hash::RandomState::new(),
            seen: AtomicBool::new(false),
            health: Mutex::default(),
            may_create,
        }
    }

    pub(super) async fn list(&self, image: &ImageId) -> Result<SignatureList, StoreError> {
        let version = self.lists.version(image);
        let range = get_all_below(self.keys.image(Table::Signatures, image), GetOptions::new());
        let found = self.read(&[range], Instant::now() + REQUEST_TIMEOUT).await?;
        let signature = |pair: KeyValue| {
            let (_, _, name) = self.keys.parse(pair.key()).ok_or_else(|| malformed(&pair, "the key is malformed"))?;
            Ok(StoredSignature { name, content: pair.value().into() })
        };
        let signatures = found.into_iter().map(signature).collect::<Result<_, StoreError>>()?;
        let of = image.clone();
        // Encoding takes time, so it does not block this thread.
        let list = spawn_blocking(move || SignatureList::new(&of, signatures)).await;
        let list = list.map_err(|_| self.members.unavailable("the program ends"))?;
        self.lists.keep(image, version, list.clone());
        Ok(list)
    }

    pub(super) async fn inspect(&self, image: &ImageId) -> Result<Vec<(ImageId, Record)>, StoreError> {
        let below = |table| get_all_below(self.keys.image(table, image), GetOptions::new());
        let found = self.read(&Table::ALL.map(below), Instant::now() + REQUEST_TIMEOUT).await?;
        self.records(found)
    }

    pub(super) async fn scan(
        &self,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Vec<(ImageId, Record)>, StoreError> {
        let [all, end] = self.keys.all(Table::Signatures);
        let mut from = after.map_or(all, |position| just_behind(&self.keys.position(Table::Signatures, position)));
        let mut records = Vec::new();
        while records.len() < limit {
            let deadline = Instant::now() + REQUEST_TIMEOUT;
            let page = i64::try_from(MAX_PAGE.min(limit - records.len())).unwrap_or(i64::MAX);
            let options = GetOptions::new().with_range(end.clone()).with_limit(page).with_keys_only();
            let keys = self.read(&[TxnOp::get(from.clone(), Some(options))], deadline).await?;
            let Some(last) = keys.last() else { break };
            // All parts of one signature's record have to be of one revision.
            let until = just_behind(last.key());
            let ranges = Table::ALL.map(|table| {
                let [from, until] = [&from, &until].map(|key| self.keys.same(table, key));
                TxnOp::get(from, Some(GetOptions::new().with_range(until)))
            });
            records.extend(self.records(self.read(&ranges, deadline).await?)?);
            from = until;
        }
        // Some may have been added meanwhile.
        records.truncate(limit);
        Ok(records)
    }

    /// Assembles the records from the three tables.
    fn records(&self, found: Vec<KeyValue>) -> Result<Vec<(ImageId, Record)>, StoreError> {
        // In the order of etcd's keys, which is that of a scan.
        let mut records: BTreeMap<Vec<u8>, (ImageId, Record)> = BTreeMap::new();
        // Table by table, signatures first.
        for pair in found {
            let malformed = || malformed(&pair, "it is malformed");
            let (table, image, name) = self.keys.parse(pair.key()).ok_or_else(malformed)?;
            let key = self.keys.same(Table::Signatures, pair.key());
            if table == Table::Signatures {
                let signature = StoredSignature { name, content: pair.value().into() };
                records.insert(key, (image, Record { signature, origin: None, status: None }));
                continue;
            }
            // An origin or status without its signature is harmless, and ignored.
            let Some((_, record)) = records.get_mut(&key) else { continue };
            if table == Table::Origins {
                record.origin = Some(serde_json::from_slice(pair.value()).map_err(|_| malformed())?);
            } else {
                record.status = Some(serde_json::from_slice(pair.value()).map_err(|_| malformed())?);
            }
        }
        Ok(records.into_values().collect())
    }

    pub(super) async fn change(&self, change: &Change) -> Result<Changed, StoreError> {
        let (deadline, image) = (Instant::now() + REQUEST_TIMEOUT, change.image());
        let queue = usize::try_from(self.hasher.hash_one(image) % QUEUES as u64).unwrap_or(0);
        let permit = timeout_at(deadline, self.queues[queue].lock()).await;
        let _permit = permit.map_err(|_| self.members.unavailable("earlier changes have no answer"))?;
        let (id, mut sent) = (ChangeId::new(), None);
        for conflict in 0..MAX_CONFLICTS {
            let found = self.find(change, deadline).await?;
            // The answer can get lost, so that only the history tells whether the change was made.
            if let Some((outcome, newest)) = sent {
                if found.history.has(id) {
                    return Ok(outcome);
                }
                if !found.history.has_all_since(newest) {
                    return Err(self.members.unavailable("whether the change was made is not known"));
                }
            }
            let Plan { outcome, mut operations } = plan::plan(&self.keys, change, &found, &self.limits);
            if operations.is_empty() {
                return Ok(outcome);
            }
            sent = Some((outcome, found.history.newest()));
            let history = self.keys.history(image);
            operations.push(TxnOp::put(history.clone(), found.history.with(id).encoded(), None));
            let unchanged = Compare::mod_revision(history, CompareOp::Equal, found.revision);
            let transaction = Txn::new().when([unchanged]).and_then(operations);
            let committed = self.members.ask(deadline, &transaction).await;
            // Also if it is unknown whether the change was made.
            self.lists.forget(image);
            if committed?.succeeded() {
                return Ok(outcome);
            }
            // Another gateway may be faster again, but not for ever.
            sleep(ChangeId::new().of_up_to(Duration::from_millis(4 << conflict.min(6)))).await;
        }
        tracing::warn!(repository = image.repository.as_str(), digest = %image.digest, "there are too many concurrent changes of this image");
        Err(self.members.unavailable("others change this image all the time"))
    }

    /// Reads the state of its image that a change needs.
    pub(super) async fn find(&self, change: &Change, deadline: Instant) -> Result<ImageState, StoreError> {
        let mut found = ImageState::default();
        for pair in self.read(&plan::needs(&self.keys, change), deadline).await? {
            if pair.key() == self.keys.history(change.image()) {
                let history = History::parse(pair.value());
                found.history = history.ok_or_else(|| malformed(&pair, "the history is malformed"))?;
                found.revision = pair.mod_revision();
                continue;
            }
            let parsed = self.keys.parse(pair.key());
            let (table, _, name) = parsed.ok_or_else(|| malformed(&pair, "the key is malformed"))?;
            found.add(table, name, pair);
        }
        Ok(found)
    }

    /// Reads ranges of one revision, after everything that was committed before. It is an error if they are not part of
    /// a store.
    pub(super) async fn read(&self, ranges: &[TxnOp], deadline: Instant) -> Result<Vec<KeyValue>, StoreError> {
        let format = self.keys.format();
        loop {
            let operations: Vec<TxnOp> =
                std::iter::once(TxnOp::get(format.clone(), None)).chain(ranges.iter().cloned()).collect();
            let mut found = self.get(operations, deadline).await?.into_iter().peekable();
            if let Some(pair) = found.next_if(|pair| pair.key() == format) {
                check_format(&pair)?;
                self.seen.store(true, Ordering::Relaxed);
                return Ok(found.collect());
            }
            if self.seen.load(Ordering::Relaxed) {
                let what = "it was there and is gone, and with it maybe signatures";
                return Err(StoreError::Malformed { key: lossy(&format), what: what.into() });
            }
            if !self.may_create {
                return Err(StoreError::Malformed { key: lossy(&format), what: "there is no store here".into() });
            }
            self.create(deadline).await?;
        }
    }

    pub(super) async fn get(&self, operations: Vec<TxnOp>, deadline: Instant) -> Result<Vec<KeyValue>, StoreError> {
        let transaction = Txn::new().and_then(operations);
        let answer = self.members.ask(deadline, &transaction).await?;
        let pairs = |response| match response {
            TxnOpResponse::Get(mut found) => found.take_kvs(),
            _ => Vec::new(),
        };
        Ok(answer.op_responses().into_iter().flat_map(pairs).collect())
    }

    /// Makes a store if the prefix is empty. Of several gateways at once, one makes it.
    pub(super) async fn create(&self, deadline: Instant) -> Result<(), StoreError> {
        let format = self.keys.format();
        let any = get_all_below(self.keys.everything(), GetOptions::new().with_limit(1).with_keys_only());
        let found = self.get(vec![TxnOp::get(format.clone(), None), any], deadline).await?;
        if let Some(pair) = found.first() {
            // Another gateway made it just now; otherwise the prefix holds something else, or the rest of a store.
            return if pair.key() == format {
                Ok(())
            } else {
                Err(StoreError::Malformed {
                    key: lossy(&format),
                    what: format!("it is missing, and {} is there", lossy(pair.key())).into(),
                })
            };
        }
        let missing = Compare::create_revision(format.clone(), CompareOp::Equal, 0);
        let made = Txn::new().when([missing]).and_then([TxnOp::put(format, FORMAT.to_string(), None)]);
        if self.members.ask(deadline, &made).await?.succeeded() {
            tracing::warn!(store = self.members.name(), "there was no store; making a new one without signatures");
        }
        Ok(())
    }

    pub(super) async fn health(&self) -> Result<(), StoreError> {
        // Locked while etcd is asked: of several callers at once, one asks.
        let mut known = self.health.lock().await;
        if let Some((found_out, health)) = &*known
            && found_out.elapsed() < HEALTH_TTL
        {
            return health.clone();
        }
        let health = self.can_read_and_write(Instant::now() + REQUEST_TIMEOUT).await;
        *known = Some((Instant::now(), health.clone()));
        health
    }

    /// Checks that there is a store, and that etcd would accept a change of it now: reads show neither a full quota nor
    /// a missing permission.
    pub(super) async fn can_read_and_write(&self, deadline: Instant) -> Result<(), StoreError> {
        self.read(&[], deadline).await?;
        let format = self.keys.format();
        // No key has a version below 0: nothing is ever written, and there is no new revision. But etcd checks the
        // quota and permission of the write, and a majority has to agree.
        let never = Compare::version(format.clone(), CompareOp::Less, 0);
        let change = Txn::new().when([never]).and_then([TxnOp::put(format, FORMAT.to_string(), None)]);
        self.members.ask(deadline, &change).await.map(drop)
    }

    /// Returns a revision that etcd has now, or a later one than everything that was committed before.
    pub(super) async fn revision(&self, deadline: Instant) -> Result<i64, StoreError> {
        let transaction = Txn::new().and_then([TxnOp::get(self.keys.format(), None)]);
        let answer = self.members.ask(deadline, &transaction).await?;
        Ok(answer.header().map_or(i64::MAX, ResponseHeader::revision))
    }
}
