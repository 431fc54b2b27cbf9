//! The admission webhook: HTTP in, decisions of the gate out.
//!
//! `/mutate` never refuses: it pins what verifies and leaves the rest as it is. `/validate` alone decides. [`server`] has
//! the transport and its bounds, [`review`] reads what is asked, [`patch`] and [`response`] write the answer.

mod decide;
pub mod patch;
pub mod response;
pub mod review;
pub mod server;
mod settings;
mod text;

pub use decide::Decide;
pub use server::run;
pub use settings::Settings;
