//! Certificates that follow their files.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::tls::{Refreshed, ServerTls};

/// How often the files are read again. They are few and small, so that reading them costs less than a watch that misses
/// what a Secret's mount does; and a certificate that is made here has to be made anew by the clock anyway.
const EVERY: Duration = Duration::from_secs(5);

/// Reads the files of certificate and client CA again for as long as the server runs; `refreshed` is told what was found.
pub(super) async fn renew(tls: ServerTls, refreshed: impl Fn(&ServerTls, Refreshed)) {
    let mut again = None;
    loop {
        sleep(again.unwrap_or(EVERY).min(EVERY)).await;
        let found = tls.refresh(Timestamp::now(), Instant::now());
        again = found.again;
        refreshed(&tls, found);
    }
}
