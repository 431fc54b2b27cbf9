//! The unit of a transfer.

use crate::gateway::store::{ImageId, Record};

/// A signature with its image.
pub(super) type Signature = (ImageId, Record);
