//! One subscriber: what it wants, what it holds, and the stream it has at the moment, if any.
//!
//! The caller feeds it (`subscribe`, `open_stream`, `receive`, `landed`, `disconnected`) and asks it for what to do
//! (`next_message`, `next_landing`). Messages are made when they can be sent, so whatever happened meanwhile folds
//! into one.
//!
//! Invariants: a batch is handed over only when its generation is complete and sound, and never two at a time;
//! what the client says it holds is what its consumer accepted; losing a stream loses nothing else.
//! Must not know: time and randomness (arguments), what payloads mean.

mod backoff;
mod staging;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::limits::Limits;
use crate::proto::discovery::{self as pb, request::Message};
use crate::resource::{EncodedResource, NodeInfo, ResourceKey, Version};

pub use backoff::Backoff;
use staging::{Staged, Staging};

/// One generation, complete: it is taken as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landed {
    /// Its number within the stream.
    pub generation: u64,
    /// The publication that it brings the client to.
    pub publication: u64,
    /// New and changed resources.
    pub resources: Vec<EncodedResource>,
    /// Resources to forget.
    pub removed: Vec<ResourceKey>,
    /// Resources whose current version must not be seen, with the features that are missing: what is held under
    /// their names is void; a policy among them denies what it selects.
    pub withheld: Vec<(ResourceKey, Vec<Arc<str>>)>,
    /// Scopes that are loaded with this batch.
    pub answered: Vec<Arc<str>>,
    /// Scopes that do not exist, or not for this client.
    pub not_found: Vec<Arc<str>>,
}

/// What the consumer did with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took all of it except these, under whose names it keeps what it had, with the reasons.
    Accepted(Vec<(ResourceKey, String)>),
    /// It took nothing, because of this.
    Refused(String),
}

/// What is known about a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeAnswer {
    /// Its resources have landed.
    Loaded,
    /// It does not exist, or not for this client.
    NotFound,
}

/// The server broke the protocol; the stream must be given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A message without an open stream.
    #[error("a message came without a stream")]
    NoStream,
    /// Generations must count up and not mix.
    #[error("generation {found} came where {expected} was due")]
    Generation {
        /// What was due.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// A generation came before the one before was answered.
    #[error("generation {0} came before the one before was answered")]
    Overrun(u64),
}

/// The client is subscribed to as many scopes as it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot subscribe to {scope_limit} more scopes or to an overlong name")]
pub struct SubscribeRefused {
    /// How many scopes a client may have.
    pub scope_limit: usize,
}

#[derive(Default)]
struct Wanted {
    /// The subscription on this stream that asked for it; `None`: not asked yet.
    asked: Option<u64>,
    answer: Option<ScopeAnswer>,
}

struct Stream {
    resume: VecDeque<pb::Request>,
    staging: Staging,
    ready: Option<Staged>,
    ack: Option<pb::Ack>,
    sequence: u64,
    // Invariant: asked for on this stream and not wanted.
    leaving: BTreeSet<Arc<str>>,
}

/// What the consumer has and has not judged yet. Names and versions only: the payloads are the consumer's.
struct Landing {
    stream: u64,
    generation: u64,
    sequence: u64,
    resources: Vec<(ResourceKey, Version)>,
    removed: Vec<ResourceKey>,
    withheld: Vec<ResourceKey>,
    answers: Vec<(Arc<str>, ScopeAnswer)>,
}

/// One subscriber, across its streams.
pub struct ClientState {
    limits: Limits,
    node: NodeInfo,
    wanted: BTreeMap<Arc<str>, Wanted>,
    have: BTreeMap<ResourceKey, Version>,
    streams: u64,
    stream: Option<Stream>,
    landing: Option<Landing>,
    backoff: Backoff,
}

impl ClientState {
    /// A client that already holds `have` (from its last snapshot) and wants nothing yet.
    pub fn new(
        limits: Limits,
        node: NodeInfo,
        have: impl IntoIterator<Item = (ResourceKey, Version)>,
    ) -> Self {
        Self {
            limits,
            node,
            wanted: BTreeMap::new(),
            have: have.into_iter().collect(),
            streams: 0,
            stream: None,
            landing: None,
            backoff: Backoff::default(),
        }
    }

    /// The bounds it keeps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the consumer holds, as far as it said.
    pub fn have(&self) -> &BTreeMap<ResourceKey, Version> {
        &self.have
    }

