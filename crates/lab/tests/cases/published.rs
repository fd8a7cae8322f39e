//! What the control plane has in force: services by their names, endpoints, destinations.

use std::sync::Arc;

use leno_model::{Endpoint, EndpointSet, IndexEntry, Resource};
use serde_json::Value;

/// The resources of `/v1/world`.
#[derive(Default)]
pub(crate) struct Published {
    index: Vec<Arc<IndexEntry>>,
    endpoints: Vec<Arc<EndpointSet>>,
}

impl Published {
    pub(crate) fn of(world: &Value) -> Self {
        let resources: Vec<Resource> = serde_json::from_value(world["resources"].clone()).unwrap();
        let mut published = Self::default();
        for resource in resources {
            match resource {
                Resource::Index(entry) => published.index.push(entry),
                Resource::Endpoints(set) => published.endpoints.push(set),
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
