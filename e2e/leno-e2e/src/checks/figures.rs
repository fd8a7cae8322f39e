//! Figures: how fast changes have effect, and what the mesh costs. Nothing is asserted but that they could be measured.
//!
//! Invariant: moments come from one machine's clock; an effect counts from the answer that shows it, a change from before
//! the request that makes it.

use std::{collections::BTreeMap, io::Write as _, thread::sleep, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::change::{route, scale};
use crate::{
    api::Api,
    cgroup,
    cluster::until,
    load::{self, Edge},
    mesh::{APPS, Mesh},
};

const CHANGES: usize = 50;
const STARTS: usize = 4;
const MEASURED: Duration = Duration::from_secs(30);

pub(super) fn all(mesh: &Mesh) -> anyhow::Result<()> {
    load::stop(&mesh.west)?;
    let changes = of_changes(mesh).context("changes of a route");
    let starts = of_starts(mesh).context("from 0 to 1");
    let costs = of_requests(mesh).context("CPU and memory");
    changes.and(starts).and(costs)
}

/// A pod that watches a URL from here on.
fn watch(mesh: &Mesh, namespace: &str, url: &str) -> anyhow::Result<()> {
    mesh.west.run(&format!("-n {namespace} delete pod watch --ignore-not-found"))?;
    mesh.west.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: watch, namespace: {namespace}}}, spec: {{containers: [{{name: app, \
         image: \"leno.test/standin:e2e\", imagePullPolicy: Never, args: [watch, \"{url}\"]}}]}}}}"
    ))?;
    mesh.west.run(&format!("-n {namespace} wait pod watch --for=condition=Ready --timeout=60s")).map(drop)
}

/// What it has seen: moment, status, header.
fn watched(mesh: &Mesh, namespace: &str) -> anyhow::Result<Vec<(f64, u16, String)>> {
    let text = mesh.west.run(&format!("-n {namespace} logs watch -c app"))?;
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let (at, status) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((at, status, words.next().unwrap_or_default().to_owned()))
    };
    text.lines().map(|line| parse(line).with_context(|| format!("it says `{line}`"))).collect()
}

fn of_changes(mesh: &Mesh) -> anyhow::Result<()> {
    route(mesh, "timed")?;
    watch(mesh, APPS, "http://back/timed")?;
    let api = Api::of(&mesh.west)?;
    let mut sent = Vec::new();
    for number in 1..=CHANGES {
        let rules = json!({"spec": {"rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": "/timed"}}],
            "filters": [{"type": "ResponseHeaderModifier",
                         "responseHeaderModifier": {"set": [{"name": "x-route", "value": number.to_string()}]}}],
            "backendRefs": [{"name": "back", "port": 80}],
        }]}});
        let path = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/timed";
        sent.push((number, api.patch(path, &rules.to_string())?));
        sleep(Duration::from_millis(600));
    }
    sleep(Duration::from_secs(2));
    let seen = watched(mesh, APPS)?;
    let effect =
        |number: usize| seen.iter().find(|(_, _, value)| value.parse().is_ok_and(|it: usize| it >= number));
    let (mut from_request, mut from_answer) = (Vec::new(), Vec::new());
    for (number, (before, after)) in sent {
        let (at, ..) = effect(number).with_context(|| format!("change {number} has had no effect"))?;
        from_request.push(at - before);
        from_answer.push((at - after).max(0.0));
    }
    say("a change of a route until its effect, from the request to the API server", &mut from_request);
    say("a change of a route until its effect, from the API server's answer", &mut from_answer);
    mesh.west.run(&format!("-n {APPS} delete httproute/timed pod/watch")).map(drop)
}

