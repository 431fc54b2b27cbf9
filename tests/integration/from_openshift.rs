//! docs/from-openshift.md, typed line by line.

use std::path::Path;

use crate::support::{Left, Scratch, follow, free_ports};

#[test]
fn openshifts_documented_steps_are_done_here_as_the_page_shows() {
    let page = include_str!("../../docs/from-openshift.md");
    let [registry, store] = free_ports().map(|port| format!("127.0.0.1:{port}"));
    let page = page.replace("127.0.0.1:5000", &registry).replace("127.0.0.1:5001", &store);
    let folder = Scratch::new();
    Left::Gnupg(folder.path().join("gnupg").display().to_string()).note();
    let programs = Path::new(env!("CARGO_BIN_EXE_sealgate")).parent().expect("it is in a folder");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("there is a PATH"));
    follow(&page, folder.path(), &[("PATH", &path), ("OTEL_TRACES_EXPORTER", "none")]);
}
