//! Gathers the messages of one generation until it is complete.
//!
//! Invariants: what comes out is a whole generation in which every name occurs once; a generation with a defect is
//! read to its end, holds no memory, and becomes a refusal.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::limits::Limits;
use crate::proto::discovery as pb;
use crate::resource::{EncodedResource, ResourceKey, Version};

use super::{Landed, Violation};

/// A complete, sound generation.
pub(super) struct Staged {
    pub(super) landed: Landed,
    pub(super) sequence: u64,
}

#[derive(Default)]
pub(super) struct Staging {
    last: u64,
    open: Option<Open>,
}

#[derive(Default)]
struct Open {
    generation: u64,
    names: BTreeSet<ResourceKey>,
    resources: Vec<EncodedResource>,
    removed: Vec<ResourceKey>,
    withheld: Vec<(ResourceKey, Vec<Arc<str>>)>,
    answered: Vec<Arc<str>>,
    not_found: Vec<Arc<str>>,
    bytes: usize,
    defect: Option<Defect>,
}

/// Why a generation cannot be taken.
#[derive(Debug, thiserror::Error)]
enum Defect {
    #[error("a resource has an empty or overlong name")]
    BadName,
    #[error("a scope has an empty or overlong name")]
    BadScope,
    #[error("resource {0} has no version")]
    NoVersion(ResourceKey),
    #[error("resource {0} occurs twice")]
    Twice(ResourceKey),
    #[error("the generation has more than {0} bytes or too many names")]
    TooLarge(usize),
}

impl Staging {
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Adds a message; with the last one the generation comes out, or the ack that refuses it.
    pub(super) fn add(
        &mut self,
        delta: pb::Delta,
        limits: &Limits,
    ) -> Result<Option<Result<Staged, pb::Ack>>, Violation> {
        let expected = self.open.as_ref().map_or(self.last + 1, |open| open.generation);
        let generation = delta.generation;
        if generation != expected {
            return Err(Violation::Generation { expected, found: generation });
        }
        let (complete, publication, sequence) =
            (delta.complete, delta.publication, delta.subscription_sequence);
        let open = self.open.get_or_insert_with(|| Open { generation, ..Open::default() });
        if open.defect.is_none()
            && let Err(defect) = open.add(delta, limits)
        {
            *open = Open { generation, defect: Some(defect), ..Open::default() };
        }
        if !complete {
            return Ok(None);
        }
        self.last = generation;
        let Some(open) = self.open.take() else { return Ok(None) };
        let Open { resources, removed, withheld, answered, not_found, defect, .. } = open;
        if let Some(defect) = defect {
            return Ok(Some(Err(pb::Ack { generation, rejected: Vec::new(), error: defect.to_string() })));
        }
        let landed = Landed { generation, publication, resources, removed, withheld, answered, not_found };
        Ok(Some(Ok(Staged { landed, sequence })))
    }
}

impl Open {
    fn add(&mut self, delta: pb::Delta, limits: &Limits) -> Result<(), Defect> {
        for resource in delta.resources {
            let pb::Resource { key, version, payload, features_needed } = resource;
            let key = self.name(key, limits)?;
            self.grow(payload.len(), limits)?;
            if version == Version::UNKNOWN.0 {
                return Err(Defect::NoVersion(key));
            }
            let features_needed = features_needed.into_iter().map(Into::into).collect();
            self.resources.push(EncodedResource { key, version: Version(version), payload, features_needed });
        }
        for key in delta.removed {
            let key = self.name(Some(key), limits)?;
            self.removed.push(key);
        }
        for pb::Withheld { key, features_missing } in delta.withheld {
            let key = self.name(key, limits)?;
            self.withheld.push((key, features_missing.into_iter().map(Into::into).collect()));
        }
        let answered = self.scopes(delta.answered_scopes, limits)?;
        self.answered.extend(answered);
        let not_found = self.scopes(delta.not_found_scopes, limits)?;
        self.not_found.extend(not_found);
        Ok(())
    }

    fn name(&mut self, key: Option<pb::Key>, limits: &Limits) -> Result<ResourceKey, Defect> {
        let key = ResourceKey::from_proto(key, limits.name_bytes).ok_or(Defect::BadName)?;
        self.grow(key.name.len(), limits)?;
        // Removals may name what the client never held, so twice the resources it may hold.
        if self.names.len() >= limits.resources.saturating_mul(2) {
            return Err(Defect::TooLarge(limits.generation_bytes));
        }
        if self.names.insert(key.clone()) { Ok(key) } else { Err(Defect::Twice(key)) }
    }

    fn scopes(&mut self, scopes: Vec<String>, limits: &Limits) -> Result<Vec<Arc<str>>, Defect> {
        for scope in &scopes {
            if scope.is_empty() || scope.len() > limits.name_bytes {
                return Err(Defect::BadScope);
            }
            self.grow(scope.len(), limits)?;
        }
        Ok(scopes.into_iter().map(Into::into).collect())
    }

    fn grow(&mut self, bytes: usize, limits: &Limits) -> Result<(), Defect> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > limits.generation_bytes {
            return Err(Defect::TooLarge(limits.generation_bytes));
        }
        Ok(())
    }
}
