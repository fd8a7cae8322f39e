//! Subsets that VirtualServices lead to and no DestinationRule defines, before anything is compiled: what a change would break.
//!
//! Invariant: who sees which rule is not asked, so what is undefined here is undefined for every consumer.
//! Must not know: what is done about it.

use std::collections::{BTreeMap, BTreeSet};

use leno_apis::{AnyObject, Object, Rule, Source, istio::DestinationRule};

use crate::{hosts, virtual_service, world::ObjectKey};

/// A subset that is led to and not defined.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Undefined {
    /// The VirtualService.
    pub route: ObjectKey,
    /// The host as it is written there, in full first.
    pub hosts: Vec<String>,
    /// The subset's name.
    pub subset: String,
    /// Where it is named.
    pub at: Source,
}

impl Undefined {
    /// Whether a DestinationRule defines it.
    #[must_use]
    pub fn is_defined_by(&self, object: &AnyObject) -> bool {
        let AnyObject::DestinationRule(rule) = object else { return false };
        let named =
            || patterns(rule).into_iter().any(|it| self.hosts.iter().any(|host| hosts::covers(&it, host)));
        names(rule).any(|name| name == self.subset) && named()
    }

    /// The same wherever it is written.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.route, &self.hosts, &self.subset) == (&other.route, &other.hosts, &other.subset)
    }
}

/// What is undefined among some objects.
pub fn undefined<'o>(objects: impl Iterator<Item = &'o AnyObject> + Clone) -> BTreeSet<Undefined> {
    let mut exact: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut wildcards: Vec<(String, &str)> = Vec::new();
    for object in objects.clone() {
        let AnyObject::DestinationRule(rule) = object else { continue };
        for pattern in patterns(rule) {
            if hosts::is_wildcard(&pattern) {
                wildcards.extend(names(rule).map(|name| (pattern.clone(), name)));
            } else {
                exact.entry(pattern).or_default().extend(names(rule));
            }
        }
    }
    let is_defined = |host: &String, subset: &str| {
        exact.get(host).is_some_and(|names| names.contains(subset))
            || wildcards.iter().any(|(pattern, name)| *name == subset && hosts::covers(pattern, host))
    };
    let mut found = BTreeSet::new();
    for object in objects {
        let AnyObject::VirtualService(route) = object else { continue };
        for destination in virtual_service::destinations(&route.spec) {
            let Some(subset) = &destination.subset else { continue };
            let hosts = hosts::meanings(&destination.host, route.namespace());
            if !hosts.iter().any(|host| is_defined(host, subset)) {
                let (route, at) = (ObjectKey::of(object), subset.at.clone());
                found.insert(Undefined { route, hosts, subset: subset.value.clone(), at });
            }
        }
    }
    found
}

fn patterns(rule: &Object<DestinationRule>) -> Vec<String> {
    hosts::meanings(&rule.spec.host, rule.namespace())
}

fn names(rule: &Object<DestinationRule>) -> impl Iterator<Item = &str> {
    rule.spec.subsets.iter().filter_map(Rule::ok).map(|subset| subset.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(to: &str, subset: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: back, namespace: shop}}\n\
             spec: {{hosts: [back], http: [{{route: [{{destination: {{host: {to}, subset: {subset}}}}}]}}]}}\n---\n"
        )
    }

    fn rule(host: &str, subset: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: back, namespace: shop}}\n\
             spec: {{host: {host}, subsets: [{{name: {subset}, labels: {{version: v1}}}}]}}\n---\n"
        )
    }

    fn undefined_in(text: &str) -> Vec<String> {
        let parsed = leno_apis::parse("x.yaml", text);
        undefined(parsed.objects.iter().map(|object| &**object))
            .into_iter()
            .map(|it| format!("{} {}", it.hosts[0], it.subset))
            .collect()
    }

    #[test]
    fn a_subset_is_defined_by_any_rule_whose_host_covers_the_routes() {
        let missing = ["back.shop.svc.cluster.local v1"];
        assert_eq!(undefined_in(&route("back", "v1")), missing);
        assert_eq!(undefined_in(&(route("back", "v1") + &rule("back", "v2"))), missing);
        assert_eq!(undefined_in(&(route("back", "v1") + &rule("other", "v1"))), missing);
        for host in ["back", "back.shop", "back.shop.svc.cluster.local", "\"*.shop.svc.cluster.local\""] {
            assert!(undefined_in(&(route("back", "v1") + &rule(host, "v1"))).is_empty(), "{host}");
        }
    }
}
