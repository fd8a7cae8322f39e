//! What a publisher offers to sessions, and how it tells them what changed.
//!
//! Invariant: a catalog is immutable: a new publication is a new catalog together with the `Change` from the one
//! before. A session asks only about what a change touches, so a change costs (its size) x (sessions it touches).
//! Must not know: how scopes are spelled or compiled.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::resource::{EncodedResource, NodeInfo, ResourceKey};

/// One publication: everything that may be handed out, and who may have it.
///
/// A publisher has no catalog to give before its sources have been read once: an empty catalog says that nothing
/// exists, and clients will drop what they hold.
pub trait Catalog: Send + Sync {
    /// What a client needs for `scope`; `None`: there is no such scope, or not for this client.
    fn closure(&self, node: &NodeInfo, scope: &str) -> Option<Vec<ResourceKey>>;

    /// A resource, encoded once: what is returned is cloned, which shares its bytes.
    fn resource(&self, key: &ResourceKey) -> Option<&EncodedResource>;

    /// What this client has without asking: the index, and its own inbound configuration.
    fn always(&self, node: &NodeInfo) -> Vec<ResourceKey>;
}

/// What differs from the publication before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Resources that are new, different or gone.
    pub resources: BTreeSet<ResourceKey>,
    /// Scopes whose closure is another set of keys, or that began or ceased to exist. A scope with a member in
    /// `resources` is looked at anyway, and so is one that was not found.
    pub scopes: BTreeSet<Arc<str>>,
    /// Whose `always` set is another set of keys. One with a member in `resources` is looked at anyway.
    pub always: Affected,
    /// Forget the above: everything may be different.
    pub everything: bool,
}

/// Clients that a change of `always` concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Affected {
    /// No client.
    #[default]
    Nobody,
    /// Clients of these workloads ("namespace/name").
    Workloads(BTreeSet<Arc<str>>),
    /// Every client.
    Everybody,
}

impl Change {
    /// The change from nothing, or from something unknown.
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// A change of these resources only; every closure keeps its keys.
    pub fn of_resources(resources: impl IntoIterator<Item = ResourceKey>) -> Self {
        Self { resources: resources.into_iter().collect(), ..Self::default() }
    }
}

impl Affected {
    pub(crate) fn includes(&self, node: &NodeInfo) -> bool {
        match self {
            Self::Nobody => false,
            Self::Workloads(workloads) => workloads.contains(&node.workload),
            Self::Everybody => true,
        }
    }
}
