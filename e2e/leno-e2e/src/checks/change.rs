//! What changes under load, and who leads.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    cluster::{Cluster, until},
    load,
    mesh::{APPS, Mesh},
};

pub(super) fn restarts(mesh: &Mesh, times: usize) -> anyhow::Result<()> {
    load::unharmed(&mesh.west, || {
        for _ in 0..times {
            mesh.west.run(&format!("-n {APPS} rollout restart deployment back"))?;
            mesh.west.rolled_out(APPS, "back")?;
        }
        Ok(())
    })
}

pub(super) fn scales(mesh: &Mesh) -> anyhow::Result<()> {
    let outcome = load::unharmed(&mesh.west, || {
        for replicas in [1, 5, 1] {
            scale(&mesh.west, APPS, "back", replicas)?;
        }
        Ok(())
    });
    scale(&mesh.west, APPS, "back", 2)?;
    outcome
}

/// Until exactly so many pods are there, all ready.
fn scale(cluster: &Cluster, namespace: &str, deployment: &str, replicas: usize) -> anyhow::Result<()> {
    cluster.run(&format!("-n {namespace} scale deployment {deployment} --replicas={replicas}"))?;
    cluster.rolled_out(namespace, deployment)?;
    until(60, || {
        let pods = cluster.items(&format!("pod -n {namespace} -l app={deployment}"))?;
        ensure!(pods.len() == replicas, "{} pods instead of {replicas}", pods.len());
        Ok(())
    })
}

pub(super) fn control_is_lost(mesh: &Mesh) -> anyhow::Result<()> {
    load::unharmed(&mesh.west, || {
        mesh.west.run("-n leno-system delete pod -l app=leno-control --grace-period=0 --force")?;
        mesh.west.rolled_out("leno-system", "leno-control")
    })?;
    restarts(mesh, 1).context("the new control plane")
}

/// Every proxy of the servers ends while no control plane runs; kubelet starts it again, and it serves what it knew. Before
/// that it cannot have asked anybody.
pub(super) fn control_is_away(mesh: &Mesh) -> anyhow::Result<()> {
    let outcome = load::unharmed(&mesh.west, || {
        scale(&mesh.west, "leno-system", "leno-control", 0)?;
        for pod in mesh.west.items(&format!("pod -n {APPS} -l app=back"))? {
            restart_proxy(&mesh.west, &pod)?;
        }
        Ok(())
    });
    scale(&mesh.west, "leno-system", "leno-control", 2)?;
    outcome
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

/// The pod that leads.
pub(super) fn leader(mesh: &Mesh) -> anyhow::Result<String> {
    let lease = mesh.west.get("lease -n leno-system leno-control")?;
    Ok(lease["spec"]["holderIdentity"].as_str().context("nobody leads")?.to_owned())
}

/// A route, and until every proxy has it.
fn route(mesh: &Mesh, name: &str) -> anyhow::Result<()> {
    mesh.west.apply(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: {name}, namespace: {APPS}}}, spec: {{\
         parentRefs: [{{kind: Service, group: \"\", name: back, port: 80}}], rules: [{{matches: [{{path: {{value: /{name}}}}}], \
         filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-route, value: {name}}}]}}}}], \
         backendRefs: [{{name: back, port: 80}}]}}]}}}}"
    ))?;
    let path = "jsonpath={.status.parents[0].conditions[?(@.type==\"leno.dev/Acknowledged\")].status}=True";
    let route = format!("httproute/{name}");
    mesh.west.ctl(&["-n", APPS, "wait", &route, &format!("--for={path}"), "--timeout=15s"])?;
    Ok(())
}

pub(super) fn status(mesh: &Mesh) -> anyhow::Result<()> {
    route(mesh, "one")?;
    let conditions = mesh.west.get(&format!("httproute -n {APPS} one"))?["status"].to_string();
    for wanted in ["\"type\":\"Accepted\"", "\"type\":\"ResolvedRefs\""] {
        ensure!(conditions.contains(wanted), "no {wanted}: {conditions}");
    }
    mesh.west.run(&format!("-n {APPS} delete httproute one")).map(drop)
}

/// SIGKILL: the lease is not given back. Whoever leads next, statuses go on within the 15 s that `route` waits.
pub(super) fn leader_is_killed(mesh: &Mesh) -> anyhow::Result<()> {
    let pod = mesh.west.get(&format!("pod -n leno-system {}", leader(mesh)?))?;
    let node = pod["spec"]["nodeName"].as_str().context("a pod without a node")?;
    let container = pod["status"]["containerStatuses"][0]["containerID"].as_str();
    mesh.west.kill("SIGKILL", node, container.context("a control plane that never ran")?)?;
    route(mesh, "two")?;
    mesh.west.run(&format!("-n {APPS} delete httproute two"))?;
    mesh.west.rolled_out("leno-system", "leno-control")
}
