#![no_main]
//! References: what is read is canonical, reads as itself, and its host is that of the URL that is dialled.

use libfuzzer_sys::fuzz_target;
use sealgate::image::{Reference, fuzzing};

fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(Reference::parse(&reference.to_string()).as_ref(), Ok(&reference));
        fuzzing::reference(&reference);
    }
});
