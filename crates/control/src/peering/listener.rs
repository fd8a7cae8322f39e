//! One other control plane: a discovery client that subscribes to what it tells.
//!
//! Invariant: a stream that ends and comes back at once changes nothing; only silence for longer than [`GRACE`] makes
//! what was heard stale.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use leno_compile::RemoteCluster;
use leno_identity::{ExpectedPeers, IdentityStore, SpiffeId, TrustDomain, client_config};
use leno_model::ClusterName;
use leno_xds::{
    EncodedResource, Limits, NodeInfo, ResourceKey,
    client::{ClientState, Landed},
    transport::client::{ClientConfig, Connection, Ends, run, subscriber},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Memory, Peers,
    dial::Dial,
    told::{self, About, Told},
};
use crate::{authorize::CONTROL_PREFIX, clock::now, config::PeerConfig, publish::EXPORTS};

/// How long a cluster may be silent before what it said counts as stale.
const GRACE: Duration = Duration::from_secs(2);

/// How much of what is not believed is kept for status.
const DISBELIEVED: usize = 16;

/// What listening needs.
pub(crate) struct Listener {
    /// This cluster.
    pub(crate) cluster: ClusterName,
    /// The mesh's trust domain.
    pub(crate) domain: TrustDomain,
    /// Who control planes are, in each of its clusters.
    pub(crate) control: SpiffeId,
    /// This control plane's certificate and trust.
    pub(crate) store: Arc<IdentityStore>,
    /// Where what is heard goes.
    pub(crate) peers: Peers,
    /// Where it is kept.
    pub(crate) memory: Memory,
}

/// Listens to one other control plane until `stop`.
pub(crate) async fn listen_to(peer: PeerConfig, listener: Listener, stop: CancellationToken) {
    let recalled = listener.memory.recall(&peer.cluster, &listener.domain);
    let have: Vec<_> = recalled.iter().map(|resource| (resource.key.clone(), resource.version)).collect();
    let state = ClientState::new(Limits::default(), node(&listener.cluster), have);
    let (runner, ends) = subscriber(state, ClientConfig::default());
    let expected = ExpectedPeers::new([listener.control.clone()]);
    let config = client_config(&listener.store, &expected, &[b"h2"]);
    let dial = Arc::new(Dial::new(peer.addresses, config));
    let dial = move || {
        let dial = dial.clone();
        async move { dial.dial().await }
    };
    let said = recalled.into_iter().map(|resource| (resource.key.clone(), resource)).collect();
    let hearing = Hearing { peer: peer.cluster, listener, said };
    tokio::select! {
        () = run(runner, dial) => {}
        () = hearing.run(ends) => {}
        () = stop.cancelled() => {}
    }
}

fn node(cluster: &ClusterName) -> NodeInfo {
    let name: Arc<str> = format!("{CONTROL_PREFIX}{cluster}").into();
    NodeInfo {
        id: name.clone(),
        workload: name,
        cluster: cluster.shared(),
        version: env!("CARGO_PKG_VERSION").into(),
        features: leno_wire::KNOWN_FEATURES.iter().map(|&feature| feature.into()).collect(),
    }
}

struct Hearing {
    peer: ClusterName,
    listener: Listener,
    said: BTreeMap<ResourceKey, EncodedResource>,
}

