//! Destinations: a service with the DestinationRules that its consumers see.
//!
//! Invariants: a consumer's rules are those of its own namespace, else of the service's, else of the root namespaces (Istio's
//! look-up order); of one namespace those with the most specific host; several of one host are merged, oldest first.
//! Must not know: routes.

use std::collections::{BTreeMap, BTreeSet};

use leno_apis::{
    Diagnostic, Object, Rule,
    istio::{DestinationRule, destination_rule as api},
};
use leno_model::{ClientTls, Destination, EndpointSet, Exposure, Namespace, Subset, TrafficPolicy};

use crate::{
    backend_tls, codes, endpoints, hosts,
    output::{Output, age_order, key_of, origin},
    pods,
    services::{self, Registered},
    status::{self, ACCEPTED},
    traffic_policy,
    view::View,
};

type RuleObject = Object<DestinationRule>;

/// The pattern by which a rule names a service's host, if it does.
fn pattern(rule: &RuleObject, service: &Registered<'_>) -> Option<String> {
    let meanings = hosts::meanings(&rule.spec.host, rule.namespace());
    meanings.into_iter().find(|pattern| hosts::covers(pattern, service.id.host.as_str()))
}

/// All rules that may apply to a service for some consumer, oldest first.
fn candidates<'w>(view: &View<'w>, service: &Registered<'_>) -> Vec<(&'w RuleObject, String)> {
    let rules = view.destination_rules(service.id.host.as_str()).into_iter();
    // Rules for some workloads only are not supported and withheld as a whole; see `check`.
    let rules = rules.filter(|rule| rule.spec.workload_selector.is_none());
    rules.filter_map(|rule| Some((rule, pattern(rule, service)?))).collect()
}

/// The rules that a consumer sees: a namespace, or (`None`) one without rules of its own.
pub(crate) fn effective<'w>(
    view: &View<'w>,
    service: &Registered<'_>,
    consumer: Option<&Namespace>,
) -> Vec<&'w RuleObject> {
    let candidates = candidates(view, service);
    let order = consumer.map(Namespace::as_str).into_iter().chain([service.id.namespace.as_str()]);
    for namespace in order.chain(view.settings.roots()) {
        let visible =
            candidates.iter().filter(|(rule, _)| rule.namespace() == namespace && is_visible(rule, consumer));
        let visible: Vec<_> = visible.collect();
        let Some(best) = visible.iter().map(|(_, pattern)| hosts::specificity(pattern)).max() else {
            continue;
        };
        let most_specific = visible.into_iter().filter(|(_, pattern)| hosts::specificity(pattern) == best);
        let mut rules: Vec<_> = most_specific.map(|(rule, _)| *rule).collect();
        rules.sort_by(|a, b| age_order(a).cmp(&age_order(b)));
        return rules;
    }
    Vec::new()
}

fn is_visible(rule: &RuleObject, consumer: Option<&Namespace>) -> bool {
    match (hosts::exposure_of(&rule.spec.export_to, rule.namespace()), consumer) {
        (Exposure::Everywhere, _) => true,
        (Exposure::Only(_), None) => false,
        (exposure, Some(consumer)) => exposure.includes(consumer),
    }
}

/// The namespaces whose consumers see other rules than most.
pub(crate) fn variants(view: &View<'_>, service: &Registered<'_>) -> BTreeSet<Namespace> {
    let mut namespaces = BTreeSet::new();
    for (rule, _) in candidates(view, service) {
        namespaces.insert(Namespace::from(rule.namespace()));
        if let Exposure::Only(only) = hosts::exposure_of(&rule.spec.export_to, rule.namespace()) {
            namespaces.extend(only);
        }
    }
    let common: Vec<_> = effective(view, service, None).into_iter().map(key_of).collect();
    namespaces.retain(|namespace| {
        let own: Vec<_> = effective(view, service, Some(namespace)).into_iter().map(key_of).collect();
        own != common
    });
    namespaces
}

/// A service as the consumers of one variant call it.
pub(crate) fn destination(
    view: &View<'_>,
    service: &Registered<'_>,
    variant: Option<&Namespace>,
    set: &EndpointSet,
    out: &mut Output,
) -> Destination {
    let rules = effective(view, service, variant);
    let settings = view.settings;
    let default = traffic_policy::default(settings);
    let top = rules.iter().find_map(|rule| written_policy(rule));
    let mut policy =
        top.map_or_else(|| default.clone(), |top| traffic_policy::over(settings, &default, &top.settings));
    let mut port_policies = top.map(|top| traffic_policy::by_port(settings, &top.ports)).unwrap_or_default();
    ask_for_tls(view, service, &mut policy, &mut port_policies);
    let mut subsets: BTreeMap<&str, (&RuleObject, &api::Subset)> = BTreeMap::new();
    for rule in &rules {
        for subset in rule.spec.subsets.iter().filter_map(Rule::ok) {
            if let Some((first, _)) = subsets.get(subset.name.as_str()) {
                let text =
                    format!("the subset {:?} is already defined by {}", subset.name.value, first.reference());
                out.report_on(rule, Diagnostic::warning(codes::CONFLICT, subset.name.at.clone(), text));
            } else {
                subsets.insert(&subset.name, (rule, subset));
            }
        }
    }
    let base = Base { view, policy: &policy, port_policies: &port_policies };
    Destination {
        service: service.id.clone(),
        variant: variant.cloned(),
        ports: service.index_ports(),
        identities: endpoints::identities(set),
        external: service.external,
        subsets: subsets.into_values().map(|(rule, subset)| base.subset(rule, subset)).collect(),
        origin: rules.first().map_or_else(|| service.origin(), |rule| origin(*rule, &rule.source)),
        policy,
        port_policies,
    }
}

