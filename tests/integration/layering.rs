//! The structure that ARCHITECTURE.md describes, held against the imports of the source files.
//!
//! An import leads to the file that defines the name, however it gets there: what a file only passes on (`pub use`) is no
//! import of that file's. Tests and what is only compiled for them are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Item, ItemMod, ItemUse, Macro, UseTree, Visibility,
    visit::{self, Visit},
};

/// A module's path below the crate: `["gate", "decide"]`.
type ModulePath = Vec<String>;

/// One source file.
#[derive(Default)]
struct Module {
    file: PathBuf,
    /// The items that it defines.
    defined: BTreeSet<String>,
    /// The names that it imports or passes on, with the path at which each is found: modules inside it see both.
    names: BTreeMap<String, Vec<String>>,
    /// The paths from which it imports or passes on everything.
    globs: Vec<Vec<String>>,
    /// The paths that it uses, each as it is written, with `crate`, `self` or `super` at its beginning.
    used: BTreeSet<Vec<String>>,
}

/// All modules of the crate, inline ones as a part of their file.
struct Crate(BTreeMap<ModulePath, Module>);

/// An import: from a file to a file, with the path that shows it.
type Edges = BTreeMap<ModulePath, BTreeMap<ModulePath, String>>;

impl Crate {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut modules = BTreeMap::new();
        read_module(&root.join("lib.rs"), &root, &[], &mut modules);
        Self(modules)
    }

    /// Follows a path to the file that defines what it names. `None` if it leads out of the crate.
    fn resolve(&self, from: &[String], path: &[String], depth: usize) -> Option<ModulePath> {
        assert!(depth < 32, "names are passed on in a circle: {path:?}");
        let mut module: ModulePath = from.to_vec();
        let mut rest = path;
        match rest.first().map(String::as_str) {
            Some("crate") => module.clear(),
            Some("self") => {}
            Some("super") => {
                module.pop();
            }
            Some(child) if self.0.contains_key(&[from, &[child.to_owned()]].concat()) => module.push(child.to_owned()),
            _ => return None,
        }
        rest = &rest[1..];
        while let Some(name) = rest.first() {
            let child = [&module[..], std::slice::from_ref(name)].concat();
            if name == "super" {
                module.pop();
            } else if name != "self" {
                if !self.0.contains_key(&child) {
                    break;
                }
                module = child;
            }
            rest = &rest[1..];
        }
        let Some(name) = rest.first() else { return Some(module) };
        let here = &self.0[&module];
        if here.defined.contains(name) {
            return Some(module);
        }
        if let Some(path) = here.names.get(name) {
            // From another crate: then this file stands for it.
            return self.resolve(&module, path, depth + 1).or(Some(module));
        }
        let by_glob = here.globs.iter().find_map(|glob| {
            let path = [&glob[..], std::slice::from_ref(name)].concat();
            let found = self.resolve(&module, &path, depth + 1)?;
            self.0[&found].defined.contains(name).then_some(found)
        });
        by_glob.or(Some(module))
    }

    /// The imports of all files.
    fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for (from, module) in &self.0 {
            let to = edges.entry(from.clone()).or_default();
            for path in &module.used {
                // A path into a module of another name than this one's child is about another crate.
                if let Some(found) = self.resolve(from, path, 0)
                    && found != *from
                {
                    to.entry(found).or_insert_with(|| path.join("::"));
                }
            }
        }
        edges
    }
}

fn read_module(file: &Path, folder: &Path, path: &[String], modules: &mut BTreeMap<ModulePath, Module>) {
    let text = fs::read_to_string(file).expect("a module of the crate has a file");
    let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut module = Module { file: file.to_owned(), ..Module::default() };
    let mut reader = Reader { module: &mut module, inline: 0, children: Vec::new() };
    reader.visit_file(&syntax);
    let children = reader.children;
    modules.insert(path.to_vec(), module);
    for child in children {
        let path = [path, std::slice::from_ref(&child)].concat();
        let (alone, with_children) = (folder.join(format!("{child}.rs")), folder.join(&child).join("mod.rs"));
        let file = if alone.exists() { alone } else { with_children };
        read_module(&file, &folder.join(&child), &path, modules);
    }
}

/// Whether an item is compiled for tests or fuzzing alone.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_condition = attribute.path().is_ident("cfg");
        let text = attribute.meta.require_list().map(|list| list.tokens.to_string()).unwrap_or_default();
        let is_test = attribute.path().segments.last().is_some_and(|last| last.ident == "test");
        is_test || (is_condition && !text.starts_with("not") && (text.contains("test") || text.contains("fuzzing")))
    })
}

