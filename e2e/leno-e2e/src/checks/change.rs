//! Restarts and scaling under load, and what is told of a route.

use anyhow::ensure;

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
pub(super) fn scale(
    cluster: &Cluster,
    namespace: &str,
    deployment: &str,
    replicas: usize,
) -> anyhow::Result<()> {
    cluster.run(&format!("-n {namespace} scale deployment {deployment} --replicas={replicas}"))?;
    cluster.rolled_out(namespace, deployment)?;
    until(60, || {
        let pods = cluster.items(&format!("pod -n {namespace} -l app={deployment}"))?;
        ensure!(pods.len() == replicas, "{} pods instead of {replicas}", pods.len());
        Ok(())
    })
}

/// A route, and until every proxy has it.
pub(super) fn route(mesh: &Mesh, name: &str) -> anyhow::Result<()> {
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
