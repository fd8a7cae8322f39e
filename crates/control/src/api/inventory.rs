//! What is published: resources of the model, and services and gateways in short.
//!
//! Invariant: secrets are named, never shown.

use std::collections::BTreeMap;

use leno_model::{EndpointState, Resource, ResourceKey};
use serde_json::{Value, json};

use super::Api;
use crate::published::Published;

/// `/v1/resources?kind=&name=`
pub(super) fn resources(published: &Published, query: &BTreeMap<String, String>) -> Value {
    let wanted = |key: &ResourceKey| {
        let kind = format!("{:?}", key.kind);
        query.get("kind").is_none_or(|wanted| wanted.eq_ignore_ascii_case(&kind))
            && query.get("name").is_none_or(|wanted| **wanted == *key.name)
    };
    let found = published.compiled.resources.iter().filter(|(key, _)| wanted(key));
    let found: Vec<Value> = found.map(|(key, resource)| entry(key, resource)).collect();
    json!({ "generation": published.generation, "resources": found })
}

/// `/v1/world`: what `decide` needs to say offline what would happen.
pub(super) fn world(api: &Api, published: &Published) -> Value {
    let shown = published.compiled.resources.iter().filter(|(_, it)| !matches!(it, Resource::Secret(_)));
    json!({
        "generation": published.generation,
        "cluster": api.config.cluster,
        "trust_domain": api.config.trust_domain,
        "network": api.config.network,
        "outbound": api.config.settings.outbound,
        "resources": shown.map(|(_, resource)| resource).collect::<Vec<_>>(),
    })
}

/// `/v1/services`
pub(super) fn services(published: &Published) -> Value {
    let resources = &published.compiled.resources;
    let entries = resources.values().filter_map(|resource| match resource {
        Resource::Index(entry) => Some(entry),
        _ => None,
    });
    let services = entries.map(|entry| {
        let (mut ready, mut total) = (0, 0);
        let mut clusters: BTreeMap<&str, usize> = BTreeMap::new();
        let mut stale = Vec::new();
        if let Some(Resource::Endpoints(set)) = resources.get(&ResourceKey::endpoints(&entry.service)) {
            stale.extend(set.stale.iter().map(leno_model::ClusterName::as_str));
            for endpoint in &set.endpoints {
                total += 1;
                ready += usize::from(endpoint.state == EndpointState::Ready);
                *clusters.entry(endpoint.cluster.as_str()).or_default() += 1;
            }
        }
        json!({
            "namespace": entry.service.namespace,
            "name": entry.service.short_name(),
            "host": entry.service.host,
            "addresses": entry.addresses,
            "ports": entry.ports,
            "external": entry.external,
            "exposure": entry.exposure,
            "endpoints": { "total": total, "ready": ready, "clusters": clusters, "stale": stale },
        })
    });
    json!({ "generation": published.generation, "services": services.collect::<Vec<_>>() })
}

/// `/v1/gateways`
pub(super) fn gateways(published: &Published) -> Value {
    let gateways = published.compiled.gateways().iter().map(|summary| {
        let gateway = published.compiled.resources.get(&ResourceKey::gateway(&summary.id));
        let listeners = match gateway {
            Some(Resource::Gateway(gateway)) => gateway.listeners.as_slice(),
            _ => &[],
        };
        let listeners = listeners.iter().map(|listener| {
            json!({
                "name": listener.name,
                "port": listener.port,
                "protocol": listener.protocol,
                "host": listener.host.to_string(),
                "hosts": listener.routes.iter().map(|route| route.host.to_string()).collect::<Vec<_>>(),
            })
        });
        json!({
            "namespace": summary.id.namespace,
            "name": summary.id.name,
            "identity": summary.identity,
            "ports": summary.ports,
            "has_pod": summary.has_pod,
            "origin": summary.origin.to_string(),
            "listeners": listeners.collect::<Vec<_>>(),
        })
    });
    json!({ "generation": published.generation, "gateways": gateways.collect::<Vec<_>>() })
}

fn entry(key: &ResourceKey, resource: &Resource) -> Value {
    let content = match resource {
        Resource::Secret(secret) => json!({ "secret": { "id": secret.id } }),
        shown => json!(shown),
    };
    json!({ "kind": format!("{:?}", key.kind), "name": key.name, "resource": content })
}
