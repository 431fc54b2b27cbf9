//! Policies as texts, loaded or refused.

mod bounds;
mod formats;
mod mistakes;

use std::num::NonZeroUsize;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::image::Reference;
use crate::policy::{Action, Identity, Mode, Platforms};
use crate::signature::testing::Key;

const RELEASE: &[u8] = include_bytes!("../../../../policies/production/keys/acme-release.asc");
const SECURITY: &[u8] = include_bytes!("../../../../policies/production/keys/acme-security.asc");
const DIGEST: &str = "sha256:4028782c08eae4a8c9a28bf661c0a8d1c2fc8e19dbaae2b018b21011197e1484";

fn read_key(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    match path.to_str().expect("paths of tests are texts") {
        "policies/release.asc" | "policies/again.asc" => Ok(RELEASE.to_vec()),
        "policies/security.asc" => Ok(SECURITY.to_vec()),
        "policies/both.asc" => Ok([RELEASE, SECURITY, RELEASE].concat()),
        "policies/empty.asc" => Ok(Vec::new()),
        "policies/text.asc" => Ok(b"not a key\n".to_vec()),
        "policies/private.asc" => Ok(Key::new("private").private()),
        "policies/utf16.asc" => {
            Ok([0xff, 0xfe].into_iter().chain("-----BEGIN".encode_utf16().flat_map(u16::to_le_bytes)).collect())
        }
        "policies/curve.asc" => Ok(on_an_unknown_curve()),
        "policies/folder" => Err(KeyFileError::NotAFile),
        _ => Err(KeyFileError::Missing),
    }
}

/// A key of version 4, made for ECDSA on a curve that nothing knows.
fn on_an_unknown_curve() -> Vec<u8> {
    let point = [&[2, 3, 0x84][..], &[7; 64]].concat();
    let body = [&[4, 0x5e, 0, 0, 0, 19, 2, 0x2b, 0x99][..], &point].concat();
    [&[0x99][..], &u16::try_from(body.len()).unwrap().to_be_bytes(), &body].concat()
}

fn file(name: &str, text: &str) -> SourceFile {
    SourceFile { name: name.into(), folder: "policies".into(), bytes: text.into() }
}

fn load_texts(files: &[(&str, &str)]) -> Result<Policy, Vec<Diagnostic>> {
    let files: Vec<SourceFile> = files.iter().map(|(name, text)| file(name, text)).collect();
    load(&files, &mut read_key)
}

fn loaded(text: &str) -> Policy {
    load_texts(&[("p.yaml", text)]).unwrap_or_else(|mistakes| panic!("{}", shown(&mistakes)))
}

/// Each diagnostic in one line, without snippets.
fn shown(mistakes: &[Diagnostic]) -> String {
    let one_line = |mistake: &Diagnostic| {
        let text = mistake.to_string();
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains(" |") && !line.contains("| ")).collect();
        lines.join("\n")
    };
    mistakes.iter().map(one_line).collect::<Vec<_>>().join("\n")
}

fn refused(text: &str) -> String {
    match load_texts(&[("p.yaml", text)]) {
        Ok(_) => panic!("this was loaded:\n{text}"),
        Err(mistakes) => shown(&mistakes),
    }
}

/// A document whose `rules` begin in line 9.
fn with_rules(rules: &str) -> String {
    format!(
        "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata: {{name: p}}\nspec:\n  keys:\n    release: {{file: release.asc}}\n    security: {{file: security.asc}}\n  rules:\n{rules}"
    )
}

/// A document with one rule whose requirement is in line 12.
fn with_requirement(requirement: &str) -> String {
    with_rules(&format!("  - name: r\n    images: [r.example.com]\n    require:\n    - {requirement}\n"))
}

fn rule<'a>(policy: &'a Policy, image: &str) -> &'a Rule {
    policy.cluster.rules.get(&Reference::for_image(image).unwrap()).unwrap()
}
