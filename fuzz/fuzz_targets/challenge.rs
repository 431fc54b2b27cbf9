#![no_main]
//! `WWW-Authenticate`: no panic, and a realm is one that can be asked.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|headers: Vec<&[u8]>| sealgate::registry::fuzzing::challenge(headers.into_iter()));
