//! Servers that end under load: with their node, by SIGKILL, at once on SIGTERM.
//!
//! Invariant: what a server had received is known from notes that it writes into a folder of its node before it does
//! anything else, so that a request that failed without having been received is told from one that had.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    thread::{scope, sleep},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::change::scale;
use crate::{
    cluster::{Cluster, until},
    load::{Edge, Seen},
    mesh::{APPS, Mesh},
};

/// Seconds that pass between the first and the last failure that one end leads to.
const INSTANT: f64 = 0.2;

/// A node is cordoned and its pods are evicted. DNS and the load stay: a cluster of users has more than one CoreDNS.
pub(super) fn node_is_drained(mesh: &Mesh) -> anyhow::Result<()> {
    let west = &mesh.west;
    let stays = node_of(&west.items("pod -n kube-system -l k8s-app=kube-dns")?[0])?;
    let leaves = if stays == "west-0" { "west-1" } else { "west-0" };
    scale(west, APPS, "back", 4)?;
    let outcome = on_both(west, &stays, leaves).and_then(|()| {
        let edge =
            Edge { name: "drain", server: "back", path: "/", rate: 250, node: Some(&stays), address: None };
        edge.unharmed(west, || {
            west.run(&format!(
                "drain {leaves} --ignore-daemonsets --delete-emptydir-data --force --timeout=150s"
            ))?;
            west.rolled_out(APPS, "back")?;
            let left = west.items(&format!("pod -n {APPS} --field-selector=spec.nodeName={leaves}"))?;
            ensure!(left.is_empty(), "{} pods are left on {leaves}", left.len());
            Ok(())
        })
    });
    west.run(&format!("uncordon {leaves}"))?;
    scale(west, APPS, "back", 2)?;
    west.rolled_out("leno-system", "leno-control")?;
    outcome
}

/// Until both nodes have a server.
fn on_both(cluster: &Cluster, stays: &str, leaves: &str) -> anyhow::Result<()> {
    for (wanted, other) in [(leaves, stays), (stays, leaves)] {
        let pods = cluster.items(&format!("pod -n {APPS} -l app=back"))?;
        let nodes = pods.iter().map(node_of).collect::<anyhow::Result<Vec<_>>>()?;
        if !nodes.iter().any(|node| node == wanted) {
            cluster.run(&format!("cordon {other}"))?;
            let name = pods[0]["metadata"]["name"].as_str().context("a pod without a name")?;
            let moved = cluster.run(&format!("-n {APPS} delete pod {name}"));
            let moved = moved.and_then(|_| cluster.rolled_out(APPS, "back"));
            cluster.run(&format!("uncordon {other}"))?;
            moved?;
        }
    }
    Ok(())
}

fn node_of(pod: &Value) -> anyhow::Result<String> {
    Ok(pod["spec"]["nodeName"].as_str().context("a pod without a node")?.to_owned())
}

pub(super) fn application_is_killed(mesh: &Mesh) -> anyhow::Result<()> {
    ending(mesh, "till", "", ("the application killed", 2), |pods| {
        pods.iter().try_for_each(|pod| kill(mesh, pod, &["app"]))
    })
}

pub(super) fn application_and_proxy_are_killed(mesh: &Mesh) -> anyhow::Result<()> {
    ending(mesh, "counter", "", ("application and proxy killed", 2), |pods| {
        pods.iter().try_for_each(|pod| kill(mesh, pod, &["app", "istio-proxy"]))
    })
}

pub(super) fn server_closes_at_once(mesh: &Mesh) -> anyhow::Result<()> {
    let env = "{name: CLOSE_AT_ONCE, value: \"true\"}";
    ending(mesh, "brusque", env, ("rolling restarts x3 of a server that closes at once", 6), |_| {
        (0..3).try_for_each(|_| {
            mesh.west.run(&format!("-n {APPS} rollout restart deployment brusque"))?;
            mesh.west.rolled_out(APPS, "brusque")
        })
    })
}

