//! One stream seen from the publisher: what the client wants, what it has, and so what to send next.
//!
//! A session is told about publications and requests in any order and at any pace; it only notes what they touch.
//! The next generation is computed when the one before is answered, against the newest catalog: a slow client
//! gets fewer and larger steps, never a queue. There is no debounce and no clock; the transport ends a stream whose
//! client does not answer in time, and the client resumes by version.
//!
//! Invariants: nothing is sent before the client's resume is complete and there is a catalog; at most one generation
//! is in flight; after the client has acknowledged everything, it has exactly what the catalog says it should have.
//! Must not know: who may connect (the transport asks an `Authorizer` before it feeds a session).

mod chunk;
mod interest;
mod pending;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::catalog::{Catalog, Change};
use crate::limits::Limits;
use crate::proto::discovery::{self as pb, request::Message};
use crate::resource::{EncodedResource, NodeInfo, ResourceKey, Version};

use chunk::Step;
use interest::{Interest, Presence};
use pending::Pending;
pub use status::{Refused, RejectedResource, SessionStatus, WithheldResource};

/// The client broke the protocol; the stream must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The stream did not begin with a hello that names a node.
    #[error("the stream does not begin with a hello that names its node")]
    NoHello,
    /// A second hello, or more resume after it was complete.
    #[error("a hello or resume came after the resume was complete")]
    LateResume,
    /// Something else before the resume was complete.
    #[error("a subscription or ack came before the resume was complete")]
    EarlyRequest,
    /// A request without content.
    #[error("a request has no content that this version knows")]
    EmptyRequest,
    /// A name is missing, empty or too long.
    #[error("a resource or scope has an empty or overlong name")]
    BadName,
    /// More scopes than a stream may have.
    #[error("more than {0} scopes")]
    TooManyScopes(usize),
    /// More resources in the resume than a client may hold.
    #[error("more than {0} resources held")]
    TooManyResources(usize),
    /// Subscriptions must count up.
    #[error("subscription {found} follows {last}")]
    Sequence {
        /// The last one before.
        last: u64,
        /// What came.
        found: u64,
    },
    /// An ack of something that is not in flight.
    #[error("generation {0} is answered but not in flight")]
    StrayAck(u64),
}

/// What the client has under a name, as far as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Sent(Version),
    Withheld(Version),
}

/// A generation that was not answered yet, and how to forget that it was sent.
struct InFlight {
    generation: u64,
    publication: u64,
    before: Vec<(ResourceKey, Option<Held>)>,
    answers: Vec<Arc<str>>,
}

struct Published {
    catalog: Arc<dyn Catalog>,
    number: u64,
}

/// One stream seen from the publisher.
pub struct ServerSession {
    limits: Limits,
    node: Arc<NodeInfo>,
    resumed: bool,
    published: Option<Published>,
    interest: Interest,
    has: BTreeMap<ResourceKey, Held>,
    pending: Pending,
    in_flight: Option<InFlight>,
    // Invariant: all of it belongs to `in_flight`.
    outbox: VecDeque<pb::Delta>,
    generation: u64,
    sequence: u64,
    acked: Option<u64>,
    rejected: BTreeMap<ResourceKey, (Version, Arc<str>)>,
    withheld: BTreeMap<ResourceKey, Arc<[Arc<str>]>>,
    refused: Option<Refused>,
    status_changed: bool,
}

impl ServerSession {
    /// Begins with the first message of a stream, which must be a hello.
    pub fn open(limits: Limits, first: pb::Request) -> Result<Self, Violation> {
        let Some(Message::Hello(pb::Hello { node: Some(node), resume })) = first.message else {
            return Err(Violation::NoHello);
        };
        if node.id.is_empty() {
            return Err(Violation::NoHello);
        }
        let mut session = Self {
            limits,
            node: Arc::new(NodeInfo::from_proto(node)),
            resumed: false,
            published: None,
            interest: Interest::default(),
            has: BTreeMap::new(),
            pending: Pending::default(),
            in_flight: None,
            outbox: VecDeque::new(),
            generation: 0,
            sequence: 0,
            acked: None,
            rejected: BTreeMap::new(),
            withheld: BTreeMap::new(),
            refused: None,
            status_changed: true,
        };
        session.resume(resume.unwrap_or_default())?;
        Ok(session)
    }

    /// Who the client says it is.
    pub fn node(&self) -> &Arc<NodeInfo> {
        &self.node
    }

