//! The place that a signature is written to: from `--to`, or from the configuration.

use url::Url;

use crate::cli::exit_status::CliError;
use crate::cli::image_arguments::ImageContext;
use crate::configuration::SignatureSource;
use crate::signature_sources::Destination;

/// Parses the value of `--to`.
pub(super) fn parse(text: &str) -> Result<Destination, CliError> {
    let bad = |why: &str| CliError::usage(format_args!("--to {text}: {why}"));
    if text == "extension" {
        return Ok(Destination::RegistryExtension);
    }
    if !text.contains("://") {
        let folder = std::path::absolute(text).map_err(|error| bad(&error.to_string()))?;
        return Ok(Destination::Folder(folder));
    }
    let url: Url = text.parse().map_err(|error: url::ParseError| bad(&error.to_string()))?;
    match url.scheme() {
        "file" if url.query().is_none() && url.fragment().is_none() => {
            url.to_file_path().map(Destination::Folder).map_err(|()| bad("expected file:///FOLDER"))
        }
        "file" => Err(bad("expected file:///FOLDER without a query or fragment; %3F and %23 stand for ? and #")),
        "http" | "https" if url.query().is_some() || url.fragment().is_some() => {
            Err(bad("expected https://HOST[:PORT][/PATH] without a query or fragment"))
        }
        "http" | "https" if url.has_host() && url.username().is_empty() && url.password().is_none() => {
            Ok(Destination::Extension(url))
        }
        "http" | "https" => {
            Err(bad("expected https://HOST[:PORT] without a user name; credentials are given with --creds"))
        }
        _ => Err(bad("expected `extension`, an https:// URL, or a folder")),
    }
}

/// Returns the first signature source of the image that takes signatures. If that is the registry's own
/// extension, returns the folder beside it too.
pub(super) fn configured(subject: &ImageContext) -> Result<(Destination, Option<Destination>), CliError> {
    let folder =
        |url: &Url| (url.scheme() == "file").then(|| url.to_file_path().ok()).flatten().map(Destination::Folder);
    let entry = subject.configuration.registries.entries.get_repository(subject.image.repository());
    let Some(sources) = entry.and_then(|entry| entry.signatures.as_ref()) else {
        return Ok((Destination::RegistryExtension, None));
    };
    let mut writable = sources.iter().filter_map(|source| match source {
        SignatureSource::RegistryExtension => Some(Destination::RegistryExtension),
        SignatureSource::Extension(url) => Some(Destination::Extension(url.clone())),
        // The lookaside of registries.d comes last; it is for reading, and has another place for writing beside it.
        SignatureSource::Lookaside(_) if subject.staging.is_some() && Some(source) == sources.last() => None,
        SignatureSource::Lookaside(url) => folder(url),
    });
    let staging = subject.staging.as_ref().and_then(folder);
    let (first, second) = (writable.next(), writable.next().or_else(|| staging.clone()));
    match first.or(staging) {
        Some(Destination::RegistryExtension) => {
            let folder = second.filter(|second| matches!(second, Destination::Folder(_)));
            Ok((Destination::RegistryExtension, folder))
        }
        Some(destination) => Ok((destination, None)),
        None => Err(CliError::usage(
            "signatures of this image are looked for on web servers alone, which take none: say where they go with --to",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit_status::ExitStatus;

    #[test]
    fn a_destination_is_the_extension_a_store_or_a_folder() {
        assert_eq!(parse("extension").unwrap(), Destination::RegistryExtension);
        assert_eq!(
            parse("https://store.example.com").unwrap(),
            Destination::Extension("https://store.example.com/".parse().unwrap())
        );
        assert_eq!(parse("file:///var/lib/x").unwrap(), Destination::Folder("/var/lib/x".into()));
        assert_eq!(parse("/var/lib/x").unwrap(), Destination::Folder("/var/lib/x".into()));
        for bad in [
            "ftp://x",
            "https://user:password@x",
            "https://",
            "file://host/x",
            "https://x/?sig=1",
            "https://x/#y",
            "file:///x?y",
            "file:///x#y",
        ] {
            let failure = parse(bad).unwrap_err();
            assert_eq!(failure.status, ExitStatus::Usage, "{bad}");
        }
    }
}
