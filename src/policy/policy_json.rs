//! containers-policy.json(5), read as strictly as containers/image reads it (see docs/policy-json.md for where we are
//! stricter).

mod strict_json;
mod transports;

use std::{collections::HashMap, num::NonZeroUsize, ops::Range, path::Path, sync::Arc};

use self::strict_json::{Member, Problem, Value, quoted};
use super::{
    layer::{Dialect, KeyWarning, Layer},
    rule::{Action, Identity, Platforms, Requirement, Requirements, Rule, RuleId, Signer},
    source_file::{ReadKey, SourceFile},
};
use crate::base64_text;
use crate::diagnostic::{self, Diagnostic, MAX_DIAGNOSTICS, Span, did_you_mean};
use crate::image::{Reference, Scope, ScopeMap};
use crate::signature::{CertificateError, Keyring, Keys};
use crate::text;

/// The name in front of each rule's scope.
const DOCUMENT: &str = "policy.json";
/// The name of the rule for images without a scope of their own.
const DEFAULT: &str = "default";

/// Reads a `policy.json`.
///
/// # Errors
/// Everything that is wrong with it, as far as that can be seen in one go.
pub fn load(file: &SourceFile, read_key: &mut ReadKey<'_>) -> Result<(Layer, Vec<KeyWarning>), Vec<Diagnostic>> {
    let text = text::utf8(&file.name, &file.bytes).map_err(|mistake| vec![*mistake])?;
    let mut loader = Loader {
        folder: &file.folder,
        read_key,
        signers: HashMap::new(),
        problems: Vec::new(),
        key_warnings: Vec::new(),
    };
    let layer = Value::of_document(text).map(|document| loader.policy(&document));
    let problems = match layer {
        Ok(layer) if loader.problems.is_empty() => return Ok((layer, loader.key_warnings)),
        Ok(_) => loader.problems,
        Err(problem) => vec![problem],
    };
    // Finding a place takes a look at the whole file, so only those get one that will be shown.
    let mut problems = problems.into_iter();
    let mut diagnostics: Vec<Diagnostic> =
        problems.by_ref().take(MAX_DIAGNOSTICS).map(|problem| diagnostic(&file.name, text, problem)).collect();
    diagnostics.extend(problems.map(|problem| Diagnostic::of_file(&file.name, problem.message)));
    Err(diagnostics)
}

/// Returns whether an image that no scope names runs unsigned. `serve` accepts such a policy only with
/// `acceptAnythingByDefault: true`.
pub fn accepts_anything_by_default(layer: &Layer) -> bool {
    let default = layer.rules.get_exact(&Scope::Everything);
    default.is_some_and(|rule| matches!(rule.action, Action::Allow { .. }))
}

fn diagnostic(file: &str, text: &str, problem: Problem) -> Diagnostic {
    let place = Span::of_bytes(text, problem.place);
    Diagnostic::at(file, text, place, problem.message).suggest_maybe(problem.suggestion)
}

struct Loader<'r, 'k> {
    folder: &'r Path,
    read_key: &'r mut ReadKey<'k>,
    /// Each set of key sources is read once.
    signers: HashMap<KeySource, Option<Arc<Signer>>>,
    problems: Vec<Problem>,
    key_warnings: Vec<KeyWarning>,
}

/// One entry of a list of requirements.
#[derive(Debug)]
enum Entry {
    AcceptAnything,
    Reject,
    SignedBy { keys: KeySource, place: Range<usize>, identity: Identity },
    SignedBaseLayer,
}

/// The source of the keys of a `signedBy`: files, or data in the document.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum KeySource {
    Paths(Vec<String>),
    Data(Vec<u8>),
}

impl Loader<'_, '_> {
    fn policy(&mut self, document: &Value<'_>) -> Layer {
        let mut layer = Layer { dialect: Dialect::PolicyJson, rules: ScopeMap::literal(), ..Layer::default() };
        let Some(members) = self.noted(document.object("the policy")) else { return layer };
        let mut default = None;
        let mut docker = Vec::new();
        for member in members {
            match member.name.as_str() {
                "default" => default = Some(self.requirements(&member.value)),
                "transports" => docker = self.transports(&member.value),
                _ => self.problems.push(unknown(&member, "the policy", &["default", "transports"])),
            }
        }
        if default.is_none() {
            let place = document.place();
            let problem = Problem::at(place.start..place.start + 1, "the policy has no \"default\"");
            self.problems.push(problem.suggesting("add \"default\": [{\"type\": \"reject\"}]"));
        }
        // What the docker transport says of images without a scope of their own goes before what all transports share.
        let transport_default = docker.iter().any(|(scope, _)| *scope == Scope::Everything);
        let shared = default.flatten().filter(|_| !transport_default).map(|entries| (Scope::Everything, entries));
        for (scope, entries) in docker.into_iter().chain(shared) {
            let name = if scope == Scope::Everything { DEFAULT.to_owned() } else { scope.to_string() };
            if let Some(action) = self.action(entries) {
                let rule = Arc::new(Rule { id: RuleId::new(DOCUMENT, &name), mode: None, action });
                // Scopes are canonical as they stand, and members don't come twice.
                let _ = layer.rules.insert(scope, rule);
            }
        }
        layer
    }

