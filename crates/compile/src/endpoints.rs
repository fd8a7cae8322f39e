//! The addresses behind a service: from EndpointSlices, pods, ServiceEntries and other clusters.
//!
//! Invariants: ordered by workload, one entry a workload; an endpoint that is told to go is there as draining until it is
//! gone; whatever cannot be seen stays as it was last known (its cluster is then listed as stale).
//! Must not know: routes, subsets, balancing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use leno_apis::{
    Object,
    istio::{
        ServiceEntry,
        service_entry::{EntryEndpoint, Resolution},
    },
    k8s::{self, Pod, ServiceType},
};
use leno_model::{
    Endpoint, EndpointSet, EndpointState, Locality, MtlsMode, Port, SpiffeId, Tunnel, Weight, WorkloadId,
};

use crate::{
    pods,
    services::{Declared, Registered},
    settings::RemoteCluster,
    view::View,
    workloads::Demand,
};

/// All endpoints of a service, of all clusters.
pub(crate) fn set(view: &View<'_>, service: &Registered<'_>) -> EndpointSet {
    let mut endpoints = local(view, service);
    let mut stale = Vec::new();
    for (remote, export) in view.remote(&service.id.host) {
        if export.service != service.id || remote.cluster == view.settings.cluster {
            continue;
        }
        if remote.stale {
            stale.push(remote.cluster.clone());
        }
        let through = export.endpoints.iter().enumerate();
        endpoints.extend(through.filter_map(|(nth, endpoint)| from_elsewhere(view, remote, nth, endpoint)));
    }
    keep_those_cut_off(view, &mut endpoints);
    endpoints.sort_by(|a, b| (&a.workload, &a.cluster).cmp(&(&b.workload, &b.cluster)));
    stale.sort();
    stale.dedup();
    EndpointSet { service: service.id.clone(), endpoints, stale }
}

/// When nothing is ready, whoever is not only because Kubernetes has not heard of its machine takes work after all: an API server
/// that was away for a minute says so of every machine, and all of them are well.
fn keep_those_cut_off(view: &View<'_>, endpoints: &mut [Endpoint]) {
    if endpoints.iter().any(|endpoint| endpoint.state == EndpointState::Ready) {
        return;
    }
    for endpoint in endpoints.iter_mut().filter(|endpoint| endpoint.cluster == view.settings.cluster) {
        let WorkloadId { namespace, name } = &endpoint.workload;
        let pod = view.pod(namespace.as_str(), name);
        if pod.is_some_and(pods::is_cut_off) {
            endpoint.state = EndpointState::Ready;
        }
    }
}

/// The identities that a service's mesh endpoints have.
pub(crate) fn identities(set: &EndpointSet) -> Vec<SpiffeId> {
    let known = set.endpoints.iter().filter_map(|endpoint| endpoint.identity.clone());
    known.collect::<BTreeSet<_>>().into_iter().collect()
}

/// An endpoint of another cluster as this one reaches it: directly in the same network, else through one of its gateways.
fn from_elsewhere(
    view: &View<'_>,
    remote: &RemoteCluster,
    nth: usize,
    endpoint: &Endpoint,
) -> Option<Endpoint> {
    let mut endpoint = Endpoint { cluster: remote.cluster.clone(), ..endpoint.clone() };
    let network = if endpoint.network.as_str().is_empty() { &remote.network } else { &endpoint.network };
    if *network != view.settings.network {
        if endpoint.tunnel != Tunnel::Mesh || remote.gateways.is_empty() {
            return None;
        }
        let (address, port) = remote.gateways[nth % remote.gateways.len()];
        endpoint.tunnel = Tunnel::Gateway { address, port };
    }
    Some(endpoint)
}

/// The endpoints that this cluster knows.
pub(crate) fn local(view: &View<'_>, service: &Registered<'_>) -> Vec<Endpoint> {
    let mut endpoints = match &service.declared {
        Declared::Service(object) if object.spec.type_ == ServiceType::ExternalName => {
            external_name(view, service, object).into_iter().collect()
        }
        Declared::Service(object) => of_service(view, service, object),
        Declared::Entries(entries) => {
            entries.iter().flat_map(|entry| of_entry(view, service, entry)).collect()
        }
        Declared::Remote => Vec::new(),
    };
    endpoints.sort_by(|a, b| a.workload.cmp(&b.workload));
    endpoints.dedup_by(|later, earlier| later.workload == earlier.workload);
    endpoints
}

