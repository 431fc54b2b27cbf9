//! Clients that write into gateways all the time, whatever happens to these; and a ledger of what they were told.

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{StreamExt, future::join_all, stream};
use reqwest::{Client, RequestBuilder};
use sealgate::image::Digest;
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::sleep};

use crate::support::{Gpg, Random};

/// The longest that anyone waits for a gateway that answers, or for an answer; far above what it takes.
const LONGEST: Duration = Duration::from_mins(2);
/// Clients that write side by side.
const WRITERS: usize = 6;
/// The most changes of one image that are acknowledged, and how many are refused before the second of them is.
const ACKNOWLEDGED_OF_AN_IMAGE: usize = 8;
const REFUSED_OF_AN_IMAGE: usize = 3;

/// What they write signatures of.
pub(crate) fn image() -> Digest {
    Digest::sha256(b"image")
}

/// Where clients find a gateway that comes and goes.
#[derive(Default)]
pub(crate) struct Place {
    url: Mutex<Option<String>>,
    in_flight: AtomicUsize,
}

impl Place {
    pub(crate) fn opens(&self, url: String) {
        *self.url.lock().unwrap() = Some(url);
    }

    pub(crate) fn closes(&self) {
        self.url.lock().unwrap().take();
    }

    fn url(&self) -> Option<String> {
        self.url.lock().unwrap().clone()
    }

    /// Whether somebody waits for its answer now.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) > 0
    }

    async fn ask(&self, request: RequestBuilder) -> reqwest::Result<(u16, Vec<u8>)> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let answered = async {
            let answer = request.send().await?;
            Ok((answer.status().as_u16(), answer.bytes().await?.to_vec()))
        };
        let answered = answered.await;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        answered
    }
}

/// An image that its writer has done with. Nobody else has written to it.
struct Image {
    repository: String,
    /// What has to be there, by name. Whatever else is there was refused or removed.
    signatures: BTreeMap<String, Expected>,
}

#[derive(Debug)]
struct Expected {
    content: String,
    /// The identity of its status.
    status: Option<String>,
}

/// How clients reach gateways, and as whom.
pub(crate) struct LedgerClient {
    pub(crate) client: Client,
    pub(crate) credentials: Option<(&'static str, &'static str)>,
    /// Between two changes of one client's.
    pub(crate) pause: Duration,
}

impl LedgerClient {
    /// Nobody in particular, by plain HTTP.
    pub(crate) fn anonymous() -> Self {
        let client = Client::builder().timeout(LONGEST).build().unwrap();
        Self { client, credentials: None, pause: Duration::ZERO }
    }
}

/// What clients were told, and what has to be there because of that.
pub(crate) struct Ledger {
    places: Vec<Arc<Place>>,
    sender: LedgerClient,
    digest: Digest,
    /// Signed messages for the digest, and one for another digest, in base64.
    messages: [String; 3],
    foreign: String,
    images: Mutex<Vec<Arc<Image>>>,
    stop: AtomicBool,
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
    unanswered: AtomicUsize,
}

/// What a change led to.
#[derive(Debug)]
struct Answer {
    status: u16,
    place: usize,
    /// Whether an earlier try was left without an answer: it may have been done.
    repeated: bool,
}

/// What it was all about, in numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    /// Changes that were answered 201 or 204.
    pub(crate) acknowledged: usize,
    /// Changes that were answered 400 or 409, as they should be.
    pub(crate) refused: usize,
    /// Requests without an answer, or with one that says to try again.
    pub(crate) unanswered: usize,
}

impl Sum {
    /// The fewest changes that were refused where so many were acknowledged, however they fell to the clients: each image
    /// begins with one that is acknowledged, and then come those that are refused.
    pub(crate) fn fewest_refused(acknowledged: usize) -> usize {
        acknowledged.saturating_sub(WRITERS) / ACKNOWLEDGED_OF_AN_IMAGE * REFUSED_OF_AN_IMAGE
    }
}

/// Clients that write until they are told to end.
pub(crate) struct Writers {
    pub(crate) ledger: Arc<Ledger>,
    running: Vec<JoinHandle<()>>,
}

