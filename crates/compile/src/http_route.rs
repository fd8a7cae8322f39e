//! HTTPRoutes and GRPCRoutes: which ones speak for a service (GAMMA), and their entries in order of precedence.
//!
//! Invariants: entries are sorted by the Gateway API's precedence across all routes of a host; a rule that was refused keeps
//! its matches and fails; a share that does not resolve fails for itself.
//! Must not know: listeners (`gateway`); statuses (`object_checks`).

use std::{cmp::Reverse, collections::BTreeSet};

use leno_apis::{
    Kind, Object, Rule,
    gateway::{GrpcRoute, HttpRoute, ParentRef, grpc_route, http_route as api},
};
use leno_model::{HttpEntry, HttpMatch, HttpRoutes, Namespace, Origin, PathMatch, PortRoutes, Protocol};

use crate::{
    backends::{Context, Grants},
    output::{age_order, origin},
    services::{Declared, Registered, RegisteredPort},
    view::View,
};

pub(crate) mod action;
pub(crate) mod matching;

/// A route of either kind.
#[derive(Clone, Copy)]
pub(crate) enum Route<'w> {
    Http(&'w Object<HttpRoute>),
    Grpc(&'w Object<GrpcRoute>),
}

impl<'w> Route<'w> {
    /// What it attaches to.
    pub(crate) fn parents(self) -> impl Iterator<Item = &'w ParentRef> {
        let parents = match self {
            Self::Http(route) => &route.spec.parent_refs,
            Self::Grpc(route) => &route.spec.parent_refs,
        };
        parents.iter().filter_map(Rule::ok)
    }

    /// Its hosts.
    pub(crate) fn hostnames(self) -> impl Iterator<Item = &'w str> {
        let hostnames = match self {
            Self::Http(route) => &route.spec.hostnames,
            Self::Grpc(route) => &route.spec.hostnames,
        };
        hostnames.iter().map(|host| host.value.as_str())
    }

    /// Its namespace.
    pub(crate) fn namespace(self) -> &'w str {
        match self {
            Self::Http(route) => route.namespace(),
            Self::Grpc(route) => route.namespace(),
        }
    }

    /// Its kind's name.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Http(_) => "HTTPRoute",
            Self::Grpc(_) => "GRPCRoute",
        }
    }

    fn age(self) -> (&'w str, &'w str, &'w str) {
        match self {
            Self::Http(route) => age_order(route),
            Self::Grpc(route) => age_order(route),
        }
    }
}

/// Routes of both kinds, oldest first.
pub(crate) fn by_age<'w>(
    http: Vec<&'w Object<HttpRoute>>,
    grpc: Vec<&'w Object<GrpcRoute>>,
) -> Vec<Route<'w>> {
    let mut routes: Vec<_> =
        http.into_iter().map(Route::Http).chain(grpc.into_iter().map(Route::Grpc)).collect();
    routes.sort_by(|a, b| a.age().cmp(&b.age()));
    routes
}

/// The routes with a parent, oldest first.
pub(crate) fn children<'w>(view: &View<'w>, kind: Kind, namespace: &str, name: &str) -> Vec<Route<'w>> {
    by_age(view.http_routes(kind, namespace, name), view.grpc_routes(kind, namespace, name))
}

/// Whether a parent reference is to a Service.
pub(crate) fn is_service(parent: &ParentRef) -> bool {
    matches!(parent.group.as_str(), "" | "core") && parent.kind == "Service"
}

/// Whether a parent reference of a route is to a service's port.
pub(crate) fn attaches(
    parent: &ParentRef,
    namespace: &str,
    service: &Registered<'_>,
    port: &RegisteredPort,
) -> bool {
    is_service(parent)
        && parent.name == service.id.short_name()
        && parent.namespace.as_deref().unwrap_or(namespace) == service.id.namespace.as_str()
        && parent.port.is_none_or(|number| number == port.port)
        && parent.section_name.as_deref().is_none_or(|name| name == &*port.name)
}

/// The routes that a consumer of a service may follow: its own namespace's (consumer routes) and the service's (producer routes).
pub(crate) fn of_service<'w>(
    view: &View<'w>,
    service: &Registered<'_>,
    consumer: Option<&Namespace>,
) -> Vec<Route<'w>> {
    let mut all = all_of_service(view, service);
    all.retain(|route| {
        let of = |namespace: &Namespace| route.namespace() == namespace.as_str();
        of(&service.id.namespace) || consumer.is_some_and(of)
    });
    all
}

fn all_of_service<'w>(view: &View<'w>, service: &Registered<'_>) -> Vec<Route<'w>> {
    match service.declared {
        Declared::Service(object) => children(view, Kind::Service, object.namespace(), object.name()),
        Declared::Entries(_) | Declared::Remote => Vec::new(),
    }
}

/// The namespaces with consumer routes of their own.
pub(crate) fn variants(view: &View<'_>, service: &Registered<'_>) -> BTreeSet<Namespace> {
    let namespaces =
        all_of_service(view, service).into_iter().map(|route| Namespace::from(route.namespace()));
    namespaces.filter(|namespace| *namespace != service.id.namespace).collect()
}

