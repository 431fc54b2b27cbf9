//! Places in a store's order.

use super::{
    image_id::{ImageId, RepositoryName},
    signature::SignatureName,
};
use crate::image::Digest;

/// A place in a store's order, behind a signature: where an export goes on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(Box<str>);

impl Position {
    /// Behind this signature.
    pub fn behind(image: &ImageId, name: &SignatureName) -> Self {
        Self(format!("{}@{}/{}", image.repository.as_str(), image.digest, name.as_str()).into())
    }

    /// Reads what [`Position::as_str`] gave.
    pub fn parse(text: &str) -> Option<Self> {
        let (image, name) = text.rsplit_once('/')?;
        let (repository, digest) = image.split_once('@')?;
        let image =
            ImageId { repository: RepositoryName::parse(repository).ok()?, digest: Digest::parse(digest).ok()? };
        Some(Self::behind(&image, &SignatureName::parse(name)?))
    }

    /// `repository@digest/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
