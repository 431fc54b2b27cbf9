//! What fuzz targets reach of the registry client. Only there with the feature `fuzzing`.

use std::path::Path;

use super::{
    challenge::Challenge,
    login_file::{LoginFile, LoginSource},
};
use crate::configuration::LoginFormat;
use crate::image::Repository;

/// Whatever realm is read is one that can be asked; and written as the grammar has it, the challenge is read the same.
pub fn challenge<'a>(headers: impl Iterator<Item = &'a [u8]>) {
    if let Ok(challenge @ Challenge::Bearer { realm, service }) = &Challenge::parse(headers) {
        assert!(matches!(realm.scheme(), "http" | "https") && realm.has_host(), "{realm}");
        assert!(realm.username().is_empty() && realm.password().is_none(), "{realm}");
        let quoted = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"");
        let service = service.as_deref().map(|service| format!(r#",service="{}""#, quoted(service)));
        let written = format!(r#"Bearer realm="{}"{}"#, quoted(realm.as_str()), service.unwrap_or_default());
        // Escapes make a long one longer than what is read, and so does a URL's normal form.
        if let Ok(again) = Challenge::parse(std::iter::once(written.as_bytes())) {
            assert_eq!(again, *challenge, "{written}");
        } else {
            assert!(written.len() > 2048, "{written}");
        }
    }
}

/// Whatever helper a login file names is a program of that kind, and nothing that a path or an option could be.
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
