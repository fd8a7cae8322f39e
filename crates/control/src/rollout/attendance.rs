//! Whether all proxies have a publication: those that are connected, and those that have just gone without it.
//!
//! A proxy that does not answer loses its stream and comes back; in between nothing may be said to have reached all.
//!
//! Invariant: who goes while it is behind counts as behind for [`GRACE`], unless its workload goes too.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use leno_xds::transport::Sessions;
use tokio::time::Instant;

use super::is_proxy;
use crate::published::Published;

/// How long who went is waited for.
const GRACE: Duration = Duration::from_secs(15);

/// Who was there when it was last looked.
#[derive(Default)]
pub(crate) struct Attendance {
    seen: BTreeMap<Arc<str>, Seen>,
}

/// One proxy.
#[derive(Clone, Debug)]
struct Seen {
    workload: Arc<str>,
    acknowledged: u64,
    when: Instant,
}

/// How far proxies are, all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// How many are connected.
    pub(crate) connected: usize,
    /// The newest generation that every one has acknowledged; `None` without any.
    all: Option<u64>,
}

impl Reach {
    /// Whether every one has acknowledged a generation. (Nobody is no obstacle.)
    pub(crate) fn has(&self, generation: u64) -> bool {
        self.all.is_none_or(|all| all >= generation)
    }
}

impl Attendance {
    /// Looks who is there.
    pub(crate) fn look(&mut self, sessions: &Sessions, published: &Published) -> Reach {
        let (all, now) = (sessions.all(), Instant::now());
        let present = all.iter().filter(|status| is_proxy(status)).map(|status| {
            let acknowledged = status.acked_publication.unwrap_or(0);
            let workload = status.node.workload.clone();
            (status.node.id.clone(), Seen { workload, acknowledged, when: now })
        });
        let is_known = |workload: &str| workload.parse().is_ok_and(|it| published.identity_of(&it).is_some());
        self.count(present, is_known, now)
    }

    fn count(
        &mut self,
        present: impl Iterator<Item = (Arc<str>, Seen)>,
        is_known: impl Fn(&str) -> bool,
        now: Instant,
    ) -> Reach {
        let mut before = std::mem::take(&mut self.seen);
        let mut connected = 0;
        for (id, proxy) in present {
            connected += 1;
            before.remove(&id);
            // Of two streams of one proxy the older counts: one of them is about to end.
            let known = self.seen.entry(id).or_insert_with(|| proxy.clone());
            known.acknowledged = known.acknowledged.min(proxy.acknowledged);
        }
        before.retain(|_, gone| now.saturating_duration_since(gone.when) < GRACE && is_known(&gone.workload));
        self.seen.append(&mut before);
        Reach { connected, all: self.seen.values().map(|proxy| proxy.acknowledged).min() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is there with which generation, some seconds after `begin`.
    fn look(attendance: &mut Attendance, begin: Instant, seconds: u64, present: &[(&str, u64)]) -> Reach {
        let now = begin + Duration::from_secs(seconds);
        let present = present.iter().map(|(id, acknowledged)| {
            ((*id).into(), Seen { workload: (*id).into(), acknowledged: *acknowledged, when: now })
        });
        attendance.count(present, |workload| workload != "deleted", now)
    }

    #[test]
    fn the_one_that_is_furthest_behind_counts_and_nobody_is_no_obstacle() {
        let (mut attendance, begin) = (Attendance::default(), Instant::now());
        let reach = look(&mut attendance, begin, 0, &[("a", 3), ("b", 5)]);
        assert_eq!((reach.connected, reach.has(3), reach.has(4)), (2, true, false));
        assert!(look(&mut Attendance::default(), begin, 0, &[]).has(7));
    }

    #[test]
    fn who_goes_while_it_is_behind_is_waited_for() {
        let (mut attendance, begin) = (Attendance::default(), Instant::now());
        look(&mut attendance, begin, 0, &[("a", 5), ("b", 3)]);
        let gone = look(&mut attendance, begin, 1, &[("a", 5)]);
        assert_eq!((gone.connected, gone.has(5)), (1, false));
        assert!(look(&mut attendance, begin, 2, &[("a", 5), ("b", 5)]).has(5), "it came back and has it");
        look(&mut attendance, begin, 3, &[("a", 6), ("b", 5)]);
        assert!(!look(&mut attendance, begin, 17, &[("a", 6)]).has(6));
        assert!(look(&mut attendance, begin, 18, &[("a", 6)]).has(6), "it does not come back");
    }

    #[test]
    fn who_goes_with_its_workload_is_not_waited_for() {
        let (mut attendance, begin) = (Attendance::default(), Instant::now());
        look(&mut attendance, begin, 0, &[("a", 5), ("deleted", 3)]);
        assert!(look(&mut attendance, begin, 1, &[("a", 5)]).has(5));
    }
}
