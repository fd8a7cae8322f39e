//! Ids of refusals, for `leno why ID` (PAINS P8).
//!
//! Invariant: an id tells, to those who know the mesh, which proxy refused, and to others nothing.

use std::{
    hash::{Hash as _, Hasher as _},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use leno_model::WorkloadId;

/// Header of a refused response: the denial's id.
pub(crate) const DENIAL_HEADER: &str = "x-leno-denial";

/// Makes the ids of one proxy's denials.
pub(crate) struct DenialIds {
    prefix: u32,
    next: AtomicU32,
}

impl DenialIds {
    /// Of a workload's proxy. Its name is in the ids, hashed, so that `leno why` knows whom to ask.
    pub(crate) fn new(workload: &WorkloadId) -> Self {
        Self { prefix: id_prefix(workload), next: AtomicU32::new(1) }
    }

    /// The next id.
    pub(crate) fn next(&self) -> String {
        format!("{:08x}-{:x}", self.prefix, self.next.fetch_add(1, Relaxed))
    }
}

/// The first part of the ids of a workload's denials.
pub fn id_prefix(workload: &WorkloadId) -> u32 {
    let mut hasher = std::hash::DefaultHasher::new();
    workload.hash(&mut hasher);
    (hasher.finish() >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_proxy_share_their_first_part_and_differ() {
        let workload = WorkloadId::new("default", "a");
        let ids = DenialIds::new(&workload);
        let (one, two) = (ids.next(), ids.next());
        assert_ne!(one, two);
        assert!(one.starts_with(&format!("{:08x}-", id_prefix(&workload))));
    }
}
