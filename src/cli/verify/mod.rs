//! `sealgate verify`: the gate's engine on the command line. Against a policy here, against an identity in `identity`.

mod candidate_keys;
mod identity;
mod identity_check;
mod identity_report;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use jiff::Timestamp;
use tokio::time::Instant;

use self::identity::IdentityArguments;
use super::arguments::Format;
use super::exit_status::{CliError, ExitStatus};
use super::image_arguments::{ImageArguments, ImageContext, Mirrors};
use super::report::VerifyReport;
use super::terminal::{self, Colours};
use crate::configuration::Configuration;
use crate::files::PolicyFiles;
use crate::gate::{Admission, CurrentPolicy, Decision, ImageUse};
use crate::image::Reference;
use crate::policy::{KeyWarning, Policy};
use crate::startup;
use crate::telemetry::{Metrics, logging};

/// The time limit of one image. No API server waits for the answer, so it is longer than a review's.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(30);

const AGAINST_A_POLICY: &str = "Against a policy";

#[derive(Args, Debug)]
pub(super) struct VerifyArguments {
    #[command(flatten)]
    image: ImageArguments,
    /// The policy: a policy file, a folder of them, or a policy.json. Default: the configuration's
    #[arg(
        short,
        long,
        value_name = "PATH",
        help_heading = AGAINST_A_POLICY,
        conflicts_with_all = ["expected_identity", "remove_all"]
    )]
    policy: Option<PathBuf>,
    /// Decide as for a pod in this namespace
    #[arg(short, long, value_name = "NAME", help_heading = AGAINST_A_POLICY, conflicts_with_all = ["expected_identity", "remove_all"])]
    namespace: Option<String>,
    #[command(flatten)]
    identity: IdentityArguments,
    /// The format of the result
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT", help_heading = None)]
    output: Format,
}

pub(super) fn run(arguments: &VerifyArguments) -> Result<ExitStatus, CliError> {
    let VerifyArguments { image, policy, namespace, identity, output } = arguments;
    logging::start(logging::Format::Text, "sealgate=warn,sealgate::gate=off")?;
    if identity.is_taken() {
        return identity.run(image, *output);
    }
    identity.must_be_unused()?;
    let ImageContext { image, mut configuration, .. } = image.read(Mirrors::Asked)?;
    configuration.webhook.deadline = VERIFY_TIMEOUT;
    let path = policy.as_ref().or(configuration.policies.as_ref());
    let path = path.ok_or_else(|| {
        CliError::usage(
            "say what the image has to meet: --policy FILE (or a --config with policies), or --expected-identity REFERENCE",
        )
    })?;
    // The user asks for the decisions of this policy, whatever its default is.
    let files = PolicyFiles { path: path.clone(), accept_anything_by_default: true, pin_required: false };
    let policy = files.load().map_err(CliError::usage_of)?;
    for KeyWarning { signer, notice } in &policy.key_warnings {
        tracing::warn!("keys of {signer}: {notice}");
    }
    let decide = decide(&configuration, policy, &image, namespace.as_deref());
    let decision = super::runtime::block_on(decide)??;
    let report = VerifyReport::new(&image.to_string(), &decision);
    terminal::print(&match output {
        Format::Text => report.text(Colours::of(&io::stdout())),
        Format::Json => report.json().map_err(CliError::undecided)? + "\n",
    })?;
    Ok(report.status())
}

async fn decide(
    configuration: &Configuration,
    policy: Policy,
    image: &Reference,
    namespace: Option<&str>,
) -> Result<Decision, CliError> {
    let policy = Arc::new(CurrentPolicy::new(policy));
    let gate = startup::engine(configuration, policy, None, Arc::new(Metrics::new())).map_err(CliError::usage_of)?;
    let text = image.to_string();
    let admission = Admission {
        namespace,
        images: &[ImageUse { text: &text, runs_as_written: false }],
        now: Timestamp::now(),
        deadline: Instant::now() + VERIFY_TIMEOUT,
        is_final: true,
    };
    let decision = gate.decide(&admission).await.map_err(CliError::undecided)?.into_iter().next();
    decision.ok_or_else(|| CliError::undecided("the gate gave no answer"))
}
