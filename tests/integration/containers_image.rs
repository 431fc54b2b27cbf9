//! Agreement with skopeo (containers/image) over generated policies, keys and signatures.
