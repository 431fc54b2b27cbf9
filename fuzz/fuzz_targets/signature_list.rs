#![no_main]
//! Lists of signatures, as stores send them: no panic, and no text that a terminal could take for more.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| sealgate::signature_sources::fuzzing::list(body));
