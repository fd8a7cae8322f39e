//! What is in force: one world, its compilation, and where it came from. Readers load it once and see one generation.
//!
//! Invariant: a publication never changes; the store's task is the only one that replaces it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use leno_compile::{Compiled, World};
use leno_identity::UnixTime;
use leno_model::{Resource, ResourceKey, SpiffeId, WorkloadId};
use leno_sources::Reading;

/// One generation.
pub(crate) struct Published {
    /// Its number, the same as the publication's that proxies acknowledge.
    pub(crate) generation: u64,
    /// The objects.
    pub(crate) world: World,
    /// What they mean.
    pub(crate) compiled: Compiled,
    /// What the source said beside the objects.
    pub(crate) reading: Arc<Reading>,
    /// Since when it is in force.
    pub(crate) since: UnixTime,
}

/// Where the newest publication is.
#[derive(Clone, Default)]
pub(crate) struct Newest(Arc<ArcSwapOption<Published>>);

impl Newest {
    /// The newest publication; `None` before the first.
    pub(crate) fn load(&self) -> Option<Arc<Published>> {
        self.0.load_full()
    }

    pub(crate) fn store(&self, published: Arc<Published>) {
        self.0.store(Some(published));
    }
}

impl Published {
    /// The identity of a workload or gateway of this cluster.
    pub(crate) fn identity_of(&self, workload: &WorkloadId) -> Option<&SpiffeId> {
        let resources = &self.compiled.resources;
        if let Some(Resource::Workload(found)) = resources.get(&ResourceKey::workload(workload)) {
            return Some(&found.identity);
        }
        match resources.get(&ResourceKey::gateway(workload)) {
            Some(Resource::Gateway(found)) => Some(&found.identity),
            Some(_) | None => None,
        }
    }
}
