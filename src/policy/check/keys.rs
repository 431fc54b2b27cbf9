//! The keys of a document, inline or in files.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::checker::Checker;
use crate::diagnostic::{Span, is_short, quoted};
use crate::policy::{document::RawKey, layer::KeyWarning, rule::Signer, source_file::KeyFileError};
use crate::signature::{CertificateError, Fingerprint, Keyring, Keys};
use crate::yaml::{Entries, Lenient, Located};

/// Reads the key file at a path.
pub(super) type ReadFile<'a> = dyn FnMut(&Path) -> Result<Vec<u8>, KeyFileError> + 'a;

impl Checker<'_> {
    pub(super) fn check_keys(&mut self, keys: Entries<Lenient<RawKey>>, folder: &Path, read_key: &mut ReadFile<'_>) {
        let mut owners: BTreeMap<Fingerprint, (Box<str>, Span)> = BTreeMap::new();
        for (name, Lenient(key)) in keys.0 {
            self.check_name(&name, "a key");
            let signer = key.and_then(|key| self.read_signer(&name, key, folder, read_key));
            for certificate in signer.iter().flat_map(|signer| &signer.certificates) {
                let fingerprint = certificate.fingerprint();
                match owners.get(&fingerprint) {
                    Some((owner, first)) if *owner != name.value => {
                        let message = format!(
                            "one certificate stands under two names: {fingerprint} is {} and {}",
                            quoted(owner),
                            quoted(&name.value)
                        );
                        let mistake = self.source.mistake(name.place, message);
                        let mistake = mistake.related(self.source.name, *first, "it stands here first");
                        self.mistakes.push(
                            mistake
                                .suggest("keep one name: a threshold counts names, and one signer would count twice"),
                        );
                    }
                    _ => drop(owners.insert(fingerprint, (name.value.clone(), name.place))),
                }
            }
            self.signers.insert(name.value, signer.map(Arc::new));
        }
    }

    fn read_signer(
        &mut self,
        name: &Located<Box<str>>,
        key: RawKey,
        folder: &Path,
        read_key: &mut ReadFile<'_>,
    ) -> Option<Signer> {
        let (bytes, what, place) = match key {
            RawKey::Inline(text) => (text.value.into_string().into_bytes(), "the inline key".to_owned(), text.key),
            RawKey::File(file) => {
                if file.is_empty() {
                    self.note_mistake(file.place, "a key file's path is expected, found nothing");
                    return None;
                }
                if file.contains(['\n', '\r']) || file.contains("-----BEGIN") {
                    let message = format!("{} has a key in the place of a file's path", quoted(&name.value));
                    self.note_mistake_with_help(file.place, message, "write inline: in the place of file:");
                    return None;
                }
                let what =
                    if is_short(&file) { format!("key file {:?}", file.value) } else { "the key file".to_owned() };
                match read_key(&folder.join(&*file.value)) {
                    Ok(bytes) => (bytes, what, file.place),
                    Err(error) => {
                        let message = format!("{what} of {}: {error}", quoted(&name.value));
                        let suggestion = match error {
                            KeyFileError::Missing => "paths are relative to the folder of this file",
                            KeyFileError::NotAFile => "name the file with the certificates",
                            KeyFileError::TooLarge { .. } => "export only this signer's certificates",
                            KeyFileError::Unreadable(_) => "see to it that the user that sealgate runs as may read it",
                        };
                        self.note_mistake_with_help(file.place, message, suggestion);
                        return None;
                    }
                }
            }
        };
        let Keys { certificates, notices } = match Keyring::read(&bytes) {
            Ok(keys) if !keys.certificates.is_empty() => keys,
            Ok(_) => return self.refuse_certificate(place, &what, name, &CertificateError::Empty),
            Err(error) => return self.refuse_certificate(place, &what, name, &error),
        };
        KeyWarning::add(&mut self.key_warnings, &name.value, notices);
        Some(Signer { name: name.value.clone(), certificates: certificates.into_iter().map(Arc::new).collect() })
    }

    fn refuse_certificate(
        &mut self,
        place: Span,
        what: &str,
        name: &Located<Box<str>>,
        error: &CertificateError,
    ) -> Option<Signer> {
        let suggestion = match error {
            CertificateError::Private(_) | CertificateError::PrivateUnusable(_) => {
                "a policy needs public keys only; take the private one away from here"
            }
            CertificateError::Unusable(_) => {
                "let the signer make a key of another kind, like Ed25519, NIST P-256 or RSA with 3072 bits"
            }
            CertificateError::Utf16 => "export it anew: gpg --armor --output FILE --export FINGERPRINT",
            _ => "export the signer's public key with: gpg --armor --export FINGERPRINT",
        };
        self.note_mistake_with_help(place, format!("{what} of {}: {error}", quoted(&name.value)), suggestion);
        None
    }
}
