//! The comparison of the docker reference that was signed with the image that is to run.
//!
//! The semantics of containers-policy.json(5), "signedIdentity", as containers/image has them
//! (`policy_reference_match.go`). It knows no reference with both a tag and a digest. Ours: the digest is what is verified, so
//! that `RepoDigestOrExact` takes such an image as one by digest; `Exact` wants name and tag as signed.

use super::rule::Identity;
use crate::image::{Reference, Repository};

/// Returns whether `signed` stands in the required relation to `image`.
pub(crate) fn fits(identity: &Identity, image: &Reference, signed: &Reference) -> bool {
    match identity {
        Identity::RepoDigestOrExact => repo_digest_or_exact(image, signed),
        Identity::Exact => {
            let claimed = match (image.tag(), image.digest()) {
                (Some(tag), Some(_)) => Reference::from_parts(image.repository().clone(), Some(tag.clone()), None),
                _ => image.clone(),
            };
            exact(&claimed, signed) || exact(image, signed)
        }
        Identity::Repository => image.repository() == signed.repository(),
        Identity::ExactReference(wanted) => exact(wanted, signed),
        Identity::ExactRepository(wanted) => wanted == signed.repository(),
        Identity::Remap { from, to } => {
            remapped(image, from, to).is_some_and(|image| repo_digest_or_exact(&image, signed))
        }
    }
}

/// The image as signatures are to name it, with the prefix `from` of its name replaced by `to`. Where it has another prefix, it
/// stays as it is. Nothing where the new name is none.
pub(crate) fn remapped(image: &Reference, from: &str, to: &str) -> Option<Reference> {
    let name = image.repository().as_str();
    let rest = match name.strip_prefix(from) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => return Some(image.clone()),
    };
    let name = format!("{to}{rest}");
    let repository = Repository::parse(&name).ok()?;
    // `docker.io/nginx` is no canonical name, and containers/image does not make it one here.
    (repository.as_str() == name)
        .then(|| Reference::from_parts(repository, image.tag().cloned(), image.digest().copied()))
}

fn repo_digest_or_exact(image: &Reference, signed: &Reference) -> bool {
    if image.digest().is_some() {
        !is_name_only(signed) && image.repository() == signed.repository()
    } else {
        exact(image, signed)
    }
}

/// Both name one image, not a repository, and they are the same.
fn exact(image: &Reference, signed: &Reference) -> bool {
    !is_name_only(signed) && image == signed
}

