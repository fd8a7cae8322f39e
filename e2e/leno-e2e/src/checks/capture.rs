//! What capture must not break: names that are no virtual address, calls to oneself, who has no proxy, what is not TCP.
//!
//! Invariant: each thing is called and its answer says who it was, so that a call that went elsewhere fails.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::traffic::{FRONT, OUTSIDER, is_refused};
use crate::{
    cluster::{Cluster, until},
    mesh::{APPS, Mesh},
};

const SERVERS: &str = include_str!("../../manifests/capture.yaml");
/// The program `kube` is kubectl too.
const KUBECTL: &str = "{apiVersion: v1, kind: Pod, metadata: {name: asks, namespace: shop}, spec: {restartPolicy: Never, containers: [{name: app, \
                       image: \"kube.test/coredns:1\", imagePullPolicy: Never, command: [/kube, kubectl, get, --raw, /version]}]}}";

/// The servers of these checks, until they are ready.
fn prepare(mesh: &Mesh) -> anyhow::Result<()> {
    let west = &mesh.west;
    west.apply(SERVERS)?;
    west.run(&format!("-n {APPS} rollout status statefulset peer --timeout=120s"))?;
    west.rolled_out(APPS, "open")?;
    west.run(&format!("-n {APPS} wait pod hostly --for=condition=Ready --timeout=60s"))?;
    west.run("-n plain wait pod whence --for=condition=Ready --timeout=60s").map(drop)
}

/// An answer: who gave it, and the client's identity as the server saw it.
fn answer(mesh: &Mesh, from: (&str, &str), url: &str) -> anyhow::Result<(Value, Option<String>)> {
    let (status, body) = mesh.west.call(from.0, from.1, url)?;
    ensure!(status == 200, "{url} answers {status}: {body}");
    let body: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
    let certificate = body["headers"]["x-forwarded-client-cert"].as_str().map(str::to_owned);
    Ok((body, certificate))
}

/// Until `front` is answered by this application; over mutual TLS, or not.
fn front_reaches(mesh: &Mesh, url: &str, app: &str, mutual: bool) -> anyhow::Result<()> {
    until(20, || {
        let (body, certificate) = answer(mesh, (APPS, FRONT), url)?;
        ensure!(names(&body, app), "{url} is answered by {body}");
        let seen = certificate.unwrap_or_default();
        ensure!(
            seen.contains("URI=spiffe://cluster.local/ns/shop/sa/front") == mutual,
            "{url} sees `{seen}`"
        );
        Ok(())
    })
}

fn names(body: &Value, who: &str) -> bool {
    body["service"] == who || body["pod"] == who
}

pub(super) fn names_lead(mesh: &Mesh) -> anyhow::Result<()> {
    prepare(mesh)?;
    let suffixed = |name: &str| [format!("{name}.shop"), format!("{name}.shop.svc.cluster.local")];
    for host in [vec!["peer".to_owned()], suffixed("peer").to_vec()].concat() {
        front_reaches(mesh, &format!("http://{host}:8080/"), "peer", true)?;
    }
    for pod in ["peer-0", "peer-1"] {
        for host in [vec![format!("{pod}.peer")], suffixed(&format!("{pod}.peer")).to_vec()].concat() {
            front_reaches(mesh, &format!("http://{host}:8080/"), pod, true)?;
        }
    }
    front_reaches(mesh, "http://alias/", "back", true)?;
    front_reaches(mesh, "http://outside/", "standin", false)
}

/// By its own Service it goes through its proxy as anybody's call does; its own address does not leave the pod.
pub(super) fn hairpin(mesh: &Mesh) -> anyhow::Result<()> {
    front_reaches(mesh, "http://front/", "front", true)?;
    let addresses = mesh.addresses(APPS, "front")?;
    ensure!(addresses.len() == 1, "which of {addresses:?} would call itself?");
    front_reaches(mesh, &format!("http://{}:8080/", addresses[0]), "front", false)?;
    front_reaches(mesh, "http://127.0.0.1:8080/", "front", false)
}

/// From outside the mesh by a node's port, and from the node's own network: plaintext, as the policies say.
pub(super) fn without_proxy(mesh: &Mesh) -> anyhow::Result<()> {
    prepare(mesh)?;
    let nodes = mesh.west.items("node")?;
    for node in &nodes {
        let address = node["status"]["addresses"][0]["address"].as_str().context("a node has no address")?;
        let (open, strict) = (format!("http://{address}:30080/"), format!("http://{address}:30081/"));
        plaintext(mesh, ("plain", OUTSIDER), &open)?;
        is_refused(mesh, "plain", OUTSIDER, &strict)?;
        // To a proxy a node's address is one that the mesh does not know.
        plaintext(mesh, (APPS, FRONT), &open)?;
    }
    for open in ["http://open/", "http://open.shop.svc.cluster.local/"] {
        plaintext(mesh, (APPS, "pod/hostly"), open)?;
    }
    is_refused(mesh, APPS, "pod/hostly", "http://back/")?;
    front_reaches(mesh, "http://hostly/", "hostly", false)
}

fn plaintext(mesh: &Mesh, from: (&str, &str), url: &str) -> anyhow::Result<()> {
    until(20, || {
        let (body, certificate) = answer(mesh, from, url)?;
        ensure!(names(&body, "open"), "{url} is answered by {body}");
        ensure!(certificate.is_none(), "{} reaches {url} over mutual TLS: {body}", from.1);
        Ok(())
    })
}

/// The API server over TLS of its own, and datagrams, whose source is the caller's own address.
pub(super) fn beyond(mesh: &Mesh) -> anyhow::Result<()> {
    prepare(mesh)?;
    let west = &mesh.west;
    west.run(&format!("-n {APPS} delete pod asks --ignore-not-found"))?;
    west.apply(KUBECTL)?;
    let done = west
        .run(&format!("-n {APPS} wait pod/asks --for=jsonpath={{.status.phase}}=Succeeded --timeout=60s"));
    let said = west.run(&format!("-n {APPS} logs asks -c app"))?;
    done.with_context(|| format!("it says `{said}`"))?;
    ensure!(said.contains("gitVersion"), "the API server says {said}");
    west.run(&format!("-n {APPS} delete pod asks"))?;
    let own = mesh.addresses(APPS, "front")?.remove(0);
    for server in ["whence.plain".to_owned(), mesh.addresses("plain", "whence")?.remove(0)] {
        let source = datagram(west, &format!("{server}:9999"))?;
        let address = source.trim().rsplit_once(':').context("no address")?.0;
        ensure!(address == own, "a datagram of {own} to {server} came from {address}");
    }
    Ok(())
}

fn datagram(cluster: &Cluster, to: &str) -> anyhow::Result<String> {
    cluster.run(&format!("-n {APPS} exec {FRONT} -c app -- /usr/bin/leno-standin ask-udp {to}"))
}
