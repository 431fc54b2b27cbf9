#![no_main]
//! Signatures that someone wants stored: no panic, and what is stored names its image.

use libfuzzer_sys::fuzz_target;
use sealgate::image::Digest;

fuzz_target!(|body: &[u8]| sealgate::gateway::fuzzing::submission(body, &Digest::sha256(b"")));
