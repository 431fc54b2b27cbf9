//! What is known of Kubernetes: which resources carry images, where in them, and what the API server is told of it.

pub mod webhooks;
pub mod workloads;
