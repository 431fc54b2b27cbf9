//! Packets between gateways and members of etcd, and among these, get lost.

use std::{process::Command, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::{join, join_all, join3};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    hosts::{Cut, Host, outside},
    members::{Members, Site, certificates},
    wait_for,
};
use crate::{
    gateway::{
        fake::Fake,
        kills::registry,
        ledger::{LedgerClient, Place, Sum, Writers, image},
        program::address,
    },
    support::{Gpg, Process, Random, Scratch, run},
};

/// Between two changes of one client's, so that it does not sign faster than it may.
const PAUSE: Duration = Duration::from_millis(100);

/// Two gateways and three members of etcd, on a host each; and the registry, on the router.
struct Scenario {
    members: Members,
    /// The members' first.
    hosts: Vec<Host>,
    urls: Vec<String>,
    client: Client,
    _gateways: Vec<Process>,
    _folder: Scratch,
    _registry: Fake,
}

impl Scenario {
    async fn start() -> Self {
        let hosts: Vec<Host> = (1..=5).map(Host::new).collect();
        let folder = Scratch::new();
        let addresses: Vec<String> = hosts.iter().map(Host::address).collect();
        let [ca, server, server_key, _, _] = certificates(&folder, &addresses);
        let path = |path: &std::path::Path| path.display().to_string();
        let arguments = ["--cert-file".to_owned(), path(&server), "--key-file".to_owned(), path(&server_key)].to_vec();
        let site = |number: usize| Site {
            address: addresses[number].clone(),
            ports: [2379, 2380],
            launch: hosts[number].launch(),
        };
        let members = Members::start_at([0, 1, 2].map(site), arguments, Some(ca)).await.expect("nobody else is there");
        let registry = registry("0.0.0.0:0");
        let users = path(&folder.path().join("htpasswd"));
        run("htpasswd", ["-c", "-b", "-B", "-C", "4", users.as_str(), "robot", "robot"]);
        folder.write(
            "roles.yaml",
            "apiVersion: sealgate.dev/v1\nkind: StoreRoles\nroles:\n- {role: 'system:image-signer', users: [robot]}\n\
             - {role: image-auditor, users: [robot]}\n",
        );
        let endpoints = [0, 1, 2].map(|number| members.endpoint(number)).join(", ");
        let (gateways, urls) = hosts[3..]
            .iter()
            .map(|host| {
                let (_, port) = registry.address().rsplit_once(':').unwrap();
                let text = format!(
                    "apiVersion: sealgate.dev/v1\nkind: Configuration\ngateway:\n  listen: {}:443\n  certificate: \
                     {{file: server.crt, key: server.key}}\n  registry: {{url: 'http://{}:{port}', insecure: true}}\n  access: \
                     {{htpasswd: {{file: htpasswd, roles: roles.yaml}}}}\n  store: {{etcd: {{endpoints: [{endpoints}], \
                     caFile: ca.crt}}}}\n",
                    host.address(),
                    host.router()
                );
                let file = folder.write(&format!("{}.yaml", host.address()), text);
                let mut command: Command = host.command(env!("CARGO_BIN_EXE_sealgate"));
                let mut gateway = Process::start(command.args(["gateway", "--config"]).arg(file));
                address(&mut gateway);
                (gateway, format!("https://{}", host.address()))
            })
            .unzip();
        Self { members, hosts, urls, client: client(), _gateways: gateways, _folder: folder, _registry: registry }
    }

    fn places(&self) -> Vec<Arc<Place>> {
        let place = |url: &String| {
            let place = Arc::new(Place::default());
            place.opens(url.clone());
            place
        };
        self.urls.iter().map(place).collect()
    }

    /// Cuts a gateway off from all members.
    fn cut_off(&self, gateway: usize) -> Cut {
        Cut::off(&self.hosts[3 + gateway], &self.hosts[..3])
    }

    fn url(&self, gateway: usize, repository: &str) -> String {
        format!("{}/extensions/v2/{repository}/signatures/{}", self.urls[gateway], image())
    }

    async fn put(&self, gateway: usize, repository: &str, name: usize, content: &str) -> Response {
        let name = format!("{}@{name:032}", image());
        let body = json!({"version": 2, "name": name, "content": content}).to_string();
        let put = self.client.put(self.url(gateway, repository)).basic_auth("robot", Some("robot"));
        put.body(body).send().await.unwrap()
    }