/// The routes of one port of a service: the consumer's where it has some for this port, else the service's. Requests that no
/// rule matches are answered 404.
pub(crate) fn port_routes(
    context: Context<'_, '_>,
    service: &Registered<'_>,
    port: &RegisteredPort,
    routes: &[Route<'_>],
) -> PortRoutes {
    if matches!(port.protocol, Protocol::Tcp | Protocol::Tls) {
        return PortRoutes::default();
    }
    let mut attached: Vec<Route<'_>> = routes
        .iter()
        .copied()
        .filter(|route| route.parents().any(|parent| attaches(parent, route.namespace(), service, port)))
        .collect();
    let is_own = |route: &Route<'_>| context.consumer.is_some_and(|own| route.namespace() == own.as_str());
    if attached.iter().any(is_own) {
        attached.retain(is_own);
    }
    if attached.is_empty() {
        return PortRoutes::default();
    }
    PortRoutes { http: Some(table(context, &attached, Grants::NotNeeded)), tcp: Vec::new() }
}

/// More is more specific, the first difference counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Gateway API, HTTPRouteRule.matches: an exact path, the path's length, a method, headers, query parameters.
    Http(bool, usize, bool, usize, usize),
    /// Gateway API, GRPCRouteRule.matches: characters of the service, of the method, headers. Such a match holds for calls of
    /// gRPC only, so it is more specific than any of an HTTPRoute.
    Grpc(usize, usize, usize),
}

/// One table of all rules of several routes, in order of precedence.
pub(crate) fn table(context: Context<'_, '_>, routes: &[Route<'_>], grants: Grants) -> HttpRoutes {
    let mut table = HttpRoutes::default();
    let mut ranked: Vec<(Rank, HttpEntry)> = Vec::new();
    for route in routes {
        match route {
            Route::Http(object) => {
                for rule in &object.spec.rules {
                    let matches = http_matches(object, rule);
                    add(&mut table, &mut ranked, matches, || action::http(context, object, rule, grants));
                }
            }
            Route::Grpc(object) => {
                for rule in &object.spec.rules {
                    let matches = grpc_matches(object, rule);
                    add(&mut table, &mut ranked, matches, || action::grpc(context, object, rule, grants));
                }
            }
        }
    }
    // Stable: of equals the oldest route, then its first rule and match, comes first.
    ranked.sort_by_key(|(rank, _)| Reverse(*rank));
    table.entries = ranked.into_iter().map(|(_, entry)| entry).collect();
    table
}

fn add(
    table: &mut HttpRoutes,
    ranked: &mut Vec<(Rank, HttpEntry)>,
    matches: Vec<(Rank, HttpMatch, Origin)>,
    rule: impl FnOnce() -> leno_model::HttpRule,
) {
    if matches.is_empty() {
        return;
    }
    let index = u32::try_from(table.rules.len()).unwrap_or(u32::MAX);
    table.rules.push(rule());
    let entry = |(rank, matcher, origin)| (rank, HttpEntry { matcher, rule: index, origin });
    ranked.extend(matches.into_iter().map(entry));
}

fn http_rank(matcher: &HttpMatch) -> Rank {
    let (exact, length) = match &matcher.path {
        Some(PathMatch::Exact(path)) => (true, path.chars().count()),
        Some(
            PathMatch::SegmentPrefix(path)
            | PathMatch::Prefix(path)
            | PathMatch::Regex(path)
            | PathMatch::Template(path)
            | PathMatch::Suffix(path),
        ) => (false, path.chars().count()),
        None => (false, 0),
    };
    Rank::Http(exact, length, matcher.method.is_some(), matcher.headers.len(), matcher.query.len())
}

fn grpc_rank(given: &grpc_route::GrpcMatch) -> Rank {
    let length = |part: Option<&leno_apis::Spanned<String>>| part.map_or(0, |part| part.chars().count());
    let method = given.method.as_ref();
    Rank::Grpc(
        length(method.and_then(|method| method.service.as_ref())),
        length(method.and_then(|method| method.method.as_ref())),
        given.headers.len(),
    )
}

/// The matches of a rule; those that were refused or do not compile match nothing.
fn http_matches(object: &Object<HttpRoute>, rule: &api::HttpRule) -> Vec<(Rank, HttpMatch, Origin)> {
    let ranked = |matcher: HttpMatch, origin| (http_rank(&matcher), matcher, origin);
    if rule.matches.is_empty() {
        let everything =
            HttpMatch { path: Some(PathMatch::SegmentPrefix("/".into())), ..HttpMatch::default() };
        return vec![ranked(everything, origin(object, &rule.at))];
    }
    let found = rule.matches.iter().filter_map(Rule::ok);
    found.filter_map(|found| Some(ranked(matching::http(found).ok()?, origin(object, &found.at)))).collect()
}

fn grpc_matches(object: &Object<GrpcRoute>, rule: &grpc_route::GrpcRule) -> Vec<(Rank, HttpMatch, Origin)> {
    if rule.matches.is_empty() {
        return vec![(Rank::Grpc(0, 0, 0), matching::any_grpc(), origin(object, &rule.at))];
    }
    let found = rule.matches.iter().filter_map(Rule::ok);
    let entry = |found: &grpc_route::GrpcMatch| {
        Some((grpc_rank(found), matching::grpc(found).ok()?, origin(object, &found.at)))
    };
    found.filter_map(entry).collect()
}
