//! What dependencies may be, by deny.toml: held against what cargo builds, without a network.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde::Deserialize;

/// The parts of deny.toml that are held here. `make deny` has cargo-deny check all of it.
#[derive(Deserialize)]
struct Rules {
    graph: Graph,
    bans: Bans,
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
    skip: Vec<Skipped>,
}

#[derive(Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
    /// The crates that may depend on it all the same.
    #[serde(default)]
    wrappers: Vec<String>,
    reason: String,
}

/// A version that may stand beside another: `name@version`, the version as far as it matters.
#[derive(Deserialize)]
struct Skipped {
    #[serde(rename = "crate")]
    package: String,
    reason: String,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

/// A crate that is built, or takes part in that.
#[derive(Debug, Default)]
struct Package {
    name: String,
    version: String,
    license: String,
    /// What stands behind the version: where it comes from, if that is no registry.
    source: String,
    parents: BTreeSet<String>,
}

/// Packages by name and version.
type Packages = BTreeMap<String, Package>;

/// Reads what `cargo tree` prints with `--prefix depth --format '|{p}|{l}'`.
fn packages(tree: &str) -> Packages {
    let mut packages = Packages::new();
    let mut above: Vec<String> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let [depth, package, license] = line.split('|').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let depth: usize = depth.parse().expect("a depth");
        let mut words = package.splitn(3, ' ');
        let [name, version] = [words.next(), words.next()].map(|word| word.expect("a name and a version"));
        let source = words.next().unwrap_or_default().replace("(proc-macro)", "").trim().to_owned();
        let key = format!("{name} {version}");
        above.truncate(depth);
        let package = packages.entry(key.clone()).or_insert_with(|| Package {
            name: name.to_owned(),
            version: version.trim_start_matches('v').to_owned(),
            license: license.trim_end_matches("(*)").trim().to_owned(),
            source,
            parents: BTreeSet::new(),
        });
        package.parents.extend(above.last().cloned());
        above.push(key);
    }
    packages
}

/// Returns whether a licence expression can be fulfilled with these licences. An old form has `/` for `OR`.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    fn any(words: &mut std::iter::Peekable<impl Iterator<Item = String>>, allowed: &BTreeSet<String>) -> bool {
        let mut result = all(words, allowed);
        while words.next_if_eq("OR").is_some() {
            result |= all(words, allowed);
        }
        result
    }
    fn all(words: &mut std::iter::Peekable<impl Iterator<Item = String>>, allowed: &BTreeSet<String>) -> bool {
        let mut result = one(words, allowed);
        while words.next_if_eq("AND").is_some() {
            result &= one(words, allowed);
        }
        result
    }
    fn one(words: &mut std::iter::Peekable<impl Iterator<Item = String>>, allowed: &BTreeSet<String>) -> bool {
        let Some(mut license) = words.next() else { return false };
        if license == "(" {
            let inner = any(words, allowed);
            return words.next().is_some_and(|word| word == ")") && inner;
        }
        if words.next_if_eq("WITH").is_some() {
            license = format!("{license} WITH {}", words.next().unwrap_or_default());
        }
        allowed.contains(&license)
    }
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().map(str::to_owned).peekable();
    any(&mut words, allowed) && words.next().is_none()
}

impl Skipped {
    fn covers(&self, package: &Package) -> bool {
        let (name, version) = self.package.split_once('@').expect("name@version");
        let rest = package.version.strip_prefix(version);
        name == package.name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '+', '-']))
    }
}

/// Returns what of these packages is against the rules.
fn faults(rules: &Rules, packages: &Packages) -> Vec<String> {
    let mut faults = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
    for (key, package) in packages {
        versions.entry(&package.name).or_default().push(package);
        for banned in rules.bans.deny.iter().filter(|banned| banned.name == package.name) {
            let wrapped = |parent: &String| banned.wrappers.contains(&packages[parent].name);
            for parent in package.parents.iter().filter(|parent| !wrapped(parent)) {
                faults.push(format!("{key} is banned ({}), and {parent} depends on it", banned.reason));
            }
        }
        if !is_allowed(&package.license, &rules.licenses.allow) {
            faults.push(format!("{key} has the license {:?}, which is not allowed", package.license));
        }
        if !package.source.is_empty() && !package.parents.is_empty() {
            faults.push(format!("{key} is from {}, which is no registry", package.source));
        }
    }
    let skip = &rules.bans.skip;
    for (name, all) in &versions {
        let counted: Vec<_> = all.iter().filter(|package| !skip.iter().any(|skip| skip.covers(package))).collect();
        if counted.len() > 1 {
            let shown: Vec<String> = counted
                .iter()
                .map(|package| {
                    format!(
                        "{} (of {})",
                        package.version,
                        Vec::from_iter(&package.parents).into_iter().cloned().collect::<Vec<_>>().join(", ")
                    )
                })
                .collect();
            faults.push(format!("{name} is there in several versions: {}", shown.join("; ")));
        }
    }
    for skipped in skip {
        let covered = |package: &&Package| skipped.covers(package);
        let (name, _) = skipped.package.split_once('@').expect("name@version");
        let all = versions.get(name).map(Vec::as_slice).unwrap_or_default();
        if all.len() < 2 || !all.iter().any(covered) {
            faults.push(format!("{} ({}) is no second version any more", skipped.package, skipped.reason));
        }
    }
    faults
}

