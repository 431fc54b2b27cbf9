//! What is known of Kubernetes: which resources carry images, and where in them.