    /// Wants a scope; what is known about it already.
    pub fn subscribe(&mut self, scope: Arc<str>) -> Result<Option<ScopeAnswer>, SubscribeRefused> {
        if let Some(wanted) = self.wanted.get(&scope) {
            return Ok(wanted.answer);
        }
        let fits = !scope.is_empty() && scope.len() <= self.limits.name_bytes;
        if !fits || self.wanted.len() >= self.limits.scopes {
            return Err(SubscribeRefused { scope_limit: self.limits.scopes });
        }
        self.wanted.insert(scope, Wanted::default());
        Ok(None)
    }

    /// No longer wants a scope. Its resources go when the server says so.
    pub fn unsubscribe(&mut self, scope: &str) {
        let Some((scope, wanted)) = self.wanted.remove_entry(scope) else { return };
        if let (Some(_), Some(stream)) = (wanted.asked, &mut self.stream) {
            stream.leaving.insert(scope);
        }
    }

    /// Begins a stream: the next messages are the hello and the resume.
    pub fn open_stream(&mut self) {
        self.streams += 1;
        let mut have = self.have.clone();
        if let Some(landing) = &self.landing {
            // The consumer may or may not take these: their versions cannot be told.
            let resources = landing.resources.iter().map(|(key, _)| key);
            for key in resources.chain(&landing.removed).chain(&landing.withheld) {
                have.insert(key.clone(), Version::UNKNOWN);
            }
        }
        for wanted in self.wanted.values_mut() {
            wanted.asked = Some(0);
        }
        self.stream = Some(Stream {
            resume: resume_messages(&self.node, have, self.wanted.keys(), self.limits.chunk_bytes),
            staging: Staging::default(),
            ready: None,
            ack: None,
            sequence: 0,
            leaving: BTreeSet::new(),
        });
    }

    /// The stream is gone, or could not be had: how long to wait before the next. `random` is uniform over u32.
    pub fn disconnected(&mut self, random: u32) -> std::time::Duration {
        self.stream = None;
        for wanted in self.wanted.values_mut() {
            wanted.asked = None;
        }
        self.backoff.next_delay(random)
    }

    /// The next message to send, if there is one.
    pub fn next_message(&mut self) -> Option<pb::Request> {
        let stream = self.stream.as_mut()?;
        if let Some(resume) = stream.resume.pop_front() {
            return Some(resume);
        }
        if let Some(ack) = stream.ack.take() {
            return Some(pb::Request { message: Some(Message::Ack(ack)) });
        }
        let subscription = next_subscription(stream, &mut self.wanted, self.limits.chunk_bytes)?;
        Some(pb::Request { message: Some(Message::Subscription(subscription)) })
    }

    /// Takes a message. A generation that is not sound is answered with an error and otherwise ignored.
    pub fn receive(&mut self, delta: pb::Delta) -> Result<(), Violation> {
        let stream = self.stream.as_mut().ok_or(Violation::NoStream)?;
        let own_landing = self.landing.as_ref().is_some_and(|landing| landing.stream == self.streams);
        if stream.ready.is_some() || stream.ack.is_some() || own_landing {
            return Err(Violation::Overrun(delta.generation));
        }
        self.backoff.succeeded();
        match stream.staging.add(delta, &self.limits)? {
            None => {}
            Some(Ok(staged)) if self.have.len() + staged.landed.resources.len() > self.limits.resources => {
                let error = format!("more than {} resources", self.limits.resources);
                stream.ack =
                    Some(pb::Ack { generation: staged.landed.generation, rejected: Vec::new(), error });
            }
            Some(Ok(staged)) => stream.ready = Some(staged),
            Some(Err(ack)) => stream.ack = Some(ack),
        }
        Ok(())
    }

