//! Images, and real signatures of them.

use jiff::Timestamp;
use sealgate::{
    gateway::store::{ImageId, Origin, Record, RepositoryName, SignatureName, StoredSignature},
    image::{Digest, Reference},
    signature::{Payload, compose},
};
use sequoia_openpgp::cert::CertBuilder;

/// The image of this number: one of a few thousand repositories' many.
pub(crate) fn image(number: u64) -> ImageId {
    let repository = RepositoryName::parse(&format!("acme/team-{:04}/web", number % 5000)).unwrap();
    ImageId { repository, digest: digest(number) }
}

pub(crate) fn digest(number: u64) -> Digest {
    Digest::sha256(&number.to_le_bytes())
}

/// Where an image's signatures are.
pub(crate) fn path(image: &ImageId) -> String {
    format!("/extensions/v2/{}/signatures/{}", image.repository.as_str(), image.digest)
}

pub(crate) fn name(number: u64) -> String {
    format!("{number:032x}")
}

/// Signatures by one key, of the images of these numbers.
pub(crate) fn signatures(numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    let cert = CertBuilder::new().add_userid("Acme <release@example.com>").generate().unwrap().0;
    let key = cert.primary_key().key().clone().parts_into_secret().unwrap();
    let sign = |number| {
        let identity =
            Reference::parse(&format!("registry.example.com/{}:1", image(number).repository.as_str())).unwrap();
        let payload = Payload { digest: digest(number), identity };
        compose(&payload, key.clone().into_keypair().unwrap(), Timestamp::now()).unwrap()
    };
    numbers.map(sign).collect()
}

/// As the store keeps it.
pub(crate) fn record(number: u64, content: &[u8]) -> Record {
    let name = SignatureName::parse(&name(number)).unwrap();
    let issuers = vec!["9F0C4A1D7E2B5836A4C1D0E9F8B7A6C5D4E3F201".into()];
    let origin = Origin { added_by: Some("robot".into()), added_at: Timestamp::now(), issuers };
    Record { signature: StoredSignature { name, content: content.into() }, origin: Some(origin), status: None }
}
