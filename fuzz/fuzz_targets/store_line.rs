#![no_main]
//! Lines of an export, as an import gets them: no panic, and what is read is written again the same.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| sealgate::gateway::fuzzing::line(line));
