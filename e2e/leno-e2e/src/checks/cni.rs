//! Capture by a CNI plugin: a revision of its own, whose agent runs on one node.
//!
//! Both nodes of a test cluster have the machine's folders, so one agent only can have its socket there.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::traffic::{is_refused, metrics_of};
use crate::{
    cluster::until,
    mesh::{APPS, Mesh},
};

const BOXED: &str = "boxed";
const MANIFESTS: &str = include_str!("../../manifests/boxed.yaml");
const FRONT: &str = "deploy/front";
/// The DaemonSet, and the plugin's program on the node.
const AGENT: &str = "leno-cni-plugin";

/// A part of the check; it is told what the configuration was.
type Step = fn(&Mesh, &str) -> anyhow::Result<()>;

/// Everything about it, and the node as it was, whatever happens.
pub(super) fn plugin(mesh: &Mesh) -> anyhow::Result<()> {
    let file = configuration();
    let before = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let held = install(mesh).and_then(|()| {
        let steps: [(&str, Step); 4] = [
            ("pods have no privilege and are captured", |mesh, _| captured(mesh)),
            ("the agent is away", |mesh, _| agent_is_away(mesh)),
            ("the configuration is rewritten", rewritten),
            ("a pod starts uncaptured", uncaptured),
        ];
        steps.into_iter().try_for_each(|(what, step)| step(mesh, &before).context(what))
    });
    let removed = remove(mesh, &before);
    held?;
    removed
}

/// The node's CNI configuration, as its cluster's own plugin has it.
fn configuration() -> PathBuf {
    let state = std::env::var("KUBE_STATE").unwrap_or_else(|_| "/var/tmp/kube".to_owned());
    PathBuf::from(state).join("clusters/west/0/cni/10-bridge.conflist")
}

/// What a second control plane is installed with, that captures by a plugin on one node.
fn values() -> anyhow::Result<Vec<String>> {
    let folder = configuration().parent().context("no folder")?.display().to_string();
    let set = [
        "revision=plugin".to_owned(),
        "replicas=1".to_owned(),
        "injection.capture=cni".to_owned(),
        "cni.binDir=/usr/lib/cni".to_owned(),
        format!("cni.confDir={folder}"),
        "cni.nodeSelector={kubernetes.io/hostname: west-0}".to_owned(),
    ];
    Ok(set.into_iter().flat_map(|set| ["--set".to_owned(), set]).collect())
}

fn leno(mesh: &Mesh, command: &str) -> anyhow::Result<String> {
    let values = values()?;
    mesh.leno_with(command, &values.iter().map(String::as_str).collect::<Vec<_>>())
}

fn install(mesh: &Mesh) -> anyhow::Result<()> {
    let steps = leno(mesh, "install")?;
    let ready = format!("ready   DaemonSet kube-system/{AGENT}");
    ensure!(steps.contains(&ready), "no line `{ready}` in what `leno install` says: {steps}");
    mesh.west.apply(MANIFESTS)?;
    for deployment in ["front", "back"] {
        mesh.west.rolled_out(BOXED, deployment)?;
    }
    let said = leno(mesh, "check")?;
    ensure!(said.contains("the CNI plugin is in place on 1 of 1 nodes"), "{said}");
    Ok(())
}

/// That the namespace is held to the restricted level, the API server has seen to.
fn captured(mesh: &Mesh) -> anyhow::Result<()> {
    for pod in mesh.west.items(&format!("pod -n {BOXED}"))? {
        let init = &pod["spec"]["initContainers"];
        let names: Vec<_> = init.as_array().into_iter().flatten().map(|it| &it["name"]).collect();
        ensure!(names == ["istio-proxy"], "{}: {names:?}", pod["metadata"]["name"]);
        ensure!(!pod["spec"].to_string().contains("NET_ADMIN"), "{pod}");
    }
    for app in ["front", "back"] {
        for address in mesh.addresses(BOXED, app)? {
            let metrics = metrics_of(mesh, &address, 15020)?;
            let works = |line: &str| line.starts_with("leno_capture_works") && line.ends_with(" 1");
            ensure!(metrics.lines().any(works), "{app} at {address} does not say so: {metrics}");
            is_refused(mesh, "plain", "deploy/outsider", &format!("http://{address}:8080/"))?;
        }
    }
    calls(mesh)?;
    // Captured by an init container, of the other revision.
    let (status, body) = mesh.west.call(BOXED, FRONT, &format!("http://back.{APPS}/"))?;
    ensure!(
        status == 200 && body.contains("URI=spiffe://cluster.local/ns/boxed/sa/front"),
        "{status} {body}"
    );
    Ok(())
}

fn calls(mesh: &Mesh) -> anyhow::Result<()> {
    let (status, body) = mesh.west.call(BOXED, FRONT, "http://back/")?;
    let seen = "By=spiffe://cluster.local/ns/boxed/sa/back;URI=spiffe://cluster.local/ns/boxed/sa/front";
    ensure!(status == 200 && body.contains(seen), "{status} {body}");
    Ok(())
}