    /// Reads every transport's section, and gives back that of `docker`.
    fn transports(&mut self, value: &Value<'_>) -> Vec<(Scope, Vec<Entry>)> {
        let mut docker = Vec::new();
        for transport in self.noted(value.object("\"transports\"")).unwrap_or_default() {
            let what = format!("transport {}", quoted(&transport.name));
            for member in self.noted(transport.value.object(&what)).unwrap_or_default() {
                let entries = self.requirements(&member.value);
                if transport.name != "docker" {
                    if let Err(why) = transports::check_scope(&transport.name, &member.name) {
                        let message = format!("{what} knows no scope {}: {why}", quoted(&member.name));
                        self.problems.push(Problem::at(member.place, message));
                    }
                } else if let Some(scope) = self.noted(docker_scope(&member)) {
                    docker.extend(entries.map(|entries| (scope, entries)));
                }
            }
        }
        docker
    }

    /// Parses a list of requirements; reads no key.
    fn requirements(&mut self, value: &Value<'_>) -> Option<Vec<Entry>> {
        let list = self.noted(value.list("a list of requirements"))?;
        if list.is_empty() {
            let problem = Problem::at(value.place(), "a list of requirements must not be empty");
            self.problems.push(problem.suggesting("[{\"type\": \"reject\"}] refuses everything"));
            return None;
        }
        let parsed: Vec<_> = list.iter().map(|entry| self.noted(requirement(entry))).collect();
        parsed.into_iter().collect()
    }

    /// Returns the action of a rule: one `reject` refuses everything; `insecureAcceptAnything` beside other requirements
    /// adds nothing.
    fn action(&mut self, entries: Vec<Entry>) -> Option<Action> {
        let mut deny = None;
        let mut all = Vec::new();
        let mut complete = true;
        for entry in entries {
            match entry {
                Entry::AcceptAnything => {}
                Entry::Reject => deny = Some("policy.json rejects it"),
                Entry::SignedBaseLayer => {
                    deny = deny.or(Some("policy.json asks for signedBaseLayer, which nothing implements"));
                }
                Entry::SignedBy { keys, place, identity } => match self.signer(keys, &place) {
                    Some(signer) => all.push(Requirement {
                        signed_by: vec![signer],
                        threshold: NonZeroUsize::MIN,
                        identity,
                        max_age: None,
                    }),
                    None => complete = false,
                },
            }
        }
        match deny {
            _ if !complete => None,
            Some(reason) => Some(Action::Deny { reason: reason.into() }),
            None if all.is_empty() => Some(Action::Allow { reason: "policy.json accepts anything here".into() }),
            None => Some(Action::Require(Requirements { all, platforms: Platforms::Each })),
        }
    }

    /// Reads a keyring, once for all rules that name it. All its certificates count as one signer's.
    fn signer(&mut self, source: KeySource, place: &Range<usize>) -> Option<Arc<Signer>> {
        if let Some(known) = self.signers.get(&source) {
            return known.clone();
        }
        let signer = match self.read_keyring(&source) {
            Ok(signer) => Some(Arc::new(signer)),
            Err(message) => {
                self.problems.push(Problem::at(place.clone(), message));
                None
            }
        };
        self.signers.insert(source, signer.clone());
        signer
    }

    fn read_keyring(&mut self, source: &KeySource) -> Result<Signer, String> {
        let mut keyring = Keyring::default();
        let name = match source {
            KeySource::Data(bytes) => {
                keyring.add(bytes).map_err(|error| format!("keyData: {error}"))?;
                "keyData".to_owned()
            }
            KeySource::Paths(paths) => {
                for path in paths {
                    // A key that was put in the place of its path must not be shown.
                    let name = if diagnostic::is_short(path) || !path.contains('\n') { path } else { "this text" };
                    let bytes = (self.read_key)(&self.folder.join(path)).map_err(|why| format!("{name}: {why}"))?;
                    keyring.add(&bytes).map_err(|error| format!("{name}: {error}"))?;
                }
                paths.join(", ")
            }
        };
        let Keys { certificates, notices } = keyring.finish().map_err(|error| format!("{name}: {error}"))?;
        if certificates.is_empty() {
            return Err(format!("{name}: {}", CertificateError::Empty));
        }
        let name: Box<str> = name.into();
        KeyWarning::add(&mut self.key_warnings, &name, notices);
        Ok(Signer { name, certificates: certificates.into_iter().map(Arc::new).collect() })
    }

