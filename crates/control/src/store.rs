//! The one writer: takes readings and what other clusters say, compiles, publishes.
//!
//! There is no debounce: what is ready when the last batch is done is the next batch, so a burst costs a few compilations and
//! a lone change waits for nothing.
//!
//! Invariant: generations count up by one, and everything that is published in one was compiled from one world.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use leno_compile::{Change, Compiler, Delta, ObjectKey, RemoteCluster, World};
use leno_model::{Port, ResourceKey as ModelKey};
use leno_sources::Reading;
use leno_xds::{Change as Publication, transport::Publisher};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::now,
    config::ControlConfig,
    input::Said,
    patience::Patience,
    peering::{Peers, remotes, told},
    publish::{self, CompiledCatalog, Encoded},
    published::{Newest, Published},
};

/// How long a control plane that knows nothing of another cluster waits for it before it publishes first: its proxies may know that
/// cluster's endpoints from whoever served them before. Not longer: a cluster that is away must not keep this one from its own.
const INTRODUCTION: Duration = Duration::from_secs(5);

/// What the writer needs.
pub(crate) struct Writer {
    pub(crate) config: Arc<ControlConfig>,
    pub(crate) said: watch::Receiver<Said>,
    pub(crate) peers: Peers,
    /// Where callers of other networks come in; `None` before it has been looked at.
    pub(crate) gateways: watch::Receiver<Option<Gateways>>,
    pub(crate) publisher: Publisher,
    pub(crate) newest: Newest,
    /// True from the first publication on.
    pub(crate) readiness: watch::Sender<bool>,
}

/// East-west gateways: addresses and ports.
pub(crate) type Gateways = Vec<(IpAddr, Port)>;

/// The writer ended because compiling panicked.
#[derive(Debug, thiserror::Error)]
#[error("compiling the configuration failed; this is a defect of Leno")]
pub struct StoreError(#[from] tokio::task::JoinError);

impl Writer {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut peers = self.peers.changes();
        let mut store: Option<Store> = None;
        let mut patience = Patience::new(self.config.reference_patience.duration());
        self.said.mark_changed();
        // Where folders keep what was heard there is nothing to wait for; and clusters that start together would wait for each other.
        let mut waits = self.config.kubernetes.is_some();
        let introduced = Instant::now() + INTRODUCTION;
        loop {
            let until = patience.until();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
                changed = self.said.changed() => if changed.is_err() { return Ok(()) },
                changed = peers.changed() => if changed.is_err() { return Ok(()) },
                Ok(()) = self.gateways.changed() => {}
                () = sleep_until(introduced), if waits => waits = false,
            }
            let Some(reading) = self.said.borrow_and_update().reading.clone() else { continue };
            let reading = patience.in_force(&reading, Instant::now());
            let table = peers.borrow_and_update().clone();
            waits &= store.is_none() && table.values().any(|heard| heard.remote.is_none());
            if waits {
                continue;
            }
            let remotes = remotes(&table);
            // To a cluster that were told of none, this one's pods would be gone.
            let Some(gateways) = self.gateways.borrow_and_update().clone() else { continue };
            let new = New { reading, remotes, gateways };
            if store.as_ref().is_some_and(|store| store.has(&new)) {
                continue;
            }
            let (config, before) = (self.config.clone(), store.take());
            let took = Instant::now();
            // Compiling is work, not waiting: it has a thread of its own.
            let (after, batch) =
                tokio::task::spawn_blocking(move || Store::batch(&config, before, new)).await?;
            let Batch { published, catalog, change } = batch;
            let all = published.compiled.resources.len();
            let changed = if change.everything { all } else { change.resources.len() };
            let generation = published.generation;
            // First what streams are judged by, then what they are sent.
            self.newest.store(published);
            self.publisher.publish(catalog, change);
            self.readiness.send_replace(true);
            tracing::info!(generation, changed, milliseconds = took.elapsed().as_millis(), "published");
            store = Some(after);
        }
    }
}

/// What there is to publish from.
struct New {
    reading: Arc<Reading>,
    remotes: Vec<RemoteCluster>,
    gateways: Gateways,
}

/// What is in force, and what the next batch is compared with.
struct Store {
    compiler: Compiler,
    remotes: Vec<RemoteCluster>,
    gateways: Gateways,
    published: Arc<Published>,
    encoded: Encoded,
    told: Encoded,
}

/// A publication that is ready to go out.
struct Batch {
    published: Arc<Published>,
    catalog: Arc<CompiledCatalog>,
    change: Publication,
}

impl Store {
    fn has(&self, new: &New) -> bool {
        let New { reading, remotes, gateways } = new;
        Arc::ptr_eq(&self.published.reading, reading)
            && self.remotes == *remotes
            && self.gateways == *gateways
    }

