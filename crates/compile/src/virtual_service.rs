//! VirtualServices: which ones speak for a service or a gateway's host, and their routes in the model's terms.
//!
//! Invariants: routes keep their order; of several VirtualServices for one host the oldest comes first; a rule that was
//! refused keeps its place and fails. Must not know: where the table ends up (a service's port, a gateway's listener).

use std::collections::BTreeSet;

use leno_apis::{
    Object, Rule, Spanned,
    istio::{VirtualService, virtual_service as api},
};
use leno_model::{Exposure, HttpEntry, HttpMatch, HttpRoutes, Namespace, PortRoutes, Protocol, TcpEntry};

use crate::{
    backends::Context,
    destination_rule, hosts,
    output::{Output, origin},
    services::{self, Registered, RegisteredPort},
    view::{View, gateway_name},
};

pub(crate) mod action;
pub(crate) mod matching;
mod stream;

pub(crate) type RuleObject = Object<VirtualService>;

/// The gateway that stands for the mesh's own proxies.
const MESH: &str = "mesh";

/// Where a VirtualService is applied: to the mesh, or at a gateway (`namespace/name`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'p> {
    Mesh,
    Gateway(&'p str),
}

impl Place<'_> {
    /// Whether a list of gateways names this place.
    fn is_among(self, gateways: &[Spanned<String>], namespace: &str) -> bool {
        gateways.iter().any(|gateway| match self {
            Self::Mesh => gateway.value == MESH,
            Self::Gateway(name) => gateway.value != MESH && *gateway_name(gateway, namespace) == *name,
        })
    }

    /// Whether a match applies here: by its own gateways, else by those of its VirtualService (none is the mesh).
    fn admits(self, own: &[Spanned<String>], rule: &RuleObject) -> bool {
        let gateways = if own.is_empty() { &rule.spec.gateways } else { own };
        match gateways {
            [] => self == Place::Mesh,
            gateways => self.is_among(gateways, rule.namespace()),
        }
    }
}

fn is_visible(rule: &RuleObject, consumer: Option<&Namespace>) -> bool {
    match (hosts::exposure_of(&rule.spec.export_to, rule.namespace()), consumer) {
        (Exposure::Everywhere, _) => true,
        (Exposure::Only(_), None) => false,
        (exposure, Some(consumer)) => exposure.includes(consumer),
    }
}

/// The most specific pattern by which a VirtualService names a host.
fn pattern(rule: &RuleObject, host: &str) -> Option<String> {
    let meanings = rule.spec.hosts.iter().flat_map(|text| hosts::meanings(text, rule.namespace()));
    meanings.filter(|pattern| hosts::covers(pattern, host)).max_by_key(|pattern| hosts::specificity(pattern))
}

/// Whether a VirtualService speaks for the mesh at all: itself, or by one of its matches.
fn is_for_mesh(rule: &RuleObject) -> bool {
    Place::Mesh.admits(&[], rule)
        || rule
            .spec
            .http
            .iter()
            .flat_map(|route| &route.matches)
            .filter_map(Rule::ok)
            .any(|found| Place::Mesh.is_among(&found.gateways, rule.namespace()))
}

/// The VirtualServices of the mesh that speak for a service as a consumer sees it: those with the most specific host, oldest
/// first.
pub(crate) fn of_service<'w>(
    view: &View<'w>,
    service: &Registered<'_>,
    consumer: Option<&Namespace>,
) -> Vec<(&'w RuleObject, String)> {
    let host = service.id.host.as_str();
    let rules = view
        .virtual_services(host)
        .into_iter()
        .filter(|rule| is_for_mesh(rule) && is_visible(rule, consumer));
    let mut found: Vec<_> = rules.filter_map(|rule| Some((rule, pattern(rule, host)?))).collect();
    let best = found.iter().map(|(_, pattern)| hosts::specificity(pattern)).max();
    found.retain(|(_, pattern)| Some(hosts::specificity(pattern)) == best);
    found
}

