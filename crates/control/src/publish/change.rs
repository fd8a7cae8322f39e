//! What a session has to look at again after a change.
//!
//! A session looks at what a changed resource touches among those it uses. Where a change adds a resource to sets that did
//! not have it, a resource that all of these sets do have is named beside it: looking twice is cheap, not looking is a stale proxy.
//!
//! Invariant: every closure and own set with other keys than before has a member named here, or is named itself.

use std::{collections::BTreeSet, sync::Arc};

use leno_compile::Compiled;
use leno_model::{
    Gateway, GatewayProtocol, IndexEntry, Resource, ResourceKey as ModelKey, ResourceKind, ServiceId,
};
use leno_xds::{Affected, Change, ResourceKey};

use super::{targets, wire_key};

/// The change from `before` to `after`, of which these resources are new, different or gone.
pub(crate) fn change(changed: &BTreeSet<ModelKey>, before: &Compiled, after: &Compiled) -> Change {
    let mut found = Found { change: Change::default(), workloads: BTreeSet::new(), everybody: false };
    let mut appeared: BTreeSet<ServiceId> = BTreeSet::new();
    let mut came_or_went: BTreeSet<&ModelKey> = BTreeSet::new();
    for key in changed {
        found.change.resources.insert(wire_key(key));
        let presence = before.resources.contains_key(key) != after.resources.contains_key(key);
        match key.kind {
            ResourceKind::Index => {
                found.touch_endpoints(&key.name);
                let (old, new) = (index(before, key), index(after, key));
                if old.map(|entry| &entry.exposure) != new.map(|entry| &entry.exposure) {
                    found.everybody = true;
                    appeared.extend(new.map(|entry| entry.service.clone()));
                }
            }
            // A variant's name is the service's, `@` and the namespace.
            ResourceKind::Routes | ResourceKind::Destination => {
                found.touch_endpoints(key.name.split('@').next().unwrap_or(&key.name));
            }
            ResourceKind::Workload | ResourceKind::Gateway => {
                found.workloads.insert(key.name.clone());
            }
            ResourceKind::Policy | ResourceKind::Secret if presence => {
                came_or_went.insert(key);
            }
            ResourceKind::Policy | ResourceKind::Secret | ResourceKind::Endpoints => {}
        }
    }
    if !appeared.is_empty() {
        found.lead_to(after, &appeared);
    }
    if !came_or_went.is_empty() {
        found.hold(after, &came_or_went);
    }
    found.finish()
}

struct Found {
    change: Change,
    workloads: BTreeSet<Arc<str>>,
    everybody: bool,
}

impl Found {
    /// Every closure in which a service occurs has its endpoints.
    fn touch_endpoints(&mut self, service: &str) {
        self.change.resources.insert(ResourceKey::new(ResourceKind::Endpoints as u32, service));
    }

    /// Routes and gateways that lead to services which their users could not see before.
    fn lead_to(&mut self, after: &Compiled, services: &BTreeSet<ServiceId>) {
        let wanted = |service: &ServiceId| services.contains(service);
        for (key, resource) in &after.resources {
            match resource {
                Resource::Routes(table) if targets::table_leads_to(table, &wanted) => {
                    self.change.resources.insert(wire_key(key));
                }
                Resource::Gateway(gateway) if targets::gateway_leads_to(gateway, &wanted) => {
                    self.workloads.insert(key.name.clone());
                }
                _ => {}
            }
        }
    }

    /// Workloads and gateways that name policies and secrets which came or went.
    fn hold(&mut self, after: &Compiled, keys: &BTreeSet<&ModelKey>) {
        for (key, resource) in &after.resources {
            let holds = match resource {
                Resource::Workload(workload) => {
                    workload.policies.iter().any(|policy| keys.contains(&ModelKey::policy(policy)))
                }
                Resource::Gateway(gateway) => names_secret(gateway, keys),
                _ => false,
            };
            if holds {
                self.workloads.insert(key.name.clone());
            }
        }
    }

    fn finish(self) -> Change {
        let Self { mut change, workloads, everybody } = self;
        change.always = if everybody {
            Affected::Everybody
        } else if workloads.is_empty() {
            Affected::Nobody
        } else {
            Affected::Workloads(workloads)
        };
        change
    }
}

fn index<'a>(compiled: &'a Compiled, key: &ModelKey) -> Option<&'a IndexEntry> {
    match compiled.resources.get(key)? {
        Resource::Index(entry) => Some(entry),
        _ => None,
    }
}

fn names_secret(gateway: &Gateway, keys: &BTreeSet<&ModelKey>) -> bool {
    gateway.listeners.iter().any(|listener| match &listener.protocol {
        GatewayProtocol::Https(tls) | GatewayProtocol::Tls(tls) => {
            tls.certificates.iter().chain(&tls.client_ca).any(|id| keys.contains(&ModelKey::secret(id)))
        }
        GatewayProtocol::Http
        | GatewayProtocol::TlsPassthrough
        | GatewayProtocol::MeshPassthrough
        | GatewayProtocol::Tcp => false,
    })
}
