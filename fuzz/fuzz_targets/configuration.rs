#![no_main]
//! Configuration files: no panic, and every mistake can be shown.

use libfuzzer_sys::fuzz_target;
use sealgate::{configuration, diagnostic::Diagnostics, policy::SourceFile};

fuzz_target!(|bytes: &[u8]| {
    let file = SourceFile { name: "sealgate.yaml".into(), folder: "".into(), bytes: bytes.to_vec() };
    if let Err(mistakes) = configuration::load(&file) {
        assert!(!mistakes.is_empty());
        let _ = Diagnostics(&mistakes).to_string();
    }
});
