//! `sealgate verify`: the gate's engine on the command line.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use jiff::Timestamp;
use tokio::time::Instant;

use super::arguments::{Format, RegistryArguments};
use super::report::Report;
use super::status::{Failure, Status};
use super::terminal::{self, Colours};
use crate::configuration::{self, Configuration, Registries, Registry, SignatureSource};
use crate::diagnostic::Diagnostics;
use crate::files::{self, PolicyFiles};
use crate::gate::{Admission, CurrentPolicy, Decision, ImageUse};
use crate::image::{Reference, Repository, Scope, ScopeMap};
use crate::operations::{Metrics, logging};
use crate::policy::{Policy, SourceFile};
use crate::signatures::registries_d::Lookasides;
use crate::startup;

/// How long one image may take. Nobody's API server is waiting, so longer than a review.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The image; docker:// in front is allowed
    image: String,
    /// The policy: a policy file, a folder of them, or a policy.json. Left out: the configuration's
    #[arg(short, long, value_name = "PATH", required_unless_present = "config")]
    policy: Option<PathBuf>,
    /// The gate's configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A folder of containers-registries.d(5): where signatures lie, beside the registry's own extension
    #[arg(long, value_name = "FOLDER")]
    registries_d: Option<PathBuf>,
    /// Decide as for a pod in this namespace
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    registry: RegistryArguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    logging::start(logging::Format::Text, "sealgate=warn,sealgate::gate=off")?;
    let text = arguments.image.strip_prefix("docker://").unwrap_or(&arguments.image);
    let image = Reference::for_image(text).map_err(|error| Failure::usage(format_args!("{text:?}: {error}")))?;
    let mut configuration = configuration(arguments.config.as_deref())?;
    configuration.webhook.deadline = DEADLINE;
    let path = arguments.policy.as_ref().or(configuration.policies.as_ref());
    let path = path.ok_or_else(|| Failure::usage("name a policy with --policy; the configuration has none"))?;
    // Whoever asks wants to know what this policy says, whatever it is.
    let files = PolicyFiles { path: path.clone(), accept_anything_by_default: true };
    let policy = files.load().map_err(Failure::usage_of)?;
    let mut entry = entry_for(&configuration.registries, image.repository());
    arguments.registry.apply(&mut entry, image.repository())?;
    if let Some(folder) = &arguments.registries_d {
        let lookasides = Lookasides::read(folder).map_err(|mistakes| Failure::usage(Diagnostics(&mistakes)))?;
        if let Some(url) = lookasides.of(image.repository()) {
            let sources = entry.signatures.get_or_insert_with(|| vec![SignatureSource::RegistryExtension]);
            sources.push(SignatureSource::Lookaside(url.clone()));
        }
    }
    put(&mut configuration.registries, entry);
    let decide = decide(&configuration, policy, &image, arguments.namespace.as_deref());
    let decision = super::block_on(decide)??;
    let report = Report::new(&image.to_string(), &decision);
    terminal::print(&match arguments.output {
        Format::Text => report.text(Colours::of(&io::stdout())),
        Format::Json => report.json().map_err(Failure::undecided)? + "\n",
    })?;
    Ok(report.status())
}

/// The configuration, or what it is where there is none.
fn configuration(file: Option<&Path>) -> Result<Configuration, Failure> {
    if let Some(file) = file {
        return files::load_configuration(file).map_err(Failure::usage_of);
    }
    let defaults = SourceFile {
        name: "(defaults)".into(),
        folder: PathBuf::new(),
        bytes: b"apiVersion: sealgate.dev/v1\nkind: Configuration\n".to_vec(),
    };
    configuration::load(&defaults).map_err(|mistakes| Failure::usage(Diagnostics(&mistakes)))
}

