//! The newest catalog and the last few changes, for every session to pick up at its own pace.
//!
//! Invariant: publishing never waits for a session. A session that missed more changes than are kept looks at
//! everything once.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use crate::catalog::{Catalog, Change};
use crate::server::ServerSession;

/// How many changes are kept.
const RECENT: usize = 64;

#[derive(Clone)]
pub(super) struct Publication {
    catalog: Arc<dyn Catalog>,
    number: u64,
    // Invariant: the last one led to `number`, the one before to `number - 1`, and so on.
    recent: VecDeque<Arc<Change>>,
}

impl Publication {
    /// Brings a session that has seen publication `seen` up to this one; which it has seen then.
    pub(super) fn bring(&self, session: &mut ServerSession, seen: Option<u64>) -> u64 {
        let missed = seen.map(|seen| self.number.saturating_sub(seen));
        match missed.and_then(|missed| usize::try_from(missed).ok()) {
            Some(missed) if missed <= self.recent.len() => {
                for change in self.recent.iter().skip(self.recent.len() - missed) {
                    session.publish(self.catalog.clone(), self.number, change);
                }
            }
            _ => session.publish(self.catalog.clone(), self.number, &Change::everything()),
        }
        self.number
    }
}

/// Where publications come from. Clones publish to the same sessions; one writer is assumed.
#[derive(Clone)]
pub struct Publisher {
    newest: Arc<watch::Sender<Option<Publication>>>,
}

impl Default for Publisher {
    fn default() -> Self {
        Self { newest: Arc::new(watch::Sender::new(None)) }
    }
}

impl Publisher {
    /// Publishes; the number of this publication. Until the first one, clients are kept waiting with what they have.
    pub fn publish(&self, catalog: Arc<dyn Catalog>, change: Change) -> u64 {
        let mut published = 0;
        self.newest.send_modify(|newest| {
            let (number, mut recent) = match newest.take() {
                Some(Publication { number, recent, .. }) => (number + 1, recent),
                None => (1, VecDeque::new()),
            };
            if recent.len() == RECENT {
                recent.pop_front();
            }
            recent.push_back(Arc::new(change));
            published = number;
            *newest = Some(Publication { catalog, number, recent });
        });
        published
    }

    /// The number of the newest publication.
    pub fn newest(&self) -> Option<u64> {
        self.newest.borrow().as_ref().map(|publication| publication.number)
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<Publication>> {
        self.newest.subscribe()
    }
}
