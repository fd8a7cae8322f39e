//! Gateways of the Gateway API.
//!
//! Invariants: one gateway a Gateway object; listeners in the order they are written; of those that exclude each other none
//! serves ("The implementation MUST NOT pick one conflicting Listener as the winner"). Must not know: Istio's Gateways.

use std::{collections::BTreeMap, sync::Arc};

use leno_apis::{
    Diagnostic, Kind, Object, Rule,
    gateway::{
        Gateway,
        listeners::{Listener as Given, ListenerProtocol},
        reference::LocalRef,
        stream_route::StreamRule,
    },
};
use leno_model::{
    Backend, BackendTarget, GatewayProtocol, GatewayTls, HeaderEdits, HostPattern, HostRoutes, HttpRoutes,
    Listener, Namespace, SpiffeId, TcpEntry, TcpMatch, Weight, WorkloadId,
};

use super::{append, attachment, conditions, emit, has_certificate, secret_id, sort_listeners};
use crate::{
    backends::{self, Context, Grants, Referent},
    codes,
    http_route::{self, Route},
    output::{Output, key_of, origin},
    policies,
    status::{ACCEPTED, Condition, ListenerStatus, PROGRAMMED, RESOLVED_REFS, say},
    view::View,
};

/// Who we are when a GatewayClass asks.
const CONTROLLER: &str = "leno.dev/gateway-controller";

/// The controller of Istio's classes, which manifests name.
const ISTIOS_CONTROLLER: &str = "istio.io/gateway-controller";

/// Classes of Istio for something else than a gateway at the edge.
const NOT_GATEWAYS: [&str; 2] = ["istio-waypoint", "istio-remote"];

/// Whether gateways of a class are ours: by its controller, or, when nobody wrote the class down, by default.
pub(crate) fn serves_class(view: &View<'_>, class: &str) -> bool {
    if NOT_GATEWAYS.contains(&class) {
        return false;
    }
    match view.gateway_class("", class).map(|found| found.spec.controller_name.as_str()) {
        Some(CONTROLLER) => true,
        None | Some(ISTIOS_CONTROLLER) => view.settings.istio_classes,
        Some(_) => false,
    }
}

/// Compiles one Gateway.
pub(crate) fn compile(view: &View<'_>, id: &WorkloadId, out: &mut Output) {
    let Some(object) = view.gateway(id.namespace.as_str(), &id.name) else { return };
    let class = object.spec.class_name.as_str();
    if !serves_class(view, class) {
        let text = format!("gateways of class {class} are not served by this release");
        out.report_on(object, Diagnostic::info(codes::NOT_HONOURED, object.spec.class_name.at.clone(), text));
        return;
    }
    let account = format!("{}-{class}", object.name());
    let Ok(identity) = SpiffeId::workload(&view.settings.trust_domain, object.namespace(), &account) else {
        let text = format!("{account:?} cannot be the service account of an identity");
        out.report_on(object, Diagnostic::error(codes::NO_IDENTITY, object.source.clone(), text.clone()));
        out.status(key_of(object)).say(ACCEPTED, Condition::no("Invalid", text));
        return;
    };
    let builder = Builder { view, object, consumer: object.namespace().into() };
    let mut listeners = builder.listeners(out);
    sort_listeners(&mut listeners);
    conditions::of_gateway(object, !listeners.is_empty(), out.status(key_of(object)));
    let mut labels = object.spec.infrastructure.labels.clone();
    labels.insert("gateway.networking.k8s.io/gateway-name".to_owned(), object.name().to_owned());
    let subject = policies::Subject {
        namespace: object.namespace(),
        labels: &labels,
        services: Vec::new(),
        gateway: Some((object.name(), class)),
    };
    let gateway =
        leno_model::Gateway { id: id.clone(), identity, listeners, origin: origin(object, &object.source) };
    emit(view, gateway, Some((&subject, object.name())), out);
}

struct Builder<'b, 'w> {
    view: &'b View<'w>,
    object: &'b Object<Gateway>,
    consumer: Namespace,
}

impl Builder<'_, '_> {
    fn context(&self, port: u16) -> Context<'_, '_> {
        // The variant of the gateway's own namespace, whose DestinationRules it follows.
        Context { view: self.view, consumer: Some(&self.consumer), port }
    }

