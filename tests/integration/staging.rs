//! Where registries.d has signatures written in another place than the one where they are read: a folder that is published.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{
    sign::Scenario,
    support::{Liar, Pushed, Reply, accept_anything, error_of, sealgate_with_keys, skopeo},
};

/// Files below a folder, by their names from there.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("it is below");
                found.insert(name.to_str().expect("UTF-8").to_owned());
            }
        }
    }
    found
}

/// A web server that has the files of a folder at `/sig/`.
fn publish(folder: std::path::PathBuf) -> Liar {
    Liar::start(move |asked| {
        let path = asked.path.replace("%3D", "=").replace("%3d", "=").replace("%40", "@");
        let file = path.strip_prefix("/sig/").and_then(|name| fs::read(folder.join(name)).ok());
        file.map_or_else(|| Reply::empty(404), |content| Reply::new(200, &[], content))
    })
}

/// Every way to write the two places: in the default and for a namespace, by today's names and the older ones.
fn forms(host: &str, lookaside: &str, staging: &str) -> Vec<String> {
    let forms =
        [("lookaside", "lookaside-staging"), ("sigstore", "sigstore-staging"), ("lookaside", "sigstore-staging")];
    let members = forms.map(|(read, written)| format!("{{{read}: '{lookaside}', {written}: '{staging}'}}"));
    let default = members.iter().map(|members| format!("default-docker: {members}\n"));
    let other = "default-docker: {lookaside: 'file:///no/such/folder'}";
    let own = members.iter().map(|members| format!("{other}\ndocker:\n  '{host}/acme': {members}\n"));
    default.chain(own).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_and_push_write_to_lookaside_staging_and_skopeo_finds_it_published() {
    let scenario = Scenario::new();
    let Pushed { digest, .. } = scenario.registry.push("acme/web", "1", "one").await;
    let host = scenario.registry.host();
    let image = format!("{host}/acme/web:1");
    let layout = format!("oci:{}:1", scenario.folder.path().join("layout").display());
    let any = accept_anything(&scenario.folder).display().to_string();
    let copy = ["--policy", &any, "copy", "--src-tls-verify=false", "--preserve-digests"];
    let from = format!("docker://{image}");
    let copied = skopeo(scenario.gpg.home(), &[&copy[..], &[&from, &layout]].concat());
    assert!(copied.status.success(), "{}", error_of(&copied));
    let signature = format!("acme/web@sha256={}/signature-1", digest.hex());

    for command in ["sign", "push"] {
        // With a space, which a URL has as %20.
        let folders: Vec<_> = (0..6).map(|number| scenario.folder.path().join(format!("{command} {number}"))).collect();
        for (number, folder) in folders.iter().enumerate() {
            let server = publish(folder.clone());
            let url = url::Url::from_directory_path(folder).unwrap();
            let text = forms(host, &format!("http://{}/sig", server.host()), url.as_str().trim_end_matches('/'))
                .remove(number);
            scenario.folder.write("registries.d/default.yaml", &text);
            let registries = scenario.folder.path().join("registries.d").display().to_string();
            assert!(scenario.skopeo_takes(&image, &["--registries.d", &registries]).is_err(), "{text}");
            let more = ["--registries-d", &registries, "--sign-by", &scenario.key, "-o", "json"];
            let output = match command {
                "sign" => scenario.sign(&image, &more),
                _ => sealgate_with_keys(
                    scenario.gpg.home(),
                    &[&["push", "--tls-verify=false", &layout, &image], &more[..]].concat(),
                ),
            };
            assert_eq!(output.status, 0, "{text}: {}", output.stderr);
            assert_eq!(files(folder), BTreeSet::from([signature.clone()]), "{text}");
            scenario
                .skopeo_takes(&image, &["--registries.d", &registries])
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            let verdict = scenario.verify(&image, "", &["--registries-d", &registries]);
            assert_eq!(verdict["verdict"], "verified", "{text}");
            // It is known to be there.
            let again = scenario.signed(&image, &more[..4]);
            assert_eq!(again["signatures"][0]["outcome"], "present", "{text}");

            // What skopeo writes by the same files has the same name.
            fs::remove_dir_all(folder).unwrap();
            let target = format!("docker://{image}");
            let sign = ["copy", "--dest-tls-verify=false", "--sign-by", &scenario.key, &layout, &target];
            let written =
                skopeo(scenario.gpg.home(), &[&["--policy", &any, "--registries.d", &registries], &sign[..]].concat());
            assert!(written.status.success(), "{text}: {}", error_of(&written));
            assert_eq!(files(folder), BTreeSet::from([signature.clone()]), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_an_extension_keeps_its_signatures_and_web_servers_take_none() {
    let scenario = Scenario::new();
    let Pushed { digest, .. } = scenario.registry.push("acme/web", "1", "one").await;
    let staging = scenario.folder.path().join("staging");
    let lookaside = format!(
        "default-docker: {{lookaside: 'http://127.0.0.1:1/s', lookaside-staging: 'file://{}'}}\n",
        staging.display()
    );
    scenario.folder.write("registries.d/default.yaml", lookaside);
    let registries = scenario.folder.path().join("registries.d").display().to_string();
    let more = ["--registries-d", &registries, "--sign-by", &scenario.key];
    scenario.signed(&scenario.image("acme/web:1"), &more);
    assert!(!staging.exists());
    assert_eq!(scenario.list("acme/web", &digest).await["signatures"].as_array().map(Vec::len), Some(1));
    // The registry itself announces none. Without a place for writing, it is the one for reading, if that is a folder.
    let image = format!("{}/acme/web:1", scenario.registry.host());
    let tree = scenario.folder.path().join("tree");
    scenario
        .folder
        .write("registries.d/default.yaml", format!("default-docker: {{lookaside: 'file://{}'}}\n", tree.display()));
    scenario.signed(&image, &more);
    assert_eq!(files(&tree), BTreeSet::from([format!("acme/web@sha256={}/signature-1", digest.hex())]));
    for staging in ["", ", lookaside-staging: 'http://127.0.0.1:1/s'"] {
        let lookaside = format!("default-docker: {{lookaside: 'http://127.0.0.1:1/s'{staging}}}\n");
        scenario.folder.write("registries.d/default.yaml", lookaside);
        scenario.sign(&image, &more).fails_with(1, "does not announce a signature extension");
    }
}
