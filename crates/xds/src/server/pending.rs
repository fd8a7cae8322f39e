//! What has to be looked at before the next generation: many changes fold into one.
//!
//! Invariant: bounded by the session's interest, never by the number of publications. Work that waits for a retry
//! (after a refusal) does not by itself start a generation, so a client that refuses is not sent the same in a loop.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::Change;
use crate::resource::{NodeInfo, ResourceKey};

use super::interest::Interest;

/// What has to be looked at.
#[derive(Default)]
pub(super) struct Work {
    pub(super) keys: BTreeSet<ResourceKey>,
    pub(super) scopes: BTreeSet<Arc<str>>,
    /// Scopes that must be answered even if nothing about them changed.
    pub(super) answers: BTreeSet<Arc<str>>,
    pub(super) always: bool,
    pub(super) everything: bool,
}

#[derive(Default)]
pub(super) struct Pending {
    work: Work,
    due: bool,
}

impl Pending {
    pub(super) fn everything(&mut self) {
        self.work.everything = true;
        self.due = true;
    }

    pub(super) fn add_scope(&mut self, scope: Arc<str>) {
        self.work.scopes.insert(scope.clone());
        self.work.answers.insert(scope);
        self.due = true;
    }

    pub(super) fn drop_scope(&mut self, scope: &str, unused: Vec<ResourceKey>) {
        self.work.scopes.remove(scope);
        self.work.answers.remove(scope);
        self.work.keys.extend(unused);
        self.due = true;
    }

    pub(super) fn retry(&mut self, keys: impl Iterator<Item = ResourceKey>, answers: Vec<Arc<str>>) {
        self.work.keys.extend(keys);
        self.work.scopes.extend(answers.iter().cloned());
        self.work.answers.extend(answers);
    }

    pub(super) fn absorb(&mut self, change: &Change, interest: &Interest, node: &NodeInfo) {
        self.due = true;
        if change.everything {
            self.work.everything = true;
            return;
        }
        self.work.always |= change.always.includes(node);
        self.work.scopes.extend(interest.absent().iter().cloned());
        self.work.scopes.extend(change.scopes.iter().filter(|scope| interest.has_scope(scope)).cloned());
        // Whichever side is smaller is walked.
        if change.resources.len() <= interest.keys().len() {
            for key in &change.resources {
                self.touch(key, interest);
            }
        } else {
            for key in interest.keys().filter(|key| change.resources.contains(key)) {
                self.touch(key, interest);
            }
        }
    }

    pub(super) fn take_due(&mut self) -> Option<Work> {
        std::mem::take(&mut self.due).then(|| std::mem::take(&mut self.work))
    }

    fn touch(&mut self, key: &ResourceKey, interest: &Interest) {
        let Some(users) = interest.users(key) else { return };
        self.work.always |= users.always;
        self.work.scopes.extend(users.scopes.iter().cloned());
        self.work.keys.insert(key.clone());
    }
}