/// Two servers of a name under a load whose requests take 20 ms, and something that ends them: no GET may fail, and no POST
/// but those that a server had received, or was receiving.
fn ending(
    mesh: &Mesh,
    name: &str,
    env: &str,
    (what, ends): (&str, usize),
    end: impl FnOnce(&[Value]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let notes = Notes::of(mesh, name)?;
    mesh.west.apply(&server(name, env, &notes.0))?;
    mesh.west.rolled_out(APPS, name)?;
    let edge = Edge { name, server: name, path: "/?x-leno-delay=20ms", rate: 250, node: None, address: None };
    let seen = edge.counted(&mesh.west, || end(&mesh.west.items(&format!("pod -n {APPS} -l app={name}"))?));
    crate::load::stop(&mesh.west)?;
    let judged = seen.and_then(|seen| judge(what, &seen, &notes.posts()?, ends));
    mesh.west.run(&format!("-n {APPS} delete deployment/{name} service/{name}"))?;
    judged
}

/// A request may be on its way to a server in the instant in which that ends, and nobody knows what became of it: those that
/// failed without having been received must lie within such an instant, as many as there were ends.
fn judge(what: &str, seen: &[Seen], received: &BTreeSet<u64>, ends: usize) -> anyhow::Result<()> {
    ensure!(!received.is_empty(), "no server has noted anything");
    let mut problems = Vec::new();
    for seen in seen {
        let Seen { kind, sent, failed, failures, .. } = seen;
        if *kind == "get" {
            say(&format!("{what}: {failed} of {sent} get failed"));
            problems.extend(seen.problem());
            continue;
        }
        ensure!(u64::try_from(failures.len())? == *failed, "{failed} POST failed, too many to tell each");
        let never = failures.iter().filter(|it| !received.contains(&it.number)).collect::<Vec<_>>();
        let count = never.len();
        say(&format!(
            "{what}: {failed} of {sent} post failed, {count} of them on their way and not received"
        ));
        let mut instants: Vec<f64> = Vec::new();
        for failure in &never {
            if instants.last().is_none_or(|began| failure.at_seconds > began + INSTANT) {
                instants.push(failure.at_seconds);
            }
        }
        if instants.len() > ends {
            let which = never.iter().map(|it| serde_json::json!(it).to_string()).collect::<Vec<_>>();
            let (times, which) = (instants.len(), which.join(", "));
            problems.push(format!(
                "POST failed unreceived at {times} moments, and {ends} servers ended: {which}"
            ));
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(())
}

fn say(line: &str) {
    let _closed = writeln!(std::io::stdout(), "# {line}");
}

/// Kills containers of a pod at the same moment, and waits until they run again.
fn kill(mesh: &Mesh, pod: &Value, containers: &[&str]) -> anyhow::Result<()> {
    let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
    let node = node_of(pod)?;
    scope(|threads| {
        let killing = containers.iter().map(|container| {
            let node = node.as_str();
            threads.spawn(move || {
                let id = status_of(pod, container)?["containerID"].as_str().context("it never ran")?;
                mesh.west.kill("SIGKILL", node, id)
            })
        });
        killing.collect::<Vec<_>>().into_iter().try_for_each(|it| it.join().expect("it does not panic"))
    })?;
    until(60, || {
        let now = mesh.west.get(&format!("pod -n {APPS} {name}"))?;
        for container in containers {
            let (before, after) = (status_of(pod, container)?, status_of(&now, container)?);
            ensure!(after["restartCount"] != before["restartCount"], "{container} was not restarted");
            ensure!(after["ready"] == true, "{container} is not ready: {after}");
        }
        Ok(())
    })?;
    mesh.west.run(&format!("-n {APPS} wait pod {name} --for=condition=Ready --timeout=60s"))?;
    sleep(Duration::from_secs(3));
    Ok(())
}

fn status_of<'a>(pod: &'a Value, container: &str) -> anyhow::Result<&'a Value> {
    let all = ["initContainerStatuses", "containerStatuses"].map(|of| pod["status"][of].as_array());
    let found = all.into_iter().flatten().flatten().find(|it| it["name"] == container);
    found.with_context(|| format!("a pod without {container}"))
}

/// What the servers of a name have noted: a folder of the machine that their pods mount.
struct Notes(PathBuf);

impl Notes {
    fn of(mesh: &Mesh, name: &str) -> anyhow::Result<Self> {
        let folder = fs::canonicalize(&mesh.evidence)?.join(format!("notes-{name}"));
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// Numbers of the POST requests that any of them has received.
    fn posts(&self) -> anyhow::Result<BTreeSet<u64>> {
        let mut numbers = BTreeSet::new();
        for file in fs::read_dir(&self.0)? {
            let text = fs::read_to_string(file?.path())?;
            numbers.extend(
                text.lines()
                    .filter_map(|line| line.strip_prefix("POST "))
                    .filter_map(|it| it.parse::<u64>().ok()),
            );
        }
        Ok(numbers)
    }
}

/// Two servers that note what they receive.
fn server(name: &str, env: &str, notes: &Path) -> String {
    let notes = notes.display();
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {APPS}}}, spec: {{selector: {{app: {name}}}, \
         ports: [{{name: http, port: 80, targetPort: 8080}}]}}}}\n---\n\
         {{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: {APPS}}}, spec: {{replicas: 2, \
         selector: {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}, version: v1}}}}, spec: {{\
         containers: [{{name: app, image: \"leno.test/standin:e2e\", imagePullPolicy: Never, \
         env: [{{name: APP, value: {name}}}, {{name: NOTES, value: /notes}}, {env}], \
         volumeMounts: [{{name: notes, mountPath: /notes}}], readinessProbe: {{httpGet: {{path: /ready, port: 8080}}, periodSeconds: 1}}}}], \
         volumes: [{{name: notes, hostPath: {{path: \"{notes}\", type: DirectoryOrCreate}}}}]}}}}}}}}"
    )
}
