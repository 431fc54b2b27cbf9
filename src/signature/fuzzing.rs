//! The entry points of fuzz targets for signatures. Only there with the feature `fuzzing`, and for tests.

use super::{envelope, framing::first_packet};

/// Opens a message. The same message with each of its packets in one part opens to the same content.
pub fn envelope(message: &[u8]) {
    let mut inflated = 0;
    let Ok(opened) = envelope::open(message, &mut inflated) else {
        assert!(inflated <= envelope::MAX_MESSAGE_BYTES + 1);
        return;
    };
    let mut whole = Vec::new();
    let mut rest = message;
    while let Some((packet, behind)) = first_packet(rest) {
        whole.extend(packet.reframed().expect("a message is small"));
        rest = behind;
    }
    // The headers that it gets are longer.
    if whole.len() <= envelope::MAX_MESSAGE_BYTES {
        let again = envelope::open(&whole, &mut 0).expect("it is the same message");
        assert_eq!((&again.body, &again.issuers), (&opened.body, &opened.issuers));
        assert_eq!(again.signature, opened.signature);
    }
    if let Ok(envelope::Peek::Message(seen)) = envelope::peek(message, &mut 0) {
        assert_eq!((&seen.body, &seen.issuers), (&opened.body, &opened.issuers));
    }
}
