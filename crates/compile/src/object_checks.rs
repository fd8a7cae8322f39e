//! What can be said about an object by itself: whether what it refers to exists, whether it attaches, what of it is refused.
//!
//! Invariant: every object that means something to the mesh has a status; nothing here changes what proxies get.

use leno_apis::{
    AnyObject, Diagnostic, Kind, Object, Refused, Rule, Source,
    gateway::{
        BackendRef, ParentRef,
        http_filters::{Filter, FilterAction},
        http_route::HttpBackend,
    },
    istio::{PeerAuthentication, ServiceEntry, VirtualService, service_entry::Resolution},
};

use crate::{
    backend_tls,
    backends::{self, GATEWAY_API, Grants},
    codes, destination_rule,
    gateway::{attachment, serves_class},
    hosts,
    http_route::{action::BACKEND_FILTER, is_service, matching},
    output::{Output, key_of},
    services,
    status::{ACCEPTED, Condition, PARTIALLY_INVALID, ParentName, RESOLVED_REFS},
    view::View,
    world::ObjectKey,
};

/// Checks one object.
pub(crate) fn compile(view: &View<'_>, key: &ObjectKey, out: &mut Output) {
    match view.get(key.clone()) {
        Some(AnyObject::VirtualService(object)) => virtual_service(view, object, out),
        Some(AnyObject::DestinationRule(object)) => destination_rule::check(view, object, out),
        Some(AnyObject::ServiceEntry(object)) => service_entry(object, out),
        Some(AnyObject::PeerAuthentication(object)) => peer_authentication(view, object, out),
        Some(AnyObject::IstioGateway(object)) => {
            let refused = object.spec.servers.iter().find_map(Rule::refusal);
            let condition = refused.map(|because| Condition::no("PartiallyRefused", because.message.clone()));
            out.status(key.clone()).say(ACCEPTED, condition.unwrap_or_else(|| Condition::yes("Accepted")));
        }
        Some(AnyObject::GatewayClass(object)) if serves_class(view, object.name()) => {
            out.status(key.clone()).say(ACCEPTED, Condition::yes("Accepted"));
        }
        Some(AnyObject::HttpRoute(object)) => {
            let mut findings = Findings::default();
            for rule in &object.spec.rules {
                findings.matches(&rule.matches, |found| matching::http(found).map(drop));
                findings.action(rule.action.refusal());
                if let Some(action) = rule.action.ok() {
                    findings.mirrors(view, object, &action.filters);
                    findings.backends(view, object, &action.backends);
                }
            }
            let hostnames = object.spec.hostnames.iter().map(|host| host.value.as_str()).collect();
            route(view, object, "HTTPRoute", &object.spec.parent_refs, hostnames, findings, out);
        }
        Some(AnyObject::GrpcRoute(object)) => {
            let mut findings = Findings::default();
            for rule in &object.spec.rules {
                findings.matches(&rule.matches, |found| matching::grpc(found).map(drop));
                findings.action(rule.action.refusal());
                if let Some(action) = rule.action.ok() {
                    findings.mirrors(view, object, &action.filters);
                    findings.backends(view, object, &action.backends);
                }
            }
            let hostnames = object.spec.hostnames.iter().map(|host| host.value.as_str()).collect();
            route(view, object, "GRPCRoute", &object.spec.parent_refs, hostnames, findings, out);
        }
        Some(AnyObject::TcpRoute(object)) => {
            let findings = stream_findings(view, object, &object.spec.rules);
            route(view, object, "TCPRoute", &object.spec.parent_refs, Vec::new(), findings, out);
        }
        Some(AnyObject::TlsRoute(object)) => {
            let findings = stream_findings(view, object, &object.spec.rules);
            let hostnames = object.spec.hostnames.iter().map(|host| host.value.as_str()).collect();
            route(view, object, "TLSRoute", &object.spec.parent_refs, hostnames, findings, out);
        }
        Some(AnyObject::BackendTlsPolicy(object)) => backend_tls::check(view, object, out),
        Some(AnyObject::Refused(object)) => {
            // The parser has already reported it.
            let because = Condition::no("Refused", object.spec.because.message.clone());
            out.status(key.clone()).say(ACCEPTED, because);
        }
        Some(object @ AnyObject::ListenerSet(_)) => {
            let text = format!("{} is not acted on by this release", object.kind().info().name);
            out.report(
                object,
                Diagnostic::warning(codes::NOT_HONOURED, object.source().clone(), text.clone()),
            );
            out.status(key.clone()).say(ACCEPTED, Condition::no("Unsupported", text));
        }
        _ => {}
    }
}