    /// A generation has begun and is not complete: the rest must come in time.
    pub fn is_staging(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.staging.is_open())
    }

    /// Whether `next_landing` would return a batch.
    pub fn has_landing(&self) -> bool {
        self.landing.is_none() && self.stream.as_ref().is_some_and(|stream| stream.ready.is_some())
    }

    /// The batch to hand to the consumer, if there is one; the consumer's verdict goes to `landed`.
    pub fn next_landing(&mut self) -> Option<Landed> {
        if self.landing.is_some() {
            return None;
        }
        let Staged { landed, sequence } = self.stream.as_mut()?.ready.take()?;
        let loaded = landed.answered.iter().map(|scope| (scope.clone(), ScopeAnswer::Loaded));
        let not_found = landed.not_found.iter().map(|scope| (scope.clone(), ScopeAnswer::NotFound));
        self.landing = Some(Landing {
            stream: self.streams,
            generation: landed.generation,
            sequence,
            resources: landed.resources.iter().map(|it| (it.key.clone(), it.version)).collect(),
            removed: landed.removed.clone(),
            withheld: landed.withheld.iter().map(|(key, _)| key.clone()).collect(),
            answers: loaded.chain(not_found).collect(),
        });
        Some(landed)
    }

    /// Takes the consumer's verdict about the batch it was given last; what is known about scopes from now on.
    pub fn landed(&mut self, verdict: Verdict) -> Vec<(Arc<str>, ScopeAnswer)> {
        let Some(landing) = self.landing.take() else { return Vec::new() };
        let Landing { stream, generation, sequence, resources, removed, withheld, answers } = landing;
        let current = self.stream.as_mut().filter(|_| stream == self.streams);
        let (rejected, error) = match verdict {
            Verdict::Accepted(rejected) => (rejected, String::new()),
            Verdict::Refused(error) if error.is_empty() => (Vec::new(), "refused".to_owned()),
            Verdict::Refused(error) => (Vec::new(), error),
        };
        let accepted = error.is_empty();
        if accepted {
            let refused: BTreeSet<&ResourceKey> = rejected.iter().map(|(key, _)| key).collect();
            let taken = resources.into_iter().filter(|(key, _)| !refused.contains(key));
            self.have.extend(taken);
            self.have.extend(withheld.into_iter().map(|key| (key, Version::UNKNOWN)));
            for key in removed {
                self.have.remove(&key);
            }
        }
        // Nobody waits for it on another stream, and a new stream answers every scope again.
        let Some(current) = current else { return Vec::new() };
        let rejected = rejected
            .into_iter()
            .map(|(key, reason)| pb::Rejection { key: Some(key.to_proto()), reason })
            .collect();
        current.ack = Some(pb::Ack { generation, rejected, error });
        if !accepted {
            return Vec::new();
        }
        let mut news = Vec::new();
        for (scope, answer) in answers {
            // An answer to an earlier subscription says nothing about a later one.
            let Some(wanted) = self.wanted.get_mut(&scope) else { continue };
            if wanted.asked.is_some_and(|asked| asked <= sequence) {
                wanted.answer = Some(answer);
                news.push((scope, answer));
            }
        }
        news
    }
}

/// The hello and as many resumes as it takes.
fn resume_messages<'a>(
    node: &NodeInfo,
    have: BTreeMap<ResourceKey, Version>,
    scopes: impl Iterator<Item = &'a Arc<str>>,
    chunk_bytes: usize,
) -> VecDeque<pb::Request> {
    const HAVE_OVERHEAD: usize = 32;
    let mut parts = vec![pb::Resume::default()];
    let mut bytes = 0;
    let mut part_for = |item: usize, parts: &mut Vec<pb::Resume>| {
        if bytes > 0 && bytes + item > chunk_bytes {
            parts.push(pb::Resume::default());
            bytes = 0;
        }
        bytes += item;
        parts.len() - 1
    };
    for (key, version) in have {
        let at = part_for(key.name.len() + HAVE_OVERHEAD, &mut parts);
        parts[at].have.push(pb::Have { key: Some(key.to_proto()), version: version.0 });
    }
    for scope in scopes {
        let at = part_for(scope.len() + HAVE_OVERHEAD, &mut parts);
        parts[at].scopes.push(scope.to_string());
    }
    if let Some(last) = parts.last_mut() {
        last.complete = true;
    }
    let mut parts = parts.into_iter();
    let hello = pb::Hello { node: Some(node.to_proto()), resume: parts.next() };
    std::iter::once(Message::Hello(hello))
        .chain(parts.map(Message::Resume))
        .map(|message| pb::Request { message: Some(message) })
        .collect()
}

/// The difference between what is wanted and what this stream was asked for, as much as fits into a message.
fn next_subscription(
    stream: &mut Stream,
    wanted: &mut BTreeMap<Arc<str>, Wanted>,
    chunk_bytes: usize,
) -> Option<pb::Subscription> {
    let sequence = stream.sequence + 1;
    let mut subscription = pb::Subscription { sequence, ..pb::Subscription::default() };
    let mut bytes = 0;
    while let Some(scope) = stream.leaving.pop_first() {
        bytes += scope.len();
        subscription.unsubscribe.push(scope.to_string());
        if bytes > chunk_bytes {
            break;
        }
    }
    // A scope that is left and wanted again must not be asked for before it was left.
    if stream.leaving.is_empty() {
        for (scope, wanted) in wanted.iter_mut().filter(|(_, wanted)| wanted.asked.is_none()) {
            if bytes > chunk_bytes {
                break;
            }
            bytes += scope.len();
            wanted.asked = Some(sequence);
            subscription.subscribe.push(scope.to_string());
        }
    }
    if subscription.subscribe.is_empty() && subscription.unsubscribe.is_empty() {
        return None;
    }
    stream.sequence = sequence;
    Some(subscription)
}
