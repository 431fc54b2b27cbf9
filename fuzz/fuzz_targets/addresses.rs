#![no_main]
//! `Location` and `Link` of a registry: no panic, and what is rewritten leads to the store.

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use url::Url;

static REGISTRIES: LazyLock<[Url; 2]> = LazyLock::new(|| {
    ["http://registry.example.com:5000", "https://example.com/registry/"].map(|url| Url::parse(url).expect("a URL"))
});

fuzz_target!(|value: &str| {
    for registry in &*REGISTRIES {
        sealgate::gateway::fuzzing::addresses(registry, value);
    }
});
