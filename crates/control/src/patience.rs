//! What stays in force for a while when a route's subset is not defined, or no longer: references rarely change at one moment.
//!
//! A VirtualService that leads to a subset which its DestinationRule does not define yet stays as it was, and so does a rule whose
//! subset a route still needs. When the other half does not come, what is written is in force after its time (ADR 0018).
//!
//! Invariants: only what worked is kept, never longer than its time, and each object that is kept is among the reading's
//! `kept`; without anything undefined a reading is in force as it is.
//! Must not know: who sees which rule, what compiling makes of it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use leno_apis::{AnyObject, Diagnostic, Kind, ObjectRef};
use leno_compile::{
    ObjectKey, codes,
    subsets::{Undefined, undefined},
};
use leno_sources::Reading;
use tokio::time::Instant;

/// What is kept for one subset may leave another undefined, but not for ever.
const ROUNDS: usize = 4;

/// The memory: what is in force, and since when something is waited for.
#[derive(Default)]
pub(crate) struct Patience {
    /// How long the other half may take; zero: what is written is in force at once.
    time: Duration,
    wanted: Option<Arc<Reading>>,
    in_force: Option<Arc<Reading>>,
    waiting: Vec<(Undefined, Instant)>,
}

impl Patience {
    /// That waits so long.
    pub(crate) fn new(time: Duration) -> Self {
        Self { time, ..Self::default() }
    }

    /// What is in force of a reading now.
    pub(crate) fn in_force(&mut self, wanted: &Arc<Reading>, now: Instant) -> Arc<Reading> {
        let known = self.wanted.as_ref().is_some_and(|known| Arc::ptr_eq(known, wanted));
        if known
            && self.until().is_none_or(|until| now < until)
            && let Some(in_force) = &self.in_force
        {
            return in_force.clone();
        }
        let in_force = self.decide(wanted, now);
        self.wanted = Some(wanted.clone());
        self.in_force = Some(in_force.clone());
        in_force
    }

    /// When something that is kept goes.
    pub(crate) fn until(&self) -> Option<Instant> {
        let kept = self.in_force.as_ref().zip(self.wanted.as_ref()).is_some_and(|(a, b)| !Arc::ptr_eq(a, b));
        // Those that were waited for in vain are over, and no reason to look again.
        kept.then(|| self.waiting.iter().map(|(_, since)| *since + self.time).min()).flatten()
    }

    fn decide(&mut self, wanted: &Arc<Reading>, now: Instant) -> Arc<Reading> {
        let lacking = undefined_in(wanted);
        if lacking.is_empty() || self.time.is_zero() {
            self.waiting.clear();
            return wanted.clone();
        }
        let Some(before) = self.in_force.clone() else { return wanted.clone() };
        let lacked = self.wanted.as_deref().map(undefined_in).unwrap_or_default();
        // What is in force without its subset stays so, and what was waited for in vain is.
        let mut over = undefined_in(&before);
        self.waiting.retain(|(it, since)| now < *since + self.time && has(&lacking, it));
        for it in lacking {
            let waited_for = self.waiting.iter().any(|(waited, _)| waited.is_same(&it));
            if has(&lacked, &it) && !waited_for {
                over.insert(it);
            } else if !has(&over, &it) && !waited_for {
                self.waiting.push((it, now));
            }
        }
        let mut reading: Option<Reading> = None;
        for _ in 0..ROUNDS {
            let lacking = undefined_in(reading.as_ref().unwrap_or(wanted));
            let held = lacking.iter().filter(|it| !has(&over, it)).collect::<Vec<_>>();
            if held.is_empty() {
                break;
            }
            let reading = reading.get_or_insert_with(|| Reading::clone(wanted));
            held.into_iter().for_each(|it| keep(it, self.time, &before, reading));
        }
        reading.map_or_else(|| wanted.clone(), Arc::new)
    }
}

fn undefined_in(reading: &Reading) -> BTreeSet<Undefined> {
    undefined(reading.objects.values().map(|object| &**object))
}

fn has(all: &BTreeSet<Undefined>, one: &Undefined) -> bool {
    all.iter().any(|it| it.is_same(one))
}

/// Keeps the rules that defined a subset, or else the route that did not lead to it.
fn keep(lacking: &Undefined, time: Duration, before: &Reading, reading: &mut Reading) {
    let rules = before.objects.iter().filter(|(_, object)| lacking.is_defined_by(object));
    let rules = rules.map(|(name, rule)| (name.clone(), rule.clone())).collect::<Vec<_>>();
    let mut names = Vec::new();
    for (name, rule) in rules {
        if reading.objects.get(&name) != Some(&rule) {
            reading.objects.insert(name.clone(), rule);
            names.push(name);
        }
    }
    if names.is_empty()
        && let Some(name) = name_of(&lacking.route, reading)
    {
        match before.objects.get(&name) {
            Some(route) => reading.objects.insert(name.clone(), route.clone()),
            None => reading.objects.remove(&name),
        };
        names.push(name);
    }
    for name in names {
        let text = format!(
            "the subset {:?} of {} is not defined: what was in force before is, for {} s at most",
            lacking.subset,
            lacking.hosts.first().map_or("", String::as_str),
            time.as_secs()
        );
        let finding = Diagnostic::error(codes::UNKNOWN_SUBSET, lacking.at.clone(), text);
        reading.diagnostics.push(finding.about(name.clone()));
        reading.kept.insert(name);
    }
}

