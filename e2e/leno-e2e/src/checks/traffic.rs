//! Who may call whom, and what is told of it.

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::{
    cluster::until,
    mesh::{APPS, Mesh},
};

pub(super) const FRONT: &str = "deploy/front";
pub(super) const OUTSIDER: &str = "deploy/outsider";
const OF_DOOR: &str = "gateway.networking.k8s.io/gateway-name=door";

/// The client certificate that `back` is told of, as seen in its answer to a call.
fn seen_by_back(mesh: &Mesh, url: &str) -> anyhow::Result<String> {
    let (status, body) = mesh.west.call(APPS, FRONT, url)?;
    ensure!(status == 200, "{url} answers {status}: {body}");
    let answer: Value = serde_json::from_str(&body)?;
    ensure!(answer["service_account"] == "back", "somebody else answered: {body}");
    let seen = answer["headers"]["x-forwarded-client-cert"].as_str();
    Ok(seen.with_context(|| format!("{url}: no client certificate: {body}"))?.to_owned())
}

fn is_from_front(seen: &str) -> bool {
    seen == "By=spiffe://cluster.local/ns/shop/sa/back;URI=spiffe://cluster.local/ns/shop/sa/front"
}

pub(super) fn identity(mesh: &Mesh) -> anyhow::Result<()> {
    for host in ["back", "back.shop", "back.shop.svc.cluster.local"] {
        let seen = seen_by_back(mesh, &format!("http://{host}/"))?;
        ensure!(is_from_front(&seen), "{host} sees {seen}");
    }
    Ok(())
}

pub(super) fn capture(mesh: &Mesh) -> anyhow::Result<()> {
    for app in ["front", "back"] {
        for address in mesh.addresses(APPS, app)? {
            let metrics = metrics_of(mesh, &address, 15020)?;
            let works = |line: &str| line.starts_with("leno_capture_works") && line.ends_with(" 1");
            ensure!(metrics.lines().any(works), "{app} at {address} does not say so: {metrics}");
        }
    }
    for address in mesh.addresses("plain", "outsider")? {
        let (status, body) = mesh.west.call(APPS, FRONT, &format!("http://{address}:8080/"))?;
        ensure!(status == 200, "what the mesh does not know answers {status}: {body}");
    }
    // A pod's address belongs to no service, so nobody tells the client's proxy to speak mutual TLS (as in Istio).
    for address in mesh.addresses(APPS, "back")? {
        is_refused(mesh, APPS, FRONT, &format!("http://{address}:8080/"))?;
    }
    Ok(())
}

pub(super) fn metrics_of(mesh: &Mesh, address: &str, port: u16) -> anyhow::Result<String> {
    let (status, body) =
        mesh.west.call("plain", OUTSIDER, &format!("http://{address}:{port}/stats/prometheus"))?;
    ensure!(status == 200, "{address}:{port} answers {status}");
    Ok(body)
}

/// Requests that the servers of an application have counted, by how they came.
pub(super) fn counted(
    mesh: &Mesh,
    namespace: &str,
    app: &str,
    port: u16,
    security: &str,
) -> anyhow::Result<u64> {
    counted_as(mesh, "istio_requests_total", namespace, app, port, security)
}

/// The same of any metric.
pub(super) fn counted_as(
    mesh: &Mesh,
    metric: &str,
    namespace: &str,
    app: &str,
    port: u16,
    security: &str,
) -> anyhow::Result<u64> {
    let mut sum = 0;
    for address in mesh.addresses(namespace, app)? {
        for line in metrics_of(mesh, &address, port)?.lines() {
            let ours = line.strip_prefix(metric).is_some_and(|rest| rest.starts_with('{'))
                && line.contains("reporter=\"destination\"")
                && line.contains(&format!("connection_security_policy=\"{security}\""));
            if ours {
                sum += line.rsplit(' ').next().context("no value")?.parse::<u64>()?;
            }
        }
    }
    Ok(sum)
}

pub(super) fn metrics(mesh: &Mesh) -> anyhow::Result<()> {
    for port in [15020, 15090] {
        let before = counted(mesh, APPS, "back", port, "mutual_tls")?;
        for _ in 0..3 {
            seen_by_back(mesh, "http://back/")?;
        }
        let after = counted(mesh, APPS, "back", port, "mutual_tls")?;
        ensure!(after == before + 3, "{port}: {before} requests before three calls, {after} after");
        let plain = counted(mesh, APPS, "back", port, "none")?;
        ensure!(plain == 0, "{port}: {plain} requests in plaintext under STRICT");
    }
    Ok(())
}

/// The connection is closed; that the address is right, `identity` and `capture` show.
pub(super) fn is_refused(mesh: &Mesh, namespace: &str, from: &str, url: &str) -> anyhow::Result<()> {
    match mesh.west.call(namespace, from, url) {
        Ok((status, body)) => bail!("{url} answers {from} {status}: {body}"),
        Err(error) if format!("{error:#}").contains("no response") => Ok(()),
        Err(error) => Err(error.context(format!("{url} is not refused but fails otherwise"))),
    }
}

pub(super) fn strict(mesh: &Mesh) -> anyhow::Result<()> {
    is_refused(mesh, "plain", OUTSIDER, "http://back.shop/")?;
    for address in mesh.addresses(APPS, "back")? {
        is_refused(mesh, "plain", OUTSIDER, &format!("http://{address}:8080/"))?;
    }
    Ok(())
}

