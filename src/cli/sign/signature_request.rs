//! The signature that is asked for: its identity, its destination, and the tag that has to name the image.

use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::destination;
use crate::cli::arguments::ShellCommand;
use crate::cli::exit_status::CliError;
use crate::cli::image_arguments::{self, ImageContext};
use crate::gate::ResolveDigest as _;
use crate::image::{Digest, Reference};
use crate::registry::Client;
use crate::signature_sources::{self, Destination};
use crate::signing::plan::{self, Plan};

/// The time limit of one step: finding out what is to be signed, or writing one signature. Typing a passphrase is no
/// step.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_mins(1);

/// The identity to sign, and the place of the signature.
#[derive(Args, Debug)]
#[command(next_help_heading = "Signature")]
pub(in crate::cli) struct SignatureArguments {
    /// The name that is signed (the identity), where it is another one than the image's
    #[arg(long, value_name = "REFERENCE")]
    pub(super) sign_identity: Option<String>,
    /// The place of the signature: `extension` (the registry's own), the URL of a store, or a lookaside folder. Default:
    /// the place where the configuration looks for this image's signatures first
    #[arg(long, value_name = "extension|URL|FOLDER")]
    to: Option<String>,
    /// Of an image index, sign the index alone. Nodes verify the manifest of their platform, and then find no signature
    #[arg(long)]
    index_only: bool,
    /// Sign again where a good signature of this key is there already, for rules with `maxAge`
    #[arg(long)]
    renew: bool,
}

/// The name to sign, the place to write, and how, checked.
pub(in crate::cli) struct SignatureRequest {
    pub(in crate::cli) identity: Reference,
    pub(in crate::cli) destination: Destination,
    /// The destination in place of the registry's extension, if the registry announces none.
    without_extension: Option<Destination>,
    /// The tag that has to name what is signed, before and after.
    pub(super) tag: Option<Reference>,
    pub(in crate::cli) index_only: bool,
    pub(super) renew: bool,
}

impl SignatureArguments {
    /// These arguments again, but for the identity, which another image may need.
    pub(in crate::cli) fn again(&self, command: &mut ShellCommand) {
        let Self { sign_identity: _, to, index_only, renew } = self;
        command.option("--to", to.as_ref());
        command.flag("--index-only", *index_only);
        command.flag("--renew", *renew);
    }

    pub(in crate::cli) fn read(&self, subject: &ImageContext) -> Result<SignatureRequest, CliError> {
        let identity = match &self.sign_identity {
            Some(text) => image_arguments::reference(text)
                .map_err(|failure| CliError::usage(format_args!("--sign-identity {failure}")))?,
            None => subject.image.clone(),
        };
        let identity = plan::identity_of(&identity);
        let (destination, without_extension) = match &self.to {
            Some(text) => (destination::parse(text)?, None),
            None => destination::configured(subject)?,
        };
        let Self { index_only, renew, .. } = *self;
        Ok(SignatureRequest { identity, destination, without_extension, tag: None, index_only, renew })
    }
}

/// The tag whose name would be signed: of `repo:tag@digest` the digest is signed under the tag's name, so that a tag which
/// names something else has to be said with `--sign-identity`.
pub(super) fn tag_of(image: &Reference, own_identity: bool) -> Option<Reference> {
    match image.digest() {
        None => Some(image.clone()),
        Some(_) if own_identity => None,
        Some(_) => image.tag().map(|tag| Reference::from_parts(image.repository().clone(), Some(tag.clone()), None)),
    }
}

impl SignatureRequest {
    /// Asks the registry whether it has an extension, if there is another place for signatures. containers/image does so, too.
    pub(in crate::cli) async fn choose_destination(
        &mut self,
        client: &Client,
        image: &Reference,
    ) -> Result<(), CliError> {
        let Some(folder) = self.without_extension.take() else { return Ok(()) };
        let announced =
            signature_sources::is_extension_announced(client, image.repository(), Instant::now() + STEP_TIMEOUT).await;
        if !announced.map_err(|error| CliError::from(error).about(image))? {
            self.destination = folder;
        }
        Ok(())
    }

    pub(super) async fn check_tag(&self, client: &Client, plan: &Plan) -> Result<(), CliError> {
        let Some(tag) = &self.tag else { return Ok(()) };
        let now = client
            .resolve(tag, Instant::now() + STEP_TIMEOUT)
            .await
            .map_err(|error| CliError::from(error).about(tag))?;
        if now.digest() == plan.digest {
            return Ok(());
        }
        Err(CliError::refused(format_args!(
            "{tag} names {} now, not {}, which was to be signed: nothing is written. Sign the tag again, or sign {} (with \
             --sign-identity {} only if it is to pass under that name)",
            now.digest(),
            plan.digest,
            by_digest(tag, plan.digest),
            self.identity,
        )))
    }
}

/// `repo@digest`: under this name no tag is claimed.
pub(in crate::cli) fn by_digest(image: &Reference, digest: Digest) -> Reference {
    Reference::from_parts(image.repository().clone(), None, Some(digest))
}
