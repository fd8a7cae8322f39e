//! What discovery names, versions and sends.
//!
//! A proxy always has every [`IndexEntry`] and its own [`Workload`] (or [`Gateway`]) with the policies and secrets that
//! this one names. It asks for the rest by *scope*: (its namespace, service). The server answers a scope with its
//! closure: the [`Destination`] and [`RouteTable`] in the variant of the consumer's namespace, the [`EndpointSet`], and
//! destinations and endpoints of every service that the routes lead to.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    destination::Destination,
    endpoint::EndpointSet,
    gateway::{Gateway, TlsSecret},
    index::IndexEntry,
    names::{Namespace, ServiceId, WorkloadId},
    policy::AuthorizationPolicy,
    route::RouteTable,
    workload::Workload,
};

/// A kind of resource; its number is its name on the wire and never changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u32)]
pub enum ResourceKind {
    /// [`IndexEntry`]
    Index = 1,
    /// [`Workload`]
    Workload = 2,
    /// [`AuthorizationPolicy`]
    Policy = 3,
    /// [`Destination`]
    Destination = 4,
    /// [`RouteTable`]
    Routes = 5,
    /// [`EndpointSet`]
    Endpoints = 6,
    /// [`Gateway`]
    Gateway = 7,
    /// [`TlsSecret`]
    Secret = 8,
}

impl ResourceKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Index,
        Self::Workload,
        Self::Policy,
        Self::Destination,
        Self::Routes,
        Self::Endpoints,
        Self::Gateway,
        Self::Secret,
    ];

    /// From its number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// The name of a resource.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ResourceKey {
    /// Its kind.
    pub kind: ResourceKind,
    /// Its name within the kind.
    pub name: Arc<str>,
}

impl ResourceKey {
    /// The index entry of a service.
    pub fn index(service: &ServiceId) -> Self {
        Self { kind: ResourceKind::Index, name: service.to_string().into() }
    }

    /// A workload's inbound configuration.
    pub fn workload(id: &WorkloadId) -> Self {
        Self { kind: ResourceKind::Workload, name: id.to_string().into() }
    }

    /// A policy, by its `namespace/name`.
    pub fn policy(id: &str) -> Self {
        Self { kind: ResourceKind::Policy, name: id.into() }
    }

    /// A destination in a variant.
    pub fn destination(service: &ServiceId, variant: Option<&Namespace>) -> Self {
        Self { kind: ResourceKind::Destination, name: in_variant(service, variant) }
    }

    /// A routing table in a variant.
    pub fn routes(service: &ServiceId, variant: Option<&Namespace>) -> Self {
        Self { kind: ResourceKind::Routes, name: in_variant(service, variant) }
    }

    /// A service's endpoints.
    pub fn endpoints(service: &ServiceId) -> Self {
        Self { kind: ResourceKind::Endpoints, name: service.to_string().into() }
    }

    /// A gateway.
    pub fn gateway(id: &WorkloadId) -> Self {
        Self { kind: ResourceKind::Gateway, name: id.to_string().into() }
    }

    /// A gateway's certificate, by its `namespace/name`.
    pub fn secret(id: &str) -> Self {
        Self { kind: ResourceKind::Secret, name: id.into() }
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.name)
    }
}

/// `service` or `service@namespace`.
fn in_variant(service: &ServiceId, variant: Option<&Namespace>) -> Arc<str> {
    match variant {
        Some(namespace) => format!("{service}@{namespace}").into(),
        None => service.to_string().into(),
    }
}

/// Any resource.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// An index entry.
    Index(Arc<IndexEntry>),
    /// A workload.
    Workload(Arc<Workload>),
    /// A policy.
    Policy(Arc<AuthorizationPolicy>),
    /// A destination.
    Destination(Arc<Destination>),
    /// A routing table.
    Routes(Arc<RouteTable>),
    /// Endpoints.
    Endpoints(Arc<EndpointSet>),
    /// A gateway.
    Gateway(Arc<Gateway>),
    /// A certificate.
    Secret(Arc<TlsSecret>),
}

impl Resource {
    /// Its name.
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Index(entry) => ResourceKey::index(&entry.service),
            Self::Workload(workload) => ResourceKey::workload(&workload.id),
            Self::Policy(policy) => ResourceKey::policy(&policy.id),
            Self::Destination(destination) => {
                ResourceKey::destination(&destination.service, destination.variant.as_ref())
            }
            Self::Routes(table) => ResourceKey::routes(&table.service, table.variant.as_ref()),
            Self::Endpoints(set) => ResourceKey::endpoints(&set.service),
            Self::Gateway(gateway) => ResourceKey::gateway(&gateway.id),
            Self::Secret(secret) => ResourceKey::secret(&secret.id),
        }
    }
}

/// The name of a scope: what a consumer in `namespace` needs to call `service`.
pub fn scope_name(namespace: &Namespace, service: &ServiceId) -> String {
    format!("scope/{namespace}/{service}")
}

/// Reads a scope's name back.
pub fn parse_scope(name: &str) -> Option<(Namespace, ServiceId)> {
    let (namespace, service) = name.strip_prefix("scope/")?.split_once('/')?;
    Some((namespace.into(), service.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_name_survives_parsing() {
        let service = ServiceId::kubernetes("shop", "cart");
        let name = scope_name(&"web".into(), &service);
        assert_eq!(parse_scope(&name), Some(("web".into(), service)));
        assert_eq!(parse_scope("scope/web"), None);
    }

    #[test]
    fn every_kind_is_found_by_its_number() {
        for kind in ResourceKind::ALL {
            assert_eq!(ResourceKind::from_number(kind as u32), Some(kind));
        }
    }
}
