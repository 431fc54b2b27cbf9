//! The choice between refusals of one image.

use super::Refusal;

/// Chooses between the refusals of an index by its own signatures and by those of each manifest in it. Where some of the
/// manifests are proven, its signer signs each: then what one of them is short of is the news.
pub(crate) fn refusal_of_index(own: Refusal, each: Refusal, some_are_proven: bool) -> Refusal {
    match own {
        Refusal::Unsigned(_) if some_are_proven => each,
        own => refusal_to_show(own, each),
    }
}

/// Chooses between two refusals, each of which alone would have to be lifted. While something could not be asked, nothing
/// is known, and asking again may help. Else a signature that does not count says more than none; and the first says more
/// than the second.
pub(crate) fn refusal_to_show(first: Refusal, second: Refusal) -> Refusal {
    fn rank(refusal: &Refusal) -> u8 {
        match refusal {
            Refusal::Lookup(error) if error.code().is_undecided() => 0,
            Refusal::ReviewTooCostly => 0,
            Refusal::Unsigned(_) | Refusal::Lookup(_) => 2,
            _ => 1,
        }
    }
    if rank(&second) < rank(&first) { second } else { first }
}