fn of_starts(mesh: &Mesh) -> anyhow::Result<()> {
    let places = [APPS, "plain"];
    for namespace in places {
        mesh.west.apply(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: zero, namespace: {namespace}}}, spec: {{selector: {{app: zero}}, \
             ports: [{{name: http, port: 80, targetPort: 8080}}]}}}}\n---\n\
             {{apiVersion: apps/v1, kind: Deployment, metadata: {{name: zero, namespace: {namespace}}}, spec: {{replicas: 0, \
             selector: {{matchLabels: {{app: zero}}}}, template: {{metadata: {{labels: {{app: zero, version: v1}}}}, spec: {{\
             containers: [{{name: app, image: \"leno.test/standin:e2e\", imagePullPolicy: Never, \
             readinessProbe: {{httpGet: {{path: /ready, port: 8080}}, periodSeconds: 1}}}}]}}}}}}}}"
        ))?;
        watch(mesh, namespace, "http://zero/")?;
    }
    let api = Api::of(&mesh.west)?;
    let mut took: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..STARTS {
        for namespace in places {
            let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/zero/scale");
            let (before, _) = api.patch(&path, &json!({"spec": {"replicas": 1}}).to_string())?;
            until(60, || {
                let seen = watched(mesh, namespace)?;
                let first = seen.iter().find(|(at, status, _)| *at > before && *status == 200);
                took.entry(namespace).or_default().push(first.context("no success")?.0 - before);
                Ok(())
            })?;
            scale(&mesh.west, namespace, "zero", 0)?;
        }
    }
    for (namespace, what) in [(APPS, "in the mesh"), ("plain", "without a mesh")] {
        say(&format!("from 0 to 1 until the first success {what}"), took.entry(namespace).or_default());
        mesh.west.run(&format!("-n {namespace} delete deployment/zero service/zero pod/watch"))?;
    }
    Ok(())
}

/// At 1,000 requests a second: the proxies' containers of callers and servers, and the control plane's.
fn of_requests(mesh: &Mesh) -> anyhow::Result<()> {
    let edge = Edge {
        name: "thousand",
        server: "back",
        path: "/?x-leno-body-bytes=1024",
        rate: 500,
        node: None,
        address: None,
    };
    edge.start(&mesh.west)?;
    let mut callers = containers(mesh, APPS, "app=load", "istio-proxy")?;
    let servers = containers(mesh, APPS, "app=back", "istio-proxy")?;
    let control = containers(mesh, "leno-system", "app=leno-control", "leno-control")?;
    let mut spent = 0.0;
    let seen = edge.counted(&mesh.west, || {
        callers.extend(servers.iter().cloned());
        let before = cpu(&callers)?;
        let idle = cpu(&control)?;
        sleep(MEASURED);
        spent = cpu(&callers)? - before;
        let of_control = (cpu(&control)? - idle) / MEASURED.as_secs_f64();
        print(&format!("control plane, nothing changing: {of_control:.4} cores, both replicas"));
        Ok(())
    })?;
    let rate: f64 = seen.iter().map(|seen| seen.rate).sum();
    let per_request = spent * 1e6 / (rate * MEASURED.as_secs_f64());
    print(&format!("both sidecars at {rate:.0} requests/s: {per_request:.0} us of CPU a request"));
    for (what, of) in [("a sidecar", &callers), ("a control plane", &control)] {
        let mut memory = of.iter().map(|id| cgroup::memory(id)).collect::<anyhow::Result<Vec<_>>>()?;
        memory.sort_by(f64::total_cmp);
        let (least, most) = (memory.first().context("none")?, memory.last().context("none")?);
        print(&format!("memory of {what}: {least:.1}-{most:.1} MiB ({} of them)", memory.len()));
    }
    load::stop(&mesh.west)
}

fn cpu(containers: &[String]) -> anyhow::Result<f64> {
    containers.iter().map(|id| cgroup::cpu(id)).sum()
}

/// The ids of a container of all pods that a selector means.
fn containers(mesh: &Mesh, namespace: &str, selector: &str, name: &str) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    for pod in mesh.west.items(&format!("pod -n {namespace} -l {selector}"))? {
        let all = ["initContainerStatuses", "containerStatuses"].map(|of| pod["status"][of].as_array());
        let mut all = all.into_iter().flatten().flatten();
        let id = all.find(|it| it["name"] == name).and_then(|it: &Value| it["containerID"].as_str());
        let id = id.with_context(|| format!("a pod of {selector} has no {name}"))?;
        ids.push(id.trim_start_matches("containerd://").to_owned());
    }
    ensure!(!ids.is_empty(), "no pods of {selector}");
    Ok(ids)
}

fn say(what: &str, milliseconds: &mut [f64]) {
    milliseconds.sort_by(f64::total_cmp);
    let Some(last) = milliseconds.len().checked_sub(1) else { return };
    let at = |percent: usize| milliseconds[(last * percent).div_ceil(100)];
    print(&format!(
        "{what}: p50 {:.0} ms, p99 {:.0} ms, {:.0}-{:.0} ms, {} times",
        at(50),
        at(99),
        at(0),
        at(100),
        last + 1
    ));
}

fn print(line: &str) {
    let _closed = writeln!(std::io::stdout(), "# {line}");
}
