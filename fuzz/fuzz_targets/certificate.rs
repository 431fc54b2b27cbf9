#![no_main]
//! Keyrings: no panic, and what is read can be asked about any time.

use libfuzzer_sys::fuzz_target;
use sealgate::signature::Certificate;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(certificates) = Certificate::parse_keyring(bytes) {
        for certificate in certificates {
            for now in ["1970-01-01T00:00:00Z", "2026-06-01T00:00:00Z", "2200-01-01T00:00:00Z"] {
                let now = now.parse().expect("a time");
                let _ = certificate.usable(now);
                let _ = certificate.expires_at(now);
            }
        }
    }
});
