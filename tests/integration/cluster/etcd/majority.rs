//! Members that are killed or paused, and etcd without a majority.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_to_try_again_while_etcd_has_no_majority() {
    let mut members = Members::start().await;
    let registry = DockerRegistry::start();
    let pushed = registry.push("acme/web", "1", "one").await;
    let etcd = configuration::Store::Etcd(members.settings("/sealgate"));
    let store = Store::start_set(&registry.url(), &Limits::default(), |gateway| gateway.store = etcd);
    let gpg = Gpg::new();
    let key = gpg.generate("Release <release@example.com>");
    let content = gpg.sign_image(&key, &pushed.digest, "registry.example.com/acme/web:1");
    let (url, client) = (store.signatures_url("acme/web", pushed.digest), reqwest::Client::new());
    let body = |number: usize| {
        let name = format!("{}@{number:032}", pushed.digest);
        serde_json::json!({"version": 2, "name": name, "content": BASE64_STANDARD.encode(&content)}).to_string()
    };
    members.kill(0);
    members.kill(1);
    let put = async || client.put(&url).body(body(1)).send().await.unwrap();
    for answer in [put().await, client.get(&url).send().await.unwrap()] {
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "5");
        assert!(answer.text().await.unwrap().contains("UNAVAILABLE"));
    }
    let health = client.get(format!("{}/healthz", store.url())).send().await.unwrap();
    assert_eq!(health.status(), 503);
    assert!(health.text().await.unwrap().starts_with("etcd /sealgate: the store is not available"));
    members.start_one(0);
    // The first one may have been made after all: then it is there.
    let status =
        wait_for("an answer", async || Some(put().await.status().as_u16()).filter(|&status| status != 503)).await;
    assert!([201, 409].contains(&status), "{status}");
    assert_eq!(client.put(&url).body(body(2)).send().await.unwrap().status(), 409, "under another name");
    let list = client.get(&url).send().await.unwrap();
    assert_eq!(list.status(), 200);
    assert!(list.text().await.unwrap().contains(&format!("{}@{:032}", pushed.digest, 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_in_memory_are_not_given_out_while_etcd_has_no_majority() {
    let members = Members::start().await;
    let store = members.open("/sealgate").await;
    let web = image("cached/web");
    store.change(put(&web, 1)).await.unwrap();
    assert_eq!(store.list(&web).await.unwrap().len(), 1);
    for number in 0..2 {
        members.signal(number, "STOP");
    }
    let error = wait_for("an error", async || store.list(&web).await.err()).await;
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    for number in 0..2 {
        members.signal(number, "CONT");
    }
    wait_for("the list", async || store.list(&web).await.ok().filter(|list| list.len() == 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_member_and_no_leader_that_is_killed_takes_an_acknowledged_signature_with_it() {
    let mut members = Members::start().await;
    let store = Arc::new(members.open("/sealgate").await);
    let writers = Writers::start(&store);
    for round in 0..6 {
        writers.write(50).await;
        // Every second time the one that leads.
        let leader = members.leader().await;
        let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
        members.kill(victim);
        writers.write(50).await;
        members.start_one(victim);
        members.healthy(victim).await;
    }
    let other = members.open("/sealgate").await;
    writers.check(&[&store, &other], 600).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_paused_under_writes_loses_nothing_when_it_goes_on() {
    let members = Members::start().await;
    let store = Arc::new(members.open("/sealgate").await);
    let writers = Writers::start(&store);
    for round in 0..4 {
        writers.write(50).await;
        let leader = members.leader().await;
        let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
        members.signal(victim, "STOP");
        writers.write(50).await;
        members.signal(victim, "CONT");
        members.healthy(victim).await;
    }
    let other = members.open("/sealgate").await;
    writers.check(&[&store, &other], 400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_acknowledged_until_it_is_back() {
    let mut members = Members::start().await;
    let store = Arc::new(members.open("/sealgate").await);
    let writers = Writers::start(&store);
    writers.write(100).await;
    members.kill(0);
    members.kill(1);
    let web = image("minority/web");
    // What was on its way when the second one died may still have got through; this one can't.
    for change in [put(&web, 1), remove(&web, 1)] {
        let error =
            tokio::time::timeout(LONGEST, store.change(change)).await.expect("within its deadline").unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    }
    assert!(store.health().await.is_err());
    // A gateway that starts now serves once etcd is back.
    let late = members.open("/sealgate").await;
    assert!(late.list(&web).await.is_err(), "it is not known whether there is any");
    members.start_one(0);
    members.start_one(1);
    members.healthy(0).await;
    writers.write(100).await;
    wait_for("health", async || late.health().await.ok()).await;
    writers.check(&[&store, &late], 200).await;
}