fn virtual_service(view: &View<'_>, object: &Object<VirtualService>, out: &mut Output) {
    let key = key_of(object);
    let mut accepted = Condition::yes("Accepted");
    let gateways = object.spec.gateways.iter().filter(|gateway| gateway.value != "mesh");
    for gateway in gateways {
        let name = crate::view::gateway_name(gateway, object.namespace());
        let (namespace, short) = name.split_once('/').unwrap_or(("", &name));
        if view.istio_gateway(namespace, short).is_none() {
            let text = format!("there is no Gateway {name}: nothing is routed there");
            out.report_on(
                object,
                Diagnostic::warning(codes::UNRESOLVED_REFERENCE, gateway.at.clone(), text.clone()),
            );
            accepted = Condition::no("UnknownGateway", text);
        }
    }
    let is_for_mesh =
        object.spec.gateways.is_empty() || object.spec.gateways.iter().any(|gateway| gateway.value == "mesh");
    if is_for_mesh {
        for host in object.spec.hosts.iter().filter(|host| !hosts::is_wildcard(host)) {
            if services::resolve(view, host, object.namespace()).is_none() {
                let text = format!(
                    "no service has the host {:?}: its routes have no effect in the mesh",
                    host.value
                );
                out.report_on(
                    object,
                    Diagnostic::warning(codes::UNKNOWN_HOST, host.at.clone(), text.clone()),
                );
                accepted = Condition::no("UnknownHost", text);
            }
        }
    }
    let refused = object.spec.http.iter().find_map(|route| route.action.refusal());
    if let Some(because) = refused {
        let text = format!("{}: requests of that route are answered 500", because.message);
        out.status(key.clone())
            .say(PARTIALLY_INVALID, Condition { status: true, reason: "Refused", message: text });
    }
    out.status(key).say(ACCEPTED, accepted);
}

fn service_entry(object: &Object<ServiceEntry>, out: &mut Output) {
    let spec = &object.spec;
    let by_dns = matches!(spec.resolution.value, Resolution::Dns | Resolution::DnsRoundRobin);
    let wildcard = spec.hosts.iter().find(|host| hosts::is_wildcard(host));
    if let Some(host) = wildcard.filter(|_| by_dns && spec.endpoints.is_empty()) {
        let text = "a wildcard host cannot be resolved by DNS without endpoints: the service has none";
        out.report_on(object, Diagnostic::warning(codes::NOT_HONOURED, host.at.clone(), text));
    }
    if let Some(name) = spec.subject_alt_names.first() {
        let text = "not supported by this release: a certificate must have the name that is asked for, or the identity of an endpoint";
        let found = Diagnostic::warning(codes::NOT_HONOURED, name.at.clone(), text);
        out.report_on(object, found.refusing(Refused::Field));
    }
    let refused = spec
        .ports
        .iter()
        .filter_map(Rule::refusal)
        .chain(spec.endpoints.iter().filter_map(Rule::refusal))
        .next();
    let condition = refused.map(|because| Condition::no("PartiallyRefused", because.message.clone()));
    out.status(key_of(object)).say(ACCEPTED, condition.unwrap_or_else(|| Condition::yes("Accepted")));
}

fn peer_authentication(view: &View<'_>, object: &Object<PeerAuthentication>, out: &mut Output) {
    let older =
        view.in_namespace(Kind::PeerAuthentication, object.namespace()).into_iter().find_map(|other| {
            match other {
                AnyObject::PeerAuthentication(other)
                    if other.spec.match_labels == object.spec.match_labels
                        && crate::output::age_order(other) < crate::output::age_order(object) =>
                {
                    Some(other)
                }
                _ => None,
            }
        });
    let condition = match older {
        Some(older) => {
            let text = format!("{} selects the same and is older: it wins", older.reference());
            out.report_on(object, Diagnostic::warning(codes::CONFLICT, object.source.clone(), text.clone()));
            Condition::no("Conflict", text)
        }
        None => Condition::yes("Accepted"),
    };
    out.status(key_of(object)).say(ACCEPTED, condition);
}

