//! Positions in a store's order.

use super::{
    image_id::{ImageId, RepositoryName},
    signature::SignatureName,
};
use crate::image::Digest;

/// A position in a store's order, after a signature: the point at which an export continues.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(Box<str>);

impl Position {
    /// Returns the position after this signature.
    pub fn behind(image: &ImageId, name: &SignatureName) -> Self {
        Self(format!("{}@{}/{}", image.repository.as_str(), image.digest, name.as_str()).into())
    }

    /// Parses the text of [`Position::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        let (image, name) = text.rsplit_once('/')?;
        let (repository, digest) = image.split_once('@')?;
        let image =
            ImageId { repository: RepositoryName::parse(repository).ok()?, digest: Digest::parse(digest).ok()? };
        Some(Self::behind(&image, &SignatureName::parse(name)?))
    }

    /// Returns `repository@digest/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