/// Lays what BackendTLSPolicies ask for under what the rule says about TLS.
fn ask_for_tls(
    view: &View<'_>,
    service: &Registered<'_>,
    policy: &mut TrafficPolicy,
    port_policies: &mut BTreeMap<u16, TrafficPolicy>,
) {
    let asked = backend_tls::of_service(view, service);
    for (port, tls) in &asked {
        if let Some(port) = port {
            let of_port = port_policies.entry(*port).or_insert_with(|| policy.clone());
            if of_port.tls == ClientTls::Auto {
                of_port.tls = tls.clone();
            }
        }
    }
    if let Some((_, tls)) = asked.iter().find(|(port, _)| port.is_none()) {
        for policy in std::iter::once(policy).chain(port_policies.values_mut()) {
            if policy.tls == ClientTls::Auto {
                policy.tls = tls.clone();
            }
        }
    }
}

/// The top-level policy of a rule, if it says anything.
fn written_policy(rule: &RuleObject) -> Option<&api::TrafficPolicy> {
    rule.spec.traffic_policy.ok().filter(|policy| **policy != api::TrafficPolicy::default())
}

struct Base<'b, 'w> {
    view: &'b View<'w>,
    policy: &'b TrafficPolicy,
    port_policies: &'b BTreeMap<u16, TrafficPolicy>,
}

impl Base<'_, '_> {
    /// A subset; its policy over the service's, at each port over the port's; its ports' in place of both.
    fn subset(&self, rule: &RuleObject, subset: &api::Subset) -> Subset {
        let settings = self.view.settings;
        let own = subset.traffic_policy.as_ref();
        let mut port_policies = BTreeMap::new();
        if let Some(own) = own {
            let of_ports = self.port_policies.iter();
            port_policies.extend(
                of_ports.map(|(port, base)| (*port, traffic_policy::over(settings, base, &own.settings))),
            );
            port_policies.extend(traffic_policy::by_port(settings, &own.ports));
        }
        Subset {
            name: subset.name.as_str().into(),
            labels: pods::shared(&subset.labels),
            policy: own.map(|own| traffic_policy::over(settings, self.policy, &own.settings)),
            port_policies,
            origin: origin(rule, &subset.name.at),
        }
    }
}

/// Whether a consumer sees a subset of a service, and the rules where it looked.
pub(crate) fn has_subset<'w>(
    view: &View<'w>,
    service: &Registered<'_>,
    consumer: Option<&Namespace>,
    name: &str,
) -> Result<(), Option<&'w RuleObject>> {
    let rules = effective(view, service, consumer);
    let mut subsets = rules.iter().flat_map(|rule| &rule.spec.subsets).filter_map(Rule::ok);
    if subsets.any(|subset| subset.name.value == name) { Ok(()) } else { Err(rules.first().copied()) }
}

/// What can be said about a rule by itself.
pub(crate) fn check(view: &View<'_>, rule: &RuleObject, out: &mut Output) {
    let mut accepted = status::Condition::yes("Accepted");
    if rule.spec.workload_selector.is_some() {
        let text = "`workloadSelector` is not supported by this release: the rule has no effect";
        out.report_on(
            rule,
            Diagnostic::error(codes::NOT_HONOURED, rule.source.with_field("spec.workloadSelector"), text),
        );
        accepted = status::Condition::no("Unsupported", text);
    }
    let host = &rule.spec.host;
    if !hosts::is_wildcard(host) && services::resolve(view, host, rule.namespace()).is_none() {
        let text = format!("no service has the host {:?}: the rule has no effect", host.value);
        out.report_on(rule, Diagnostic::warning(codes::UNKNOWN_HOST, host.at.clone(), text.clone()));
        accepted = status::Condition::no("UnknownHost", text);
    }
    let of_subsets =
        rule.spec.subsets.iter().filter_map(Rule::ok).filter_map(|subset| subset.traffic_policy.as_ref());
    for policy in rule.spec.traffic_policy.ok().into_iter().chain(of_subsets) {
        for (at, what) in traffic_policy::not_honoured(policy) {
            let text = format!("not supported by this release: {what}");
            out.report_on(rule, Diagnostic::warning(codes::NOT_HONOURED, at, text));
        }
    }
    let refused =
        rule.spec.subsets.iter().filter_map(Rule::refusal).chain(rule.spec.traffic_policy.refusal());
    if let Some(because) = refused.into_iter().next() {
        let condition = status::Condition::no("PartiallyRefused", because.message.clone());
        out.status(key_of(rule)).say(ACCEPTED, condition);
    }
    out.status(key_of(rule)).say(ACCEPTED, accepted);
}
