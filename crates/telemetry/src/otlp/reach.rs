//! Says once that a collector takes no spans, and once that it takes them again.
//!
//! A process may have hundreds of proxies that all tell the same collector, each with batches of its own.
//! Invariant: of one collector, "away" and "there" are told in turns, whoever of the process notices.
//! Must not know: spans.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The collectors of this process, by their URL.
static COLLECTORS: Mutex<BTreeMap<Arc<str>, Collector>> = Mutex::new(BTreeMap::new());

/// What is known of one collector.
#[derive(Clone, Copy, Debug, Default)]
struct Collector {
    away: bool,
    /// When it last took something.
    took: Option<Instant>,
}

impl Collector {
    /// It took nothing of what was sent from `since` on. Whether that is news.
    fn failed(&mut self, since: Instant) -> bool {
        // Whoever has tried for long may not know that others have got through meanwhile.
        let outdated = self.took.is_some_and(|took| took > since);
        !outdated && !std::mem::replace(&mut self.away, true)
    }

    /// It took something. Whether that is news.
    fn took(&mut self, now: Instant) -> bool {
        self.took = Some(now);
        std::mem::take(&mut self.away)
    }
}

/// One exporter's view of its collector.
#[derive(Debug)]
pub(super) struct Reach {
    endpoint: Arc<str>,
}

impl Reach {
    pub(super) fn of(endpoint: &str) -> Self {
        Self { endpoint: endpoint.into() }
    }

    /// Spans that were first sent at `since` are given up.
    pub(super) fn failed(&self, since: Instant, why: &str) {
        let news = COLLECTORS.lock().entry(self.endpoint.clone()).or_default().failed(since);
        if news {
            tracing::warn!(collector = %self.endpoint, why, "spans cannot be delivered: they are dropped and counted until they can");
        }
    }

    /// Spans were taken.
    pub(super) fn took(&self) {
        let news = COLLECTORS.lock().entry(self.endpoint.clone()).or_default().took(Instant::now());
        if news {
            tracing::info!(collector = %self.endpoint, "spans are delivered again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn away_and_back_are_told_once_each() {
        let mut collector = Collector::default();
        let (first, second) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        assert!(!collector.took(first), "nobody wondered");
        assert!(collector.failed(second));
        assert!(!collector.failed(second), "the next batch, or another proxy's");
        assert!(collector.took(second + Duration::from_secs(1)));
        assert!(!collector.failed(second), "others got through after this began");
        assert!(!collector.took(second + Duration::from_secs(2)));
        assert!(collector.failed(second + Duration::from_secs(3)), "away again is news again");
    }
}
