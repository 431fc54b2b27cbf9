//! Images in files: OCI layouts, archives of OCI layouts, and archives of `docker save` and `podman save`.
//!
//! An archive is indexed and never unpacked; its files are read in place. Archives and layouts are untrusted input:
//! counts and sizes are bounded, links that lead outside are not followed, and each digest is computed over the bytes.

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
