//! Services, whoever declares them: Kubernetes Services, ServiceEntries, other clusters.
//!
//! Invariant: one name and namespace is one service; a Kubernetes Service wins over a ServiceEntry of the same host and
//! namespace, and both over what other clusters export under it (whose endpoints are added all the same).
//! Must not know: routes, policies.

use std::{net::IpAddr, sync::Arc};

use leno_apis::{
    AnyObject, Object,
    istio::{ServiceEntry, service_entry::Resolution},
    k8s::{self, ServiceType},
};
use leno_model::{Exposure, IndexEntry, IndexPort, Namespace, Origin, Port, Protocol, ServiceId};

use crate::{
    endpoints, hosts,
    output::origin,
    protocols,
    view::{View, kubernetes_host},
};

/// A service and what its declaration says.
#[derive(Clone, Debug)]
pub(crate) struct Registered<'w> {
    pub(crate) id: ServiceId,
    pub(crate) ports: Vec<RegisteredPort>,
    pub(crate) exposure: Exposure,
    pub(crate) external: bool,
    pub(crate) declared: Declared<'w>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegisteredPort {
    pub(crate) port: Port,
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
}

/// What declares a service.
#[derive(Clone, Debug)]
pub(crate) enum Declared<'w> {
    Service(&'w Object<k8s::Service>),
    /// All entries of one namespace with this host, oldest first.
    Entries(Vec<&'w Object<ServiceEntry>>),
    /// Only other clusters have it.
    Remote,
}

impl Registered<'_> {
    /// Its ports as the index has them.
    pub(crate) fn index_ports(&self) -> Vec<IndexPort> {
        self.ports.iter().map(|port| IndexPort { port: port.port, protocol: port.protocol }).collect()
    }

    /// A port by number.
    pub(crate) fn port(&self, number: Port) -> Option<&RegisteredPort> {
        self.ports.iter().find(|port| port.port == number)
    }

    /// Whether one namespace may see it.
    pub(crate) fn visible_to(&self, namespace: &str) -> bool {
        self.exposure.includes(&Namespace::from(namespace))
    }

    /// Its declaration, as the model cites it.
    pub(crate) fn origin(&self) -> Origin {
        match &self.declared {
            Declared::Service(service) => origin(*service, &service.source),
            Declared::Entries(entries) => match entries.first() {
                Some(entry) => origin(*entry, &entry.source),
                None => Origin::built_in("service"),
            },
            Declared::Remote => Origin::built_in("service of another cluster"),
        }
    }
}

/// The services that an object declares.
pub(crate) fn declared_by(object: &AnyObject) -> Vec<ServiceId> {
    match object {
        AnyObject::Service(service) => vec![ServiceId::kubernetes(service.namespace(), service.name())],
        AnyObject::ServiceEntry(entry) => entry
            .spec
            .hosts
            .iter()
            .map(|host| ServiceId {
                namespace: entry.namespace().into(),
                host: host.to_ascii_lowercase().as_str().into(),
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The service with this id.
pub(crate) fn find<'w>(view: &View<'w>, id: &ServiceId) -> Option<Registered<'w>> {
    let of_namespace = |namespace: &str| namespace == id.namespace.as_str();
    let host = id.host.as_str();
    if let Some(service) =
        view.service_with(host).into_iter().find(|service| of_namespace(service.namespace()))
    {
        return Some(of_service(service, id));
    }
    let entries: Vec<_> =
        view.entries_with(host).into_iter().filter(|entry| of_namespace(entry.namespace())).collect();
    if !entries.is_empty() {
        return Some(of_entries(entries, id));
    }
    of_remote(view, id)
}

fn of_service<'w>(service: &'w Object<k8s::Service>, id: &ServiceId) -> Registered<'w> {
    let tcp = service.spec.ports.iter().filter(|port| port.protocol == k8s::Protocol::Tcp);
    let ports = tcp.map(|port| RegisteredPort {
        port: *port.port,
        name: port.name.as_str().into(),
        protocol: protocols::declared(port.app_protocol.as_deref(), &port.name, *port.port),
    });
    let export_to = service.metadata.annotation("networking.istio.io/exportTo");
    let export_to = export_to.into_iter().flat_map(|text| text.split(',')).map(str::trim);
    Registered {
        id: id.clone(),
        ports: ports.collect(),
        exposure: hosts::exposure(export_to, service.namespace()),
        external: service.spec.type_ == ServiceType::ExternalName,
        declared: Declared::Service(service),
    }
}