    fn listeners(&self, out: &mut Output) -> Vec<Listener> {
        let mut listeners = Vec::new();
        for given in attachment::listeners(self.object) {
            let mut status = ListenerStatus {
                supported_kinds: attachment::supported_kinds(given),
                ..ListenerStatus::default()
            };
            if let Some((reason, text)) = attachment::conflict_of(self.object, given) {
                conditions::of_conflicted(reason, &text, &mut status);
                out.report_on(self.object, Diagnostic::error(codes::CONFLICT, given.at.clone(), text));
            } else {
                listeners.push(self.listener(given, &mut status, out));
                conditions::of_served(self.object, given, &mut status);
            }
            out.status(key_of(self.object)).listeners.insert(given.name.as_str().into(), status);
        }
        listeners
    }

    fn listener(&self, given: &Given, status: &mut ListenerStatus, out: &mut Output) -> Listener {
        let protocol = match (given.protocol, &given.tls) {
            (ListenerProtocol::Http, _) => GatewayProtocol::Http,
            (ListenerProtocol::Tcp, _) => GatewayProtocol::Tcp,
            (ListenerProtocol::Https, _) => GatewayProtocol::Https(self.tls(given, status, out)),
            (ListenerProtocol::Tls, Some(tls)) if tls.passthrough => GatewayProtocol::TlsPassthrough,
            (ListenerProtocol::Tls, _) => GatewayProtocol::Tls(self.tls(given, status, out)),
        };
        let (routes, attached_http) = self.http(given);
        let (tcp, attached_tcp) = self.stream(given);
        status.attached_routes = attached_http + attached_tcp;
        Listener {
            name: given.name.as_str().into(),
            port: *given.port,
            protocol,
            host: given.hostname.as_ref().map_or(HostPattern::Any, |host| HostPattern::parse(host)),
            routes,
            tcp,
            https_redirect: false,
            origin: origin(self.object, &given.at),
        }
    }

    fn tls(&self, given: &Given, status: &mut ListenerStatus, out: &mut Output) -> GatewayTls {
        let mut certificates = Vec::new();
        for secret in given.tls.iter().flat_map(|tls| &tls.certificate_refs) {
            match self.certificate(secret) {
                Ok(id) => certificates.push(id),
                Err((reason, text)) => {
                    say(&mut status.conditions, RESOLVED_REFS, Condition::no(reason, text.clone()));
                    out.report_on(
                        self.object,
                        Diagnostic::error(codes::INVALID_CERTIFICATE, secret.at.clone(), text),
                    );
                }
            }
        }
        if certificates.is_empty() {
            let text = "no certificate resolves: handshakes are refused";
            say(&mut status.conditions, RESOLVED_REFS, Condition::no("InvalidCertificateRef", text));
            say(&mut status.conditions, PROGRAMMED, Condition::no("Invalid", text));
        }
        GatewayTls { certificates, client_ca: None, allow_tls12: true }
    }

    fn certificate(&self, secret: &LocalRef) -> Result<Arc<str>, (&'static str, String)> {
        let namespace = secret.namespace.as_deref().unwrap_or(self.object.namespace());
        if !matches!(secret.group.as_str(), "" | "core") || secret.kind != "Secret" {
            return Err((
                "InvalidCertificateRef",
                format!("a certificate of kind {} is not supported", secret.kind),
            ));
        }
        let to = Referent { group: "", kind: "Secret", namespace, name: &secret.name };
        if !backends::is_granted(self.view, self.object, &to) {
            let text =
                format!("no ReferenceGrant in {namespace} lets this Gateway refer to Secret {}", secret.name);
            return Err(("RefNotPermitted", text));
        }
        match self.view.secret(namespace, &secret.name) {
            Some(found) if has_certificate(found) => Ok(secret_id(namespace, &secret.name)),
            Some(_) => {
                let text = format!("Secret {namespace}/{} has no PEM `tls.crt` and `tls.key`", secret.name);
                Err(("InvalidCertificateRef", text))
            }
            None => Err(("InvalidCertificateRef", format!("there is no Secret {namespace}/{}", secret.name))),
        }
    }

