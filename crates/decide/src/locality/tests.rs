//! Nearness, failover and fixed shares.

use leno_model::{LocalityRule, ServiceId, Tunnel, Weight, WorkloadId};
use proptest::prelude::*;

use super::*;

#[test]
fn nearer_endpoints_come_first_and_the_region_failed_over_to_before_others() {
    let set = set(&["eu/a/1", "eu/a/2", "eu/b/1", "us/a/1", "ap/a/1"]);
    let policy = LocalityPolicy {
        enabled: true,
        failover: vec![("eu".into(), "us".into())],
        ..LocalityPolicy::default()
    };
    assert_eq!(indexes(&ordered(&set, &policy)), [vec![0], vec![1], vec![2], vec![3], vec![4]]);
}

#[test]
fn without_a_policy_or_a_place_there_is_one_tier() {
    let set = set(&["eu/a/1", "us/a/1"]);
    assert_eq!(indexes(&ordered(&set, &LocalityPolicy::default())), [vec![0, 1]]);
    let nowhere = WhoAmI::new(WorkloadId::new("web", "front"));
    let enabled = LocalityPolicy { enabled: true, ..LocalityPolicy::default() };
    assert_eq!(indexes(&tiers(&set, &[0, 1], &nowhere, &enabled)), [vec![0, 1]]);
}

#[test]
fn distribute_gives_each_place_its_share_and_other_places_none() {
    let set = set(&["eu/a/1", "eu/b/1", "us/a/1"]);
    let rule = LocalityRule { from: place("eu"), to: vec![(place("eu/a"), 80), (place("eu"), 20)] };
    let policy = LocalityPolicy { enabled: true, distribute: vec![rule], ..LocalityPolicy::default() };
    let tiers = ordered(&set, &policy);
    let groups: Vec<_> =
        tiers[0].groups.iter().map(|group| (group.weight, group.endpoints.clone())).collect();
    assert_eq!((tiers.len(), groups), (1, vec![(80, vec![0]), (20, vec![1])]));
    // A place without a usable endpoint leaves its share to the others.
    assert_eq!(tiers[0].pick(0, |at| at == 1).map(|group| group.weight), Some(20));
    assert!(tiers[0].pick(0, |_| false).is_none());
}

#[test]
fn failover_priority_orders_by_shared_labels_before_place() {
    let mut set = set(&["us/a/1", "eu/a/1"]);
    set.endpoints[0].labels.insert("version".into(), "v1".into());
    let mut me = me();
    me.labels.insert("version".into(), "v1".into());
    let policy = LocalityPolicy {
        enabled: true,
        failover_priority: vec!["version".into()],
        ..LocalityPolicy::default()
    };
    assert_eq!(indexes(&tiers(&set, &[0, 1], &me, &policy)), [vec![0], vec![1]]);
}

#[test]
fn only_ready_endpoints_of_the_port_and_subset_are_candidates() {
    let mut set = set(&["eu/a/1", "eu/a/1", "eu/a/1"]);
    set.endpoints[0].state = EndpointState::Draining;
    set.endpoints[1].labels.insert("version".into(), "v2".into());
    assert_eq!(candidates(&set, 80, None), [1, 2]);
    assert!(candidates(&set, 81, None).is_empty());
    let subset = Subset {
        name: "v2".into(),
        labels: [("version".into(), "v2".into())].into(),
        policy: None,
        port_policies: BTreeMap::new(),
        origin: leno_model::Origin::default(),
    };
    assert_eq!(candidates(&set, 80, Some(&subset)), [1]);
}

proptest! {
    #[test]
    fn every_candidate_is_in_exactly_one_tier(places in proptest::collection::vec("(eu|us|ap)/[ab]/[12]", 0..12)) {
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        let set = set(&places);
        let policy = LocalityPolicy { enabled: true, ..LocalityPolicy::default() };
        let mut found: Vec<u32> = ordered(&set, &policy).iter().flat_map(|tier| tier.endpoints().collect::<Vec<_>>()).collect();
        found.sort_unstable();
        prop_assert_eq!(found, (0..places.len() as u32).collect::<Vec<_>>());
    }
}

fn ordered(set: &EndpointSet, policy: &LocalityPolicy) -> Vec<Tier> {
    tiers(set, &candidates(set, 80, None), &me(), policy)
}

fn indexes(tiers: &[Tier]) -> Vec<Vec<u32>> {
    tiers.iter().map(|tier| tier.endpoints().collect()).collect()
}

fn me() -> WhoAmI {
    WhoAmI { locality: place("eu/a/1"), ..WhoAmI::new(WorkloadId::new("web", "front")) }
}

fn place(text: &str) -> Locality {
    let mut parts = text.split('/').map(Arc::from);
    let mut next = || parts.next().unwrap_or_default();
    Locality { region: next(), zone: next(), subzone: next() }
}

fn set(places: &[&str]) -> EndpointSet {
    let endpoint = |(nth, locality): (usize, &&str)| Endpoint {
        workload: WorkloadId::new("shop", &format!("cart-{nth}")),
        uid: "".into(),
        address: [10, 0, 0, nth as u8].into(),
        ports: [(80, 8080)].into(),
        tunnel: Tunnel::Mesh,
        identity: None,
        state: EndpointState::Ready,
        locality: place(locality),
        cluster: "one".into(),
        network: "".into(),
        labels: BTreeMap::new(),
        owner: "cart".into(),
        weight: Weight(1),
    };
    EndpointSet {
        service: ServiceId::kubernetes("shop", "cart"),
        endpoints: places.iter().enumerate().map(endpoint).collect(),
        stale: vec![],
    }
}
