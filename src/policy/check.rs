//! One policy document: from what is written to what is meant.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    document::{
        Kind, RawDocument, RawExemption, RawIdentity, RawKey, RawMatch, RawPlatforms, RawReason, RawRemap,
        RawRequirement, RawRule,
    },
    layer::KeyWarning,
    rule::{Action, Exemption, Identity, Platforms, Requirement, Requirements, Rule, RuleId, Signer},
    source_file::KeyFileError,
};
use crate::diagnostic::{Diagnostic, Span, did_you_mean, is_short, quoted};
use crate::image::{Reference, Repository, Scope, ScopeError, ScopeMap};
use crate::signature::{CertificateError, Fingerprint, Keyring, Keys};
use crate::yaml::{Entries, Lenient, Located, YamlSource};

/// The longest name of a document, rule, key or exemption.
const MAX_NAME_LENGTH: usize = 63;

/// The longest that a signature may be said to hold, which is to say: for ever.
const MAX_SIGNATURE_AGE: Duration = Duration::from_hours(876_600);

/// A rule with its scopes and where they stand.
type CheckedRule = (Arc<Rule>, Vec<(Scope, Span)>);

/// A document without its place among others.
pub(super) struct CheckedDocument {
    pub(super) kind: Kind,
    pub(super) name: Box<str>,
    pub(super) namespace: Option<Box<str>>,
    pub(super) rules: Vec<CheckedRule>,
    pub(super) exemptions: Vec<Exemption>,
    pub(super) key_warnings: Vec<KeyWarning>,
}

type ReadFile<'a> = dyn FnMut(&Path) -> Result<Vec<u8>, KeyFileError> + 'a;

/// Checks a document. What is good in it comes with what is not, so that it can be checked against other documents.
pub(super) fn document(
    source: YamlSource<'_>,
    folder: &Path,
    raw: RawDocument,
    read_key: &mut ReadFile<'_>,
) -> (CheckedDocument, Vec<Diagnostic>) {
    let RawDocument { kind, metadata, spec, .. } = raw;
    let mut check = Check {
        source,
        mistakes: Vec::new(),
        signers: HashMap::new(),
        key_warnings: Vec::new(),
        document: String::new(),
    };
    check.name(&metadata.name, "a policy");
    let namespace = check.namespace(kind, metadata.namespace.as_ref(), metadata.name.key);
    check.document = match &namespace {
        Some(namespace) => format!("{namespace}/{}", *metadata.name),
        None => metadata.name.value.to_string(),
    };
    check.keys(spec.keys, folder, read_key);
    if spec.rules.is_empty() && spec.exemptions.is_empty() {
        let message = format!("policy {} has neither rules nor exemptions", quoted(&metadata.name.value));
        check.mistakes.push(source.mistake(metadata.name.place, message).suggest("add rules, or delete it"));
    }
    let mut names = HashMap::new();
    let mut rules = Vec::new();
    for raw in spec.rules.into_iter().filter_map(|Lenient(rule)| rule) {
        check.only_once(&mut names, &raw.name, "rules");
        rules.extend(check.rule(raw, spec.mode.map(Into::into)));
    }
    let mut names = HashMap::new();
    let mut exemptions = Vec::new();
    for raw in spec.exemptions.into_iter().filter_map(|Lenient(exemption)| exemption) {
        check.only_once(&mut names, &raw.name, "exemptions");
        exemptions.extend(check.exemption(raw, namespace.as_deref()));
    }
    let Check { mistakes, key_warnings, .. } = check;
    let document = CheckedDocument { kind, name: metadata.name.value, namespace, rules, exemptions, key_warnings };
    (document, mistakes)
}

struct Check<'a> {
    source: YamlSource<'a>,
    mistakes: Vec<Diagnostic>,
    /// By name; nothing where the key could not be read, which is a mistake by itself.
    signers: HashMap<Box<str>, Option<Arc<Signer>>>,
    key_warnings: Vec<KeyWarning>,
    /// What stands before the slash in the names of rules.
    document: String,
}

