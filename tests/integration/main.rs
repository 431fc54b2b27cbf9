//! The one integration-test binary: whole parts of Sealgate with real registries, real gpg and real skopeo.

mod cluster;
mod completions;
mod configuration;
mod containers_image;
mod empty_values;
mod forms;
mod from_openshift;
mod gate;
mod gateway;
mod keys;
mod layering;
mod logins;
mod policy;
mod push;
mod registry;
mod security;
mod serve;
mod server;
mod sign;
mod signatures;
mod staging;
mod store;
mod support;
mod verify;
mod webhook;
mod words;