struct Reader<'a> {
    module: &'a mut Module,
    /// How many inline modules are around what is read.
    inline: usize,
    children: Vec<String>,
}

impl Reader<'_> {
    fn use_path(&mut self, path: Vec<String>) {
        if path.len() > 1 || path.first().is_some_and(|first| first == "crate") {
            self.module.used.insert(path);
        }
    }

    fn tree(&mut self, tree: &UseTree, before: &[String], passed_on: bool) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident), passed_on),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(item, before, passed_on)),
            UseTree::Glob(_) => {
                self.module.globs.push(before.to_vec());
                if !passed_on {
                    self.use_path(before.to_vec());
                }
            }
            UseTree::Name(name) if name.ident == "self" => {
                self.name(before.to_vec(), before.last().cloned(), passed_on);
            }
            UseTree::Name(name) => self.name(with(&name.ident), Some(name.ident.to_string()), passed_on),
            UseTree::Rename(name) => self.name(with(&name.ident), Some(name.rename.to_string()), passed_on),
        }
    }

    fn name(&mut self, path: Vec<String>, name: Option<String>, passed_on: bool) {
        if let Some(name) = name.filter(|_| self.inline == 0) {
            self.module.names.insert(name, path.clone());
        }
        if !passed_on {
            self.use_path(path);
        }
    }

    /// The paths in what a macro is given, which is no syntax tree.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut separated = false;
        for token in tokens {
            match token {
                TokenTree::Ident(name) if path.is_empty() || separated => path.push(name.to_string()),
                TokenTree::Ident(name) => {
                    self.use_path(std::mem::take(&mut path));
                    path.push(name.to_string());
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => {
                    separated = true;
                    continue;
                }
                other => {
                    self.use_path(std::mem::take(&mut path));
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
            separated = false;
        }
        self.use_path(path);
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, name): (&[Attribute], _) = match item {
            Item::Const(item) => (&item.attrs, Some(item.ident.to_string())),
            Item::Enum(item) => (&item.attrs, Some(item.ident.to_string())),
            Item::Fn(item) => (&item.attrs, Some(item.sig.ident.to_string())),
            Item::Impl(item) => (&item.attrs, None),
            Item::Macro(item) => (&item.attrs, item.ident.as_ref().map(ToString::to_string)),
            Item::Mod(item) => (&item.attrs, None),
            Item::Static(item) => (&item.attrs, Some(item.ident.to_string())),
            Item::Struct(item) => (&item.attrs, Some(item.ident.to_string())),
            Item::Trait(item) => (&item.attrs, Some(item.ident.to_string())),
            Item::Type(item) => (&item.attrs, Some(item.ident.to_string())),
            Item::Use(item) => (&item.attrs, None),
            _ => (&[], None),
        };
        if is_for_tests(attributes) {
            return;
        }
        if let Some(name) = name.filter(|_| self.inline == 0) {
            self.module.defined.insert(name);
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.content.is_none() {
            self.children.push(item.ident.to_string());
            return;
        }
        self.module.defined.insert(item.ident.to_string());
        self.inline += 1;
        visit::visit_item_mod(self, item);
        self.inline -= 1;
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let passed_on = !matches!(item.vis, Visibility::Inherited);
        self.tree(&item.tree, &[], passed_on);
    }

    /// Where an item may be seen is no import.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.use_path(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }
}

/// Returns the source files below a folder.
pub(crate) fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder can be read") {
        let path = entry.expect("a folder can be read").path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Returns whether a whole file is about tests.
pub(crate) fn is_test_file(file: &Path) -> bool {
    let name = |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).unwrap_or_default().to_owned();
    let folder = name(file.parent().and_then(Path::file_name));
    folder == "tests" || ["tests.rs", "testing.rs", "test_log.rs"].contains(&name(file.file_name()).as_str())
}

/// The modules that can be reached from each other, in groups of two or more.
fn circles(edges: &Edges) -> Vec<BTreeSet<ModulePath>> {
    fn reach<'a>(edges: &'a Edges, from: &'a ModulePath) -> BTreeSet<&'a ModulePath> {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            for to in edges.get(module).into_iter().flat_map(BTreeMap::keys) {
                if reached.insert(to) {
                    next.push(to);
                }
            }
        }
        reached
    }
    let reached: BTreeMap<_, _> = edges.keys().map(|module| (module, reach(edges, module))).collect();
    let mut groups: Vec<BTreeSet<ModulePath>> = Vec::new();
    for (module, forward) in &reached {
        if groups.iter().any(|group| group.contains(*module)) || !forward.contains(*module) {
            continue;
        }
        let back = forward.iter().filter(|other| reached.get(*other).is_some_and(|theirs| theirs.contains(*module)));
        groups.push(back.map(|other| (*other).clone()).collect());
    }
    groups
}

