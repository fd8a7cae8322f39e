//! The first milliseconds of servers and clients: mutual TLS or nothing.
//!
//! Invariant: servers are called all the time while they start, by a client of the mesh and by one outside it.

use std::{io::Write as _, thread::sleep, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{change::scale, traffic::counted};
use crate::mesh::{APPS, Mesh};

/// What an answer contains when its request came over mutual TLS.
const CERTIFICATE: &str = "x-forwarded-client-cert";

/// Its Service leads to pods that are not ready: callers reach a server as soon as its pod has an address.
pub(super) fn of_servers(mesh: &Mesh) -> anyhow::Result<()> {
    let west = &mesh.west;
    crate::load::stop(west)?;
    west.apply(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: early, namespace: {APPS}}}, spec: {{selector: {{app: early}}, \
         publishNotReadyAddresses: true, ports: [{{name: http, port: 80, targetPort: 8080}}]}}}}\n---\n\
         {{apiVersion: apps/v1, kind: Deployment, metadata: {{name: early, namespace: {APPS}}}, spec: {{replicas: 0, \
         selector: {{matchLabels: {{app: early}}}}, template: {{metadata: {{labels: {{app: early, version: v1}}}}, spec: {{\
         containers: [{{name: app, image: \"leno.test/standin:e2e\", imagePullPolicy: Never}}]}}}}}}}}\n---\n{}\n---\n{}",
        caller(APPS, "http://early/"),
        caller("plain", "http://early.shop/")
    ))?;
    for namespace in [APPS, "plain"] {
        west.run(&format!("-n {namespace} wait pod early-caller --for=condition=Ready --timeout=60s"))?;
    }
    let called = (0..4).try_for_each(|_| {
        scale(west, APPS, "early", 1)?;
        sleep(Duration::from_secs(2));
        scale(west, APPS, "early", 0)
    });
    sleep(Duration::from_secs(2));
    let (inside, outside) = (totals(mesh, APPS), totals(mesh, "plain"));
    for namespace in [APPS, "plain"] {
        west.run(&format!("-n {namespace} delete pod early-caller"))?;
    }
    west.run(&format!("-n {APPS} delete deployment/early service/early"))?;
    called?;
    let (inside, outside) = (inside?, outside?);
    let counts = |of: &Value, names: [&str; 2]| of[names[0]][names[1]].as_u64().unwrap_or(0);
    let answered = counts(&inside, ["by_status", "200"]);
    let mutual = counts(&inside, ["by_label", CERTIFICATE]);
    let refused = counts(&outside, ["by_error", "broken"]);
    let _closed = writeln!(
        std::io::stdout(),
        "# {answered} answers to the mesh while a server starts x4, {mutual} of them over mutual TLS; {refused} refusals outside it"
    );
    ensure!(answered > 0 && answered == mutual, "inside: {inside}");
    ensure!(refused > 0, "nobody outside has reached the server: {outside}");
    ensure!(outside["by_status"].as_object().is_some_and(serde_json::Map::is_empty), "outside: {outside}");
    Ok(())
}

/// A load from the first moment on, which counts the answers to requests that came over mutual TLS.
fn caller(namespace: &str, url: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: early-caller, namespace: {namespace}}}, spec: {{containers: [{{name: app, \
         image: \"leno.test/standin:e2e\", imagePullPolicy: Never, args: [load, --rate, \"200\", --count, {CERTIFICATE}, \"{url}\"]}}]}}}}"
    )
}

fn totals(mesh: &Mesh, namespace: &str) -> anyhow::Result<Value> {
    let text = mesh.west.run(&format!("-n {namespace} logs early-caller -c app --tail=1"))?;
    serde_json::from_str(&text).with_context(|| format!("the caller in {namespace} says `{text}`"))
}

/// The first thing that an init container and an application do is a call.
pub(super) fn of_clients(mesh: &Mesh) -> anyhow::Result<()> {
    const PODS: usize = 8;
    let west = &mesh.west;
    let before = counted(mesh, APPS, "back", 15020, "none")?;
    west.run(&format!("-n {APPS} delete job first --ignore-not-found"))?;
    let calls = "image: \"leno.test/standin:e2e\", imagePullPolicy: Never, args: [get, \"http://back/\"]";
    west.apply(&format!(
        "{{apiVersion: batch/v1, kind: Job, metadata: {{name: first, namespace: {APPS}}}, spec: {{backoffLimit: 0, \
         completions: {PODS}, parallelism: 4, template: {{spec: {{restartPolicy: Never, \
         initContainers: [{{name: prepare, {calls}}}], containers: [{{name: app, {calls}}}]}}}}}}}}"
    ))?;
    let finished = west.run(&format!("-n {APPS} wait job/first --for=condition=Complete --timeout=120s"));
    for container in ["prepare", "app"] {
        let logs = format!("-n {APPS} logs -l job-name=first -c {container} --tail=-1 --max-log-requests=20");
        let said = west.run(&logs)?;
        let mutual = said.matches("URI=spiffe://cluster.local/ns/shop/sa/default").count();
        ensure!(mutual == PODS, "{mutual} of {PODS} first calls of `{container}` over mutual TLS: {said}");
    }
    finished?;
    let plain = counted(mesh, APPS, "back", 15020, "none")? - before;
    ensure!(plain == 0, "{plain} requests in plaintext");
    west.run(&format!("-n {APPS} delete job first")).map(drop)
}
