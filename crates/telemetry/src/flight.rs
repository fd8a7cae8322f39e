//! The denial flight recorder: the last refusals with their reasons, so that `leno why ID` can tell.
//!
//! Invariant: bounded; the oldest makes room. Texts that a peer chose are cut.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use leno_model::Origin;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Longest method or path kept, in bytes.
const LONGEST_TEXT: usize = 1_024;

/// Why one request or connection was refused.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DenialRecord {
    /// The id the client was told.
    pub id: Box<str>,
    /// When, in milliseconds since 1970.
    pub at_millis: u64,
    /// The policy's id (`NAMESPACE/NAME`); when no policy allowed it, the one that came nearest; `None` when there is none.
    pub policy: Option<Arc<str>>,
    /// The rule's number in the policy.
    pub rule: Option<u32>,
    /// The condition that decided, such as `from[0].principals`.
    pub field: Option<Arc<str>>,
    /// The user's object with its file and line.
    pub origin: Option<Origin>,
    /// Who asked: a SPIFFE id, or the address.
    pub peer: Box<str>,
    /// The method; empty for TCP.
    pub method: Box<str>,
    /// The path; empty for TCP.
    pub path: Box<str>,
    /// The service or port that was asked.
    pub target: Box<str>,
    /// One sentence for people.
    pub reason: Box<str>,
}

impl DenialRecord {
    /// Sets when it happened.
    #[must_use]
    pub fn at(mut self, time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.at_millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self
    }
}

/// The last refusals of one proxy.
#[derive(Debug)]
pub struct FlightRecorder {
    capacity: usize,
    ring: Mutex<VecDeque<Arc<DenialRecord>>>,
}

impl FlightRecorder {
    /// A recorder of the last `capacity` refusals.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, ring: Mutex::default() }
    }

    /// Keeps a refusal.
    pub fn record(&self, mut denial: DenialRecord) {
        if self.capacity == 0 {
            return;
        }
        cut(&mut denial.method);
        cut(&mut denial.path);
        let mut ring = self.ring.lock();
        if ring.len() >= self.capacity {
            ring.pop_front();
        }
        ring.push_back(Arc::new(denial));
    }

    /// The refusal with this id, if it is still kept.
    pub fn find(&self, id: &str) -> Option<Arc<DenialRecord>> {
        self.ring.lock().iter().rev().find(|denial| &*denial.id == id).cloned()
    }

    /// The last `count` refusals, newest first.
    pub fn latest(&self, count: usize) -> Vec<Arc<DenialRecord>> {
        self.ring.lock().iter().rev().take(count).cloned().collect()
    }
}

fn cut(text: &mut Box<str>) {
    if text.len() > LONGEST_TEXT {
        *text = text[..text.floor_char_boundary(LONGEST_TEXT)].into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(id: &str) -> DenialRecord {
        DenialRecord { id: id.into(), path: "/\u{e9}".repeat(2_000).into(), ..DenialRecord::default() }
    }

    #[test]
    fn the_oldest_refusal_makes_room() {
        let recorder = FlightRecorder::new(2);
        ["a", "b", "c"].into_iter().for_each(|id| recorder.record(denial(id)));
        assert!(recorder.find("a").is_none());
        assert_eq!(&*recorder.find("b").unwrap().id, "b");
        let ids: Vec<_> = recorder.latest(9).iter().map(|denial| denial.id.clone()).collect();
        assert_eq!(ids, ["c".into(), "b".into()]);
    }

    #[test]
    fn a_long_path_is_cut_between_characters() {
        let recorder = FlightRecorder::new(1);
        recorder.record(denial("a"));
        let kept = recorder.find("a").unwrap().path.len();
        assert!((LONGEST_TEXT - 3..=LONGEST_TEXT).contains(&kept), "{kept}");
    }

    #[test]
    fn a_refusal_survives_json() {
        let wanted = DenialRecord { origin: Some(Origin::built_in("strict")), ..denial("a") }.at(UNIX_EPOCH);
        let text = serde_json::to_string(&wanted).unwrap();
        assert_eq!(serde_json::from_str::<DenialRecord>(&text).unwrap(), wanted);
    }
}