fn is_name_only(reference: &Reference) -> bool {
    reference.tag().is_none() && reference.digest().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const OTHER: &str = "sha256:4028782c08eae4a8c9a28bf661c0a8d1c2fc8e19dbaae2b018b21011197e1484";

    fn reference(text: &str) -> Reference {
        Reference::parse(&text.replace("DIGEST", DIGEST).replace("OTHER", OTHER)).unwrap()
    }

    fn table(identity: &Identity, cases: &[(&str, &str, bool)]) {
        for (image, signed, expected) in cases {
            let found = fits(identity, &reference(image), &reference(signed));
            assert_eq!(found, *expected, "{identity:?}: image {image}, signed for {signed}");
        }
    }

    #[test]
    fn the_default_wants_the_tag_or_by_digest_the_repository() {
        table(
            &Identity::RepoDigestOrExact,
            &[
                ("r.example.com/a/x:1", "r.example.com/a/x:1", true),
                ("r.example.com/a/x:1", "r.example.com/a/x:2", false),
                ("r.example.com/a/x:1", "r.example.com/a/y:1", false),
                ("r.example.com/a/x:1", "r.example.com/a/x", false),
                ("r.example.com/a/x:1", "r.example.com/a/x@DIGEST", false),
                ("r.example.com/a/x:1", "r.example.com/a/x:1@DIGEST", false),
                ("r.example.com/a/x@DIGEST", "r.example.com/a/x:any", true),
                ("r.example.com/a/x@DIGEST", "r.example.com/a/x@OTHER", true),
                ("r.example.com/a/x@DIGEST", "r.example.com/a/x", false),
                ("r.example.com/a/x@DIGEST", "r.example.com/a/y:1", false),
                ("r.example.com/a/x:1@DIGEST", "r.example.com/a/x:2", true),
                ("r.example.com/a/x", "r.example.com/a/x", false),
                ("nginx:1", "docker.io/library/nginx:1", true),
            ],
        );
    }

    #[test]
    fn exact_wants_name_and_tag_as_signed() {
        table(
            &Identity::Exact,
            &[
                ("r.example.com/a/x:1", "r.example.com/a/x:1", true),
                ("r.example.com/a/x:1", "r.example.com/a/x:2", false),
                ("r.example.com/a/x@DIGEST", "r.example.com/a/x:1", false),
                ("r.example.com/a/x@DIGEST", "r.example.com/a/x@DIGEST", true),
                ("r.example.com/a/x@DIGEST", "r.example.com/a/x@OTHER", false),
                ("r.example.com/a/x:1@DIGEST", "r.example.com/a/x:1", true),
                ("r.example.com/a/x:1@DIGEST", "r.example.com/a/x:1@DIGEST", true),
                ("r.example.com/a/x:1@DIGEST", "r.example.com/a/x:2", false),
                ("r.example.com/a/x:1@DIGEST", "r.example.com/a/x@DIGEST", false),
                ("r.example.com/a/x", "r.example.com/a/x", false),
                ("r.example.com/a/x:1", "r.example.com/a/x", false),
            ],
        );
    }

    #[test]
    fn repository_takes_any_tag_or_none() {
        table(
            &Identity::Repository,
            &[
                ("r.example.com/a/x:1", "r.example.com/a/x:2", true),
                ("r.example.com/a/x:1", "r.example.com/a/x", true),
                ("r.example.com/a/x:1", "r.example.com/a/x/y:1", false),
                ("r.example.com/a/x:1", "r.example.com:5000/a/x:1", false),
            ],
        );
    }

    #[test]
    fn an_exact_reference_or_repository_ignores_what_was_asked_for() {
        let identity = Identity::ExactReference(reference("r.example.com/a/x:1"));
        table(&identity, &[("m.example.com/b/y:2", "r.example.com/a/x:1", true)]);
        table(&identity, &[("r.example.com/a/x:2", "r.example.com/a/x:2", false)]);
        table(&Identity::ExactReference(reference("r.example.com/a/x")), &[("q:1", "r.example.com/a/x", false)]);
        let identity = Identity::ExactRepository(Repository::parse("r.example.com/a/x").unwrap());
        table(&identity, &[("m.example.com/b/y:2", "r.example.com/a/x:7", true)]);
        table(&identity, &[("m.example.com/b/y:2", "r.example.com/a/x", true)]);
        table(&identity, &[("m.example.com/b/y:2", "m.example.com/b/y:2", false)]);
    }

    #[test]
    fn a_remapped_name_is_compared_as_the_default_does() {
        let identity = Identity::Remap { from: "m.example.com/acme".into(), to: "r.example.com/acme".into() };
        table(
            &identity,
            &[
                ("m.example.com/acme/x:1", "r.example.com/acme/x:1", true),
                ("m.example.com/acme/x:1", "m.example.com/acme/x:1", false),
                ("m.example.com/acme/x:1", "r.example.com/acme/x:2", false),
                ("m.example.com/acme/x@DIGEST", "r.example.com/acme/x:2", true),
                ("m.example.com/acme:1", "r.example.com/acme:1", true),
                ("m.example.com/acmes/x:1", "r.example.com/acmes/x:1", false),
                ("m.example.com/acmes/x:1", "m.example.com/acmes/x:1", true),
            ],
        );
        let host = Identity::Remap { from: "m.example.com".into(), to: "r.example.com:5000/mirror".into() };
        table(
            &host,
            &[
                ("m.example.com/x:1", "r.example.com:5000/mirror/x:1", true),
                ("m.example.com:5000/x:1", "r.example.com:5000/mirror/x:1", false),
                ("m.example.com:5000/x:1", "m.example.com:5000/x:1", true),
            ],
        );
        let hub = Identity::Remap { from: "m.example.com".into(), to: "docker.io".into() };
        table(&hub, &[("m.example.com/x:1", "docker.io/library/x:1", false)]);
        table(&hub, &[("m.example.com/library/x:1", "docker.io/library/x:1", true)]);
    }
}