impl Hearing {
    async fn run(mut self, ends: Ends) {
        let Ends { subscriber, mut landings, mut connection } = ends;
        // The answer comes as a landing; whoever asked need not wait for it.
        let asking = subscriber.clone();
        let asked = async move {
            let by = Instant::now() + Duration::from_secs(365 * 24 * 3600);
            let _ = asking.subscribe(EXPORTS.into(), by).await;
            std::future::pending::<()>().await;
        };
        tokio::pin!(asked);
        let mut silent_at = Some(Instant::now() + GRACE);
        loop {
            tokio::select! {
                () = &mut asked => {}
                landing = landings.recv() => {
                    let Some(landing) = landing else { return };
                    let (landed, judge) = landing.split();
                    judge.accept_except(self.land(landed));
                    silent_at = None;
                }
                changed = connection.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let state = connection.borrow_and_update().clone();
                    silent_at = self.connection(state, silent_at);
                }
                () = silence(silent_at) => {
                    silent_at = None;
                    self.stale();
                }
            }
        }
    }

    /// Notes the state of the connection; when silence begins to count.
    fn connection(&self, state: Connection, silent_at: Option<Instant>) -> Option<Instant> {
        let (connected, cause) = match state {
            Connection::Open => (true, None),
            Connection::Connecting => (false, None),
            Connection::Waiting { cause, .. } => (false, Some(cause)),
        };
        self.listener.peers.edit(&self.peer, |heard| {
            heard.connected = connected;
            if connected {
                heard.cause = None;
            } else if cause.is_some() {
                heard.cause = cause;
            }
        });
        if connected {
            return silent_at;
        }
        let is_stale =
            self.listener.peers.all().get(&self.peer).and_then(|it| it.remote.as_ref().map(|it| it.stale));
        match is_stale {
            Some(false) => silent_at.or_else(|| Some(Instant::now() + GRACE)),
            Some(true) | None => silent_at,
        }
    }

    /// Takes what was said; what of it is not believed, and why.
    fn land(&mut self, landed: Landed) -> Vec<(ResourceKey, String)> {
        let Landed { resources, removed, withheld, .. } = landed;
        let mut disbelieved = Vec::new();
        for key in removed.iter().chain(withheld.iter().map(|(key, _)| key)) {
            self.said.remove(key);
        }
        for resource in resources {
            match told::believe(&self.peer, &self.listener.domain, &resource) {
                Ok(_) => {
                    self.said.insert(resource.key.clone(), resource);
                }
                Err(error) => disbelieved.push((resource.key, error.to_string())),
            }
        }
        if let Err(error) = self.listener.memory.keep(&self.peer, self.said.values()) {
            tracing::warn!(%error, cluster = %self.peer, "what another cluster said is not kept");
        }
        let remote = self.remote(false);
        let reasons = disbelieved.iter().take(DISBELIEVED).map(|(_, reason)| reason.clone()).collect();
        self.listener.peers.edit(&self.peer, |heard| {
            heard.remote = remote;
            heard.last = Some(now());
            heard.connected = true;
            heard.disbelieved = reasons;
        });
        disbelieved
    }

    fn stale(&self) {
        let mut why = None;
        self.listener.peers.edit(&self.peer, |heard| {
            if let Some(remote) = &mut heard.remote {
                remote.stale = true;
            }
            why.clone_from(&heard.cause);
        });
        let cause = why.as_deref().unwrap_or("no answer yet");
        tracing::warn!(cluster = %self.peer, cause, "another cluster's control plane is silent: its endpoints stay as last known");
    }

    fn remote(&self, stale: bool) -> Option<RemoteCluster> {
        remote_of(&self.peer, &self.listener.domain, self.said.values(), stale)
    }
}

/// What a cluster said, for the compiler; `None` when it has not spoken of itself.
pub(super) fn remote_of<'a>(
    cluster: &ClusterName,
    domain: &TrustDomain,
    said: impl Iterator<Item = &'a EncodedResource>,
    stale: bool,
) -> Option<RemoteCluster> {
    let mut about = None;
    let mut exports = Vec::new();
    for resource in said {
        match told::believe(cluster, domain, resource) {
            Ok(Told::Cluster(said)) => about = Some(said),
            Ok(Told::Service(offer)) => exports.push(offer.into()),
            Err(_) => {}
        }
    }
    let About { cluster, network, gateways } = about?;
    Some(RemoteCluster { cluster, network, gateways, stale, exports })
}

async fn silence(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
