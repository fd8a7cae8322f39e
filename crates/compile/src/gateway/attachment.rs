//! Which routes attach to which listeners of a Gateway (Gateway API).
//!
//! Invariant: a route attaches to a listener that serves, that its parent reference names (all, without a name), that allows
//! its kind and namespace, and with which it shares a host.

use leno_apis::{
    Object, Rule,
    gateway::{
        Gateway, ParentRef,
        listeners::{FromNamespaces, Listener, ListenerProtocol},
    },
};
use leno_model::HostPattern;

use crate::{backends::GATEWAY_API, view::View};

/// A route as far as attachment is concerned.
pub(crate) struct Candidate<'r> {
    pub(crate) kind: &'static str,
    pub(crate) namespace: &'r str,
    pub(crate) hostnames: Vec<&'r str>,
}

/// Why a route does not attach: the reason of its condition.
pub(crate) type Refusal = (&'static str, String);

/// The hosts that a route serves at a listener.
pub(crate) fn attach(
    view: &View<'_>,
    gateway: &Object<Gateway>,
    listener: &Listener,
    parent: &ParentRef,
    route: &Candidate<'_>,
) -> Result<Vec<HostPattern>, Refusal> {
    let named = parent.section_name.as_deref().is_none_or(|name| name == listener.name)
        && parent.port.is_none_or(|port| port == *listener.port);
    if !named {
        return Err((
            "NoMatchingParent",
            "no listener has the section name and port of the reference".to_owned(),
        ));
    }
    if let Some((_, why)) = conflict_of(gateway, listener) {
        let text = format!("listener {} is in conflict and takes no routes: {why}", listener.name);
        return Err(("NotAllowedByListeners", text));
    }
    if !supported_kinds(listener).contains(&(GATEWAY_API, route.kind)) {
        let text = format!("listener {} does not take a {}", listener.name, route.kind);
        return Err(("NotAllowedByListeners", text));
    }
    if !allows(view, &listener.namespaces, gateway.namespace(), route.namespace) {
        let text =
            format!("listener {} does not take routes of namespace {}", listener.name, route.namespace);
        return Err(("NotAllowedByListeners", text));
    }
    let own = host_of(listener);
    let hosts = shared_hosts(&own, &route.hostnames);
    if hosts.is_empty() {
        let text = format!("no hostname of the route is one of listener {}'s ({own})", listener.name);
        return Err(("NoMatchingListenerHostname", text));
    }
    Ok(hosts)
}

fn host_of(listener: &Listener) -> HostPattern {
    listener.hostname.as_ref().map_or(HostPattern::Any, |host| HostPattern::parse(host))
}

/// Group and kind of the routes that a listener takes.
pub(crate) fn supported_kinds(listener: &Listener) -> Vec<(&'static str, &'static str)> {
    let of_protocol: &[&str] = match listener.protocol {
        ListenerProtocol::Http | ListenerProtocol::Https => &["HTTPRoute", "GRPCRoute"],
        // What is passed through is told apart by SNI only.
        ListenerProtocol::Tls if listener.tls.as_ref().is_some_and(|tls| tls.passthrough) => &["TLSRoute"],
        ListenerProtocol::Tls => &["TLSRoute", "TCPRoute"],
        ListenerProtocol::Tcp => &["TCPRoute"],
    };
    let wanted = |kind: &&str| {
        listener.route_kinds.is_empty()
            || listener
                .route_kinds
                .iter()
                .any(|wanted| wanted.value.0 == GATEWAY_API && wanted.value.1 == **kind)
    };
    of_protocol.iter().copied().filter(wanted).map(|kind| (GATEWAY_API, kind)).collect()
}

/// The kinds that a listener asks for and cannot have.
pub(crate) fn invalid_kinds(listener: &Listener) -> Vec<String> {
    let supported = supported_kinds(listener);
    let wanted = listener.route_kinds.iter();
    wanted
        .filter(|wanted| {
            !supported.iter().any(|known| known.0 == wanted.value.0 && known.1 == wanted.value.1)
        })
        .map(|wanted| wanted.value.1.clone())
        .collect()
}

fn allows(view: &View<'_>, from: &FromNamespaces, own: &str, namespace: &str) -> bool {
    match from {
        FromNamespaces::Same => own == namespace,
        FromNamespaces::All => true,
        FromNamespaces::Selector(selector) => match view.namespace("", namespace) {
            Some(object) => selector.matches(&object.metadata.labels),
            // A namespace that nobody wrote down has the label that Kubernetes gives to all.
            None => selector.matches(&std::collections::BTreeMap::from([(
                "kubernetes.io/metadata.name".to_owned(),
                namespace.to_owned(),
            )])),
        },
    }
}

/// The hosts that a listener and a route have in common; a route without hosts has those of the listener.
pub(crate) fn shared_hosts(listener: &HostPattern, route: &[&str]) -> Vec<HostPattern> {
    if route.is_empty() {
        return vec![listener.clone()];
    }
    route.iter().filter_map(|host| intersection(listener, &HostPattern::parse(host))).collect()
}

/// The hosts that two patterns have in common, which is one of the two or nothing.
pub(crate) fn intersection(a: &HostPattern, b: &HostPattern) -> Option<HostPattern> {
    let (narrow, wide) = if a.specificity() >= b.specificity() { (a, b) } else { (b, a) };
    let within = match (narrow, wide) {
        (_, HostPattern::Any) => true,
        (HostPattern::Exact(host), wide) => wide.matches(host),
        (HostPattern::Suffix(narrow), HostPattern::Suffix(wide)) => narrow.ends_with(&**wide),
        (HostPattern::Suffix(_) | HostPattern::Any, _) => false,
    };
    within.then(|| narrow.clone())
}

/// Why a listener cannot serve beside the others of its Gateway: the reason of the condition, and a sentence.
pub(crate) fn conflict_of(gateway: &Object<Gateway>, listener: &Listener) -> Option<Refusal> {
    let others = listeners(gateway).filter(|other| !std::ptr::eq(*other, listener));
    others.filter(|other| *other.port == *listener.port).find_map(|other| conflict(other, listener))
}

/// Whether two listeners of one port exclude each other.
fn conflict(other: &Listener, listener: &Listener) -> Option<Refusal> {
    // HTTPS and TLS are told apart by SNI; other protocols cannot share a port.
    let family = |protocol: ListenerProtocol| match protocol {
        ListenerProtocol::Http => 0,
        ListenerProtocol::Https | ListenerProtocol::Tls => 1,
        ListenerProtocol::Tcp => 2,
    };
    if family(other.protocol) != family(listener.protocol) {
        let text = format!("listener {} is for port {} with another protocol", other.name, *listener.port);
        return Some(("ProtocolConflict", text));
    }
    let host = |listener: &Listener| listener.hostname.as_ref().map(|host| host.to_ascii_lowercase());
    (host(other) == host(listener)).then(|| {
        let text = format!("listener {} is for the same port {} and hostname", other.name, *listener.port);
        ("HostnameConflict", text)
    })
}

/// Which other TLS listener of the port has hosts of this one, in a sentence. A client may reuse a connection to one for the
/// other's hosts, and be told so (421).
pub(crate) fn overlap_of(gateway: &Object<Gateway>, listener: &Listener) -> Option<String> {
    let has_tls = |it: &Listener| matches!(it.protocol, ListenerProtocol::Https | ListenerProtocol::Tls);
    if !has_tls(listener) {
        return None;
    }
    let own = host_of(listener);
    let mut others = listeners(gateway)
        .filter(|other| !std::ptr::eq(*other, listener) && *other.port == *listener.port && has_tls(other));
    let other = others.find(|other| intersection(&own, &host_of(other)).is_some())?;
    Some(format!("listener {} of the same port has hosts of this one", other.name))
}

/// Every listener that can be read.
pub(crate) fn listeners(gateway: &Object<Gateway>) -> impl Iterator<Item = &Listener> {
    gateway.spec.listeners.iter().filter_map(Rule::ok)
}