/// Which folder or file below `src` may import which, from the table in ARCHITECTURE.md.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = include_str!("../../ARCHITECTURE.md");
    let (_, table) = text.split_once("| module | imports |\n|---|---|\n").expect("ARCHITECTURE.md has the table");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let mut cells = row
            .split('|')
            .skip(1)
            .map(|cell| cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect::<Vec<_>>());
        let name = cells.next().and_then(|cell| cell.into_iter().next()).expect("a row begins with a module");
        (name, cells.next().expect("a row has imports").into_iter().collect())
    })
    .collect()
}

#[test]
fn no_two_files_import_each_other_on_any_way() {
    let krate = Crate::read();
    let edges = krate.edges();
    let mut report = String::new();
    for circle in circles(&edges) {
        let _ = writeln!(report, "a circle of {} files:", circle.len());
        for from in &circle {
            for (to, path) in edges[from].iter().filter(|(to, _)| circle.contains(*to)) {
                let _ = writeln!(report, "  {} -> {} ({path})", krate.0[from].file.display(), to.join("::"));
            }
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn modules_import_what_the_table_in_architecture_md_says_and_nothing_else() {
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let edges = Crate::read().edges();
    for (from, to) in &edges {
        let Some(from_top) = from.first() else { continue };
        let row = found.entry(from_top.clone()).or_default();
        for (to, path) in to {
            if let Some(to_top) = to.first().filter(|top| *top != from_top) {
                row.entry(to_top.clone()).or_insert_with(|| format!("{} has {path}", from.join("::")));
            }
        }
    }
    let allowed = allowed();
    let mut report = String::new();
    for (module, imports) in &found {
        let Some(allowed) = allowed.get(module) else {
            let _ = writeln!(report, "`{module}` has no row");
            continue;
        };
        for (import, shown) in imports.iter().filter(|(import, _)| !allowed.contains(*import)) {
            let _ = writeln!(report, "`{module}` imports `{import}`, which its row does not have: {shown}");
        }
        for unused in allowed.iter().filter(|one| !imports.contains_key(*one)) {
            let _ = writeln!(report, "`{module}` does not import `{unused}`, which its row has");
        }
    }
    for row in allowed.keys().filter(|row| !found.contains_key(*row)) {
        let _ = writeln!(report, "`{row}` is no module");
    }
    assert!(report.is_empty(), "ARCHITECTURE.md, \"What imports what\":\n{report}");
}

/// The most lines of a file without its tests: what a reader takes in as one idea.
const MAX_LINES: usize = 450;
/// The beginning of the line in a module's doc that says why its one idea needs more.
const EXCEPTION: &str = "//! Longer than other files: ";

/// Returns how many lines of a source file are no tests.
fn lines_without_tests(text: &str) -> usize {
    let end = ["#[cfg(test)]\nmod tests", "#[cfg(test)]\npub(crate) mod tests"]
        .iter()
        .filter_map(|tests| text.find(tests))
        .min();
    text[..end.unwrap_or(text.len())].trim_end().lines().count()
}

#[test]
fn no_file_is_longer_than_one_idea_unless_its_doc_says_why() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut report = String::new();
    for file in source_files(&root.join("src")).into_iter().filter(|file| !is_test_file(file)) {
        let text = fs::read_to_string(&file).expect("a file can be read");
        let (count, name) = (lines_without_tests(&text), file.strip_prefix(root).expect("it is below").display());
        let is_excepted =
            text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.starts_with(EXCEPTION));
        if count > MAX_LINES && !is_excepted {
            let _ =
                writeln!(report, "{name} has {count} lines without its tests, over {MAX_LINES}: split it by subject");
        }
        if count <= MAX_LINES && is_excepted {
            let _ = writeln!(report, "{name} needs no exception any more: it has {count} lines");
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn lines_are_counted_up_to_the_tests() {
    let text = "//! A.\n\nfn a() {}\n\n#[cfg(test)]\nfn b() {}\n\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n";
    assert_eq!(lines_without_tests(text), 6);
    assert_eq!(lines_without_tests("fn a() {}\nfn b() {}\n"), 2);
}
