//! Several gateways over one etcd: one name, one list, one reading.

use super::*;

/// With names, origins and statuses; in another order, which is the engine's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_a_store_is_moved_from_a_file_into_etcd_and_back_while_gateways_run() {
    use crate::store;

    let members = Members::start().await;
    let (folder, gpg) = (Scratch::new(), Gpg::new());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let key = gpg.generate("Release <release@example.com>");
    let content = gpg.sign_image(&key, &store::image(0).digest, "registry.example.com/acme/web:1");
    {
        let first = RedbStore::open(&folder.path().join("first.redb"), ImageLimits::default()).unwrap();
        let images = (0..500).map(|number| {
            let mut image = store::image(number);
            // Here the two orders differ.
            let path = image.repository.as_str().replace("000007", "000006-x");
            image.repository = RepositoryName::parse(&path).unwrap();
            first.change(Change::Import(image, store::record(number, &content)))
        });
        futures_util::future::try_join_all(images).await.unwrap();
    }
    let endpoints: Vec<String> = (0..3).map(|number| members.endpoint(number)).collect();
    let configuration = format!(
        "apiVersion: sealgate.dev/v1\nkind: Configuration\ngateway:\n  registry: {{url: 'http://127.0.0.1:1'}}\n  store: \
         {{etcd: {{endpoints: {endpoints:?}, prefix: /moved}}}}\n"
    );
    let in_etcd = format!("config:{}", folder.write("sealgate.yaml", configuration).display());
    let moved = |arguments: &[&str]| store::sealgate_store(arguments);
    let [first, again, last, other] = ["first.redb", "again.ndjson", "last.ndjson", "other.redb"].map(path);
    let file = path("first.ndjson");
    moved(&["export", &in_etcd, &file]).fails(1, "there is no store here");
    moved(&["export", &first, &file]).json(0);
    let gateway = members.open("/moved").await;
    assert_eq!(gateway.inspect(&store::image(1)).await.unwrap(), []);
    for count in ["created", "present"] {
        assert_eq!(moved(&["import", &in_etcd, &file]).json(0)[count], 500);
    }
    wait_for("the gateway to hear of it", async || {
        (gateway.list(&store::image(1)).await.unwrap().len() == 1).then_some(())
    })
    .await;
    moved(&["export", &in_etcd, &again]).json(0);
    moved(&["import", &format!("redb:{other}"), &again]).json(0);
    moved(&["export", &other, &last]).json(0);
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    assert_ne!(read(&again), read(&file));
    assert!(read(&last) == read(&file));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_gateways_that_store_one_name_exactly_one_does() {
    let members = Members::start().await;
    let stores = [members.open("/sealgate").await, members.open("/sealgate").await];
    for round in 0..100 {
        let web = image(&format!("race/web{round}"));
        let puts = (0..4).map(|number| {
            let record = Record {
                signature: StoredSignature { content: vec![number; 8].into(), ..signature(1) },
                origin: None,
                status: None,
            };
            stores[usize::from(number) % 2].change(Change::Put(web.clone(), record))
        });
        let outcomes: Vec<Changed> = join_all(puts).await.into_iter().map(Result::unwrap).collect();
        let count = |put| outcomes.iter().filter(|&&outcome| outcome == Changed::Put(put)).count();
        assert_eq!((count(Put::Created), count(Put::NameExists)), (1, 3), "round {round}: {outcomes:?}");
        assert_eq!(stores[0].list(&web).await.unwrap().len(), 1);
    }
    // Different names of one image: each is stored, whoever came in between.
    let web = image("race/many");
    let puts = (0..64).map(|number| stores[number % 2].change(put(&web, number)));
    assert!(join_all(puts).await.into_iter().all(|outcome| outcome.unwrap() == CREATED));
    // Nor do two gateways together get over a limit.
    let limits = ImageLimits { signatures: 3, ..ImageLimits::default() };
    let stores = [members.open_with("/sealgate", limits).await, members.open_with("/sealgate", limits).await];
    let web = image("race/limit");
    let puts = (0..16).map(|number| stores[number % 2].change(put(&web, number)));
    let outcomes: Vec<Changed> = join_all(puts).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes.iter().filter(|&&outcome| outcome == CREATED).count(), 3, "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_gateway_keeps_in_memory_follows_what_another_changes() {
    let mut members = Members::start().await;
    let (reader, writer) = (members.open("/sealgate").await, members.open("/sealgate").await);
    let web = image("cached/web");
    // While a member is gone, either may have to ask again.
    let sees = async |expected: usize| {
        wait_for("the other one's change", async || {
            reader.list(&web).await.is_ok_and(|list| list.len() == expected).then_some(())
        })
        .await;
    };
    let removes = async |number: usize| {
        let removed = wait_for("the change", async || writer.change(remove(&web, number)).await.ok()).await;
        assert!(matches!(removed, Changed::Signatures(0 | 1)), "{removed:?}");
    };
    for _ in 0..10 {
        assert_eq!(writer.change(put(&web, 1)).await.unwrap(), CREATED);
        sees(1).await;
        assert_eq!(writer.change(remove(&web, 1)).await.unwrap(), Changed::Signatures(1));
        sees(0).await;
    }
    // Its own are seen at once.
    for number in 0..10 {
        reader.change(put(&web, number)).await.unwrap();
        assert_eq!(reader.list(&web).await.unwrap().len(), number + 1);
    }
    // Whichever member it watches with: each of them goes away once.
    for number in 0..3 {
        members.kill(number);
        removes(number).await;
        sees(9 - number).await;
        members.start_one(number);
        members.healthy(number).await;
    }
    // A member that is paused tells nothing, and looks alive.
    for number in 0..3 {
        members.signal(number, "STOP");
        removes(number + 3).await;
        sees(6 - number).await;
        members.signal(number, "CONT");
        members.healthy(number).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_read_from_etcd_once() {
    let members = Members::start().await;
    let store = members.open("/sealgate").await;
    let web = image("cached/web");
    store.change(put(&web, 1)).await.unwrap();
    wait_for("the cache", async || {
        let before = transactions(&members).await;
        for _ in 0..1000 {
            assert_eq!(store.list(&web).await.unwrap().len(), 1);
        }
        // The watch asks each second. At first it may not be there, and a proof may be too old while all else is busy.
        (transactions(&members).await - before < 100.0).then_some(())
    })
    .await;
}
