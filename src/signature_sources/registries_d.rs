//! containers-registries.d(5): a folder of YAML files that map each registry to its lookaside.

use std::{collections::HashMap, fmt, fs, io, path::Path};

use url::Url;

use crate::diagnostic::{Diagnostic, Span, did_you_mean, quoted};
use crate::image::{Repository, Scope, ScopeMap};
use crate::redact::shown;
use crate::text;
use crate::yaml::{Node, Value, YamlSource, parse};

/// The maximum size of one file, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The members of a namespace.
const MEMBERS: [&str; 5] =
    ["lookaside", "lookaside-staging", "sigstore", "sigstore-staging", "use-sigstore-attachments"];

/// The lookasides of registries, by scope.
#[derive(Clone)]
pub struct Lookasides {
    by_scope: ScopeMap<Url>,
    /// The lookaside to write to, by scope; `None`: the one to read from.
    staging: ScopeMap<Option<Url>>,
    warnings: Vec<Diagnostic>,
}

impl Default for Lookasides {
    fn default() -> Self {
        Self { by_scope: ScopeMap::literal(), staging: ScopeMap::literal(), warnings: Vec::new() }
    }
}

/// Redacts the query of a URL, which may be a secret.
impl fmt::Debug for Lookasides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by_scope, staging, warnings } = self;
        let read = by_scope.iter().map(|(scope, url)| (scope, shown(url)));
        let written = staging.iter().filter_map(|(scope, url)| Some((scope, shown(url.as_ref()?))));
        f.debug_map().entries(read).entries(written).finish()?;
        write!(f, " {} warnings", warnings.len())
    }
}

