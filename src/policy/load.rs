//! From files to the checked policy.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    check::{self, CheckedDocument},
    document::{API_VERSION, KINDS, Kind, RawDocument},
    layer::{Dialect, KeyWarning, Layer, MAX_KEY_WARNINGS, Policy},
    policy_json,
    rule::Rule,
    source_file::{KeyFileError, ReadKey, SourceFile},
};
use crate::diagnostic::{Diagnostic, MAX_DIAGNOSTICS, Span, did_you_mean, quoted};
use crate::image::{Digest, Scope};
use crate::text;
use crate::yaml::{self, Node, Value, YamlSource};

/// The most rules of a policy.
const MAX_RULES: usize = 10_000;

/// Reads and checks all files of a policy.
///
/// # Errors
/// Every mistake that can be found at once, in the order of the files. Never empty.
pub fn load(files: &[SourceFile], read_key: &mut ReadKey<'_>) -> Result<Policy, Vec<Diagnostic>> {
    let mut sorted: Vec<&SourceFile> = files.iter().collect();
    sorted.sort_by(|left, right| left.name.cmp(&right.name));
    let mut keys = Keys { read: BTreeMap::new(), reader: read_key };
    let mut merge = LayerMerge::default();
    let mut mistakes = Vec::new();
    for file in &sorted {
        if let Err(more) = load_file(file, &mut keys, &mut merge) {
            mistakes.extend(more);
        }
    }
    if mistakes.is_empty() && merge.cluster.is_none() {
        mistakes.push(nothing_for_the_cluster(&sorted, &merge));
    }
    if mistakes.is_empty() {
        mistakes.extend(merge.exemptions_without_a_rule());
    }
    if !mistakes.is_empty() {
        return Err(to_read(mistakes, &sorted));
    }
    let LayerMerge { layers, mut key_warnings, .. } = merge;
    key_warnings.truncate(MAX_KEY_WARNINGS);
    let mut policy = Policy { digest: Some(digest(&sorted, &keys.read)), key_warnings, ..Policy::default() };
    for (namespace, layer) in layers {
        match namespace {
            None => policy.cluster = layer,
            Some(namespace) => drop(policy.namespaces.insert(namespace, layer)),
        }
    }
    Ok(policy)
}

/// The first mistakes, each with its line, and how many more there are.
fn to_read(mut mistakes: Vec<Diagnostic>, files: &[&SourceFile]) -> Vec<Diagnostic> {
    let more = mistakes.len().saturating_sub(MAX_DIAGNOSTICS);
    mistakes.truncate(MAX_DIAGNOSTICS);
    let show = |mistake: Diagnostic| {
        let file = files.iter().find(|file| file.name == mistake.file).filter(|_| mistake.snippet.is_none());
        match file.and_then(|file| std::str::from_utf8(&file.bytes).ok()) {
            Some(text) => mistake.showing(text),
            None => mistake,
        }
    };
    let mut shown: Vec<Diagnostic> = mistakes.into_iter().map(show).collect();
    if let Some(last) = shown.last().filter(|_| more > 0) {
        let message = format!("... and {more} more");
        shown.push(Diagnostic::of_file(&last.file.clone(), message));
    }
    shown
}

fn nothing_for_the_cluster(files: &[&SourceFile], merge: &LayerMerge) -> Diagnostic {
    let file = files.first().map_or("", |file| &*file.name);
    if merge.layers.is_empty() {
        Diagnostic::of_file(file, "there is no policy here")
            .suggest(format!("begin a file with: apiVersion: {API_VERSION}, kind: {}", KINDS[0]))
    } else {
        Diagnostic::of_file(
            file,
            "there are policies of namespaces, but none of the cluster: every image would be refused",
        )
        .suggest("add a ClusterSealPolicy; a SealPolicy can only tighten what that one allows")
    }
}

