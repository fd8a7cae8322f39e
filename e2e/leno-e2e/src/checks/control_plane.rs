//! The control plane away, in whole or in part, and what it needs: callers and servers go on.
//!
//! Invariant: whatever a check takes away it brings back, also when it fails.

use std::{io::Write as _, process::Command, thread::sleep, time::Duration};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::change::{restarts, route, scale};
use crate::{
    cluster::{Cluster, kube, said, until},
    load::{self, Edge},
    mesh::{APPS, Mesh},
};

const CONTROL: &str = "leno-control";
const OF_CONTROL: &str = "leno-system";

pub(super) fn control_is_lost(mesh: &Mesh) -> anyhow::Result<()> {
    load::unharmed(&mesh.west, || {
        mesh.west.run("-n leno-system delete pod -l app=leno-control --grace-period=0 --force")?;
        mesh.west.rolled_out(OF_CONTROL, CONTROL)
    })?;
    restarts(mesh, 1).context("the new control plane")
}

/// Something under load while no control plane runs.
fn without_control(mesh: &Mesh, change: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let outcome = load::unharmed(&mesh.west, || {
        scale(&mesh.west, OF_CONTROL, CONTROL, 0)?;
        change()
    });
    scale(&mesh.west, OF_CONTROL, CONTROL, 2)?;
    outcome
}

/// Every proxy of the servers ends while no control plane runs; kubelet starts it again, and it serves what it knew. Before
/// that it cannot have asked anybody.
pub(super) fn control_is_away(mesh: &Mesh) -> anyhow::Result<()> {
    without_control(mesh, || {
        let pods = mesh.west.items(&format!("pod -n {APPS} -l app=back"))?;
        pods.iter().try_for_each(|pod| restart_proxy(&mesh.west, pod))
    })
}

/// Until the pod is ready with another proxy.
fn restart_proxy(cluster: &Cluster, pod: &Value) -> anyhow::Result<()> {
    let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
    let node = pod["spec"]["nodeName"].as_str().context("a pod without a node")?;
    let before = proxy(pod)?;
    cluster.kill("SIGTERM", node, before["containerID"].as_str().context("a proxy that never ran")?)?;
    until(60, || {
        let pod = cluster.get(&format!("pod -n {APPS} {name}"))?;
        let after = proxy(&pod)?;
        ensure!(after["restartCount"] != before["restartCount"], "{name}'s proxy has not restarted");
        ensure!(after["ready"] == true, "{name}'s proxy is not ready: {after}");
        Ok(())
    })?;
    cluster.run(&format!("-n {APPS} wait pod {name} --for=condition=Ready --timeout=60s")).map(drop)
}

fn proxy(pod: &Value) -> anyhow::Result<&Value> {
    let containers = pod["status"]["initContainerStatuses"].as_array().into_iter().flatten();
    containers.into_iter().find(|it| it["name"] == "istio-proxy").context("a pod without a proxy")
}

/// Nobody tells the callers that the server is gone, and nothing takes its place: the webhook is away too.
pub(super) fn server_is_removed(mesh: &Mesh) -> anyhow::Result<()> {
    scale(&mesh.west, APPS, "back", 3)?;
    let outcome = without_control(mesh, || {
        let pods = mesh.west.items(&format!("pod -n {APPS} -l app=back"))?;
        let name = pods[0]["metadata"]["name"].as_str().context("a pod without a name")?;
        mesh.west.run(&format!("-n {APPS} delete pod {name} --timeout=60s"))?;
        sleep(Duration::from_secs(15));
        let left = mesh.west.items(&format!("pod -n {APPS} -l app=back"))?.len();
        ensure!(left == 2, "{left} servers are left of three");
        Ok(())
    });
    let scaled = scale(&mesh.west, APPS, "back", 2);
    outcome.and(scaled)
}