fn name_of(key: &ObjectKey, reading: &Reading) -> Option<ObjectRef> {
    debug_assert_eq!(key.kind, Kind::VirtualService);
    let found = |(_, object): &(&ObjectRef, &Arc<AnyObject>)| ObjectKey::of(object) == *key;
    reading.objects.iter().find(found).map(|(name, _)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "VirtualService";
    const RULE: &str = "DestinationRule";
    const TIME: Duration = Duration::from_secs(10);

    fn reading(objects: &[(&str, &str)]) -> Arc<Reading> {
        let mut reading = Reading::default();
        for (kind, subset) in objects {
            let spec = match *kind {
                ROUTE => format!(
                    "{{hosts: [back], http: [{{route: [{{destination: {{host: back, subset: {subset}}}}}]}}]}}"
                ),
                _ => format!("{{host: back, subsets: [{{name: {subset}, labels: {{version: v1}}}}]}}"),
            };
            let text = format!(
                "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: back, namespace: shop}}\nspec: {spec}\n"
            );
            let object = leno_apis::parse("x.yaml", &text).objects.remove(0);
            reading.objects.insert(object.reference(), object);
        }
        Arc::new(reading)
    }

    /// What is in force after each of some readings, a second apart.
    fn followed(readings: &[Arc<Reading>]) -> Vec<Arc<Reading>> {
        let (mut patience, start) = (Patience::new(TIME), Instant::now());
        let at = |index: usize| start + Duration::from_secs(u64::try_from(index).unwrap());
        let follow = |(index, wanted)| patience.in_force(wanted, at(index));
        readings.iter().enumerate().map(follow).collect()
    }

    #[test]
    fn a_route_waits_for_the_rule_of_its_subset() {
        let steps = [reading(&[]), reading(&[(ROUTE, "one")]), reading(&[(ROUTE, "one"), (RULE, "one")])];
        let seen = followed(&steps);
        assert!(seen[1].objects.is_empty());
        assert_eq!((seen[1].kept.len(), seen[1].diagnostics.len()), (1, 1));
        assert!(Arc::ptr_eq(&seen[2], &steps[2]));
    }

    #[test]
    fn a_rule_that_a_route_needs_stays_until_the_route_is_gone() {
        let both = reading(&[(ROUTE, "one"), (RULE, "one")]);
        let steps = [both.clone(), reading(&[(ROUTE, "one")]), reading(&[])];
        let seen = followed(&steps);
        assert_eq!(seen[1].objects, both.objects);
        assert!(seen[2].objects.is_empty());
        let renamed = [
            both.clone(),
            reading(&[(ROUTE, "one"), (RULE, "two")]),
            reading(&[(ROUTE, "two"), (RULE, "two")]),
        ];
        let seen = followed(&renamed);
        assert_eq!(seen[1].objects, both.objects);
        assert!(Arc::ptr_eq(&seen[2], &renamed[2]));
    }

    #[test]
    fn nothing_stays_longer_than_its_time_nor_again() {
        let (mut patience, start) = (Patience::new(TIME), Instant::now());
        patience.in_force(&reading(&[]), start);
        let wanted = reading(&[(ROUTE, "one")]);
        assert!(patience.in_force(&wanted, start).objects.is_empty());
        assert_eq!(patience.until(), Some(start + TIME));
        let late = start + TIME;
        assert!(Arc::ptr_eq(&patience.in_force(&wanted, late), &wanted));
        assert_eq!(patience.until(), None);
        // A new reading with the same mistake, and another object beside it.
        let again = reading(&[(ROUTE, "one"), (RULE, "two")]);
        assert!(Arc::ptr_eq(&patience.in_force(&again, late), &again));
    }

    #[test]
    fn without_time_nothing_is_kept() {
        let (mut patience, start) = (Patience::new(Duration::ZERO), Instant::now());
        patience.in_force(&reading(&[]), start);
        let wanted = reading(&[(ROUTE, "one")]);
        assert!(Arc::ptr_eq(&patience.in_force(&wanted, start), &wanted));
        assert_eq!(patience.until(), None);
    }

    #[test]
    fn what_is_undefined_from_the_start_is_in_force() {
        let wanted = reading(&[(ROUTE, "one")]);
        let (mut patience, start) = (Patience::new(TIME), Instant::now());
        assert!(Arc::ptr_eq(&patience.in_force(&wanted, start), &wanted));
        assert_eq!(patience.until(), None);
    }
}