/// The namespaces that see VirtualServices for a service which most do not, or other subsets of what those lead to.
pub(crate) fn variants(view: &View<'_>, service: &Registered<'_>) -> BTreeSet<Namespace> {
    let host = service.id.host.as_str();
    let mut of_subsets = BTreeSet::new();
    let rules = view.virtual_services(host).into_iter().filter(|rule| is_for_mesh(rule));
    let of_host: Vec<_> = rules.filter(|rule| pattern(rule, host).is_some()).collect();
    for rule in &of_host {
        for destination in destinations(&rule.spec).filter(|destination| destination.subset.is_some()) {
            let target = services::resolve(view, &destination.host, rule.namespace());
            // A service's own rules are among its variants already.
            if let Some(target) = target.filter(|target| target.id != service.id) {
                of_subsets.extend(destination_rule::variants(view, &target));
            }
        }
    }
    let only = of_host.into_iter().filter_map(|rule| {
        match hosts::exposure_of(&rule.spec.export_to, rule.namespace()) {
            Exposure::Everywhere => None,
            Exposure::Only(only) => Some(only),
        }
    });
    of_subsets.extend(only.flatten());
    of_subsets
}

/// Everything that a VirtualService sends to.
pub(crate) fn destinations(rule: &VirtualService) -> impl Iterator<Item = &api::Destination> {
    let actions = rule.http.iter().filter_map(|route| route.action.ok());
    let mirrors = actions.clone().flat_map(|action| &action.mirrors).map(|mirror| &mirror.destination);
    let of_streams =
        rule.tcp.iter().map(|route| &route.route).chain(rule.tls.iter().map(|route| &route.route));
    let of_streams = of_streams.filter_map(Rule::ok).flatten();
    let shares = actions.flat_map(|action| &action.route).chain(of_streams);
    shares.filter_map(|share| share.target.ok()).map(|target| &target.destination).chain(mirrors)
}

/// The routes of one port of a service.
pub(crate) fn port_routes(
    context: Context<'_, '_>,
    port: &RegisteredPort,
    rules: &[(&RuleObject, String)],
    out: &mut Output,
) -> PortRoutes {
    let mut routes = PortRoutes::default();
    let mut http = HttpRoutes::default();
    for (rule, _) in rules {
        if port.protocol.is_http() || port.protocol == Protocol::Detect {
            http_entries(context, Place::Mesh, rule, &mut http, out);
        }
        if !port.protocol.is_http() {
            routes.tcp.extend(stream_entries(context, Place::Mesh, rule, out));
        }
    }
    if !http.entries.is_empty() {
        routes.http = Some(http);
    }
    routes
}

/// Adds the HTTP routes of a VirtualService that apply at a place and port.
pub(crate) fn http_entries(
    context: Context<'_, '_>,
    place: Place<'_>,
    rule: &RuleObject,
    routes: &mut HttpRoutes,
    out: &mut Output,
) {
    for route in &rule.spec.http {
        let entries = entries_of(context, place, rule, route, out);
        if entries.is_empty() {
            continue;
        }
        let index = u32::try_from(routes.rules.len()).unwrap_or(u32::MAX);
        routes.rules.push(action::rule(context, rule, route, out));
        routes.entries.extend(entries.into_iter().map(|(matcher, origin)| HttpEntry {
            matcher,
            rule: index,
            origin,
        }));
    }
}

/// The matches of a route that apply here. A match that was refused, or can never hold, is left out: no request is its own.
fn entries_of(
    context: Context<'_, '_>,
    place: Place<'_>,
    rule: &RuleObject,
    route: &api::HttpRoute,
    out: &mut Output,
) -> Vec<(HttpMatch, leno_model::Origin)> {
    if route.matches.is_empty() {
        let admitted = place.admits(&[], rule);
        return admitted.then(|| (HttpMatch::default(), origin(rule, &route.at))).into_iter().collect();
    }
    let mut entries = Vec::new();
    for found in route.matches.iter().filter_map(Rule::ok) {
        let of_port = found.port.as_ref().is_none_or(|port| **port == context.port);
        if !of_port || !place.admits(&found.gateways, rule) {
            continue;
        }
        match matching::http(found) {
            Ok(matcher) => entries.push((matcher, origin(rule, &found.at))),
            Err(diagnostic) => out.report_on(rule, *diagnostic),
        }
    }
    entries
}

/// The TLS and TCP routes of a VirtualService that apply at a place and port; TLS routes first, as they match more closely.
pub(crate) fn stream_entries(
    context: Context<'_, '_>,
    place: Place<'_>,
    rule: &RuleObject,
    out: &mut Output,
) -> Vec<TcpEntry> {
    stream::entries(context, place, rule, out)
}
