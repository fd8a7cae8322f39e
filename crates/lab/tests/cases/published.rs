//! What the control plane has in force: services by their names, endpoints, workloads, listeners.

use std::sync::Arc;

use leno_analyze::cases::{WorkloadName, describe_listener, describe_workload};
use leno_model::{Endpoint, EndpointSet, Gateway, IndexEntry, Resource, Workload};
use serde_json::Value;

/// The resources of `/v1/world`.
#[derive(Default)]
pub(crate) struct Published {
    index: Vec<Arc<IndexEntry>>,
    endpoints: Vec<Arc<EndpointSet>>,
    workloads: Vec<Arc<Workload>>,
    gateways: Vec<Arc<Gateway>>,
}

impl Published {
    pub(crate) fn of(world: &Value) -> Self {
        let resources: Vec<Resource> = serde_json::from_value(world["resources"].clone()).unwrap();
        let mut published = Self::default();
        for resource in resources {
            match resource {
                Resource::Index(entry) => published.index.push(entry),
                Resource::Endpoints(set) => published.endpoints.push(set),
                Resource::Workload(workload) => published.workloads.push(workload),
                Resource::Gateway(gateway) => published.gateways.push(gateway),
                _ => {}
            }
        }
        published
    }

    /// The service that a pod of `namespace` means by `host`, completed as a resolver would.
    pub(crate) fn service(&self, host: &str, namespace: &str) -> Option<&Arc<IndexEntry>> {
        let host = host.to_ascii_lowercase();
        let suffixes =
            ["".to_owned(), format!(".{namespace}.svc.cluster.local"), ".svc.cluster.local".to_owned()];
        let names = suffixes.map(|suffix| format!("{host}{suffix}"));
        names.iter().find_map(|name| self.index.iter().find(|it| it.service.host.as_str() == name))
    }

    /// What a workload's own proxy is told about it; it goes by its name, its owner's or its `app` label.
    pub(crate) fn workload(&self, name: &WorkloadName) -> Option<Value> {
        let named = |it: &&Arc<Workload>| {
            let app = it.labels.get("app").is_some_and(|app| **app == *name.name);
            it.id.namespace.as_str() == name.namespace
                && (*it.id.name == *name.name || *it.owner == *name.name || app)
        };
        self.workloads.iter().find(named).map(|found| describe_workload(found))
    }

    /// The listener of a name, host and port, which belongs to one gateway of a world.
    pub(crate) fn listener(&self, like: &Value) -> Option<Value> {
        let all = self.gateways.iter().flat_map(|gateway| &gateway.listeners).map(describe_listener);
        let same = |found: &Value| ["name", "host", "port"].iter().all(|key| found[key] == like[key]);
        all.into_iter().find(same)
    }

    /// All services.
    pub(crate) fn services(&self) -> impl Iterator<Item = &Arc<IndexEntry>> {
        self.index.iter()
    }

    /// All endpoints.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().flat_map(|set| &set.endpoints)
    }

    /// The endpoints of a service.
    pub(crate) fn endpoints_of(&self, service: &IndexEntry) -> &[Endpoint] {
        let set = self.endpoints.iter().find(|set| set.service == service.service);
        set.map_or(&[], |set| &set.endpoints)
    }
}
