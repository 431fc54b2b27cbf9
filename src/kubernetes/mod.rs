//! Kubernetes: the resources that carry images, the places of images in them, and the webhook configurations made from both.

pub mod webhooks;
pub mod workloads;
