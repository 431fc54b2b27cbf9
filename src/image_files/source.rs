//! The name of an image source on the command line.

use std::{fmt, path::PathBuf, str::FromStr};

use super::{
    docker,
    error::SourceError,
    files::Files,
    image::{CompressionProgress, Image},
    layout,
};

/// An image in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSource {
    kind: SourceKind,
    path: PathBuf,
    /// The image to choose if the source has several: a tag of the layout, or a reference of the archive.
    name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SourceKind {
    Layout,
    LayoutArchive,
    DockerArchive,
}

impl FromStr for ImageSource {
    type Err = SourceError;

    /// Splits the text as skopeo does: at the first colon after the kind.
    fn from_str(text: &str) -> Result<Self, SourceError> {
        let bad = || SourceError::Name(text.to_owned());
        let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
        let kind = match kind {
            "oci" => SourceKind::Layout,
            "oci-archive" => SourceKind::LayoutArchive,
            "docker-archive" => SourceKind::DockerArchive,
            _ => return Err(bad()),
        };
        let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
        if path.is_empty() || name == Some("") {
            return Err(bad());
        }
        Ok(Self { kind, path: path.into(), name: name.map(str::to_owned) })
    }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            SourceKind::Layout => "oci",
            SourceKind::LayoutArchive => "oci-archive",
            SourceKind::DockerArchive => "docker-archive",
        };
        write!(f, "{kind}:{}", self.path.display())?;
        self.name.iter().try_for_each(|name| write!(f, ":{name}"))
    }
}

impl ImageSource {
    /// Reads the structure of the image, and compresses the layers of a docker-archive. A manifest has at most
    /// `manifest_bytes`. Blocks.
    pub fn read(&self, manifest_bytes: usize, watch: CompressionProgress<'_>) -> Result<Image, SourceError> {
        let name = self.name.as_deref();
        match self.kind {
            SourceKind::Layout => layout::read(&Files::folder(&self.path)?, name, manifest_bytes),
            SourceKind::LayoutArchive => layout::read(&Files::archive(&self.path)?, name, manifest_bytes),
            SourceKind::DockerArchive => docker::read(&Files::archive(&self.path)?, name, manifest_bytes, watch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_kind_a_path_and_perhaps_a_name() {
        for text in ["oci:images", "oci:images:1", "oci-archive:a.tar:acme/web:1", "docker-archive:/tmp/a.tar"] {
            assert_eq!(text.parse::<ImageSource>().unwrap().to_string(), text);
        }
        let source: ImageSource = "docker-archive:a.tar:r.example.com:5000/web:1".parse().unwrap();
        assert_eq!(source.path, PathBuf::from("a.tar"));
        assert_eq!(source.name.as_deref(), Some("r.example.com:5000/web:1"));
        for bad in ["", "images", "dir:images", "oci:", "oci::1", "oci:images:", "docker://a"] {
            assert!(bad.parse::<ImageSource>().is_err(), "{bad}");
        }
    }
}