async fn decide(
    configuration: &Configuration,
    policy: Policy,
    image: &Reference,
    namespace: Option<&str>,
) -> Result<Decision, Failure> {
    let policy = Arc::new(CurrentPolicy::new(policy));
    let gate = startup::engine(configuration, policy, None, Arc::new(Metrics::new())).map_err(Failure::usage_of)?;
    let text = image.to_string();
    let admission = Admission {
        namespace,
        images: &[ImageUse { text: &text, runs_as_written: false }],
        now: Timestamp::now(),
        deadline: Instant::now() + DEADLINE,
    };
    let decision = gate.decide(&admission).await.into_iter().next();
    decision.ok_or_else(|| Failure::undecided("the gate gave no answer"))
}

/// The registries entry that covers a repository, narrowed to it, so that what the command line says holds for nothing else.
fn entry_for(registries: &Registries, repository: &Repository) -> Registry {
    let narrow = Scope::Prefix(repository.as_str().into());
    let Some(entry) = registries.entries.get_repository(repository) else {
        return Registry {
            scope: narrow,
            ca_file: None,
            insecure: false,
            credentials: None,
            token_realms: Vec::new(),
            signatures: None,
            mirrors: Vec::new(),
        };
    };
    let mut entry = Registry::clone(entry);
    // A mirror has what lies below the entry's scope, and the scope becomes narrower.
    let rest = match &entry.scope {
        Scope::Prefix(prefix) => repository.as_str().strip_prefix(&**prefix).unwrap_or_default(),
        _ => &repository.as_str()[repository.host().len()..],
    };
    entry.mirrors = entry.mirrors.iter().map(|mirror| format!("{mirror}{rest}").into()).collect();
    entry.scope = narrow;
    entry
}

/// Puts an entry in the place of the one with its scope.
fn put(registries: &mut Registries, entry: Registry) {
    let mut entries = ScopeMap::default();
    for (scope, other) in registries.entries.iter().filter(|(scope, _)| *scope != entry.scope) {
        // Scopes of a map are different from each other.
        let _ = entries.insert(scope, Arc::clone(other));
    }
    let _ = entries.insert(entry.scope.clone(), Arc::new(entry));
    registries.entries = entries;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(scope: &str, mirrors: &[&str]) -> Registries {
        let mut registries = Registries::default();
        let mut entry = entry_for(&registries, &Repository::parse("nginx").unwrap());
        entry.scope = Scope::parse(scope).unwrap();
        entry.insecure = true;
        entry.mirrors = mirrors.iter().map(|&mirror| mirror.into()).collect();
        put(&mut registries, entry);
        registries
    }

    #[test]
    fn what_the_command_line_says_holds_for_the_images_repository_alone() {
        let mut registries = registries("r.example.com/acme", &["mirror.example.com/copies"]);
        let repository = Repository::parse("r.example.com/acme/web").unwrap();
        let mut entry = entry_for(&registries, &repository);
        assert!(entry.insecure);
        assert_eq!(&*entry.mirrors, &[Box::from("mirror.example.com/copies/web")]);
        entry.insecure = false;
        put(&mut registries, entry);
        let insecure = |name: &str| {
            let repository = Repository::parse(name).unwrap();
            registries.entries.get_repository(&repository).map(|entry| entry.insecure)
        };
        assert_eq!(insecure("r.example.com/acme/web"), Some(false));
        assert_eq!(insecure("r.example.com/acme/db"), Some(true));
        assert_eq!(insecure("r.example.com/web"), None);
    }

    #[test]
    fn a_mirror_of_a_whole_domain_has_what_lies_on_a_host() {
        let registries = registries("*.example.com", &["mirror.example.org"]);
        let entry = entry_for(&registries, &Repository::parse("r.example.com/acme/web").unwrap());
        assert_eq!(&*entry.mirrors, &[Box::from("mirror.example.org/acme/web")]);
    }

    #[test]
    fn an_entry_takes_the_place_of_the_one_with_its_scope() {
        let mut registries = registries("r.example.com/acme/web", &[]);
        let mut entry = entry_for(&registries, &Repository::parse("r.example.com/acme/web").unwrap());
        entry.insecure = false;
        put(&mut registries, entry);
        assert_eq!(registries.entries.iter().count(), 1);
        assert!(registries.entries.iter().all(|(_, entry)| !entry.insecure));
    }
}
