//! One core's view of the endpoints of one destination (a service's port, or a subset of it), and the choice among them.
//!
//! Invariant: an endpoint that drains or is not ready gets nothing; one that is ejected or avoided gets something only when
//! nothing else is left. Whoever dialled an endpoint's own address gets that endpoint, whatever its state. A view is never changed: a new set of endpoints or policy makes a new one.
//! Must not know: routes, HTTP. It sees endpoints, tiers, a hash and a roll.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use leno_decide::{Group, Ring, Tier};
use leno_model::{Endpoint, EndpointSet, LoadBalancer, Port, TrafficPolicy, Tunnel};

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
    /// First those in tiers, then those that can only be dialled.
    peers: Vec<Peer>,
    in_tiers: usize,
    /// Positions by the endpoints' own addresses.
    dialled: HashMap<IpAddr, usize>,
    /// Nearest first; members are positions in `peers`.
    tiers: Vec<Tier>,
    ring: Option<Ring>,
    next: Cell<usize>,
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
    /// The address that the client dialled; an endpoint's own decides.
    pub(crate) dialled: Option<std::net::SocketAddr>,
}

impl Cluster {
    /// A view of the endpoints of a set that take new work, in tiers; both as indexes into the set.
    pub(crate) fn new(
        set: &Arc<EndpointSet>,
        port: Port,
        tiers: Vec<Tier>,
        policy: TrafficPolicy,
        health: Arc<ServiceHealth>,
    ) -> Self {
        let mut peers = Vec::new();
        let mut position = |index: u32| {
            let endpoint = set.endpoints.get(index as usize)?;
            peers.push(Peer { set: set.clone(), index: index as usize, health: health.peer(&endpoint.uid) });
            u32::try_from(peers.len() - 1).ok()
        };
        let tiers = tiers
            .into_iter()
            .map(|tier| Tier {
                groups: tier
                    .groups
                    .into_iter()
                    .map(|group| Group {
                        weight: group.weight,
                        endpoints: group.endpoints.into_iter().filter_map(&mut position).collect(),
                    })
                    .collect(),
            })
            .collect();
        let in_tiers = peers.len();
        let ring = match &policy.balancer {
            LoadBalancer::Hash { minimum_ring_size, .. } if !peers.is_empty() => {
                let points = peers.iter().zip(0..).map(|(peer, position)| {
                    let endpoint = peer.endpoint();
                    let port = endpoint.ports.get(&port).copied().unwrap_or(port);
                    (
                        position,
                        std::net::SocketAddr::new(endpoint.address, port).to_string(),
                        endpoint.weight.0.max(1),
                    )
                });
                Some(Ring::build(&points.collect::<Vec<_>>(), *minimum_ring_size))
            }
            _ => None,
        };
        let known: HashSet<usize> = peers.iter().map(|peer| peer.index).collect();
        let others = set.endpoints.iter().enumerate();
        let others =
            others.filter(|(at, endpoint)| !known.contains(at) && endpoint.ports.contains_key(&port));
        peers.extend(others.map(|(index, endpoint)| Peer {
            set: set.clone(),
            index,
            health: health.peer(&endpoint.uid),
        }));
        let addresses = peers.iter().enumerate().rev();
        let dialled = addresses.map(|(position, peer)| (peer.endpoint().address, position)).collect();
        Self { health, policy, peers, in_tiers, dialled, tiers, ring, next: Cell::new(0) }
    }

    /// An endpoint by its position.
    pub(crate) fn peer(&self, position: usize) -> &Peer {
        &self.peers[position]
    }

    /// Whether there are not two endpoints to choose from.
    pub(crate) fn is_alone(&self) -> bool {
        self.in_tiers < 2
    }

    /// The endpoint of this network that is a pod of this name; another cluster may have one of the same.
    pub(crate) fn of_pod(&self, pod: &str) -> Option<usize> {
        let is_it = |endpoint: &Endpoint| endpoint.tunnel == Tunnel::Mesh && *endpoint.workload.name == *pod;
        self.peers.iter().position(|peer| is_it(peer.endpoint()))
    }

    /// Chooses an endpoint; `None` when there is none at all.
    pub(crate) fn choose(&self, choice: Choice<'_>) -> Option<usize> {
        let position = self.select(choice)?;
        self.peers[position].health.chosen(choice.now);
        Some(position)
    }

    fn select(&self, choice: Choice<'_>) -> Option<usize> {
        let panic = self.health.panics(self.policy.outlier.as_ref(), choice.now);
        let usable = |position: &usize| {
            !choice.tried.contains(position) && (panic || self.peers[*position].health.is_usable(choice.now))
        };
        // A pod of a headless service, a StatefulSet's name: the client chose (PAINS P27).
        if let Some(dialled) = choice.dialled
            && let Some(position) = self.dialled.get(&dialled.ip().to_canonical())
        {
            return Some(*position);
        }
        if let (Some(ring), Some(key)) = (&self.ring, choice.key) {
            let found =
                ring.pick(key, |position| usable(&(position as usize))).or_else(|| ring.pick(key, |_| true));
            return found.map(|position| position as usize);
        }
        for tier in &self.tiers {
            let group = tier.pick(u64::from(choice.rolls.0) << 32, |position| usable(&(position as usize)));
            if let Some(found) = group.and_then(|group| self.among(&group.endpoints, usable, choice)) {
                return Some(found);
            }
        }
        // Nothing is well, so anything will do; what was not tried yet first.
        let all: Vec<u32> = (0..self.in_tiers as u32).collect();
        self.among(&all, |position| !choice.tried.contains(position), choice)
            .or_else(|| self.among(&all, |_| true, choice))
    }

    fn among(&self, members: &[u32], usable: impl Fn(&usize) -> bool, choice: Choice<'_>) -> Option<usize> {
        if members.is_empty() {
            return None;
        }
        let from = |start: usize| {
            let around =
                (0..members.len()).map(move |offset| members[(start + offset) % members.len()] as usize);
            around.into_iter().find(|position| usable(position))
        };
        let at = |roll: u32| ((u64::from(roll) * members.len() as u64) >> 32) as usize;
        match self.policy.balancer {
            LoadBalancer::RoundRobin => {
                let start = self.next.get() % members.len();
                let found = from(start)?;
                let place = members.iter().position(|member| *member as usize == found)?;
                self.next.set(place + 1);
                Some(found)
            }
            LoadBalancer::Random | LoadBalancer::Passthrough | LoadBalancer::Hash { .. } => {
                from(at(choice.rolls.1))
            }
            LoadBalancer::LeastRequest => {
                let (one, two) = (from(at(choice.rolls.0.rotate_left(16)))?, from(at(choice.rolls.1))?);
                let load = |position: usize| self.peers[position].health.active.load(Relaxed);
                Some(if load(two) < load(one) { two } else { one })
            }
        }
    }
}
