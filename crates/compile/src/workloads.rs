//! What a workload accepts: its ports, its mTLS modes, the policies that select it.
//!
//! Invariants: PeerAuthentications by precedence: those with a selector, then the namespace's, then the root namespace's; of
//! several of one rank the oldest wins. One that cannot be read demands mTLS of everything it may have been about.
//! Must not know: routes, endpoints of others.

use std::collections::BTreeMap;

use leno_apis::{
    AnyObject, Kind, Object, Spanned,
    istio::{PeerAuthentication, peer_authentication::MtlsMode as Mode},
    k8s::{self, Pod},
};
use leno_model::{InboundPort, InboundService, MtlsMode, Origin, Port, Protocol, ServiceId, Workload};

use crate::{
    output::{age_order, origin},
    pods, policies, protocols,
    services::declared_by,
    view::{View, selects},
};

/// A pod's inbound configuration; `None` when no proxy is beside it, or it can have no identity.
pub(crate) fn workload(view: &View<'_>, pod: &Object<Pod>) -> Option<Workload> {
    let finished = matches!(pod.spec.status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if !pods::in_mesh(pod) || finished {
        return None;
    }
    let services = services_of(view, pod);
    let demand = Demand::of(view, pod.namespace(), &pod.metadata.labels);
    let (canonical_name, canonical_revision) = pods::canonical(pod);
    let (mtls, mtls_origin) = demand.mode(None);
    let subject = policies::Subject {
        namespace: pod.namespace(),
        labels: &pod.metadata.labels,
        services: services.iter().map(|service| service.name()).collect(),
        gateway: None,
    };
    Some(Workload {
        id: pods::id(pod),
        identity: pods::identity(view, pod)?,
        address: pod.spec.status.pod_ip,
        cluster: view.settings.cluster.clone(),
        network: pods::network(view, pod),
        locality: pods::locality(view, pod),
        labels: pods::labels(pod),
        owner: pods::owner(pod),
        canonical_name,
        canonical_revision,
        ports: ports(view, pod, &services, &demand),
        mtls,
        mtls_origin,
        policies: policies::selecting(view, &subject),
    })
}

/// The Services that select a pod, by name.
fn services_of<'w>(view: &View<'w>, pod: &Object<Pod>) -> Vec<&'w Object<k8s::Service>> {
    let mut found = view.services(pod.namespace());
    found.retain(|service| {
        !service.spec.selector.is_empty() && selects(&service.spec.selector, &pod.metadata.labels)
    });
    found.sort_by(|a, b| a.name().cmp(b.name()));
    found
}

/// A port of a service that leads to a port of a pod.
struct Served {
    target: Port,
    protocol: Protocol,
    service: InboundService,
}

fn served_by(pod: &Object<Pod>, services: &[&Object<k8s::Service>]) -> Vec<Served> {
    let mut served = Vec::new();
    for service in services {
        let id = ServiceId::kubernetes(service.namespace(), service.name());
        for port in service.spec.ports.iter().filter(|port| port.protocol == k8s::Protocol::Tcp) {
            let Some(target) = pods::target(pod, *port.port, port.target_port.as_ref()) else { continue };
            let protocol = protocols::declared(port.app_protocol.as_deref(), &port.name, *port.port);
            let service = InboundService { service: id.clone(), port: *port.port };
            served.push(Served { target, protocol, service });
        }
    }
    served
}

/// The same for the ServiceEntries whose `workloadSelector` selects a pod.
fn served_by_entries(view: &View<'_>, pod: &Object<Pod>) -> Vec<Served> {
    let mut served = Vec::new();
    for object in view.in_namespace(Kind::ServiceEntry, pod.namespace()) {
        let AnyObject::ServiceEntry(entry) = object else { continue };
        let chosen =
            entry.spec.workload_selector.as_ref().is_some_and(|it| selects(it, &pod.metadata.labels));
        let ports = entry.spec.ports.iter().filter_map(|port| port.ok()).filter(|_| chosen);
        for (id, port) in ports.flat_map(|port| declared_by(object).into_iter().map(move |id| (id, port))) {
            served.push(Served {
                target: port.target_port.unwrap_or(*port.number),
                protocol: protocols::declared(Some(&port.protocol), "", *port.number),
                service: InboundService { service: id, port: *port.number },
            });
        }
    }
    served
}

