//! Routes to subsets and the rules that define them, applied and taken away in each order.
//!
//! Invariant: no order of the same objects fails a request.

use std::{thread::sleep, time::Duration};

use anyhow::ensure;

use crate::{
    cluster::Cluster,
    load,
    mesh::{APPS, Mesh},
};

/// One thing that is done; 2 s pass after it.
#[derive(Clone, Copy)]
enum Step {
    /// The route leads to this subset.
    Route(&'static str),
    /// The rule defines this subset, alone.
    Rule(&'static str),
    Both(&'static str),
    NoRoute,
    NoRule,
}
use Step::{Both, NoRoute, NoRule, Route, Rule};

const ORDERS: [(&str, &[Step]); 5] = [
    ("the rule 2 s after the route", &[Route("one"), Rule("one"), NoRoute, NoRule]),
    ("the route 2 s after the rule", &[Rule("one"), Route("one"), NoRoute, NoRule]),
    ("both at once", &[Both("one"), NoRoute, NoRule]),
    ("the rule taken away 2 s before the route", &[Both("one"), NoRule, NoRoute]),
    (
        "the subset renamed 2 s before the route follows",
        &[Both("one"), Rule("two"), Route("two"), NoRoute, NoRule],
    ),
];

pub(super) fn of_routes_and_rules(mesh: &Mesh) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for (name, steps) in ORDERS {
        let outcome = load::unharmed(&mesh.west, || {
            steps.iter().try_for_each(|step| {
                step.take(&mesh.west)?;
                sleep(Duration::from_secs(2));
                Ok(())
            })
        });
        problems.extend(outcome.err().map(|error| format!("{name}: {error:#}")));
        for step in [NoRoute, NoRule] {
            step.take(&mesh.west)?;
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(())
}

impl Step {
    fn take(self, cluster: &Cluster) -> anyhow::Result<()> {
        match self {
            Route(subset) => cluster.apply(&route(subset)),
            Rule(subset) => cluster.apply(&rule(subset)),
            Both(subset) => cluster.apply(&format!("{}\n---\n{}", route(subset), rule(subset))),
            NoRoute => gone(cluster, "virtualservice"),
            NoRule => gone(cluster, "destinationrule"),
        }
    }
}

fn gone(cluster: &Cluster, kind: &str) -> anyhow::Result<()> {
    cluster.run(&format!("-n {APPS} delete {kind} back --ignore-not-found")).map(drop)
}

fn route(subset: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: back, namespace: {APPS}}}, spec: {{\
         hosts: [back], http: [{{route: [{{destination: {{host: back, subset: {subset}}}}}]}}]}}}}"
    )
}

fn rule(subset: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: back, namespace: {APPS}}}, spec: {{\
         host: back, subsets: [{{name: {subset}, labels: {{version: v1}}}}]}}}}"
    )
}
