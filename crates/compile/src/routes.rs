//! A service's routing tables: one for most consumers, and one for each namespace with rules of its own.
//!
//! Invariants: on the ports that they attach to, Gateway API routes of a service (those of the consumer's namespace, else those
//! of the service's) win over VirtualServices, with a finding; a port that no rule speaks about has no entry.
//! Must not know: what a match or filter means (`virtual_service`, `http_route`).

use std::{collections::BTreeMap, sync::Arc};

use leno_apis::Diagnostic;
use leno_model::{Namespace, PortRoutes, Resource, RouteTable, ServiceId};

use crate::{
    backends::Context,
    codes, destination_rule, http_route,
    output::Output,
    services::{self, Registered},
    view::View,
    virtual_service,
};

/// The namespaces whose own rules change how they call a service, ordered.
pub(crate) fn variants(view: &View<'_>, service: &Registered<'_>) -> Vec<Namespace> {
    let mut namespaces = destination_rule::variants(view, service);
    namespaces.extend(virtual_service::variants(view, service));
    namespaces.extend(http_route::variants(view, service));
    namespaces.into_iter().collect()
}

/// Compiles the routing tables of a service.
pub(crate) fn compile(view: &View<'_>, id: &ServiceId, out: &mut Output) {
    let Some(service) = services::find(view, id) else { return };
    let variants = variants(view, &service);
    for variant in std::iter::once(None).chain(variants.iter().map(Some)) {
        let ports = table(view, &service, variant, out);
        if !ports.is_empty() {
            let table = RouteTable { service: id.clone(), variant: variant.cloned(), ports };
            out.resource(Resource::Routes(Arc::new(table)));
        }
    }
}

fn table(
    view: &View<'_>,
    service: &Registered<'_>,
    variant: Option<&Namespace>,
    out: &mut Output,
) -> BTreeMap<u16, PortRoutes> {
    let gamma = http_route::of_service(view, service, variant);
    let istio = virtual_service::of_service(view, service, variant);
    if !gamma.is_empty() {
        for (rule, _) in &istio {
            let text = format!("{} also has routes of the Gateway API, which win", service.id.host);
            out.report_on(rule, Diagnostic::warning(codes::CONFLICT, rule.source.clone(), text));
        }
    } else if let [(oldest, _), others @ ..] = istio.as_slice() {
        for (rule, _) in others {
            let first = oldest.reference();
            let text = format!(
                "{first} also speaks for {}: its routes come before those of this one",
                service.id.host
            );
            out.report_on(rule, Diagnostic::warning(codes::CONFLICT, rule.source.clone(), text));
        }
    }
    let mut ports = BTreeMap::new();
    for port in &service.ports {
        let context = Context { view, consumer: variant, port: port.port };
        let mut routes = http_route::port_routes(context, service, port, &gamma);
        if routes == PortRoutes::default() {
            routes = virtual_service::port_routes(context, port, &istio, out);
        }
        if routes != PortRoutes::default() {
            ports.insert(port.port, routes);
        }
    }
    ports
}
