//! The identities that a server may have, as a handle that outlives changes.
//!
//! Invariant: an empty set accepts nobody. A service's identities are those of all its endpoints' accounts.

use std::{collections::BTreeSet, sync::Arc};

use arc_swap::ArcSwap;
use leno_model::identity::SpiffeId;

use crate::verify::VerifyError;

/// A set of acceptable identities. Clones share it: a change is seen by the next handshake of every configuration built on it.
#[derive(Clone, Debug)]
pub struct ExpectedPeers(Arc<ArcSwap<BTreeSet<SpiffeId>>>);

impl ExpectedPeers {
    /// Exactly these.
    pub fn new(ids: impl IntoIterator<Item = SpiffeId>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(ids.into_iter().collect())))
    }

    /// From now on exactly these.
    pub fn set(&self, ids: impl IntoIterator<Item = SpiffeId>) {
        self.0.store(Arc::new(ids.into_iter().collect()));
    }

    /// The current set.
    pub fn current(&self) -> Arc<BTreeSet<SpiffeId>> {
        self.0.load_full()
    }

    /// Whether a peer is one of them. Pools ask this again before they reuse a connection.
    pub fn allows(&self, id: &SpiffeId) -> bool {
        self.0.load().contains(id)
    }

    /// As [`ExpectedPeers::allows`], with the cause.
    ///
    /// # Errors
    /// [`VerifyError::WrongIdentity`].
    pub fn check(&self, id: &SpiffeId) -> Result<(), VerifyError> {
        let expected = self.current();
        if expected.contains(id) {
            return Ok(());
        }
        Err(VerifyError::WrongIdentity { expected, got: id.clone() })
    }
}

impl FromIterator<SpiffeId> for ExpectedPeers {
    fn from_iter<T: IntoIterator<Item = SpiffeId>>(ids: T) -> Self {
        Self::new(ids)
    }
}
