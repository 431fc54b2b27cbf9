#![no_main]
//! Signed payloads: no panic, and what is read stands there.

use libfuzzer_sys::fuzz_target;
use sealgate::signature::Payload;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(payload) = Payload::parse(bytes) {
        let digest = payload.digest.to_string();
        let text = std::str::from_utf8(bytes).expect("only UTF-8 is read");
        assert!(text.contains(digest.split(':').nth(1).expect("a digest has a colon")) || text.contains('\\'));
    }
});