fn ports(
    view: &View<'_>,
    pod: &Object<Pod>,
    services: &[&Object<k8s::Service>],
    demand: &Demand<'_>,
) -> Vec<InboundPort> {
    let mut ports: BTreeMap<Port, InboundPort> = BTreeMap::new();
    let new = |port: Port, protocol| {
        let (mtls, mtls_origin) = demand.mode(Some(port));
        InboundPort { port, protocol, mtls, mtls_origin, services: Vec::new() }
    };
    for Served { target, protocol, service } in
        served_by(pod, services).into_iter().chain(served_by_entries(view, pod))
    {
        let inbound = ports.entry(target).or_insert_with(|| new(target, protocol));
        // Two services may name one port: a declaration beats none, the first by name beats later ones.
        if inbound.protocol == Protocol::Detect {
            inbound.protocol = protocol;
        }
        if !inbound.services.contains(&service) {
            inbound.services.push(service);
        }
    }
    for port in pods::container_ports(pod) {
        let protocol = protocols::declared(None, &port.name, *port.port);
        ports.entry(*port.port).or_insert_with(|| new(*port.port, protocol));
    }
    ports.into_values().collect()
}

/// What is demanded of connections to one workload.
pub(crate) struct Demand<'w> {
    /// One that cannot be read: demands mTLS.
    unreadable: Option<&'w AnyObject>,
    of_workload: Option<&'w Object<PeerAuthentication>>,
    of_namespace: Option<&'w Object<PeerAuthentication>>,
    of_mesh: Option<&'w Object<PeerAuthentication>>,
}

impl<'w> Demand<'w> {
    /// The demands on workloads of `namespace` with `labels`.
    pub(crate) fn of(view: &View<'w>, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let own = view.in_namespace(Kind::PeerAuthentication, namespace);
        let of_roots = view.settings.roots().into_iter().filter(|root| *root != namespace);
        let root: Vec<_> =
            of_roots.flat_map(|root| view.in_namespace(Kind::PeerAuthentication, root)).collect();
        let mut unreadable = own.iter().chain(&root).filter(|object| matches!(object, AnyObject::Refused(_)));
        let of_workload =
            oldest(&own, |spec| !spec.match_labels.is_empty() && selects(&spec.match_labels, labels));
        let whole = |spec: &PeerAuthentication| spec.match_labels.is_empty();
        Self {
            unreadable: unreadable.next().copied(),
            of_workload,
            of_namespace: oldest(&own, whole),
            of_mesh: oldest(&root, whole),
        }
    }

    /// The mode of a port (or of all others), and what says so.
    pub(crate) fn mode(&self, port: Option<Port>) -> (MtlsMode, Origin) {
        if let Some(object) = self.unreadable {
            let key = object.reference();
            let origin = Origin {
                kind: key.kind,
                namespace: key.namespace.unwrap_or_else(|| "".into()),
                name: key.name,
                ..Origin::default()
            };
            return (MtlsMode::Strict, origin);
        }
        let of_port = |object: &'w Object<PeerAuthentication>| {
            port.and_then(|port| object.spec.ports.get(&port)).and_then(Option::as_ref)
        };
        let said = |object: Option<&'w Object<PeerAuthentication>>| {
            object.and_then(|object| Some((object, object.spec.mode.as_ref()?)))
        };
        let by_port = self.of_workload.and_then(|object| Some((object, of_port(object)?)));
        let found = by_port.or(said(self.of_workload)).or(said(self.of_namespace)).or(said(self.of_mesh));
        match found {
            Some((object, mode)) => (mode_of(mode), origin(object, &mode.at)),
            None => (MtlsMode::Permissive, Origin::built_in("mtls PERMISSIVE")),
        }
    }
}

fn mode_of(mode: &Spanned<Mode>) -> MtlsMode {
    match mode.value {
        Mode::Disable => MtlsMode::Disable,
        Mode::Permissive => MtlsMode::Permissive,
        Mode::Strict => MtlsMode::Strict,
    }
}

/// The oldest of those that a test chooses.
fn oldest<'w>(
    objects: &[&'w AnyObject],
    chosen: impl Fn(&PeerAuthentication) -> bool,
) -> Option<&'w Object<PeerAuthentication>> {
    let readable = objects.iter().filter_map(|object| match object {
        AnyObject::PeerAuthentication(object) => Some(object),
        _ => None,
    });
    readable.filter(|object| chosen(&object.spec)).min_by(|a, b| age_order(a).cmp(&age_order(b)))
}
