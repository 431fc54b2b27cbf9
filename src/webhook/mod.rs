//! The admission webhook: reviews in over HTTP, the gate's decisions out.
//!
//! `/mutate` never refuses: it pins the images that verify, and leaves all others as they are. Only `/validate`
//! refuses. [`server`] has the transport and its bounds, [`review`] parses the request, [`patch`] and [`response`]
//! write the answer.

mod decide;
pub mod patch;
pub mod response;
pub mod review;
pub mod server;
mod settings;
#[cfg(test)]
mod testing;
mod text;

pub use decide::Decide;
pub use server::run;
pub use settings::Settings;