/// What is wrong with the rules of a route.
#[derive(Default)]
struct Findings {
    /// References that do not resolve where grants are needed.
    unresolved: Vec<backends::Unresolved>,
    /// Those of them that do not resolve at all.
    anywhere: Vec<backends::Unresolved>,
    refused: Vec<(&'static str, Source, String)>,
    /// Findings that the parser has already reported.
    known: Vec<String>,
}

impl Findings {
    fn matches<M>(&mut self, matches: &[Rule<M>], check: impl Fn(&M) -> Result<(), Box<Diagnostic>>) {
        for found in matches {
            match found {
                Rule::Ok(found) => {
                    if let Err(diagnostic) = check(found) {
                        self.refused.push((diagnostic.code, diagnostic.at, diagnostic.message));
                    }
                }
                Rule::Refused(because) => self.known.push(because.message.clone()),
            }
        }
    }

    fn action(&mut self, refusal: Option<&std::sync::Arc<Diagnostic>>) {
        self.known.extend(refusal.map(|because| because.message.clone()));
    }

    fn backend<S>(&mut self, view: &View<'_>, object: &Object<S>, backend: &BackendRef, weight: u32) {
        let known = (self.unresolved.len(), self.anywhere.len());
        self.unresolved.extend(backends::gateway_api(view, object, backend, Grants::Needed).err());
        self.anywhere.extend(backends::gateway_api(view, object, backend, Grants::NotNeeded).err());
        let new = self.unresolved.iter_mut().skip(known.0).chain(self.anywhere.iter_mut().skip(known.1));
        new.for_each(|problem| problem.idle = weight == 0);
    }

    fn mirrors<S>(&mut self, view: &View<'_>, object: &Object<S>, filters: &[Filter]) {
        for filter in filters {
            if let FilterAction::Mirror(mirror) = &filter.action {
                self.backend(view, object, &mirror.backend, 1);
            }
        }
    }

