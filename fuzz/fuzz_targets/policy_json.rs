#![no_main]
//! policy.json: no panic, and every mistake can be shown.

use libfuzzer_sys::fuzz_target;
use sealgate::{
    diagnostic::Diagnostics,
    policy::{self, KeyFileError, SourceFile},
};

fuzz_target!(|bytes: &[u8]| {
    let file = SourceFile { name: "policy.json".into(), folder: "policies".into(), bytes: bytes.to_vec() };
    let mut read_key =
        |_: &std::path::Path| -> Result<Vec<u8>, KeyFileError> { Ok(include_bytes!("../key.asc").into()) };
    if let Err(mistakes) = policy::load(&[file], &mut read_key) {
        assert!(!mistakes.is_empty());
        let _ = Diagnostics(&mistakes).to_string();
    }
});