fn of_entries<'w>(entries: Vec<&'w Object<ServiceEntry>>, id: &ServiceId) -> Registered<'w> {
    let mut ports: Vec<RegisteredPort> = Vec::new();
    for port in entries.iter().flat_map(|entry| &entry.spec.ports).filter_map(|port| port.ok()) {
        if ports.iter().all(|known| known.port != *port.number) {
            ports.push(RegisteredPort {
                port: *port.number,
                name: port.name.as_str().into(),
                protocol: protocols::declared(Some(&port.protocol), "", *port.number),
            });
        }
    }
    let first = entries.first();
    let exposure = first.map(|entry| hosts::exposure_of(&entry.spec.export_to, entry.namespace()));
    Registered {
        id: id.clone(),
        ports,
        exposure: exposure.unwrap_or_default(),
        external: first.is_some_and(|entry| !entry.spec.mesh_internal),
        declared: Declared::Entries(entries),
    }
}

fn of_remote<'w>(view: &View<'w>, id: &ServiceId) -> Option<Registered<'w>> {
    let mut found = view.remote(&id.host).into_iter().filter(|(_, export)| export.service == *id).peekable();
    found.peek()?;
    let mut ports: Vec<RegisteredPort> = Vec::new();
    for port in found.flat_map(|(_, export)| &export.ports) {
        if ports.iter().all(|known| known.port != port.port) {
            ports.push(RegisteredPort { port: port.port, name: "".into(), protocol: port.protocol });
        }
    }
    ports.sort_by_key(|port| port.port);
    let declared = Declared::Remote;
    Some(Registered { id: id.clone(), ports, exposure: Exposure::Everywhere, external: false, declared })
}

/// The service that an object of `namespace` means by a host: visible ones only, its own namespace's first, then the oldest.
pub(crate) fn resolve<'w>(view: &View<'w>, host: &str, namespace: &str) -> Option<Registered<'w>> {
    hosts::meanings(host, namespace).iter().find_map(|host| with_host(view, host, namespace))
}

fn with_host<'w>(view: &View<'w>, host: &str, namespace: &str) -> Option<Registered<'w>> {
    let of_services = view.service_with(host).into_iter().map(|service| service.namespace());
    let of_entries = view.entries_with(host).into_iter().map(|entry| entry.namespace());
    let remote = view.remote(&host.into());
    let of_remotes = remote.iter().map(|(_, export)| export.service.namespace.as_str());
    let mut owners: Vec<&str> = of_services.chain(of_entries).chain(of_remotes).collect();
    if let Some(own) = owners.iter().position(|owner| *owner == namespace) {
        owners.swap(0, own);
    }
    owners.into_iter().find_map(|owner| {
        let id = ServiceId { namespace: owner.into(), host: host.into() };
        find(view, &id).filter(|found| found.visible_to(namespace))
    })
}

/// The Kubernetes Service `namespace/name`.
pub(crate) fn kubernetes<'w>(view: &View<'w>, namespace: &str, name: &str) -> Option<Registered<'w>> {
    find(
        view,
        &ServiceId {
            namespace: namespace.into(),
            host: leno_model::Host::new(kubernetes_host(name, namespace)),
        },
    )
}

/// The index entry of a service; `variants` are the namespaces with rules of their own.
pub(crate) fn index_entry(view: &View<'_>, service: &Registered<'_>, variants: Vec<Namespace>) -> IndexEntry {
    let mut addresses = addresses(view, service);
    addresses.sort_unstable();
    addresses.dedup();
    IndexEntry {
        service: service.id.clone(),
        addresses,
        ports: service.index_ports(),
        exposure: service.exposure.clone(),
        external: service.external,
        variants,
    }
}

fn addresses(view: &View<'_>, service: &Registered<'_>) -> Vec<IpAddr> {
    match &service.declared {
        Declared::Service(object) if object.spec.headless => {
            endpoints::local(view, service).into_iter().map(|endpoint| endpoint.address).collect()
        }
        Declared::Service(object) => {
            object.spec.cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect()
        }
        Declared::Entries(entries) => {
            let written: Vec<IpAddr> = entries
                .iter()
                .flat_map(|entry| &entry.spec.addresses)
                .filter_map(|ip| ip.parse().ok())
                .collect();
            // Without an address of its own, a static entry is found by the addresses of its endpoints.
            let is_static = entries.iter().all(|entry| entry.spec.resolution.value == Resolution::Static);
            if written.is_empty() && is_static {
                return endpoints::local(view, service)
                    .into_iter()
                    .map(|endpoint| endpoint.address)
                    .collect();
            }
            written
        }
        Declared::Remote => Vec::new(),
    }
}
