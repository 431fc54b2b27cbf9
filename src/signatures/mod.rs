//! Signature sources: the extension endpoint and lookaside trees.
