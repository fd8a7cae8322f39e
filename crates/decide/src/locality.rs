//! Which endpoints come first by where they are.
//!
//! A tier is used while it has at least one usable endpoint; only then comes the next. There is no partial spill: what a
//! tier can bear is the business of ejection and limits, and this is independent of both (PAINS P12).
//! Invariant: every candidate is in exactly one tier, except those that `distribute` gives no share.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use leno_model::{Endpoint, EndpointSet, EndpointState, Locality, LocalityPolicy, Port, Subset};

use crate::{matching::has_labels, route::scale, tables::WhoAmI};

/// Endpoints of equal nearness, in groups that share the tier's traffic by weight.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Tier {
    /// One group, or one for each place of a `distribute` rule.
    pub groups: Vec<Group>,
}

/// Endpoints that share one part of a tier's traffic, as indexes into the endpoint set.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Group {
    /// Its share of the tier, relative to the other groups.
    pub weight: u32,
    /// The endpoints.
    pub endpoints: Vec<u32>,
}

impl Tier {
    /// All its endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = u32> + '_ {
        self.groups.iter().flat_map(|group| group.endpoints.iter().copied())
    }

    /// The group for a uniform roll among those that have a usable endpoint; `None` when none has.
    pub fn pick(&self, roll: u64, is_usable: impl Fn(u32) -> bool) -> Option<&Group> {
        if let [only] = self.groups.as_slice() {
            return only.endpoints.iter().any(|at| is_usable(*at)).then_some(only);
        }
        let usable = || self.groups.iter().filter(|group| group.endpoints.iter().any(|at| is_usable(*at)));
        let mut at = scale(roll, usable().map(|group| u64::from(group.weight)).sum());
        usable().find(|group| {
            let here = at < u64::from(group.weight);
            at = at.saturating_sub(u64::from(group.weight));
            here
        })
    }
}

/// The endpoints of a port and subset that take new work.
pub fn candidates(set: &EndpointSet, port: Port, subset: Option<&Subset>) -> Vec<u32> {
    let takes = |endpoint: &Endpoint| {
        endpoint.state == EndpointState::Ready
            && endpoint.ports.contains_key(&port)
            && subset.is_none_or(|subset| has_labels(&endpoint.labels, &subset.labels))
    };
    let indexed = set.endpoints.iter().enumerate();
    indexed.filter(|(_, endpoint)| takes(endpoint)).map(|(at, _)| at as u32).collect()
}

/// Orders candidates into tiers, nearest first. Without a policy there is one tier.
pub fn tiers(set: &EndpointSet, candidates: &[u32], me: &WhoAmI, policy: &LocalityPolicy) -> Vec<Tier> {
    if candidates.is_empty() {
        return Vec::new();
    }
    let LocalityPolicy { enabled, distribute, failover, failover_priority } = policy;
    if !enabled {
        return vec![single(candidates.to_vec())];
    }
    let mine = distribute.iter().filter(|rule| covers(&rule.from, &me.locality));
    if let Some(rule) = mine.max_by_key(|rule| depth(&rule.from)) {
        return distributed(set, candidates, &rule.to);
    }
    let mut by_distance: BTreeMap<(usize, u8), Vec<u32>> = BTreeMap::new();
    for at in candidates {
        let Some(endpoint) = set.endpoints.get(*at as usize) else { continue };
        let priority = unlike(me, endpoint, failover_priority);
        let distance = (priority, distance(&me.locality, &endpoint.locality, failover));
        by_distance.entry(distance).or_default().push(*at);
    }
    by_distance.into_values().map(single).collect()
}

fn single(endpoints: Vec<u32>) -> Tier {
    Tier { groups: vec![Group { weight: 1, endpoints }] }
}

/// 0: same subzone, 1: same zone, 2: same region, 3: the region that this one fails over to, 4: elsewhere.
fn distance(mine: &Locality, theirs: &Locality, failover: &[(Arc<str>, Arc<str>)]) -> u8 {
    if mine.region.is_empty() {
        return 0;
    }
    if mine.region != theirs.region {
        let is_next = failover.iter().any(|(from, to)| *from == mine.region && *to == theirs.region);
        return if is_next { 3 } else { 4 };
    }
    match (mine.zone == theirs.zone, mine.subzone == theirs.subzone) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

/// How many of the labels, from the first that differs, are not shared (istio `failoverPriority`).
fn unlike(me: &WhoAmI, endpoint: &Endpoint, labels: &[Arc<str>]) -> usize {
    let shared = labels.iter().take_while(|label| match label.split_once('=') {
        // istio: `key=value` asks for that value at the endpoint, whatever the caller's.
        Some((key, value)) => label_of(&endpoint.labels, key, Place::of(endpoint)) == Some(value),
        None => {
            let own = label_of(
                &me.labels,
                label,
                Place { locality: &me.locality, network: me.network.as_str(), cluster: me.cluster.as_str() },
            );
            own == label_of(&endpoint.labels, label, Place::of(endpoint))
        }
    });
    labels.len() - shared.count()
}

#[derive(Clone, Copy)]
struct Place<'p> {
    locality: &'p Locality,
    network: &'p str,
    cluster: &'p str,
}

impl<'p> Place<'p> {
    fn of(endpoint: &'p Endpoint) -> Self {
        Self {
            locality: &endpoint.locality,
            network: endpoint.network.as_str(),
            cluster: endpoint.cluster.as_str(),
        }
    }
}

fn label_of<'l>(labels: &'l BTreeMap<Arc<str>, Arc<str>>, key: &str, place: Place<'l>) -> Option<&'l str> {
    match key {
        "topology.kubernetes.io/region" => Some(&place.locality.region),
        "topology.kubernetes.io/zone" => Some(&place.locality.zone),
        "topology.istio.io/subzone" => Some(&place.locality.subzone),
        "topology.istio.io/network" => Some(place.network),
        "topology.istio.io/cluster" => Some(place.cluster),
        _ => labels.get(key).map(|value| &**value),
    }
}

/// istio `distribute`: each place gets its share; an endpoint counts for the most exact place; other places get nothing.
fn distributed(set: &EndpointSet, candidates: &[u32], to: &[(Locality, u32)]) -> Vec<Tier> {
    let mut groups: Vec<Group> =
        to.iter().map(|(_, share)| Group { weight: *share, endpoints: Vec::new() }).collect();
    for at in candidates {
        let Some(endpoint) = set.endpoints.get(*at as usize) else { continue };
        let places = to.iter().enumerate().filter(|(_, (place, _))| covers(place, &endpoint.locality));
        let best = places.min_by_key(|(nth, (place, _))| (Reverse(depth(place)), *nth));
        if let Some(group) = best.and_then(|(nth, _)| groups.get_mut(nth)) {
            group.endpoints.push(*at);
        }
    }
    groups.retain(|group| group.weight > 0 && !group.endpoints.is_empty());
    if groups.is_empty() { Vec::new() } else { vec![Tier { groups }] }
}

/// Whether a place is within another, whose empty parts match all.
fn covers(wide: &Locality, place: &Locality) -> bool {
    let part = |wide: &str, part: &str| wide.is_empty() || wide == "*" || wide == part;
    part(&wide.region, &place.region) && part(&wide.zone, &place.zone) && part(&wide.subzone, &place.subzone)
}

fn depth(place: &Locality) -> usize {
    let is_given = |part: &&Arc<str>| !part.is_empty() && ***part != *"*";
    [&place.region, &place.zone, &place.subzone].into_iter().filter(is_given).count()
}

#[cfg(test)]
mod tests;