    fn batch(config: &ControlConfig, before: Option<Self>, new: New) -> (Self, Batch) {
        match before {
            Some(store) => store.next(config, new),
            None => Self::first(config, new),
        }
    }

    fn first(config: &ControlConfig, new: New) -> (Self, Batch) {
        let New { reading, remotes, gateways } = new;
        let world = World::of(reading.objects.values().cloned());
        let compiler = Compiler::new(world, config.mesh(), remotes.clone());
        let encoded = publish::encode_all(compiler.compiled());
        let told = told::tell(config, &gateways, &compiler.compiled().exports);
        let published = snapshot(&compiler, 1, reading);
        let store = Self { compiler, remotes, gateways, published, encoded, told };
        let batch = store.publication(Publication::everything());
        (store, batch)
    }

    fn next(mut self, config: &ControlConfig, new: New) -> (Self, Batch) {
        let New { reading, remotes, gateways } = new;
        let before = self.published.clone();
        let mut changed = BTreeSet::new();
        if !Arc::ptr_eq(&before.reading, &reading) {
            let delta = self.compiler.update(&changes(&before.reading, &reading));
            self.take(delta, &mut changed);
        }
        if self.remotes != remotes {
            let delta = self.compiler.update_remotes(remotes.clone());
            self.take(delta, &mut changed);
            self.remotes = remotes;
        }
        let compiled = self.compiler.compiled();
        let mut change = publish::change(&changed, &before.compiled, compiled);
        if compiled.exports != before.compiled.exports || self.gateways != gateways {
            let told = told::tell(config, &gateways, &compiled.exports);
            let differ = |key: &&leno_xds::ResourceKey| self.told.get(*key) != told.get(*key);
            change.resources.extend(self.told.keys().chain(told.keys()).filter(differ).cloned());
            change.scopes.insert(publish::EXPORTS.into());
            (self.told, self.gateways) = (told, gateways);
        }
        self.published = snapshot(&self.compiler, before.generation + 1, reading);
        let batch = self.publication(change);
        (self, batch)
    }

    /// Encodes what a delta changed.
    fn take(&mut self, delta: Delta, changed: &mut BTreeSet<ModelKey>) {
        for (key, resource) in delta.changed {
            publish::encode(&key, &resource, &mut self.encoded);
            changed.insert(key);
        }
        for key in delta.removed {
            self.encoded.remove(&publish::wire_key(&key));
            changed.insert(key);
        }
    }

    fn publication(&self, change: Publication) -> Batch {
        let published = self.published.clone();
        let catalog = CompiledCatalog::new(published.clone(), self.encoded.clone(), self.told.clone());
        Batch { published, catalog: Arc::new(catalog), change }
    }
}

fn snapshot(compiler: &Compiler, generation: u64, reading: Arc<Reading>) -> Arc<Published> {
    let (world, compiled) = (compiler.world().clone(), compiler.compiled().clone());
    Arc::new(Published { generation, world, compiled, reading, since: now() })
}

/// What differs between two readings.
fn changes(before: &Reading, after: &Reading) -> Vec<Change> {
    let gone = before.objects.iter().filter(|(name, _)| !after.objects.contains_key(*name));
    let mut changes: Vec<Change> = gone.map(|(_, object)| Change::delete(ObjectKey::of(object))).collect();
    for (name, object) in &after.objects {
        let same = before.objects.get(name).is_some_and(|old| Arc::ptr_eq(old, object) || old == object);
        if !same {
            changes.push(Change::put(object.clone()));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use leno_xds::ResourceKey;

    use super::*;

    #[test]
    fn a_gateway_between_networks_that_comes_is_told_though_no_object_changed() {
        let text = r#"{"cluster": "west", "network": "one", "listen": "127.0.0.1:0", "api": "127.0.0.1:0", "ca_dir": ""}"#;
        let config: ControlConfig = serde_json::from_str(text).unwrap();
        let reading = Arc::new(Reading::default());
        let new = |gateways: &[u8]| New {
            reading: reading.clone(),
            remotes: Vec::new(),
            gateways: gateways.iter().map(|last| ([198, 18, 1, *last].into(), 15443)).collect(),
        };
        let (store, _) = Store::batch(&config, None, new(&[]));
        assert!(store.has(&new(&[])) && !store.has(&new(&[100])));
        let (store, batch) = Store::batch(&config, Some(store), new(&[100]));
        assert!(batch.change.scopes.contains(publish::EXPORTS));
        let about = ResourceKey::new(told::KIND, "cluster");
        assert!(batch.change.resources.contains(&about), "{:?}", batch.change.resources);
        assert!(store.has(&new(&[100])));
        let (_, batch) = Store::batch(&config, Some(store), new(&[100]));
        assert!(!batch.change.resources.contains(&about), "it is told once");
    }
}