impl Writers {
    pub(crate) fn start(places: &[Arc<Place>], sender: LedgerClient, random: &mut Random) -> Self {
        let gpg = Gpg::new();
        let key = gpg.generate("Release <release@example.com>");
        let digest = image();
        let message = |digest, tag| BASE64_STANDARD.encode(gpg.sign_image(&key, &digest, &format!("acme/web:{tag}")));
        let ledger = Arc::new(Ledger {
            places: places.to_vec(),
            sender,
            digest,
            messages: [1, 2, 3].map(|tag| message(digest, tag)),
            foreign: message(Digest::sha256(b"other"), 1),
            images: Mutex::default(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
        });
        let running = (0..WRITERS).map(|writer| {
            let (ledger, mut random) = (Arc::clone(&ledger), random.fork());
            tokio::spawn(async move {
                for number in 0.. {
                    if ledger.stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let image = ledger.live(format!("writer{writer}/image{number}"), number, &mut random).await;
                    ledger.images.lock().unwrap().push(Arc::new(image));
                }
            })
        });
        Self { running: running.collect(), ledger }
    }

    /// Waits until so many more changes are acknowledged.
    pub(crate) async fn write(&self, more: usize) {
        let begun = Instant::now();
        let goal = self.ledger.acknowledged.load(Ordering::SeqCst) + more;
        while self.ledger.acknowledged.load(Ordering::SeqCst) < goal {
            assert!(begun.elapsed() < LONGEST, "nothing is acknowledged any more");
            self.are_well();
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// None of them has seen what it should not: that ends it.
    pub(crate) fn are_well(&self) {
        assert!(!self.running.iter().any(JoinHandle::is_finished), "a client has seen what it should not, see above");
    }

    /// Has them end what they are at, and sees to it that all gateways have what the ledger says, to the byte, and nothing
    /// else.
    pub(crate) async fn end(mut self) -> Sum {
        self.ledger.stop.store(true, Ordering::SeqCst);
        for writer in join_all(mem::take(&mut self.running)).await {
            writer.unwrap();
        }
        for place in 0..self.ledger.places.len() {
            self.ledger.check(place, &mut 0).await;
        }
        let Ledger { acknowledged, refused, unanswered, .. } = &*self.ledger;
        let [acknowledged, refused, unanswered] =
            [acknowledged, refused, unanswered].map(|count| count.load(Ordering::SeqCst));
        Sum { acknowledged, refused, unanswered }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
    }
}

impl Ledger {
    /// All that can happen to an image's signatures.
    async fn live(&self, repository: String, number: usize, random: &mut Random) -> Image {
        let [one, two, three] = &self.messages;
        let [first, second, foreign, removed, again] = [1, 2, 3, 4, 5].map(|number| format!("{number:032}"));
        let status = format!("registry.example.com/{repository}:1");
        self.put(&repository, &first, one, 201, random).await;
        self.put(&repository, &first, two, 409, random).await;
        self.put(&repository, &second, one, 409, random).await;
        self.put(&repository, &foreign, &self.foreign, 400, random).await;
        self.put(&repository, &second, two, 201, random).await;
        self.set_status(&repository, &first, Some(&status), random).await;
        self.set_status(&repository, &second, Some(&status), random).await;
        self.set_status(&repository, &second, None, random).await;
        self.put(&repository, &removed, three, 201, random).await;
        // Somebody reads the list, so that it may be in a gateway's memory.
        self.list(random.below(self.places.len()), &repository).await;
        let place = self.remove(&repository, &removed, random).await;
        let mut signatures: BTreeMap<String, Expected> =
            [(first, one, Some(status)), (second, two, None)].map(Expected::entry).into();
        if let Some(seen) = self.list(place, &repository).await {
            assert_eq!(seen, contents(&signatures), "{repository}: whoever has removed one still has it");
        }
        // What is removed may be added again, under whatever name.
        let name = [Some(again), Some(removed), None][number % 3].take();
        if let Some(name) = name {
            self.put(&repository, &name, three, 201, random).await;
            signatures.extend([(name, three, None)].map(Expected::entry));
        }
        Image { repository, signatures }
    }

    async fn put(&self, repository: &str, name: &str, content: &str, expected: u16, random: &mut Random) {
        let digest = self.digest;
        let body = json!({"schemaVersion": 2, "name": format!("{digest}@{name}"), "content": content}).to_string();
        let rest = format!("extensions/v2/{repository}/signatures/{digest}");
        let answer = self.ask(random, |url| self.sender.client.put(format!("{url}/{rest}")).body(body.clone())).await;
        // What was left without an answer the first time may have been done.
        let there = answer.status == 409 && answer.repeated;
        assert!(
            answer.status == expected || expected == 201 && there,
            "{repository} {name}: {answer:?}, not {expected}"
        );
        self.count(expected == 201);
    }

    /// Gives the place that answered.
    async fn remove(&self, repository: &str, name: &str, random: &mut Random) -> usize {
        let rest = format!("{}/{name}", self.own(repository));
        let answer = self.ask(random, |url| self.sender.client.delete(format!("{url}/{rest}"))).await;
        let gone = answer.status == 404 && answer.repeated;
        assert!(answer.status == 204 || gone, "{repository} {name}: {answer:?}, not 204");
        self.count(true);
        answer.place
    }

    async fn set_status(&self, repository: &str, name: &str, identity: Option<&str>, random: &mut Random) {
        let rest = format!("{}/{name}/status", self.own(repository));
        let finding = json!({"key": "0123456789ABCDEF", "identity": identity, "digest": self.digest.to_string()});
        let answer = self
            .ask(random, |url| match identity {
                Some(_) => self.sender.client.put(format!("{url}/{rest}")).body(finding.to_string()),
                None => self.sender.client.delete(format!("{url}/{rest}")),
            })
            .await;
        assert_eq!(answer.status, 204, "{repository} {name}");
        self.count(true);
    }

    /// Waits until one more request is left without an answer, or is told to come again.
    pub(crate) async fn miss_an_answer(&self) {
        let (begun, before) = (Instant::now(), self.unanswered.load(Ordering::SeqCst));
        while self.unanswered.load(Ordering::SeqCst) == before {
            assert!(begun.elapsed() < LONGEST, "every request is answered");
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn own(&self, repository: &str) -> String {
        format!("sealgate/v1/{repository}/signatures/{}", self.digest)
    }

    fn count(&self, acknowledged: bool) {
        let count = if acknowledged { &self.acknowledged } else { &self.refused };
        count.fetch_add(1, Ordering::SeqCst);
    }

    /// Has one of the gateways do something, as often as it takes.
    async fn ask(&self, random: &mut Random, request: impl Fn(&str) -> RequestBuilder) -> Answer {
        let begun = Instant::now();
        let mut repeated = false;
        sleep(self.sender.pause).await;
        loop {
            assert!(begun.elapsed() < LONGEST, "no gateway has an answer");
            let place = random.below(self.places.len());
            if let Some((status, _)) = self.try_once(place, &mut repeated, &request).await {
                return Answer { status, place, repeated };
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asks one gateway once; nothing: there is no answer, or none that says whether it was done.
    async fn try_once(
        &self,
        place: usize,
        repeated: &mut bool,
        request: impl Fn(&str) -> RequestBuilder,
    ) -> Option<(u16, Vec<u8>)> {
        let place = &self.places[place];
        let url = place.url()?;
        let request = match self.sender.credentials {
            Some((user, password)) => request(&url).basic_auth(user, Some(password)),
            None => request(&url),
        };
        match place.ask(request).await {
            Ok((status @ (429 | 502 | 503 | 504), _)) => *repeated |= status != 429,
            Ok(answer) => return Some(answer),
            Err(error) => {
                assert!(!error.is_timeout(), "{url} leaves its clients waiting: {error}");
                *repeated = true;
            }
        }
        self.unanswered.fetch_add(1, Ordering::SeqCst);
        None
    }

    /// What a gateway says lies there, by name, if it says anything.
    async fn list(&self, place: usize, repository: &str) -> Option<BTreeMap<String, String>> {
        let rest = format!("extensions/v2/{repository}/signatures/{}", self.digest);
        let get = |url: &str| self.sender.client.get(format!("{url}/{rest}"));
        let (status, body) = self.try_once(place, &mut false, get).await?;
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, 200, "{text}");
        let list: Value = serde_json::from_str(&text).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let entry = |entry: &Value| (self.name(&text(&entry["name"])), text(&entry["content"]));
        Some(list["signatures"].as_array().unwrap().iter().map(entry).collect())
    }

    /// The identities of all statuses, by name.
    async fn statuses(&self, place: usize, repository: &str) -> Option<BTreeMap<String, Option<String>>> {
        let rest = self.own(repository);
        let get = |url: &str| self.sender.client.get(format!("{url}/{rest}"));
        let (status, body) = self.try_once(place, &mut false, get).await?;
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, 200, "{text}");
        let list: Value = serde_json::from_str(&text).unwrap();
        let entry = |entry: &Value| {
            let identity = entry["status"]["identity"].as_str().map(str::to_owned);
            (self.name(entry["name"].as_str().unwrap()), identity)
        };
        Some(list["signatures"].as_array().unwrap().iter().map(entry).collect())
    }

    fn name(&self, name: &str) -> String {
        name.strip_prefix(&format!("{}@", self.digest)).unwrap_or_else(|| panic!("{name}")).to_owned()
    }

    /// Sees to it that a gateway comes to have exactly what was acknowledged, of all images that came to the ledger since the
    /// last look. For how long it may be behind, `gateway::store::etcd::lists` tests.
    pub(super) async fn check(&self, place: usize, looked: &mut usize) {
        let images = self.images.lock().unwrap()[*looked..].to_vec();
        *looked += images.len();
        let checks = images.iter().map(|image| self.check_one(place, image));
        stream::iter(checks).buffer_unordered(WRITERS).collect::<()>().await;
    }

    async fn check_one(&self, place: usize, image: &Image) {
        let Image { repository, signatures } = image;
        let begun = Instant::now();
        let expected = (contents(signatures), statuses(signatures));
        let mut seen = None;
        loop {
            if let Some(list) = self.list(place, repository).await
                && let Some(statuses) = self.statuses(place, repository).await
            {
                if (&list, &statuses) == (&expected.0, &expected.1) {
                    return;
                }
                seen = Some((list, statuses));
            }
            let goes_on = begun.elapsed() < LONGEST;
            assert!(goes_on, "{repository} at {place}: {seen:?}; acknowledged: {signatures:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Expected {
    fn entry((name, content, status): (String, &String, Option<String>)) -> (String, Self) {
        (name, Self { content: content.clone(), status })
    }
}

fn contents(signatures: &BTreeMap<String, Expected>) -> BTreeMap<String, String> {
    signatures.iter().map(|(name, expected)| (name.clone(), expected.content.clone())).collect()
}

fn statuses(signatures: &BTreeMap<String, Expected>) -> BTreeMap<String, Option<String>> {
    signatures.iter().map(|(name, expected)| (name.clone(), expected.status.clone())).collect()
}