impl Lookasides {
    /// Reads every `*.yaml` of a folder.
    ///
    /// # Errors
    /// A file can't be read, or is not valid. No file is skipped: it may be the one that leads to the signatures.
    pub fn read(folder: &Path) -> Result<Self, Vec<Diagnostic>> {
        let of_folder = |error: io::Error| {
            vec![Diagnostic::of_file(&folder.display().to_string(), format!("the folder can't be read: {error}"))]
        };
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(of_folder)? {
            let path = entry.map_err(of_folder)?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                paths.push(path);
            }
        }
        paths.sort();
        let mut reader = RegistriesDReader::default();
        for path in paths {
            let name = path.display().to_string();
            match read_file(&path) {
                Ok(text) => {
                    let known = reader.mistakes.len();
                    reader.file(YamlSource { name: &name, text: &text });
                    let found = reader.mistakes.split_off(known);
                    reader.mistakes.extend(found.into_iter().map(|mistake| mistake.showing(&text)));
                }
                Err(error) => reader.mistakes.push(Diagnostic::of_file(&name, format!("it can't be read: {error}"))),
            }
        }
        let RegistriesDReader { found, warnings, mistakes, .. } = reader;
        if mistakes.is_empty() { Ok(Self { warnings, ..found }) } else { Err(mistakes) }
    }

    /// Returns the lookaside of this repository: that of the most specific scope with a lookaside.
    pub fn of(&self, repository: &Repository) -> Option<&Url> {
        self.by_scope.get_repository(repository)
    }

    /// Returns the lookaside to write to, if it differs from the one to read from.
    pub fn staging_of(&self, repository: &Repository) -> Option<&Url> {
        self.staging.get_repository(repository)?.as_ref()
    }

    /// Returns warnings about members that are not used.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_FILE {
        return Err(io::Error::other(format!("it has more than {MAX_FILE} bytes")));
    }
    let bytes = fs::read(path)?;
    if text::is_utf16(&bytes) {
        return Err(io::Error::other(format!("it is in UTF-16; {}", text::UTF16_REMEDY)));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

#[derive(Default)]
struct RegistriesDReader {
    found: Lookasides,
    /// The place of each scope seen so far: no scope may appear twice.
    seen: HashMap<Scope, (Box<str>, Span)>,
    warnings: Vec<Diagnostic>,
    mistakes: Vec<Diagnostic>,
}

impl RegistriesDReader {
    fn file(&mut self, source: YamlSource<'_>) {
        match parse(source) {
            Err(mistakes) => self.mistakes.extend(mistakes),
            Ok(documents) => documents.iter().for_each(|document| self.document(source, document)),
        }
    }

    fn document(&mut self, source: YamlSource<'_>, document: &Node) {
        for (key, value) in self.map(source, document, "the file") {
            match key.as_text().unwrap_or_default() {
                "default-docker" => self.namespace(source, key, Scope::Everything, value),
                "docker" => {
                    for (key, value) in self.map(source, value, "\"docker\"") {
                        match scope(key.as_text().unwrap_or_default()) {
                            Ok(scope) => self.namespace(source, key, scope, value),
                            Err(why) => self.mistakes.push(source.mistake(key.place, why)),
                        }
                    }
                }
                _ => self.unknown(source, key, &["default-docker", "docker"]),
            }
        }
    }

    fn namespace(&mut self, source: YamlSource<'_>, key: &Node, scope: Scope, value: &Node) {
        if let Some((file, place)) = self.seen.get(&scope) {
            let mistake = source.mistake(key.place, format!("signatures of {scope} have a place already"));
            self.mistakes.push(mistake.related(file, *place, "it is here"));
            return;
        }
        self.seen.insert(scope.clone(), (source.name.into(), key.place));
        let (mut lookaside, mut staging) = (None, None);
        for (key, value) in self.map(source, value, "a namespace") {
            let name = key.as_text().unwrap_or_default();
            match (name, &value.value) {
                ("use-sigstore-attachments", Value::Bool(_)) => {}
                ("use-sigstore-attachments", _) => {
                    self.mistakes.push(source.mistake(value.place, "\"use-sigstore-attachments\" is true or false"));
                }
                // The older names apply if the newer ones are absent.
                ("lookaside" | "sigstore" | "lookaside-staging" | "sigstore-staging", Value::Text(text))
                    if !text.is_empty() =>
                {
                    let is_new = name.starts_with("lookaside");
                    let place = if name.ends_with("-staging") { &mut staging } else { &mut lookaside };
                    match address(text) {
                        Ok(url) if is_new || place.is_none() => *place = Some(url),
                        Ok(_) => {}
                        Err(why) => self.mistakes.push(source.mistake(value.place, why)),
                    }
                }
                (name, Value::Text(_) | Value::Null) if MEMBERS.contains(&name) => {}
                (name, _) if MEMBERS.contains(&name) => {
                    self.mistakes.push(source.mistake(value.place, format!("{name:?} is a URL")));
                }
                _ => self.unknown(source, key, &MEMBERS),
            }
        }
        // Each scope appears once.
        if lookaside.is_some() || staging.is_some() {
            let other = staging.filter(|staging| lookaside.as_ref() != Some(staging));
            let _ = self.found.staging.insert(scope.clone(), other);
        }
        if let Some(url) = lookaside {
            let _ = self.found.by_scope.insert(scope, url);
        }
    }

    fn map<'n>(&mut self, source: YamlSource<'_>, node: &'n Node, what: &str) -> &'n [(Node, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            other => {
                let message = format!("{what} must be a map, found {}", other.describe());
                self.mistakes.push(source.mistake(node.place, message));
                &[]
            }
        }
    }

    /// Warns of a member of another version, or a misspelt one. Other tools ignore it silently.
    fn unknown(&mut self, source: YamlSource<'_>, key: &Node, known: &[&str]) {
        let name = quoted(key.as_text().unwrap_or_default());
        let meant = key.as_text().and_then(|name| did_you_mean(name, known.iter().copied()));
        let meant = meant.map(|word| format!("did you mean {word:?}?"));
        let warning = source.mistake(key.place, format!("the unknown member {name} is left out")).suggest_maybe(meant);
        self.warnings.push(warning);
    }
}

fn scope(text: &str) -> Result<Scope, String> {
    match Scope::parse_with_tag(text) {
        Ok(Scope::Everything) => Err("\"*\" covers nothing here; \"default-docker\" covers every image".to_owned()),
        Ok(Scope::Tag(..) | Scope::Digest(..)) => {
            Err("a place for one tag or digest can't be followed; name the repository".to_owned())
        }
        Ok(scope) => Ok(scope),
        Err(error) => Err(error.to_string()),
    }
}

fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("this is not a URL: {error}"))?;
    match url.scheme() {
        "file" if url.query().is_some() || url.fragment().is_some() => {
            Err("a file URL has no query and no fragment; %3F and %23 stand for ? and #".to_owned())
        }
        "http" | "https" | "file" => Ok(url),
        scheme => Err(format!("signatures are read from http, https and file URLs, not from {scheme:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Lookasides, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Lookasides::read(folder.path()).map_err(|mistakes| {
            let name = format!("{}/", folder.path().display());
            mistakes.iter().map(|mistake| mistake.to_string().replace(&name, "")).collect::<Vec<_>>().join("\n")
        })
    }

    fn place(found: &Lookasides, repository: &str) -> Option<String> {
        found.of(&Repository::parse(repository).unwrap()).map(ToString::to_string)
    }

    #[test]
    fn the_most_specific_namespace_that_has_a_place_wins() {
        let found = read(&[
            ("default.yaml", "default-docker: {lookaside: 'file:///srv/all', use-sigstore-attachments: true}\n"),
            (
                "a.yaml",
                "docker:\n  registry.example.com:\n    sigstore: https://old.example.com\n    lookaside: https://new.example.com/s\n  \
                 registry.example.com/acme:\n    lookaside-staging: file:///srv/staging\n  '*.example.org':\n    sigstore: https://s.example.org\n",
            ),
            ("notes.txt", "not: [read"),
        ])
        .unwrap();
        assert_eq!(place(&found, "registry.example.com/acme/web").as_deref(), Some("https://new.example.com/s"));
        assert_eq!(place(&found, "r.example.org/web").as_deref(), Some("https://s.example.org/"));
        assert_eq!(place(&found, "nginx").as_deref(), Some("file:///srv/all"));
        assert_eq!(place(&read(&[("empty.yaml", "")]).unwrap(), "nginx"), None);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, said) in [
            ("docker: [a]", "f.yaml:1:9: \"docker\" must be a map"),
            ("docker: {r.example.com: {lookaside: 'file:///x?sig=1'}}", "no query"),
            ("docker: {r.example.com: {lookaside-staging: 'file:///x#y'}}", "no query and no fragment"),
            ("docker: {r.example.com: {lookaside-staging: 'ftp://x/y'}}", "not from \"ftp\""),
            ("docker: {r.example.com: {lookaside-staging: [1]}}", "is a URL"),
            ("docker: {r.example.com: {lookaside: 'ftp://x/y'}}", "not from \"ftp\""),
            ("docker: {r.example.com: {lookaside: '/srv'}}", "this is not a URL"),
            ("docker: {r.example.com: {lookaside: 5}}", "is a URL"),
            ("docker: {r.example.com: {use-sigstore-attachments: 'yes'}}", "is true or false"),
            ("docker: {'r.example.com/a:1': {lookaside: 'file:///x'}}", "name the repository"),
            ("docker: {'*': {lookaside: 'file:///x'}}", "default-docker"),
            ("docker: {r.example.com: {}, R.example.com: {}}", "have a place already"),
            ("docker: [", "not YAML"),
        ] {
            let message = read(&[("f.yaml", text)]).expect_err(text);
            assert!(message.contains(said), "{text}: {message}");
        }
        let twice = [("a.yaml", "default-docker: {}"), ("b.yaml", "default-docker: {}")];
        assert!(read(&twice).expect_err("twice").contains("note: a.yaml:1:1"));
    }

    #[test]
    fn unknown_members_are_left_out_with_a_warning_that_says_where_they_stand() {
        for (text, place, meant) in [
            ("default-docker: {lookaside: 'https://s.example.com'}\nrekor: {url: x}\n", "f.yaml:2:1: ", ""),
            ("dokcer: {}\ndefault-docker: {lookaside: 'https://s.example.com'}\n", "f.yaml:1:1: ", "docker"),
            ("default-docker:\n  lookaside: https://s.example.com\n  signed-by: [x]\n", "f.yaml:3:3: ", ""),
            ("default-docker:\n  lokaside: x\n  lookaside: https://s.example.com\n", "f.yaml:2:3: ", "lookaside"),
        ] {
            let found = read(&[("f.yaml", text)]).unwrap_or_else(|mistakes| panic!("{mistakes}"));
            assert_eq!(super::tests::place(&found, "nginx").as_deref(), Some("https://s.example.com/"), "{text}");
            let [warning] = found.warnings() else { panic!("{text}: {:?}", found.warnings()) };
            let warning = warning.to_string();
            assert!(warning.contains(place) && warning.contains("unknown member"), "{text}: {warning}");
            assert!(meant.is_empty() || warning.contains(&format!("did you mean {meant:?}?")), "{text}: {warning}");
        }
        let found = read(&[("f.yaml", "default-docker: {lookaside: 'https://s.example.com'}\n")]).unwrap();
        assert!(found.warnings().is_empty());
    }

    #[test]
    fn signatures_are_written_where_the_most_specific_namespace_has_them_written() {
        let found = read(&[(
            "f.yaml",
            "default-docker: {lookaside: 'https://s.example.com', lookaside-staging: 'file:///srv/all'}\ndocker:\n  \
             a.example.com: {lookaside: 'file:///srv/a', sigstore-staging: 'file:///old', lookaside-staging: 'file:///new'}\n  \
             a.example.com/web: {lookaside: 'file:///srv/web'}\n  \
             b.example.com: {sigstore-staging: 'file:///srv/b'}\n  \
             c.example.com: {lookaside: 'file:///srv/c', lookaside-staging: 'file:///srv/c'}\n",
        )])
        .unwrap();
        let staging =
            |repository: &str| found.staging_of(&Repository::parse(repository).unwrap()).map(ToString::to_string);
        for (repository, read, written) in [
            ("nginx", "https://s.example.com/", Some("file:///srv/all")),
            ("a.example.com/x", "file:///srv/a", Some("file:///new")),
            ("a.example.com/web", "file:///srv/web", None),
            ("b.example.com/x", "https://s.example.com/", Some("file:///srv/b")),
            ("c.example.com/x", "file:///srv/c", None),
        ] {
            assert_eq!(place(&found, repository).as_deref(), Some(read), "{repository}");
            assert_eq!(staging(repository).as_deref(), written, "{repository}");
        }
    }

    #[test]
    fn a_query_is_kept_and_shown_nowhere() {
        let url = "https://account.blob.example.com/s?sv=2024-11-04&sig=SECRET%3D";
        for text in [
            format!("default-docker: {{lookaside: '{url}'}}"),
            format!("docker: {{r.example.com: {{lookaside: '{url}', lookaside-staging: '{url}2'}}}}"),
        ] {
            let found = read(&[("f.yaml", &text)]).unwrap();
            assert_eq!(place(&found, "r.example.com/web").as_deref(), Some(url));
            assert!(!format!("{found:?} {:?}", found.warnings()).contains("SECRET"));
        }
        // Not where something is wrong with its line either.
        for wrong in
            ["ftp://x/?sig=SECRET".to_owned(), "https://u:SECRET@[x/".to_owned(), "file:///x?SECRET".to_owned()]
        {
            let mistake = read(&[("f.yaml", &format!("default-docker: {{lookaside: '{wrong}'}}"))]).unwrap_err();
            assert!(mistake.contains("f.yaml:1:") && !mistake.contains("SECRET"), "{mistake}");
        }
        let found = read(&[("f.yaml", &format!("default-docker: {{lookasid: '{url}'}}"))]).unwrap();
        assert!(!format!("{:?} {}", found.warnings(), found.warnings()[0]).contains("SECRET"));
    }

    #[test]
    fn a_folder_or_file_that_can_not_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Lookasides::read(&folder.path().join("gone")).is_err());
        let utf16: Vec<u8> = "default-docker: {}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, said) in [(&utf16[..], "it is in UTF-16"), (b"docker: \xff", "it is not UTF-8")] {
            fs::write(folder.path().join("f.yaml"), bytes).unwrap();
            let mistakes = Lookasides::read(folder.path()).unwrap_err();
            assert!(mistakes[0].message.contains(said), "{}", mistakes[0].message);
        }
        fs::remove_file(folder.path().join("f.yaml")).unwrap();
        fs::create_dir(folder.path().join("folder.yaml")).unwrap();
        assert!(Lookasides::read(folder.path()).is_err());
    }
}