    fn backends<S>(&mut self, view: &View<'_>, object: &Object<S>, backends: &[HttpBackend]) {
        for backend in backends {
            match &backend.target {
                Rule::Ok(target) => {
                    self.backend(view, object, &target.backend, backend.weight);
                    let unusable = target.filters.iter().find(|filter| {
                        !matches!(
                            filter.action,
                            FilterAction::RequestHeaders(_) | FilterAction::ResponseHeaders(_)
                        )
                    });
                    self.refused.extend(
                        unusable.map(|filter| {
                            (codes::NOT_HONOURED, filter.at.clone(), BACKEND_FILTER.to_owned())
                        }),
                    );
                }
                Rule::Refused(because) => self.known.push(because.message.clone()),
            }
        }
    }
}

fn stream_findings<S>(
    view: &View<'_>,
    object: &Object<S>,
    rules: &[leno_apis::gateway::stream_route::StreamRule],
) -> Findings {
    let mut findings = Findings::default();
    for rule in rules {
        findings.action(rule.backends.refusal());
        for backend in rule.backends.ok().into_iter().flatten() {
            match &backend.target {
                Rule::Ok(target) => findings.backend(view, object, target, backend.weight),
                Rule::Refused(because) => findings.known.push(because.message.clone()),
            }
        }
    }
    findings
}

/// The status of a route towards each of its parents, and what is wrong with it.
fn route<S>(
    view: &View<'_>,
    object: &Object<S>,
    kind: &'static str,
    parents: &[Rule<ParentRef>],
    hostnames: Vec<&str>,
    findings: Findings,
    out: &mut Output,
) {
    // What matters is what the parents ask for; without any parent, the stricter of the two.
    let mut readable = parents.iter().filter_map(Rule::ok).peekable();
    let of_services_only = readable.peek().is_some() && readable.all(is_service);
    for problem in if of_services_only { &findings.anywhere } else { &findings.unresolved } {
        // A backend without a share harms nobody.
        let write = if problem.idle { Diagnostic::warning } else { Diagnostic::error };
        let diagnostic = write(codes::UNRESOLVED_REFERENCE, problem.at.clone(), problem.message.clone());
        out.report_on(object, diagnostic.refusing(Refused::Rule));
    }
    for (code, at, message) in &findings.refused {
        let diagnostic = Diagnostic::error(code, at.clone(), message.clone());
        out.report_on(object, diagnostic.refusing(Refused::Rule));
    }
    if of_services_only && !hostnames.is_empty() {
        // Gateway API: routes of a Service are for whoever addresses the Service, by whatever name.
        let text = "`hostnames` do not count for routes of a Service: the rules hold for all its requests";
        out.report_on(
            object,
            Diagnostic::info(codes::NOT_HONOURED, object.source.with_field("spec.hostnames"), text),
        );
    }
    let candidate = attachment::Candidate { kind, namespace: object.namespace(), hostnames };
    for parent in parents.iter().filter_map(Rule::ok) {
        let Some(accepted) = accepted(view, parent, &candidate) else { continue };
        let name = parent_name(parent, object.namespace());
        if !accepted.status {
            let text = format!("{}: it has no effect there", accepted.message);
            out.report_on(object, Diagnostic::warning(codes::NOT_ATTACHED, parent.at.clone(), text));
        }
        let status = out.status(key_of(object));
        status.say_to(&name, ACCEPTED, accepted);
        let unresolved = if is_service(parent) { &findings.anywhere } else { &findings.unresolved };
        let resolved = match unresolved.first() {
            Some(problem) => Condition::no(problem.reason, problem.message.clone()),
            None => Condition::yes("ResolvedRefs"),
        };
        status.say_to(&name, RESOLVED_REFS, resolved);
        let refused = findings.known.first().or(findings.refused.first().map(|(_, _, message)| message));
        if let Some(message) = refused {
            let partly = Condition { status: true, reason: "UnsupportedValue", message: message.clone() };
            status.say_to(&name, PARTIALLY_INVALID, partly);
        }
    }
}

fn parent_name(parent: &ParentRef, namespace: &str) -> ParentName {
    ParentName {
        group: parent.group.as_str().into(),
        kind: parent.kind.as_str().into(),
        namespace: parent.namespace.as_deref().unwrap_or(namespace).into(),
        name: parent.name.as_str().into(),
        section_name: parent.section_name.as_deref().map(Into::into),
        port: parent.port,
    }
}

/// Whether a parent takes a route; `None` when the parent is none of ours.
fn accepted(view: &View<'_>, parent: &ParentRef, route: &attachment::Candidate<'_>) -> Option<Condition> {
    let namespace = parent.namespace.as_deref().unwrap_or(route.namespace);
    if is_service(parent) {
        let Some(service) = services::kubernetes(view, namespace, &parent.name) else {
            return Some(Condition::no(
                "NoMatchingParent",
                format!("there is no Service {namespace}/{}", parent.name),
            ));
        };
        let named = service
            .ports
            .iter()
            .any(|port| crate::http_route::attaches(parent, route.namespace, &service, port));
        return Some(match (named, route.kind) {
            (false, _) => {
                let text = format!("Service {namespace}/{} has no such port", parent.name);
                Condition::no("NoMatchingParent", text)
            }
            (true, "HTTPRoute" | "GRPCRoute") => Condition::yes("Accepted"),
            (true, _) => Condition::no(
                "NotAllowedByListeners",
                format!("a {} of a Service is not supported", route.kind),
            ),
        });
    }
    if parent.group != GATEWAY_API || parent.kind != "Gateway" {
        return None;
    }
    let Some(gateway) = view.gateway(namespace, &parent.name) else {
        return Some(Condition::no(
            "NoMatchingParent",
            format!("there is no Gateway {namespace}/{}", parent.name),
        ));
    };
    if !serves_class(view, &gateway.spec.class_name) {
        return None;
    }
    // The closest miss is the most telling: a host that does not fit, then a listener that does not allow, then none at all.
    let mut closest = ("NoMatchingParent", "the Gateway has no such listener".to_owned());
    let rank = |reason: &str| match reason {
        "NoMatchingListenerHostname" => 2,
        "NotAllowedByListeners" => 1,
        _ => 0,
    };
    for listener in attachment::listeners(gateway) {
        match attachment::attach(view, gateway, listener, parent, route) {
            Ok(_) => return Some(Condition::yes("Accepted")),
            Err(refusal) if rank(refusal.0) >= rank(closest.0) => closest = refusal,
            Err(_) => {}
        }
    }
    Some(Condition::no(closest.0, closest.1))
}
