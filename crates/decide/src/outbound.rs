//! What a client's dialled address or named host is.
//!
//! Invariant: a known service is never reported unknown, whether or not it is loaded: the caller holds it, then answers 503.

use std::{net::IpAddr, sync::Arc};

use leno_model::{
    BackendTarget, Destination, EndpointSet, IndexEntry, IndexPort, Port, ServiceId, Subset, TrafficPolicy,
};

use crate::{services::PortTable, tables::Tables};

/// What an outbound call is for.
#[derive(Clone, Copy, Debug)]
pub enum Outbound<'t> {
    /// A service of the mesh (or of a ServiceEntry) that this namespace may see.
    Known(Known<'t>),
    /// Such a service, which has no such port.
    NoSuchPort(&'t Arc<IndexEntry>),
    /// A service that is not exposed to this namespace.
    Hidden(&'t Arc<IndexEntry>),
    /// Nothing the mesh knows.
    Unknown,
}

/// A service and one of its ports.
#[derive(Clone, Copy, Debug)]
pub struct Known<'t> {
    /// The service.
    pub entry: &'t Arc<IndexEntry>,
    /// The port.
    pub port: IndexPort,
    /// How to call it; `None`: its scope ([`Tables::scope`]) must be loaded first.
    pub loaded: Option<Loaded<'t>>,
}

/// How to call a service.
#[derive(Clone, Copy, Debug)]
pub struct Loaded<'t> {
    /// Balancing, limits, subsets, identities.
    pub destination: &'t Arc<Destination>,
    /// The port's routes.
    pub routes: &'t Arc<PortTable>,
    /// Its endpoints; `None`: not known, which is not the same as none.
    pub endpoints: Option<&'t Arc<EndpointSet>>,
}

/// Where a backend's share goes.
#[derive(Clone, Debug)]
pub enum BackendState<'t> {
    /// To endpoints of a service.
    Ready(ReadyBackend<'t>),
    /// Nowhere: answered with this status.
    Unresolved {
        /// 500 or 503.
        status: u16,
        /// What does not resolve.
        reason: Arc<str>,
    },
}

/// A backend that resolves.
#[derive(Clone, Copy, Debug)]
pub struct ReadyBackend<'t> {
    /// The destination. Its own routes do not apply.
    pub destination: &'t Arc<Destination>,
    /// The service's port.
    pub port: Port,
    /// The subset, if the route names one.
    pub subset: Option<&'t Subset>,
    /// The policy of the port and subset.
    pub policy: &'t TrafficPolicy,
    /// The service's endpoints, of all subsets.
    pub endpoints: &'t Arc<EndpointSet>,
}

impl Tables {
    /// What a dialled address is.
    pub fn outbound_by_address(&self, address: IpAddr, port: Port) -> Outbound<'_> {
        self.known(self.index.by_address(address, port), port)
    }

    /// What a named host is. The name may be short, as a resolver would complete it in this proxy's namespace.
    pub fn outbound_by_host(&self, host: &str, port: Port) -> Outbound<'_> {
        self.known(self.index.by_host(host.strip_suffix('.').unwrap_or(host)), port)
    }

    /// The name of the scope that a proxy of this namespace asks for to call a service.
    pub fn scope(&self, service: &ServiceId) -> String {
        leno_model::resource::scope_name(self.me.namespace(), service)
    }

    fn known<'t>(&'t self, entry: Option<&'t Arc<IndexEntry>>, port: Port) -> Outbound<'t> {
        let Some(entry) = entry else { return Outbound::Unknown };
        if !entry.exposure.includes(self.me.namespace()) {
            return Outbound::Hidden(entry);
        }
        match entry.ports.iter().find(|candidate| candidate.port == port) {
            Some(port) => {
                Outbound::Known(Known { entry, port: *port, loaded: self.loaded(&entry.service, port.port) })
            }
            None => Outbound::NoSuchPort(entry),
        }
    }

    /// How to call a service's port, when everything for it has come.
    pub fn loaded(&self, service: &ServiceId, port: Port) -> Option<Loaded<'_>> {
        if !self.is_loaded(service) {
            return None;
        }
        let state = self.services.get(service)?;
        Some(Loaded {
            destination: state.destination()?,
            routes: state.port(port)?,
            endpoints: self.endpoints.get(service),
        })
    }

    /// Resolves a backend of a route.
    pub fn backend<'t>(&'t self, target: &'t BackendTarget) -> BackendState<'t> {
        let (service, port, subset) = match target {
            BackendTarget::Service { service, port, subset } => (service, *port, subset.as_deref()),
            BackendTarget::Unresolved { status, reason } => {
                return BackendState::Unresolved { status: *status, reason: reason.clone() };
            }
        };
        let missing = |reason: String| BackendState::Unresolved { status: 503, reason: reason.into() };
        let Some(destination) = self.services.get(service).and_then(|state| state.destination()) else {
            return missing(format!("{service} is not loaded"));
        };
        let Some(endpoints) = self.endpoints.get(service) else {
            return missing(format!("the endpoints of {service} are not known"));
        };
        let found = subset.map(|name| destination.subsets.iter().find(|subset| &*subset.name == name));
        if let (Some(None), Some(name)) = (found, subset) {
            return missing(format!("{service} has no subset {name:?}"));
        }
        let policy = destination.policy_for(port, subset);
        BackendState::Ready(ReadyBackend { destination, port, subset: found.flatten(), policy, endpoints })
    }
}

impl ReadyBackend<'_> {
    /// The endpoints of the port and subset that take new work, as indexes into the set.
    pub fn candidates(&self) -> Vec<u32> {
        crate::locality::candidates(self.endpoints, self.port, self.subset)
    }
}
