#![no_main]
//! Paths of requests to the store: none leads out of the registry's own.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|path: &str| {
    sealgate::gateway::fuzzing::path(path);
    sealgate::gateway::fuzzing::path(&format!("/v2/{path}"));
    sealgate::gateway::fuzzing::path(&format!("/extensions/v2/{path}"));
});
