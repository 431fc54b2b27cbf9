//! The interface of the gate that the webhook uses.

use std::future::Future;

use crate::gate::{Admission, Decision, Gate};
use crate::refusal::Refusal;

/// Decides about the images of a review.
pub trait Decide: Send + Sync + 'static {
    /// Decides about every image by the deadline, in their order; or refuses all images together.
    fn decide<'a>(&'a self, admission: &'a Admission<'a>) -> impl Future<Output = Result<Vec<Decision>, Refusal>> + 'a;
}

impl Decide for Gate {
    fn decide<'a>(&'a self, admission: &'a Admission<'a>) -> impl Future<Output = Result<Vec<Decision>, Refusal>> + 'a {
        Gate::decide(self, admission)
    }
}
