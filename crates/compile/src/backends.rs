//! Backends: what a route sends to, resolved to a service's port (and subset), or a value that says why not.
//!
//! Invariant: a reference that does not resolve is answered for its own share; it never falls away and never takes the
//! share of another. Must not know: matches, filters.

use std::sync::Arc;

use leno_apis::{
    Diagnostic, Object, Rule, Source,
    gateway::{BackendRef, reference},
    istio::virtual_service as vs,
};
use leno_model::{BackendTarget, Namespace, Port};

use crate::{
    codes, destination_rule,
    output::Output,
    services::{self, Registered},
    view::View,
};

/// The status of Istio's unresolved destinations (Envoy answers 503 for a cluster that it does not have).
pub(crate) const ISTIO_UNRESOLVED: u16 = 503;

/// Who writes a route and who follows it.
#[derive(Clone, Copy)]
pub(crate) struct Context<'c, 'w> {
    pub(crate) view: &'c View<'w>,
    /// The variant: whose DestinationRules count.
    pub(crate) consumer: Option<&'c Namespace>,
    /// The port that the client addressed: that of a destination that names none, where it has it.
    pub(crate) port: Port,
}

/// Resolves a destination of a VirtualService.
pub(crate) fn istio<S>(
    context: Context<'_, '_>,
    object: &Object<S>,
    destination: &vs::Destination,
    out: &mut Output,
) -> BackendTarget {
    match resolve_istio(context, object, destination) {
        Ok(target) => target,
        Err(diagnostic) => {
            let reason = diagnostic.message.as_str().into();
            out.report_on(object, *diagnostic);
            BackendTarget::Unresolved { status: ISTIO_UNRESOLVED, reason }
        }
    }
}

fn resolve_istio<S>(
    context: Context<'_, '_>,
    object: &Object<S>,
    destination: &vs::Destination,
) -> Result<BackendTarget, Box<Diagnostic>> {
    let wrong = |code, at: &Source, text: String| Err(Box::new(Diagnostic::error(code, at.clone(), text)));
    let host = &destination.host;
    let Some(service) = services::resolve(context.view, host, object.namespace()) else {
        return wrong(codes::UNKNOWN_HOST, &host.at, format!("no service has the host {:?}", host.value));
    };
    let port = match &destination.port {
        Some(port) if service.port(**port).is_some() => **port,
        Some(port) => {
            let text = format!("{} has no port {}, but {}", service.id.host, **port, list_ports(&service));
            return wrong(codes::UNKNOWN_PORT, &port.at, text);
        }
        None => match service.ports.as_slice() {
            [only] => only.port,
            [] => return wrong(codes::UNKNOWN_PORT, &host.at, format!("{} has no ports", service.id.host)),
            // Istio: without a port, the one that the client addressed.
            _ if service.port(context.port).is_some() => context.port,
            _ => {
                let text =
                    format!("{} has several ports: {}; say which", service.id.host, list_ports(&service));
                return wrong(codes::AMBIGUOUS_PORT, &host.at, text);
            }
        },
    };
    if let Some(subset) = &destination.subset
        && let Err(rule) = destination_rule::has_subset(context.view, &service, context.consumer, subset)
    {
        let place = match rule {
            Some(rule) => format!("{} does not define it", rule.reference()),
            None => format!("no DestinationRule for {} is visible", service.id.host),
        };
        let text = format!("the subset {:?} of {} does not exist: {place}", subset.value, service.id.host);
        return wrong(codes::UNKNOWN_SUBSET, &subset.at, text);
    }
    let subset = destination.subset.as_ref().map(|subset| Arc::from(subset.as_str()));
    Ok(BackendTarget::Service { service: service.id, port, subset })
}

fn list_ports(service: &Registered<'_>) -> String {
    service.ports.iter().map(|port| port.port.to_string()).collect::<Vec<_>>().join(", ")
}

/// Why a backend of the Gateway API does not resolve: the reason of its condition, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unresolved {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) at: Source,
    /// Whether its share is zero.
    pub(crate) idle: bool,
}

/// Whether references to other namespaces need a ReferenceGrant.
///
/// Routes of a Gateway need one. Those of a Service do not: any client of the mesh may call the backend by itself
/// (conformance test MeshConsumerRoute).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grants {
    Needed,
    NotNeeded,
}

/// Resolves a backend of a Gateway API route.
pub(crate) fn gateway_api<S>(
    view: &View<'_>,
    object: &Object<S>,
    backend: &BackendRef,
    grants: Grants,
) -> Result<BackendTarget, Unresolved> {
    let wrong = |reason, message| Err(Unresolved { reason, message, at: backend.at.clone(), idle: false });
    if !matches!(backend.group.as_str(), "" | "core") || backend.kind != "Service" {
        return wrong(
            "InvalidKind",
            format!("a backend of kind {} is not supported by this release", backend.kind),
        );
    }
    let namespace = backend.namespace.as_deref().unwrap_or(object.namespace());
    let to = Referent { group: "", kind: "Service", namespace, name: &backend.name };
    if grants == Grants::Needed && !is_granted(view, object, &to) {
        let text = format!(
            "no ReferenceGrant in {namespace} lets {} refer to Service {}",
            object.reference(),
            backend.name
        );
        return wrong("RefNotPermitted", text);
    }
    let Some(service) = services::kubernetes(view, namespace, &backend.name) else {
        return wrong("BackendNotFound", format!("there is no Service {namespace}/{}", backend.name));
    };
    let Some(port) = &backend.port else {
        return wrong(
            "UnsupportedValue",
            format!("a backend of kind Service needs a port: {}", list_ports(&service)),
        );
    };
    if service.port(**port).is_none() {
        let text = format!(
            "Service {namespace}/{} has no port {}, but {}",
            backend.name,
            **port,
            list_ports(&service)
        );
        return wrong("BackendNotFound", text);
    }
    Ok(BackendTarget::Service { service: service.id, port: **port, subset: None })
}

/// What an object refers to.
pub(crate) struct Referent<'r> {
    pub(crate) group: &'r str,
    pub(crate) kind: &'r str,
    pub(crate) namespace: &'r str,
    pub(crate) name: &'r str,
}

/// Whether an object may refer to another: in its own namespace always, elsewhere by a ReferenceGrant.
pub(crate) fn is_granted<S>(view: &View<'_>, object: &Object<S>, to: &Referent<'_>) -> bool {
    if object.namespace() == to.namespace {
        return true;
    }
    let from = object.kind.info();
    view.grants(to.namespace).into_iter().any(|grant| {
        let may_from = grant.spec.from.iter().filter_map(Rule::ok).any(|allowed| {
            allowed.group == from.group
                && allowed.kind == from.name
                && allowed.namespace == object.namespace()
        });
        let may_to = grant.spec.to.iter().filter_map(Rule::ok).any(|allowed| {
            allowed.group == to.group
                && allowed.kind == to.kind
                && allowed.name.as_deref().is_none_or(|name| name == to.name)
        });
        may_from && may_to
    })
}

/// The group of Gateway API kinds.
pub(crate) const GATEWAY_API: &str = reference::GROUP;
