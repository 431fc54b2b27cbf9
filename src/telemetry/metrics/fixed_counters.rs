//! Counters whose labels have known values.

use std::sync::OnceLock;

use prometheus::IntCounter;
use prometheus::IntCounterVec;

/// A counter with two labels of known values. The counter of two values is looked up once, on first use, since a
/// look-up costs a hash and a lock. Counters that were never used do not appear.
pub(super) struct FixedCounters<const N: usize, const M: usize> {
    all: IntCounterVec,
    labels: ([&'static str; N], [&'static str; M]),
    children: [[OnceLock<IntCounter>; M]; N],
}

impl<const N: usize, const M: usize> FixedCounters<N, M> {
    pub(super) fn new(all: IntCounterVec, labels: ([&'static str; N], [&'static str; M])) -> Self {
        Self { all, labels, children: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())) }
    }

    /// Shows every counter, also at zero: an alert on an increase does not see the first one otherwise.
    pub(super) fn show_all(&self) {
        for first in self.labels.0 {
            for second in self.labels.1 {
                self.all.with_label_values(&[first, second]);
            }
        }
    }

    pub(super) fn inc(&self, first: &'static str, second: &'static str) {
        let child = || self.all.with_label_values(&[first, second]);
        let place = |all: &[&str], one: &str| all.iter().position(|label| *label == one);
        match (place(&self.labels.0, first), place(&self.labels.1, second)) {
            (Some(row), Some(column)) => self.children[row][column].get_or_init(child).inc(),
            _ => child().inc(),
        }
    }
}
