#![no_main]
//! Manifests: no panic, whatever the content type.

use libfuzzer_sys::fuzz_target;
use sealgate::image::Manifest;

fuzz_target!(|input: (Option<&str>, &[u8])| {
    let (content_type, body) = input;
    let _ = Manifest::parse(content_type, body);
    let _ = Manifest::parse(None, body);
});
