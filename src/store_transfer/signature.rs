//! What is moved.

use crate::gateway::store::{ImageId, Record};

/// What is moved.
pub(super) type Signature = (ImageId, Record);
