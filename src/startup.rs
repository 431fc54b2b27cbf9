//! Puts the parts together; nothing else does.
