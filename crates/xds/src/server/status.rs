//! How far one client is, for rollout status, consoles and `leno wait`.
//!
//! Invariant: plain data; it holds no reference into a session.

use std::sync::Arc;

use crate::resource::{NodeInfo, ResourceKey, Version};

/// How far one client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// The client.
    pub node: Arc<NodeInfo>,
    /// The newest publication that its session was given.
    pub publication: Option<u64>,
    /// The newest publication whose effects on this client it has acknowledged (also when it had none).
    pub acked_publication: Option<u64>,
    /// The generation that waits for its answer.
    pub in_flight: Option<u64>,
    /// How many scopes it is subscribed to.
    pub scopes: usize,
    /// How many resources it was given.
    pub resources: usize,
    /// Resources that it could not use; it keeps what it held before under their names.
    pub rejected: Vec<RejectedResource>,
    /// Resources that were not given to it.
    pub withheld: Vec<WithheldResource>,
    /// Its last answer took nothing of a generation.
    pub refused: Option<Refused>,
}

/// A resource that a client could not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedResource {
    /// The resource.
    pub key: ResourceKey,
    /// The version it was offered.
    pub version: Version,
    /// Why, in the client's words.
    pub reason: Arc<str>,
}

/// A resource that was not given to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithheldResource {
    /// The resource.
    pub key: ResourceKey,
    /// What the client would have to know; empty when the resource is too large to be sent.
    pub features_missing: Arc<[Arc<str>]>,
}

/// A generation of which a client took nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The generation.
    pub generation: u64,
    /// The publication it stood for.
    pub publication: u64,
    /// Why, in the client's words.
    pub error: Arc<str>,
}

impl RejectedResource {
    pub(super) fn from_entry((key, (version, reason)): (&ResourceKey, &(Version, Arc<str>))) -> Self {
        Self { key: key.clone(), version: *version, reason: reason.clone() }
    }
}

impl WithheldResource {
    pub(super) fn from_entry((key, missing): (&ResourceKey, &Arc<[Arc<str>]>)) -> Self {
        Self { key: key.clone(), features_missing: missing.clone() }
    }
}