/// Pods that are there go on; a new one of an enrolled namespace is refused rather than started without a proxy, and others are
/// not asked about. A rollout that begins meanwhile waits, and ends by itself.
pub(super) fn webhook_is_away(mesh: &Mesh) -> anyhow::Result<()> {
    let west = &mesh.west;
    west.run("-n plain delete pod newcomer --ignore-not-found")?;
    without_control(mesh, || {
        match newcomer(west, APPS) {
            Ok(()) => bail!("a pod of an enrolled namespace was admitted without a proxy"),
            Err(error) => ensure!(format!("{error:#}").contains("failed calling webhook"), "{error:#}"),
        }
        newcomer(west, "plain")?;
        west.run("-n plain wait pod newcomer --for=condition=Ready --timeout=60s")?;
        let before = mesh.addresses(APPS, "back")?;
        west.run(&format!("-n {APPS} rollout restart deployment back"))?;
        sleep(Duration::from_secs(10));
        ensure!(mesh.addresses(APPS, "back")? == before, "servers are gone before new ones are there");
        scale(west, OF_CONTROL, CONTROL, 2)?;
        west.rolled_out(APPS, "back")?;
        until(60, || {
            let after = mesh.addresses(APPS, "back")?;
            ensure!(before.iter().all(|address| !after.contains(address)), "old servers are still there");
            Ok(())
        })
    })?;
    west.run("-n plain delete pod newcomer").map(drop)
}

fn newcomer(cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: newcomer, namespace: {namespace}}}, \
         spec: {{containers: [{{name: app, image: \"leno.test/standin:e2e\", imagePullPolicy: Never}}]}}}}"
    ))
}

/// The process ends, and is started again after a minute; afterwards everything is as it was. For some seconds Kubernetes then
/// calls every machine lost, and its DNS is without endpoints: nobody finds a name, in a mesh or not, so the load knows it.
pub(super) fn api_is_away(mesh: &Mesh) -> anyhow::Result<()> {
    let service = mesh.west.get(&format!("service -n {APPS} back"))?;
    let address = service["spec"]["clusterIP"].as_str();
    let edge = Edge { name: "nameless", server: "back", path: "/", rate: 250, node: None, address };
    edge.unharmed(&mesh.west, || {
        let down = api("down").map(|()| sleep(Duration::from_secs(60)));
        api("up")?;
        down?;
        until(60, || mesh.west.run("wait node --all --for=condition=Ready --timeout=1s").map(drop))?;
        mesh.west.rolled_out(OF_CONTROL, CONTROL)?;
        mesh.west.rolled_out(APPS, "back")
    })?;
    until(60, || mesh.leno("check").map(drop))?;
    restarts(mesh, 1).context("after the API server is back")
}

fn api(state: &str) -> anyhow::Result<()> {
    let arguments = ["api", "west", state];
    said(&arguments, &Command::new(kube()).args(arguments).output()?)?;
    let _closed = writeln!(std::io::stdout(), "# the API server is {state}");
    Ok(())
}

/// The pod that leads.
pub(super) fn leader(mesh: &Mesh) -> anyhow::Result<String> {
    let lease = mesh.west.get("lease -n leno-system leno-control")?;
    Ok(lease["spec"]["holderIdentity"].as_str().context("nobody leads")?.to_owned())
}

/// SIGKILL: the lease is not given back. Whoever leads next, statuses go on within the 15 s that `route` waits.
pub(super) fn leader_is_killed(mesh: &Mesh) -> anyhow::Result<()> {
    let pod = mesh.west.get(&format!("pod -n leno-system {}", leader(mesh)?))?;
    let node = pod["spec"]["nodeName"].as_str().context("a pod without a node")?;
    let container = pod["status"]["containerStatuses"][0]["containerID"].as_str();
    mesh.west.kill("SIGKILL", node, container.context("a control plane that never ran")?)?;
    route(mesh, "two")?;
    mesh.west.run(&format!("-n {APPS} delete httproute two"))?;
    mesh.west.rolled_out(OF_CONTROL, CONTROL)
}
