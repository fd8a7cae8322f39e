//! Two clusters as one mesh: over two networks, when one of them has no server left, and over a flat network.
//!
//! `far` has a Service in both clusters and pods in east only; `back` has pods in both.

use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::change::scale;
use crate::{
    authority,
    cluster::{Cluster, kube, said, until},
    load,
    mesh::{APPS, Mesh, crds, deploy_to},
};

const FAR_SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: far, namespace: shop}, spec: {selector: {app: far}, ports: [{name: http, port: 80, targetPort: 8080}]}}";
const FAR: &str = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: far, namespace: shop}}\n---\n\
    {apiVersion: apps/v1, kind: Deployment, metadata: {name: far, namespace: shop}, spec: {selector: {matchLabels: {app: far}}, template: {\
    metadata: {labels: {app: far}}, spec: {serviceAccountName: far, containers: [{name: app, image: \"leno.test/standin:e2e\", imagePullPolicy: Never, \
    env: [{name: APP, value: far}], ports: [{containerPort: 8080}], readinessProbe: {grpc: {port: 8080}, periodSeconds: 1}}]}}}}";

fn east(mesh: &Mesh) -> anyhow::Result<&Cluster> {
    mesh.east.as_ref().context("east is not up")
}

/// The values of one of the clusters, as the guide has them.
fn values(cluster: &Cluster, network: &str, peer: Option<(&Cluster, &str)>) -> String {
    let (region, replicas) = if cluster.name == "west" { ("us-west-2", 2) } else { ("us-east-1", 1) };
    let peers = peer.map_or(String::new(), |(other, address)| {
        format!("peers: [{{cluster: {}, addresses: [{address}]}}]\n", other.name)
    });
    format!(
        "cluster: {}\nnetwork: \"{network}\"\nregion: {region}\nreplicas: {replicas}\n{peers}discovery: {{expose: true}}\n\
         eastWest: {{enabled: {}, replicas: 1}}\nimage: {{registry: leno.test, tag: e2e, pullPolicy: Never}}\n",
        cluster.name,
        !network.is_empty(),
    )
}

/// Where a Service's load balancer answers.
fn address(cluster: &Cluster, service: &str) -> anyhow::Result<String> {
    let mut address = String::new();
    until(30, || {
        let service = cluster.get(&format!("service -n leno-system {service}"))?;
        let given = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
        given.context("its load balancer has no address")?.clone_into(&mut address);
        Ok(())
    })
    .with_context(|| format!("{service} of {}", cluster.name))?;
    Ok(address)
}

/// Both clusters know each other, in these networks.
fn join(mesh: &Mesh, [of_west, of_east]: [&str; 2]) -> anyhow::Result<()> {
    let (west, east) = (&mesh.west, east(mesh)?);
    let known = [address(west, "leno-control-peers")?, address(east, "leno-control-peers")?];
    mesh.install_into(west, &values(west, of_west, Some((east, &known[1]))))?;
    mesh.install_into(east, &values(east, of_east, Some((west, &known[0]))))
}

/// A call of `front` in west; the answer.
fn call(mesh: &Mesh, url: &str) -> anyhow::Result<Value> {
    let (status, body) = mesh.west.call(APPS, "deploy/front", url)?;
    ensure!(status == 200, "{url} answers {status}: {body}");
    serde_json::from_str(&body).with_context(|| format!("{url} answers {body}"))
}

/// `far` answers, is told that `front` calls, and its proxy counts what came from west over mutual TLS.
fn far_answers(mesh: &Mesh) -> anyhow::Result<()> {
    let answer = call(mesh, "http://far/")?;
    ensure!(answer["service_account"] == "far", "somebody else answered: {answer}");
    let seen = &answer["headers"]["x-forwarded-client-cert"];
    ensure!(
        *seen == "By=spiffe://cluster.local/ns/shop/sa/far;URI=spiffe://cluster.local/ns/shop/sa/front",
        "far sees {seen}"
    );
    let before = counted(east(mesh)?)?;
    for _ in 0..3 {
        call(mesh, "http://far.shop.svc.cluster.local/")?;
    }
    let after = counted(east(mesh)?)?;
    ensure!(after == before + 3, "{before} requests before three calls, {after} after");
    Ok(())
}

/// Requests from west that `far` has counted, over mutual TLS.
fn counted(east: &Cluster) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pod in east.items(&format!("pod -n {APPS} -l app=far"))? {
        let address = pod["status"]["podIP"].as_str().context("a pod has no address")?;
        let url = format!("http://{address}:15020/stats/prometheus");
        let (status, body) = east.call("plain", "deploy/outsider", &url)?;
        ensure!(status == 200, "{address} answers {status}");
        for line in body.lines().filter(|line| line.starts_with("istio_requests_total{")) {
            let wanted = [
                "reporter=\"destination\"",
                "connection_security_policy=\"mutual_tls\"",
                "source_cluster=\"west\"",
                "source_principal=\"spiffe://cluster.local/ns/shop/sa/front\"",
            ];
            if wanted.into_iter().all(|label| line.contains(label)) {
                sum += line.rsplit(' ').next().context("no value")?.parse::<u64>()?;
            }
        }
    }
    Ok(sum)
}

pub(super) fn networks(mesh: &Mesh) -> anyhow::Result<()> {
    let (west, east) = (&mesh.west, east(mesh)?);
    crds(east)?;
    authority::plug_in(east, &mesh.evidence)?;
    // Where they are reached is known when they are there.
    mesh.install_into(east, &values(east, "east", None))?;
    mesh.install_into(west, &values(west, "west", None))?;
    deploy_to(east)?;
    east.apply(FAR)?;
    for cluster in [west, east] {
        cluster.apply(FAR_SERVICE)?;
    }
    east.rolled_out(APPS, "far")?;
    join(mesh, ["west", "east"])?;
    until(60, || far_answers(mesh))?;
    let said = mesh.leno("check")?;
    for wanted in ["control planes of other clusters come in at", "the control plane hears the cluster east"]
    {
        ensure!(said.contains(wanted), "no line `{wanted}` in what `leno check` says: {said}");
    }
    // That it goes by the gateway is seen when there is none.
    scale(east, "leno-system", "leno-eastwest", 0)?;
    let without = mesh.west.call(APPS, "deploy/front", "http://far/");
    scale(east, "leno-system", "leno-eastwest", 1)?;
    ensure!(matches!(without, Ok((503, _))), "without the gateway: {without:?}");
    until(30, || far_answers(mesh)).context("with a new gateway")
}

pub(super) fn failover(mesh: &Mesh) -> anyhow::Result<()> {
    let answers_in = |cluster: &Cluster| {
        until(30, || {
            let pods = cluster.items(&format!("pod -n {APPS} -l app=back"))?;
            let answer = call(mesh, "http://back/")?;
            let ours = pods.iter().any(|pod| pod["metadata"]["name"] == answer["pod"]);
            ensure!(ours, "no pod of {} answered: {answer}", cluster.name);
            Ok(())
        })
    };
    answers_in(&mesh.west).context("servers here come first")?;
    load::unharmed(&mesh.west, || {
        scale(&mesh.west, APPS, "back", 0)?;
        answers_in(east(mesh)?)?;
        // New control planes know nothing at first, of pods or of each other.
        for cluster in [&mesh.west, east(mesh)?] {
            cluster.run("-n leno-system rollout restart deployment leno-control")?;
            cluster.rolled_out("leno-system", "leno-control")?;
        }
        scale(&mesh.west, APPS, "back", 2)?;
        answers_in(&mesh.west).context("after they have come back")
    })
}

pub(super) fn flat(mesh: &Mesh) -> anyhow::Result<()> {
    let (west, east) = (&mesh.west, east(mesh)?);
    let routed = ["flat", west.name, east.name];
    said(&routed, &Command::new(kube()).args(routed).output()?)?;
    join(mesh, ["", ""])?;
    for cluster in [west, east] {
        cluster.run("-n leno-system delete service,deployment,pdb,serviceaccount -l app=leno-eastwest")?;
    }
    until(60, || {
        let left = east.items("pod -n leno-system -l app=leno-eastwest")?;
        ensure!(left.is_empty(), "{} gateways are left", left.len());
        Ok(())
    })?;
    until(60, || far_answers(mesh))
}