fn of_service(view: &View<'_>, service: &Registered<'_>, object: &Object<k8s::Service>) -> Vec<Endpoint> {
    let slices = view.slices(object.namespace(), object.name());
    if !slices.is_empty() {
        let mut endpoints = Vec::new();
        // Dual stack: IPv4 first, so that it is the one kept of a pod's two.
        for family in ["IPv4", "IPv6"] {
            let of_family = slices.iter().filter(|slice| slice.spec.address_type == family);
            endpoints.extend(of_family.flat_map(|slice| of_slice(view, service, object, slice)));
        }
        return endpoints;
    }
    if object.spec.selector.is_empty() {
        return Vec::new();
    }
    let pods = view.pods(object.namespace(), &object.spec.selector);
    let live = pods.into_iter().filter(|pod| pods::is_live(pod));
    live.filter_map(|pod| {
        let mut endpoint = of_pod(view, pod)?;
        endpoint.ports = ports_of_pod(object, pod);
        obey_mtls_mode(view, pod, &mut endpoint);
        if object.spec.publish_not_ready_addresses && endpoint.state == EndpointState::NotReady {
            endpoint.state = EndpointState::Ready;
        }
        Some(endpoint)
    })
    .collect()
}

/// Istio's auto mTLS: a workload whose ports all take plaintext only is called in plaintext.
fn obey_mtls_mode(view: &View<'_>, pod: &Object<Pod>, endpoint: &mut Endpoint) {
    if endpoint.tunnel != Tunnel::Mesh || endpoint.ports.is_empty() {
        return;
    }
    let demand = Demand::of(view, pod.namespace(), &pod.metadata.labels);
    if endpoint.ports.values().all(|port| demand.mode(Some(*port)).0 == MtlsMode::Disable) {
        endpoint.tunnel = Tunnel::Plain;
    }
}

/// Service port -> port of this pod.
fn ports_of_pod(service: &Object<k8s::Service>, pod: &Object<Pod>) -> BTreeMap<Port, Port> {
    let tcp = service.spec.ports.iter().filter(|port| port.protocol == k8s::Protocol::Tcp);
    tcp.filter_map(|port| Some((*port.port, pods::target(pod, *port.port, port.target_port.as_ref())?)))
        .collect()
}

fn of_pod(view: &View<'_>, pod: &Object<Pod>) -> Option<Endpoint> {
    let identity = pods::identity(view, pod).filter(|_| pods::in_mesh(pod));
    Some(Endpoint {
        workload: pods::id(pod),
        uid: pods::uid(pod),
        address: pod.spec.status.pod_ip?,
        ports: BTreeMap::new(),
        tunnel: if identity.is_some() { Tunnel::Mesh } else { Tunnel::Plain },
        identity,
        state: pods::state(pod),
        locality: pods::locality(view, pod),
        cluster: view.settings.cluster.clone(),
        network: pods::network(view, pod),
        labels: pods::labels(pod),
        owner: pods::owner(pod),
        weight: Weight(1),
    })
}

fn of_slice(
    view: &View<'_>,
    service: &Registered<'_>,
    object: &Object<k8s::Service>,
    slice: &Object<k8s::EndpointSlice>,
) -> Vec<Endpoint> {
    let ports_at = |pod: Option<&Object<Pod>>| -> BTreeMap<Port, Port> {
        let tcp = slice.spec.ports.iter().filter(|port| port.protocol == k8s::Protocol::Tcp);
        let pairs = tcp.flat_map(|port| {
            let of_service = service.ports.iter().filter(|known| *known.name == *port.name);
            of_service.map(|known| (known.port, port.port.unwrap_or(known.port)))
        });
        let known: BTreeMap<Port, Port> = pairs.collect();
        match pod {
            Some(pod) if known.is_empty() && slice.spec.ports.is_empty() => ports_of_pod(object, pod),
            _ => known,
        }
    };
    let endpoint = |found: &k8s::Endpoint| {
        let address = found.ips().next()?;
        let namespace = found.pod_namespace.as_deref().unwrap_or(object.namespace());
        let pod = found.pod.as_deref().and_then(|pod| view.pod(namespace, pod));
        let mut endpoint = pod.and_then(|pod| of_pod(view, pod)).unwrap_or_else(|| {
            let name = found.pod.clone().unwrap_or_else(|| address.to_string());
            plain(view, WorkloadId::new(namespace, &name), address)
        });
        endpoint.address = address;
        endpoint.ports = ports_at(pod);
        if let Some(pod) = pod {
            obey_mtls_mode(view, pod, &mut endpoint);
        }
        endpoint.state = match endpoint.state {
            EndpointState::Draining => EndpointState::Draining,
            _ if found.terminating => EndpointState::Draining,
            _ if found.ready => EndpointState::Ready,
            _ => EndpointState::NotReady,
        };
        if endpoint.locality == Locality::default()
            && let Some(zone) = &found.zone
        {
            endpoint.locality.zone = zone.as_str().into();
        }
        Some(endpoint)
    };
    slice.spec.endpoints.iter().filter_map(endpoint).collect()
}

