#![no_main]
//! References: what is read is canonical, and reads as itself.

use libfuzzer_sys::fuzz_target;
use sealgate::image::Reference;

fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(Reference::parse(&reference.to_string()).as_ref(), Ok(&reference));
    }
});