    /// Takes a request.
    pub fn receive(&mut self, request: pb::Request) -> Result<(), Violation> {
        match request.message {
            Some(Message::Hello(_)) => Err(Violation::LateResume),
            Some(Message::Resume(_)) if self.resumed => Err(Violation::LateResume),
            Some(Message::Resume(resume)) => self.resume(resume),
            Some(Message::Subscription(_) | Message::Ack(_)) if !self.resumed => Err(Violation::EarlyRequest),
            Some(Message::Subscription(subscription)) => self.subscription(subscription),
            Some(Message::Ack(ack)) => self.ack(ack),
            None => Err(Violation::EmptyRequest),
        }
    }

    /// Takes a publication; `change` is what it changed since the last one this session was given.
    pub fn publish(&mut self, catalog: Arc<dyn Catalog>, number: u64, change: &Change) {
        if self.published.is_none() {
            self.pending.everything();
        } else {
            self.pending.absorb(change, &self.interest, &self.node);
        }
        self.published = Some(Published { catalog, number });
        self.status_changed = true;
    }

    /// The next message to send, if there is one.
    pub fn next_message(&mut self) -> Option<pb::Delta> {
        if self.in_flight.is_none() && self.resumed && self.published.is_some() {
            self.compute();
        }
        self.outbox.pop_front()
    }

    /// The client owes an answer: the rest of its resume, or the ack of this generation.
    pub fn awaits(&self) -> Option<u64> {
        if !self.resumed {
            return Some(0);
        }
        self.in_flight.as_ref().map(|in_flight| in_flight.generation)
    }

    /// The status, if it is another than when this was last called.
    pub fn changed_status(&mut self) -> Option<SessionStatus> {
        std::mem::take(&mut self.status_changed).then(|| self.status())
    }

    /// How far the client is.
    pub fn status(&self) -> SessionStatus {
        SessionStatus {
            node: self.node.clone(),
            publication: self.published.as_ref().map(|published| published.number),
            acked_publication: self.acked,
            in_flight: self.in_flight.as_ref().map(|in_flight| in_flight.generation),
            scopes: self.interest.scopes(),
            resources: self.has.len(),
            rejected: self.rejected.iter().map(RejectedResource::from_entry).collect(),
            withheld: self.withheld.iter().map(WithheldResource::from_entry).collect(),
            refused: self.refused.clone(),
        }
    }

    fn resume(&mut self, resume: pb::Resume) -> Result<(), Violation> {
        let pb::Resume { have, scopes, complete } = resume;
        for pb::Have { key, version } in have {
            let key = ResourceKey::from_proto(key, self.limits.name_bytes).ok_or(Violation::BadName)?;
            self.has.insert(key, Held::Sent(Version(version)));
            if self.has.len() > self.limits.resources {
                return Err(Violation::TooManyResources(self.limits.resources));
            }
        }
        for scope in scopes {
            self.subscribe(scope)?;
        }
        self.resumed = complete;
        self.pending.everything();
        Ok(())
    }

    fn subscription(&mut self, subscription: pb::Subscription) -> Result<(), Violation> {
        let pb::Subscription { subscribe, unsubscribe, sequence } = subscription;
        if sequence <= self.sequence {
            return Err(Violation::Sequence { last: self.sequence, found: sequence });
        }
        self.sequence = sequence;
        for scope in unsubscribe {
            let unused = self.interest.unsubscribe(&scope);
            self.pending.drop_scope(&scope, unused);
        }
        for scope in subscribe {
            self.subscribe(scope)?;
        }
        self.status_changed = true;
        Ok(())
    }

    fn subscribe(&mut self, scope: String) -> Result<(), Violation> {
        if scope.is_empty() || scope.len() > self.limits.name_bytes {
            return Err(Violation::BadName);
        }
        let scope: Arc<str> = scope.into();
        self.interest.subscribe(scope.clone());
        if self.interest.scopes() > self.limits.scopes {
            return Err(Violation::TooManyScopes(self.limits.scopes));
        }
        self.pending.add_scope(scope);
        Ok(())
    }

