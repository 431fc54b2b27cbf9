#![no_main]
//! Admission reviews: no panic, and every image that is to be decided about has its place in a pod.

use libfuzzer_sys::fuzz_target;
use sealgate::webhook::review::{Review, ReviewSubject};

fuzz_target!(|body: &[u8]| {
    let Ok(review) = Review::parse(body) else { return };
    if let Ok(ReviewSubject::Images(images)) = review.subject() {
        for place in &images.to_decide {
            assert!(images.workload.pointer(place.list, place.index).starts_with('/'));
        }
    }
});
