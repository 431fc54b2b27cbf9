//! Entry points of fuzz targets to the registry client. Only built with the feature `fuzzing`.

use std::path::Path;

use super::{
    challenge::Challenge,
    login_file::{LoginFile, LoginSource},
};
use crate::configuration::LoginFormat;
use crate::image::Repository;

/// Parses challenges. Panics unless a parsed realm is a valid URL without user information, and a rewritten challenge
/// parses to the same one.
pub fn challenge<'a>(headers: impl Iterator<Item = &'a [u8]>) {
    if let Ok(challenge @ Challenge::Bearer { realm, service }) = &Challenge::parse(headers) {
        assert!(matches!(realm.scheme(), "http" | "https") && realm.has_host(), "{realm}");
        assert!(realm.username().is_empty() && realm.password().is_none(), "{realm}");
        let quoted = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"");
        let service = service.as_deref().map(|service| format!(r#",service="{}""#, quoted(service)));
        let written = format!(r#"Bearer realm="{}"{}"#, quoted(realm.as_str()), service.unwrap_or_default());
        // Escapes and URL normalization can make a long challenge longer than the limit.
        if let Ok(again) = Challenge::parse(std::iter::once(written.as_bytes())) {
            assert_eq!(again, *challenge, "{written}");
        } else {
            assert!(written.len() > 2048, "{written}");
        }
    }
}

/// Parses a login file. Panics unless a helper's name is safe as the end of a program's name.
pub fn login_file(text: &str, is_old: bool, repository: &str) {
    let Ok(repository) = Repository::parse(repository) else { return };
    let format = if is_old { LoginFormat::Old } else { LoginFormat::Current };
    let Ok(file) = LoginFile::parse(Path::new("auth.json"), format, text) else { return };
    if let Ok(LoginSource::Helper { name, servers }) = file.find(&repository) {
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)));
        assert!(!servers.is_empty() && servers.iter().any(|server| server == repository.host()), "{servers:?}");
        assert!(!is_old, "old files name none");
    }
}
