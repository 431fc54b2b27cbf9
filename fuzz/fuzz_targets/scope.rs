#![no_main]
//! Scopes: what is read is canonical, reads as itself, and its host is one that an image can have.

use libfuzzer_sys::fuzz_target;
use sealgate::image::{Scope, fuzzing};

fuzz_target!(|text: &str| {
    if let Ok(scope) = Scope::parse(text) {
        assert_eq!(Scope::parse(&scope.to_string()).as_ref(), Ok(&scope));
        fuzzing::scope(&scope);
    }
});
