//! The faults that make a signature malformed under every policy.

use super::{Fingerprint, PayloadError};

/// The fault that makes a signature malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Not one OpenPGP message signed by one key.
    #[error("it is not one OpenPGP message with one signature")]
    Envelope,
    /// Its one-pass packet and its signature packet say different things.
    #[error("its one-pass packet names {0} than its signature packet; sign it anew")]
    Disagreement(Disagreement),
    /// No bytes.
    #[error("it is empty")]
    Empty,
    /// ASCII armor around it.
    #[error("it is armored, and a signature is a binary message; sign without --armor")]
    Armored,
    /// Text with a signature below.
    #[error("it is clear-signed text, and a signature is a binary message; sign with gpg --sign")]
    ClearSigned,
    /// Text of twice the size, which may have been armor or a binary message.
    #[error("it is in UTF-16, as PowerShell's > writes files; write it with gpg --output")]
    Utf16,
    /// Neither armor nor a packet.
    #[error("it does not begin as a binary OpenPGP message does")]
    NoPacket,
    /// A signature without what it is about.
    #[error("it is a detached signature, without what is signed; sign with gpg --sign")]
    Detached,
    /// A text signature, over text whose lines are not clear.
    #[error(
        "it is a text signature (gpg --textmode) over text whose lines do not all end in CR LF; sign without --textmode"
    )]
    LineEnd,
    /// It inflates to more than a payload ever has.
    #[error("it inflates to more than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// It does not say when it was made.
    #[error("it does not say when it was made")]
    NoTime,
    /// The payload.
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

/// The field in which a one-pass packet and its signature packet disagree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Disagreement {
    /// Binary or text.
    #[error("another type of signature")]
    Type,
    /// The hash algorithm.
    #[error("another hash algorithm")]
    Hash,
    /// The public-key algorithm.
    #[error("another public-key algorithm")]
    PublicKey,
    /// The key.
    #[error("another key ({0})")]
    Key(Fingerprint),
}
