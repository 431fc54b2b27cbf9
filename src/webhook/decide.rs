//! What the webhook needs of the gate.

use std::future::Future;

use crate::gate::{Admission, Decision, Gate};
use crate::refusal::Refusal;

/// Decides about the images of a review.
pub trait Decide: Send + Sync + 'static {
    /// Decides about every image, in the order in which they were given, by the deadline; or refuses them together.
    fn decide<'a>(&'a self, admission: &'a Admission<'a>) -> impl Future<Output = Result<Vec<Decision>, Refusal>> + 'a;
}

impl Decide for Gate {
    fn decide<'a>(&'a self, admission: &'a Admission<'a>) -> impl Future<Output = Result<Vec<Decision>, Refusal>> + 'a {
        Gate::decide(self, admission)
    }
}