/// Key files, each read once.
struct Keys<'r, 'k> {
    read: BTreeMap<PathBuf, Result<Vec<u8>, KeyFileError>>,
    reader: &'r mut ReadKey<'k>,
}

impl Keys<'_, '_> {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, KeyFileError> {
        if let Some(known) = self.read.get(path) {
            return known.clone();
        }
        let bytes = (self.reader)(path);
        self.read.insert(path.to_owned(), bytes.clone());
        bytes
    }
}

/// The layers as they grow, and where everything stands that may be there only once.
#[derive(Default)]
struct LayerMerge {
    layers: BTreeMap<Option<Box<str>>, Layer>,
    scopes: HashMap<(Option<Box<str>>, Scope), FirstPlace>,
    documents: HashMap<(Option<Box<str>>, Box<str>), FirstPlace>,
    /// The first document that is about the cluster, and its dialect.
    cluster: Option<(Dialect, FirstPlace)>,
    rules: usize,
    key_warnings: Vec<KeyWarning>,
}

/// A place in a file, to be named in a message about another place.
#[derive(Clone)]
struct FirstPlace {
    file: Box<str>,
    place: Span,
}

fn load_file(file: &SourceFile, keys: &mut Keys<'_, '_>, merge: &mut LayerMerge) -> Result<(), Vec<Diagnostic>> {
    let text = text::utf8(&file.name, &file.bytes).map_err(|mistake| vec![*mistake])?;
    let source = YamlSource { name: &file.name, text };
    let documents = yaml::parse(source);
    if is_policy_json(file, text, documents.as_deref().unwrap_or_default()) {
        let (layer, key_warnings) = policy_json::load(file, &mut |path| keys.read(path))?;
        merge.key_warnings.extend(key_warnings);
        let start = FirstPlace { file: file.name.clone(), place: Span { line: 1, column: 1, width: 1 } };
        merge.only_one_dialect(source, Dialect::PolicyJson, &start)?;
        merge.layers.insert(None, layer);
        return Ok(());
    }
    let documents = documents?;
    if documents.is_empty() {
        return Err(vec![Diagnostic::of_file(&file.name, "the file is empty").suggest("delete it, or write a policy")]);
    }
    let mut mistakes = Vec::new();
    for document in &documents {
        if let Err(more) = load_document(source, &file.folder, document, keys, merge) {
            mistakes.extend(more);
        }
    }
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}