fn rules() -> Rules {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    toml::from_str(&fs::read_to_string(file).expect("deny.toml is there")).expect("deny.toml is understood")
}

#[test]
fn dependencies_are_those_that_deny_toml_allows() {
    let rules = rules();
    // Of other targets, the crates may not be there, and no network to fetch them.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    assert!(rules.graph.targets.contains(&target), "{target}");
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--all-features", "--edges", "normal,build,dev", "--target", &target])
        .args(["--prefix", "depth", "--format", "|{p}|{l}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let packages = packages(&String::from_utf8(output.stdout).expect("UTF-8"));
    assert!(packages.len() > 300, "{packages:?}");
    let faults = faults(&rules, &packages);
    assert!(faults.is_empty(), "see deny.toml:\n{}", faults.join("\n"));
}

#[test]
fn a_dependency_against_the_rules_is_found() {
    let rules: Rules = toml::from_str(
        r#"
        graph = { targets = [] }
        licenses = { allow = ["MIT", "Apache-2.0", "ISC", "Apache-2.0 WITH LLVM-exception"] }
        [bans]
        skip = [{ crate = "syn@2", reason = "b" }]
        deny = [
            { crate = "ring", reason = "aws-lc-rs" },
            { crate = "ossl", wrappers = ["sequoia"], reason = "for OpenPGP" },
        ]
        "#,
    )
    .expect("rules");
    let good = "0|own v0.1.0 (/own)|MIT\n1|sequoia v1.0.0|MIT\n2|ossl v1.0.0|MIT/Apache-2.0\n1|syn v2.1.0 (proc-macro)|GPL-3.0 OR MIT\n1|syn v3.0.0|MIT\n";
    assert_eq!(faults(&rules, &packages(good)), Vec::<String>::new());
    for (line, fault) in [
        ("2|ring v0.17.1|ISC", "ring v0.17.1 is banned (aws-lc-rs), and syn v3.0.0 depends on it"),
        ("1|ossl v1.0.0|MIT (*)", "ossl v1.0.0 is banned (for OpenPGP), and own v0.1.0 depends on it"),
        ("1|x v1.0.0|GPL-3.0", "x v1.0.0 has the license \"GPL-3.0\", which is not allowed"),
        ("1|x v1.0.0|MIT AND GPL-3.0", "has the license"),
        ("1|x v1.0.0|MIT AND (GPL-3.0 OR GPL-2.0)", "has the license"),
        ("1|x v1.0.0|MIT WITH LLVM-exception", "has the license"),
        ("1|x v1.0.0|", "has the license"),
        ("1|syn v1.0.0|MIT", "syn is there in several versions: 1.0.0 (of own v0.1.0); 3.0.0 (of own v0.1.0)"),
        ("1|x v1.0.0 (https://git.example.com/x#0123)|MIT", "x v1.0.0 is from (https://git.example.com/x#0123)"),
    ] {
        let found = faults(&rules, &packages(&format!("{good}{line}\n")));
        assert!(found.len() == 1 && found[0].contains(fault), "{line}: {found:?}");
    }
    for license in
        ["MIT AND (GPL-3.0 OR ISC)", "Apache-2.0 WITH LLVM-exception", "(MIT OR GPL-3.0) AND ISC", "GPL-3.0/MIT"]
    {
        let found = faults(&rules, &packages(&format!("{good}1|x v1.0.0|{license}\n")));
        assert_eq!(found, Vec::<String>::new(), "{license}");
    }
    let without = good.replace("syn v3.0.0", "syn v2.1.0");
    assert_eq!(faults(&rules, &packages(&without)), ["syn@2 (b) is no second version any more"]);
}
