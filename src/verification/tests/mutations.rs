//! Messages that were changed in one place.

use std::sync::LazyLock;

use super::*;

static KEY: LazyLock<Key> = LazyLock::new(|| Key::new("acme"));
static PLAIN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    KEY.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, |builder| builder)
});
static PACKED: LazyLock<Vec<u8>> = LazyLock::new(|| good(&KEY));

/// Never a yes but for what was signed.
fn check(message: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(proof) = by(&KEY).with(&[message.to_vec()]).result {
        prop_assert_eq!(proof.keys()[0].signed_at, at(SIGNED));
        prop_assert_eq!(
            &envelope::open(message, &mut 0).ok().map(|message| message.body),
            &Some(payload(IMAGE, DIGEST))
        );
    }
    let other = Scenario { digest: Digest::parse(OTHER).unwrap(), ..by(&KEY) };
    prop_assert!(other.with(&[message.to_vec()]).result.is_err());
    let image = Reference::parse("registry.example.com/acme/web:1.3").unwrap();
    let other = Scenario { image, ..by(&KEY) };
    prop_assert!(other.with(&[message.to_vec()]).result.is_err());
    Ok(())
}

#[test]
fn no_single_bit_turns_a_no_into_a_yes() {
    for place in 0..PLAIN.len() {
        let mut message = PLAIN.clone();
        message[place] ^= 1 << (place % 8);
        check(&message).unwrap();
    }
}

#[test]
fn a_cut_message_is_none() {
    for end in 0..PLAIN.len() {
        assert!(by(&KEY).with(&[PLAIN[..end].to_vec()]).result.is_err(), "{end}");
    }
    for end in 0..PACKED.len() {
        check(&PACKED[..end]).unwrap();
    }
}

proptest! {
    #[test]
    fn a_changed_message_proves_nothing_else(
        packed: bool,
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
    ) {
        let mut message = if packed { PACKED.clone() } else { PLAIN.clone() };
        for (place, byte) in changes {
            let place = place % message.len();
            message[place] = byte;
        }
        check(&message)?;
    }

    #[test]
    fn junk_proves_nothing(first in 0x80_u8.., rest in proptest::collection::vec(any::<u8>(), 0..300)) {
        let message = [vec![first], rest].concat();
        prop_assert!(by(&KEY).with(&[message]).result.is_err());
    }
}
