//! How far every connected client is: what rollout status and `leno wait` read; and what was sent to all of them.
//!
//! Invariant: an entry lives exactly as long as its stream; counts only grow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::watch;

use crate::proto::discovery as pb;
use crate::server::SessionStatus;

#[derive(Default)]
struct Table {
    next: u64,
    entries: BTreeMap<u64, Arc<SessionStatus>>,
}

/// What was sent to clients since the start: how much a reconnection of many of them costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Streams that were opened.
    pub streams: u64,
    /// Messages.
    pub messages: u64,
    /// Resources in them.
    pub resources: u64,
    /// Their bytes, before encryption.
    pub bytes: u64,
}

#[derive(Default)]
struct Counts {
    streams: AtomicU64,
    messages: AtomicU64,
    resources: AtomicU64,
    bytes: AtomicU64,
}

/// How far every connected client is. Clones are the same table.
#[derive(Clone)]
pub struct Sessions {
    table: Arc<Mutex<Table>>,
    changes: Arc<watch::Sender<u64>>,
    counts: Arc<Counts>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { table: Arc::default(), changes: Arc::new(watch::Sender::new(0)), counts: Arc::default() }
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

    /// What was sent to clients since the start.
    pub fn sent(&self) -> Sent {
        let Counts { streams, messages, resources, bytes } = &*self.counts;
        Sent {
            streams: streams.load(Relaxed),
            messages: messages.load(Relaxed),
            resources: resources.load(Relaxed),
            bytes: bytes.load(Relaxed),
        }
    }

    pub(super) fn enter(&self, status: SessionStatus) -> Entry {
        self.counts.streams.fetch_add(1, Relaxed);
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

    pub(super) fn sends(&self, delta: &pb::Delta) {
        let counts = &self.sessions.counts;
        counts.messages.fetch_add(1, Relaxed);
        counts.resources.fetch_add(delta.resources.len() as u64, Relaxed);
        counts.bytes.fetch_add(delta.encoded_len() as u64, Relaxed);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.sessions.table.lock().entries.remove(&self.id);
        self.sessions.tick();
    }
}
