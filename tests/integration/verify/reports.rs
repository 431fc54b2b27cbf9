//! What the commands about signatures print, word for word: for people and for programs.

use super::{Scenario, identity};
use crate::support::{Answer, Masks, assert_reads, sealgate_with_keys};

const RELEASE: &str = "81A2B3C4D5E6F708192A3B4C5D6E7F8091A2B302";
const STRANGER: &str = "3A90F1E2D5E6F708192A3B4C5D6E7F8012345F9F";

/// A run's standard output, and its end.
fn shown(title: &str, answer: &Answer) -> String {
    format!("# {title}\n{}{}exit status {}\n", answer.stdout, answer.stderr, answer.status)
}

/// Both forms of an answer, the one for people first.
fn both(title: &str, run: impl Fn(&str) -> Answer) -> String {
    let [text, json] = ["text", "json"].map(|form| shown(&format!("{title}, {form}"), &run(form)));
    text + "\n" + &json
}

impl Scenario {
    fn masks(&self) -> Masks {
        Masks::default()
            .value(self.registry.host(), "registry.example.com")
            .value(&self.folder.path().display(), "/folder")
            .key(&self.key, RELEASE)
    }

    fn report(&self, title: &str, policy: &std::path::Path, name: &str) -> String {
        both(title, |form| self.verify(policy, &self.image(name), &["-o", form]))
    }
}

#[tokio::test]
async fn reports_against_a_policy_read_as_their_snapshots() {
    let mut scenario = Scenario::new();
    let web = scenario.signed("acme/web").await;
    let unsigned = scenario.registry.push("acme/unsigned", "1", "unsigned").await;
    let other = scenario.registry.push("acme/other", "1", "other").await;
    let stranger = scenario.gpg.generate("Stranger <stranger@example.org>");
    scenario.sign(&stranger, "acme/other", &other.digest, "acme/other:1");
    scenario.sign(&scenario.key, "acme/other", &other.digest, "acme/other:2");
    let mut masks = scenario.masks().key(&stranger, STRANGER);
    for (pushed, example) in [(&web, "[web]"), (&unsigned, "[unsigned]"), (&other, "[other]")] {
        masks = masks.value(&pushed.digest.hex(), example);
    }
    let requiring = scenario.requiring();
    let warn = scenario.policy("warn.yaml", "  mode: warn\n", "require: [{signedBy: [release]}]");
    let exemption = format!(
        "  exemptions:\n  - {{name: legacy, images: ['{}/acme/unsigned'], until: 2099-01-01T00:00:00Z, approvedBy: \
         jane@example.com, reason: INC-1234}}\n",
        scenario.registry.host()
    );
    let exempted = scenario.policy("exempted.yaml", &exemption, "require: [{signedBy: [release]}]");
    let allowing = scenario.policy("allowing.yaml", "", "allow: {reason: checked elsewhere}");
    let reports = [
        scenario.report("verified", &requiring, "acme/web:1"),
        scenario.report("allowed by a rule", &allowing, "acme/unsigned:1"),
        scenario.report("exempted", &exempted, "acme/unsigned:1"),
        scenario.report("not enforced", &warn, "acme/unsigned:1"),
        scenario.report("refused, without a signature", &requiring, "acme/unsigned:1"),
        scenario.report("refused, with signatures that do not count", &requiring, "acme/other:1"),
    ];
    assert_reads!("verify-policy", masks.apply(&reports.join("\n")));
    scenario.registry.stop();
    let undecided = scenario.report("undecided", &requiring, "acme/web:1");
    assert_reads!("verify-policy-undecided", masks.apply(&undecided));
}

#[tokio::test]
async fn reports_of_a_store_and_against_an_identity_read_as_their_snapshots() {
    let scenario = identity::Scenario::new().await;
    let (image, digest) = (scenario.image(), scenario.pushed.digest);
    let stranger = scenario.signer.generate("Stranger <stranger@example.com>");
    scenario.sign(1, &scenario.key, &digest, &image).await;
    scenario.sign(2, &scenario.key, &digest, "registry.example.com/acme/db:1").await;
    let third = scenario.sign(3, &stranger, &digest, &image).await;
    let mut masks = Masks::default()
        .value(scenario.store.host(), "store.example.com")
        .value(&scenario.auditor.home().display(), "/home/jane/.gnupg")
        .value(&digest.hex(), "[web]")
        .key(&scenario.key, RELEASE)
        .key(&stranger, STRANGER);
    for entry in scenario.list() {
        let bytes = &entry["bytes"];
        masks =
            masks.value(&format!("\"bytes\": {bytes},"), "\"bytes\": 300,").value(&format!("  {bytes}  "), "  300  ");
    }
    let run = |arguments: &[&str]| sealgate_with_keys(scenario.auditor.home(), arguments);
    let verify = |form: &str, more: &[&str]| {
        let expected = ["verify", "--insecure", "-o", form, &image, "--expected-identity", &image];
        run(&[&expected, more].concat())
    };
    let other_identity = "registry.example.com/acme/web:1";
    let refused = ["verify", "--insecure", &image, "--expected-identity", other_identity, "-o"];
    let list = ["signatures", "list", "--tls-verify=false", &image, "-o"];
    let remove = |form: &str, name: &str| {
        run(&[&["signatures", "remove", "--tls-verify=false", &image, name, "-o", form], &identity::AS_ROBOT[..]]
            .concat())
    };
    let clear = ["signatures", "status", "clear", "--tls-verify=false", &image, "-o"];
    let reports = [
        both("verified", |form| verify(form, &[])),
        both("refused", |form| run(&[&refused[..], &[form]].concat())),
        both("saved", |form| verify(form, &[&["--save"], &identity::AS_JANE[..]].concat())),
        both("listed", |form| run(&[&list[..], &[form]].concat())),
        both("cleared", |form| run(&[&clear[..], &[form], &identity::AS_JANE].concat())),
        shown("removed", &remove("text", &third)),
        shown("removed again", &remove("text", &third)),
        shown("listed after that", &run(&list[..4])),
    ];
    assert_reads!("verify-identity-and-signatures", masks.apply(&reports.join("\n")));
}
