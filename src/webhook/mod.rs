//! The admission webhook: HTTP in, decisions of the gate out.
