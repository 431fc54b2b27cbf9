#![no_main]
//! The framing of messages: what is read of one does not depend on how its packets are split.

libfuzzer_sys::fuzz_target!(|message: &[u8]| sealgate::signature::fuzzing::envelope(message));
