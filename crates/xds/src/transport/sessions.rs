//! How far every connected client is: what rollout status and `leno wait` read.
//!
//! Invariant: an entry lives exactly as long as its stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::server::SessionStatus;

#[derive(Default)]
struct Table {
    next: u64,
    entries: BTreeMap<u64, Arc<SessionStatus>>,
}

/// How far every connected client is. Clones are the same table.
#[derive(Clone)]
pub struct Sessions {
    table: Arc<Mutex<Table>>,
    changes: Arc<watch::Sender<u64>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { table: Arc::default(), changes: Arc::new(watch::Sender::new(0)) }
    }
}

impl Sessions {
    /// Every connected client, in the order of connecting.
    pub fn all(&self) -> Vec<Arc<SessionStatus>> {
        self.table.lock().entries.values().cloned().collect()
    }

    /// Resolves whenever an entry came, changed or went.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn enter(&self, status: SessionStatus) -> Entry {
        let mut table = self.table.lock();
        let id = table.next;
        table.next += 1;
        table.entries.insert(id, Arc::new(status));
        drop(table);
        self.tick();
        Entry { sessions: self.clone(), id }
    }

    fn tick(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }
}

/// A client's place in the table; dropping it takes it out.
pub(super) struct Entry {
    sessions: Sessions,
    id: u64,
}

impl Entry {
    pub(super) fn update(&self, status: SessionStatus) {
        self.sessions.table.lock().entries.insert(self.id, Arc::new(status));
        self.sessions.tick();
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.sessions.table.lock().entries.remove(&self.id);
        self.sessions.tick();
    }
}
