//! A small world for the tests of both state machines: scopes, resources, and pairs without a network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::catalog::{Affected, Catalog, Change};
use crate::client::{ClientState, Landed, Verdict};
use crate::proto::discovery::{self as pb, request::Message};
use crate::resource::{EncodedResource, NodeInfo, ResourceKey, Version};
use crate::server::ServerSession;

/// A catalog that tests can change; publishing clones it.
#[derive(Clone, Default)]
pub(crate) struct World {
    resources: BTreeMap<ResourceKey, EncodedResource>,
    scopes: BTreeMap<Arc<str>, Vec<ResourceKey>>,
}

impl World {
    pub(crate) fn scope(&mut self, scope: &str, members: &[(&str, u64)]) {
        for (name, content) in members {
            self.put(name, *content);
        }
        self.scopes.insert(scope.into(), members.iter().map(|(name, _)| key(name)).collect());
    }

    pub(crate) fn withdraw(&mut self, scope: &str) {
        let members = self.scopes.remove(scope).unwrap_or_default();
        let used: BTreeSet<&ResourceKey> = self.scopes.values().flatten().collect();
        for key in members {
            if !used.contains(&key) {
                self.resources.remove(&key);
            }
        }
    }

    pub(crate) fn put(&mut self, name: &str, content: u64) {
        self.needing(name, content, &[]);
    }

    pub(crate) fn needing(&mut self, name: &str, content: u64, features: &[&str]) {
        let features: Vec<Arc<str>> = features.iter().map(|it| Arc::from(*it)).collect();
        let payload = Bytes::from(format!("{name}={content}"));
        self.resources.insert(key(name), EncodedResource::new(key(name), payload, features));
    }

    pub(crate) fn version(&self, name: &str) -> Version {
        self.resources[&key(name)].version
    }

    pub(crate) fn has_scope(&self, scope: &str) -> bool {
        self.scopes.contains_key(scope)
    }

    pub(crate) fn catalog(&self) -> Arc<dyn Catalog> {
        Arc::new(self.clone())
    }

    pub(crate) fn change_since(&self, before: &Self) -> Change {
        let names = |a: &Self, b: &Self| {
            let differs = |key: &&ResourceKey| a.resources.get(*key) != b.resources.get(*key);
            a.resources.keys().filter(differs).cloned().collect::<BTreeSet<_>>()
        };
        let resources = names(self, before).union(&names(before, self)).cloned().collect();
        let all: BTreeSet<&Arc<str>> = self.scopes.keys().chain(before.scopes.keys()).collect();
        let differs = |scope: &&Arc<str>| self.scopes.get(*scope) != before.scopes.get(*scope);
        let scopes = all.into_iter().filter(differs).cloned().collect();
        Change { resources, scopes, always: Affected::Nobody, everything: false }
    }

    /// What a client with these scopes should hold; `None`: withheld.
    pub(crate) fn view(
        &self,
        node: &NodeInfo,
        scopes: &[Arc<str>],
    ) -> BTreeMap<ResourceKey, Option<Version>> {
        let members = scopes.iter().filter_map(|scope| self.scopes.get(scope)).flatten();
        let always = self.always(node);
        members
            .chain(&always)
            .filter_map(|key| self.resources.get(key))
            .map(|it| (it.key.clone(), node.missing(&it.features_needed).is_empty().then_some(it.version)))
            .collect()
    }
}

impl Catalog for World {
    fn closure(&self, _node: &NodeInfo, scope: &str) -> Option<Vec<ResourceKey>> {
        self.scopes.get(scope).cloned()
    }

    fn resource(&self, key: &ResourceKey) -> Option<&EncodedResource> {
        self.resources.get(key)
    }

    fn always(&self, _node: &NodeInfo) -> Vec<ResourceKey> {
        vec![key("r0")]
    }
}

pub(crate) fn key(name: &str) -> ResourceKey {
    ResourceKey::new(1, name)
}

pub(crate) fn node(id: &str) -> NodeInfo {
    NodeInfo { id: id.into(), workload: "shop/cart".into(), ..NodeInfo::default() }
}

pub(crate) fn hello(node: &NodeInfo, have: &[(ResourceKey, Version)], scopes: &[&str]) -> pb::Request {
    let have = have.iter().map(|(key, version)| pb::Have { key: Some(key.to_proto()), version: version.0 });
    let scopes = scopes.iter().map(ToString::to_string).collect();
    let resume = pb::Resume { have: have.collect(), scopes, complete: true };
    let hello = pb::Hello { node: Some(node.to_proto()), resume: Some(resume) };
    pb::Request { message: Some(Message::Hello(hello)) }
}

/// Carries up to so many messages in each direction.
pub(crate) fn pump_some(client: &mut ClientState, session: &mut ServerSession, messages: usize) {
    for _ in 0..messages {
        if let Some(request) = client.next_message() {
            session.receive(request).unwrap();
        }
        if let Some(delta) = session.next_message() {
            client.receive(delta).unwrap();
        }
    }
}

/// Carries messages, with a consumer that accepts everything, until nobody has anything to say.
pub(crate) fn pump(client: &mut ClientState, session: &mut ServerSession) -> Vec<Landed> {
    let mut batches = Vec::new();
    loop {
        pump_some(client, session, 100);
        let Some(landed) = client.next_landing() else { return batches };
        batches.push(landed);
        client.landed(Verdict::Accepted(Vec::new()));
    }
}