/// An endpoint that is no pod of ours.
fn plain(view: &View<'_>, workload: WorkloadId, address: IpAddr) -> Endpoint {
    Endpoint {
        uid: workload.to_string().into(),
        owner: workload.name.clone(),
        workload,
        address,
        ports: BTreeMap::new(),
        tunnel: Tunnel::Plain,
        identity: None,
        state: EndpointState::Ready,
        locality: view.settings.locality.clone(),
        cluster: view.settings.cluster.clone(),
        network: view.settings.network.clone(),
        labels: BTreeMap::new(),
        weight: Weight(1),
    }
}

/// An endpoint that the proxy resolves by name.
fn by_name(view: &View<'_>, workload: WorkloadId, host: &str) -> Endpoint {
    let unresolved = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Endpoint { tunnel: Tunnel::Dns { host: host.into() }, ..plain(view, workload, unresolved) }
}

fn external_name(
    view: &View<'_>,
    service: &Registered<'_>,
    object: &Object<k8s::Service>,
) -> Option<Endpoint> {
    let host = object.spec.external_name.as_deref()?;
    let mut endpoint = by_name(view, WorkloadId::new(object.namespace(), object.name()), host);
    endpoint.ports = service.ports.iter().map(|port| (port.port, port.port)).collect();
    Some(endpoint)
}

fn of_entry(view: &View<'_>, service: &Registered<'_>, entry: &Object<ServiceEntry>) -> Vec<Endpoint> {
    let spec = &entry.spec;
    if let Some(selector) = &spec.workload_selector {
        let pods = view.pods(entry.namespace(), selector).into_iter().filter(|pod| pods::is_live(pod));
        let with_ports = |pod| {
            Some(Endpoint { ports: entry_ports(service, entry, &BTreeMap::new()), ..of_pod(view, pod)? })
        };
        return pods.filter_map(with_ports).collect();
    }
    let written: Vec<&EntryEndpoint> = spec.endpoints.iter().filter_map(|endpoint| endpoint.ok()).collect();
    let by_dns = matches!(spec.resolution.value, Resolution::Dns | Resolution::DnsRoundRobin);
    // Without endpoints, the host itself is what is resolved. `NONE` goes where the client asked, so it has none.
    if written.is_empty() && by_dns && !service.id.host.as_str().starts_with('*') {
        let workload = WorkloadId::new(entry.namespace(), service.id.host.as_str());
        let ports = entry_ports(service, entry, &BTreeMap::new());
        return vec![Endpoint { ports, ..by_name(view, workload, service.id.host.as_str()) }];
    }
    written.into_iter().filter_map(|endpoint| of_entry_endpoint(view, service, entry, endpoint)).collect()
}

fn of_entry_endpoint(
    view: &View<'_>,
    service: &Registered<'_>,
    entry: &Object<ServiceEntry>,
    written: &EntryEndpoint,
) -> Option<Endpoint> {
    let address = written.address.as_ref()?;
    let workload = WorkloadId::new(entry.namespace(), address);
    let mut endpoint = match address.parse() {
        Ok(ip) => plain(view, workload, ip),
        Err(_) if address.starts_with("unix:") => return None,
        Err(_) => by_name(view, workload, address),
    };
    endpoint.ports = entry_ports(service, entry, &written.ports);
    endpoint.labels = pods::shared(&written.labels);
    endpoint.weight = Weight(written.weight.unwrap_or(1));
    if let Some(locality) = &written.locality {
        endpoint.locality = pods::parse_locality(locality);
    }
    if let Some(network) = &written.network {
        endpoint.network = network.as_str().into();
    }
    // An account alone does not make a proxy: Istio's label says that there is one.
    let in_mesh = written.labels.get("security.istio.io/tlsMode").is_some_and(|mode| mode == "istio");
    if let (true, Some(account)) = (in_mesh, &written.service_account)
        && let Ok(identity) = SpiffeId::workload(&view.settings.trust_domain, entry.namespace(), account)
    {
        endpoint.identity = Some(identity);
        endpoint.tunnel = Tunnel::Mesh;
    }
    Some(endpoint)
}

/// Service port -> port of an endpoint of an entry: its own by name, else the entry's target port, else the same.
fn entry_ports(
    service: &Registered<'_>,
    entry: &Object<ServiceEntry>,
    own: &BTreeMap<String, u16>,
) -> BTreeMap<Port, Port> {
    let of_entry = entry.spec.ports.iter().filter_map(|port| port.ok());
    let known = of_entry.filter(|port| service.port(*port.number).is_some());
    known
        .map(|port| {
            let target = own.get(&port.name).copied().or(port.target_port).unwrap_or(*port.number);
            (*port.number, target)
        })
        .collect()
}
