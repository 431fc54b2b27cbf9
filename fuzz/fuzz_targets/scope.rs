#![no_main]
//! Scopes: what is read is canonical, and reads as itself.

use libfuzzer_sys::fuzz_target;
use sealgate::image::Scope;

fuzz_target!(|text: &str| {
    if let Ok(scope) = Scope::parse(text) {
        assert_eq!(Scope::parse(&scope.to_string()).as_ref(), Ok(&scope));
    }
});
