//! Incremental compilation equals full compilation, whatever the changes and their order.
//!
//! The worlds and their changes: `property/worlds.rs`.

use proptest::prelude::*;

use super::*;
use crate::{Change, Compiler, Delta, ObjectKey, RemoteCluster};

mod worlds;

use worlds::{mesh_wide, pool, remotes, rules};

/// One step of a batch: an object of the pool comes or goes, or other clusters say something else.
#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    Delete(usize),
    /// Goes and comes back within one batch.
    Recreate(usize),
    Remotes(usize),
}

fn step(pool: usize, remotes: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..pool).prop_map(Step::Put),
        6 => (0..pool).prop_map(Step::Delete),
        2 => (0..pool).prop_map(Step::Recreate),
        2 => (0..remotes).prop_map(Step::Remotes),
    ]
}

fn changes(pool: &[Arc<AnyObject>], batch: &[Step]) -> Vec<Change> {
    let delete = |index: usize| Change::delete(ObjectKey::of(&pool[index]));
    let put = |index: usize| Change::put(pool[index].clone());
    let of = |step: &Step| match *step {
        Step::Put(index) => vec![put(index)],
        Step::Delete(index) => vec![delete(index)],
        Step::Recreate(index) => vec![delete(index), put(index)],
        Step::Remotes(_) => Vec::new(),
    };
    batch.iter().flat_map(of).collect()
}

/// What a consumer of deltas has after a delta.
fn patched(mut before: Compiled, delta: Delta, after: &Compiled) -> Compiled {
    before.resources.retain(|key, _| !delta.removed.contains(key));
    before.resources.extend(delta.changed);
    for (key, status) in delta.statuses {
        match status {
            Some(status) => before.statuses.insert(key, status),
            None => before.statuses.remove(&key),
        };
    }
    if delta.diagnostics {
        before.diagnostics.clone_from(&after.diagnostics);
    }
    if delta.exports {
        before.exports.clone_from(&after.exports);
    }
    if delta.gateways {
        before.gateways.clone_from(&after.gateways);
    }
    before
}

/// Few, unless `PROPTEST_CASES` asks for another number than proptest's own default.
fn cases() -> u32 {
    match ProptestConfig::default().cases {
        256 => 64,
        asked => asked,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]
    #[test]
    fn incremental_equals_full(
        start in prop::collection::btree_set(0..pool().len(), 0..pool().len()),
        batches in prop::collection::vec(prop::collection::vec(step(pool().len(), remotes().len()), 1..4), 1..10),
    ) {
        let pool = pool();
        let remotes = remotes();
        let settings = MeshSettings::default();
        let mut world = World::of(start.into_iter().map(|index| pool[index].clone()));
        let mut said: Vec<RemoteCluster> = Vec::new();
        let mut compiler = Compiler::new(world.clone(), settings.clone(), Vec::new());
        for batch in &batches {
            let before = compiler.compiled().clone();
            let changes = changes(&pool, batch);
            changes.iter().for_each(|change| { world.apply(change); });
            let delta = compiler.update(&changes);
            let seen = patched(before, delta, compiler.compiled());
            prop_assert_eq!(&seen, compiler.compiled(), "what a delta tells is what changed");
            for step in batch {
                if let Step::Remotes(which) = step {
                    said.clone_from(&remotes[*which]);
                    let before = compiler.compiled().clone();
                    let delta = compiler.update_remotes(said.clone());
                    let seen = patched(before, delta, compiler.compiled());
                    prop_assert_eq!(&seen, compiler.compiled(), "what a delta tells is what changed");
                }
            }
            let full = compile(&world, &settings, &said);
            prop_assert_eq!(compiler.compiled(), &full);
        }
    }
}

/// A generator that makes no world in which something happens tests nothing.
#[test]
fn the_pool_has_every_kind_that_is_used_and_most_of_what_it_can_mean() {
    let pool = pool();
    let kinds: std::collections::BTreeSet<Kind> = pool.iter().map(|object| object.kind()).collect();
    let used = leno_apis::kind::KINDS.iter().filter(|info| info.support == leno_apis::kind::Support::Used);
    // What has pods is turned into pods before it is compiled.
    let by_pods = [Kind::ReplicaSet, Kind::StatefulSet, Kind::DaemonSet, Kind::ServiceAccount];
    for info in used.filter(|info| !by_pods.contains(&info.kind)) {
        assert!(kinds.contains(&info.kind), "{}", info.name);
    }
    let refused = pool.iter().filter(|object| matches!(&***object, AnyObject::Refused(_)));
    assert!(refused.count() >= 6);
    let said = remotes();
    // The last of several with one key counts, so that these are the good ones.
    let world = World::of(pool.into_iter().rev());
    let compiled = compile(&world, &MeshSettings::default(), &said[said.len() - 1]);
    let codes: std::collections::BTreeSet<_> = codes(&compiled).into_iter().collect();
    assert!(codes.len() >= 4, "{codes:?}");
    assert!(compiled.resources.len() >= 40, "{}", compiled.resources.len());
    assert!(compiled.gateways().len() >= 2 && !compiled.exports.is_empty());
}

#[test]
fn a_change_of_one_pod_recomputes_only_what_reads_it() {
    let yaml: String = (0..50).map(|nth| application("a", &format!("s{nth}"))).collect();
    let all = objects(&yaml);
    let pod = all.iter().find(|object| object.kind() == Kind::Pod).unwrap().clone();
    let mut compiler = Compiler::new(World::of(all), MeshSettings::default(), Vec::new());
    let AnyObject::Pod(pod) = pod.as_ref() else { unreachable!() };
    let mut changed = pod.clone();
    changed.spec.status.ready = false;
    let delta = compiler.update(&[Change::put(Arc::new(AnyObject::Pod(changed)))]);
    assert!(delta.recomputed <= 4, "{}", delta.recomputed);
    assert_eq!(delta.changed.len(), 1, "{:?}", delta.changed.keys());
}

#[test]
fn two_hundred_services_compile_and_one_route_s_change_costs_a_few_units() {
    let mut yaml: String =
        (0..200).map(|nth| application(&format!("n{}", nth % 10), &format!("s{nth}"))).collect();
    yaml.push_str(&rules("a"));
    yaml.push_str(&mesh_wide());
    let all = objects(&yaml);
    let route = all.iter().find(|object| object.kind() == Kind::HttpRoute).unwrap().clone();
    let mut compiler = Compiler::new(World::of(all), MeshSettings::default(), Vec::new());
    let delta = compiler.update(&[Change::delete(ObjectKey::of(&route))]);
    assert!(delta.recomputed <= 6, "{}", delta.recomputed);
}
