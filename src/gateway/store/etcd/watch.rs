//! Learns which images change, and proves that it has learnt it all.
//!
//! That a stream is open proves nothing: the member at its other end may be paused, or cut off from the others. So again
//! and again a revision is asked for that only a majority can give, and the stream has to reach it.

use std::{sync::Arc, time::Duration};

use etcd_client::{WatchOptions, WatchResponse, WatchResponseStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Shared, members::Failure};

/// How often it is proved.
const EVERY: Duration = Duration::from_secs(1);
/// How long a member may take to begin a stream, or to reach a revision that others have.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long after a question whether it is there it is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// Watches, with whichever member works, for as long as the store is open.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut working = true;
    loop {
        let number = shared.members.preferred();
        let Err(failure) = Box::pin(follow(&shared, number, &mut working)).await;
        shared.lists.is_complete_until(None);
        if std::mem::replace(&mut working, false) {
            let (store, cause) = (shared.members.name(), failure.cause());
            tracing::warn!(
                store,
                cause,
                "changes that other gateways make are not heard of; each list is read from etcd"
            );
        }
        shared.members.failed(number, &failure).await;
        sleep(AGAIN * 5).await;
    }
}

/// Returns when the stream has ended, or can't be relied upon.
async fn follow(shared: &Shared, number: usize, working: &mut bool) -> Result<std::convert::Infallible, Failure> {
    let late = |_| Failure::late();
    let options = WatchOptions::new().with_prefix();
    let mut stream = timeout(PATIENCE, async {
        let mut client = shared.members.client(number).await?.watch_client();
        Ok::<_, Failure>(client.watch(shared.keys.histories(), Some(options)).await?)
    })
    .await
    .map_err(late)??;
    let created = timeout(PATIENCE, stream.message()).await.map_err(late)??;
    if !created.is_some_and(|message| message.created() && !message.canceled()) {
        return Err(Failure::ended("the watch was not taken"));
    }
    let (mut asking, mut stream) = stream.split();
    // What was before the watch was never told.
    shared.lists.forget_all();
    loop {
        let begun = Instant::now();
        let revision = hear_while(shared, &mut stream, shared.revision(begun + PATIENCE)).await??;
        timeout(PATIENCE, async {
            while hear_while(shared, &mut stream, asking.request_progress()).await?.is_ok() {
                let heard = timeout(AGAIN, hear_until(shared, &mut stream, revision)).await;
                if let Ok(reached) = heard {
                    return reached;
                }
            }
            Err(Failure::ended("the watch has ended"))
        })
        .await
        .map_err(late)??;
        shared.lists.is_complete_until(Some(begun));
        if !std::mem::replace(working, true) {
            tracing::info!(store = shared.members.name(), "changes that other gateways make are heard of again");
        }
        hear_while(shared, &mut stream, sleep_until(begun + EVERY)).await?;
    }
}

/// Takes what the stream says until something else is done.
async fn hear_while<T>(
    shared: &Shared,
    stream: &mut WatchResponseStream,
    something: impl Future<Output = T>,
) -> Result<T, Failure> {
    tokio::pin!(something);
    loop {
        tokio::select! {
            done = &mut something => return Ok(done),
            message = stream.message() => { hear(shared, message?)?; }
        }
    }
}

/// Takes what the stream says until it has said all up to a revision.
async fn hear_until(shared: &Shared, stream: &mut WatchResponseStream, revision: i64) -> Result<(), Failure> {
    while hear(shared, stream.message().await?)? < revision {}
    Ok(())
}

/// Forgets the images that changed; gives the revision up to which all was said, if that is what it says.
fn hear(shared: &Shared, message: Option<WatchResponse>) -> Result<i64, Failure> {
    let Some(message) = message.filter(|message| !message.canceled()) else {
        return Err(Failure::ended("the watch has ended"));
    };
    for pair in message.events().iter().filter_map(etcd_client::Event::kv) {
        match shared.keys.parse_history(pair.key()) {
            Some(image) => shared.lists.forget(&image),
            // What it is about is not known.
            None => shared.lists.forget_all(),
        }
    }
    // One with changes may have a revision of which it does not tell all.
    let complete = message.header().filter(|_| message.events().is_empty());
    Ok(complete.map_or(0, etcd_client::ResponseHeader::revision))
}