impl Check<'_> {
    fn mistake(&mut self, place: Span, message: impl Into<String>) {
        self.mistakes.push(self.source.mistake(place, message));
    }

    fn mistake_with_help(&mut self, place: Span, message: impl Into<String>, suggestion: impl Into<String>) {
        self.mistakes.push(self.source.mistake(place, message).suggest(suggestion));
    }

    fn name(&mut self, name: &Located<Box<str>>, of: &str) {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@' | b'+');
        if name.is_empty() || name.len() > MAX_NAME_LENGTH || !name.bytes().all(word) {
            let message = format!("the name of {of} has 1 to {MAX_NAME_LENGTH} characters of A-Z a-z 0-9 . _ - @ +");
            self.mistake(name.place, message);
        }
    }

    fn only_once(&mut self, names: &mut HashMap<Box<str>, Span>, name: &Located<Box<str>>, what: &str) {
        self.name(name, if what == "rules" { "a rule" } else { "an exemption" });
        match names.get(&name.value) {
            Some(&first) => {
                let mistake = self
                    .source
                    .mistake(name.place, format!("two {what} of this policy are called {}", quoted(&name.value)));
                self.mistakes.push(mistake.related(self.source.name, first, "the other one"));
            }
            None => drop(names.insert(name.value.clone(), name.place)),
        }
    }

    fn namespace(&mut self, kind: Kind, namespace: Option<&Located<Box<str>>>, metadata: Span) -> Option<Box<str>> {
        match (kind, namespace) {
            (Kind::ClusterSealPolicy, None) => None,
            (Kind::ClusterSealPolicy, Some(namespace)) => {
                let message = "a ClusterSealPolicy has no namespace: it holds for the whole cluster";
                self.mistake_with_help(
                    namespace.key,
                    message,
                    "write kind: SealPolicy for the policy of one namespace",
                );
                None
            }
            (Kind::SealPolicy, None) => {
                let message = "a SealPolicy needs a namespace";
                self.mistake_with_help(metadata, message, "add namespace: ..., or write kind: ClusterSealPolicy");
                None
            }
            (Kind::SealPolicy, Some(namespace)) => {
                self.namespace_name(namespace);
                Some(namespace.value.clone())
            }
        }
    }

    /// A DNS label, as Kubernetes has it (RFC 1123).
    fn namespace_name(&mut self, name: &Located<Box<str>>) {
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 63 || !name.bytes().all(word) || name.starts_with('-') || name.ends_with('-')
        {
            let message = "a namespace's name has 1 to 63 characters of a-z 0-9 -, and no dash at an end";
            self.mistake(name.place, message);
        }
    }

    fn keys(&mut self, keys: Entries<Lenient<RawKey>>, folder: &Path, read_key: &mut ReadFile<'_>) {
        let mut owners: BTreeMap<Fingerprint, (Box<str>, Span)> = BTreeMap::new();
        for (name, Lenient(key)) in keys.0 {
            self.name(&name, "a key");
            let signer = key.and_then(|key| self.signer(&name, key, folder, read_key));
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

    fn signer(
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
                    self.mistake(file.place, "a key file's path is expected, found nothing");
                    return None;
                }
                if file.contains(['\n', '\r']) || file.contains("-----BEGIN") {
                    let message = format!("{} has a key in the place of a file's path", quoted(&name.value));
                    self.mistake_with_help(file.place, message, "write inline: in the place of file:");
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
                        self.mistake_with_help(file.place, message, suggestion);
                        return None;
                    }
                }
            }
        };
        let Keys { certificates, notices } = match Keyring::read(&bytes) {
            Ok(keys) if !keys.certificates.is_empty() => keys,
            Ok(_) => return self.no_certificate(place, &what, name, &CertificateError::Empty),
            Err(error) => return self.no_certificate(place, &what, name, &error),
        };
        KeyWarning::add(&mut self.key_warnings, &name.value, notices);
        Some(Signer { name: name.value.clone(), certificates: certificates.into_iter().map(Arc::new).collect() })
    }

    fn no_certificate(
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
        self.mistake_with_help(place, format!("{what} of {}: {error}", quoted(&name.value)), suggestion);
        None
    }

    fn scopes(&mut self, images: &Located<Vec<Located<Box<str>>>>, of: &str) -> Vec<(Scope, Span)> {
        if images.is_empty() {
            self.mistake_with_help(
                images.key,
                format!("{of} covers no image"),
                "name scopes, like registry.example.com/acme, or \"*\" for everything",
            );
        }
        let mut scopes = Vec::new();
        for text in &images.value {
            match Scope::parse(text) {
                Ok(scope) => scopes.push((scope, text.place)),
                Err(error) => {
                    let suggestion = match &error {
                        ScopeError::NoHost { suggestion } => Some(format!("write {suggestion}")),
                        ScopeError::TrailingSlash => Some(format!("write {}", text.trim_end_matches('/'))),
                        ScopeError::HasTag => {
                            let last = text.rfind('/').unwrap_or(0);
                            text[last..].find(':').map(|colon| format!("write {}", &text[..last + colon]))
                        }
                        ScopeError::Star if text.ends_with("/*") => {
                            Some(format!("write {}: it covers everything below it", text.trim_end_matches("/*")))
                        }
                        _ => None,
                    };
                    let message = format!("{} is not a scope: {error}", quoted(&text.value));
                    let suggestion = suggestion.filter(|_| is_short(text));
                    self.mistakes.push(self.source.mistake(text.place, message).suggest_maybe(suggestion));
                }
            }
        }
        scopes
    }

    fn rule(&mut self, raw: RawRule, mode: Option<super::Mode>) -> Option<CheckedRule> {
        let RawRule { name, images, mode: own_mode, require, platforms, allow, deny } = raw;
        let scopes = self.scopes(&images, &format!("rule {}", quoted(&name.value)));
        let said: Vec<(&str, Span)> = [
            require.as_ref().map(|require| ("require", require.key)),
            allow.as_ref().map(|allow| ("allow", allow.key)),
            deny.as_ref().map(|deny| ("deny", deny.key)),
        ]
        .into_iter()
        .flatten()
        .collect();
        match said.as_slice() {
            [_] => {}
            [] => {
                let message = format!("rule {} does not say what it does", quoted(&name.value));
                self.mistake_with_help(name.place, message, "add one of require, allow and deny");
            }
            [(first_word, first), .., (word, second)] => {
                let message = format!("rule {} has both {first_word} and {word}", quoted(&name.value));
                let mistake = self.source.mistake(*second, message);
                let mistake = mistake.related(self.source.name, *first, "the other one");
                self.mistakes.push(mistake.suggest("a rule has exactly one of require, allow and deny"));
            }
        }
        if let (Some(platforms), None) = (&platforms, &require) {
            let message = "platforms says which signatures of an index count; without require there are none to count";
            self.mistake_with_help(platforms.key, message, "leave it out");
        }
        let platforms = match platforms.map(|platforms| platforms.value) {
            None => Platforms::IndexOrEach,
            Some(RawPlatforms::Index) => Platforms::Index,
            Some(RawPlatforms::Each) => Platforms::Each,
        };
        let allow = allow.map(|allow| self.reason(&allow.value));
        let deny = deny.map(|deny| self.reason(&deny.value));
        let require = require.map(|require| self.requirements(require, &name));
        let action = match (require, allow, deny) {
            (Some(all), None, None) => Action::Require(Requirements { all: all?, platforms }),
            (None, Some(reason), None) => Action::Allow { reason: reason? },
            (None, None, Some(reason)) => Action::Deny { reason: reason? },
            _ => return None,
        };
        let id = RuleId::new(&self.document, &name);
        Some((Arc::new(Rule { id, mode: own_mode.map(Into::into).or(mode), action }), scopes))
    }

    fn reason(&mut self, raw: &RawReason) -> Option<Arc<str>> {
        self.not_blank(&raw.reason, "a reason").then(|| raw.reason.value.trim().into())
    }

    fn not_blank(&mut self, text: &Located<Box<str>>, what: &str) -> bool {
        let blank = text.trim().is_empty();
        if blank {
            self.mistake_with_help(
                text.place,
                format!("{what} is expected, found a blank text"),
                "people will ask: say why",
            );
        }
        !blank
    }

    /// Every requirement, or nothing if one is not good.
    fn requirements(
        &mut self,
        raw: Located<Vec<Lenient<RawRequirement>>>,
        rule: &Located<Box<str>>,
    ) -> Option<Vec<Requirement>> {
        if raw.is_empty() {
            let message = format!("rule {} requires nothing", quoted(&rule.value));
            self.mistake_with_help(raw.key, message, "add - signedBy: [...], or write allow: {reason: ...}");
            return None;
        }
        let written = raw.len();
        let good: Vec<Requirement> =
            raw.value.into_iter().filter_map(|Lenient(raw)| raw.and_then(|raw| self.requirement(raw))).collect();
        (good.len() == written).then_some(good)
    }

    fn requirement(&mut self, raw: RawRequirement) -> Option<Requirement> {
        let RawRequirement { signed_by, threshold, identity, max_age } = raw;
        let before = self.mistakes.len();
        if signed_by.is_empty() {
            self.mistake_with_help(signed_by.key, "signedBy names no key", "name keys of this document's keys");
        }
        let mut seen: HashMap<&str, Span> = HashMap::new();
        let mut signers = Vec::new();
        for name in &signed_by.value {
            if let Some(&first) = seen.get(&*name.value) {
                let mistake =
                    self.source.mistake(name.place, format!("{} stands twice in signedBy", quoted(&name.value)));
                self.mistakes.push(mistake.related(self.source.name, first, "it stands here first"));
                continue;
            }
            seen.insert(&name.value, name.place);
            match self.signers.get(&name.value) {
                Some(signer) => signers.push(signer.clone()),
                None => self.unknown_key(name),
            }
        }
        let threshold = match threshold {
            None => Some(NonZeroUsize::MIN),
            Some(threshold) => self.threshold(&threshold, seen.len()),
        };
        let identity = match identity {
            None => Some(Identity::RepoDigestOrExact),
            Some(identity) => self.identity(identity.value),
        };
        let max_age = max_age.map(|max_age| self.max_age(&max_age));
        if self.mistakes.len() > before {
            return None;
        }
        Some(Requirement {
            signed_by: signers.into_iter().collect::<Option<_>>()?,
            threshold: threshold?,
            identity: identity?,
            max_age: match max_age {
                None => None,
                Some(max_age) => Some(max_age?),
            },
        })
    }

    fn unknown_key(&mut self, name: &Located<Box<str>>) {
        let message = format!("this policy has no key called {}", quoted(&name.value));
        let mut known: Vec<&str> = self.signers.keys().map(|key| &**key).filter(|key| is_short(key)).collect();
        known.sort_unstable();
        let suggestion = match did_you_mean(&name.value, known.iter().copied()) {
            Some(key) => format!("did you mean {key}?"),
            None if !is_short(name) => "name keys of this document's keys; the keys themselves stand there".to_owned(),
            None if known.is_empty() => format!("add it: keys: {{{}: {{file: ...}}}}", name.value),
            None if known.len() > 10 => "keys are declared in the same document".to_owned(),
            None => format!("its keys: {}", known.join(", ")),
        };
        self.mistake_with_help(name.place, message, suggestion);
    }

    fn threshold(&mut self, threshold: &Located<i64>, names: usize) -> Option<NonZeroUsize> {
        let number = usize::try_from(threshold.value).ok().and_then(NonZeroUsize::new);
        match number {
            None => self.mistake(threshold.place, format!("a threshold is at least 1, found {}", threshold.value)),
            Some(number) if number.get() > names => {
                let message = format!("a threshold of {number} can't be met: signedBy has {names} different names");
                self.mistake_with_help(threshold.place, message, "name more keys, or lower the threshold");
            }
            Some(number) => return Some(number),
        }
        None
    }

    fn max_age(&mut self, text: &Located<Box<str>>) -> Option<Duration> {
        let duration = humantime::parse_duration(text);
        match duration {
            // Signatures know whole seconds; and where a signature is a hundred years old, its age is not what is wrong.
            Ok(duration) if duration < Duration::from_secs(1) || duration > MAX_SIGNATURE_AGE => {
                self.mistake(text.place, "maxAge is at least 1s, and at most 100y");
                None
            }
            Ok(duration) => Some(duration),
            Err(error) => {
                self.mistake_with_help(
                    text.place,
                    format!("{} is not a duration: {error}", quoted(text)),
                    "write it like 90d or 12h",
                );
                None
            }
        }
    }

    fn identity(&mut self, raw: RawIdentity) -> Option<Identity> {
        Some(match raw {
            RawIdentity::RepoDigestOrExact | RawIdentity::Match(RawMatch::RepoDigestOrExact) => {
                Identity::RepoDigestOrExact
            }
            RawIdentity::Exact | RawIdentity::Match(RawMatch::Exact) => Identity::Exact,
            RawIdentity::Repository | RawIdentity::Match(RawMatch::Repository) => Identity::Repository,
            RawIdentity::ExactReference(text) => match Reference::parse(&text) {
                Ok(reference) if reference.tag().is_none() && reference.digest().is_none() => {
                    let message = "exactReference needs a tag or a digest";
                    self.mistake_with_help(text.place, message, "add one, or write exactRepository");
                    return None;
                }
                Ok(reference) => Identity::ExactReference(reference),
                Err(error) => {
                    self.mistake(text.place, format!("{} is not an image reference: {error}", quoted(&text)));
                    return None;
                }
            },
            RawIdentity::ExactRepository(text) => match Repository::parse(&text) {
                Ok(repository) => Identity::ExactRepository(repository),
                Err(error) => {
                    self.mistake(text.place, format!("{} is not a repository: {error}", quoted(&text)));
                    return None;
                }
            },
            RawIdentity::Remap(RawRemap { from, to }) => {
                let (from, to) = (self.prefix(&from), self.prefix(&to));
                Identity::Remap { from: from?, to: to? }
            }
        })
    }

    fn prefix(&mut self, text: &Located<Box<str>>) -> Option<Box<str>> {
        match Scope::parse(text) {
            Ok(Scope::Prefix(prefix)) => return Some(prefix),
            Ok(_) => {
                let message = format!("{} is not a prefix: it is a host, or a host and a path", quoted(text));
                self.mistake(text.place, message);
            }
            Err(error) => self.mistake(text.place, format!("{} is not a prefix: {error}", quoted(text))),
        }
        None
    }

    fn exemption(&mut self, raw: RawExemption, namespace: Option<&str>) -> Option<Exemption> {
        let RawExemption { name, images, namespaces, until, approved_by, reason } = raw;
        let before = self.mistakes.len();
        let mut scopes: ScopeMap<()> = ScopeMap::default();
        for (scope, place) in self.scopes(&images, &format!("exemption {}", quoted(&name.value))) {
            let text = scope.to_string();
            if scopes.insert(scope, ()).is_err() {
                self.mistake(place, format!("the scope {text} stands twice in exemption {}", quoted(&name.value)));
            }
        }
        if let Some(namespaces) = &namespaces {
            if namespaces.is_empty() {
                self.mistake_with_help(
                    namespaces.key,
                    "namespaces names no namespace",
                    "leave it out if it holds in all",
                );
            }
            for name in &namespaces.value {
                self.namespace_name(name);
                if let Some(own) = namespace.filter(|own| **own != *name.value) {
                    let message =
                        format!("a policy of namespace {own} exempts nothing in another one, {}", quoted(&name.value));
                    self.mistake_with_help(name.place, message, "leave namespaces out");
                }
            }
        }
        let end = self.until(&until);
        self.not_blank(&approved_by, "who approved it");
        self.not_blank(&reason, "a reason");
        if self.mistakes.len() > before {
            return None;
        }
        Some(Exemption {
            id: RuleId::new(&self.document, &name),
            images: scopes,
            namespaces: namespaces
                .map(|names| names.value.into_iter().map(|name| name.value).collect())
                .unwrap_or_default(),
            until: end?,
            approved_by: approved_by.value.trim().into(),
            reason: reason.value.trim().into(),
        })
    }

    fn until(&mut self, text: &Located<Box<str>>) -> Option<Timestamp> {
        if let Ok(time) = text.parse::<Timestamp>() {
            return Some(time);
        }
        let suggestion = match text.parse::<jiff::civil::Date>() {
            Ok(date) => format!("write {date}T00:00:00Z"),
            Err(_) => "write a time with its zone, like 2027-01-31T00:00:00Z".to_owned(),
        };
        self.mistake_with_help(text.place, format!("{} is not a point in time", quoted(text)), suggestion);
        None
    }
}
