//! Images in files: OCI layouts, archives of them, and what `docker save` and `podman save` write.
//!
//! An archive is indexed and never unpacked: files are read where they stand in it. Archives and layouts are untrusted input:
//! counts and sizes are bounded, links to the outside are not followed, and each digest is computed over the bytes.

mod data;
mod docker;
mod error;
mod files;
mod image;
mod layer;
mod layout;
mod source;
mod tar;

pub use data::Data;
pub use error::SourceError;
pub use image::{CompressionProgress, Image, ImageBlob, SourceManifest};
pub use source::ImageSource;
