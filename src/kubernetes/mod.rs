//! Kubernetes: the resources that contain images, the places of images in them, and the webhook configurations
//! generated from both.

pub mod webhooks;
pub mod workloads;
