//! Services, subsets, policies and identities without workloads; plaintext towards workloads that refuse it.

use std::collections::BTreeMap;

use leno_apis::{AnyObject, Kind, Rule, Source};
use leno_model::{ClientTls, Destination, Endpoint, MtlsMode, Port, Subset, TrafficPolicy};

use super::{Findings, Scene};
use crate::codes;

/// Services whose selector no pod matches.
pub(super) fn services(scene: &Scene<'_>, found: &mut Findings<'_>) {
    for object in scene.world.of_kind(Kind::Service) {
        let AnyObject::Service(service) = &**object else { continue };
        if service.spec.selector.is_empty() || service.spec.external_name.is_some() {
            continue;
        }
        let id = leno_model::ServiceId::kubernetes(service.namespace(), service.name());
        let empty = scene.endpoints.iter().any(|set| set.service == id && set.endpoints.is_empty());
        if empty {
            let at = service.source.with_field("spec.selector");
            let text = "no workload has the labels that it selects".to_owned();
            found.warn(object, codes::NOBODY_SERVES, at, text);
        }
    }
}

/// Subsets whose labels no endpoint has.
pub(super) fn subsets(scene: &Scene<'_>, found: &mut Findings<'_>) {
    for destination in &scene.destinations {
        let Some(set) = scene.endpoints_of(destination) else { continue };
        for subset in &destination.subsets {
            if !set.endpoints.is_empty() && !set.endpoints.iter().any(|endpoint| is_in(endpoint, subset)) {
                let host = &destination.service.host;
                let text = format!("no workload of {host} has the labels of the subset {:?}", subset.name);
                found.warn_at(&subset.origin, codes::EMPTY_SUBSET, text);
            }
        }
    }
}

fn is_in(endpoint: &Endpoint, subset: &Subset) -> bool {
    subset.labels.iter().all(|(key, value)| endpoint.labels.get(key) == Some(value))
}

/// Policies that select no workload.
pub(super) fn policies(scene: &Scene<'_>, found: &mut Findings<'_>) {
    for object in scene.world.iter() {
        let (labels, at): (&BTreeMap<String, String>, Source) = match &**object {
            AnyObject::AuthorizationPolicy(policy) => match &policy.spec.selection {
                Rule::Ok(selection) if selection.targets.is_empty() => {
                    (&selection.match_labels, policy.source.clone())
                }
                Rule::Ok(_) | Rule::Refused(_) => continue,
            },
            AnyObject::PeerAuthentication(policy) => (&policy.spec.match_labels, policy.source.clone()),
            _ => continue,
        };
        // Without labels it waits for workloads that may come.
        if labels.is_empty() {
            continue;
        }
        let namespace = object.metadata().namespace();
        let is_root = is_root(namespace);
        let selected = scene.workloads.iter().any(|workload| {
            (is_root || workload.id.namespace.as_str() == namespace)
                && labels
                    .iter()
                    .all(|(key, value)| workload.labels.get(&**key).is_some_and(|has| **has == **value))
        });
        if !selected {
            let place = if is_root { "the mesh".to_owned() } else { format!("namespace {namespace}") };
            let text = format!("no workload of {place} has the labels that it selects");
            found.warn(object, codes::SELECTS_NOTHING, at.with_field("spec.selector.matchLabels"), text);
        }
    }
}

fn is_root(namespace: &str) -> bool {
    let default = leno_compile::MeshSettings::default();
    namespace == default.root_namespace.as_str() || namespace == "istio-system"
}

/// Exact principals of this cluster that no workload has.
pub(super) fn identities(scene: &Scene<'_>, found: &mut Findings<'_>) {
    // Where no workload is known nothing can be said about who exists.
    let Some(domain) = scene.workloads.first().map(|workload| workload.identity.trust_domain().to_owned())
    else {
        return;
    };
    let gateways = scene.gateways.iter().map(|gateway| &gateway.identity);
    let known: Vec<&str> = scene
        .workloads
        .iter()
        .map(|workload| &workload.identity)
        .chain(gateways)
        .map(|id| id.principal())
        .collect();
    for object in scene.world.of_kind(Kind::AuthorizationPolicy) {
        let AnyObject::AuthorizationPolicy(policy) = &**object else { continue };
        let rules = policy.spec.rules.iter().filter_map(Rule::ok);
        let sources = rules.flat_map(|rule| rule.from.iter().flatten());
        for principal in sources.flat_map(|source| &source.principals) {
            let ours = principal.strip_prefix(&*domain).is_some_and(|rest| rest.starts_with('/'));
            if ours && !principal.contains('*') && !known.contains(&principal.as_str()) {
                let text = format!("no workload has the identity {:?}", principal.value);
                found.warn(object, codes::UNKNOWN_IDENTITY, principal.at.clone(), text);
            }
        }
    }
}

/// Rules that ask for plaintext towards workloads that accept only mTLS.
pub(super) fn plaintext(scene: &Scene<'_>, found: &mut Findings<'_>) {
    for destination in &scene.destinations {
        let Some(set) = scene.endpoints_of(destination) else { continue };
        for port in &destination.ports {
            let of_subsets = destination.subsets.iter().map(|subset| Some(&*subset.name));
            for subset in std::iter::once(None).chain(of_subsets) {
                let policy: &TrafficPolicy = destination.policy_for(port.port, subset);
                let chosen = subset.and_then(|name| destination.subsets.iter().find(|s| *s.name == *name));
                let mut endpoints = set
                    .endpoints
                    .iter()
                    .filter(|endpoint| chosen.is_none_or(|subset| is_in(endpoint, subset)));
                if policy.tls == ClientTls::Disable
                    && let Some(endpoint) = endpoints.find(|endpoint| is_strict(scene, endpoint, port.port))
                {
                    refuse(destination, chosen, port.port, endpoint, found);
                }
            }
        }
    }
}

fn refuse(
    destination: &Destination,
    subset: Option<&Subset>,
    port: Port,
    endpoint: &Endpoint,
    found: &mut Findings<'_>,
) {
    let origin = subset.map_or(&destination.origin, |subset| &subset.origin);
    let text = format!(
        "tls.mode DISABLE sends plaintext to port {port} of {}, and {} there accepts only mTLS",
        destination.service.host, endpoint.owner
    );
    found.warn_at(origin, codes::PLAINTEXT_TO_STRICT, text);
}

fn is_strict(scene: &Scene<'_>, endpoint: &Endpoint, port: Port) -> bool {
    let Some(target) = endpoint.ports.get(&port) else { return false };
    let workload = scene.workloads.iter().find(|workload| workload.id == endpoint.workload);
    workload.is_some_and(|workload| {
        let inbound = workload.ports.iter().find(|inbound| inbound.port == *target);
        inbound.map_or(workload.mtls, |inbound| inbound.mtls) == MtlsMode::Strict
    })
}
