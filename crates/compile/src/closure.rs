//! Which resources a consumer needs: the closure of a scope, and what belongs to a workload or gateway itself.
//!
//! Invariant: a service that the consumer's namespace may not see has no closure; a gateway's secrets are only in that
//! gateway's own. Must not know: streams, subscriptions.

use std::collections::BTreeSet;

use leno_model::{
    Action, Backend, BackendTarget, Gateway, HttpRoutes, IndexEntry, Namespace, Resource, ResourceKey,
    RouteTable, ServiceId, TcpEntry, WorkloadId,
};

use crate::incremental::Compiled;

impl Compiled {
    /// What a consumer in `consumer` needs to call `service`, the service's own destination first; `None` when there is no
    /// such service or the consumer may not see it.
    #[must_use]
    pub fn closure(&self, consumer: &Namespace, service: &ServiceId) -> Option<Vec<ResourceKey>> {
        let mut keys = Vec::new();
        self.add_closure(consumer, service, &mut keys).then_some(keys)
    }

    fn add_closure(&self, consumer: &Namespace, service: &ServiceId, keys: &mut Vec<ResourceKey>) -> bool {
        let Some(variant) = self.variant(consumer, service) else { return false };
        push(keys, ResourceKey::destination(service, variant));
        let routes = ResourceKey::routes(service, variant);
        let table = match self.resources.get(&routes) {
            Some(Resource::Routes(table)) => Some(table.clone()),
            _ => None,
        };
        if let Some(table) = table {
            push(keys, routes);
            push(keys, ResourceKey::endpoints(service));
            for backend in led_to(&table) {
                self.add_backend(consumer, &backend, keys);
            }
        } else {
            push(keys, ResourceKey::endpoints(service));
        }
        true
    }

    /// Destination and endpoints of a service that routes lead to: its own routes do not apply there.
    fn add_backend(&self, consumer: &Namespace, service: &ServiceId, keys: &mut Vec<ResourceKey>) {
        if let Some(variant) = self.variant(consumer, service) {
            push(keys, ResourceKey::destination(service, variant));
            push(keys, ResourceKey::endpoints(service));
        }
    }

    /// The variant of a service that a consumer uses; `None` when it may not see it.
    fn variant<'n>(&self, consumer: &'n Namespace, service: &ServiceId) -> Option<Option<&'n Namespace>> {
        let entry = self.index_entry(service)?;
        entry.exposure.includes(consumer).then(|| entry.variants.contains(consumer).then_some(consumer))
    }

    /// The index entry of a service.
    #[must_use]
    pub fn index_entry(&self, service: &ServiceId) -> Option<&IndexEntry> {
        match self.resources.get(&ResourceKey::index(service))? {
            Resource::Index(entry) => Some(entry),
            _ => None,
        }
    }

    /// What belongs to a workload or gateway itself: its inbound configuration and policies; for a gateway, its listeners,
    /// secrets and everything its routes lead to. `None` when there is no such workload.
    #[must_use]
    pub fn own(&self, id: &WorkloadId) -> Option<Vec<ResourceKey>> {
        let mut keys = Vec::new();
        let workload = ResourceKey::workload(id);
        if let Some(Resource::Workload(found)) = self.resources.get(&workload) {
            push(&mut keys, workload);
            for policy in &found.policies {
                push(&mut keys, ResourceKey::policy(policy));
            }
        }
        let gateway = ResourceKey::gateway(id);
        if let Some(Resource::Gateway(found)) = self.resources.get(&gateway) {
            push(&mut keys, gateway);
            for secret in secrets(found) {
                push(&mut keys, secret);
            }
            for backend in led_to_by_gateway(found) {
                self.add_backend(&id.namespace, &backend, &mut keys);
            }
        }
        keys.retain(|key| self.resources.contains_key(key));
        (!keys.is_empty()).then_some(keys)
    }
}

fn push(keys: &mut Vec<ResourceKey>, key: ResourceKey) {
    if !keys.contains(&key) {
        keys.push(key);
    }
}

fn secrets(gateway: &Gateway) -> BTreeSet<ResourceKey> {
    let mut found = BTreeSet::new();
    for listener in &gateway.listeners {
        if let leno_model::GatewayProtocol::Https(tls) | leno_model::GatewayProtocol::Tls(tls) =
            &listener.protocol
        {
            found.extend(tls.certificates.iter().chain(&tls.client_ca).map(|id| ResourceKey::secret(id)));
        }
    }
    found
}

fn led_to(table: &RouteTable) -> BTreeSet<ServiceId> {
    let mut found = BTreeSet::new();
    for port in table.ports.values() {
        port.http.iter().for_each(|routes| of_http(routes, &mut found));
        of_tcp(&port.tcp, &mut found);
    }
    found
}

fn led_to_by_gateway(gateway: &Gateway) -> BTreeSet<ServiceId> {
    let mut found = BTreeSet::new();
    for listener in &gateway.listeners {
        listener.routes.iter().for_each(|host| of_http(&host.routes, &mut found));
        of_tcp(&listener.tcp, &mut found);
    }
    found
}

fn of_http(routes: &HttpRoutes, found: &mut BTreeSet<ServiceId>) {
    for rule in &routes.rules {
        if let Action::Forward(backends) = &rule.action {
            of_backends(backends, found);
        }
        found.extend(rule.mirrors.iter().filter_map(|mirror| service_of(&mirror.target)));
    }
}

fn of_tcp(entries: &[TcpEntry], found: &mut BTreeSet<ServiceId>) {
    entries.iter().for_each(|entry| of_backends(&entry.backends, found));
}

fn of_backends(backends: &[Backend], found: &mut BTreeSet<ServiceId>) {
    found.extend(backends.iter().filter_map(|backend| service_of(&backend.target)));
}

fn service_of(target: &BackendTarget) -> Option<ServiceId> {
    match target {
        BackendTarget::Service { service, .. } => Some(service.clone()),
        BackendTarget::Unresolved { .. } => None,
    }
}