    fn noted<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }
}

/// A scope of the docker transport. containers/image takes any text here, and one that is not canonical never matches; as
/// no user would notice that, it is refused.
fn docker_scope(member: &Member<'_>) -> Result<Scope, Problem> {
    let text = member.name.as_str();
    let problem = |message: String| Problem::at(member.place.clone(), message);
    if text.is_empty() {
        return Ok(Scope::Everything);
    }
    if text == "*" {
        return Err(problem("the scope \"*\" would never match".into()).suggesting("\"\" covers every image"));
    }
    let scope = Scope::parse_with_tag(text).map_err(|error| problem(format!("the scope {}: {error}", quoted(text))))?;
    let canonical = scope.to_string();
    if canonical != text {
        let message = format!("the scope {} would never match: it is not written as images are named", quoted(text));
        return Err(problem(message).suggesting(format!("write {canonical:?}")));
    }
    Ok(scope)
}

fn requirement(value: &Value<'_>) -> Result<Entry, Problem> {
    let members = value.object("a requirement")?;
    let (kind, place) = kind(value, &members, "a requirement")?;
    match kind.as_str() {
        "insecureAcceptAnything" => {
            only(&members, &["type"], "insecureAcceptAnything")?;
            Ok(Entry::AcceptAnything)
        }
        "reject" => {
            only(&members, &["type"], "reject")?;
            Ok(Entry::Reject)
        }
        "signedBy" => signed_by(value, &members),
        "signedBaseLayer" => {
            only(&members, &["type", "baseLayerIdentity"], "signedBaseLayer")?;
            identity(&required(value, &members, "baseLayerIdentity", "signedBaseLayer")?.value)?;
            Ok(Entry::SignedBaseLayer)
        }
        "sigstoreSigned" => Err(Problem::at(place, "requirements of type \"sigstoreSigned\" can't be checked yet")
            .suggesting("use signedBy, or a rule of another reader for these images")),
        other => {
            let known = ["insecureAcceptAnything", "reject", "signedBy", "signedBaseLayer"];
            Err(Problem {
                suggestion: meant(other, &known),
                ..Problem::at(place, format!("unknown type {}", quoted(other)))
            })
        }
    }
}

fn signed_by(value: &Value<'_>, members: &[Member<'_>]) -> Result<Entry, Problem> {
    const SOURCES: [&str; 3] = ["keyPath", "keyPaths", "keyData"];
    only(members, &["type", "keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"], "signedBy")?;
    let key_type = required(value, members, "keyType", "signedBy")?;
    match key_type.value.string("\"keyType\"")?.as_str() {
        "GPGKeys" => {}
        other @ ("signedByGPGKeys" | "X509Certificates" | "signedByX509CAs") => {
            let message = format!("\"keyType\" {other:?} is implemented by no reader; images would never be accepted");
            return Err(Problem::at(key_type.value.place(), message).suggesting("\"keyType\": \"GPGKeys\""));
        }
        other => {
            let message = format!("unknown \"keyType\" {}", quoted(other));
            return Err(Problem::at(key_type.value.place(), message).suggesting("\"keyType\": \"GPGKeys\""));
        }
    }
    let mut sources = members.iter().filter(|member| SOURCES.contains(&member.name.as_str()));
    let one = "exactly one of \"keyPath\", \"keyPaths\" and \"keyData\" must be there";
    let source = sources.next().ok_or_else(|| Problem::at(value.place(), format!("{one}, found none")))?;
    if let Some(second) = sources.next() {
        return Err(Problem::at(second.place.clone(), format!("{one}, found several")));
    }
    let place = source.value.place();
    let keys = match source.name.as_str() {
        "keyData" => {
            let bytes = base64_text::decode(&source.value.string("\"keyData\"")?);
            KeySource::Data(bytes.map_err(|_| Problem::at(place.clone(), "\"keyData\" must be base64"))?)
        }
        "keyPaths" => {
            let list = source.value.list("\"keyPaths\"")?;
            KeySource::Paths(list.iter().map(|path| path.string("an entry of \"keyPaths\"")).collect::<Result<_, _>>()?)
        }
        _ => KeySource::Paths(vec![source.value.string("\"keyPath\"")?]),
    };
    let empty = match &keys {
        KeySource::Data(bytes) => bytes.is_empty(),
        KeySource::Paths(paths) => paths.is_empty() || paths.iter().any(String::is_empty),
    };
    if empty {
        return Err(Problem::at(place, format!("{:?} is empty", source.name)));
    }
    let identity = match members.iter().find(|member| member.name == "signedIdentity") {
        Some(member) => identity(&member.value)?,
        None => Identity::RepoDigestOrExact,
    };
    Ok(Entry::SignedBy { keys, place, identity })
}

