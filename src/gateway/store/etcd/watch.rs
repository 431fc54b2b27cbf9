//! Watches which images change, and proves that no change was missed.
//!
//! An open stream proves nothing: the member at its other end may be paused, or cut off from the others. So the watch
//! repeatedly asks for a revision that only a majority can give, and the stream has to reach it.

use std::{sync::Arc, time::Duration};

use etcd_client::{WatchOptions, WatchResponse, WatchResponseStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{members::Failure, operations::Operations};

/// The interval of the proofs.
const PROOF_INTERVAL: Duration = Duration::from_secs(1);
/// The time limit for a member to start a stream, or to reach a revision that others have.
const WATCH_TIMEOUT: Duration = Duration::from_secs(2);
/// The time after which a request for the stream's progress is repeated.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Watches with a member that works, for as long as the store is open.
pub(super) async fn watch(operations: Arc<Operations>) {
    let mut working = true;
    loop {
        let number = operations.members.preferred();
        let Err(failure) = Box::pin(follow(&operations, number, &mut working)).await;
        operations.lists.is_complete_until(None);
        if std::mem::replace(&mut working, false) {
            let (store, cause) = (operations.members.name(), failure.cause());
            tracing::warn!(store, cause, "changes by other gateways can't be watched; each list is read from etcd");
        }
        operations.members.failed(number, &failure).await;
        sleep(RETRY_INTERVAL * 5).await;
    }
}

/// Follows the stream of one member. Returns when the stream has ended, or is not reliable.
async fn follow(
    operations: &Operations,
    number: usize,
    working: &mut bool,
) -> Result<std::convert::Infallible, Failure> {
    let late = |_| Failure::late();
    let options = WatchOptions::new().with_prefix();
    let mut stream = timeout(WATCH_TIMEOUT, async {
        let mut client = operations.members.client(number).await?.watch_client();
        Ok::<_, Failure>(client.watch(operations.keys.histories(), Some(options)).await?)
    })
    .await
    .map_err(late)??;
    let created = timeout(WATCH_TIMEOUT, stream.message()).await.map_err(late)??;
    if !created.is_some_and(|message| message.created() && !message.canceled()) {
        return Err(Failure::ended("the watch was not taken"));
    }
    let (mut asking, mut stream) = stream.split();
    // Changes before the start of the watch are unknown.
    operations.lists.forget_all();
    loop {
        let begun = Instant::now();
        let revision = hear_while(operations, &mut stream, operations.revision(begun + WATCH_TIMEOUT)).await??;
        timeout(WATCH_TIMEOUT, async {
            while hear_while(operations, &mut stream, asking.request_progress()).await?.is_ok() {
                let heard = timeout(RETRY_INTERVAL, hear_until(operations, &mut stream, revision)).await;
                if let Ok(reached) = heard {
                    return reached;
                }
            }
            Err(Failure::ended("the watch has ended"))
        })
        .await
        .map_err(late)??;
        operations.lists.is_complete_until(Some(begun));
        if !std::mem::replace(working, true) {
            tracing::info!(store = operations.members.name(), "changes by other gateways are watched again");
        }
        hear_while(operations, &mut stream, sleep_until(begun + PROOF_INTERVAL)).await?;
    }
}

/// Processes the stream's messages until `something` is done.
async fn hear_while<T>(
    operations: &Operations,
    stream: &mut WatchResponseStream,
    something: impl Future<Output = T>,
) -> Result<T, Failure> {
    tokio::pin!(something);
    loop {
        tokio::select! {
            done = &mut something => return Ok(done),
            message = stream.message() => { hear(operations, message?)?; }
        }
    }
}

/// Processes the stream's messages until it has reached a revision.
async fn hear_until(operations: &Operations, stream: &mut WatchResponseStream, revision: i64) -> Result<(), Failure> {
    while hear(operations, stream.message().await?)? < revision {}
    Ok(())
}

/// Forgets the images that changed. Returns the revision that the stream has reached, or 0 if the message does not
/// tell.
fn hear(operations: &Operations, message: Option<WatchResponse>) -> Result<i64, Failure> {
    let Some(message) = message.filter(|message| !message.canceled()) else {
        return Err(Failure::ended("the watch has ended"));
    };
    for pair in message.events().iter().filter_map(etcd_client::Event::kv) {
        match operations.keys.parse_history(pair.key()) {
            Some(image) => operations.lists.forget(&image),
            // The key is malformed, so that the image is unknown.
            None => operations.lists.forget_all(),
        }
    }
    // A message with changes may not be the last one of its revision.
    let complete = message.header().filter(|_| message.events().is_empty());
    Ok(complete.map_or(0, etcd_client::ResponseHeader::revision))
}
