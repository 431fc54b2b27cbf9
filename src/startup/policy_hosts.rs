//! The hosts that the policy allows the registry client to dial at private addresses.

use std::sync::{Arc, Mutex, PoisonError};

use crate::gate::CurrentPolicy;
use crate::policy::{Action, Policy};
use crate::registry::{AllowedHosts, HostSet};

/// The hosts that rules which require signatures name, in the policy that is in force at the time of a request.
pub(super) struct PolicyHosts {
    policy: Arc<CurrentPolicy>,
    /// The set, with the generation of its policy.
    of: Mutex<Option<(u64, Arc<HostSet>)>>,
}

impl PolicyHosts {
    /// Follows the policy in force.
    pub(super) fn new(policy: Arc<CurrentPolicy>) -> Self {
        Self { policy, of: Mutex::new(None) }
    }

    /// Returns the hosts of the policy in force.
    fn current(&self) -> Arc<HostSet> {
        let loaded = self.policy.get();
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        match &*of {
            Some((generation, hosts)) if *generation == loaded.generation => Arc::clone(hosts),
            _ => {
                let hosts = Arc::new(hosts_of(&loaded.policy));
                *of = Some((loaded.generation, Arc::clone(&hosts)));
                hosts
            }
        }
    }
}

impl AllowedHosts for PolicyHosts {
    fn allows(&self, host: &str) -> bool {
        self.current().allows(host)
    }

    fn domain_of<'a>(&self, host: &'a str) -> Option<&'a str> {
        self.current().domain_of(host)
    }
}

/// Returns the hosts that a policy names in rules that require signatures. Rules that allow or deny need no request to
/// a registry, and name no hosts.
fn hosts_of(policy: &Policy) -> HostSet {
    let mut hosts = HostSet::default();
    for layer in std::iter::once(&policy.cluster).chain(policy.namespaces.values()) {
        for (scope, rule) in layer.rules.iter() {
            if matches!(rule.action, Action::Require(_)) {
                hosts.add_scope(&scope);
            }
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Scope;
    use crate::policy::{Layer, Platforms, Requirements, Rule, RuleId};

    fn rule(action: Action) -> Arc<Rule> {
        Arc::new(Rule { id: RuleId::new("p", "r"), mode: None, action })
    }

    fn require() -> Arc<Rule> {
        rule(Action::Require(Requirements { all: Vec::new(), platforms: Platforms::default() }))
    }

    #[test]
    fn a_new_policy_names_other_hosts_at_once() {
        let policy = Arc::new(CurrentPolicy::new(Policy::default()));
        let hosts = PolicyHosts::new(Arc::clone(&policy));
        assert!(!hosts.allows("registry.example.com"));
        let mut next = Policy::default();
        next.cluster.rules.insert(Scope::parse("registry.example.com").unwrap(), require()).unwrap();
        policy.replace(next);
        assert!(hosts.allows("registry.example.com"));
    }

    #[test]
    fn only_rules_that_require_signatures_name_hosts_in_whatever_layer() {
        let mut policy = Policy::default();
        let mut team = Layer::default();
        for (layer, name) in [(&mut policy.cluster, "cluster"), (&mut team, "team")] {
            for (kind, rule) in [
                ("require", require()),
                ("allow", rule(Action::Allow { reason: "x".into() })),
                ("deny", rule(Action::Deny { reason: "x".into() })),
            ] {
                for scope in ["", "/x", "/x@sha256:"] {
                    let digest = if scope.ends_with(':') { "0".repeat(64) } else { String::new() };
                    let scope = Scope::parse(&format!("{kind}.{name}.example.com{scope}{digest}")).unwrap();
                    layer.rules.insert(scope, Arc::clone(&rule)).unwrap();
                }
                layer.rules.insert(Scope::parse(&format!("*.{kind}.{name}.example.org")).unwrap(), rule).unwrap();
            }
        }
        policy.namespaces.insert("team".into(), team);
        let hosts = hosts_of(&policy);
        for name in ["cluster", "team"] {
            for kind in ["require", "allow", "deny"] {
                for host in [format!("{kind}.{name}.example.com"), format!("r.{kind}.{name}.example.org")] {
                    assert_eq!(hosts.allows(&host), kind == "require", "{host}");
                }
            }
        }
    }
}