/// Running pods do not notice; of new ones only the mesh's wait, and go on by themselves.
fn agent_is_away(mesh: &Mesh) -> anyhow::Result<()> {
    agents(mesh, false)?;
    ensure!(fs::read_to_string(configuration())?.contains(AGENT), "a restart has taken the entry out");
    calls(mesh)?;
    for namespace in ["plain", "kube-system"] {
        pod(mesh, namespace, "other")?;
        ready(mesh, namespace, "other").context("it is not of the mesh")?;
        mesh.west.run(&format!("-n {namespace} delete pod other --grace-period=1"))?;
    }
    pod(mesh, BOXED, "late")?;
    until(60, || {
        let events =
            mesh.west.items(&format!("event -n {BOXED} --field-selector=involvedObject.name=late"))?;
        let told = |event: &Value| {
            let message = event["message"].as_str().unwrap_or_default();
            message.contains("leno's agent on this node") && message.contains("boxed/late")
        };
        ensure!(events.iter().any(told), "kubelet is not told why: {events:?}");
        Ok(())
    })?;
    agents(mesh, true)?;
    ready(mesh, BOXED, "late").context("the agent is back")?;
    let (status, body) = mesh.west.call(BOXED, "pod/late", "http://back/")?;
    ensure!(status == 200 && body.contains("spiffe://cluster.local/ns/boxed/sa/default"), "{status} {body}");
    calls(mesh)?;
    mesh.west.run(&format!("-n {BOXED} delete pod late --grace-period=1")).map(drop)
}

/// As the cluster's own plugin does when it starts again.
fn rewritten(_: &Mesh, before: &str) -> anyhow::Result<()> {
    fs::write(configuration(), before)?;
    until(20, || {
        let text = fs::read_to_string(configuration())?;
        ensure!(text.contains(AGENT), "it is not mended: {text}");
        Ok(())
    })
}

/// Started where the plugin was not in place, its proxy is not ready, and `leno check` says why.
fn uncaptured(mesh: &Mesh, before: &str) -> anyhow::Result<()> {
    agents(mesh, false)?;
    fs::write(configuration(), before)?;
    pod(mesh, BOXED, "bare")?;
    until(90, || match leno(mesh, "check") {
        Ok(said) => bail!("it finds nothing: {said}"),
        Err(error) => {
            let said = format!("{error:#}");
            let named = said.lines().any(|line| {
                line.contains("pod boxed/bare")
                    && line.contains("is not captured")
                    && line.contains("kubectl delete pod")
            });
            ensure!(named, "{said}");
            Ok(())
        }
    })?;
    let pod = mesh.west.get(&format!("pod -n {BOXED} bare"))?;
    ensure!(pod["status"]["initContainerStatuses"][0]["ready"] != true, "its proxy is ready: {pod}");
    mesh.west.run(&format!("-n {BOXED} delete pod bare --grace-period=1"))?;
    agents(mesh, true)
}

/// Nothing is left but the program, which a runtime may still call at the end of a pod.
fn remove(mesh: &Mesh, before: &str) -> anyhow::Result<()> {
    mesh.west.run(&format!("delete namespace {BOXED} --ignore-not-found --timeout=120s"))?;
    leno(mesh, "uninstall")?;
    until(60, || {
        let text = fs::read_to_string(configuration())?;
        ensure!(text == before, "the node's configuration is not restored: {text}");
        Ok(())
    })?;
    let folder = configuration();
    let names = fs::read_dir(folder.parent().context("no folder")?)?;
    let names: Vec<_> = names.map(|entry| Ok(entry?.file_name())).collect::<anyhow::Result<_>>()?;
    ensure!(names == ["10-bridge.conflist"], "{names:?}");
    let left = mesh.west.items("daemonset,role,rolebinding,serviceaccount -n kube-system -l app=leno-cni")?;
    ensure!(left.is_empty(), "{left:?}");
    let _never_installed = fs::remove_file(PathBuf::from("/usr/lib/cni").join(AGENT));
    Ok(())
}

/// Takes the agent away, as a restart does, or lets it come back.
fn agents(mesh: &Mesh, wanted: bool) -> anyhow::Result<()> {
    let nowhere = if wanted { "null" } else { "\"nowhere\"" };
    let patch = format!(
        "{{\"spec\":{{\"template\":{{\"spec\":{{\"nodeSelector\":{{\"leno.dev/none\":{nowhere}}}}}}}}}}}"
    );
    mesh.west.ctl(&["-n", "kube-system", "patch", "daemonset", AGENT, "-p", &patch])?;
    until(60, || {
        let pods = mesh.west.items("pod -n kube-system -l app=leno-cni")?;
        let ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
        let there = pods.iter().filter(|pod| ready(pod)).count();
        ensure!(
            pods.len() == usize::from(wanted) && there == pods.len(),
            "{there} of {} agents are ready",
            pods.len()
        );
        Ok(())
    })
}

/// A pod on the agent's node, that meets the restricted level.
fn pod(mesh: &Mesh, namespace: &str, name: &str) -> anyhow::Result<()> {
    mesh.west.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{nodeSelector: {{kubernetes.io/hostname: west-0}}, \
         securityContext: {{runAsNonRoot: true, runAsUser: 1000, seccompProfile: {{type: RuntimeDefault}}}}, containers: [{{name: app, \
         image: \"leno.test/standin:e2e\", imagePullPolicy: Never, securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}}}]}}}}"
    ))
}

fn ready(mesh: &Mesh, namespace: &str, name: &str) -> anyhow::Result<()> {
    mesh.west.run(&format!("-n {namespace} wait pod {name} --for=condition=Ready --timeout=120s")).map(drop)
}
