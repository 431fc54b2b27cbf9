#![no_main]
//! Login files: no panic, and no helper whose name is more than a name.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, bool, &str)| {
    let (text, is_old, repository) = input;
    sealgate::registry::fuzzing::login_file(text, is_old, repository);
    sealgate::registry::fuzzing::login_file(text, is_old, "a.example.com/acme/web");
});