    /// The contents of an image's signatures; nothing: the store is not available.
    async fn list(&self, gateway: usize, repository: &str) -> Option<Vec<String>> {
        let answer = self.client.get(self.url(gateway, repository)).send().await.unwrap();
        if is_not_available(&answer) {
            return None;
        }
        assert_eq!(answer.status(), 200);
        let list: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let content = |entry: &Value| entry["content"].as_str().unwrap().to_owned();
        Some(list["signatures"].as_array().unwrap().iter().map(content).collect())
    }

    async fn healthy(&self) {
        for number in 0..3 {
            self.members.healthy(number).await;
        }
    }
}

/// Whether clients are told to try again.
fn is_not_available(answer: &Response) -> bool {
    let is = answer.status() == 503;
    assert!(!is || answer.headers().contains_key("retry-after"), "{answer:?}");
    is
}

/// Signed messages for the image, in base64.
fn messages() -> [String; 3] {
    let gpg = Gpg::new();
    let key = gpg.generate("Release <release@example.com>");
    let digest = image();
    [1, 2, 3].map(|tag| BASE64_STANDARD.encode(gpg.sign_image(&key, &digest, &format!("acme/web:{tag}"))))
}

fn client() -> Client {
    Client::builder().danger_accept_invalid_certs(true).timeout(Duration::from_mins(2)).build().unwrap()
}