    /// Routes by host, and how many objects are attached. Behind the rules of a host come those of less specific ones, so that
    /// a request which the former do not match is still served.
    fn http(&self, given: &Given) -> (Vec<HostRoutes>, u32) {
        let mut by_host: BTreeMap<HostPattern, Vec<Route<'_>>> = BTreeMap::new();
        let mut attached = 0;
        for route in
            http_route::children(self.view, Kind::Gateway, self.object.namespace(), self.object.name())
        {
            let candidate = attachment::Candidate {
                kind: route.kind(),
                namespace: route.namespace(),
                hostnames: route.hostnames().collect(),
            };
            let mut hosts: Vec<HostPattern> = self
                .parents(route.parents(), candidate.namespace)
                .filter_map(|parent| {
                    attachment::attach(self.view, self.object, given, parent, &candidate).ok()
                })
                .flatten()
                .collect();
            hosts.sort();
            hosts.dedup();
            attached += u32::from(!hosts.is_empty());
            for host in hosts {
                by_host.entry(host).or_default().push(route);
            }
        }
        let context = self.context(*given.port);
        let tables: Vec<(&HostPattern, HttpRoutes)> = by_host
            .iter()
            .map(|(host, routes)| (host, http_route::table(context, routes, Grants::Needed)))
            .collect();
        let mut found = Vec::new();
        for (host, own) in &tables {
            let mut wider: Vec<_> = tables
                .iter()
                .filter(|(other, _)| {
                    other != host && attachment::intersection(host, other).as_ref() == Some(*host)
                })
                .collect();
            wider.sort_by_key(|(other, _)| std::cmp::Reverse(other.specificity()));
            let mut routes = own.clone();
            wider.into_iter().for_each(|(_, table)| append(&mut routes, table.clone()));
            found.push(HostRoutes { host: (*host).clone(), routes });
        }
        (found, attached)
    }

    /// The references among a route's parents that are to this Gateway.
    fn parents<'p>(
        &self,
        parents: impl Iterator<Item = &'p leno_apis::gateway::ParentRef>,
        namespace: &str,
    ) -> impl Iterator<Item = &'p leno_apis::gateway::ParentRef> {
        parents.filter(move |parent| {
            parent.group == backends::GATEWAY_API
                && parent.kind == "Gateway"
                && parent.name == self.object.name()
                && parent.namespace.as_deref().unwrap_or(namespace) == self.object.namespace()
        })
    }

    fn stream(&self, given: &Given) -> (Vec<TcpEntry>, u32) {
        let mut entries = Vec::new();
        let mut attached = 0;
        let (namespace, name) = (self.object.namespace(), self.object.name());
        for route in self.view.tls_routes(Kind::Gateway, namespace, name) {
            let hostnames = route.spec.hostnames.iter().map(|host| host.value.as_str()).collect();
            let candidate =
                attachment::Candidate { kind: "TLSRoute", namespace: route.namespace(), hostnames };
            let parents = route.spec.parent_refs.iter().filter_map(Rule::ok);
            let hosts: Vec<HostPattern> = self
                .parents(parents, route.namespace())
                .filter_map(|parent| {
                    attachment::attach(self.view, self.object, given, parent, &candidate).ok()
                })
                .flatten()
                .collect();
            if hosts.is_empty() {
                continue;
            }
            attached += 1;
            let sni =
                hosts.iter().filter(|host| **host != HostPattern::Any).map(|host| host.to_string().into());
            let matcher = TcpMatch { sni: sni.collect(), ..TcpMatch::default() };
            entries.extend(self.entry(route, &route.spec.rules, matcher));
        }
        for route in self.view.tcp_routes(Kind::Gateway, namespace, name) {
            let candidate =
                attachment::Candidate { kind: "TCPRoute", namespace: route.namespace(), hostnames: vec![] };
            let parents = route.spec.parent_refs.iter().filter_map(Rule::ok);
            let attaches = self
                .parents(parents, route.namespace())
                .any(|parent| attachment::attach(self.view, self.object, given, parent, &candidate).is_ok());
            if attaches {
                attached += 1;
                entries.extend(self.entry(route, &route.spec.rules, TcpMatch::default()));
            }
        }
        (entries, attached)
    }

    fn entry<S>(&self, route: &Object<S>, rules: &[StreamRule], matcher: TcpMatch) -> Option<TcpEntry> {
        let rule = rules.first()?;
        let share = |weight: u32, target: BackendTarget, at: &leno_apis::Source| Backend {
            weight: Weight(weight),
            target,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            timeout: None,
            origin: origin(route, at),
        };
        let unresolved = |reason: &str| BackendTarget::Unresolved { status: 500, reason: reason.into() };
        let backends = match &rule.backends {
            Rule::Refused(because) => vec![share(1, unresolved(&because.message), &because.at)],
            Rule::Ok(backends) => backends
                .iter()
                .map(|backend| match &backend.target {
                    Rule::Refused(because) => {
                        share(backend.weight, unresolved(&because.message), &because.at)
                    }
                    Rule::Ok(found) => {
                        let target = backends::gateway_api(self.view, route, found, Grants::Needed);
                        share(
                            backend.weight,
                            target.unwrap_or_else(|wrong| unresolved(&wrong.message)),
                            &found.at,
                        )
                    }
                })
                .collect(),
        };
        Some(TcpEntry { matcher, backends, origin: origin(route, &rule.at) })
    }
}
