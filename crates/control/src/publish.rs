//! A compilation as the discovery protocol's catalog.
//!
//! Invariants: each resource is encoded once, when its content changes, and the same bytes go to every stream; a scope is
//! answered only to a workload of its namespace; what other clusters are told goes only to their control planes; a
//! gateway's secrets are only in that gateway's own set.
//! Must not know: streams, files.

mod change;
mod targets;

use std::{collections::BTreeMap, sync::Arc};

use leno_compile::Compiled;
use leno_model::{
    Namespace, Resource, ResourceKey as ModelKey, ResourceKind, WorkloadId, resource::parse_scope,
};
use leno_xds::{Catalog, EncodedResource, NodeInfo, ResourceKey};
use parking_lot::Mutex;

use crate::{authorize::CONTROL_PREFIX, peering::told, published::Published};

pub(crate) use change::change;

/// The scope that holds what other clusters are told.
pub(crate) const EXPORTS: &str = "exports";

/// Encoded resources by name. Cloning shares their bytes.
pub(crate) type Encoded = BTreeMap<ResourceKey, EncodedResource>;

/// One publication, ready to be handed out.
pub(crate) struct CompiledCatalog {
    published: Arc<Published>,
    encoded: Encoded,
    told: Encoded,
    visible: Mutex<BTreeMap<Arc<str>, Arc<[ResourceKey]>>>,
}

impl CompiledCatalog {
    pub(crate) fn new(published: Arc<Published>, encoded: Encoded, told: Encoded) -> Self {
        Self { published, encoded, told, visible: Mutex::default() }
    }

    /// The index entries that a namespace may see.
    fn visible(&self, namespace: &str) -> Arc<[ResourceKey]> {
        let mut visible = self.visible.lock();
        if let Some(found) = visible.get(namespace) {
            return found.clone();
        }
        let consumer = Namespace::new(namespace);
        let resources = self.published.compiled.resources.iter();
        let found: Arc<[ResourceKey]> = resources
            .filter(|(_, resource)| matches!(resource, Resource::Index(entry) if entry.exposure.includes(&consumer)))
            .map(|(key, _)| wire_key(key))
            .collect();
        visible.insert(namespace.into(), found.clone());
        found
    }
}

impl Catalog for CompiledCatalog {
    fn closure(&self, node: &NodeInfo, scope: &str) -> Option<Vec<ResourceKey>> {
        if is_control(node) {
            return (scope == EXPORTS).then(|| self.told.keys().cloned().collect());
        }
        let (consumer, service) = parse_scope(scope)?;
        let workload: WorkloadId = node.workload.parse().ok()?;
        if consumer != workload.namespace {
            return None;
        }
        let keys = self.published.compiled.closure(&consumer, &service)?;
        Some(keys.iter().map(wire_key).collect())
    }

    fn resource(&self, key: &ResourceKey) -> Option<&EncodedResource> {
        self.encoded.get(key).or_else(|| self.told.get(key))
    }

    fn always(&self, node: &NodeInfo) -> Vec<ResourceKey> {
        if is_control(node) {
            return Vec::new();
        }
        let Ok(workload) = node.workload.parse::<WorkloadId>() else { return Vec::new() };
        let own = self.published.compiled.own(&workload).unwrap_or_default();
        let mut keys = self.visible(workload.namespace.as_str()).to_vec();
        keys.extend(own.iter().map(wire_key));
        keys
    }
}

/// Encodes a resource that is new or has changed.
pub(crate) fn encode(key: &ModelKey, resource: &Resource, encoded: &mut Encoded) {
    let wire = wire_key(key);
    match leno_wire::encode(resource) {
        Ok(payload) => {
            let features: Vec<Arc<str>> =
                leno_wire::required_features(resource).iter().map(|&feature| feature.into()).collect();
            encoded.insert(wire.clone(), EncodedResource::new(wire, payload, features));
        }
        // What was there stays, as for every other thing that cannot be read.
        Err(error) => tracing::error!(%key, error = &error as &dyn std::error::Error, "not published"),
    }
}

/// Everything of a compilation, encoded.
pub(crate) fn encode_all(compiled: &Compiled) -> Encoded {
    let mut encoded = Encoded::new();
    for (key, resource) in &compiled.resources {
        encode(key, resource, &mut encoded);
    }
    encoded
}

/// A resource's name on the wire.
pub(crate) fn wire_key(key: &ModelKey) -> ResourceKey {
    ResourceKey::new(key.kind as u32, key.name.clone())
}

/// A resource's name from the wire; `None` for what other clusters are told.
pub(crate) fn model_key(key: &ResourceKey) -> Option<ModelKey> {
    (key.kind != told::KIND).then_some(())?;
    Some(ModelKey { kind: ResourceKind::from_number(key.kind)?, name: key.name.clone() })
}

fn is_control(node: &NodeInfo) -> bool {
    node.workload.starts_with(CONTROL_PREFIX)
}
