//! Which resources a client should have, and because of which scopes.
//!
//! Invariant: `users` is exactly the inverse of `scopes` and `always`; a key without a user is not in it.
//! Must not know: what the client already has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::resource::ResourceKey;

/// Whether a scope began or ceased to exist with its last resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Same,
    Flipped,
}

enum Scope {
    Unresolved,
    Found(BTreeSet<ResourceKey>),
    NotFound,
}

impl Scope {
    fn keys(self) -> BTreeSet<ResourceKey> {
        match self {
            Self::Found(keys) => keys,
            Self::Unresolved | Self::NotFound => BTreeSet::new(),
        }
    }
}

#[derive(Default)]
pub(super) struct Users {
    pub(super) always: bool,
    pub(super) scopes: BTreeSet<Arc<str>>,
}

#[derive(Default)]
pub(super) struct Interest {
    scopes: BTreeMap<Arc<str>, Scope>,
    always: BTreeSet<ResourceKey>,
    users: BTreeMap<ResourceKey, Users>,
    absent: BTreeSet<Arc<str>>,
}

impl Interest {
    pub(super) fn scopes(&self) -> usize {
        self.scopes.len()
    }

    pub(super) fn scope_names(&self) -> BTreeSet<Arc<str>> {
        self.scopes.keys().cloned().collect()
    }

    pub(super) fn has_scope(&self, scope: &str) -> bool {
        self.scopes.contains_key(scope)
    }

    /// Scopes that did not exist when they were last looked at.
    pub(super) fn absent(&self) -> &BTreeSet<Arc<str>> {
        &self.absent
    }

    pub(super) fn is_found(&self, scope: &str) -> bool {
        matches!(self.scopes.get(scope), Some(Scope::Found(_)))
    }

    pub(super) fn contains(&self, key: &ResourceKey) -> bool {
        self.users.contains_key(key)
    }

    pub(super) fn users(&self, key: &ResourceKey) -> Option<&Users> {
        self.users.get(key)
    }

    pub(super) fn keys(&self) -> impl ExactSizeIterator<Item = &ResourceKey> {
        self.users.keys()
    }

    pub(super) fn subscribe(&mut self, scope: Arc<str>) {
        self.scopes.entry(scope).or_insert(Scope::Unresolved);
    }

    /// Keys that nothing uses any more.
    pub(super) fn unsubscribe(&mut self, scope: &str) -> Vec<ResourceKey> {
        self.absent.remove(scope);
        let Some((name, state)) = self.scopes.remove_entry(scope) else { return Vec::new() };
        let mut unused = Vec::new();
        for key in state.keys() {
            if self.release(&key, &name) {
                unused.push(key);
            }
        }
        unused
    }

    /// Takes what a scope consists of; keys that came or went. `None`: not subscribed to.
    pub(super) fn resolve(
        &mut self,
        scope: &Arc<str>,
        closure: Option<Vec<ResourceKey>>,
    ) -> Option<(Presence, Vec<ResourceKey>)> {
        let state = self.scopes.get_mut(scope)?;
        let was_found = matches!(state, Scope::Found(_));
        let was_unresolved = matches!(state, Scope::Unresolved);
        let next = match closure {
            Some(keys) => Scope::Found(keys.into_iter().collect()),
            None => Scope::NotFound,
        };
        let is_found = matches!(next, Scope::Found(_));
        let flipped = was_unresolved || was_found != is_found;
        let old = std::mem::replace(state, next).keys();
        let new = match &self.scopes[scope] {
            Scope::Found(keys) => keys.clone(),
            Scope::Unresolved | Scope::NotFound => BTreeSet::new(),
        };
        if is_found {
            self.absent.remove(scope);
        } else {
            self.absent.insert(scope.clone());
        }
        let touched: Vec<ResourceKey> = old.symmetric_difference(&new).cloned().collect();
        for key in &touched {
            if new.contains(key) {
                self.users.entry(key.clone()).or_default().scopes.insert(scope.clone());
            } else {
                self.release(key, scope);
            }
        }
        Some((if flipped { Presence::Flipped } else { Presence::Same }, touched))
    }

    /// Takes what the client has without asking; keys that came or went.
    pub(super) fn set_always(&mut self, keys: Vec<ResourceKey>) -> Vec<ResourceKey> {
        let new: BTreeSet<ResourceKey> = keys.into_iter().collect();
        let touched: Vec<ResourceKey> = self.always.symmetric_difference(&new).cloned().collect();
        for key in &touched {
            let users = self.users.entry(key.clone()).or_default();
            users.always = new.contains(key);
            if !users.always && users.scopes.is_empty() {
                self.users.remove(key);
            }
        }
        self.always = new;
        touched
    }

    /// Takes one scope's use back; whether nothing uses the key any more.
    fn release(&mut self, key: &ResourceKey, scope: &str) -> bool {
        let Some(users) = self.users.get_mut(key) else { return true };
        users.scopes.remove(scope);
        let unused = !users.always && users.scopes.is_empty();
        if unused {
            self.users.remove(key);
        }
        unused
    }
}