pub(super) fn job(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.west.run(&format!("-n {APPS} delete job once --ignore-not-found"))?;
    mesh.west.apply(
        "{apiVersion: batch/v1, kind: Job, metadata: {name: once, namespace: shop}, spec: {backoffLimit: 0, template: {spec: {restartPolicy: Never, \
         containers: [{name: app, image: \"leno.test/standin:e2e\", imagePullPolicy: Never, args: [get, \"http://back/\"]}]}}}}",
    )?;
    let finished = mesh.west.run(&format!("-n {APPS} wait job/once --for=condition=Complete --timeout=90s"));
    let said = mesh.west.run(&format!("-n {APPS} logs job/once -c app"))?;
    finished.with_context(|| format!("it says `{said}`"))?;
    ensure!(said.contains("spiffe://cluster.local/ns/shop/sa/default"), "{said}");
    mesh.west.run(&format!("-n {APPS} delete job once")).map(drop)
}

pub(super) fn probes(mesh: &Mesh) -> anyhow::Result<()> {
    for pod in mesh.west.items(&format!("pod -n {APPS}"))? {
        for status in ["containerStatuses", "initContainerStatuses"] {
            for container in pod["status"][status].as_array().into_iter().flatten() {
                ensure!(container["restartCount"] == 0, "{} of {}", container, pod["metadata"]["name"]);
            }
        }
    }
    let events = mesh.west.items(&format!("event -n {APPS} --field-selector=reason=Unhealthy"))?;
    let of_liveness =
        events.iter().filter(|it| it["message"].as_str().is_some_and(|it| it.contains("Liveness")));
    let messages: Vec<_> = of_liveness.map(|event| event["message"].to_string()).collect();
    ensure!(messages.is_empty(), "{}", messages.join("; "));
    Ok(())
}

pub(super) fn permissive(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.west.apply(
        "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: back, namespace: shop}, spec: {\
         selector: {matchLabels: {app: back}}, mtls: {mode: PERMISSIVE}}}",
    )?;
    let both = until(20, || {
        let (plain, mutual) =
            (counted(mesh, APPS, "back", 15020, "none")?, counted(mesh, APPS, "back", 15020, "mutual_tls")?);
        let (status, body) = mesh.west.call("plain", OUTSIDER, "http://back.shop/")?;
        ensure!(status == 200 && !body.contains("spiffe://"), "{status} {body}");
        seen_by_back(mesh, "http://back/")?;
        ensure!(counted(mesh, APPS, "back", 15020, "none")? > plain, "plaintext is not counted");
        ensure!(counted(mesh, APPS, "back", 15020, "mutual_tls")? > mutual, "mutual TLS is not counted");
        Ok(())
    });
    mesh.west.run(&format!("-n {APPS} delete peerauthentication back"))?;
    both?;
    until(20, || strict(mesh)).context("after PERMISSIVE was taken away")
}

/// From outside the mesh; what is made for the Gateway goes with it.
pub(super) fn gateway(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.west.apply(
        "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: door, namespace: shop}, spec: {gatewayClassName: leno, \
         listeners: [{name: http, port: 80, protocol: HTTP}]}}\n---\n\
         {apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: door, namespace: shop}, spec: {parentRefs: [{name: door}], \
         rules: [{backendRefs: [{name: back, port: 80}]}]}}",
    )?;
    let mut address = String::new();
    until(60, || {
        let status = mesh.west.get(&format!("gateway -n {APPS} door"))?["status"].take();
        let first = status["addresses"][0]["value"].as_str();
        first.with_context(|| format!("no address: {status}"))?.clone_into(&mut address);
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let programmed =
            conditions.into_iter().any(|it| it["type"] == "Programmed" && it["status"] == "True");
        ensure!(programmed, "not programmed: {status}");
        mesh.west.rolled_out(APPS, "door-leno")
    })?;
    let service = mesh.west.get(&format!("service -n {APPS} door-leno"))?;
    let given = &service["status"]["loadBalancer"]["ingress"][0]["ip"];
    ensure!(*given == address, "the Gateway's address is {address}, its Service's {given}");
    until(20, || {
        let (status, body) = mesh.west.call("plain", OUTSIDER, &format!("http://{address}/"))?;
        ensure!(status == 200 && body.contains("\"service_account\":\"back\""), "{status} {body}");
        ensure!(body.contains("URI=spiffe://cluster.local/ns/shop/sa/door-leno"), "the backend sees {body}");
        Ok(())
    })?;
    mesh.west.run(&format!("-n {APPS} delete gateway/door httproute/door"))?;
    until(60, || {
        let left = mesh.west.items(&format!("deployment,service -n {APPS} -l {OF_DOOR}"))?;
        ensure!(left.is_empty(), "it is gone, and these are not: {left:?}");
        Ok(())
    })
}

pub(super) fn selective(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.west.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: bare, namespace: shop, labels: {app: bare, leno.dev/inject: disabled}}\n\
         spec: {containers: [{name: app, image: \"leno.test/standin:e2e\", imagePullPolicy: Never, env: [{name: APP, value: bare}]}]}\n---\n\
         {apiVersion: v1, kind: Service, metadata: {name: bare, namespace: shop}, spec: {selector: {app: bare}, ports: [{name: http, port: 80, targetPort: 8080}]}}",
    )?;
    mesh.west.run(&format!("-n {APPS} wait pod/bare --for=condition=Ready --timeout=60s"))?;
    let pod = mesh.west.get(&format!("pod -n {APPS} bare"))?;
    ensure!(pod["spec"]["initContainers"].is_null(), "it has a proxy");
    is_refused(mesh, APPS, "pod/bare", "http://back/")?;
    until(20, || {
        let (status, body) = mesh.west.call(APPS, FRONT, "http://bare/")?;
        ensure!(status == 200 && body.contains("\"service\":\"bare\""), "{status} {body}");
        Ok(())
    })?;
    mesh.west.run(&format!("-n {APPS} delete pod/bare service/bare")).map(drop)
}