fn ledger_client() -> LedgerClient {
    LedgerClient { client: client(), credentials: Some(("robot", "robot")), pause: PAUSE }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_cut_off_is_passed_over_and_no_acknowledged_write_is_lost() {
    if outside("a_member_that_is_cut_off_is_passed_over_and_no_acknowledged_write_is_lost") {
        return;
    }
    let (scenario, mut random) = (Scenario::start().await, Random::seeded());
    let writers = Writers::start(&scenario.places(), ledger_client(), &mut random);
    writers.write(50).await;
    for round in 0..5 {
        let leader = scenario.members.leader().await;
        let follower = (leader + 1 + random.below(2)) % 3;
        let (what, cut) = match round {
            0 => ("the leader from everyone", Cut::off(&scenario.hosts[leader], &scenario.hosts)),
            1 => ("another member from everyone", Cut::off(&scenario.hosts[follower], &scenario.hosts)),
            2 => ("the leader from the other members", Cut::off(&scenario.hosts[leader], &scenario.hosts[..3])),
            3 => ("the leader from the gateways", Cut::off(&scenario.hosts[leader], &scenario.hosts[3..])),
            _ => ("a gateway from all members", scenario.cut_off(random.below(2))),
        };
        eprintln!("cut off: {what}");
        match round {
            // The others go on by themselves.
            0 | 2 => {
                wait_for("another leader", async || (scenario.members.leader().await != leader).then_some(())).await;
            }
            4 => writers.ledger.miss_an_answer().await,
            _ => {}
        }
        // More than were on their way.
        writers.write(20).await;
        drop(cut);
        scenario.healthy().await;
    }
    let sum = writers.end().await;
    eprintln!("5 cuts: {sum:?}");
    assert!(sum.refused >= Sum::fewest_refused(sum.acknowledged) && sum.unanswered > 0, "{sum:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_cut_off_says_so_and_does_not_show_what_was_removed() {
    if outside("a_gateway_that_is_cut_off_says_so_and_does_not_show_what_was_removed") {
        return;
    }
    let (scenario, [one, two, three]) = (Scenario::start().await, messages());
    for (name, content) in [&one, &two].into_iter().enumerate() {
        assert_eq!(scenario.put(0, "acme/web", name, content).await.status(), 201);
    }
    // It lies in the other one's memory from now on.
    let both = Some(vec![one.clone(), two.clone()]);
    assert_eq!(scenario.list(1, "acme/web").await, both);
    let cut = scenario.cut_off(1);
    let path = format!("sealgate/v1/acme/web/signatures/{}/{:032}", image(), 0);
    let remove = scenario.client.delete(format!("{}/{path}", scenario.urls[0])).basic_auth("robot", Some("robot"));
    assert_eq!(remove.send().await.unwrap().status(), 204);
    // For a moment it may be behind; then it has nothing to say.
    wait_for("that it does not show what was removed", async || {
        let list = scenario.list(1, "acme/web").await;
        assert!(list.is_none() || list == both, "{list:?}");
        list.is_none().then_some(())
    })
    .await;
    let health = scenario.client.get(format!("{}/healthz", scenario.urls[1])).send();
    let (list, put, health) = join3(scenario.list(1, "acme/web"), scenario.put(1, "acme/web", 2, &three), health).await;
    assert!(list.is_none() && is_not_available(&put));
    assert_eq!(health.unwrap().status(), 503);
    // The other one serves all along.
    assert_eq!(scenario.list(0, "acme/web").await, Some(vec![two.clone()]));
    drop(cut);
    let list = wait_for("the list", async || scenario.list(1, "acme/web").await).await;
    assert!(list == [two.clone()] || list == [two.clone(), three.clone()], "what was removed is back");
    let put = wait_for("the store", async || {
        let answer = scenario.put(1, "acme/web", 2, &three).await;
        (!is_not_available(&answer)).then_some(answer.status().as_u16())
    });
    assert!([201, 409].contains(&put.await), "the first one may have been made after all");
    assert_eq!(scenario.list(1, "acme/web").await, Some(vec![two, three]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_puts_of_one_name_while_packets_get_lost_one_at_the_most_is_acknowledged() {
    if outside("of_two_puts_of_one_name_while_packets_get_lost_one_at_the_most_is_acknowledged") {
        return;
    }
    let (scenario, mut random, [one, two, three]) = (Scenario::start().await, Random::seeded(), messages());
    for round in 0..10_usize {
        let repository = format!("race/image{round}");
        let leader = scenario.members.leader().await;
        let cut = || match round % 4 {
            0 | 2 => scenario.cut_off(round / 2 % 2),
            1 => Cut::off(&scenario.hosts[leader], &scenario.hosts),
            _ => Cut::off(&scenario.hosts[leader], &scenario.hosts[..3]),
        };
        let puts = join(scenario.put(0, &repository, 1, &one), scenario.put(1, &repository, 1, &two));
        let (first, second) = if round < 2 {
            let _cut = cut();
            puts.await
        } else {
            let cutting = async {
                sleep(random.millis(10)).await;
                let _cut = cut();
                sleep(random.millis(3000)).await;
            };
            join(puts, cutting).await.0
        };
        let outcomes = [(first, &one), (second, &two)].map(|(answer, content)| (answer.status().as_u16(), content));
        eprintln!("{round}: {} and {}", outcomes[0].0, outcomes[1].0);
        assert!(outcomes.iter().all(|(status, _)| [201, 409, 503].contains(status)), "{outcomes:?}");
        // That gateway was cut off all the time.
        assert!(round != 0 || outcomes[0].0 == 503, "nothing tells it whether the name is there");
        let winners: Vec<&String> =
            outcomes.iter().filter(|(status, _)| *status == 201).map(|(_, content)| *content).collect();
        assert!(winners.len() <= 1, "both were acknowledged");
        scenario.healthy().await;
        // Whatever is still on its way: one is there now, and stays.
        let last = wait_for("the store", async || {
            let answer = scenario.put(1, &repository, 1, &two).await;
            (!is_not_available(&answer)).then_some(answer.status().as_u16())
        });
        let last = last.await;
        assert!(last == 409 || last == 201 && winners.is_empty(), "{last}");
        let lists = [0, 1].map(|gateway| {
            let (scenario, repository) = (&scenario, &repository);
            wait_for("the list", async move || scenario.list(gateway, repository).await)
        });
        for list in join_all(lists).await {
            assert_eq!(list.len(), 1);
            assert!(winners.iter().all(|winner| list == [(*winner).clone()]), "what was acknowledged is gone");
        }
        // Whatever came first, the name is taken, and the other gateway knows it as well.
        let third = wait_for("the store", async || {
            let answer = scenario.put(0, &repository, 1, &three).await;
            (!is_not_available(&answer)).then_some(answer.status().as_u16())
        });
        assert_eq!(third.await, 409);
    }
}