/// A file in JSON without `apiVersion` and `kind` is containers-policy.json(5).
fn is_policy_json(file: &SourceFile, text: &str, documents: &[Node]) -> bool {
    let json =
        text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']).starts_with('{') || file.name.ends_with(".json");
    let ours = documents.iter().any(|document| document.get("apiVersion").or(document.get("kind")).is_some());
    json && !ours
}

fn load_document(
    source: YamlSource<'_>,
    folder: &Path,
    node: &Node,
    keys: &mut Keys<'_, '_>,
    merge: &mut LayerMerge,
) -> Result<(), Vec<Diagnostic>> {
    if !is_policy(source, node).map_err(|mistake| vec![*mistake])? {
        return Ok(());
    }
    let (raw, mut mistakes) = yaml::read::<RawDocument>(source, node);
    let Some(raw) = raw else { return Err(mistakes) };
    let at = raw.metadata.name.place;
    merge.rules += raw.spec.rules.len();
    if merge.rules > MAX_RULES {
        // Not looked at: a mistake in each would take long to tell.
        return Err(vec![source.mistake(at, format!("a policy has at most {MAX_RULES} rules"))]);
    }
    let key = raw.metadata.name.key;
    let (document, more) = check::check_document(source, folder, raw, &mut |path| keys.read(path));
    mistakes.extend(more);
    let here = FirstPlace { file: source.name.into(), place: at };
    if let Err(more) = merge.add(source, document, &FirstPlace { place: key, ..here }, at) {
        mistakes.extend(more);
    }
    mistakes.sort_by_key(|mistake| mistake.place);
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}

/// Looks at `apiVersion` and `kind`; false for documents that are not about what may run.
fn is_policy(source: YamlSource<'_>, node: &Node) -> Result<bool, Box<Diagnostic>> {
    let mistake =
        |place, message: String, suggestion: String| Box::new(source.mistake(place, message).suggest(suggestion));
    let Value::Map(entries) = &node.value else {
        let message = format!("a policy is a map, found {}", node.value.describe());
        return Err(mistake(node.place, message, format!("begin with: apiVersion: {API_VERSION}")));
    };
    let field = |name: &str| {
        node.get(name).ok_or_else(|| {
            let misspelt = entries.iter().find_map(|(key, _)| {
                let found = key.as_text()?;
                did_you_mean(found, [name]).map(|_| (key.place, found))
            });
            match misspelt {
                Some((place, found)) => {
                    mistake(place, format!("unknown field {}", quoted(found)), format!("did you mean {name}?"))
                }
                None => mistake(
                    node.place,
                    format!("the field {name:?} is missing"),
                    format!("a policy begins with: apiVersion: {API_VERSION}, kind: {} or {}", KINDS[0], KINDS[1]),
                ),
            }
        })
    };
    let version = field("apiVersion")?;
    if version.as_text() != Some(API_VERSION) {
        let message = format!("this apiVersion is not known here: {}", version.value.describe());
        return Err(mistake(version.place, message, format!("write {API_VERSION}")));
    }
    let kind = field("kind")?;
    let found = match kind.as_text() {
        Some("ClusterSealPolicy" | "SealPolicy") => return Ok(true),
        Some("PolicyTest") => return Ok(false),
        Some("Configuration") => {
            let message = "this is the configuration, not a policy".to_owned();
            return Err(mistake(kind.place, message, "keep it in another folder than the policies".to_owned()));
        }
        found => found.unwrap_or_default(),
    };
    let suggestion = match did_you_mean(found, KINDS) {
        Some(kind) => format!("did you mean {kind}?"),
        None => format!("write one of: {}", KINDS.join(", ")),
    };
    Err(mistake(kind.place, format!("this kind is not known here: {}", kind.value.describe()), suggestion))
}

impl LayerMerge {
    fn add(
        &mut self,
        source: YamlSource<'_>,
        document: CheckedDocument,
        here: &FirstPlace,
        name_place: Span,
    ) -> Result<(), Vec<Diagnostic>> {
        let CheckedDocument { kind, name, namespace, rules, exemptions, key_warnings } = document;
        self.key_warnings.extend(key_warnings);
        if kind == Kind::ClusterSealPolicy {
            self.only_one_dialect(source, Dialect::Sealgate, here)?;
        }
        let mut mistakes = Vec::new();
        if let Some(first) = self.documents.get(&(namespace.clone(), name.clone())) {
            mistakes.push(
                source
                    .mistake(name_place, format!("two policies are called {}", quoted(&name)))
                    .related(&first.file, first.place, "the other one")
                    .suggest("give each its own name: messages, metrics and logs call rules by it"),
            );
        }
        self.documents.entry((namespace.clone(), name)).or_insert_with(|| here.clone());
        for (rule, scopes) in rules {
            for (scope, place) in scopes {
                mistakes.extend(self.add_scope(source, namespace.as_deref(), &rule, scope, place));
            }
        }
        let layer = self.layers.entry(namespace).or_default();
        layer.exemptions.extend(exemptions.into_iter().map(Arc::new));
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    fn add_scope(
        &mut self,
        source: YamlSource<'_>,
        namespace: Option<&str>,
        rule: &Arc<Rule>,
        scope: Scope,
        place: Span,
    ) -> Option<Diagnostic> {
        let key = (namespace.map(Box::from), scope.clone());
        if let Some(first) = self.scopes.get(&key) {
            let layer = self.layers.get(&key.0)?;
            let other = layer.rules.get_exact(&scope)?;
            let message = if other.id == rule.id {
                format!("the scope {scope} stands twice in rule {}", rule.id)
            } else {
                format!("the scope {scope} stands in two rules: {} and {}", other.id, rule.id)
            };
            return Some(
                source.mistake(place, message).related(&first.file, first.place, "it stands here first").suggest(
                    "of the rules that cover an image, the one with the most specific scope decides alone; keep one",
                ),
            );
        }
        self.scopes.insert(key, FirstPlace { file: source.name.into(), place });
        let layer = self.layers.entry(namespace.map(Box::from)).or_default();
        // Can't be there already: `scopes` says so.
        let _ = layer.rules.insert(scope, Arc::clone(rule));
        None
    }

    /// An exemption of a namespace lifts what that namespace's rules refuse. Without a rule it does nothing, and its
    /// author believes that it does.
    fn exemptions_without_a_rule(&self) -> Vec<Diagnostic> {
        let idle = self.layers.iter().filter(|(_, layer)| !layer.exemptions.is_empty() && layer.rules.is_empty());
        let mistake = |namespace: &str| {
            let key = Some(Box::from(namespace));
            let documents = self.documents.iter().filter(|((of, _), _)| *of == key).map(|(_, stands)| stands);
            let first = documents.min_by_key(|stands| (&stands.file, stands.place))?;
            let message = format!(
                "namespace {namespace} has exemptions and no rule: they lift only what rules of the same namespace refuse"
            );
            let suggestion = format!("put them into a ClusterSealPolicy, with namespaces: [{namespace}]");
            Some(Diagnostic::at_place(&first.file, first.place, message).suggest(suggestion))
        };
        idle.filter_map(|(namespace, _)| namespace.as_deref().and_then(mistake)).collect()
    }

    fn only_one_dialect(
        &mut self,
        source: YamlSource<'_>,
        dialect: Dialect,
        here: &FirstPlace,
    ) -> Result<(), Vec<Diagnostic>> {
        let Some((first_dialect, first)) = &self.cluster else {
            self.cluster = Some((dialect, here.clone()));
            return Ok(());
        };
        let message = match (first_dialect, dialect) {
            (Dialect::Sealgate, Dialect::Sealgate) => return Ok(()),
            (Dialect::PolicyJson, Dialect::PolicyJson) => "there are two policy.json files; they can't be put together",
            _ => {
                "a policy.json and a ClusterSealPolicy can't be put together: in each, the most specific scope decides alone"
            }
        };
        let mistake = source.mistake(here.place, message).related(&first.file, first.place, "the other one");
        Err(vec![mistake.suggest(format!("keep one of {} and {}", first.file, source.name))])
    }
}

/// The digest over all that was read. Names count, folders don't: two replicas that mount one policy at different places
/// have the same.
fn digest(files: &[&SourceFile], keys: &BTreeMap<PathBuf, Result<Vec<u8>, KeyFileError>>) -> Digest {
    let folder = files.first().map(|file| &*file.folder);
    let relative = |path: &Path| {
        let inside = folder.and_then(|folder| path.strip_prefix(folder).ok()).unwrap_or(path);
        inside.as_os_str().as_encoded_bytes().to_vec()
    };
    let mut parts: Vec<(Vec<u8>, &[u8])> =
        files.iter().map(|file| (relative(Path::new(&*file.name)), file.bytes.as_slice())).collect();
    parts.extend(keys.iter().filter_map(|(path, bytes)| Some((relative(path), bytes.as_deref().ok()?))));
    parts.sort_unstable();
    let mut all = Vec::new();
    for part in parts.iter().flat_map(|(name, bytes)| [name.as_slice(), bytes]) {
        all.extend_from_slice(&(part.len() as u64).to_be_bytes());
        all.extend_from_slice(part);
    }
    Digest::sha256(&all)
}

#[cfg(test)]
mod tests;