    fn ack(&mut self, ack: pb::Ack) -> Result<(), Violation> {
        let pb::Ack { generation, rejected, error } = ack;
        // What is still in the outbox cannot have been answered.
        let answered = self.in_flight.take_if(|it| it.generation == generation && self.outbox.is_empty());
        let Some(InFlight { publication, before, answers, .. }) = answered else {
            return Err(Violation::StrayAck(generation));
        };
        self.status_changed = true;
        if error.is_empty() {
            self.accepted(before, rejected);
            self.acked = Some(publication);
            self.refused = None;
        } else {
            self.pending.retry(before.iter().map(|(key, _)| key.clone()), answers);
            for (key, held) in before {
                self.withheld.remove(&key);
                match held {
                    Some(held) => self.has.insert(key, held),
                    None => self.has.remove(&key),
                };
            }
            self.refused = Some(Refused { generation, publication, error: error.into() });
        }
        Ok(())
    }

    fn accepted(&mut self, before: Vec<(ResourceKey, Option<Held>)>, rejected: Vec<pb::Rejection>) {
        let mut offered: BTreeSet<ResourceKey> = before.into_iter().map(|(key, _)| key).collect();
        for pb::Rejection { key, reason } in rejected {
            // Only what was offered can be rejected; that bounds the list.
            let Some(key) = ResourceKey::from_proto(key, self.limits.name_bytes) else { continue };
            if let (true, Some(Held::Sent(version))) = (offered.remove(&key), self.has.get(&key)) {
                self.rejected.insert(key, (*version, reason.into()));
            }
        }
        for key in offered {
            self.rejected.remove(&key);
        }
    }

    fn compute(&mut self) {
        let Some(Published { catalog, number }) = &self.published else { return };
        let (catalog, number) = (catalog.clone(), *number);
        let Some(work) = self.pending.take_due() else { return };
        let mut dirty = work.keys;
        let mut step = Step::default();
        if work.always || work.everything {
            dirty.extend(self.interest.set_always(catalog.always(&self.node)));
        }
        let scopes = if work.everything { self.interest.scope_names() } else { work.scopes };
        for scope in scopes {
            let closure = catalog.closure(&self.node, &scope);
            let Some((presence, touched)) = self.interest.resolve(&scope, closure) else { continue };
            dirty.extend(touched);
            match presence {
                Presence::Same if !work.answers.contains(&scope) => {}
                _ if self.interest.is_found(&scope) => step.answered.push(scope),
                _ => step.not_found.push(scope),
            }
        }
        if work.everything {
            dirty.extend(self.has.keys().cloned());
            dirty.extend(self.interest.keys().cloned());
        }
        let mut before = Vec::new();
        for key in dirty {
            self.settle(key, catalog.as_ref(), &mut step, &mut before);
        }
        self.status_changed = true;
        if step.is_empty() {
            self.acked = Some(number);
            return;
        }
        self.generation += 1;
        let answers = step.answered.iter().chain(&step.not_found).cloned().collect();
        self.in_flight = Some(InFlight { generation: self.generation, publication: number, before, answers });
        let header = pb::Delta {
            generation: self.generation,
            subscription_sequence: self.sequence,
            publication: number,
            ..pb::Delta::default()
        };
        self.outbox = step.into_messages(&header, self.limits.chunk_bytes);
    }

    /// Adds to `step` what makes the client right about `key`.
    fn settle(
        &mut self,
        key: ResourceKey,
        catalog: &dyn Catalog,
        step: &mut Step,
        before: &mut Vec<(ResourceKey, Option<Held>)>,
    ) {
        let held = self.has.get(&key).copied();
        // A closure that names a resource the catalog lacks is treated as if it did not.
        let resource = self.interest.contains(&key).then(|| catalog.resource(&key)).flatten();
        let Some(resource) = resource else {
            if held.is_some() {
                self.has.remove(&key);
                self.withheld.remove(&key);
                step.removed.push(key.clone());
                before.push((key, held));
            }
            return;
        };
        let unfit = self.unfit(resource);
        let next = match &unfit {
            None => Held::Sent(resource.version),
            Some(_) => Held::Withheld(resource.version),
        };
        if held == Some(next) {
            return;
        }
        self.has.insert(key.clone(), next);
        match unfit {
            None => {
                self.withheld.remove(&key);
                step.resources.push(resource.clone());
            }
            Some(missing) => {
                self.withheld.insert(key.clone(), missing.clone());
                step.withheld.push((key.clone(), missing));
            }
        }
        before.push((key, held));
    }

    /// Why this client cannot have the resource: features it lacks, or none of them when it is too large.
    fn unfit(&self, resource: &EncodedResource) -> Option<Arc<[Arc<str>]>> {
        let missing = self.node.missing(&resource.features_needed);
        let too_large = resource.payload.len() > self.limits.payload_bytes();
        (!missing.is_empty() || too_large).then(|| missing.into())
    }
}
