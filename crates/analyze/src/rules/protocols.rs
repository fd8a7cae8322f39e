//! HTTP routes of ports that do not say HTTP; rules without any weight.

use leno_apis::{AnyObject, Kind};
use leno_model::{Action, IndexEntry, Protocol};

use super::{Findings, Scene};
use crate::codes;

/// HTTP routes where no request may be seen.
pub(super) fn routes(scene: &Scene<'_>, found: &mut Findings<'_>) {
    undeclared(scene, found);
    weightless(scene, found);
    without_http(scene, found);
}

fn undeclared(scene: &Scene<'_>, found: &mut Findings<'_>) {
    for table in &scene.routes {
        let Some(entry) = scene.index.iter().find(|entry| entry.service == table.service) else { continue };
        for (port, routes) in &table.ports {
            let declared = entry.ports.iter().find(|candidate| candidate.port == *port);
            let Some(http) = &routes.http else { continue };
            if declared.is_some_and(|declared| declared.protocol == Protocol::Detect)
                && let Some(rule) = http.rules.first()
            {
                let text = format!(
                    "port {port} of {} has HTTP routes and does not declare its protocol: set `appProtocol: http`, or \
                     name the port `http-...`",
                    table.service.host
                );
                found.warn_at(&rule.origin, codes::UNDECLARED_PROTOCOL, text);
            }
        }
    }
}

fn weightless(scene: &Scene<'_>, found: &mut Findings<'_>) {
    let of_services =
        scene.routes.iter().flat_map(|table| table.ports.values()).filter_map(|port| port.http.as_ref());
    let of_gateways = scene.gateways.iter().flat_map(|gateway| &gateway.listeners);
    let of_gateways = of_gateways.flat_map(|listener| &listener.routes).map(|host| &host.routes);
    for rule in of_services.chain(of_gateways).flat_map(|routes| &routes.rules) {
        if let Action::Forward(backends) = &rule.action
            && !backends.is_empty()
            && backends.iter().all(|backend| backend.weight.0 == 0)
        {
            let text = "all weights of the rule are 0: its requests are answered 500".to_owned();
            found.warn_at(&rule.origin, codes::WEIGHTLESS, text);
        }
    }
}

/// VirtualServices with HTTP routes, and routes of the Gateway API, for services all of whose ports are TCP or TLS.
fn without_http(scene: &Scene<'_>, found: &mut Findings<'_>) {
    for object in scene.world.of_kind(Kind::VirtualService) {
        let AnyObject::VirtualService(rule) = &**object else { continue };
        let for_mesh =
            rule.spec.gateways.is_empty() || rule.spec.gateways.iter().any(|name| name.value == "mesh");
        if rule.spec.http.is_empty() || !for_mesh {
            continue;
        }
        for host in &rule.spec.hosts {
            let name = full_name(host, rule.namespace());
            let entry = scene.index.iter().find(|entry| entry.service.host.as_str() == name);
            if entry.is_some_and(|entry| is_opaque(entry)) {
                let text =
                    format!("{name} has no port that is HTTP: the HTTP routes have no effect in the mesh");
                found.warn(object, codes::HTTP_ROUTES_OF_TCP, host.at.clone(), text);
            }
        }
    }
    for object in scene.world.of_kind(Kind::HttpRoute) {
        let AnyObject::HttpRoute(route) = &**object else { continue };
        for parent in route
            .spec
            .parent_refs
            .iter()
            .filter_map(leno_apis::Rule::ok)
            .filter(|parent| parent.kind == "Service")
        {
            let namespace = parent.namespace.as_deref().unwrap_or(route.namespace());
            let name = full_name(&format!("{}.{namespace}", parent.name), namespace);
            let entry = scene.index.iter().find(|entry| entry.service.host.as_str() == name);
            if entry.is_some_and(|entry| is_opaque(entry)) {
                let text = format!("{name} has no port that is HTTP: the route has no effect there");
                found.warn(object, codes::HTTP_ROUTES_OF_TCP, parent.at.clone(), text);
            }
        }
    }
}

fn is_opaque(entry: &IndexEntry) -> bool {
    !entry.ports.is_empty()
        && entry.ports.iter().all(|port| matches!(port.protocol, Protocol::Tcp | Protocol::Tls))
}

/// The full name of a Kubernetes Service by `name`, `name.namespace` or its full name.
fn full_name(host: &str, namespace: &str) -> String {
    match host.split('.').count() {
        1 => format!("{host}.{namespace}.svc.cluster.local"),
        2 => format!("{host}.svc.cluster.local"),
        _ => host.to_ascii_lowercase(),
    }
}
