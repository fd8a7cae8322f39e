//! One core's view of the endpoints of one destination (a service's port, or a subset of it), and the choice among them.
//!
//! Invariant: an endpoint that drains or is not ready gets nothing; one that is ejected or avoided gets something only when
//! nothing else is left. A view is never changed: a new set of endpoints or policy makes a new one.
//! Must not know: routes, HTTP. It sees endpoints, tiers, a hash and a roll.

use std::{
    cell::Cell,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use leno_model::{Endpoint, EndpointSet, EndpointState, LoadBalancer, Port, TrafficPolicy};

use super::health::{PeerHealth, ServiceHealth};

/// An endpoint and what is known of it.
pub(crate) struct Peer {
    set: Arc<EndpointSet>,
    index: usize,
    /// What is known of it.
    pub(crate) health: Arc<PeerHealth>,
}

impl Peer {
    /// The endpoint.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.set.endpoints[self.index]
    }
}

/// A view of one destination.
pub(crate) struct Cluster {
    /// The service's counters.
    pub(crate) health: Arc<ServiceHealth>,
    /// How it is to be called.
    pub(crate) policy: TrafficPolicy,
    peers: Vec<Peer>,
    /// Indexes into `peers`, nearest tier first.
    tiers: Vec<Tier>,
    ring: Option<leno_decide::hash::Ring>,
    next: Cell<usize>,
}

/// Endpoints of one nearness, with the share of requests that begins here.
struct Tier {
    members: Vec<usize>,
    share: u32,
}

/// Gives an endpoint's place back when dropped.
pub(crate) struct InFlight(Arc<PeerHealth>);

impl InFlight {
    /// Counts one more for an endpoint.
    pub(crate) fn on(health: &Arc<PeerHealth>) -> Self {
        health.active.fetch_add(1, Relaxed);
        Self(health.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// What a choice needs to know.
#[derive(Clone, Copy)]
pub(crate) struct Choice<'a> {
    /// Hash of the request's key, for consistent hashing; `None`: any endpoint.
    pub(crate) key: Option<u64>,
    /// Two independent uniform numbers.
    pub(crate) rolls: (u32, u32),
    /// Milliseconds of the proxy's clock.
    pub(crate) now: u64,
    /// Endpoints that were tried already (by position).
    pub(crate) tried: &'a [usize],
}

impl Cluster {
    /// A view of the endpoints that `selects`, in these tiers (positions in the set, share of each).
    pub(crate) fn new(
        set: &Arc<EndpointSet>,
        port: Port,
        tiers: Vec<(Vec<usize>, u32)>,
        policy: TrafficPolicy,
        health: Arc<ServiceHealth>,
    ) -> Self {
        let mut peers = Vec::new();
        let mut own_tiers = Vec::new();
        for (positions, share) in tiers {
            let mut members = Vec::with_capacity(positions.len());
            for index in positions {
                let Some(endpoint) = set.endpoints.get(index) else { continue };
                if endpoint.state == EndpointState::Ready && endpoint.ports.contains_key(&port) {
                    members.push(peers.len());
                    peers.push(Peer { set: set.clone(), index, health: health.peer(&endpoint.uid) });
                }
            }
            if !members.is_empty() {
                own_tiers.push(Tier { members, share });
            }
        }
        let ring = match &policy.balancer {
            LoadBalancer::Hash { minimum_ring_size, .. } if !peers.is_empty() => {
                let keys = peers.iter().map(|peer| {
                    let endpoint = peer.endpoint();
                    let port = endpoint.ports.get(&port).copied().unwrap_or(port);
                    (std::net::SocketAddr::new(endpoint.address, port).to_string(), endpoint.weight.0)
                });
                Some(leno_decide::hash::Ring::new(keys, *minimum_ring_size))
            }
            _ => None,
        };
        Self { health, policy, peers, tiers: own_tiers, ring, next: Cell::new(0) }
    }

    /// How many endpoints there are.
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    /// An endpoint by its position.
    pub(crate) fn peer(&self, position: usize) -> &Peer {
        &self.peers[position]
    }

    /// Chooses an endpoint; `None` when there is none at all.
    pub(crate) fn choose(&self, choice: Choice<'_>) -> Option<usize> {
        let panic = self.health.panics(self.policy.outlier.as_ref(), choice.now);
        let usable = |position: &usize| {
            !choice.tried.contains(position) && (panic || self.peers[*position].health.is_usable(choice.now))
        };
        if let (Some(ring), Some(key)) = (&self.ring, choice.key) {
            let by_ring = ring.walk(key);
            return by_ring.clone().find(|position| usable(position)).or_else(|| by_ring.into_iter().next());
        }
        let first = self.first_tier(choice.rolls.0);
        for offset in 0..self.tiers.len() {
            let tier = &self.tiers[(first + offset) % self.tiers.len()];
            if let Some(found) = self.among(&tier.members, usable, choice) {
                return Some(found);
            }
        }
        // Nothing is well, so anything will do; what was not tried yet first.
        let all: Vec<usize> = (0..self.peers.len()).collect();
        self.among(&all, |position| !choice.tried.contains(position), choice).or_else(|| self.among(&all, |_| true, choice))
    }

    /// Where the search starts: the nearest tier, or, with fixed shares, one by its share.
    fn first_tier(&self, roll: u32) -> usize {
        let total: u64 = self.tiers.iter().map(|tier| u64::from(tier.share)).sum();
        if total == 0 {
            return 0;
        }
        let mut point = u64::from(roll) * total >> 32;
        for (index, tier) in self.tiers.iter().enumerate() {
            let share = u64::from(tier.share);
            if point < share {
                return index;
            }
            point -= share;
        }
        0
    }

    fn among(&self, members: &[usize], usable: impl Fn(&usize) -> bool, choice: Choice<'_>) -> Option<usize> {
        if members.is_empty() {
            return None;
        }
        let at = |roll: u32| (u64::from(roll) * members.len() as u64 >> 32) as usize;
        match self.policy.balancer {
            LoadBalancer::RoundRobin => {
                let start = self.next.get();
                let found = (0..members.len()).map(|offset| (start + offset) % members.len()).find(|at| usable(&members[*at]))?;
                self.next.set((found + 1) % members.len());
                Some(members[found])
            }
            LoadBalancer::Random | LoadBalancer::Passthrough | LoadBalancer::Hash { .. } => {
                let start = at(choice.rolls.1);
                (0..members.len()).map(|offset| members[(start + offset) % members.len()]).find(|position| usable(position))
            }
            LoadBalancer::LeastRequest => {
                let first_from = |roll| {
                    let start = at(roll);
                    (0..members.len()).map(|offset| members[(start + offset) % members.len()]).find(|position| usable(position))
                };
                let (one, two) = (first_from(choice.rolls.0.rotate_left(16))?, first_from(choice.rolls.1)?);
                let load = |position: usize| self.peers[position].health.active.load(Relaxed);
                Some(if load(two) < load(one) { two } else { one })
            }
        }
    }
}
