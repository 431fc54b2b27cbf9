#![no_main]
//! `Location` and `Link` of a registry: no panic, and who follows them is where the registry meant; its host has the spelling
//! by which rules are looked up.

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use url::Url;

static REQUESTED: LazyLock<Url> =
    LazyLock::new(|| Url::parse("http://registry.example.com:5000/v2/acme/web/blobs/uploads/").expect("a URL"));

fuzz_target!(|value: &str| {
    sealgate::gateway::fuzzing::addresses(&REQUESTED, value);
    if let Ok(url) = REQUESTED.join(value) {
        sealgate::image::fuzzing::url(&url);
    }
});