fn identity(value: &Value<'_>) -> Result<Identity, Problem> {
    let members = value.object("an identity")?;
    let (kind, place) = kind(value, &members, "an identity")?;
    let text = |name: &str| {
        let member = required(value, &members, name, &kind)?;
        Ok::<_, Problem>((member.value.string(&format!("{name:?}"))?, member.value.place()))
    };
    match kind.as_str() {
        "matchExact" => only(&members, &["type"], &kind).map(|()| Identity::Exact),
        "matchRepoDigestOrExact" => only(&members, &["type"], &kind).map(|()| Identity::RepoDigestOrExact),
        "matchRepository" => only(&members, &["type"], &kind).map(|()| Identity::Repository),
        "exactReference" => {
            only(&members, &["type", "dockerReference"], &kind)?;
            let (text, place) = text("dockerReference")?;
            let reference = reference(&text, &place)?;
            if reference.tag().is_none() && reference.digest().is_none() {
                return Err(Problem::at(place, "\"dockerReference\" must have a tag or a digest"));
            }
            Ok(Identity::ExactReference(reference))
        }
        "exactRepository" => {
            only(&members, &["type", "dockerRepository"], &kind)?;
            let (text, place) = text("dockerRepository")?;
            Ok(Identity::ExactRepository(reference(&text, &place)?.repository().clone()))
        }
        "remapIdentity" => {
            only(&members, &["type", "prefix", "signedPrefix"], &kind)?;
            let (from, from_place) = text("prefix")?;
            let (to, to_place) = text("signedPrefix")?;
            Ok(Identity::Remap { from: prefix(&from, from_place)?, to: prefix(&to, to_place)? })
        }
        other => {
            let known = [
                "matchExact",
                "matchRepoDigestOrExact",
                "matchRepository",
                "exactReference",
                "exactRepository",
                "remapIdentity",
            ];
            Err(Problem {
                suggestion: meant(other, &known),
                ..Problem::at(place, format!("unknown type {}", quoted(other)))
            })
        }
    }
}

fn reference(text: &str, place: &Range<usize>) -> Result<Reference, Problem> {
    Reference::parse(text).map_err(|error| Problem::at(place.clone(), error.to_string()))
}

/// A prefix of `remapIdentity`: a host, or a host and a path.
fn prefix(text: &str, place: Range<usize>) -> Result<Box<str>, Problem> {
    match Scope::parse(text) {
        Ok(Scope::Prefix(prefix)) if *prefix == *text => Ok(prefix),
        Ok(Scope::Prefix(prefix)) => Err(Problem::at(place, "this prefix is not written as images are named")
            .suggesting(format!("write {:?}", &*prefix))),
        Ok(_) => Err(Problem::at(place, "a prefix is a host, or a host and a path")),
        Err(error) => Err(Problem::at(place, format!("a prefix is a host, or a host and a path: {error}"))),
    }
}

fn kind(value: &Value<'_>, members: &[Member<'_>], what: &str) -> Result<(String, Range<usize>), Problem> {
    let member = required(value, members, "type", what)?;
    Ok((member.value.string("\"type\"")?, member.value.place()))
}

fn required<'m, 'a>(
    value: &Value<'_>,
    members: &'m [Member<'a>],
    name: &str,
    what: &str,
) -> Result<&'m Member<'a>, Problem> {
    let found = members.iter().find(|member| member.name == name);
    found.ok_or_else(|| Problem::at(value.place(), format!("{what} must have {name:?}")))
}

fn only(members: &[Member<'_>], known: &[&str], what: &str) -> Result<(), Problem> {
    match members.iter().find(|member| !known.contains(&member.name.as_str())) {
        Some(member) => Err(unknown(member, what, known)),
        None => Ok(()),
    }
}

fn unknown(member: &Member<'_>, what: &str, known: &[&str]) -> Problem {
    let message = format!("{what} has no member {}", quoted(&member.name));
    Problem { suggestion: meant(&member.name, known), ..Problem::at(member.place.clone(), message) }
}

fn meant(found: &str, known: &[&str]) -> Option<String> {
    did_you_mean(found, known.iter().copied()).map(|word| format!("did you mean {word:?}?"))
}

#[cfg(test)]
mod tests;
