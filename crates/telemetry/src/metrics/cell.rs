//! A counter that one thread writes and any thread reads.
//!
//! Invariant: only the owner of the shard calls [`Cell::add`]; so a load and a store are enough, and no cache line is
//! locked.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter with one writer.
#[derive(Default, Debug)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    /// Adds; by the one writer.
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// The value; by anyone.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
