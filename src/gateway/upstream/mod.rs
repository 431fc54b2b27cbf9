//! The registry behind the gateway.

mod cache;
mod pull;
mod registry;
mod required_auth;
mod settings;

pub(super) use cache::{RequiredAuth, UpstreamCache};
pub(super) use pull::PullAnswer;
pub(super) use registry::{Registry, failure};
pub(super) use settings::Settings;
