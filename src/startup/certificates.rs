//! Certificates that follow their files.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use crate::tls::ServerTls;

/// How often the files are read again. They are few and small, so that reading them costs less than a watch that misses
/// what a Secret's mount does; and a certificate that is made here has to be made anew by the clock anyway.
const EVERY: Duration = Duration::from_secs(5);

/// Reads the certificate's files again for as long as the server runs, and tells `expires` when the certificate expires, at
/// first and whenever that changes.
pub(super) async fn renew(tls: ServerTls, expires: impl Fn(Timestamp)) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    expires(tls.expires_at());
    // The first tick is at once; the files were read just now.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if tls.refresh(Timestamp::now()) {
            expires(tls.expires_at());
        }
    }
}
